/* SPDX-License-Identifier: Apache-2.0 */
#include "view/adapter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "view/kind.h"
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

/* What tuner layers call their tensors (adapter_layer_names, and the projections that VeRA
 * and its kin share), sorted. */
static const char *const markers[] = {
    "adamss_A",
    "adamss_B",
    "beft_bias",
    "boft_R",
    "boft_s",
    "c3a_kernel",
    "deft_P",
    "deft_R",
    "delora_A",
    "delora_B",
    "delora_lambda",
    "fourierft_spectrum",
    "frod_U",
    "frod_V",
    "frod_lambda_l",
    "frod_lambda_s_values",
    "glora_A",
    "glora_B",
    "glora_C",
    "glora_D",
    "gralora_A",
    "gralora_A_general",
    "gralora_B",
    "gralora_B_general",
    "hada_t1",
    "hada_t2",
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "hira_A",
    "hira_B",
    "hira_embedding_A",
    "hira_embedding_B",
    "hra_u",
    "ia3_l",
    "lily_A",
    "lily_B",
    "lily_router",
    "ln_tuning_layers",
    "lokr_t2",
    "lokr_w1",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "lora_A",
    "lora_B",
    "lora_E",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "miss_block",
    "modules_to_save",
    "oft_R",
    "oft_embedding_R",
    "oft_r",
    "osf_svd_params",
    "peanut_A",
    "peanut_B",
    "peanut_decoders",
    "peanut_encoders",
    "poly_lora_A",
    "poly_lora_B",
    "poly_router",
    "psoft_R",
    "pvera_A",
    "pvera_B",
    "pvera_lambda_b",
    "pvera_lambda_d",
    "randlora_A",
    "randlora_B",
    "randlora_gamma",
    "randlora_lambda",
    "road_alpha",
    "road_theta",
    "shira_weight",
    "supertuning_lora_A",
    "supertuning_lora_B",
    "supertuning_values",
    "tinylora_v",
    "trainable_tokens_delta",
    "unilora_theta_d",
    "vblora_logits_A",
    "vblora_logits_B",
    "vblora_vector_bank",
    "vera_A",
    "vera_B",
    "vera_lambda_b",
    "vera_lambda_d",
    "waveft_spectrum",
};

static int by_word(const void *key, const void *word)
{
    const struct part *part = key;
    const char *w = *(const char *const *)word;
    int c = memcmp(part->s, w, GF_MIN(part->len, strlen(w)));

    return c ? c : (part->len > strlen(w)) - (part->len < strlen(w));
}

bool gf_adapter_is_marker(const char *s, size_t len)
{
    struct part part = { s, len };

    return bsearch(&part, markers, GF_COUNT(markers), sizeof(markers[0]), by_word);
}

