/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather.c - from a range of a virtual file to ranges of sources, and back.
 *
 *   read [off, off + len)
 *     segment by segment       literal bytes | a range of a side file | a tensor
 *       tensor, same dtype       piece by piece: runs of the source, byte-granular
 *       tensor, cast             whole elements into scratch->stage, then the kernel (leaf.c)
 *       tensor, merged           the same, then the adapter (merge.c)
 *         elements               linear pieces: one read each; boxes: see box_read()
 *
 * Where the bytes go is the sink's business: into the caller's buffer, or as pointers.
 */
#include "gather/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "gather/leaf.h"
#include "gather/merge.h"

struct sink {
    struct gf_scratch *scratch;
    uint8_t *dst;      /* where the next byte goes if it is copied */
    struct iovec *iov; /* NULL: everything is copied to dst, one run */
    int n, max;
    struct gf_fault *fault;
};

void gf_scratch_done(struct gf_scratch *scratch)
{
    free(scratch->buf);
    free(scratch->stage);
    free(scratch->span);
    free(scratch->weights);
    free(scratch->tiles);
    *scratch = (struct gf_scratch){ 0 };
}

/* Gives out `len` bytes at p, which stay valid; -E2BIG when the vector is full. */
static int sink_point(struct sink *sink, const void *p, size_t len)
{
    struct iovec *last = sink->n ? &sink->iov[sink->n - 1] : NULL;

    if (last && (uint8_t *)last->iov_base + last->iov_len == p) {
        last->iov_len += len;
        return 0;
    }
    if (sink->n == sink->max)
        return -E2BIG;
    sink->iov[sink->n++] = (struct iovec){ (void *)(uintptr_t)p, len };
    return 0;
}

/* Room for the next `len` bytes, to be filled by the caller. */
static int sink_room(struct sink *sink, size_t len, uint8_t **ret)
{
    *ret = sink->dst;
    sink->dst += len;
    return sink->iov ? sink_point(sink, *ret, len) : 0;
}

static int sink_literal(struct sink *sink, const void *bytes, size_t len)
{
    uint8_t *dst;
    int r;

    if (sink->iov)
        return sink_point(sink, bytes, len);
    r = sink_room(sink, len, &dst);
    if (!r)
        memcpy(dst, bytes, len);
    return r;
}

static int sink_source(struct sink *sink, struct gf_source *src, uint64_t off, size_t len)
{
    const void *p = sink->iov ? gf_source_map(src, off, len) : NULL;
    uint8_t *dst;
    int r;

    if (p)
        return sink_point(sink, p, len);
    r = sink_room(sink, len, &dst);
    return r ? r : gf_leaf_fetch(src, dst, len, off, sink->fault);
}

int gf_gather_elements(const struct gf_bound *bound, const struct gf_tensor *tensor,
                       uint64_t first, uint64_t count, void *buf, struct gf_fault *fault)
{
    struct gf_scratch scratch = { 0 };
    int r = count ? gf_leaf_stored(bound, tensor, first, count, buf, &scratch, fault) : 0;

    gf_scratch_done(&scratch);
    return r;
}

/* Bytes [off, off + len) of an output that is stored as it is served: no element matters. */
static int raw_bytes(struct sink *sink, const struct gf_bound *bound,
                     const struct gf_tensor *tensor, uint64_t off, uint64_t len)
{
    unsigned bits = gf_dtype_info(tensor->dtype)->bits;
    uint64_t end = off + len;
    int r = 0;

    for (uint32_t i = gf_leaf_piece(bound->catalog, tensor, off * 8 / bits);
         off < end && !r; i++) {
        const struct gf_piece *piece = gf_catalog_piece(bound->catalog, tensor->pieces + i);
        uint64_t start = piece->start * bits / 8;
        uint64_t n = GF_MIN(end, (piece->start + piece->count) * bits / 8) - off;

        r = sink_source(sink, bound->sources[piece->source], piece->offset + (off - start),
                        n);
        off += n;
    }
    return r;
}

/* Whole elements [first, first + count) of the leaf, as they are served, into dst. */
static int values(const struct gf_gather *g, const struct gf_expr *expr, uint64_t first,
                  uint64_t count, uint8_t *dst, struct gf_scratch *scratch,
                  struct gf_fault *fault)
{
    const struct gf_bound *bound = &g->bound[expr->catalog];

