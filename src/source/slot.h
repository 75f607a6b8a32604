/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slot.h - the memory in which a training process keeps a step for us, as a source.
 *
 * The source is made before there is such memory: whoever reads first asks the guard for it,
 * which binds all sources of a training step at once, or fails. Bytes are copied between
 * enter() and leave(), so that the guard knows when a slot may be given back. There are no
 * mappings to hand out: they would be read when nobody guards them any more.
 */
#ifndef GF_SOURCE_SLOT_H
#define GF_SOURCE_SLOT_H

#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "source/source.h"

/* Who knows where the bytes are. Thread-safe. */
struct gf_slot_guard {
    /* The memory of `part` until leave(), which is called exactly if this gives 0. It has at
     * least the bytes that the source was made with. -ESTALE: given back already. */
    int (*enter)(void *ctx, uint32_t part, const uint8_t **ret);
    void (*leave)(void *ctx, uint32_t part);
};

/* `ctx` outlives the source. `mtime_ns` tells steps apart (its identity). */
int gf_source_slot(const char *name, uint64_t size, const struct gf_slot_guard *guard,
                   void *ctx, uint32_t part, int64_t mtime_ns, struct gf_source **ret,
                   struct gf_err *err);

#endif
