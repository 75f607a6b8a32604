/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live.h - what the ranks of a running job publish -> catalog.
 *
 * Not in the registry: there is no directory to probe. Each rank has up to two sources, the
 * slot that holds a step and the memory of what never changes.
 */
#ifndef GF_FORMAT_LIVE_H
#define GF_FORMAT_LIVE_H

#include "format/format.h"
#include "live/segment.h"

struct gf_live_rank {
    const struct gf_live_table *table;
    const uint8_t *set;              /* which of its entries are served */
    struct gf_source *slot, *frozen; /* owned; NULL where the set has nothing in it */
};

/* Fills *ret (zeroed by the caller, gf_found_done() also after failure): catalog and sources.
 * Takes over the ranks' sources, also when it fails. `missing` ranks are not here. The
 * caller runs gf_catalog_check(). */
int gf_live_found(struct gf_live_rank *ranks, uint32_t n, uint32_t missing,
                  const struct gf_limits *limits, struct gf_found *ret, struct gf_err *err);

#endif