    if (expr->merge)
        return gf_merge_read(g, expr, first, count, dst, scratch, fault);
    return gf_leaf_read(bound, gf_catalog_at(bound->catalog, expr->tensor), first, count,
                        expr->to, dst, scratch, fault);
}

/* Bytes [off, off + len) of an output whose elements change: the first and last may be cut. */
static int cast_bytes(struct sink *sink, const struct gf_gather *g,
                      const struct gf_expr *expr, uint64_t off, uint64_t len)
{
    size_t size = gf_dtype_size(expr->to);
    uint8_t one[16], *dst;
    int r = sink_room(sink, len, &dst);

    while (len && !r) {
        uint64_t in = off % size, n;

        if (in || len < size) {
            n = GF_MIN(size - in, len);
            r = values(g, expr, expr->first + off / size, 1, one, sink->scratch,
                       sink->fault);
            if (!r)
                memcpy(dst, one + in, n);
        } else {
            n = len / size * size;
            r = values(g, expr, expr->first + off / size, n / size, dst, sink->scratch,
                       sink->fault);
        }
        dst += n;
        off += n;
        len -= n;
    }
    return r;
}

static int tensor_bytes(struct sink *sink, const struct gf_gather *g,
                        const struct gf_output *output, uint64_t off, uint64_t len)
{
    const struct gf_expr *expr = &output->expr;
    const struct gf_bound *bound = &g->bound[expr->catalog];
    const struct gf_tensor *tensor = gf_catalog_at(bound->catalog, expr->tensor);

    if (expr->from != expr->to || expr->merge || tensor->boxed || tensor->twist)
        return cast_bytes(sink, g, expr, off, len);
    return raw_bytes(sink, bound, tensor,
                     off + expr->first * gf_dtype_info(expr->from)->bits / 8, len);
}

static int run(const struct gf_gather *g, const struct gf_image *image, uint64_t off,
               size_t len, struct sink *sink)
{
    const struct gf_segment *seg = len ? gf_image_find(image, off) : NULL;
    int r = 0;

    for (; len && !r; seg++) {
        uint64_t in = off - seg->off, n = GF_MIN(seg->len - in, len);

        switch (seg->kind) {
        case GF_SEGMENT_BYTES:
            r = sink_literal(sink, seg->u.bytes + in, n);
            break;
        case GF_SEGMENT_SOURCE:
            r = sink_source(sink, g->side[seg->u.source.index], seg->u.source.offset + in,
                            n);
            break;
        case GF_SEGMENT_TENSOR:
            r = tensor_bytes(sink, g, &g->view->outputs[seg->u.tensor], in, n);
            break;
        }
        off += n;
        len -= n;
    }
    return r;
}

int gf_gather_read(const struct gf_gather *g, const struct gf_image *image, uint64_t off,
                   size_t len, void *buf, struct gf_scratch *scratch,
                   struct gf_fault *fault)
{
    struct sink sink = { .scratch = scratch, .dst = buf, .fault = fault };

    if (!gf_inside(off, len, gf_image_size(image)))
        return gf_fault_set(fault, NULL, off, len, -EINVAL);
    return run(g, image, off, len, &sink);
}

int gf_gather_iov(const struct gf_gather *g, const struct gf_image *image, uint64_t off,
                  size_t len, struct gf_scratch *scratch, struct iovec *iov, int max,
                  int *ret_n, struct gf_fault *fault)
{
    struct sink sink = { .scratch = scratch, .iov = iov, .max = max, .fault = fault };
    int r;

    if (!gf_inside(off, len, gf_image_size(image)))
        return gf_fault_set(fault, NULL, off, len, -EINVAL);
    if (gf_scratch_grow(&scratch->buf, &scratch->size, len))
        return gf_fault_set(fault, NULL, off, len, -ENOMEM);
    sink.dst = scratch->buf;
    r = run(g, image, off, len, &sink);
    if (r == -E2BIG) { /* too many small runs: one copy is cheaper than that anyway */
        r = gf_gather_read(g, image, off, len, scratch->buf, scratch, fault);
        iov[0] = (struct iovec){ scratch->buf, len };
        sink.n = 1;
    }
    if (!r)
        *ret_n = sink.n;
    return r;
}

