/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check.c - the one proof that every format's catalog goes through; nothing behind it
 * checks again.
 *
 * Linear pieces are sorted by start, so coverage is one pass. Boxes are proved by their corners.
 * How often each element is covered is a function on the grid. Taking differences along every
 * dimension leaves of a box nothing but its corners, with signs, and is one-to-one:
 *
 *      + x x -     So boxes cover each element once if and only if their corners, equal ones
 *      x x x .     added up, are those of the whole tensor. Of n boxes that divide k dimensions
 *      - . . +     there are n 2^k, to be sorted, however the boxes lie.
 */
#include "catalog/catalog.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "catalog/catalog_int.h"

#define MOST_CORNERS ((uint64_t)1 << 24) /* 256 MiB of them */

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

static int past_end(const struct check *c, const struct gf_piece *piece)
{
    return gf_fail(c->err, GF_EBAD,
                   "tensor '%s': a piece in '%s' ends past its %" PRIu64 " elements",
                   c->tensor->name, c->names[piece->source], c->tensor->numel);
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
            return past_end(c, &pieces[i]);
    }
    return at == c->tensor->numel ? 0 : hole(c, at);
}

/* ---- pieces that are boxes ---- */

struct area {
    uint64_t lo[GF_MAX_RANK], hi[GF_MAX_RANK];
};

/* The largest box that elements [at, end) of the flattened tensor begin with; its volume. */
static uint64_t first_area(struct gf_shape shape, const uint64_t *strides, uint64_t at,
                           uint64_t end, struct area *ret)
{
    uint32_t d = shape.rank - 1; /* a scalar has no boxes */
    uint64_t n;

    while (d > 0 && at % strides[d - 1] == 0 && end - at >= strides[d - 1])
        d--;
    for (uint32_t k = 0; k < shape.rank; k++) {
        ret->lo[k] = k <= d ? at / strides[k] % shape.dims[k] : 0;
        ret->hi[k] = k < d ? ret->lo[k] + 1 : shape.dims[k];
    }
    n = GF_MIN(shape.dims[d] - ret->lo[d], (end - at) / strides[d]);
    ret->hi[d] = ret->lo[d] + n;
    return n * strides[d];
}

/* The boxes of a piece: a run of the flattened tensor is a few. */
struct areas {
    struct gf_shape shape;
    uint64_t strides[GF_MAX_RANK], at, end;
    struct gf_box box;
    bool boxed;
};

static void areas_of(const struct check *c, const struct gf_piece *piece, struct areas *ret)
{
    ret->shape = c->tensor->shape;
    gf_shape_strides(ret->shape, ret->strides);
    ret->boxed = piece->box != GF_NONE;
    if (ret->boxed)
        ret->box = gf_catalog_box(c->catalog, c->tensor, piece);
    ret->at = ret->boxed ? 0 : piece->start;
    ret->end = ret->boxed ? 1 : piece->start + piece->count;
}

static bool next_area(struct areas *areas, struct area *ret)
{
    if (areas->at >= areas->end)
        return false;
    if (!areas->boxed) {
        areas->at += first_area(areas->shape, areas->strides, areas->at, areas->end, ret);
        return true;
    }
    areas->at = areas->end;
    for (uint32_t d = 0; d < areas->shape.rank; d++) {
        ret->lo[d] = areas->box.first[d];
        ret->hi[d] = areas->box.first[d] + areas->box.size[d];
    }
    return true;
}

/* Corners as numbers that order as their coordinates do: only of the dimensions that are divided
 * at all. Each of those is 2 at least, so weights stay below 1.5^63 * 2^64 < 2^127. */
__extension__ typedef unsigned __int128 corner;

struct corners {
    uint32_t dims[GF_MAX_RANK], ndims;
    corner weight[GF_MAX_RANK]; /* of each of dims */
    corner *at;                 /* the lowest bit: counts as -1, else as +1 */
    size_t n;
};

static int find_dims(const struct check *c, const struct gf_piece *pieces,
                     struct corners *corners, struct gf_err *err)
{
    struct gf_shape shape = c->tensor->shape;
    bool divided[GF_MAX_RANK] = { false };
    uint64_t count = 1; /* the tensor itself */
    struct areas areas;
    struct area area;
    corner weight = 2; /* above the sign */

