/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge.h - elements of a weight with an adapter merged into it (view/merge.h).
 *
 * Private to gather/. What is read of the adapter is kept in gather->resident.
 */
#ifndef GF_GATHER_MERGE_H
#define GF_GATHER_MERGE_H

#include "gather/gather.h"

/* Elements [first, first + count) of the leaf, merged, as expr->to. */
int gf_merge_read(const struct gf_gather *gather, const struct gf_expr *expr,
                  uint64_t first, uint64_t count, uint8_t *dst, struct gf_scratch *scratch,
                  struct gf_fault *fault);

#endif
