/* SPDX-License-Identifier: Apache-2.0 */
/*
 * strmap.h - string -> number, for name tables.
 *
 * Keys are not copied: they live at least as long as the map (an arena's strings).
 * The hash is seeded per map, so hostile names cannot make look-ups slow.
 */
#ifndef GF_BASE_STRMAP_H
#define GF_BASE_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gf_strmap {
    struct gf_strmap_slot *slots;
    size_t n, room;
    uint64_t seed;
};

/* Adds key -> value. 0, -EEXIST with *old (may be NULL) set when the key is there, -ENOMEM. */
int gf_strmap_put(struct gf_strmap *map, const char *key, uint64_t value, uint64_t *old);
bool gf_strmap_get(const struct gf_strmap *map, const char *key, uint64_t *ret);
void gf_strmap_done(struct gf_strmap *map);

/* FNV-1a with a final mix; `seed` 0 gives the stable hash that inode numbers use. */
uint64_t gf_hash(uint64_t seed, const void *data, size_t len);

#endif
