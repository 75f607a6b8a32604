/* SPDX-License-Identifier: Apache-2.0 */
/*
 * utf8.h - is this text? The one test for names that come out of a file.
 */
#ifndef GF_BASE_UTF8_H
#define GF_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length of the character that [p, end) begins with and its code point; 0 if it is not
 * well-formed (overlong forms, surrogates and code points past 10FFFF are not), or if there is
 * none. *ret may be changed in any case. */
static inline size_t gf_utf8_char(const uint8_t *p, const uint8_t *end, uint32_t *ret)
{
    size_t len;

    if (p == end)
        return 0;
    len = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
    *ret = *p;
    if (len == 1)
        return 1;
    if (*p < 0xc2 || *p > 0xf4 || (size_t)(end - p) < len)
        return 0;
    *ret &= 0x7fu >> len;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        *ret = *ret << 6 | (p[i] & 0x3f);
    }
    if (*ret < (len == 4   ? 0x10000u
                : len == 3 ? 0x800u
                           : 0x80u) ||
        *ret > 0x10ffff || (*ret >= 0xd800 && *ret <= 0xdfff))
        return 0;
    return len;
}

static inline bool gf_utf8_valid(const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;
    uint32_t ignored;
    size_t n;

    while ((n = gf_utf8_char(p, end, &ignored)))
        p += n;
    return p == end;
}

#endif
