/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source.h - where bytes live: a file, memory, later a rank or another node.
 *
 * A source is a fixed number of bytes that can be read at any offset by any thread. It
 * never gives short reads: all bytes or a negative errno. -ESTALE means that the thing
 * behind it is no longer what it was when the source was made.
 */
#ifndef GF_SOURCE_SOURCE_H
#define GF_SOURCE_SOURCE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/auto.h"
#include "base/err.h"

struct gf_source;

struct gf_source_ops {
    const char *kind; /* "file", "mem": appears in errors and reports */
    /* All of [off, off + len) or a negative errno; never short. Thread-safe.
     * The caller has checked the range against size. */
    int (*read_at)(struct gf_source *src, void *buf, size_t len, uint64_t off);
    /* A pointer to [off, off + len) that stays valid while the source is pinned, after
     * checking that the thing behind it is unchanged. NULL: cannot (use read_at). Reading
     * the pointer in this process may fault if a file is cut meanwhile: hand it only to
     * the kernel (writev gives EFAULT). */
    const void *(*map)(struct gf_source *src, uint64_t off, size_t len);
    /* Keeps what is needed for reads (descriptor, mapping) in spite of deletion and the
     * descriptor budget. Counted. NULL: always pinned. */
    int (*pin)(struct gf_source *src);
    void (*unpin)(struct gf_source *src);
    /* Does its name still lead to the same bytes? 0, -ESTALE or why that is unknown. NULL:
     * always. */
    int (*check)(struct gf_source *src);
    void (*free)(struct gf_source *src);
};

/* What a source looked like when it was made; equal identities mean equal bytes. */
struct gf_identity {
    uint64_t dev, ino, size;
    int64_t mtime_ns, ctime_ns;
};

struct gf_source {
    const struct gf_source_ops *ops;
    char *name; /* path relative to the checkpoint, for errors and provenance; owned */
    uint64_t size;
    uint32_t mode;               /* permission bits of the file; 0444 where there is none */
    struct gf_identity identity; /* zeros for memory */
};

/* Checks the range (-EINVAL past the end), then ops->read_at. */
int gf_source_read(struct gf_source *src, void *buf, size_t len, uint64_t off);
const void *gf_source_map(struct gf_source *src, uint64_t off, size_t len);
int gf_source_pin(struct gf_source *src);
void gf_source_unpin(struct gf_source *src);
int gf_source_check(struct gf_source *src);
void gf_source_free(struct gf_source *src); /* NULL is fine */
GF_DEFINE_AUTO(gf_source);

/* Reads with text: "'rank3.pt': cannot read 30 bytes at 4096: <why>". -EINVAL (past the
 * end) becomes GF_EBAD: a file that promises bytes it does not have. */
int gf_source_read_err(struct gf_source *src, void *buf, size_t len, uint64_t off,
                       struct gf_err *err);

/* A private copy of `len` bytes as a source; `mode` 0444. */
int gf_source_mem(const char *name, const void *bytes, size_t len, struct gf_source **ret,
                  struct gf_err *err);

#endif