/* The pieces of a tensor that elements [first, end) of it meet, at seg->off on. */
static int leaf_origins(const struct gf_bound *bound, const struct gf_tensor *tensor,
                        uint64_t first, uint64_t end, const struct gf_origin *like,
                        int (*each)(void *ctx, const struct gf_origin *origin), void *ctx)
{
    unsigned from = gf_dtype_info(like->from)->bits, to = gf_dtype_info(like->to)->bits;
    int r = 0;

    for (uint32_t i = 0; i < tensor->npieces && !r; i++) {
        const struct gf_piece *piece = gf_catalog_piece(bound->catalog, tensor->pieces + i);
        uint64_t lo = GF_MAX(piece->start, first);
        uint64_t hi = GF_MIN(piece->start + piece->count, end);
        struct gf_origin origin = *like;

        origin.scattered = piece->box != GF_NONE;
        origin.source = bound->sources[piece->source];
        if (origin.scattered)
            hi = lo + piece->count;
        else if (lo >= hi)
            continue;
        origin.source_off = piece->offset + (lo - piece->start) * from / 8;
        origin.source_len = (hi - lo) * from / 8;
        if (!like->operand) {
            origin.off += (lo - first) * to / 8;
            origin.len = (hi - lo) * to / 8;
        }
        r = each(ctx, &origin);
    }
    return r;
}

/* Whole operands: each of their elements may be in each of the merged weight's. */
static int operand_origins(const struct gf_bound *bound, const struct gf_merge *merge,
                           struct gf_origin like,
                           int (*each)(void *ctx, const struct gf_origin *origin),
                           void *ctx)
{
    int r = 0;

    like.operand = true;
    for (; merge && !r; merge = merge->under) {
        const uint32_t operands[] = { merge->a, merge->b, merge->c, merge->d,
                                      merge->magnitude };

        for (size_t i = 0; i < GF_COUNT(operands) && !r; i++) {
            const struct gf_tensor *tensor;

            if (operands[i] == GF_NONE)
                continue;
            tensor = gf_catalog_at(bound->catalog, operands[i]);
            like.from = tensor->dtype;
            r = leaf_origins(bound, tensor, 0, tensor->numel, &like, each, ctx);
        }
    }
    return r;
}

static int tensor_origins(const struct gf_gather *g, const struct gf_segment *seg,
                          int (*each)(void *ctx, const struct gf_origin *origin), void *ctx)
{
    const struct gf_output *output = &g->view->outputs[seg->u.tensor];
    const struct gf_expr *expr = &output->expr;
    const struct gf_bound *bound = &g->bound[expr->catalog];
    struct gf_origin like = {
        .off = seg->off,
        .len = seg->len,
        .output = output->name,
        .from = expr->from,
        .to = expr->to,
    };
    uint64_t end = expr->first + seg->len * 8 / gf_dtype_info(expr->to)->bits;
    int r = leaf_origins(bound, gf_catalog_at(bound->catalog, expr->tensor), expr->first,
                         end, &like, each, ctx);

    return r ? r : operand_origins(bound, expr->merge, like, each, ctx);
}

int gf_gather_origins(const struct gf_gather *g, const struct gf_image *image,
                      int (*each)(void *ctx, const struct gf_origin *origin), void *ctx)
{
    size_t n;
    const struct gf_segment *segs = gf_image_segments(image, &n);
    int r = 0;

    for (size_t i = 0; i < n && !r; i++) {
        struct gf_origin origin = { .off = segs[i].off, .len = segs[i].len };

        if (segs[i].kind == GF_SEGMENT_TENSOR) {
            r = tensor_origins(g, &segs[i], each, ctx);
            continue;
        }
        if (segs[i].kind == GF_SEGMENT_SOURCE) {
            origin.source = g->side[segs[i].u.source.index];
            origin.source_off = segs[i].u.source.offset;
            origin.source_len = segs[i].len;
        }
        r = each(ctx, &origin);
    }
    return r;
}
