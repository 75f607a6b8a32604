/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather.c - from a range of a virtual file to ranges of sources, and back.
 *
 *   read [off, off + len)
 *     segment by segment       literal bytes | a range of a side file | a tensor
 *       tensor, same dtype       piece by piece: runs of the source, byte-granular
 *       tensor, cast             whole elements into scratch->stage, then the kernel
 *         elements               linear pieces: one read each; boxes: see box_read()
 *
 * Where the bytes go is the sink's business: into the caller's buffer, or as pointers.
 */
#include "gather/gather.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "gather/box.h"
#include "tensor/convert.h"

/* Elements converted at once: the stage stays in the second-level cache. */
#define STAGE_ELEMENTS ((uint64_t)64 << 10)

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
    *scratch = (struct gf_scratch){ 0 };
}

static int grow(uint8_t **buf, size_t *size, size_t want)
{
    uint8_t *p;

    if (*size >= want)
        return 0;
    p = realloc(*buf, want);
    if (!p)
        return -ENOMEM;
    *buf = p;
    *size = want;
    return 0;
}

static int fail(struct gf_fault *fault, const struct gf_source *src, uint64_t off,
                size_t len, int r)
{
    if (fault)
        *fault = (struct gf_fault){ src ? src->name : NULL, off, len, r };
    return r;
}

static int fetch(struct gf_source *src, void *buf, size_t len, uint64_t off,
                 struct gf_fault *fault)
{
    int r = gf_source_read(src, buf, len, off);

    return r ? fail(fault, src, off, len, r) : 0;
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
    return r ? r : fetch(src, dst, len, off, sink->fault);
}

/* Index, relative to tensor->pieces, of the piece that holds flattened element `at` of a
 * tensor without boxes. */
