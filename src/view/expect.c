/* SPDX-License-Identifier: Apache-2.0 */
/*
 * expect.c - what config.json alone proves to be missing: a whole layer.
 *
 * A checkpoint that left out its frozen weights may not say so (ZeRO 1 and 2). A causal model
 * of N layers has names '<stem>.<i>.<rest>' for each i below N; a layer without any would
 * load as random weights. Single names are not held against a pattern: hybrid models differ
 * from layer to layer.
 */
#include "view/view_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LAYERS 100000

/* The number of layers, under any of the names that configs use. */
static uint64_t layers_of(const struct gf_json *config)
{
    /* hrm_text's num_hidden_layers counts how often its stacks are gone through. */
    static const char *const keys[] = { "num_layers_per_stack", "num_hidden_layers",
                                        "n_layer", "num_layers", "n_layers" };
    uint64_t n = 0;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (gf_json_u64(gf_json_get(config, keys[i]), &n))
            return n <= MAX_LAYERS ? n : 0;
    return 0;
}

/* Splits at the first component that is a number: "model.layers.3.mlp" -> 13, 3. */
static bool layer_of(const char *name, size_t *ret_stem, uint64_t *ret_layer)
{
    struct gf_components it = { .p = name };
    const char *part;
    size_t len;

    while (gf_components_next(&it, &part, &len)) {
        uint64_t n = 0;
        size_t i = 0;

        for (; i < len && i < 9 && part[i] >= '0' && part[i] <= '9'; i++)
            n = n * 10 + (uint64_t)(part[i] - '0');
        if (len && i == len) {
            *ret_stem = (size_t)(part - name);
            *ret_layer = n;
            return true;
        }
    }
    return false;
}

/* The stem of the decoder: that of the last numbered name, in all usual models. */
static bool find_stem(const struct gf_items *items, const char **ret, size_t *ret_len)
{
    static const char *const ends[] = { "layers.", "h.", "blocks.", "block." };
    uint64_t ignored;

    for (size_t i = items->n; i-- > 0;) {
        size_t stem;

        if (!layer_of(items->at[i].name, &stem, &ignored))
            continue;
        for (size_t k = 0; k < sizeof(ends) / sizeof(ends[0]); k++) {
            size_t n = strlen(ends[k]);

            if (stem >= n && strncmp(items->at[i].name + stem - n, ends[k], n) == 0) {
                *ret = items->at[i].name;
                *ret_len = stem;
                return true;
            }
        }
    }
    return false;
}

static bool is_causal(const struct gf_json *config)
{
    const char *name = gf_json_str(gf_json_at(gf_json_get(config, "architectures"), 0));
    size_t n = name ? strlen(name) : 0;

    return n > 11 && strcmp(name + n - 11, "ForCausalLM") == 0;
}

int gf_expect_layers(const struct gf_view_spec *spec, const struct gf_items *items,
                     struct gf_err *err)
{
    uint64_t n = is_causal(spec->config) ? layers_of(spec->config) : 0, layer;
    const char *stem, *tail = "";
    size_t stem_len, len;
    uint8_t *there;
    int r = 0;

    if (!n || !find_stem(items, &stem, &stem_len))
        return 0;
    there = calloc(n, 1);
    if (!there)
        return gf_nomem(err);
    for (size_t i = 0; i < items->n; i++) {
        const char *name = items->at[i].name;

        if (!layer_of(name, &len, &layer) || len != stem_len || strncmp(name, stem, len) ||
            layer >= n)
            continue;
        there[layer] = 1;
        if (!*tail)
            tail = name + len + strcspn(name + len, ".");
    }
    for (uint64_t i = 0; i < n && !r; i++)
        if (!there[i])
            r = gf_fail(err, GF_EINCOMPLETE,
                        "layer %" PRIu64 " of %" PRIu64 " is in no file: no '%.*s%" PRIu64
                        "%s' (base=DIR supplies what a checkpoint leaves out)",
                        i, n, (int)stem_len, stem, i, tail);
    free(there);
    return r;
}
