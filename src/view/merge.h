/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge.h - what an adapter does to one weight: W' = W + D, and its few relatives.
 *
 * Pure data: which catalog tensors go into it, and how they are combined and rounded. The
 * view names it, the gather engine computes any run of W' from it. Operands are indices
 * into the view's catalog (expr.h), taken as float32 whatever they are stored as: PEFT
 * casts 16-bit adapters to float32 when it loads them (autocast_adapter_dtype).
 *
 *   kind         delta D of W [rows, cols]
 *   LOWRANK      s * (B @ A)                        A [r, in], B [out, r]
 *   EXPERTS      D[e] = s * (B3[:, :, e] @ A3[e])   A3 = A as [E, r, in], B3 = B as [out, r, E]
 *   HADAMARD     s * ((A @ B) o (C @ D))            LoHa: w1_a, w1_b, w2_a, w2_b
 *   KRONECKER    s * kron(w1, w2)                   LoKr: w1 = A or A @ B; w2 = C or C @ D
 *   VECTOR       (lambda_b o B[:out]) @ (lambda_d o A[:, :in])   VeRA: A, B, C = lambda_d [r],
 *                                                   D = lambda_b [out]
 *   BIAS         s * A                              A has W's shape (lora_bias)
 *   SCALE        W' = W o A, A broadcast: [out, 1] or [1, in], or a vector along the last
 *                dimension (IA3)
 *   ROWS         row rows[i] of W is row i of A     (trainable tokens)
 *
 * `transposed`: D is [out, in] and W is stored as [in, out] (Conv1D; embeddings, whose D is
 * (B @ A) of [dim, vocab]). `swapped` is the opposite of it for each expert's matrix: D[e]
 * is [out, in] and stored so; without it W is [E, in, out].
 *
 * W of more than two dimensions (but EXPERTS) is a matrix of dims[0] rows.
 *
 * DoRA (LOWRANK with magnitude m [out]): W' = (m / norm) * (W + D), norm[i] the 2-norm of
 * row i of W + D over the input dimension (columns of W where it is transposed), all of it
 * in float32: nothing is rounded before W', also for embeddings (round_delta is false). The
 * norms need all of W, so the leaf's tensor must hold it: first >= merge_first.
 *
 * Rounding: W and D are added in float32 and rounded once to `dtype`; `round_delta`: D is
 * rounded to it first. Sums over r run upwards with fused multiply-adds from 0, then one
 * multiplication by s: what torch computes on a CPU for r <= 128 (peft 0.21
 * merge_and_unload, safe_merge=False).
 *
 * The view has checked: every dtype in it is F32, F16 or BF16 or converts to them (`dtype`
 * itself is one of the three, the same along `under`); the operands' shapes are those of
 * the table, A's and B's of VECTOR at least; rows[] are rows of W; an operand that a kind
 * needs is there, with magnitude only for LOWRANK. gather/ relies on that.
 */
#ifndef GF_VIEW_MERGE_H
#define GF_VIEW_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "catalog/catalog.h"

enum gf_merge_kind {
    GF_MERGE_LOWRANK,
    GF_MERGE_EXPERTS,
    GF_MERGE_HADAMARD,
    GF_MERGE_KRONECKER,
    GF_MERGE_VECTOR,
    GF_MERGE_BIAS,
    GF_MERGE_SCALE,
    GF_MERGE_ROWS,
};

struct gf_merge {
    enum gf_merge_kind kind;
    const struct gf_merge *under; /* applied to W first, rounded to its dtype; or NULL */
    struct gf_shape shape; /* of the whole W that this applies to; all of `under` too */
    enum gf_dtype dtype;   /* of W in the live model: the sum is rounded to it */
    uint32_t a, b, c, d;   /* operands; GF_NONE where the kind has none */
    uint32_t magnitude;    /* DoRA's m, or GF_NONE */
    uint64_t rank;         /* r */
    uint64_t experts;      /* E; 0 unless EXPERTS */
    float scale;           /* s, as float32: alpha / r in double, then rounded */
    bool transposed, swapped, round_delta;
    const uint64_t *rows; /* ROWS: as many as A has; owned by the view's arena */
    size_t nrows;
};

#endif
