/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - the one proof that every format's catalog goes through; nothing behind it
 * checks again.
 *
 * Linear pieces are sorted by start, so coverage is one pass. Boxes are proved by volume
 * (they must add up to the tensor) and by disjointness: sorted by their extent in the first
 * dimension that tells them apart, compared only with those whose extents meet.
 */
#include "catalog/catalog.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "catalog/catalog_int.h"

struct check {
    const struct gf_catalog *catalog;
    const struct gf_tensor *tensor;
    const uint64_t *sizes;
    const char *const *names;
    size_t nsources;
    struct gf_err *err;
};

static int by_start(const void *a, const void *b)
{
    const struct gf_piece *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

/* Elements from a box's first to behind its last, by its strides; true if that overflows. */
static bool box_reach(const struct gf_box *box, uint32_t rank, uint64_t *ret)
{
    uint64_t reach = 1, step;

    for (uint32_t d = 0; d < rank; d++)
        if (gf_mul(box->size[d] - 1, box->stride[d], &step) || gf_add(reach, step, &reach))
            return true;
    *ret = reach;
    return false;
}

static int check_source(const struct check *c, const struct gf_piece *piece)
{
    uint64_t reach = piece->count, bytes = 0;
    bool bad = false;

    if (piece->source >= c->nsources)
        return gf_fail(c->err, GF_EBAD, "tensor '%s': piece of unknown source %" PRIu32,
                       c->tensor->name, piece->source);
    if (piece->box != GF_NONE) {
        struct gf_box box = gf_catalog_box(c->catalog, c->tensor, piece);

        bad = box_reach(&box, c->tensor->shape.rank, &reach);
    }
    bad = bad || gf_dtype_nbytes(c->tensor->dtype, reach, &bytes) ||
          piece->start * gf_dtype_info(c->tensor->dtype)->bits % 8; /* F4: a whole byte */
    if (bad || !gf_inside(piece->offset, bytes, c->sizes[piece->source]))
        return gf_fail(c->err, GF_EBAD,
                       "'%s': tensor '%s': needs %" PRIu64 " bytes at %" PRIu64
                       ", the file has %" PRIu64,
                       c->names[piece->source], c->tensor->name, bytes, piece->offset,
                       c->sizes[piece->source]);
    return 0;
}

static int hole(const struct check *c, uint64_t at)
{
    return gf_fail(c->err, GF_EINCOMPLETE,
                   "tensor '%s': element %" PRIu64 " of %" PRIu64 " is in no file",
                   c->tensor->name, at, c->tensor->numel);
}

static int overlap(const struct check *c, const struct gf_piece *a,
                   const struct gf_piece *b)
{
    return gf_fail(c->err, GF_EBAD, "tensor '%s': pieces in '%s' and '%s' overlap",
                   c->tensor->name, c->names[a->source], c->names[b->source]);
}

static int cover_linear(const struct check *c, const struct gf_piece *pieces)
{
    uint64_t at = 0;

    for (uint32_t i = 0; i < c->tensor->npieces; i++) {
        if (pieces[i].start > at)
            return hole(c, at);
        if (pieces[i].start < at)
            return overlap(c, &pieces[i - 1], &pieces[i]);
        if (gf_add(at, pieces[i].count, &at) || at > c->tensor->numel)
            return gf_fail(c->err, GF_EBAD,
                           "tensor '%s': a piece in '%s' ends past its %" PRIu64
                           " elements",
                           c->tensor->name, c->names[pieces[i].source], c->tensor->numel);
    }
    return at == c->tensor->numel ? 0 : hole(c, at);
}

/* The extents of any piece, linear ones only when they are the whole tensor. */
static bool extent(const struct check *c, const struct gf_piece *piece, uint32_t dim,
                   uint64_t *ret_lo, uint64_t *ret_hi)
{
    if (piece->box == GF_NONE) {
        *ret_lo = 0;
        *ret_hi = c->tensor->shape.dims[dim];
        return piece->count == c->tensor->numel;
    } else {
        struct gf_box box = gf_catalog_box(c->catalog, c->tensor, piece);

        *ret_lo = box.first[dim];
        *ret_hi = box.first[dim] + box.size[dim];
        return true;
    }
}

static bool boxes_meet(const struct check *c, const struct gf_piece *a,
                       const struct gf_piece *b)
{
    for (uint32_t d = 0; d < c->tensor->shape.rank; d++) {
        uint64_t a_lo, a_hi, b_lo, b_hi;

        if (!extent(c, a, d, &a_lo, &a_hi) || !extent(c, b, d, &b_lo, &b_hi))
            return true;
        if (a_hi <= b_lo || b_hi <= a_lo)
            return false;
    }
    return true;
}

struct edge {
    uint64_t lo, hi;
    const struct gf_piece *piece;
};

static int by_lo(const void *a, const void *b)
{
    const struct edge *x = a, *y = b;

    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

/* The dimension along which the boxes have the most different starts: sweeping along it
 * compares the fewest pairs. Rank is small; one counting pass per dimension. */
static int sweep(const struct check *c, const struct gf_piece *pieces, uint32_t dim,
                 struct edge *edges, uint64_t *ret_pairs, bool prove)
{
    uint32_t n = c->tensor->npieces;

    for (uint32_t i = 0; i < n; i++) {
        if (!extent(c, &pieces[i], dim, &edges[i].lo, &edges[i].hi))
            return overlap(c, &pieces[i], &pieces[i ? 0 : 1]);
        edges[i].piece = &pieces[i];
    }
    qsort(edges, n, sizeof(*edges), by_lo);
    *ret_pairs = 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = i + 1; k < n && edges[k].lo < edges[i].hi; k++) {
            ++*ret_pairs;
            if (prove && boxes_meet(c, edges[i].piece, edges[k].piece))
                return overlap(c, edges[i].piece, edges[k].piece);
            if (!prove && *ret_pairs > (uint64_t)n * 64)
                return 0; /* a poor choice already */
        }
    return 0;
}

static int cover_boxes(const struct check *c, const struct gf_piece *pieces)
{
    uint64_t volume = 0, best = UINT64_MAX, pairs;
    uint32_t best_dim = 0;
    struct edge *edges;
    int r = 0;

    for (uint32_t i = 0; i < c->tensor->npieces; i++)
        if (gf_add(volume, pieces[i].count, &volume))
            volume = UINT64_MAX;
    if (volume < c->tensor->numel)
        return gf_fail(c->err, GF_EINCOMPLETE,
                       "tensor '%s': %" PRIu64 " of %" PRIu64 " elements are in no file",
                       c->tensor->name, c->tensor->numel - volume, c->tensor->numel);
    if (c->tensor->npieces == 1)
        return 0;
    edges = calloc(c->tensor->npieces, sizeof(*edges));
    if (!edges)
        return gf_nomem(c->err);
    for (uint32_t d = 0; d < c->tensor->shape.rank && !r; d++) {
        r = sweep(c, pieces, d, edges, &pairs, false);
        if (pairs < best) {
            best = pairs;
            best_dim = d;
        }
    }
    if (!r)
        r = sweep(c, pieces, best_dim, edges, &pairs, true);
    free(edges);
    /* Disjoint boxes inside the tensor whose volumes add up to it cover it. */
    if (!r && volume != c->tensor->numel)
        r = gf_fail(c->err, GF_EBAD,
                    "tensor '%s': pieces hold %" PRIu64 " of %" PRIu64 " elements",
                    c->tensor->name, volume, c->tensor->numel);
    return r;
}

static int check_tensor(const struct check *c)
{
    struct gf_piece *pieces = c->catalog->pieces.at + c->tensor->pieces;
    bool boxes = false, sorted = true;

    for (uint32_t i = 0; i < c->tensor->npieces; i++) {
        int r = check_source(c, &pieces[i]);

        if (r)
            return r;
        boxes |= pieces[i].box != GF_NONE;
        sorted &= i == 0 || pieces[i - 1].start <= pieces[i].start;
    }
    if (!sorted)
        qsort(pieces, c->tensor->npieces, sizeof(*pieces), by_start);
    return boxes ? cover_boxes(c, pieces) : cover_linear(c, pieces);
}

static int check_links(const struct check *c, uint32_t index)
{
    const struct gf_tensor *t = c->tensor;
    uint32_t links[2] = { t->copy, t->alias };

    for (size_t i = 0; i < 2; i++) {
        const struct gf_tensor *other;

        if (links[i] == GF_NONE)
            continue;
        other = links[i] < index ? gf_catalog_at(c->catalog, links[i]) : NULL;
        if (!other || !gf_shape_equal(other->shape, t->shape))
            return gf_fail(c->err, GF_EBAD, "tensor '%s': its %s has another shape",
                           t->name, i ? "tied tensor" : "live copy");
    }
    if (t->twist && t->dtype != GF_C64 && (t->twist & GF_TWIST_CONJ))
        return gf_fail(c->err, GF_EBAD, "tensor '%s': conjugated, but not complex",
                       t->name);
    return 0;
}

int gf_catalog_check(struct gf_catalog *catalog, const uint64_t *sizes,
                     const char *const *names, size_t nsources, struct gf_err *err)
{
    struct check c = {
        .catalog = catalog, .sizes = sizes, .names = names, .nsources = nsources, .err = err
    };

    for (uint32_t i = 0; i < catalog->tensors.n; i++) {
        int r;

        c.tensor = &catalog->tensors.at[i];
        r = check_links(&c, i);
        if (!r)
            r = check_tensor(&c);
        if (r)
            return r;
    }
    return 0;
}
