/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.c - the header of a safetensors file.
 *
 *   u64 length | {"__metadata__": {"format": "pt"},
 *                 "h.0.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
 *                 ...} | data
 *
 * Headers reach 100 MB and a million tensors, offsets pass 2^53, and what the Rust reader
 * refuses (24.0 or -0 for a number, a key twice) must be refused here, too. So the text is
 * read in one pass by a scanner of its own, which knows exactly this shape of JSON, and not
 * through base/json.h, whose trees hold numbers as doubles.
 */
#include "container/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/math.h"
#include "base/strmap.h"
#include "base/vec.h"
#include "base/utf8.h"

struct scan {
    const char *name;
    const uint8_t *start;
    struct gf_bytes in;
    const struct gf_limits *limits;
    struct gf_arena *text;
    struct gf_err *err;
};

#define BAD(s, fmt, ...)                                                                   \
    gf_fail((s)->err, GF_EBAD, "'%s': header, byte %td: " fmt, (s)->name,                  \
            (s)->in.p - (s)->start, ##__VA_ARGS__)

/* The next character that is no space; 0 at the end (NUL is no JSON either). */
static uint8_t peek(struct scan *s)
{
    while (s->in.p < s->in.end &&
           (*s->in.p == ' ' || *s->in.p == '\t' || *s->in.p == '\n' || *s->in.p == '\r'))
        s->in.p++;
    return s->in.p < s->in.end ? *s->in.p : 0;
}

static int unexpected(struct scan *s, const char *wanted)
{
    uint8_t c = peek(s);

    if (s->in.p == s->in.end)
        return BAD(s, "it ends, wanted %s", wanted);
    return BAD(s, "found %#04x, wanted %s", c, wanted);
}

static int expect(struct scan *s, char c)
{
    char wanted[4] = { '\'', c, '\'', '\0' };

    if (peek(s) != (uint8_t)c)
        return unexpected(s, wanted);
    s->in.p++;
    return 0;
}

/* In front of the next item of a list that ends with `close`: *ret_more is false behind
 * the last one. */
static int next_item(struct scan *s, char close, bool *first, bool *ret_more)
{
    int r = 0;

    if (peek(s) == (uint8_t)close) {
        s->in.p++;
        *ret_more = false;
        return 0;
    }
    if (!*first)
        r = expect(s, ',');
    *first = false;
    *ret_more = true;
    return r;
}

static bool hex4(const uint8_t *p, const uint8_t *end, uint32_t *ret)
{
    uint32_t value = 0;

    if (end - p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i];
        uint8_t low = c | 0x20;

        if (c >= '0' && c <= '9')
            value = value << 4 | (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f')
            value = value << 4 | (uint32_t)(low - 'a' + 10);
        else
            return false;
    }
    *ret = value;
    return true;
}

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

/* One escape at *p, the backslash; false if there is none like it. A NUL cannot be held
 * by a C string and is refused. */
static bool unescape(const uint8_t **p, const uint8_t *end, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *hit;
    uint32_t c, low;

    if (end - *p < 2)
        return false;
    hit = (*p)[1] ? strchr(from, (*p)[1]) : NULL;
    if (hit) {
        *(*out)++ = to[hit - from];
        *p += 2;
        return true;
    }
    if ((*p)[1] != 'u' || !hex4(*p + 2, end, &c) || c == 0)
        return false;
    *p += 6;
    if (c >= 0xdc00 && c <= 0xdfff)
        return false;
    if (c >= 0xd800 && c <= 0xdbff) {
        if (end - *p < 2 || (*p)[0] != '\\' || (*p)[1] != 'u' || !hex4(*p + 2, end, &low) ||
            low < 0xdc00 || low > 0xdfff)
            return false;
        *p += 6;
        c = 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
    }
    *out = put_utf8(*out, c);
    return true;
}

/* A string, decoded, in the arena. */
static int read_string(struct scan *s, const char *wanted, const char **ret)
{
    const uint8_t *p, *end;
    char *text, *out;

    if (peek(s) != '"')
        return unexpected(s, wanted);
    p = end = s->in.p + 1;
    while (end < s->in.end && *end != '"')
        end += *end == '\\' ? 2 : 1;
    if (end >= s->in.end)
        return BAD(s, "a string without end");
    text = out = gf_arena_alloc(s->text, (size_t)(end - p) + 1);
    if (!text)
        return gf_nomem(s->err);
    while (p < end) {
        s->in.p = p;
        if (*p < 0x20)
            return BAD(s, "control character %#04x in a string", *p);
        if (*p != '\\')
            *out++ = (char)*p++;
        else if (!unescape(&p, end, &out))
            return BAD(s, "an escape that is not known or has no character");
    }
    s->in.p = end + 1;
    *ret = text;
    return 0;
}

/* The length of the run of characters that numbers are made of. */
static size_t number_len(const struct scan *s)
{
    const uint8_t *p = s->in.p;

    while (p < s->in.end && *p && strchr("+-.0123456789eE", *p))
        p++;
    return (size_t)(p - s->in.p);
}

/* A whole number without sign, point, exponent or leading zeros. */
static int read_u64(struct scan *s, uint64_t *ret)
{
    uint8_t first = peek(s);
    size_t len = number_len(s);
    uint64_t value = 0;

    if (!len)
        return unexpected(s, "a whole number");
    for (size_t i = 0; i < len; i++)
        if (s->in.p[i] < '0' || s->in.p[i] > '9' || gf_mul(value, 10, &value) ||
            gf_add(value, (uint64_t)(s->in.p[i] - '0'), &value) || (i == 1 && first == '0'))
            return BAD(s, "found '%.*s', wanted a whole number from 0 to 2^64 - 1",
                       (int)GF_MIN(len, (size_t)40), (const char *)s->in.p);
    s->in.p += len;
    *ret = value;
    return 0;
}

/* Numbers in brackets, at most `max`. */
static int read_numbers(struct scan *s, uint64_t *ret, uint32_t max, uint32_t *ret_n)
{
    bool first = true, more;
    uint32_t n = 0;
    int r = expect(s, '[');

    while (!r && !(r = next_item(s, ']', &first, &more)) && more) {
        if (n == max)
            return BAD(s, "more than %u numbers", max);
        r = read_u64(s, &ret[n++]);
    }
    *ret_n = n;
    return r;
}

static bool skip_word(struct scan *s, const char *word)
{
    size_t len = strlen(word);

    if (gf_bytes_left(&s->in) < len || memcmp(s->in.p, word, len) != 0)
        return false;
    s->in.p += len;
    return true;
}

static size_t skip_digits(struct scan *s)
{
    const uint8_t *from = s->in.p;

    while (s->in.p < s->in.end && *s->in.p >= '0' && *s->in.p <= '9')
        s->in.p++;
    return (size_t)(s->in.p - from);
}

static bool skip_char(struct scan *s, const char *any_of)
{
    if (s->in.p == s->in.end || !*s->in.p || !strchr(any_of, *s->in.p))
        return false;
    s->in.p++;
    return true;
}

/* A number as JSON has them; false where there is none or it is malformed. */
static bool skip_number(struct scan *s)
{
    skip_char(s, "-");
    if (!skip_char(s, "0") && !skip_digits(s))
        return false;
    if (skip_char(s, ".") && !skip_digits(s))
        return false;
    if (!skip_char(s, "eE"))
        return true;
    skip_char(s, "+-");
    return skip_digits(s) > 0;
}

/* A value of a field that is not ours. */
static int skip_value(struct scan *s, size_t depth)
{
    uint8_t c = peek(s);
    char close = c == '{' ? '}' : ']';
    bool first = true, more;
    const char *ignored;
    int r;

    if (depth == 0)
        return BAD(s, "nested deeper than %zu", s->limits->json_depth);
    if (c == '"')
        return read_string(s, "a string", &ignored);
    if (c != '{' && c != '[') {
        if (skip_word(s, "true") || skip_word(s, "false") || skip_word(s, "null") ||
            skip_number(s))
            return 0;
        return unexpected(s, "a value");
    }
    s->in.p++;
    while (!(r = next_item(s, close, &first, &more)) && more) {
        if (c == '{') {
            r = read_string(s, "a key", &ignored);
            if (!r)
                r = expect(s, ':');
        }
        if (!r)
            r = skip_value(s, depth - 1);
        if (r)
            return r;
    }
    return r;
}

static int read_metadata(struct scan *s, struct gf_safetensors *st)
{
    struct GF_VEC(const char *) flat = { 0 };
    bool first = true, more;
    int r = expect(s, '{');

    while (!r && !(r = next_item(s, '}', &first, &more)) && more) {
        const char *pair[2];

        r = read_string(s, "a key", &pair[0]);
        if (!r)
            r = expect(s, ':');
        if (!r)
            r = read_string(s, "a string", &pair[1]);
        if (!r && (gf_vec_push(&flat, pair[0], SIZE_MAX) ||
                   gf_vec_push(&flat, pair[1], SIZE_MAX)))
            r = gf_nomem(s->err);
    }
    if (!r) {
        st->nmeta = flat.n / 2;
        st->meta = gf_arena_alloc(s->text, flat.n * sizeof(*flat.at));
        if (!st->meta)
            r = gf_nomem(s->err);
        else if (flat.n)
            memcpy(st->meta, flat.at, flat.n * sizeof(*flat.at));
    }
    gf_vec_free(&flat);
    return r;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]} in any order. */
