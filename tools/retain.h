/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retain.h - the checkpoints that `gatherfs snapshot` has written into a directory.
 *
 *     DEST/checkpoint-40/              whole, or not there
 *     DEST/checkpoint-60/
 *     DEST/latest -> checkpoint-60
 *     DEST/best -> checkpoint-40       by a metric
 *     DEST/.gatherfs-snapshots.json    which of them are ours, with their metrics
 *
 * Only what that list names is ever deleted; a trainer's own checkpoints may stand beside.
 */
#ifndef GF_TOOLS_RETAIN_H
#define GF_TOOLS_RETAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/vec.h"

struct gf_kept {
    uint64_t step;
    bool has_metric;
    double metric;
};

struct gf_retain {
    const char *dest;
    const char *metric;                 /* --best, or NULL */
    bool max;                           /* the greater the better */
    struct GF_VEC(struct gf_kept) list; /* in the order they were written */
};

/* Makes DEST if need be, and reads its list. dest and metric are borrowed. */
int gf_retain_open(const char *dest, const char *metric, bool max, struct gf_retain *ret,
                   struct gf_err *err);
void gf_retain_done(struct gf_retain *retain);

/* DEST/checkpoint-STEP, to be freed. *ret_ours: it is there, and on the list. */
int gf_retain_path(const struct gf_retain *retain, uint64_t step, char **ret,
                   bool *ret_ours, struct gf_err *err);

/* That one is on disk now: the list and the links follow, and of what is ours all but the
 * newest `keep` (0: all stay) and the best are deleted. */
int gf_retain_add(struct gf_retain *retain, const struct gf_kept *fresh, uint64_t keep,
                  struct gf_err *err);

#endif
