/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_render.h - items whose bytes do not lie in their file as they are served: packed ones
 * (zstd) and ones that are not row-major (a transposed local tensor). Each is put in order
 * as a whole, in memory, when it is first read.
 *
 * One cache serves a checkpoint. It holds GF_DCP_CACHE bytes, or one item if that is
 * larger; what was not read for longest goes first. While an item is made its archive is in
 * memory, too. One lock guards all of it, also while an item is made, so there is never
 * more than one such item beyond the bound: reads of such items wait for each other, others
 * never do.
 */
#ifndef GF_FORMAT_DCP_RENDER_H
#define GF_FORMAT_DCP_RENDER_H

#include "base/auto.h"
#include "base/err.h"
#include "format/dcp_archive.h"

#define GF_DCP_CACHE ((size_t)128 << 20)

struct gf_dcp_cache;
struct gf_dcp_rendered;

int gf_dcp_cache_new(size_t bytes, struct gf_dcp_cache **ret, struct gf_err *err);
struct gf_dcp_cache *gf_dcp_cache_ref(struct gf_dcp_cache *cache);
void gf_dcp_cache_free(struct gf_dcp_cache *cache); /* drops a reference; NULL is fine */
GF_DEFINE_AUTO(gf_dcp_cache);

/* Bytes [off, off + len) of the item in row-major order. *slot is the item's own word, NULL
 * at first, and the cache's to change. */
int gf_dcp_cache_read(struct gf_dcp_cache *cache, struct gf_source *file,
                      const struct gf_dcp_item *item, struct gf_dcp_rendered **slot,
                      void *buf, size_t len, uint64_t off);
/* Before the slot goes. */
void gf_dcp_cache_drop(struct gf_dcp_cache *cache, struct gf_dcp_rendered **slot);

#endif
