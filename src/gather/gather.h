/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather.h - read(image, offset, length): from segments to the bytes of the sources.
 *
 * A read is cut at segments, then at pieces; each run is fetched from its source, converted
 * if the dtype changes, and put in place. Runs that need no conversion can be answered as
 * pointers into mappings, for writev. No locks, and no allocation per request once the
 * caller's scratch has grown.
 */
#ifndef GF_GATHER_GATHER_H
#define GF_GATHER_GATHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "catalog/catalog.h"
#include "gather/resident.h"
#include "image/image.h"
#include "source/source.h"
#include "view/view.h"

/* A catalog and the sources that its pieces name. */
struct gf_bound {
    const struct gf_catalog *catalog;
    struct gf_source *const *sources;
    size_t nsources;
};

struct gf_gather {
    const struct gf_view *view;   /* NULL for images without tensors */
    const struct gf_bound *bound; /* indexed by gf_expr.catalog */
    size_t nbound;
    struct gf_source *const *side; /* for GF_SEGMENT_SOURCE */
    size_t nside;
    struct gf_resident
        *resident; /* what views with merges keep; NULL where there are none */
};

/* Grown as needed and kept by the caller (one per thread); free with gf_scratch_done. */
struct gf_scratch {
    uint8_t *buf; /* the answer, where it cannot be given as pointers */
    size_t size;
    uint8_t *stage; /* elements before conversion */
    size_t stage_size;
    uint8_t *span; /* source bytes of a box, before they are scattered */
    size_t span_size;
    uint8_t *weights; /* merged weights, where they are served in another dtype */
    size_t weights_size;
    uint8_t *tiles; /* of them as float32, a few kilobytes at a time */
    size_t tiles_size;
};
void gf_scratch_done(struct gf_scratch *scratch);

/* Why a read failed, for the log: filled on error, no allocation. */
struct gf_fault {
    const char *source; /* the source's name, NULL if none was involved */
    uint64_t offset;
    size_t len;
    int code; /* negative errno */
};

/* Exactly [off, off + len) into buf; the range must lie inside the image (-EINVAL).
 * fault may be NULL. */
int gf_gather_read(const struct gf_gather *gather, const struct gf_image *image,
                   uint64_t off, size_t len, void *buf, struct gf_scratch *scratch,
                   struct gf_fault *fault);

/* The same as at most `max` pieces: pointers into the image, into mappings of pinned
 * sources, or into scratch->buf. *ret_n of them, together len bytes. Falls back to one
 * piece in scratch when there would be more than max. */
int gf_gather_iov(const struct gf_gather *gather, const struct gf_image *image,
                  uint64_t off, size_t len, struct gf_scratch *scratch, struct iovec *iov,
                  int max, int *ret_n, struct gf_fault *fault);

/* Elements [first, first + count) of a catalog tensor as stored, no cast. */
int gf_gather_elements(const struct gf_bound *bound, const struct gf_tensor *tensor,
                       uint64_t first, uint64_t count, void *buf, struct gf_fault *fault);

/* Where an image's bytes come from: called for each segment and piece in order. */
struct gf_origin {
    uint64_t off, len;  /* in the image; of a box: its first byte and its volume */
    bool scattered;     /* a box: its bytes are not one run of the image */
    bool operand;       /* merged into all of [off, off + len), which other origins cover */
    const char *output; /* tensor name, or NULL for literal bytes */
    const struct gf_source *source; /* NULL for literal bytes */
    uint64_t source_off, source_len;
    enum gf_dtype from, to;
};
int gf_gather_origins(const struct gf_gather *gather, const struct gf_image *image,
                      int (*each)(void *ctx, const struct gf_origin *origin), void *ctx);

#endif