static int read_entry(struct scan *s, struct gf_safetensors_entry *entry)
{
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    uint64_t dims[GF_MAX_RANK], offsets[2], *copy;
    bool first = true, more;
    unsigned seen = 0;
    uint32_t n;
    int r = expect(s, '{');

    while (!r && !(r = next_item(s, '}', &first, &more)) && more) {
        const char *key, *dtype;
        unsigned field;

        r = read_string(s, "a key", &key);
        if (!r)
            r = expect(s, ':');
        if (r)
            return r;
        field = strcmp(key, "dtype") == 0          ? DTYPE
                : strcmp(key, "shape") == 0        ? SHAPE
                : strcmp(key, "data_offsets") == 0 ? OFFSETS
                                                   : 0;
        if (seen & field)
            return BAD(s, "tensor '%s': '%s' twice", entry->name, key);
        seen |= field;
        if (field == DTYPE) {
            r = read_string(s, "a dtype", &dtype);
            if (!r && !gf_dtype_by_safetensors(dtype, &entry->dtype))
                return BAD(s, "tensor '%s': unknown dtype '%s'", entry->name, dtype);
        } else if (field == SHAPE) {
            r = read_numbers(s, dims, GF_MAX_RANK, &n);
            if (r)
                return r;
            copy = gf_arena_alloc(s->text, n * sizeof(*copy));
            if (!copy)
                return gf_nomem(s->err);
            if (n)
                memcpy(copy, dims, n * sizeof(*copy));
            entry->shape = (struct gf_shape){ n, copy };
        } else if (field == OFFSETS) {
            r = read_numbers(s, offsets, 2, &n);
            if (!r && n != 2)
                return BAD(s, "tensor '%s': %u data_offsets, wanted 2", entry->name, n);
            entry->begin = offsets[0];
            entry->end = offsets[1];
        } else {
            r = skip_value(s, s->limits->json_depth);
        }
    }
    if (!r && seen != (DTYPE | SHAPE | OFFSETS))
        return BAD(s, "tensor '%s': no %s", entry->name,
                   !(seen & DTYPE)   ? "dtype"
                   : !(seen & SHAPE) ? "shape"
                                     : "data_offsets");
    return r;
}

