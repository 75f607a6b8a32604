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
 * Only what that list names is ever deleted; a trainer's own checkpoints may stand beside. The
 * list knows a directory by its inode, the time it was made, and the files written into it:
 * another one of that name, a link to one, or one with anything else in it is not ours any
 * more. An entry is on the list before its directory is.
 */
#ifndef GF_TOOLS_RETAIN_H
#define GF_TOOLS_RETAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/vec.h"
#include "snapshot/snapshot.h"

struct gf_kept {
    uint64_t step;
    bool has_metric;
    double metric;
    char id[48];  /* the directory's inode, and when that was made (0: unknown here) */
    char **names; /* of the files in it */
    size_t n;
};

struct gf_retain {
    const char *dest;
    const char *metric;                 /* --best, or NULL */
    bool max;                           /* the greater the better */
    int lock;                           /* on DEST: one schedule writes there at a time */
    struct GF_VEC(struct gf_kept) list; /* in the order they were written */
};

/* Makes DEST if need be, and reads its list. EBUSY: another one is at it. dest and metric are borrowed. */
int gf_retain_open(const char *dest, const char *metric, bool max, struct gf_retain *ret,
                   struct gf_err *err);
void gf_retain_done(struct gf_retain *retain);

/* A checkpoint of these files will be written at DEST/checkpoint-STEP: *ret, to be freed, to
 * be given to gf_export_write(). *ret_replace: an earlier one of ours is there. EEXIST: what
 * is there is somebody else's. */
int gf_retain_begin(struct gf_retain *retain, uint64_t step, const struct gf_vdir *files,
                    char **ret, bool *ret_replace, struct gf_err *err);
/* It could not be written. */
void gf_retain_cancel(struct gf_retain *retain);
/* It is on disk now: the list and the links follow, and of what is ours all but the newest
 * `keep` (0: all stay) and the best are deleted. `metric` may be NULL. */
int gf_retain_commit(struct gf_retain *retain, const double *metric, uint64_t keep,
                     struct gf_err *err);

#endif
