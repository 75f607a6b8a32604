/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog.h - what exists: the tensors of one checkpoint and where their bytes are.
 *
 * Shapes count elements of `dtype`: those of F4 are half bytes, as in safetensors.
 *
 * A tensor is a list of pieces that cover its elements exactly once. A piece is a box of
 * the tensor and the place of its elements in a source. Two kinds:
 *
 *   linear   elements [start, start + count) of the flattened (row-major) tensor lie one
 *            after another at `offset`. ZeRO and FSDP flat partitions, whole tensors.
 *   box      an n-dimensional box (`first[]`, `size[]`) whose element at index i lies at
 *            offset + sum((i[d] - first[d]) * stride[d]) * element size. DCP and DTensor
 *            shards, non-contiguous tensors.
 *
 *          tensor 'w' [4, 4]           rank0.pt        rank1.pt
 *          +---------------+          +--------+      +--------+
 *          | 0 . . . . . 6 |  linear  |0 .... 6|      |7 ... 15|
 *          | 7 . . . . .15 |          +--------+      +--------+
 *          +---------------+           start 0         start 7
 *
 * Fill it with one thread: gf_catalog_add(), pieces for the tensor just added, next one.
 * Then gf_catalog_check() proves it sound and freezes it; after that it is read-only and
 * needs no locks. Sources are named by their index in the snapshot's array.
 */
#ifndef GF_CATALOG_CATALOG_H
#define GF_CATALOG_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

#define GF_NONE UINT32_MAX

struct gf_piece {
    uint64_t start, count; /* flattened elements; of a box: its first element, its volume */
    uint64_t offset;       /* bytes into the source, of the piece's first element */
    uint32_t source;
    uint32_t box; /* GF_NONE: linear. Else an index for gf_catalog_box() */
};

struct gf_box {
    const uint64_t *first, *size, *stride; /* rank entries each; strides in elements */
};

/* How the bits of stored elements must be changed to be the tensor's (torch metadata). */
enum gf_twist { GF_TWIST_NONE = 0, GF_TWIST_CONJ = 1, GF_TWIST_NEG = 2 };

struct gf_tensor {
    const char *name;
    struct gf_shape shape;
    uint64_t numel;
    enum gf_dtype dtype; /* of the stored elements: the shards' (masters) */
    enum gf_dtype live;  /* what the tensor was in the live model (dtype=auto) */
    uint32_t copy;  /* another entry that holds the live dtype's own bytes, or GF_NONE */
    uint32_t alias; /* the entry whose storage this one shares (tied), or GF_NONE */
    bool hidden;    /* only reachable as some entry's `copy`; has no place in views */
    bool buffer;    /* a buffer, not a parameter; false when unknown */
    bool frozen;    /* a parameter that was not trained; false when unknown */
    bool boxed;     /* at least one piece is a box */
    uint8_t twist;  /* enum gf_twist bits */
    uint32_t npieces;
    uint64_t pieces; /* index of the first for gf_catalog_piece(); sorted by start */
};

struct gf_catalog;

int gf_catalog_new(const struct gf_limits *limits, struct gf_catalog **ret,
                   struct gf_err *err);
void gf_catalog_free(struct gf_catalog *catalog);
GF_DEFINE_AUTO(gf_catalog);

/* A tensor to add; strings and dims are copied. Set live = dtype where they are the same,
 * copy and alias = GF_NONE where there is none. */
struct gf_tensor_spec {
    const char *name;
    struct gf_shape shape;
    enum gf_dtype dtype, live;
    uint32_t copy, alias; /* indices of tensors added before */
    bool hidden, buffer, frozen;
    uint8_t twist;
};

/* Adds a tensor without pieces; names longer than the limit, empty, with NUL or not UTF-8,
 * impossible shapes and too many tensors fail with GF_EBAD. *ret_index may be NULL. */
int gf_catalog_add(struct gf_catalog *catalog, const struct gf_tensor_spec *spec,
                   uint32_t *ret_index, struct gf_err *err);

/* Pieces go to the tensor added last. Empty ones are dropped, neighbours that continue
 * each other in one source are joined, boxes that are runs become linear. */
int gf_catalog_add_linear(struct gf_catalog *catalog, uint32_t source, uint64_t offset,
                          uint64_t start, uint64_t count, struct gf_err *err);
int gf_catalog_add_box(struct gf_catalog *catalog, uint32_t source, uint64_t offset,
                       const uint64_t *first, const uint64_t *size, const uint64_t *stride,
                       struct gf_err *err);
/* A whole tensor at these strides: linear if that is contiguous, else a box. */
int gf_catalog_add_strided(struct gf_catalog *catalog, uint32_t source, uint64_t offset,
                           const uint64_t *strides, struct gf_err *err);
/* The tensor added last gets the pieces of `other` (tied weights). */
int gf_catalog_share(struct gf_catalog *catalog, uint32_t other, struct gf_err *err);

/* Adds tensor `index` of another catalog, whose sources stand in ours from `first_source` on.
 * Its live copy comes along; it is no alias of anything here. */
int gf_catalog_adopt(struct gf_catalog *catalog, const struct gf_catalog *from,
                     uint32_t index, uint32_t first_source, struct gf_err *err);

size_t gf_catalog_len(const struct gf_catalog *catalog);
const struct gf_tensor *gf_catalog_at(const struct gf_catalog *catalog, uint32_t index);
/* By name, hidden ones excluded; NULL if not there. Index of a tensor: gf_catalog_index. */
const struct gf_tensor *gf_catalog_find(const struct gf_catalog *catalog, const char *name);
uint32_t gf_catalog_index(const struct gf_catalog *catalog, const struct gf_tensor *tensor);
const struct gf_piece *gf_catalog_piece(const struct gf_catalog *catalog, uint64_t index);
struct gf_box gf_catalog_box(const struct gf_catalog *catalog,
                             const struct gf_tensor *tensor, const struct gf_piece *piece);
size_t gf_catalog_npieces(const struct gf_catalog *catalog);

/* Proves: names unique, sizes consistent, every piece inside its source (sizes[i] bytes,
 * named names[i]), each element covered exactly once. GF_EINCOMPLETE for holes, GF_EBAD for
 * the rest; the text names the tensor and the file. Freezes the catalog. */
int gf_catalog_check(struct gf_catalog *catalog, const uint64_t *sizes,
                     const char *const *names, size_t nsources, struct gf_err *err);

#endif
