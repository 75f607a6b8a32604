/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes.h - a cursor over untrusted bytes: the one place where bounds are checked.
 *
 * Every getter returns false when too few bytes are left, and then changes nothing.
 */
#ifndef GF_BASE_BYTES_H
#define GF_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct gf_bytes {
    const uint8_t *p, *end;
};

static inline struct gf_bytes gf_bytes_of(const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    return (struct gf_bytes){ p, p ? p + len : p };
}

static inline size_t gf_bytes_left(const struct gf_bytes *b)
{
    return (size_t)(b->end - b->p);
}

/* Points *ret at the next `len` bytes and steps over them. */
static inline bool gf_bytes_get(struct gf_bytes *b, size_t len, const uint8_t **ret)
{
    if (gf_bytes_left(b) < len)
        return false;
    *ret = b->p;
    b->p += len;
    return true;
}

static inline bool gf_bytes_skip(struct gf_bytes *b, size_t len)
{
    const uint8_t *ignored;
    return gf_bytes_get(b, len, &ignored);
}

static inline uint16_t gf_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t gf_le32(const uint8_t *p)
{
    return gf_le16(p) | (uint32_t)gf_le16(p + 2) << 16;
}

static inline uint64_t gf_le64(const uint8_t *p)
{
    return gf_le32(p) | (uint64_t)gf_le32(p + 4) << 32;
}

static inline bool gf_bytes_u8(struct gf_bytes *b, uint8_t *ret)
{
    const uint8_t *p;
    return gf_bytes_get(b, 1, &p) && (*ret = *p, true);
}

static inline bool gf_bytes_u16le(struct gf_bytes *b, uint16_t *ret)
{
    const uint8_t *p;
    return gf_bytes_get(b, 2, &p) && (*ret = gf_le16(p), true);
}

static inline bool gf_bytes_u32le(struct gf_bytes *b, uint32_t *ret)
{
    const uint8_t *p;
    return gf_bytes_get(b, 4, &p) && (*ret = gf_le32(p), true);
}

static inline bool gf_bytes_u64le(struct gf_bytes *b, uint64_t *ret)
{
    const uint8_t *p;
    return gf_bytes_get(b, 8, &p) && (*ret = gf_le64(p), true);
}

#endif
