/* SPDX-License-Identifier: Apache-2.0 */
#include "gather/resident.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/math.h"
#include "base/strmap.h"

#define BUCKETS 1024
#define ALIGNMENT 64

struct slot {
    struct gf_resident_item item; /* first: what callers hold */
    struct gf_resident_key key;
    struct slot *chain;         /* in its bucket */
    struct slot *newer, *older; /* among those that nobody holds */
    size_t bytes;
    unsigned holders;
    bool ready;
    int failed; /* the error of those who waited for it */
};

struct gf_resident {
    pthread_mutex_t lock;
    pthread_cond_t loaded; /* some slot became ready, or failed */
    uint64_t budget, bytes;
    struct slot *newest, *oldest; /* nobody holds these */
    struct slot *buckets[BUCKETS];
};

int gf_resident_new(uint64_t budget, struct gf_resident **ret, struct gf_err *err)
{
    struct gf_resident *r = calloc(1, sizeof(*r));

    if (!r)
        return gf_nomem(err);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->loaded, NULL);
    r->budget = budget;
    *ret = r;
    return 0;
}

void gf_resident_free(struct gf_resident *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        while (r->buckets[i]) {
            struct slot *next = r->buckets[i]->chain;

            free(r->buckets[i]);
            r->buckets[i] = next;
        }
    pthread_cond_destroy(&r->loaded);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static bool same(const struct gf_resident_key *a, const struct gf_resident_key *b)
{
    return a->owner == b->owner && a->part == b->part && a->catalog == b->catalog &&
           a->tensor == b->tensor && a->form == b->form;
}

static struct slot **place(struct gf_resident *r, const struct gf_resident_key *key)
{
    uint64_t words[] = { (uintptr_t)key->owner, key->part,
                         (uint64_t)key->catalog << 32 | key->tensor, key->form };
    struct slot **at = &r->buckets[gf_hash(0, words, sizeof(words)) % BUCKETS];

    while (*at && !same(&(*at)->key, key))
        at = &(*at)->chain;
    return at;
}

static void idle_add(struct gf_resident *r, struct slot *slot)
{
    slot->older = r->newest;
    slot->newer = NULL;
    *(r->newest ? &r->newest->newer : &r->oldest) = slot;
    r->newest = slot;
}

static void idle_remove(struct gf_resident *r, struct slot *slot)
{
    *(slot->newer ? &slot->newer->older : &r->newest) = slot->older;
    *(slot->older ? &slot->older->newer : &r->oldest) = slot->newer;
}

/* Out of the table; freed by the caller or by the last of its holders. */
static void drop(struct gf_resident *r, struct slot *slot)
{
    *place(r, &slot->key) = slot->chain;
    r->bytes -= slot->bytes;
}

static void evict(struct gf_resident *r)
{
    while (r->bytes > r->budget && r->oldest) {
        struct slot *slot = r->oldest;

        idle_remove(r, slot);
        drop(r, slot);
        free(slot);
    }
}

static struct slot *slot_new(const struct gf_resident_key *key, uint64_t n)
{
    uint64_t head = gf_align(sizeof(struct slot), ALIGNMENT), bytes;
    struct slot *slot;

    if (gf_mul(n, sizeof(float), &bytes) || gf_add(bytes, head + ALIGNMENT, &bytes) ||
        bytes > SIZE_MAX / 2)
        return NULL;
    bytes = gf_align(bytes - ALIGNMENT, ALIGNMENT);
    slot = aligned_alloc(ALIGNMENT, bytes);
    if (slot)
        *slot = (struct slot){
            .item = { (const float *)(const void *)((uint8_t *)slot + head) },
            .key = *key,
            .bytes = bytes,
            .holders = 1,
        };
    return slot;
}

/* With the lock held, which is let go of meanwhile. */
static int load_new(struct gf_resident *r, struct slot **at, uint64_t n,
                    const struct gf_resident_key *key, gf_resident_load_fn *load, void *ctx,
                    struct slot **ret)
{
    struct slot *slot = slot_new(key, n);
    int code;

    if (!slot)
        return -ENOMEM;
    *at = slot;
    r->bytes += slot->bytes;
    evict(r);
    pthread_mutex_unlock(&r->lock);
    code = load(ctx, (float *)(uintptr_t)slot->item.values);
    pthread_mutex_lock(&r->lock);
    slot->ready = !code;
    slot->failed = code;
    pthread_cond_broadcast(&r->loaded);
    if (!code) {
        *ret = slot;
        return 0;
    }
    drop(r, slot);
    if (--slot->holders == 0)
        free(slot);
    return code;
}

int gf_resident_get(struct gf_resident *r, const struct gf_resident_key *key, uint64_t n,
                    gf_resident_load_fn *load, void *ctx,
                    const struct gf_resident_item **ret)
{
    struct slot **at, *slot;
    int code;

    pthread_mutex_lock(&r->lock);
    at = place(r, key);
    slot = *at;
    if (!slot) {
        code = load_new(r, at, n, key, load, ctx, &slot);
    } else {
        if (slot->holders++ == 0)
            idle_remove(r, slot);
        while (!slot->ready && !slot->failed)
            pthread_cond_wait(&r->loaded, &r->lock);
        code = slot->failed;
        if (code && --slot->holders == 0)
            free(slot);
    }
    pthread_mutex_unlock(&r->lock);
    if (!code)
        *ret = &slot->item;
    return code;
}

void gf_resident_put(struct gf_resident *r, const struct gf_resident_item *item)
{
    struct slot *slot = (struct slot *)(uintptr_t)item;

    if (!item)
        return;
    pthread_mutex_lock(&r->lock);
    if (--slot->holders == 0) {
        idle_add(r, slot);
        evict(r);
    }
    pthread_mutex_unlock(&r->lock);
}

uint64_t gf_resident_bytes(struct gf_resident *r)
{
    uint64_t bytes;

    pthread_mutex_lock(&r->lock);
    bytes = r->bytes;
    pthread_mutex_unlock(&r->lock);
    return bytes;
}
