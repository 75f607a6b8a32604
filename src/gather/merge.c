/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge.c - runs of merged weights, cut into rows and then into tiles.
 *
 *   run of the leaf --read, cast--> weights in the merge's dtype
 *     for each merge, the innermost first:
 *       rows --convert--> tile of float32 --delta.c--> tile --round--> weights
 *   --cast--> served
 *
 * A run starts and ends anywhere: it is the end of a row, whole rows, the start of a row.
 *
 * DoRA divides by norms of whole rows (of columns, where W is transposed). They are taken
 * once, for a few hundred rows (for all columns) at a time, and kept as m / norm. The order
 * of their sums is torch's (2.13, CPU): along a contiguous dimension eight partial sums,
 * along a strided one a single one; squares are rounded before they are added.
 */
#include "gather/merge.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "gather/delta.h"
#include "gather/leaf.h"
#include "tensor/convert.h"

/* Weights that are merged at once: they stay in the second-level cache. */
#define RUN_ELEMENTS ((uint64_t)256 << 10)

/* Rows whose norms are taken at once. */
#define NORM_ROWS 256

enum { LANES = 8 };

static void to_tile(const struct gf_delta *d, const uint8_t *work, float *tile, size_t n)
{
    gf_convert_fn *convert = gf_convert_get(d->merge->dtype, GF_F32);

    if (convert)
        convert(tile, work, n);
    else
        memcpy(tile, work, n * sizeof(*tile));
}

static void from_tile(const struct gf_delta *d, const float *tile, uint8_t *work, size_t n)
{
    gf_convert_fn *convert = gf_convert_get(GF_F32, d->merge->dtype);

    if (convert)
        convert(work, tile, n);
    else
        memcpy(work, tile, n * sizeof(*tile));
}

/* Rows of the operand in place of rows of W; of two for the same row, the last one. */
static void replace(const struct gf_delta *d, uint64_t row, uint64_t rows, uint64_t col,
                    uint64_t cols, uint8_t *work)
{
    size_t size = gf_dtype_size(d->merge->dtype);

    for (size_t i = 0; i < d->merge->nrows; i++) {
        uint64_t at = d->merge->rows[i];

        if (at >= row && at - row < rows)
            from_tile(d, d->a.at + i * d->a.stride + col, work + (at - row) * cols * size,
                      cols);
    }
}

/* Whole rows, or part of one, as they lie in `work`. */
static void block(const struct gf_delta *d, uint64_t row, uint64_t rows, uint64_t col,
                  uint64_t cols, uint8_t *work)
{
    size_t size = gf_dtype_size(d->merge->dtype), n;

    for (uint64_t j = 0; j < cols; j += n, work += n * size) {
        /* All but the first start at a group of columns. */
        n = (size_t)GF_MIN(cols - j, GF_TILE_COLS - (col + j) % GF_LOWRANK_GROUP);
        if (gf_delta_direct(d)) {
            gf_delta_merge(d, row, col + j, (size_t)rows, n, work, (size_t)cols);
            continue;
        }
        gf_delta_columns(d, col + j, n);
        for (uint64_t i = 0; i < rows; i += GF_TILE_ROWS) {
            size_t m = (size_t)GF_MIN(rows - i, GF_TILE_ROWS);
            uint8_t *at = work + i * cols * size;

            for (size_t k = 0; k < m; k++)
                to_tile(d, at + k * cols * size, d->tile + k * GF_TILE_COLS, n);
            gf_delta_tile(d, row + i, col + j, m, n);
            for (size_t k = 0; k < m; k++)
                from_tile(d, d->tile + k * GF_TILE_COLS, at + k * cols * size, n);
        }
    }
}

/* Factors of columns that one read needs for all its runs: they are taken of all of W, so they
 * stay until the read is over, however small the cache is. Those of further merges of the
 * same weight are only in the cache. */
struct held {
    const struct gf_resident_item *at[2];
};

static bool keep(struct held *held, const struct gf_resident_item *item)
{
    for (size_t i = 0; i < GF_COUNT(held->at); i++) {
        if (held->at[i] == item)
            return false;
        if (!held->at[i]) {
            held->at[i] = item;
            return true;
        }
    }
    return false;
}

static void let_go(const struct gf_gather *g, const struct held *held)
{
    for (size_t i = 0; i < GF_COUNT(held->at); i++)
        gf_resident_put(g->resident, held->at[i]);
}

static int chain(const struct gf_gather *g, const struct gf_expr *expr,
                 const struct gf_merge *merge, uint64_t at, uint64_t count, uint8_t *work,
                 struct gf_scratch *scratch, struct held *held, struct gf_fault *fault);

