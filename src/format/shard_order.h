/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shard_order.h - an order of tensors that gives the same shards when they are cut again.
 *
 * Pure. save_pretrained() walks a model's tensors in their order, fills a shard, and starts
 * the next with the tensor that would overflow it; a tensor larger than the limit gets a
 * shard of its own at once, while the one being filled stays open. In the files that order is
 * gone (they are sorted by dtype and name), but any order will do that makes the same cuts:
 *
 *   - the largest tensor of each shard first: where the unknown first one did not fit into
 *     the shard before, the largest does not either;
 *   - an oversized tensor behind the first one of the shard that follows it, so that the
 *     shard in front of it is closed by then.
 *
 * Which shards of one tensor are oversized ones is not written either: as few as explain
 * why each shard was closed.
 */
#ifndef GF_FORMAT_SHARD_ORDER_H
#define GF_FORMAT_SHARD_ORDER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* sizes[starts[s]] up to sizes[starts[s + 1]] are the bytes of the tensors of shard s <
 * nshards; starts has nshards + 1 entries. *ret: indices of all tensors in the order found;
 * free() it. */
int gf_shard_order(const uint64_t *sizes, const size_t *starts, size_t nshards,
                   size_t **ret, struct gf_err *err);

#endif
