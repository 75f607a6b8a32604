/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dtensor.h - what a rank's own file holds of a distributed tensor.
 *
 * Pure: a pickle's value in, boxes of the whole tensor out. Two classes, both pickled as
 * _rebuild_from_type_v2(_rebuild_wrapper_subclass, CLASS, (CLASS, dtype, size, ...), state):
 *
 *   DTensor        state (None, {_local_tensor, _spec}). The spec has a mesh of ranks and,
 *                  for each of its dimensions, how the tensor lies on it; this rank's box
 *                  follows from its coordinates. Chunks are ceil(length / ranks) long, so the
 *                  last ranks may have less or nothing.
 *   ShardedTensor  state (local shards, metadata, ...): each shard says its offsets itself.
 *
 *      Shard(0) on 2 ranks, 5 rows       _StridedShard(0) on dp, Shard(0) on tp, 8 rows
 *      | rank 0: rows 0 1 2 |            | tp 0: dp 0: rows 0 1, dp 1: rows 2 3 |
 *      | rank 1: rows 3 4   |            | tp 1: dp 0: rows 4 5, dp 1: rows 6 7 |
 *
 * The mesh's form in the pickle changed with torch's versions: `mesh` (a tensor) up to 2.8,
 * `_layout` with `shape`, then with `axes`.
 */
#ifndef GF_FORMAT_DTENSOR_H
#define GF_FORMAT_DTENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/torch_file.h"

struct gf_dtensor_box {
    const uint64_t *first;     /* as many as the tensor has dimensions */
    struct gf_torch_view view; /* its shape is the box's */
};

struct gf_dtensor {
    struct gf_shape shape; /* of the whole tensor */
    enum gf_dtype dtype;
    struct gf_dtensor_box *boxes; /* the parts that this file holds, none of them empty */
    size_t n;
    uint64_t ranks; /* the tensor is spread over so many ranks, this one included */
};

/* GF_TORCH_OTHER: neither of the two. `rank` is the file's and counts where the pickle does
 * not say its coordinates. GF_TORCH_UNSUPPORTED puts the reason in *why, as
 * gf_torch_tensor() does. What *ret points at lives as long as the pickle. GF_EBAD for
 * impossible numbers, and for a part whose shape is not the one that follows from the mesh. */
int gf_dtensor_parse(struct gf_pickle *pickle, const struct gf_pv *value, uint64_t rank,
                     const char *file, const char *what, enum gf_torch_is *ret_is,
                     struct gf_dtensor *ret, const char **why, struct gf_err *err);

#endif