/* ---- DoRA ---- */

/* What norms are taken of: rows [row, row + rows) of W + D. */
struct norms {
    struct gf_delta delta; /* the reader's, without factors: gives W + D */
    struct gf_operand magnitude;
    uint64_t row, rows;
    struct gf_fault *fault;
};

/* Adds the squares of a tile whose first column is `col`, all along rows: lane by lane,
 * what is left at a row's end behind the sum of the lanes. */
static void add_along_rows(const struct gf_delta *d, uint64_t col, size_t rows, size_t n,
                           float (*lanes)[LANES])
{
    size_t whole = n - n % LANES;

    for (size_t i = 0; i < rows; i++) {
        const float *tile = d->tile + i * GF_TILE_COLS;
        float *sum = lanes[i];

        for (size_t j = 0; j < whole; j += LANES)
            for (size_t k = 0; k < LANES; k++)
                sum[k] += tile[j + k] * tile[j + k];
        if (col + n < d->cols)
            continue;
        for (size_t k = 1; k < LANES; k++)
            sum[0] += sum[k];
        for (size_t j = whole; j < n; j++)
            sum[0] += tile[j] * tile[j];
    }
}

static void add_along_columns(const struct gf_delta *d, size_t rows, size_t n, float *sums)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < n; j++)
            sums[j] += d->tile[i * GF_TILE_COLS + j] * d->tile[i * GF_TILE_COLS + j];
}

/* A few rows of W, whole; sums for each row, or for each column. */
static void add_squares(const struct gf_delta *d, uint64_t row, size_t rows,
                        const uint8_t *work, float *sums)
{
    float lanes[GF_TILE_ROWS][LANES] = { 0 };
    size_t size = gf_dtype_size(d->merge->dtype);

    for (uint64_t j = 0; j < d->cols; j += GF_TILE_COLS) {
        size_t n = (size_t)GF_MIN(d->cols - j, GF_TILE_COLS);

        for (size_t k = 0; k < rows; k++)
            to_tile(d, work + (k * d->cols + j) * size, d->tile + k * GF_TILE_COLS, n);
        gf_delta_tile(d, row, j, rows, n);
        if (d->flipped)
            add_along_columns(d, rows, n, sums + j);
        else
            add_along_rows(d, j, rows, n, lanes);
    }
    for (size_t k = 0; k < rows && !d->flipped; k++)
        sums[k] = lanes[k][0];
}

static int load_factors(void *ctx, float *values)
{
    const struct norms *norms = ctx;
    const struct gf_delta *d = &norms->delta;
    const float *m = norms->magnitude.at + (d->flipped ? 0 : norms->row);
    uint64_t n = d->flipped ? d->cols : norms->rows;
    struct gf_scratch scratch = { 0 };
    struct held held = { 0 };
    int r = 0;

    memset(values, 0, n * sizeof(*values));
    if (gf_scratch_grow(&scratch.weights, &scratch.weights_size,
                        GF_MIN(norms->rows, GF_TILE_ROWS) * d->cols *
                            gf_dtype_size(d->merge->dtype)))
        r = gf_fault_set(norms->fault, NULL, 0, 0, -ENOMEM);
    for (uint64_t i = 0; i < norms->rows && !r; i += GF_TILE_ROWS) {
        size_t rows = (size_t)GF_MIN(norms->rows - i, GF_TILE_ROWS);

        r = chain(d->gather, d->expr, d->merge->under, (norms->row + i) * d->cols,
                  rows * d->cols, scratch.weights, &scratch, &held, norms->fault);
        if (!r)
            add_squares(d, norms->row + i, rows, scratch.weights,
                        values + (d->flipped ? 0 : i));
    }
    for (uint64_t i = 0; i < n && !r; i++)
        values[i] = m[i] / sqrtf(values[i]);
    let_go(d->gather, &held);
    gf_scratch_done(&scratch);
    return r;
}

