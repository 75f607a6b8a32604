/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert_int.h - what the reference and the vector kernels of convert.h share.
 */
#ifndef GF_TENSOR_CONVERT_INT_H
#define GF_TENSOR_CONVERT_INT_H

#include <stdint.h>

#include "tensor/convert.h"

/* Single elements by their bits: the reference, and what kernels use for tails. */
uint16_t gf_bf16_of_f32(uint32_t u);
uint16_t gf_f16_of_f32(uint32_t u);
uint32_t gf_f32_of_f16(uint16_t h);

/* Replaces entries with the best this CPU has; the name of that set, "c" for none. */
const char *gf_convert_vector(gf_convert_fn *table[GF_NDTYPES][GF_NDTYPES]);

#endif
