/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_item.h - a `.distcp` file as a source whose addresses are the items' elements.
 *
 *     file      | archive 0: header, elements, directory | archive 1: ...             |
 *     source    | elements 0 ...|  nothing here          | elements 1 ...| nothing .. |
 *               ^ start = at                             ^ start = at
 *
 * The row-major bytes of an item's chunk occupy [start, start + nbytes). Of an item that is
 * not packed `start` is the address of its archive, which is longer than its elements, so
 * that addresses tell where in the file something is; packed items follow behind the file's
 * end. Reads stay inside one item.
 *
 * Where the elements really are is found in the archive's header at an item's first use,
 * and checked against the metadata; a word per item then holds it. Threads may do that at
 * the same time, with the same result, so reads take no lock (but for dcp_render.h).
 */
#ifndef GF_FORMAT_DCP_ITEM_H
#define GF_FORMAT_DCP_ITEM_H

#include <stddef.h>

#include "format/dcp_archive.h"
#include "format/dcp_render.h"
#include "source/source.h"

/* Takes over `file`, also on failure, and a reference to the cache; copies the items and
 * fills in their `start`. GF_EBAD if items overlap or are too short for their elements. */
int gf_dcp_source(struct gf_source *file, struct gf_dcp_cache *cache,
                  struct gf_dcp_item *items, size_t n, struct gf_source **ret,
                  struct gf_err *err);

#endif