/* The header's members; `names` finds those that occur twice. */
static int read_header(struct scan *s, struct gf_safetensors *st, struct gf_strmap *names)
{
    struct GF_VEC(struct gf_safetensors_entry) entries = { 0 };
    bool first = true, more;
    int r = expect(s, '{');

    while (!r && !(r = next_item(s, '}', &first, &more)) && more) {
        struct gf_safetensors_entry entry = { 0 };

        r = read_string(s, "a key", &entry.name);
        if (!r)
            r = expect(s, ':');
        if (r)
            break;
        if (strlen(entry.name) > s->limits->name)
            r = BAD(s, "a name of %zu bytes, at most %zu", strlen(entry.name),
                    s->limits->name);
        else if ((r = gf_strmap_put(names, entry.name, 0, NULL)) == -EEXIST)
            r = BAD(s, "'%s' twice", entry.name);
        else if (r)
            r = gf_nomem(s->err);
        else if (strcmp(entry.name, "__metadata__") != 0)
            r = read_entry(s, &entry);
        else if (peek(s) != 'n' || !skip_word(s, "null"))
            r = read_metadata(s, st);
        if (r || strcmp(entry.name, "__metadata__") == 0)
            continue;
        r = gf_vec_push(&entries, entry, s->limits->tensors);
        if (r == -E2BIG)
            r = BAD(s, "more than %zu tensors", s->limits->tensors);
        else if (r)
            r = gf_nomem(s->err);
    }
    st->at = entries.at;
    st->n = entries.n;
    if (!r && (peek(s) || s->in.p < s->in.end))
        return unexpected(s, "its end");
    return r;
}

