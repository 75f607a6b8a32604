/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h - a virtual file: header bytes, then tensor bytes, stored nowhere.
 *
 * An image is an ordered array of segments. The first starts at 0, each ends where the next
 * begins and none is empty, so one binary search answers any read. A segment owns literal
 * bytes, names an output tensor of a view, or is a range of a source (a file carried
 * through); how a tensor is gathered and converted is gather/'s business.
 *
 * Build once, then read-only: no locks are needed after gf_image_seal().
 */
#ifndef GF_IMAGE_IMAGE_H
#define GF_IMAGE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"

enum gf_segment_kind { GF_SEGMENT_BYTES, GF_SEGMENT_TENSOR, GF_SEGMENT_SOURCE };

struct gf_segment {
    uint64_t off, len; /* half-open: [off, off + len) */
    enum gf_segment_kind kind;
    union {
        const uint8_t *bytes; /* BYTES: owned by the image */
        uint32_t tensor;      /* TENSOR: index into the view's outputs */
        struct {
            uint32_t index;  /* SOURCE: into the snapshot's side sources */
            uint64_t offset; /* where the range starts there */
        } source;
    } u;
};

struct gf_image;

int gf_image_new(const char *name, struct gf_image **ret, struct gf_err *err);
void gf_image_free(struct gf_image *image); /* NULL is fine */
GF_DEFINE_AUTO(gf_image);

/* Append at the current end. A zero-length segment is dropped, not stored. Fail with
 * EOVERFLOW if the file would pass INT64_MAX. Bytes are copied. */
int gf_image_add_bytes(struct gf_image *image, const void *bytes, size_t len,
                       struct gf_err *err);
int gf_image_add_tensor(struct gf_image *image, uint32_t tensor, uint64_t len,
                        struct gf_err *err);
int gf_image_add_source(struct gf_image *image, uint32_t source, uint64_t offset,
                        uint64_t len, struct gf_err *err);
int gf_image_seal(struct gf_image *image, struct gf_err *err);

const char *gf_image_name(const struct gf_image *image);
uint64_t gf_image_size(const struct gf_image *image);

/* The segment holding byte `off`, or NULL at and past the end. */
const struct gf_segment *gf_image_find(const struct gf_image *image, uint64_t off);
/* All of them in order. */
const struct gf_segment *gf_image_segments(const struct gf_image *image, size_t *ret_n);

#endif
