/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lowrank.h - products of two thin float32 matrices, the delta of a low-rank adapter.
 *
 *   acc = 0;  acc = fmaf(left[i][k], right[k][j], acc) for k = 0 .. rank - 1
 *   dst[i][j] = scale * acc                     (float32), or with `add`
 *   dst[i][j] = round(dst[i][j] + scale * acc)  (float32, bfloat16, float16)
 *
 * That order and these roundings are what torch computes on a CPU (MKL's sgemm) for
 * `W + (B @ A) * s` while the rank is at most 128, for matrices of two rows and two columns
 * at least (a rank of 1 is a mere product: -0 stays -0); beyond, it cuts the sum at places
 * that depend on the machine. The C function is the reference; vector variants must agree
 * with it bit for bit (but for which NaN a NaN is).
 *
 * `right` is packed in the order in which it is used, 32 columns at a time:
 *
 *   [k][j] is at (j / 32 * rank + k) * 32 + j % 32
 */
#ifndef GF_TENSOR_LOWRANK_H
#define GF_TENSOR_LOWRANK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

#define GF_LOWRANK_GROUP 32

struct gf_lowrank {
    const float *left;  /* [rows, rank] */
    const float *right; /* [rank, columns], packed; whole groups can be read */
    size_t rank;
    float scale;
    bool add;
    enum gf_dtype dtype; /* of dst: F32, BF16 or F16; without `add` F32 */
};

/* Columns [col, col + cols) of all `rows`, into dst, whose rows are `stride` elements apart
 * and start with column `col`. dst may be unaligned. */
typedef void gf_lowrank_fn(const struct gf_lowrank *product, uint64_t col, size_t rows,
                           size_t cols, void *dst, size_t stride);

gf_lowrank_fn gf_lowrank_block;

/* Chooses the best kernel this CPU has; called once, before threads start. GATHERFS_CPU=c
 * in the environment keeps the C reference. Returns "c", "avx2", "avx512". */
const char *gf_lowrank_init(void);

#endif
