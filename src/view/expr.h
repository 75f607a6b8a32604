/* SPDX-License-Identifier: Apache-2.0 */
/*
 * expr.h - how an output tensor is made of catalog tensors.
 *
 * Today: gather a run of a tensor's elements, then cast. Leaves are (catalog, tensor), so a
 * second catalog (a base model) needs nothing new. The gather engine evaluates any byte
 * range of it.
 */
#ifndef GF_VIEW_EXPR_H
#define GF_VIEW_EXPR_H

#include <stdint.h>

#include "base/err.h"
#include "catalog/catalog.h"
#include "tensor/dtype.h"

enum gf_expr_kind {
    GF_EXPR_GATHER, /* elements [first, first + numel of the output), cast `from` -> `to` */
};

struct gf_expr {
    enum gf_expr_kind kind;
    uint32_t catalog, tensor;
    uint64_t first; /* flattened element where the run starts */
    enum gf_dtype from, to;
};

/* A gather of a whole tensor, cast to `to`. -ENOTSUP if there is no such conversion. */
int gf_expr_gather(const struct gf_catalog *catalog, uint32_t catalog_index,
                   uint32_t tensor, enum gf_dtype to, struct gf_expr *ret,
                   struct gf_err *err);

#endif
