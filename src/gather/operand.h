/* SPDX-License-Identifier: Apache-2.0 */
/*
 * operand.h - a tensor of an adapter as float32, in the order in which it is used.
 *
 * Private to gather/. Of a product, A is [expert, rank, place] and B [place, rank, expert],
 * where the places are rows or columns of W, and there is one expert where W is one matrix.
 */
#ifndef GF_GATHER_OPERAND_H
#define GF_GATHER_OPERAND_H

#include "gather/gather.h"
#include "gather/resident.h"

enum gf_operand_form {
    GF_OPERAND_PLAIN,  /* as it is stored */
    GF_OPERAND_LEFT_A, /* [expert, place, rank] */
    GF_OPERAND_LEFT_B,
    GF_OPERAND_RIGHT_A, /* [expert, place / 32, rank, place % 32]: packed (lowrank.h) */
    GF_OPERAND_RIGHT_B,
    GF_OPERAND_NFORMS, /* other things that are kept resident are numbered from here */
};

struct gf_operand {
    const struct gf_resident_item *item; /* NULL: there is none */
    const float *at;
    uint64_t rows, stride; /* PLAIN: dims[0], and elements from one row to the next */
};

/* Of the catalog of `expr`; loaded if it is not resident. GF_NONE is no error. `experts`
 * and `rank` matter to products alone. */
int gf_operand_hold(const struct gf_gather *gather, const struct gf_expr *expr,
                    uint32_t tensor, enum gf_operand_form form, uint64_t experts,
                    uint64_t rank, struct gf_operand *ret, struct gf_fault *fault);
void gf_operand_put(const struct gf_gather *gather, const struct gf_operand *operand);

/* Groups of columns that so many columns are packed in. */
uint64_t gf_operand_groups(uint64_t cols);

#endif
