/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/utf8.h"

static bool reserve(struct gf_text *text, size_t more)
{
    size_t want;
    char *p;

    if (text->failed)
        return false;
    if (text->s && more < text->room - text->len)
        return true;
    if (more > SIZE_MAX / 4 - text->len) {
        text->failed = true;
        return false;
    }
    want = (text->len + more + 1) * 3 / 2 + 64;
    p = realloc(text->s, want);
    if (!p) {
        text->failed = true;
        return false;
    }
    text->s = p;
    text->room = want;
    return true;
}

void gf_text_addn(struct gf_text *text, const void *s, size_t len)
{
    if (!reserve(text, len))
        return;
    if (len)
        memcpy(text->s + text->len, s, len);
    text->len += len;
    text->s[text->len] = '\0';
}

void gf_text_add(struct gf_text *text, const char *s)
{
    gf_text_addn(text, s, strlen(s));
}

void gf_text_printf(struct gf_text *text, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        text->failed = true;
    if (n < 0 || !reserve(text, (size_t)n))
        return;
    va_start(ap, fmt);
    vsnprintf(text->s + text->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    text->len += (size_t)n;
}

static bool escape(struct gf_text *text, unsigned char c)
{
    static const char shorts[] = "\bb\ff\nn\rr\tt\"\"\\\\";

    for (size_t i = 0; i + 1 < sizeof(shorts); i += 2)
        if (c == (unsigned char)shorts[i]) {
            gf_text_printf(text, "\\%c", shorts[i + 1]);
            return true;
        }
    if (c >= 0x20)
        return false;
    gf_text_printf(text, "\\u%04x", c);
    return true;
}

/* File names need not be UTF-8, JSON has to be: stray bytes become U+FFFD. */
static void add_string(struct gf_text *text, const char *s, bool ascii)
{
    const uint8_t *p = (const uint8_t *)s, *end = p + strlen(s);
    uint32_t rune;
    size_t n;

    gf_text_add(text, "\"");
    for (; p < end; p += n ? n : 1) {
        n = gf_utf8_char(p, end, &rune);
        if (!n)
            rune = 0xfffd;
        if (n == 1 && escape(text, *p))
            continue;
        if (ascii && rune >= 0x10000)
            gf_text_printf(text, "\\u%04x\\u%04x",
                           0xd800 + ((rune - 0x10000) >> 10 & 0x3ff),
                           0xdc00 + (rune & 0x3ff));
        else if (ascii && rune >= 0x7f)
            gf_text_printf(text, "\\u%04x", rune);
        else if (!n)
            gf_text_add(text, "\xef\xbf\xbd");
        else
            gf_text_addn(text, p, n);
    }
    gf_text_add(text, "\"");
}

void gf_text_json(struct gf_text *text, const char *s)
{
    add_string(text, s, false);
}

void gf_text_json_ascii(struct gf_text *text, const char *s)
{
    add_string(text, s, true);
}

bool gf_ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);

    return n >= k && memcmp(s + n - k, suffix, k) == 0;
}

const char *gf_size_text(uint64_t bytes, char buf[GF_SIZE_TEXT])
{
    static const char *const units[] = { "B", "kB", "MB", "GB", "TB", "PB", "EB" };
    double n = (double)bytes;
    size_t u = 0;

    for (; n >= 999.95 && u + 1 < GF_COUNT(units); u++)
        n /= 1000;
    snprintf(buf, GF_SIZE_TEXT, u ? "%.1f %s" : "%.0f %s", n, units[u]);
    return buf;
}

char *gf_text_take(struct gf_text *text, size_t *ret_len)
{
    char *s;

    gf_text_addn(text, "", 0);
    s = text->failed ? NULL : text->s;
    if (!s)
        free(text->s);
    else if (ret_len)
        *ret_len = text->len;
    *text = (struct gf_text){ 0 };
    return s;
}

void gf_text_done(struct gf_text *text)
{
    free(text->s);
    *text = (struct gf_text){ 0 };
}
