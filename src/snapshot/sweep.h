/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sweep.h - every byte of a file of a view, once, with several threads.
 *
 * What export writes and verify checks. The file is cut into chunks of a few MiB that the
 * threads take in order, so that sources are read forward; each thread has a buffer and a
 * scratch of its own. The first failure ends the sweep.
 */
#ifndef GF_SNAPSHOT_SWEEP_H
#define GF_SNAPSHOT_SWEEP_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "snapshot/snapshot.h"

/* One chunk. Called by several threads at once, in no fixed order. */
typedef int gf_sweep_fn(void *ctx, uint64_t off, const uint8_t *buf, size_t len,
                        struct gf_err *err);

/* jobs: threads at most; 0: as many as this process may use processors, up to 16. */
int gf_sweep(const struct gf_vdir *dir, const struct gf_vfile *file, unsigned jobs,
             gf_sweep_fn *fn, void *ctx, struct gf_err *err);

/* Reads [off, off + len) into buf, or says which source failed where. */
int gf_sweep_read(const struct gf_vdir *dir, const struct gf_vfile *file, uint64_t off,
                  size_t len, void *buf, struct gf_scratch *scratch, struct gf_err *err);

#endif