static uint32_t piece_of(const struct gf_catalog *catalog, const struct gf_tensor *tensor,
                         uint64_t at)
{
    uint32_t lo = 0, hi = tensor->npieces;

    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (gf_catalog_piece(catalog, tensor->pieces + mid)->start <= at)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Whole elements as stored, into buf. */
static int elements(const struct gf_bound *bound, const struct gf_tensor *tensor,
                    uint64_t first, uint64_t count, uint8_t *buf,
                    struct gf_scratch *scratch, struct gf_fault *fault)
{
    unsigned bits = gf_dtype_info(tensor->dtype)->bits;
    uint64_t end = first + count;
    int r = 0;

    if (tensor->boxed) {
        struct gf_box_read rd = { .bound = bound,
                                  .tensor = tensor,
                                  .first = first,
                                  .count = count,
                                  .dst = buf,
                                  .fault = fault,
                                  .span = &scratch->span,
                                  .span_size = &scratch->span_size };

        for (uint32_t i = 0; i < tensor->npieces && !r; i++)
            r = gf_box_read(&rd, gf_catalog_piece(bound->catalog, tensor->pieces + i));
        return r;
    }
    for (uint32_t i = piece_of(bound->catalog, tensor, first); first < end && !r; i++) {
        const struct gf_piece *piece = gf_catalog_piece(bound->catalog, tensor->pieces + i);
        uint64_t n = GF_MIN(end, piece->start + piece->count) - first;
        size_t len = n * bits / 8;

        r = fetch(bound->sources[piece->source], buf, len,
                  piece->offset + (first - piece->start) * bits / 8, fault);
        buf += len;
        first += n;
    }
    return r;
}

int gf_gather_elements(const struct gf_bound *bound, const struct gf_tensor *tensor,
                       uint64_t first, uint64_t count, void *buf, struct gf_fault *fault)
{
    struct gf_scratch scratch = { 0 };
    int r = count ? elements(bound, tensor, first, count, buf, &scratch, fault) : 0;

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

    for (uint32_t i = piece_of(bound->catalog, tensor, off * 8 / bits); off < end && !r;
         i++) {
        const struct gf_piece *piece = gf_catalog_piece(bound->catalog, tensor->pieces + i);
        uint64_t start = piece->start * bits / 8;
        uint64_t n = GF_MIN(end, (piece->start + piece->count) * bits / 8) - off;

        r = sink_source(sink, bound->sources[piece->source], piece->offset + (off - start),
                        n);
        off += n;
    }
    return r;
}

/* torch's lazy conj and neg bits, applied to whole elements in place. */
static void untwist(uint8_t *p, uint64_t n, const struct gf_tensor *tensor)
{
    size_t size = gf_dtype_size(tensor->dtype), part = size;

    if (!tensor->twist)
        return;
    if (tensor->dtype == GF_C64)
        part = 4; /* real and imaginary halves, sign in the last byte of each */
    for (uint64_t i = 0; i < n; i++, p += size)
        for (size_t k = 0; k < size; k += part) {
            bool flip = tensor->twist & GF_TWIST_NEG;

            if ((tensor->twist & GF_TWIST_CONJ) && k)
                flip = !flip;
            if (flip)
                p[k + part - 1] ^= 0x80;
        }
}

/* Whole elements [first, first + count) of the leaf, cast, into dst. */
static int cast(const struct gf_gather *g, const struct gf_expr *expr, uint64_t first,
                uint64_t count, uint8_t *dst, struct gf_scratch *scratch,
                struct gf_fault *fault)
{
    const struct gf_bound *bound = &g->bound[expr->catalog];
    const struct gf_tensor *tensor = gf_catalog_at(bound->catalog, expr->tensor);
    gf_convert_fn *convert = gf_convert_get(expr->from, expr->to);
    size_t to = gf_dtype_size(expr->to);
    int r = 0;

    while (count && !r) {
        uint64_t n = convert ? GF_MIN(count, STAGE_ELEMENTS) : count;
        uint8_t *raw = dst;

        if (convert) {
            if (grow(&scratch->stage, &scratch->stage_size, STAGE_ELEMENTS * 8))
                return fail(fault, NULL, 0, 0, -ENOMEM);
            raw = scratch->stage;
        }
        r = elements(bound, tensor, first, n, raw, scratch, fault);
        if (!r) {
            untwist(raw, n, tensor);
            if (convert)
                convert(dst, raw, n);
        }
        dst += n * to;
        first += n;
        count -= n;
    }
    return r;
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
            r = cast(g, expr, expr->first + off / size, 1, one, sink->scratch, sink->fault);
            if (!r)
                memcpy(dst, one + in, n);
        } else {
            n = len / size * size;
            r = cast(g, expr, expr->first + off / size, n / size, dst, sink->scratch,
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

    if (expr->from != expr->to || tensor->boxed || tensor->twist)
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
        return fail(fault, NULL, off, len, -EINVAL);
    return run(g, image, off, len, &sink);
}

int gf_gather_iov(const struct gf_gather *g, const struct gf_image *image, uint64_t off,
                  size_t len, struct gf_scratch *scratch, struct iovec *iov, int max,
                  int *ret_n, struct gf_fault *fault)
{
    struct sink sink = { .scratch = scratch, .iov = iov, .max = max, .fault = fault };
    int r;

    if (!gf_inside(off, len, gf_image_size(image)))
        return fail(fault, NULL, off, len, -EINVAL);
    if (grow(&scratch->buf, &scratch->size, len))
        return fail(fault, NULL, off, len, -ENOMEM);
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

static int tensor_origins(const struct gf_gather *g, const struct gf_segment *seg,
                          int (*each)(void *ctx, const struct gf_origin *origin), void *ctx)
{
    const struct gf_output *output = &g->view->outputs[seg->u.tensor];
    const struct gf_bound *bound = &g->bound[output->expr.catalog];
    const struct gf_tensor *tensor = gf_catalog_at(bound->catalog, output->expr.tensor);
    unsigned from = gf_dtype_info(output->expr.from)->bits;
    unsigned to = gf_dtype_info(output->expr.to)->bits;
    uint64_t first = output->expr.first, end = first + seg->len * 8 / to;
    int r = 0;

    for (uint32_t i = 0; i < tensor->npieces && !r; i++) {
        const struct gf_piece *piece = gf_catalog_piece(bound->catalog, tensor->pieces + i);
        uint64_t lo = GF_MAX(piece->start, first);
        uint64_t hi = GF_MIN(piece->start + piece->count, end);
        struct gf_origin origin = {
            .off = seg->off + (lo - first) * to / 8,
            .scattered = piece->box != GF_NONE,
            .output = output->name,
            .source = bound->sources[piece->source],
            .from = output->expr.from,
            .to = output->expr.to,
        };

        if (origin.scattered)
            hi = lo + piece->count;
        else if (lo >= hi)
            continue;
        origin.len = (hi - lo) * to / 8;
        origin.source_off = piece->offset + (lo - piece->start) * from / 8;
        origin.source_len = (hi - lo) * from / 8;
        r = each(ctx, &origin);
    }
    return r;
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
