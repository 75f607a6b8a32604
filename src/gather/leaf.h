/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leaf.h - elements of one catalog tensor: fetched piece by piece, cast.
 *
 * Private to gather/. The only place where sources are read for whole elements; merged
 * weights and their operands come through here as much as plain ones.
 */
#ifndef GF_GATHER_LEAF_H
#define GF_GATHER_LEAF_H

#include "gather/gather.h"

/* Makes *buf at least `want` bytes; -ENOMEM. */
int gf_scratch_grow(uint8_t **buf, size_t *size, size_t want);

/* Fills *fault (may be NULL), returns r. src is NULL where none was involved. */
int gf_fault_set(struct gf_fault *fault, const struct gf_source *src, uint64_t off,
                 size_t len, int r);

int gf_leaf_fetch(struct gf_source *src, void *buf, size_t len, uint64_t off,
                  struct gf_fault *fault);

/* Index, relative to tensor->pieces, of the piece that holds flattened element `at` of a
 * tensor without boxes. */
uint32_t gf_leaf_piece(const struct gf_catalog *catalog, const struct gf_tensor *tensor,
                       uint64_t at);

/* Elements [first, first + count) as stored, into buf. */
int gf_leaf_stored(const struct gf_bound *bound, const struct gf_tensor *tensor,
                   uint64_t first, uint64_t count, void *buf, struct gf_scratch *scratch,
                   struct gf_fault *fault);

/* The same elements as the tensor has them (gf_twist), as `to`. */
int gf_leaf_read(const struct gf_bound *bound, const struct gf_tensor *tensor,
                 uint64_t first, uint64_t count, enum gf_dtype to, void *dst,
                 struct gf_scratch *scratch, struct gf_fault *fault);

#endif
