/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shape.h - sizes of a tensor, in elements. Row-major (C order) everywhere.
 */
#ifndef GF_TENSOR_SHAPE_H
#define GF_TENSOR_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"

/* The dims are borrowed (an arena's): two words, so it is passed by value. */
struct gf_shape {
    uint32_t rank;
    const uint64_t *dims;
};

/* Elements in all; a scalar (rank 0) has 1. true if that overflows. */
bool gf_shape_numel(struct gf_shape shape, uint64_t *ret);

bool gf_shape_equal(struct gf_shape a, struct gf_shape b);

/* Strides of a contiguous tensor. The caller has checked numel. */
void gf_shape_strides(struct gf_shape shape, uint64_t *ret);

/* Elements by these strides: is that the contiguous layout? Dimensions of size 1 and
 * empty tensors do not care, as in torch. */
bool gf_shape_contiguous(struct gf_shape shape, const uint64_t *strides);

/* "[2, 3]" into buf; for messages. */
#define GF_SHAPE_TEXT 128
const char *gf_shape_text(struct gf_shape shape, char buf[GF_SHAPE_TEXT]);

#endif
