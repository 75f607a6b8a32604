/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert.h - element conversions between floating-point types of 16 bits and more.
 *
 * Rounding is to nearest, ties to even, exactly as torch's CPU `.to()`: overflow becomes
 * infinity, denormals are kept, NaN stays NaN with torch's payload rules (see convert.c).
 * The C functions are the reference; vector variants replace single entries at start-up
 * and must agree with it bit for bit.
 */
#ifndef GF_TENSOR_CONVERT_H
#define GF_TENSOR_CONVERT_H

#include <stddef.h>

#include "tensor/dtype.h"

/* Converts n elements. src and dst may be unaligned; they do not overlap. */
typedef void gf_convert_fn(void *dst, const void *src, size_t n);

/* NULL if from == to (nothing to do) or if the pair has no conversion. */
gf_convert_fn *gf_convert_get(enum gf_dtype from, enum gf_dtype to);

/* Is there a conversion (or nothing to do)? */
bool gf_convert_can(enum gf_dtype from, enum gf_dtype to);

/* Chooses the best kernels this CPU has; called once, before threads start.
 * GATHERFS_CPU=c in the environment keeps the C reference. Returns "c", "avx2"... */
const char *gf_convert_init(void);

#endif
