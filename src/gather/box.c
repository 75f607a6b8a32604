/* SPDX-License-Identifier: Apache-2.0 */
#include "gather/box.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"

/* A rectangle to copy: sizes, element strides in the source and in the flat destination. */
struct rect {
    struct gf_source *source;
    uint64_t offset; /* bytes into the source, of its first element */
    uint64_t dst;    /* elements from rd->dst */
    uint32_t rank;
    uint64_t size[GF_MAX_RANK], src_stride[GF_MAX_RANK], dst_stride[GF_MAX_RANK];
};

static uint64_t volume(const struct rect *rect)
{
    uint64_t n = 1;

    for (uint32_t d = 0; d < rect->rank; d++)
        n *= rect->size[d];
    return n;
}

static uint64_t reach(const struct rect *rect)
{
    uint64_t n = 1;

    for (uint32_t d = 0; d < rect->rank; d++)
        n += (rect->size[d] - 1) * rect->src_stride[d];
    return n;
}

/* Drops dimensions of size 1 and joins those that are one run on both sides. */
static void simplify(struct rect *rect)
{
    uint32_t n = 0;

    for (uint32_t d = 0; d < rect->rank; d++) {
        uint32_t p = n ? n - 1 : 0;

        if (rect->size[d] == 1)
            continue;
        if (n && rect->src_stride[p] == rect->src_stride[d] * rect->size[d] &&
            rect->dst_stride[p] == rect->dst_stride[d] * rect->size[d]) {
            rect->size[p] *= rect->size[d];
            rect->src_stride[p] = rect->src_stride[d];
            rect->dst_stride[p] = rect->dst_stride[d];
            continue;
        }
        rect->size[n] = rect->size[d];
        rect->src_stride[n] = rect->src_stride[d];
        rect->dst_stride[n++] = rect->dst_stride[d];
    }
    rect->rank = n;
}

static void scatter(const struct rect *rect, uint32_t dim, const uint8_t *src, uint8_t *dst,
                    size_t item)
{
    if (dim == rect->rank) {
        memcpy(dst, src, item);
        return;
    }
    if (dim + 1 == rect->rank && rect->src_stride[dim] == 1 && rect->dst_stride[dim] == 1) {
        memcpy(dst, src, rect->size[dim] * item);
        return;
    }
    for (uint64_t i = 0; i < rect->size[dim]; i++)
        scatter(rect, dim + 1, src + i * rect->src_stride[dim] * item,
                dst + i * rect->dst_stride[dim] * item, item);
}

static int read_at(const struct gf_box_read *rd, struct gf_source *src, void *buf,
                   size_t len, uint64_t off)
{
    int r = gf_source_read(src, buf, len, off);

    if (r && rd->fault)
        *rd->fault = (struct gf_fault){ src->name, off, len, r };
    return r;
}

static int copy(struct gf_box_read *rd, struct rect rect, size_t item)
{
    uint64_t n = volume(&rect), span = reach(&rect);
    uint32_t widest = 0;
    uint8_t *dst;
    int r = 0;

    simplify(&rect);
    dst = rd->dst + rect.dst * item;
    if (rect.rank == 0 ||
        (rect.rank == 1 && rect.src_stride[0] == 1 && rect.dst_stride[0] == 1))
        return read_at(rd, rect.source, dst, n * item, rect.offset);
    if (span <= 2 * n) {
        if (*rd->span_size < span * item) {
            uint8_t *p = realloc(*rd->span, span * item);

            if (!p)
                return -ENOMEM;
            *rd->span = p;
            *rd->span_size = span * item;
        }
        r = read_at(rd, rect.source, *rd->span, span * item, rect.offset);
        if (!r)
            scatter(&rect, 0, *rd->span, dst, item);
        return r;
    }
    for (uint32_t d = 1; d < rect.rank; d++)
        if (rect.src_stride[d] > rect.src_stride[widest])
            widest = d;
    for (uint64_t i = 0; i < rect.size[widest] && !r; i++) {
        struct rect slice = rect;

        slice.size[widest] = 1;
        slice.offset += i * rect.src_stride[widest] * item;
        slice.dst += i * rect.dst_stride[widest];
        r = copy(rd, slice, item);
    }
    return r;
}

/* Cuts the rectangle [lo, hi) of the tensor with the box and copies what is common. */
static int cut(struct gf_box_read *rd, const struct gf_piece *piece,
               const struct gf_box *box, const uint64_t *strides, const uint64_t *lo,
               const uint64_t *hi)
{
    struct gf_shape shape = rd->tensor->shape;
    size_t item = gf_dtype_size(rd->tensor->dtype);
    struct rect rect = { .source = rd->bound->sources[piece->source],
                         .offset = piece->offset,
                         .rank = shape.rank };
    uint64_t at = 0;

    for (uint32_t d = 0; d < shape.rank; d++) {
        uint64_t a = GF_MAX(lo[d], box->first[d]);
        uint64_t b = GF_MIN(hi[d], box->first[d] + box->size[d]);

        if (a >= b)
            return 0;
        rect.size[d] = b - a;
        rect.src_stride[d] = box->stride[d];
        rect.dst_stride[d] = strides[d];
        rect.offset += (a - box->first[d]) * box->stride[d] * item;
        at += a * strides[d];
    }
    rect.dst = at - rd->first;
    return copy(rd, rect, item);
}

int gf_box_read(struct gf_box_read *rd, const struct gf_piece *piece)
{
    struct gf_shape shape = rd->tensor->shape;
    uint64_t strides[GF_MAX_RANK], lo[GF_MAX_RANK], hi[GF_MAX_RANK];
    uint64_t at = rd->first, end = rd->first + rd->count;
    struct gf_box box;
    int r = 0;

    if (piece->box == GF_NONE) {
        uint64_t a = GF_MAX(at, piece->start), b = GF_MIN(end, piece->start + piece->count);
        size_t item = gf_dtype_size(rd->tensor->dtype);

        return a >= b ? 0
                      : read_at(rd, rd->bound->sources[piece->source],
                                rd->dst + (a - rd->first) * item, (b - a) * item,
                                piece->offset + (a - piece->start) * item);
    }
    box = gf_catalog_box(rd->bound->catalog, rd->tensor, piece);
    gf_shape_strides(shape, strides);
    while (at < end && !r) {
        uint32_t d = shape.rank - 1; /* a box has a dimension: a scalar is linear */
        uint64_t n;

        /* The largest rectangle that starts at `at`: whole sub-tensors of dimension d. */
        while (d > 0 && at % strides[d - 1] == 0 && end - at >= strides[d - 1])
            d--;
        for (uint32_t k = 0; k < shape.rank; k++) {
            lo[k] = k <= d ? at / strides[k] % shape.dims[k] : 0;
            hi[k] = k < d ? lo[k] + 1 : shape.dims[k];
        }
        n = GF_MIN(shape.dims[d] - lo[d], (end - at) / strides[d]);
        hi[d] = lo[d] + n;
        r = cut(rd, piece, &box, strides, lo, hi);
        at += n * strides[d];
    }
    return r;
}
