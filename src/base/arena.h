/* SPDX-License-Identifier: Apache-2.0 */
/*
 * arena.h - many small objects that are freed together with their owner.
 *
 * Memory is zeroed and aligned for any type. Not thread-safe: build with one thread.
 */
#ifndef GF_BASE_ARENA_H
#define GF_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct gf_arena_block;

struct gf_arena {
    struct gf_arena_block *blocks;
    size_t used;    /* bytes handed out */
    size_t ceiling; /* 0 = none; past it allocations fail like out of memory */
};

void *gf_arena_alloc(struct gf_arena *arena, size_t size);
char *gf_arena_strndup(struct gf_arena *arena, const char *s, size_t len);
char *gf_arena_strdup(struct gf_arena *arena, const char *s);
char *gf_arena_printf(struct gf_arena *arena, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void gf_arena_done(struct gf_arena *arena);

#endif
