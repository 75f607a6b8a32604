/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog_int.h - the catalog's inside, shared by catalog.c (fills) and check.c (proves).
 */
#ifndef GF_CATALOG_CATALOG_INT_H
#define GF_CATALOG_CATALOG_INT_H

#include "base/arena.h"
#include "base/strmap.h"
#include "base/vec.h"
#include "catalog/catalog.h"

struct gf_catalog {
    const struct gf_limits *limits;
    struct gf_arena arena; /* names, dims */
    struct GF_VEC(struct gf_tensor) tensors;
    struct GF_VEC(struct gf_piece) pieces;
    struct GF_VEC(uint64_t) boxes; /* first[rank], size[rank], stride[rank] per box */
    struct gf_strmap names;        /* of the tensors that are not hidden */
};

#endif
