/* SPDX-License-Identifier: Apache-2.0 */
#include "base/strmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

struct gf_strmap_slot {
    const char *key; /* NULL = empty */
    uint64_t hash, value;
};

uint64_t gf_hash(uint64_t seed, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t h = 0xcbf29ce484222325u ^ seed;

    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    h ^= h >> 32;
    return h;
}

static uint64_t fresh_seed(void)
{
    uint64_t seed;

    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != (ssize_t)sizeof(seed))
        seed = (uint64_t)time(NULL) ^ (uint64_t)(uintptr_t)&seed;
    return seed;
}

static struct gf_strmap_slot *find(const struct gf_strmap *map, const char *key,
                                   uint64_t hash)
{
    for (size_t i = hash & (map->room - 1);; i = (i + 1) & (map->room - 1)) {
        struct gf_strmap_slot *slot = &map->slots[i];

        if (!slot->key || (slot->hash == hash && strcmp(slot->key, key) == 0))
            return slot;
    }
}

static int grow(struct gf_strmap *map)
{
    struct gf_strmap bigger = { .room = map->room ? map->room * 2 : 16, .seed = map->seed };

    if (!map->seed)
        map->seed = bigger.seed = fresh_seed();
    bigger.slots = calloc(bigger.room, sizeof(*bigger.slots));
    if (!bigger.slots)
        return -ENOMEM;
    for (size_t i = 0; i < map->room; i++)
        if (map->slots[i].key)
            *find(&bigger, map->slots[i].key, map->slots[i].hash) = map->slots[i];
    bigger.n = map->n;
    free(map->slots);
    *map = bigger;
    return 0;
}

int gf_strmap_put(struct gf_strmap *map, const char *key, uint64_t value, uint64_t *old)
{
    struct gf_strmap_slot *slot;
    uint64_t hash;

    if (map->n + 1 > map->room / 4 * 3 && grow(map))
        return -ENOMEM;
    hash = gf_hash(map->seed, key, strlen(key));
    slot = find(map, key, hash);
    if (slot->key) {
        if (old)
            *old = slot->value;
        return -EEXIST;
    }
    *slot = (struct gf_strmap_slot){ key, hash, value };
    map->n++;
    return 0;
}

bool gf_strmap_get(const struct gf_strmap *map, const char *key, uint64_t *ret)
{
    const struct gf_strmap_slot *slot;

    if (!map->n)
        return false;
    slot = find(map, key, gf_hash(map->seed, key, strlen(key)));
    if (!slot->key)
        return false;
    *ret = slot->value;
    return true;
}

void gf_strmap_done(struct gf_strmap *map)
{
    free(map->slots);
    *map = (struct gf_strmap){ 0 };
}
