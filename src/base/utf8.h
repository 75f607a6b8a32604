/* SPDX-License-Identifier: Apache-2.0 */
/*
 * utf8.h - is this text? The one test for names that come out of a file.
 */
#ifndef GF_BASE_UTF8_H
#define GF_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Well-formed UTF-8 (no overlong forms, surrogates, or code points past 10FFFF). */
static inline bool gf_utf8_valid(const uint8_t *p, size_t len)
{
    const uint8_t *end = p + len;

    while (p < end) {
        size_t more = *p < 0x80 ? 0 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 3;
        uint32_t least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;
        uint32_t c = *p;

        if (more == 0) {
            p++;
            continue;
        }
        if (c < 0xc2 || c > 0xf4 || (size_t)(end - p) <= more)
            return false;
        c &= 0x3fu >> more;
        for (p++; more; more--, p++) {
            if ((*p & 0xc0) != 0x80)
                return false;
            c = c << 6 | (*p & 0x3f);
        }
        if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
            return false;
    }
    return true;
}

#endif
