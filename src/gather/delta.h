/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delta.h - one merge with its operands held, and what it does to a tile of W.
 *
 * Private to gather/. view/merge.h has the formulas. A weight is taken as a matrix here:
 * [out, in] or [in, out] as it is stored, experts one below the other, what is more than
 * two-dimensional flattened behind the first dimension, a vector as one row.
 */
#ifndef GF_GATHER_DELTA_H
#define GF_GATHER_DELTA_H

#include "gather/operand.h"
#include "tensor/lowrank.h"

/* A tile: its weights, its delta and what is multiplied for it stay in the first and second
 * level cache. Its rows are GF_TILE_COLS apart, and all in one matrix. */
enum { GF_TILE_ROWS = 8, GF_TILE_COLS = 512, GF_TILE = GF_TILE_ROWS * GF_TILE_COLS };

struct gf_delta {
    const struct gf_gather *gather;
    const struct gf_expr *expr; /* whose leaf is W */
    const struct gf_merge *merge;
    uint64_t rows, cols, matrices; /* of each; all but EXPERTS have one */
    bool flipped;                  /* W is stored as [in, out] */
    struct gf_operand a, b, c, d;  /* of products: left and right in place of A and B */
    float *tile, *sum, *other;     /* of the scratch; the first is for W */
    float *packed_left, *packed_right;
    const float *factor; /* DoRA's m / norm from W's row (flipped: column) ... */
    uint64_t factor_at;  /* ... with this index on; NULL: none */
};

/* Loads what is not resident. Close it also after a failure. */
int gf_delta_open(struct gf_delta *delta, const struct gf_gather *gather,
                  const struct gf_expr *expr, const struct gf_merge *merge,
                  struct gf_scratch *scratch, struct gf_fault *fault);
void gf_delta_close(struct gf_delta *delta);

/* Can W be merged where it is, in the merge's dtype? That is faster than by tiles. `stride`
 * is elements from one row to the next. */
bool gf_delta_direct(const struct gf_delta *delta);
void gf_delta_merge(const struct gf_delta *delta, uint64_t row, uint64_t col, size_t rows,
                    size_t cols, void *work, size_t stride);

/* To be called before the tiles of these columns (GF_TILE_COLS at most). */
void gf_delta_columns(const struct gf_delta *delta, uint64_t col, size_t cols);

/* delta->tile from W to W', unrounded. Not for GF_MERGE_ROWS. */
void gf_delta_tile(const struct gf_delta *delta, uint64_t row, uint64_t col, size_t rows,
                   size_t cols);

#endif
