/* SPDX-License-Identifier: Apache-2.0 */
#include "view/kind.h"

#include <stdlib.h>
#include <string.h>

#include "view/view_int.h"

static bool among(const char *const *words, const char *s, size_t len)
{
    for (; *words; words++)
        if (strlen(*words) == len && memcmp(*words, s, len) == 0)
            return true;
    return false;
}

/* Components that only PEFT's tuner layers put into names. */
static bool is_peft(const char *s, size_t len)
{
    static const char *const words[] = {
        "base_layer",
        "modules_to_save",
        "original_module",
        "lora_A",
        "lora_B",
        "lora_embedding_A",
        "lora_embedding_B",
        "lora_magnitude_vector",
        "lora_E",
        "ia3_l",
        "hada_w1_a",
        "hada_w1_b",
        "lokr_w1",
        "lokr_w1_a",
        "vera_lambda_b",
        "vera_lambda_d",
        "oft_r",
        "oft_R",
        "boft_R",
        "trainable_tokens_delta",
        NULL,
    };

    return among(words, s, len);
}

/* First elements that name a model among several. 'score' and 'value_head' are not here: a
 * classifier or a critic has them beside 'model' and is one model. */
static bool is_component(const char *s, size_t len)
{
    static const char *const words[] = {
        "policy",       "policy_model", "ref_policy", "value",        "value_model",
        "actor",        "actor_model",  "critic",     "critic_model", "critic_backbone",
        "reward_model", "ref_model",    NULL,
    };

    return among(words, s, len);
}

/* A wrapped model, if the wrapper's heads stand beside it. */
static bool is_wrapped(const char *s, size_t len)
{
    static const char *const words[] = { "base_model", "pretrained_model", NULL };

    return among(words, s, len);
}

static bool is_head(const char *s, size_t len)
{
    static const char *const words[] = { "v_head", "ilql_heads", "frozen_head", NULL };

    return among(words, s, len);
}

enum gf_state_kind gf_state_kind(const struct gf_catalog *catalog, const char **ret_sign)
{
    const char *component = NULL, *wrapped = NULL, *head = NULL;

    for (uint32_t i = 0; i < gf_catalog_len(catalog); i++) {
        const struct gf_tensor *tensor = gf_catalog_at(catalog, i);
        struct gf_components it = { .p = tensor->name };
        const char *s;
        size_t len;

        if (tensor->hidden)
            continue;
        for (bool first = true; gf_components_next(&it, &s, &len); first = false) {
            if (is_peft(s, len)) {
                if (ret_sign)
                    *ret_sign = tensor->name;
                return GF_STATE_PEFT;
            }
            if (!first)
                continue;
            if (!component && is_component(s, len))
                component = tensor->name;
            if (!wrapped && is_wrapped(s, len))
                wrapped = tensor->name;
            if (!head && is_head(s, len))
                head = tensor->name;
        }
    }
    if (!component && wrapped)
        component = head;
    if (ret_sign)
        *ret_sign = component;
    return component ? GF_STATE_COMPOSITE : GF_STATE_PLAIN;
}

int gf_state_components(const struct gf_catalog *catalog, char **ret, size_t max,
                        size_t *ret_n, struct gf_err *err)
{
    size_t n = 0;

    *ret_n = 0;
    for (uint32_t i = 0; i < gf_catalog_len(catalog); i++) {
        struct gf_components it = { .p = gf_catalog_at(catalog, i)->name };
        bool known = gf_catalog_at(catalog, i)->hidden;
        const char *s;
        size_t len;

        if (known || !gf_components_next(&it, &s, &len) || !it.p)
            continue;
        for (size_t k = 0; k < n && !known; k++)
            known = strlen(ret[k]) == len && memcmp(ret[k], s, len) == 0;
        if (known || n == max)
            continue;
        ret[n] = strndup(s, len);
        if (!ret[n])
            return gf_nomem(err);
        *ret_n = ++n;
    }
    return 0;
}
