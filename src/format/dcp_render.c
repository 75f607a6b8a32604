/* SPDX-License-Identifier: Apache-2.0 */
#include "format/dcp_render.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "container/torch_file.h"

struct gf_dcp_rendered {
    struct gf_dcp_rendered *newer, *older;
    struct gf_dcp_rendered **slot;
    uint64_t n;
    uint8_t bytes[];
};

struct gf_dcp_cache {
    atomic_uint refs;
    pthread_mutex_t lock; /* guards everything below */
    uint64_t room, used;
    struct gf_dcp_rendered *newest, *oldest;
};

int gf_dcp_cache_new(size_t bytes, struct gf_dcp_cache **ret, struct gf_err *err)
{
    struct gf_dcp_cache *cache = calloc(1, sizeof(*cache));

    if (!cache)
        return gf_nomem(err);
    atomic_init(&cache->refs, 1);
    pthread_mutex_init(&cache->lock, NULL);
    cache->room = bytes;
    *ret = cache;
    return 0;
}

struct gf_dcp_cache *gf_dcp_cache_ref(struct gf_dcp_cache *cache)
{
    atomic_fetch_add(&cache->refs, 1);
    return cache;
}

void gf_dcp_cache_free(struct gf_dcp_cache *cache)
{
    if (!cache || atomic_fetch_sub(&cache->refs, 1) > 1)
        return;
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

static void unlink_locked(struct gf_dcp_cache *cache, struct gf_dcp_rendered *r)
{
    *(r->newer ? &r->newer->older : &cache->newest) = r->older;
    *(r->older ? &r->older->newer : &cache->oldest) = r->newer;
}

static void link_locked(struct gf_dcp_cache *cache, struct gf_dcp_rendered *r)
{
    r->newer = NULL;
    r->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = r;
    cache->newest = r;
}

static void drop_locked(struct gf_dcp_cache *cache, struct gf_dcp_rendered *r)
{
    unlink_locked(cache, r);
    cache->used -= r->n;
    *r->slot = NULL;
    free(r);
}

void gf_dcp_cache_drop(struct gf_dcp_cache *cache, struct gf_dcp_rendered **slot)
{
    pthread_mutex_lock(&cache->lock);
    if (*slot)
        drop_locked(cache, *slot);
    pthread_mutex_unlock(&cache->lock);
}

/* Elements at any strides to row-major; returns where the next one goes. */
static uint8_t *put_in_order(const struct gf_dcp_item *item, const uint64_t *strides,
                             uint32_t dim, const uint8_t *src, uint8_t *dst)
{
    size_t size = gf_torch_itemsize(item->dtype);

    if (dim == item->shape.rank) {
        memcpy(dst, src, size);
        return dst + size;
    }
    for (uint64_t i = 0; i < item->shape.dims[dim]; i++)
        dst = put_in_order(item, strides, dim + 1, src + i * strides[dim] * size, dst);
    return dst;
}

static int render(struct gf_source *file, const struct gf_dcp_item *item, uint8_t *dst,
                  uint64_t nbytes)
{
    GF_AUTO(gf_source) archive = NULL;
    GF_AUTO_MEM uint8_t *raw = NULL;
    struct gf_dcp_layout layout;
    int r = gf_dcp_archive(file, item, &archive, NULL);

    if (!r)
        r = gf_dcp_archive_layout(archive, item, &layout, NULL);
    if (r)
        return r;
    if (layout.contiguous)
        return gf_source_read(archive, dst, nbytes, layout.data);
    raw = malloc(layout.reach);
    if (!raw)
        return -ENOMEM;
    r = gf_source_read(archive, raw, layout.reach, layout.data);
    if (!r)
        put_in_order(item, layout.strides, 0, raw, dst);
    return r;
}

static int load_locked(struct gf_dcp_cache *cache, struct gf_source *file,
                       const struct gf_dcp_item *item, struct gf_dcp_rendered **slot)
{
    struct gf_dcp_rendered *made;
    uint64_t nbytes, size;
    int r;

    if (gf_dcp_item_nbytes(item->shape, item->dtype, &nbytes) ||
        gf_add(nbytes, sizeof(*made), &size))
        return -GF_EBAD;
    while (cache->oldest && cache->used + nbytes > cache->room)
        drop_locked(cache, cache->oldest);
    made = malloc(size);
    if (!made)
        return -ENOMEM;
    made->n = nbytes;
    made->slot = slot;
    r = render(file, item, made->bytes, nbytes);
    if (r) {
        free(made);
        return r;
    }
    cache->used += nbytes;
    link_locked(cache, made);
    *slot = made;
    return 0;
}

int gf_dcp_cache_read(struct gf_dcp_cache *cache, struct gf_source *file,
                      const struct gf_dcp_item *item, struct gf_dcp_rendered **slot,
                      void *buf, size_t len, uint64_t off)
{
    int r = 0;

    pthread_mutex_lock(&cache->lock);
    if (!*slot) {
        r = load_locked(cache, file, item, slot);
    } else if (*slot != cache->newest) {
        unlink_locked(cache, *slot);
        link_locked(cache, *slot);
    }
    if (!r)
        memcpy(buf, (*slot)->bytes + off, len);
    pthread_mutex_unlock(&cache->lock);
    return r;
}
