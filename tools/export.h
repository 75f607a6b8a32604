/* SPDX-License-Identifier: Apache-2.0 */
/*
 * export.h - writes a view's directory to disk: what export and snapshot do.
 *
 * The files appear together, once all are on disk; a failure, SIGINT or SIGTERM leaves nothing
 * behind (stage.h).
 */
#ifndef GF_TOOLS_EXPORT_H
#define GF_TOOLS_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "tools/cmd.h"

struct gf_export_result {
    uint64_t bytes;
    double seconds;
};

/* `source` as the user gave it: DEST must not contain it. replace: what is in DEST may go.
 * jobs: threads, 0: one for each processor. */
int gf_export_write(const struct gf_opened *from, const char *dest, const char *source,
                    bool replace, unsigned jobs, struct gf_export_result *ret,
                    struct gf_err *err);

/* From now on SIGINT, SIGTERM and SIGHUP end the writing, and gf_export_is_stopped() tells. */
void gf_export_catch_signals(void);
bool gf_export_is_stopped(void);

#endif
