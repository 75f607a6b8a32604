/* SPDX-License-Identifier: Apache-2.0 */
#include "format/dcp_item.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/math.h"

/* Values of `data` that are no address: an archive begins with a header. */
#define UNKNOWN 0
#define RENDERED 1 /* not in place: see dcp_render.h */

struct slot {
    struct gf_dcp_item item;
    _Atomic uint64_t data; /* the elements' address in the file */
    struct gf_dcp_rendered *rendered;
};

struct dcp {
    struct gf_source base;
    struct gf_source *file;
    struct gf_dcp_cache *cache;
    struct gf_arena arena; /* dims */
    struct slot *slots;    /* by start */
    size_t n;
};

/* The item that [off, off + len) lies in, or NULL. */
static struct slot *find(const struct dcp *dcp, uint64_t off, size_t len)
{
    size_t lo = 0, hi = dcp->n;
    const struct gf_dcp_item *item;
    uint64_t nbytes;

    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;

        if (dcp->slots[mid].item.start <= off)
            lo = mid;
        else
            hi = mid;
    }
    item = &dcp->slots[lo].item;
    if (!dcp->n || off < item->start ||
        gf_dcp_item_nbytes(item->shape, item->dtype, &nbytes) ||
        !gf_inside(off - item->start, len, nbytes))
        return NULL;
    return &dcp->slots[lo];
}

/* Where the item's elements are; reads its header if nobody has. */
static int resolve(struct dcp *dcp, struct slot *slot, uint64_t *ret)
{
    GF_AUTO(gf_source) archive = NULL;
    struct gf_dcp_layout layout;
    uint64_t data = atomic_load_explicit(&slot->data, memory_order_relaxed);
    int r;

    if (data == UNKNOWN) {
        r = gf_dcp_archive(dcp->file, &slot->item, &archive, NULL);
        if (!r)
            r = gf_dcp_archive_layout(archive, &slot->item, &layout, NULL);
        if (r)
            return r;
        data = layout.contiguous ? slot->item.at + layout.data : RENDERED;
        atomic_store_explicit(&slot->data, data, memory_order_relaxed);
    }
    *ret = data;
    return 0;
}

static int dcp_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    struct dcp *dcp = (struct dcp *)src;
    struct slot *slot = find(dcp, off, len);
    uint64_t data;
    int r = slot ? resolve(dcp, slot, &data) : -EINVAL;

    if (r)
        return r;
    off -= slot->item.start;
    if (data == RENDERED)
        return gf_dcp_cache_read(dcp->cache, dcp->file, &slot->item, &slot->rendered, buf,
                                 len, off);
    return gf_source_read(dcp->file, buf, len, data + off);
}

static const void *dcp_map(struct gf_source *src, uint64_t off, size_t len)
{
    struct dcp *dcp = (struct dcp *)src;
    struct slot *slot = find(dcp, off, len);
    uint64_t data;

    if (!slot || resolve(dcp, slot, &data) || data == RENDERED)
        return NULL;
    return gf_source_map(dcp->file, data + (off - slot->item.start), len);
}

static int dcp_pin(struct gf_source *src)
{
    return gf_source_pin(((struct dcp *)src)->file);
}

static void dcp_unpin(struct gf_source *src)
{
    gf_source_unpin(((struct dcp *)src)->file);
}

static int dcp_check(struct gf_source *src)
{
    return gf_source_check(((struct dcp *)src)->file);
}

static void dcp_free(struct gf_source *src)
{
    struct dcp *dcp = (struct dcp *)src;

    for (size_t i = 0; i < dcp->n; i++)
        gf_dcp_cache_drop(dcp->cache, &dcp->slots[i].rendered);
    gf_dcp_cache_free(dcp->cache);
    gf_source_free(dcp->file);
    gf_arena_done(&dcp->arena);
    free(dcp->slots);
    free(src->name);
    free(src);
}

static const struct gf_source_ops dcp_ops = {
    .kind = "dcp",
    .read_at = dcp_read,
    .map = dcp_map,
    .pin = dcp_pin,
    .unpin = dcp_unpin,
    .check = dcp_check,
    .free = dcp_free,
};