/* Of the rows from `row` on: how many the factors reach for is cut to *rows. */
static int hold_factors(struct gf_delta *d, uint64_t row, uint64_t *rows,
                        const struct gf_resident_item **ret, struct gf_fault *fault)
{
    struct gf_resident_key key = { .owner = d->merge,
                                   .part = d->flipped ? 0 : row / NORM_ROWS,
                                   .form = GF_OPERAND_NFORMS };
    struct norms norms = {
        .delta = *d, .row = key.part * NORM_ROWS, .rows = d->rows, .fault = fault
    };
    int r = gf_operand_hold(d->gather, d->expr, d->merge->magnitude, GF_OPERAND_PLAIN, 0, 0,
                            &norms.magnitude, fault);

    if (r)
        return r;
    if (!d->flipped) {
        norms.rows = GF_MIN(d->rows - norms.row, NORM_ROWS);
        *rows = GF_MIN(*rows, norms.row + norms.rows - row);
    }
    norms.delta.factor = NULL;
    r = gf_resident_get(d->gather->resident, &key, d->flipped ? d->cols : norms.rows,
                        load_factors, &norms, ret);
    gf_operand_put(d->gather, &norms.magnitude);
    if (r) /* without a fault of its own: no memory, or another thread's load failed */
        return fault && fault->code ? r : gf_fault_set(fault, NULL, 0, 0, r);
    d->factor = (*ret)->values;
    d->factor_at = d->flipped ? 0 : norms.row;
    return 0;
}

/* ---- runs ---- */

/* Elements [at, at + count) of W, in `work`, to those of W'. */
static int merge(struct gf_delta *d, uint64_t at, uint64_t count, uint8_t *work,
                 struct held *held, struct gf_fault *fault)
{
    int r = 0;

    while (count && !r) {
        uint64_t row = at / d->cols, col = at % d->cols, rows = 1;
        uint64_t cols = GF_MIN(count, d->cols - col);
        const struct gf_resident_item *factors = NULL;

        if (cols == d->cols)
            rows = GF_MIN(count / cols, d->rows - row % d->rows); /* in one matrix */
        if (d->merge->magnitude != GF_NONE)
            r = hold_factors(d, row, &rows, &factors, fault);
        if (!r && d->merge->kind == GF_MERGE_ROWS)
            replace(d, row, rows, col, cols, work);
        else if (!r)
            block(d, row, rows, col, cols, work);
        if (!factors || !d->flipped || !keep(held, factors))
            gf_resident_put(d->gather->resident, factors);
        work += rows * cols * gf_dtype_size(d->merge->dtype);
        at += rows * cols;
        count -= rows * cols;
    }
    return r;
}

static bool same_weight(const struct gf_merge *a, const struct gf_merge *b)
{
    uint64_t x, y;

    return a->dtype == b->dtype && !gf_shape_numel(a->shape, &x) &&
           !gf_shape_numel(b->shape, &y) && x == y;
}

/* Elements [at, at + count) of the weight that `merge` makes (NULL: of W as it is stored),
 * in the dtype of the outermost merge. */
static int chain(const struct gf_gather *g, const struct gf_expr *expr,
                 const struct gf_merge *m, uint64_t at, uint64_t count, uint8_t *work,
                 struct gf_scratch *scratch, struct held *held, struct gf_fault *fault)
{
    const struct gf_bound *bound = &g->bound[expr->catalog];
    struct gf_delta delta;
    int r;

    assert(!m || !m->under || same_weight(m, m->under));

    if (!m)
        return gf_leaf_read(bound, gf_catalog_at(bound->catalog, expr->tensor),
                            expr->first + (at - expr->merge_first), count,
                            expr->merge->dtype, work, scratch, fault);
    r = chain(g, expr, m->under, at, count, work, scratch, held, fault);
    if (r)
        return r;
    r = gf_delta_open(&delta, g, expr, m, scratch, fault);
    if (!r)
        r = merge(&delta, at, count, work, held, fault);
    gf_delta_close(&delta);
    return r;
}

int gf_merge_read(const struct gf_gather *g, const struct gf_expr *expr, uint64_t first,
                  uint64_t count, uint8_t *dst, struct gf_scratch *scratch,
                  struct gf_fault *fault)
{
    enum gf_dtype dtype = expr->merge->dtype;
    gf_convert_fn *convert = gf_convert_get(dtype, expr->to);
    uint64_t at = expr->merge_first + (first - expr->first);
    struct held held = { 0 };
    int r = 0;

    if (convert && gf_scratch_grow(&scratch->weights, &scratch->weights_size,
                                   RUN_ELEMENTS * gf_dtype_size(dtype)))
        return gf_fault_set(fault, NULL, 0, 0, -ENOMEM);
    while (count && !r) {
        uint64_t n = GF_MIN(count, RUN_ELEMENTS);

        r = chain(g, expr, expr->merge, at, n, convert ? scratch->weights : dst, scratch,
                  &held, fault);
        if (!r && convert)
            convert(dst, scratch->weights, n);
        dst += n * gf_dtype_size(expr->to);
        at += n;
        count -= n;
    }
    let_go(g, &held);
    return r;
}
