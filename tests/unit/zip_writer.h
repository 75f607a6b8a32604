/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zip_writer.h - writes zip archives the way torch.save does, into memory, with a place
 * for every lie that a test wants to tell.
 */
#ifndef GF_TESTS_ZIP_WRITER_H
#define GF_TESTS_ZIP_WRITER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZW_MEMBERS 16

struct zw {
    uint8_t *p;
    size_t n, room;
    struct zw_member {
        char name[64];
        uint64_t header, csize, usize;
        uint16_t method, flags, disk;
        bool zip64; /* sizes and offset only in the zip64 extra */
    } at[ZW_MEMBERS];
    size_t members;
    /* set before zw_end() */
    bool plain;          /* no zip64 end record and locator */
    uint64_t count_lie;  /* added to the member count */
    uint16_t disk;       /* number of this disk */
    const char *comment; /* behind the end record */
    /* set by zw_end() */
    size_t dir, end64;
};

static inline void zw_bytes(struct zw *z, const void *s, size_t n)
{
    while (z->n + n > z->room) {
        z->room = z->room ? 2 * z->room : 4096;
        z->p = realloc(z->p, z->room);
    }
    if (n)
        memcpy(z->p + z->n, s, n);
    z->n += n;
}

static inline void zw_le(struct zw *z, uint64_t value, unsigned width)
{
    for (; width; width--, value >>= 8)
        zw_bytes(z, &(uint8_t){ (uint8_t)value }, 1);
}

/* A stored member whose payload is aligned to `align` by a local extra field. */
static inline struct zw_member *zw_add(struct zw *z, const char *name, const void *data,
                                       size_t n, size_t align)
{
    struct zw_member *m = &z->at[z->members++];
    size_t pad = (align - (z->n + 30 + strlen(name) + 4) % align) % align;

    *m = (struct zw_member){ .header = z->n, .csize = n, .usize = n, .flags = 0x0808 };
    snprintf(m->name, sizeof(m->name), "%s", name);
    zw_bytes(z, "PK\3\4", 4);
    zw_le(z, 0, 2);
    zw_le(z, m->flags, 2);
    zw_le(z, 0, 18); /* method, time, crc and both sizes: only the directory has them */
    zw_le(z, strlen(name), 2);
    zw_le(z, 4 + pad, 2);
    zw_bytes(z, name, strlen(name));
    zw_bytes(z, "FB", 2);
    zw_le(z, pad, 2);
    for (size_t i = 0; i < pad; i++)
        zw_bytes(z, "Z", 1);
    zw_bytes(z, data, n);
    if (n) {
        zw_bytes(z, "PK\7\10", 4);
        zw_le(z, 0, 4);
        zw_le(z, n, 4);
        zw_le(z, n, 4);
    }
    return m;
}

static inline void zw_end(struct zw *z)
{
    uint64_t count = z->members + z->count_lie, size;

    z->dir = z->n;
    for (size_t i = 0; i < z->members; i++) {
        const struct zw_member *m = &z->at[i];

        zw_bytes(z, "PK\1\2", 4);
        zw_le(z, 0, 4);
        zw_le(z, m->flags, 2);
        zw_le(z, m->method, 2);
        zw_le(z, 0, 8);
        zw_le(z, m->zip64 ? 0xffffffff : m->csize, 4);
        zw_le(z, m->zip64 ? 0xffffffff : m->usize, 4);
        zw_le(z, strlen(m->name), 2);
        zw_le(z, m->zip64 ? 28 : 0, 2);
        zw_le(z, 0, 2);
        zw_le(z, m->disk, 2);
        zw_le(z, 0, 6);
        zw_le(z, m->zip64 ? 0xffffffff : m->header, 4);
        zw_bytes(z, m->name, strlen(m->name));
        if (m->zip64) {
            zw_le(z, 1, 2);
            zw_le(z, 24, 2);
            zw_le(z, m->usize, 8);
            zw_le(z, m->csize, 8);
            zw_le(z, m->header, 8);
        }
    }
    size = z->n - z->dir;
    z->end64 = z->n;
    if (!z->plain) {
        zw_bytes(z, "PK\6\6", 4);
        zw_le(z, 44, 8);
        zw_le(z, 0, 4);
        zw_le(z, z->disk, 4);
        zw_le(z, z->disk, 4);
        zw_le(z, count, 8);
        zw_le(z, count, 8);
        zw_le(z, size, 8);
        zw_le(z, z->dir, 8);
        zw_bytes(z, "PK\6\7", 4);
        zw_le(z, 0, 4);
        zw_le(z, z->end64, 8);
        zw_le(z, 1, 4);
    }
    zw_bytes(z, "PK\5\6", 4);
    zw_le(z, z->plain ? z->disk : 0, 2);
    zw_le(z, z->plain ? z->disk : 0, 2);
    zw_le(z, z->plain ? count : 0xffff, 2);
    zw_le(z, z->plain ? count : 0xffff, 2);
    zw_le(z, z->plain ? size : 0xffffffff, 4);
    zw_le(z, z->plain ? z->dir : 0xffffffff, 4);
    zw_le(z, z->comment ? strlen(z->comment) : 0, 2);
    if (z->comment)
        zw_bytes(z, z->comment, strlen(z->comment));
}

static inline void zw_done(struct zw *z)
{
    free(z->p);
    *z = (struct zw){ 0 };
}

#endif
