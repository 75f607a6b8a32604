/* SPDX-License-Identifier: Apache-2.0 */
#include "source/slot.h"

#include <stdlib.h>
#include <string.h>

struct slot {
    struct gf_source base; /* first */
    const struct gf_slot_guard *guard;
    void *ctx;
    uint32_t part;
};

static int slot_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    struct slot *slot = (struct slot *)src;
    const uint8_t *bytes;
    int r = slot->guard->enter(slot->ctx, slot->part, &bytes);

    if (r)
        return r;
    memcpy(buf, bytes + off, len);
    slot->guard->leave(slot->ctx, slot->part);
    return 0;
}

static void slot_free(struct gf_source *src)
{
    free(src->name);
    free(src);
}

static const struct gf_source_ops slot_ops = {
    .kind = "slot",
    .read_at = slot_read,
    .free = slot_free,
};

int gf_source_slot(const char *name, uint64_t size, const struct gf_slot_guard *guard,
                   void *ctx, uint32_t part, int64_t mtime_ns, struct gf_source **ret,
                   struct gf_err *err)
{
    struct slot *slot = malloc(sizeof(*slot));

    if (!slot)
        return gf_nomem(err);
    /* The memory of a process is its owner's alone. */
    *slot = (struct slot){ .base = { .ops = &slot_ops,
                                     .name = strdup(name),
                                     .size = size,
                                     .mode = 0400,
                                     .identity = { .size = size, .mtime_ns = mtime_ns } },
                           .guard = guard,
                           .ctx = ctx,
                           .part = part };
    if (!slot->base.name) {
        free(slot);
        return gf_nomem(err);
    }
    *ret = &slot->base;
    return 0;
}
