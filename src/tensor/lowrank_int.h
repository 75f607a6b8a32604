/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lowrank_int.h - the kernels behind lowrank.h, one by one, for it and for its tests.
 */
#ifndef GF_TENSOR_LOWRANK_INT_H
#define GF_TENSOR_LOWRANK_INT_H

#include "tensor/lowrank.h"

struct gf_lowrank_kernel {
    const char *name;
    gf_lowrank_fn *fn;
};

gf_lowrank_fn gf_lowrank_c;

/* What sums start from: with a rank of 1 torch only multiplies, which leaves a product of
 * -0 as it is. */
static inline float gf_lowrank_start(const struct gf_lowrank *product)
{
    return product->rank == 1 ? -0.0f : 0.0f;
}

/* Those that this CPU can run, best first; ends with a NULL name. Not the reference. */
const struct gf_lowrank_kernel *gf_lowrank_vector(void);

#endif
