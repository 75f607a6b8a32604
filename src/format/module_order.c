/* SPDX-License-Identifier: Apache-2.0 */
/*
 * module_order.c - one list per family: the components of names in an order in which those
 * that are ever siblings stand right. Numbers are in the order of numbers.
 */
#include "format/module_order.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"

struct gf_module_order {
    const char *const *types, *const *components;
};

static const char *const llama_types[] = {
    "llama", "mistral", "qwen2",   "qwen3",  "gemma",   "gemma2",   "gemma3_text", "olmo",
    "olmo2", "olmo3",   "granite", "cohere", "smollm3", "stablelm", "starcoder2",  NULL,
};

static const char *const llama_components[] = {
    "model",
    "embed_tokens",
    "layers",
    "self_attn",
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "q_norm",
    "k_norm",
    "mlp",
    "gate_proj",
    "up_proj",
    "down_proj",
    "c_fc",
    "c_proj",
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "norm",
    "lm_head",
    "weight",
    "bias",
    NULL,
};

static const char *const phi3_types[] = { "phi3", NULL };

static const char *const phi3_components[] = {
    "model",
    "embed_tokens",
    "layers",
    "self_attn",
    "o_proj",
    "qkv_proj",
    "mlp",
    "gate_up_proj",
    "down_proj",
    "input_layernorm",
    "post_attention_layernorm",
    "norm",
    "lm_head",
    "weight",
    NULL,
};

static const char *const gpt2_types[] = { "gpt2", NULL };

static const char *const gpt2_components[] = {
    "transformer", "wte",  "wpe",    "h",    "ln_1",    "attn",   "c_attn", "ln_2",
    "mlp",         "c_fc", "c_proj", "ln_f", "lm_head", "weight", "bias",   NULL,
};

static const struct gf_module_order orders[] = {
    { llama_types, llama_components },
    { phi3_types, phi3_components },
    { gpt2_types, gpt2_components },
};

const struct gf_module_order *gf_module_order_find(const char *model_type)
{
    for (size_t i = 0; model_type && i < GF_COUNT(orders); i++)
        for (const char *const *type = orders[i].types; *type; type++)
            if (strcmp(*type, model_type) == 0)
                return &orders[i];
    return NULL;
}

/* The place of the component at `name`: those of the list, then numbers; SIZE_MAX: none. */
static size_t place(const struct gf_module_order *order, const char *name, size_t len)
{
    size_t i = 0;

    for (; order->components[i]; i++)
        if (strlen(order->components[i]) == len &&
            memcmp(order->components[i], name, len) == 0)
            return i;
    if (len && len < 10 && strspn(name, "0123456789") == len)
        return i + strtoul(name, NULL, 10);
    return SIZE_MAX;
}

bool gf_module_order_knows(const struct gf_module_order *order, const char *name)
{
    for (;; name++) {
        size_t len = strcspn(name, ".");

        if (place(order, name, len) == SIZE_MAX)
            return false;
        name += len;
        if (!*name)
            return true;
    }
}

int gf_module_order_compare(const struct gf_module_order *order, const char *a,
                            const char *b)
{
    for (;; a++, b++) {
        size_t m = strcspn(a, "."), n = strcspn(b, ".");
        size_t x = place(order, a, m), y = place(order, b, n);

        if (x != y)
            return x < y ? -1 : 1;
        a += m;
        b += n;
        if (!*a || !*b)
            return *a ? 1 : *b ? -1 : 0;
    }
}