/* The components of a name, and which of them is a marker (n: none). 0: too deep. */
static size_t split(const char *name, struct part parts[MAX_PARTS], size_t *ret_marker)
{
    struct gf_components it = { .p = name };
    size_t n = 0;

    while (n < MAX_PARTS && gf_components_next(&it, &parts[n].s, &parts[n].len))
        n++;
    *ret_marker = n;
    for (size_t i = 0; i < n && *ret_marker == n; i++)
        if (gf_adapter_is_marker(parts[i].s, parts[i].len))
            *ret_marker = i;
    return it.p ? 0 : n;
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

/* PEFT's layers around a module of the base. */
static bool is_layer(const struct part *part)
{
    return is(part, "base_layer") || is(part, "original_module") ||
           is(part, "token_adapter");
}

/* The parts [first, end) as a name: without PEFT's layers, or with them. The last part names
 * the tensor and stays whatever it is called. */
static char *join(const struct part *parts, size_t first, size_t end, bool layers,
                  bool tensor, const char *prefix, struct gf_arena *arena)
{
    size_t len = strlen(prefix) + 1;
    char *buf, *p;

    for (size_t i = first; i < end; i++)
        len += parts[i].len + 1;
    buf = gf_arena_alloc(arena, len);
    if (!buf)
        return NULL;
    p = stpcpy(buf, prefix);
    for (size_t i = first; i < end; i++) {
        if (!layers && is_layer(&parts[i]) && !(tensor && i + 1 == end))
            continue;
        if (p != buf && p[-1] != '.')
            *p++ = '.';
        p = mempcpy(p, parts[i].s, parts[i].len);
    }
    *p = '\0';
    return buf;
}

/* The name in the adapter file, adapter's name and all else that is not saved left out. */
static char *file_name(struct part *parts, size_t n, size_t marker,
                       const struct part *adapter, struct gf_arena *arena)
{
    const char *prefix = is(&parts[0], "base_model") ? "" : "base_model.model.";
    size_t k = 0;

    if (marker == n)
        return join(parts, 0, n, true, true, prefix, arena);
    for (size_t i = 0; i < n; i++) {
        bool magnitude = is(&parts[marker], "lora_magnitude_vector");

        if (&parts[i] == adapter || (i == marker && is(&parts[i], "modules_to_save")) ||
            (magnitude && i > marker && i + 1 == n && is(&parts[i], "weight")))
            continue;
        /* In place: `adapter` stands behind the marker, and k never passes i. */
        parts[k++] = parts[i];
        if (i == marker)
            marker = k - 1;
    }
    return join(parts, 0, k, true, true, prefix, arena);
}

/* What a trainer put in front of PEFT's names. */
static bool has_front(const struct part *parts, size_t n)
{
    return n > 3 && is(&parts[1], "base_model") && is(&parts[2], "model") &&
           gf_part_of(parts[0].s, parts[0].len) != GF_PART_NONE;
}

int gf_adapter_split(const char *name, struct gf_arena *arena, struct gf_adapter_name *ret)
{
    struct part parts[MAX_PARTS];
    size_t marker, n = split(name, parts, &marker), first = 0, rest;
    const struct part *adapter = NULL;

    *ret = (struct gf_adapter_name){ .module = "", .adapter = "", .rest = "" };
    if (n == 0) {
        ret->base = ret->file = gf_arena_strdup(arena, name);
        return ret->base ? 0 : -ENOMEM;
    }
    if (has_front(parts, n)) {
        memmove(parts, parts + 1, --n * sizeof(*parts));
        marker--;
    } else if (marker == n && n > 1) {
        enum gf_part part = gf_part_of(parts[0].s, parts[0].len);

        ret->aside = part == GF_PART_HEAD || part == GF_PART_MODEL;
    }
    ret->below = n > 1 && is(&parts[0], "base_model");
    if (ret->below && n > 2 && is(&parts[1], "model"))
        first = 2;
    else if (ret->below && marker == 1)
        first = 1;
    for (size_t i = marker; marker < n && i > first && is(&parts[i - 1], "base_layer"); i--)
        ret->depth++;
    if (marker == n) {
        ret->module = join(parts, first, n - 1, false, false, "", arena);
        ret->base = join(parts, first, n, false, true, "", arena);
    } else {
        adapter = adapter_of(parts, n, marker);
        rest = marker + (adapter ? 2 : 1);
        ret->module = join(parts, first, marker, false, false, "", arena);
        ret->marker = gf_arena_strndup(arena, parts[marker].s, parts[marker].len);
        ret->rest = join(parts, rest, n, true, true, "", arena);
        if (adapter)
            ret->adapter = gf_arena_strndup(arena, adapter->s, adapter->len);
    }
    ret->file = file_name(parts, n, marker, adapter, arena);
    if (!ret->module || !ret->adapter || !ret->rest || !ret->file ||
        !(marker == n ? ret->base : ret->marker))
        return -ENOMEM;
    return 0;
}

int gf_adapter_names(const struct gf_catalog *catalog, char *ret[static GF_MAX_ADAPTERS],
                     size_t *ret_n, struct gf_err *err)
{
    size_t n = 0;

    *ret_n = 0;
    for (uint32_t i = 0; i < gf_catalog_len(catalog); i++) {
        struct part parts[MAX_PARTS];
        size_t marker, len = split(gf_catalog_at(catalog, i)->name, parts, &marker);
        const struct part *name = marker < len ? adapter_of(parts, len, marker) : NULL;
        bool known = !name || name->len >= GF_ADAPTER_NAME || n == GF_MAX_ADAPTERS;

        for (size_t k = 0; k < n && !known; k++)
            known = is(name, ret[k]);
        if (known)
            continue;
        ret[n] = strndup(name->s, name->len);
        if (!ret[n])
            return gf_nomem(err);
        *ret_n = ++n;
    }
    return 0;
}

bool gf_adapter_is_view(const char *view, const char *what)
{
    size_t n = strlen(what);

    return strncmp(view, what, n) == 0 && (!view[n] || (view[n] == '.' && view[n + 1]));
}

static int refuse(const char *view, char **names, size_t n, struct gf_err *err)
{
    struct gf_text list = { 0 };
    int r;

    for (size_t i = 0; i < n; i++)
        gf_text_printf(&list, "%s%s", i ? ", " : "", names[i]);
    r = gf_fail(err, ENOENT, "no view '%s': the adapters of this state are: %.200s", view,
                list.failed || !list.s ? "none" : list.s);
    gf_text_done(&list);
    return r;
}

int gf_adapter_choose(const struct gf_catalog *catalog, const char *view,
                      char ret[static GF_ADAPTER_NAME], struct gf_err *err)
{
    const char *dot = strchr(view, '.'), *wanted = dot ? dot + 1 : "default";
    char *names[GF_MAX_ADAPTERS];
    size_t n, chosen;
    int r = gf_adapter_names(catalog, names, &n, err);

    for (chosen = 0; chosen < n && strcmp(names[chosen], wanted) != 0;)
        chosen++;
    if (!r && chosen == n && n && !dot && (n == 1 || strcmp(view, "base") == 0))
        chosen = 0;
    if (!r && chosen == n && (dot || n))
        r = refuse(view, names, n, err);
    if (!r)
        snprintf(ret, GF_ADAPTER_NAME, "%s", n ? names[chosen] : "");
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    return r;
}

bool gf_adapter_is_packing(const char *name)
{
    static const char *const words[] = { ".absmax", ".quant_map", ".nested_absmax",
                                         ".SCB",    ".qweight",   ".nested_quant_map",
                                         ".qzeros" };

    for (size_t i = 0; i < GF_COUNT(words); i++)
        if (gf_ends_with(name, words[i]))
            return true;
    return strstr(name, ".quant_state.");
}
