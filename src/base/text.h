/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.h - text that is put together piece by piece: JSON headers, reports, metrics.
 *
 * Errors stick: after one failed append the rest are no-ops, and gf_text_take() fails.
 */
#ifndef GF_BASE_TEXT_H
#define GF_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gf_text {
    char *s; /* NUL-terminated once something was added */
    size_t len, room;
    bool failed;
};

void gf_text_add(struct gf_text *text, const char *s);
void gf_text_addn(struct gf_text *text, const void *s, size_t len);
void gf_text_printf(struct gf_text *text, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* As a JSON string, quotes included, escaped as serde_json and Python's json
 * (ensure_ascii=False) do: only '"', '\\' and control characters. What is not UTF-8 (a file's
 * name may be anything) becomes U+FFFD. */
void gf_text_json(struct gf_text *text, const char *s);
/* As Python's json.dumps() does by default (ensure_ascii=True): \uXXXX past ASCII. */
void gf_text_json_ascii(struct gf_text *text, const char *s);
bool gf_ends_with(const char *s, const char *suffix);

/* "1.3 GB" into buf: decimal units, for people. */
#define GF_SIZE_TEXT 32
const char *gf_size_text(uint64_t bytes, char buf[GF_SIZE_TEXT]);

/* Hands over the string (free() it), or returns NULL when an append failed. */
char *gf_text_take(struct gf_text *text, size_t *ret_len);
void gf_text_done(struct gf_text *text);

#endif
