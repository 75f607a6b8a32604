/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delta.c - deltas of every kind, tile by tile.
 *
 * Products are brought to left [rows, rank] times right [rank, columns]: where W is [out,
 * in] the left side is B and the right side is A, where it is [in, out] the other way round
 * (operand.h has the orders in which they are kept).
 */
#include "gather/delta.h"

#include <errno.h>

#include "base/math.h"
#include "gather/leaf.h"
#include "tensor/convert.h"

static int hold(const struct gf_delta *d, uint32_t tensor, enum gf_operand_form form,
                uint64_t rank, struct gf_operand *op, struct gf_fault *fault)
{
    return gf_operand_hold(d->gather, d->expr, tensor, form, d->matrices, rank, op, fault);
}

/* left becomes a, right b. */
static int open_product(struct gf_delta *d, struct gf_fault *fault)
{
    const struct gf_merge *m = d->merge;
    int r;

    if (d->flipped) {
        r = hold(d, m->a, GF_OPERAND_LEFT_A, m->rank, &d->a, fault);
        return r ? r : hold(d, m->b, GF_OPERAND_RIGHT_B, m->rank, &d->b, fault);
    }
    r = hold(d, m->b, GF_OPERAND_LEFT_B, m->rank, &d->a, fault);
    return r ? r : hold(d, m->a, GF_OPERAND_RIGHT_A, m->rank, &d->b, fault);
}

/* Two products: a times b, c times d. */
static int open_hadamard(struct gf_delta *d, struct gf_fault *fault)
{
    const struct gf_merge *m = d->merge;
    int r = hold(d, m->a, GF_OPERAND_LEFT_B, m->rank, &d->a, fault);

    if (!r)
        r = hold(d, m->b, GF_OPERAND_RIGHT_A, m->rank, &d->b, fault);
    if (!r)
        r = hold(d, m->c, GF_OPERAND_LEFT_B, m->rank, &d->c, fault);
    return r ? r : hold(d, m->d, GF_OPERAND_RIGHT_A, m->rank, &d->d, fault);
}

/* w1 = a or a times b, w2 = c or c times d. */
static int open_kronecker(struct gf_delta *d, struct gf_fault *fault)
{
    const struct gf_merge *m = d->merge;
    int r = hold(d, m->a, GF_OPERAND_PLAIN, 0, &d->a, fault);

    if (!r)
        r = hold(d, m->b, GF_OPERAND_RIGHT_A, d->a.stride, &d->b, fault);
    if (!r)
        r = hold(d, m->c, GF_OPERAND_PLAIN, 0, &d->c, fault);
    return r ? r : hold(d, m->d, GF_OPERAND_RIGHT_A, d->c.stride, &d->d, fault);
}

static int open_plain(struct gf_delta *d, struct gf_fault *fault)
{
    const struct gf_merge *m = d->merge;
    int r = hold(d, m->a, GF_OPERAND_PLAIN, 0, &d->a, fault);

    if (!r)
        r = hold(d, m->b, GF_OPERAND_PLAIN, 0, &d->b, fault);
    if (!r)
        r = hold(d, m->c, GF_OPERAND_PLAIN, 0, &d->c, fault);
    return r ? r : hold(d, m->d, GF_OPERAND_PLAIN, 0, &d->d, fault);
}

static int open_room(struct gf_delta *d, struct gf_scratch *scratch, struct gf_fault *fault)
{
    uint64_t packed = d->merge->kind == GF_MERGE_VECTOR ? d->merge->rank : 0, room;

    if (gf_mul(packed, (GF_TILE_ROWS + GF_TILE_COLS) * sizeof(float), &room) ||
        gf_add(room, 3 * GF_TILE * sizeof(float), &room) ||
        gf_scratch_grow(&scratch->tiles, &scratch->tiles_size, room))
        return gf_fault_set(fault, NULL, 0, 0, -ENOMEM);
    d->tile = (float *)(void *)scratch->tiles;
    d->sum = d->tile + GF_TILE;
    d->other = d->sum + GF_TILE;
    d->packed_left = d->other + GF_TILE;
    d->packed_right = d->packed_left + GF_TILE_ROWS * packed;
    return 0;
}

