/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.h - one checkpoint at one training step, ready to read.
 *
 * Ties together a detected format, its catalog and sources, the views and their images, and
 * the side files. Immutable once open, but for views that are built at the first look
 * (under a lock). Reference-counted: a file handle keeps its snapshot, and with it one
 * training step, as long as it is open.
 */
#ifndef GF_SNAPSHOT_SNAPSHOT_H
#define GF_SNAPSHOT_SNAPSHOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/auto.h"
#include "base/err.h"
#include "format/format.h"
#include "gather/gather.h"
#include "image/image.h"
#include "snapshot/options.h"
#include "source/dir.h"
#include "view/view.h"

struct gf_snapshot;

struct gf_vfile {
    const char *name;
    uint64_t size;
    uint64_t ino; /* hash of (step identity, view, name): stable across mounts */
    bool weights; /* tensors or their index, not a side file */
    const struct gf_image *image;
};

/* A view as a directory: an HF model directory. */
struct gf_vdir {
    const char *name; /* "full" */
    uint64_t ino;
    const struct gf_vfile *files; /* sorted by name */
    size_t n;
    struct gf_view *view; /* owned by the snapshot */
    const char *warning;  /* from_pretrained() would not load it as it is; or NULL */
    /* The one directory in it, or NULL: `files` has what it holds as 'DIR/FILE', sub->files
     * the same as 'FILE'. */
    const struct gf_vdir *sub;
    struct gf_gather gather;
};

struct gf_snapshot_info {
    const char *format, *detail, *tag, *why;
    atomic_bool has_step; /* of a live job only once the snapshot was entered */
    uint64_t step;
    enum gf_complete complete;
    int64_t mtime_ns;
    uint32_t mode; /* AND of the source files' read bits, 0444 at most */
    uint64_t id;   /* step identity: equal for equal sources, stable across mounts */
    const char *default_view; /* NULL: the root holds no weights; why_no_default says why */
    const char *why_no_default;
    size_t nsources, ntensors, npieces;
};

/* The checkpoint in directory `base` ("": itself) of SOURCE's directory `dir`, its one file or
 * NULL, and which tag (NULL: the layout's own choice). dir and opt are borrowed
 * and outlive it. Detects, reads, checks the catalog, and builds the default view (or
 * opt->view), so that what fails, fails here. */
int gf_snapshot_open(struct gf_dir *dir, const char *base, const char *file,
                     const char *tag, const struct gf_options *opt,
                     struct gf_snapshot **ret, struct gf_err *err);
struct gf_snapshot *gf_snapshot_ref(struct gf_snapshot *snapshot);
bool gf_snapshot_is_shared(
    const struct gf_snapshot *snapshot);             /* more references than one */
void gf_snapshot_free(struct gf_snapshot *snapshot); /* drops one reference; NULL is fine */
GF_DEFINE_AUTO(gf_snapshot);

const struct gf_snapshot_info *gf_snapshot_info(const struct gf_snapshot *snapshot);
const struct gf_catalog *gf_snapshot_catalog(const struct gf_snapshot *snapshot);
const struct gf_found *gf_snapshot_found(const struct gf_snapshot *snapshot);

/* The directory of a view, built at the first call; NULL name: the default view. -ENOENT
 * when there is no such view. Lives as long as the snapshot. Thread-safe. */
int gf_snapshot_dir(struct gf_snapshot *snapshot, const char *name,
                    const struct gf_vdir **ret, struct gf_err *err);
const struct gf_vfile *gf_vdir_find(const struct gf_vdir *dir, const char *name);

/* The names of the sub-directories that `ls` shows (views= and DESIGN 1.3). */
const char *const *gf_snapshot_listed(const struct gf_snapshot *snapshot, size_t *ret_n);

/* Every view there could be, for inspect: name and, if it cannot be built, why. */
struct gf_view_state {
    const char *name;
    bool listed, is_default;
    char why_not[GF_WHY]; /* "" = can be built */
};
int gf_snapshot_views(struct gf_snapshot *snapshot, struct gf_view_state **ret,
                      size_t *ret_n, struct gf_err *err);

/* Is everything behind it still what it was? Looks at file identities only. */
bool gf_snapshot_unchanged(struct gf_snapshot *snapshot);

/* Pins all sources: they stay readable when their files are deleted. Counted. */
int gf_snapshot_pin(struct gf_snapshot *snapshot, struct gf_err *err);
void gf_snapshot_unpin(struct gf_snapshot *snapshot);

/* A file with weights is read by process `reader` (0: nobody in particular), until _leave().
 * This is when the snapshot of a live job gets its step, and while the process keeps it; on
 * disk nothing happens. May wait as long as timeout= says, or until gave_up(ctx) (may be NULL).
 * ESTALE without text: look again. */
int gf_snapshot_enter(struct gf_snapshot *snapshot, pid_t reader,
                      bool (*gave_up)(void *ctx), void *ctx, struct gf_err *err);
void gf_snapshot_leave(struct gf_snapshot *snapshot, pid_t reader);

/* The bytes. Short only at the end of the file: *ret_len tells. -EIO, -ESTALE, -ENOMEM with
 * *fault filled (may be NULL). The same function serves mount, export, cat and verify. */
int gf_snapshot_read(const struct gf_vdir *dir, const struct gf_vfile *file, uint64_t off,
                     size_t len, void *buf, size_t *ret_len, struct gf_scratch *scratch,
                     struct gf_fault *fault);
int gf_snapshot_iov(const struct gf_vdir *dir, const struct gf_vfile *file, uint64_t off,
                    size_t len, struct gf_scratch *scratch, struct iovec *iov, int max,
                    int *ret_n, struct gf_fault *fault);

#endif