static int by_offset(const void *a, const void *b)
{
    const struct gf_safetensors_entry *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* The tensors cover the data, each byte once, and have the bytes that their shapes need. */
static int validate(const char *name, struct gf_safetensors *st, uint64_t file_size,
                    struct gf_err *err)
{
    uint64_t at = 0, have = file_size - st->data;

    if (st->n)
        qsort(st->at, st->n, sizeof(*st->at), by_offset);
    for (size_t i = 0; i < st->n; i++) {
        struct gf_safetensors_entry *e = &st->at[i];
        const char *dtype = gf_dtype_info(e->dtype)->safetensors;
        char shape[GF_SHAPE_TEXT];
        uint64_t numel, nbytes;

        if (e->begin != at || e->end < e->begin)
            return gf_fail(err, GF_EBAD,
                           "'%s': tensor '%s': data at [%" PRIu64 ", %" PRIu64
                           "), but the one before ends at %" PRIu64,
                           name, e->name, e->begin, e->end, at);
        if (gf_shape_numel(e->shape, &numel) || gf_dtype_nbytes(e->dtype, numel, &nbytes))
            return gf_fail(err, GF_EBAD, "'%s': tensor '%s': impossible shape %s of %s",
                           name, e->name, gf_shape_text(e->shape, shape), dtype);
        if (nbytes != e->end - e->begin)
            return gf_fail(err, GF_EBAD,
                           "'%s': tensor '%s': %" PRIu64 " bytes of data, %s of %s takes "
                           "%" PRIu64,
                           name, e->name, e->end - e->begin, gf_shape_text(e->shape, shape),
                           dtype, nbytes);
        at = e->end;
        if (at > have)
            return gf_fail(err, GF_EBAD,
                           "'%s': cut short: tensor '%s' ends at %" PRIu64
                           ", the file has %" PRIu64 " bytes after the header",
                           name, e->name, at, have);
        e->begin += st->data;
        e->end += st->data;
    }
    if (at != have)
        return gf_fail(err, GF_EBAD,
                       "'%s': tensors end at %" PRIu64 ", the file has %" PRIu64
                       " bytes after the header",
                       name, at, have);
    return 0;
}

int gf_safetensors_header_len(const char *name, const uint8_t first[8], uint64_t file_size,
                              const struct gf_limits *limits, uint64_t *ret,
                              struct gf_err *err)
{
    uint64_t len;

    if (file_size < 8)
        return gf_fail(err, GF_EBAD,
                       "'%s': cut short: %" PRIu64
                       " bytes, a safetensors file has at least 8",
                       name, file_size);
    len = gf_le64(first);
    if (len > limits->safetensors_header)
        return gf_fail(err, GF_EBAD,
                       "'%s': no safetensors file: header of %" PRIu64
                       " bytes, at most %zu",
                       name, len, limits->safetensors_header);
    if (!gf_inside(8, len, file_size))
        return gf_fail(err, GF_EBAD,
                       "'%s': cut short: header of %" PRIu64
                       " bytes, the file has %" PRIu64,
                       name, len, file_size);
    *ret = len;
    return 0;
}

int gf_safetensors_parse(const char *name, const uint8_t *header, uint64_t len,
                         uint64_t file_size, const struct gf_limits *limits,
                         struct gf_safetensors **ret, struct gf_err *err)
{
    GF_AUTO(gf_safetensors) st = calloc(1, sizeof(*st));
    struct gf_strmap names = { 0 };
    struct scan s = { name, header, gf_bytes_of(header, len), limits, NULL, err };
    int r;

    if (!st)
        return gf_nomem(err);
    if (len > limits->safetensors_header || !gf_inside(8, len, file_size))
        return gf_fail(err, GF_EBAD, "'%s': header of %" PRIu64 " bytes", name, len);
    if (!gf_utf8_valid(header, len))
        return gf_fail(err, GF_EBAD, "'%s': header of %" PRIu64 " bytes is not UTF-8", name,
                       len);
    s.text = &st->text;
    st->data = 8 + len;
    r = read_header(&s, st, &names);
    gf_strmap_done(&names);
    if (!r)
        r = validate(name, st, file_size, err);
    if (!r)
        *ret = gf_take(&st);
    return r;
}

void gf_safetensors_free(struct gf_safetensors *st)
{
    if (!st)
        return;
    free(st->at);
    gf_arena_done(&st->text);
    free(st);
}