int gf_delta_open(struct gf_delta *d, const struct gf_gather *g, const struct gf_expr *expr,
                  const struct gf_merge *m, struct gf_scratch *scratch,
                  struct gf_fault *fault)
{
    bool experts = m->kind == GF_MERGE_EXPERTS;
    uint64_t numel = 1;
    int r;

    for (uint32_t i = 0; i < m->shape.rank; i++)
        numel *= m->shape.dims[i];
    *d = (struct gf_delta){
        .gather = g,
        .expr = expr,
        .merge = m,
        .rows = m->shape.rank < 2 ? 1 : m->shape.dims[experts ? 1 : 0],
        .matrices = experts ? m->experts : 1,
        .flipped = experts ? !m->swapped : m->transposed,
    };
    d->cols = numel / d->rows / d->matrices;
    r = open_room(d, scratch, fault);
    if (r)
        return r;
    if (m->kind == GF_MERGE_LOWRANK || experts)
        return open_product(d, fault);
    if (m->kind == GF_MERGE_HADAMARD)
        return open_hadamard(d, fault);
    if (m->kind == GF_MERGE_KRONECKER)
        return open_kronecker(d, fault);
    return open_plain(d, fault);
}

void gf_delta_close(struct gf_delta *d)
{
    gf_operand_put(d->gather, &d->a);
    gf_operand_put(d->gather, &d->b);
    gf_operand_put(d->gather, &d->c);
    gf_operand_put(d->gather, &d->d);
}

/* ---- products ---- */

static bool is_product(const struct gf_delta *d)
{
    return d->merge->kind == GF_MERGE_LOWRANK || d->merge->kind == GF_MERGE_EXPERTS;
}

static struct gf_lowrank product_of(const struct gf_delta *d, const struct gf_operand *left,
                                    const struct gf_operand *right, uint64_t row)
{
    uint64_t rank = d->merge->rank, matrix = row / d->rows;

    return (struct gf_lowrank){
        .left = left->at + row * rank,
        .right = right->at + matrix * gf_operand_groups(d->cols) * rank * GF_LOWRANK_GROUP,
        .rank = rank,
        .scale = is_product(d) ? d->merge->scale : 1,
        .dtype = GF_F32,
    };
}

static void hadamard(const struct gf_delta *d, uint64_t row, uint64_t col, size_t rows,
                     size_t cols, float *dst)
{
    struct gf_lowrank p = product_of(d, &d->a, &d->b, row);
    struct gf_lowrank q = product_of(d, &d->c, &d->d, row);
    const float *other = d->other;

    gf_lowrank_block(&p, col, rows, cols, dst, GF_TILE_COLS);
    gf_lowrank_block(&q, col, rows, cols, d->other, GF_TILE_COLS);
    for (size_t i = 0; i < rows; i++, dst += GF_TILE_COLS, other += GF_TILE_COLS)
        for (size_t j = 0; j < cols; j++)
            dst[j] = dst[j] * other[j] * d->merge->scale;
}

/* VECTOR: both sides are scaled, and rounded, before they are multiplied: lambda_d [r] (c)
 * goes with A (a), lambda_b [out] (d) with B (b), whose rows are d->b.stride long. */
static void pack_left(const struct gf_delta *d, uint64_t row, size_t rows)
{
    float *to = d->packed_left;

    for (size_t i = 0; i < rows; i++, row++)
        for (uint64_t k = 0; k < d->merge->rank; k++)
            *to++ = d->flipped ? d->c.at[k] * d->a.at[k * d->a.stride + row]
                               : d->d.at[row] * d->b.at[row * d->b.stride + k];
}