static int copy_item(struct dcp *dcp, const struct gf_dcp_item *item, struct slot *slot)
{
    size_t size = item->shape.rank * sizeof(*item->shape.dims);
    uint64_t *dims = gf_arena_alloc(&dcp->arena, size);

    if (!dims)
        return -ENOMEM;
    if (size)
        memcpy(dims, item->shape.dims, size);
    slot->item = *item;
    slot->item.shape.dims = dims;
    atomic_init(&slot->data, item->zstd ? RENDERED : UNKNOWN);
    return 0;
}

static int by_start(const void *a, const void *b)
{
    const struct slot *x = a, *y = b;

    return x->item.start < y->item.start ? -1 : x->item.start > y->item.start;
}

/* Gives the item its place among the source's addresses. */
static int place(struct dcp *dcp, struct gf_dcp_item *item, struct gf_err *err)
{
    uint64_t nbytes;

    if (!gf_inside(item->at, item->length, dcp->file->size))
        return gf_fail(err, GF_EBAD,
                       "'%s': cut short: %" PRIu64 " bytes, its items end at %" PRIu64,
                       dcp->base.name, dcp->file->size, item->at + item->length);
    if (gf_dcp_item_nbytes(item->shape, item->dtype, &nbytes) ||
        (!item->zstd && nbytes > item->length))
        return gf_fail(err, GF_EBAD,
                       "'%s': item of %" PRIu64 " bytes at %" PRIu64
                       " is too short for its chunk",
                       dcp->base.name, item->length, item->at);
    item->start = item->zstd ? dcp->base.size : item->at;
    /* One byte between packed items, so that no range lies in two. */
    if (item->zstd && (gf_add(dcp->base.size, nbytes, &dcp->base.size) ||
                       gf_add(dcp->base.size, 1, &dcp->base.size)))
        return gf_fail(err, GF_EBAD, "'%s': impossible sizes of items", dcp->base.name);
    return 0;
}

static int check_overlap(const struct dcp *dcp, struct gf_err *err)
{
    for (size_t i = 1; i < dcp->n; i++) {
        const struct gf_dcp_item *a = &dcp->slots[i - 1].item, *b = &dcp->slots[i].item;

        if (!a->zstd && !b->zstd && a->at + a->length > b->at)
            return gf_fail(err, GF_EBAD,
                           "'%s': items of %" PRIu64 " bytes at %" PRIu64 " and of %" PRIu64
                           " at %" PRIu64 " overlap",
                           dcp->base.name, a->length, a->at, b->length, b->at);
    }
    return 0;
}

static int fill(struct dcp *dcp, struct gf_dcp_item *items, size_t n, struct gf_err *err)
{
    dcp->slots = calloc(n + 1, sizeof(*dcp->slots));
    if (!dcp->slots)
        return gf_nomem(err);
    for (; dcp->n < n; dcp->n++) {
        int r = place(dcp, &items[dcp->n], err);

        if (r)
            return r;
        if (copy_item(dcp, &items[dcp->n], &dcp->slots[dcp->n]))
            return gf_nomem(err);
    }
    qsort(dcp->slots, n, sizeof(*dcp->slots), by_start);
    return check_overlap(dcp, err);
}

int gf_dcp_source(struct gf_source *file, struct gf_dcp_cache *cache,
                  struct gf_dcp_item *items, size_t n, struct gf_source **ret,
                  struct gf_err *err)
{
    struct dcp *dcp = calloc(1, sizeof(*dcp));
    int r;

    if (!dcp) {
        gf_source_free(file);
        return gf_nomem(err);
    }
    dcp->base = (struct gf_source){ .ops = &dcp_ops,
                                    .name = strdup(file->name),
                                    .size = file->size,
                                    .mode = file->mode,
                                    .identity = file->identity };
    dcp->file = file;
    dcp->cache = gf_dcp_cache_ref(cache);
    r = dcp->base.name ? fill(dcp, items, n, err) : gf_nomem(err);
    if (r) {
        dcp_free(&dcp->base);
        return r;
    }
    *ret = &dcp->base;
    return 0;
}