    for (uint32_t i = 0; i < c->tensor->npieces; i++)
        for (areas_of(c, &pieces[i], &areas); next_area(&areas, &area); count++)
            for (uint32_t d = 0; d < shape.rank; d++)
                divided[d] |= area.hi[d] - area.lo[d] < shape.dims[d];
    corners->ndims = 0;
    for (uint32_t d = shape.rank; d-- > 0;)
        if (divided[d]) {
            corners->weight[corners->ndims] = weight;
            corners->dims[corners->ndims++] = d;
            weight *= (corner)shape.dims[d] + 1;
        }
    if (corners->ndims > 24 || count > MOST_CORNERS >> corners->ndims)
        return gf_fail(err, GF_EBAD,
                       "tensor '%s': %" PRIu32 " pieces that divide %" PRIu32
                       " dimensions: too many to check",
                       c->tensor->name, c->tensor->npieces, corners->ndims);
    corners->at = malloc((size_t)(count << corners->ndims) * sizeof(*corners->at));
    return corners->at ? 0 : gf_nomem(err);
}

static void add_corners(struct corners *corners, const struct area *area, unsigned sign)
{
    for (uint64_t mask = 0; mask < (uint64_t)1 << corners->ndims; mask++) {
        unsigned minus = sign;
        corner key = 0;

        for (uint32_t i = 0; i < corners->ndims; i++) {
            bool upper = mask >> i & 1;

            key += corners->weight[i] *
                   (upper ? area->hi[corners->dims[i]] : area->lo[corners->dims[i]]);
            minus ^= upper;
        }
        corners->at[corners->n++] = key | minus;
    }
}

static int by_corner(const void *a, const void *b)
{
    const corner *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static bool holds(const struct check *c, const struct gf_piece *piece, uint64_t element,
                  const uint64_t *strides)
{
    struct gf_shape shape = c->tensor->shape;
    struct gf_box box;

    if (piece->box == GF_NONE)
        return element >= piece->start && element - piece->start < piece->count;
    box = gf_catalog_box(c->catalog, c->tensor, piece);
    for (uint32_t d = 0; d < shape.rank; d++) {
        uint64_t i = element / strides[d] % shape.dims[d];

        if (i < box.first[d] || i - box.first[d] >= box.size[d])
            return false;
    }
    return true;
}

/* The first corner at which the pieces and the tensor differ is an element that is in no piece
 * or in several. */
static int wrong_at(const struct check *c, const struct gf_piece *pieces,
                    const struct corners *corners, corner key, bool hole_there)
{
    const struct gf_piece *found = NULL;
    uint64_t strides[GF_MAX_RANK], element = 0;

    gf_shape_strides(c->tensor->shape, strides);
    for (uint32_t i = corners->ndims; i-- > 0; key %= corners->weight[i])
        element += (uint64_t)(key / corners->weight[i]) * strides[corners->dims[i]];
    for (uint32_t i = 0; i < c->tensor->npieces && !hole_there; i++) {
        if (!holds(c, &pieces[i], element, strides))
            continue;
        if (found)
            return overlap(c, found, &pieces[i]);
        found = &pieces[i];
    }
    return hole(c, element);
}

static int compare_corners(const struct check *c, const struct gf_piece *pieces,
                           struct corners *corners)
{
    qsort(corners->at, corners->n, sizeof(*corners->at), by_corner);
    for (size_t i = 0; i < corners->n;) {
        corner key = corners->at[i] >> 1;
        int64_t sum = 0;

        for (; i < corners->n && corners->at[i] >> 1 == key; i++)
            sum += corners->at[i] & 1 ? -1 : 1;
        if (sum)
            return wrong_at(c, pieces, corners, key << 1, sum < 0);
    }
    return 0;
}

static int cover_boxes(const struct check *c, const struct gf_piece *pieces)
{
    struct corners corners = { 0 };
    struct area area = { 0 };
    struct areas areas;
    uint64_t volume = 0;
    int r;

    for (uint32_t i = 0; i < c->tensor->npieces; i++) {
        if (gf_add(volume, pieces[i].count, &volume))
            volume = UINT64_MAX;
        if (pieces[i].box == GF_NONE &&
            !gf_inside(pieces[i].start, pieces[i].count, c->tensor->numel))
            return past_end(c, &pieces[i]);
    }
    if (volume < c->tensor->numel)
        return gf_fail(c->err, GF_EINCOMPLETE,
                       "tensor '%s': %" PRIu64 " of %" PRIu64 " elements are in no file",
                       c->tensor->name, c->tensor->numel - volume, c->tensor->numel);
    if (c->tensor->npieces == 1)
        return 0;
    r = find_dims(c, pieces, &corners, c->err);
    if (r)
        return r;
    for (uint32_t d = 0; d < c->tensor->shape.rank; d++)
        area.hi[d] = c->tensor->shape.dims[d];
    add_corners(&corners, &area, 1);
    for (uint32_t i = 0; i < c->tensor->npieces; i++)
        for (areas_of(c, &pieces[i], &areas); next_area(&areas, &area);)
            add_corners(&corners, &area, 0);
    r = compare_corners(c, pieces, &corners);
    free(corners.at);
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
