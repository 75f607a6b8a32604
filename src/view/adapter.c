/* SPDX-License-Identifier: Apache-2.0 */
#include "view/adapter.h"

#include <string.h>

#include "view/view_int.h"

#define MAX_PARTS 64

struct part {
    const char *s;
    size_t len;
};

static bool is(const struct part *part, const char *word)
{
    return part->len == strlen(word) && memcmp(part->s, word, part->len) == 0;
}

static bool among(const struct part *part, const char *const *words)
{
    for (; *words; words++)
        if (is(part, *words))
            return true;
    return false;
}

/* Tensors, and modules, that hold an adapter's own weights: their adapter's name follows. */
static bool is_marker(const struct part *part)
{
    static const char *const words[] = {
        "lora_A",
        "lora_B",
        "lora_embedding_A",
        "lora_embedding_B",
        "lora_E",
        "lora_magnitude_vector",
        "modules_to_save",
        "trainable_tokens_delta",
        "ia3_l",
        "hada_w1_a",
        "hada_w1_b",
        "hada_w2_a",
        "hada_w2_b",
        "hada_t1",
        "hada_t2",
        "lokr_w1",
        "lokr_w1_a",
        "lokr_w1_b",
        "lokr_w2",
        "lokr_w2_a",
        "lokr_w2_b",
        "lokr_t2",
        "vera_A",
        "vera_B",
        "vera_lambda_b",
        "vera_lambda_d",
        "oft_R",
        "oft_r",
        "boft_R",
        "boft_s",
        NULL,
    };

    return among(part, words);
}

/* The components of a name, and which of them is a marker (n: none). */
static size_t split(const char *name, struct part parts[MAX_PARTS], size_t *ret_marker)
{
    struct gf_components it = { .p = name };
    size_t n = 0;

    while (n < MAX_PARTS && gf_components_next(&it, &parts[n].s, &parts[n].len))
        n++;
    *ret_marker = n;
    for (size_t i = 0; i < n && *ret_marker == n; i++)
        if (is_marker(&parts[i]))
            *ret_marker = i;
    return it.p ? 0 : n; /* deeper than any module tree: not ours */
}

/* The adapter's name behind the marker; NULL if there is none: lora_A.weight, ia3_l. */
static const struct part *adapter_of(const struct part *parts, size_t n, size_t marker)
{
    const struct part *next = &parts[marker + 1];
    bool last = marker + 2 == n;

    if (marker + 1 >= n || (last && (is(next, "weight") || is(next, "bias"))))
        return NULL;
    return next;
}

static char *append(char *buf, const char *start, const struct part *part)
{
    if (buf != start)
        *buf++ = '.';
    return mempcpy(buf, part->s, part->len);
}

int gf_adapter_choose(const struct gf_catalog *catalog, char ret[static 256],
                      struct gf_err *err)
{
    struct part first = { "", 0 };
    bool several = false, is_default = false;

    for (uint32_t i = 0; i < gf_catalog_len(catalog) && !is_default; i++) {
        struct part parts[MAX_PARTS];
        size_t marker, n = split(gf_catalog_at(catalog, i)->name, parts, &marker);
        const struct part *name = marker < n ? adapter_of(parts, n, marker) : NULL;

        if (!name || name->len > 255)
            continue;
        is_default = is(name, "default");
        if (!first.len || is_default)
            first = *name;
        several |= name->len != first.len || memcmp(name->s, first.s, first.len) != 0;
    }
    if (several && !is_default)
        return gf_fail(
            err, ENOENT,
            "no view 'adapter': several adapters ('%.*s' is one), none is 'default'",
            (int)first.len, first.s);
    memcpy(ret, first.s, first.len);
    ret[first.len] = '\0';
    return 0;
}

bool gf_adapter_name(const char *name, const char *adapter, char *buf)
{
    struct part parts[MAX_PARTS];
    size_t marker, n = split(name, parts, &marker), skip = n;
    const struct part *own = marker < n ? adapter_of(parts, n, marker) : NULL;
    const char *start = buf;
    bool magnitude;

    if (marker == n)
        return false;
    if (own) {
        if (!is(own, adapter))
            return false;
        skip = marker + 1;
    }
    magnitude = is(&parts[marker], "lora_magnitude_vector");
    for (size_t i = 0; i < n; i++) {
        if (i == skip || (i == marker && is(&parts[i], "modules_to_save")))
            continue;
        if (magnitude && i > marker && i + 1 == n && is(&parts[i], "weight"))
            continue;
        buf = append(buf, start, &parts[i]);
    }
    *buf = '\0';
    return true;
}

bool gf_adapter_base_name(const char *name, char *buf)
{
    struct part parts[MAX_PARTS];
    size_t marker, n = split(name, parts, &marker), i = 0;
    const char *start = buf;

    if (n == 0 || marker < n)
        return false;
    if (n > 2 && is(&parts[0], "base_model") && is(&parts[1], "model"))
        i = 2;
    for (; i < n; i++)
        if (i + 1 == n ||
            (!is(&parts[i], "base_layer") && !is(&parts[i], "original_module") &&
             !is(&parts[i], "token_adapter")))
            buf = append(buf, start, &parts[i]);
    *buf = '\0';
    return true;
}

bool gf_adapter_is_torn(const char *name, struct gf_shape shape)
{
    struct part parts[MAX_PARTS];
    size_t marker, n = split(name, parts, &marker);
    uint64_t numel = 1;

    if (marker == n || !(is(&parts[marker], "lora_A") || is(&parts[marker], "lora_B")))
        return false;
    if (is(&parts[n - 1], "bias"))
        return false;
    gf_shape_numel(shape, &numel);
    return numel == 0 || shape.rank < 2;
}