static void pack_right(const struct gf_delta *d, uint64_t col, size_t cols)
{
    uint64_t rank = d->merge->rank;

    for (size_t j = 0; j < cols; j++, col++) {
        float *to = d->packed_right + j / GF_LOWRANK_GROUP * rank * GF_LOWRANK_GROUP +
                    j % GF_LOWRANK_GROUP;

        for (uint64_t k = 0; k < rank; k++)
            to[k * GF_LOWRANK_GROUP] = d->flipped
                                           ? d->d.at[col] * d->b.at[col * d->b.stride + k]
                                           : d->c.at[k] * d->a.at[k * d->a.stride + col];
    }
}

static void vector(const struct gf_delta *d, uint64_t row, size_t rows, size_t cols,
                   float *dst)
{
    struct gf_lowrank p = {
        .left = d->packed_left,
        .right = d->packed_right,
        .rank = d->merge->rank,
        .scale = 1,
        .dtype = GF_F32,
    };

    pack_left(d, row, rows);
    gf_lowrank_block(&p, 0, rows, cols, dst, GF_TILE_COLS);
}

void gf_delta_columns(const struct gf_delta *d, uint64_t col, size_t cols)
{
    if (d->merge->kind == GF_MERGE_VECTOR)
        pack_right(d, col, cols);
}

/* Columns [col, col + cols) of one row of a factor of the Kronecker product, which may
 * itself be a product (in `room` then). */
static const float *kron_row(const struct gf_operand *a, const struct gf_operand *b,
                             uint64_t row, uint64_t col, size_t cols, float *room)
{
    struct gf_lowrank p = {
        .left = a->at + row * a->stride,
        .right = b->at,
        .rank = a->stride,
        .scale = 1,
        .dtype = GF_F32,
    };

    if (!b->item)
        return p.left + col;
    gf_lowrank_block(&p, col, 1, cols, room, 0);
    return room;
}

/* W[i * height + p, j * width + q] gets s * w1[i, j] * w2[p, q]. */
static void kron(const struct gf_delta *d, uint64_t row, uint64_t col, size_t cols,
                 float *dst)
{
    uint64_t height = d->c.rows, width = d->d.item ? d->d.stride : d->c.stride;
    uint64_t i = row / height, p = row % height, j0 = col / width, end = col + cols;
    float *room1 = d->other, *room2 = d->other + GF_TILE_COLS;
    const float *w1 =
        kron_row(&d->a, &d->b, i, j0, (size_t)((end - 1) / width - j0 + 1), room1);
    /* A short row of w2 is needed many times, a long one in parts. */
    const float *all =
        width <= GF_TILE_COLS ? kron_row(&d->c, &d->d, p, 0, (size_t)width, room2) : NULL;

    while (col < end) {
        uint64_t q = col % width;
        size_t n = (size_t)GF_MIN(end - col, width - q);
        const float *w2 = all ? all + q : kron_row(&d->c, &d->d, p, q, n, room2);
        float x = w1[col / width - j0];

        for (size_t k = 0; k < n; k++)
            *dst++ = x * w2[k] * d->merge->scale;
        col += n;
    }
}

bool gf_delta_direct(const struct gf_delta *d)
{
    return is_product(d) && !d->merge->round_delta && d->merge->magnitude == GF_NONE;
}

void gf_delta_merge(const struct gf_delta *d, uint64_t row, uint64_t col, size_t rows,
                    size_t cols, void *work, size_t stride)
{
    struct gf_lowrank p = product_of(d, &d->a, &d->b, row);

    p.add = true;
    p.dtype = d->merge->dtype;
    gf_lowrank_block(&p, col, rows, cols, work, stride);
}

/* ---- tiles ---- */

