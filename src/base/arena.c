/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include "base/math.h"

#include <stdarg.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE ((size_t)16 << 10)

struct gf_arena_block {
    struct gf_arena_block *next;
    size_t used, size;
    alignas(max_align_t) uint8_t data[];
};

void *gf_arena_alloc(struct gf_arena *arena, size_t size)
{
    struct gf_arena_block *b = arena->blocks;
    size_t align = alignof(max_align_t), need;
    void *p;

    if (size > SIZE_MAX / 4)
        return NULL;
    need = (size + align - 1) & ~(align - 1);
    if (need == 0)
        need = align;
    if (arena->ceiling && need > arena->ceiling - GF_MIN(arena->used, arena->ceiling))
        return NULL;
    if (!b || b->size - b->used < need) {
        size_t want = need > BLOCK_SIZE / 4 ? need : BLOCK_SIZE;

        b = calloc(1, sizeof(*b) + want);
        if (!b)
            return NULL;
        b->size = want;
        /* A big object gets a block of its own, behind the one still being filled. */
        if (arena->blocks && want == need) {
            b->next = arena->blocks->next;
            arena->blocks->next = b;
        } else {
            b->next = arena->blocks;
            arena->blocks = b;
        }
    }
    p = b->data + b->used;
    b->used += need;
    arena->used += need;
    return p;
}

char *gf_arena_strndup(struct gf_arena *arena, const char *s, size_t len)
{
    char *copy = gf_arena_alloc(arena, len + 1);

    if (copy && len)
        memcpy(copy, s, len);
    return copy;
}

char *gf_arena_strdup(struct gf_arena *arena, const char *s)
{
    return gf_arena_strndup(arena, s, strlen(s));
}

char *gf_arena_printf(struct gf_arena *arena, const char *fmt, ...)
{
    va_list ap;
    char *s;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !(s = gf_arena_alloc(arena, (size_t)n + 1)))
        return NULL;
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

void gf_arena_done(struct gf_arena *arena)
{
    while (arena->blocks) {
        struct gf_arena_block *next = arena->blocks->next;

        free(arena->blocks);
        arena->blocks = next;
    }
    arena->used = 0;
}
