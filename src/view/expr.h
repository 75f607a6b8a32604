/* SPDX-License-Identifier: Apache-2.0 */
/*
 * expr.h - how an output tensor is made of catalog tensors.
 *
 * A run of a tensor's elements, perhaps with an adapter merged into it (merge.h), then cast.
 * The gather engine evaluates any byte range of it.
 *
 *   stored elements --cast--> merge->dtype --merge--> merge->dtype --cast--> to
 *
 * Element `first + i` of the leaf is element `merge_first + i` of the weight that the merge
 * describes: the leaf may be one expert's slice of it.
 */
#ifndef GF_VIEW_EXPR_H
#define GF_VIEW_EXPR_H

#include <stdint.h>

#include "base/err.h"
#include "catalog/catalog.h"
#include "tensor/dtype.h"
#include "view/merge.h"

struct gf_expr {
    uint32_t catalog, tensor;
    uint64_t first;               /* flattened element where the run starts */
    enum gf_dtype from, to;       /* stored, served */
    const struct gf_merge *merge; /* NULL: none. Owned by the view */
    uint64_t merge_first;
};

/* A gather of a whole tensor, cast to `to`. -ENOTSUP if there is no such conversion. */
int gf_expr_gather(const struct gf_catalog *catalog, uint32_t catalog_index,
                   uint32_t tensor, enum gf_dtype to, struct gf_expr *ret,
                   struct gf_err *err);

#endif