/* D itself, of the kinds that have one. */
static void delta(const struct gf_delta *d, uint64_t row, uint64_t col, size_t rows,
                  size_t cols, float *dst)
{
    const struct gf_merge *m = d->merge;
    struct gf_lowrank p;

    switch (m->kind) {
    case GF_MERGE_LOWRANK:
    case GF_MERGE_EXPERTS:
        p = product_of(d, &d->a, &d->b, row);
        gf_lowrank_block(&p, col, rows, cols, dst, GF_TILE_COLS);
        break;
    case GF_MERGE_HADAMARD:
        hadamard(d, row, col, rows, cols, dst);
        break;
    case GF_MERGE_VECTOR:
        vector(d, row, rows, cols, dst);
        break;
    case GF_MERGE_KRONECKER:
        for (size_t i = 0; i < rows; i++)
            kron(d, row + i, col, cols, dst + i * GF_TILE_COLS);
        break;
    case GF_MERGE_BIAS:
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < cols; j++)
                dst[i * GF_TILE_COLS + j] =
                    d->a.at[(row + i) * d->cols + col + j] * m->scale;
        break;
    case GF_MERGE_SCALE:
    case GF_MERGE_ROWS:
        break;
    }
}

/* To the merge's dtype and back. */
static void round_row(enum gf_dtype dtype, float *row, size_t n)
{
    gf_convert_fn *down = gf_convert_get(GF_F32, dtype);
    uint16_t rounded[GF_TILE_COLS];

    if (!down)
        return;
    down(rounded, row, n);
    gf_convert_get(dtype, GF_F32)(row, rounded, n);
}

static void add(const struct gf_delta *d, uint64_t row, uint64_t col, size_t rows,
                size_t cols)
{
    const struct gf_merge *m = d->merge;
    float *tile = d->tile, *sum = d->sum;

    if (is_product(d) && !m->round_delta) {
        struct gf_lowrank p = product_of(d, &d->a, &d->b, row);

        p.add = true;
        gf_lowrank_block(&p, col, rows, cols, tile, GF_TILE_COLS);
        return;
    }
    delta(d, row, col, rows, cols, sum);
    for (size_t i = 0; i < rows; i++, tile += GF_TILE_COLS, sum += GF_TILE_COLS) {
        if (m->round_delta)
            round_row(m->dtype, sum, cols);
        for (size_t j = 0; j < cols; j++)
            tile[j] += sum[j];
    }
}

/* Rows of the tile by a number each, or its columns. */
static void multiply_rows(float *tile, size_t rows, size_t cols, const float *by)
{
    for (size_t i = 0; i < rows; i++, tile += GF_TILE_COLS)
        for (size_t j = 0; j < cols; j++)
            tile[j] *= by[i];
}

static void multiply_columns(float *tile, size_t rows, size_t cols, const float *by)
{
    for (size_t i = 0; i < rows; i++, tile += GF_TILE_COLS)
        for (size_t j = 0; j < cols; j++)
            tile[j] *= by[j];
}

static void scale(const struct gf_delta *d, uint64_t row, uint64_t col, size_t rows,
                  size_t cols)
{
    const struct gf_tensor *t =
        gf_catalog_at(d->gather->bound[d->expr->catalog].catalog, d->merge->a);
    bool by_row = t->shape.rank > 1 && d->merge->shape.rank > 1 &&
                  (t->shape.dims[0] != 1) != d->merge->transposed;

    if (t->numel == 1) /* scales everything */
        for (size_t i = 0; i < rows; i++)
            multiply_rows(d->tile + i * GF_TILE_COLS, 1, cols, d->a.at);
    else if (by_row)
        multiply_rows(d->tile, rows, cols, d->a.at + row);
    else
        multiply_columns(d->tile, rows, cols, d->a.at + col);
}

void gf_delta_tile(const struct gf_delta *d, uint64_t row, uint64_t col, size_t rows,
                   size_t cols)
{
    if (d->merge->kind == GF_MERGE_SCALE) {
        scale(d, row, col, rows, cols);
        return;
    }
    add(d, row, col, rows, cols);
    if (d->factor && d->flipped)
        multiply_columns(d->tile, rows, cols, d->factor + (col - d->factor_at));
    else if (d->factor)
        multiply_rows(d->tile, rows, cols, d->factor + (row - d->factor_at));
}
