/* SPDX-License-Identifier: Apache-2.0 */
#include "view/kind.h"

#include <stdlib.h>
#include <string.h>

#include "view/adapter.h"
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
    static const char *const layers[] = { "base_layer", "original_module", NULL };

    return gf_adapter_is_marker(s, len) || among(layers, s, len);
}

/* First elements that name a model among several; no class of transformers 5.18 has one of
 * them. 'score' and 'value_head' are not here: a classifier or a critic has them beside 'model'
 * and is one model. */
static bool is_component(const char *s, size_t len)
{
    static const char *const words[] = {
        "policy",     "policy_model",  "ref_policy",      "value",     "value_model",
        "actor",      "actor_model",   "critic",          "ref",       "critic_model",
        "reward",     "reward_model",  "critic_backbone", "ref_model", "ref_actor",
        "cost_model", "teacher_model", "student_model",   NULL,
    };

    return among(words, s, len);
}

/* A wrapped model, if the wrapper's heads stand beside it. */
static bool is_wrapped(const char *s, size_t len)
{
    static const char *const words[] = { "base_model", "pretrained_model", NULL };

    return among(words, s, len);
}

/* What trainers put beside a model: value heads of TRL, trlx and LLaMA-Factory, trlx's Q heads
 * and its frozen copy of the top layers. */
static bool is_head(const char *s, size_t len)
{
    static const char *const words[] = { "v_head", "ilql_heads", "frozen_head", NULL };

    return among(words, s, len);
}

enum gf_part gf_part_of(const char *s, size_t len)
{
    return is_head(s, len)        ? GF_PART_HEAD
           : is_component(s, len) ? GF_PART_MODEL
           : is_wrapped(s, len)   ? GF_PART_WRAPPED
                                  : GF_PART_NONE;
}

bool gf_name_is_head(const char *name)
{
    struct gf_components it = { .p = name };
    const char *s;
    size_t len;

    return gf_components_next(&it, &s, &len) && it.p && is_head(s, len);
}

bool gf_component_is_head(const char *name)
{
    return is_head(name, strlen(name));
}

bool gf_component_is_known(const char *name)
{
    enum gf_part part = gf_part_of(name, strlen(name));

    return part == GF_PART_HEAD || part == GF_PART_MODEL;
}

bool gf_view_is_reserved(const char *name)
{
    static const char *const words[] = { "full", "base", "adapter", "raw", "steps", NULL };

    return among(words, name, strlen(name));
}

/* It becomes a directory. */
static bool can_be_view(const char *s, size_t len)
{
    static const char *const no[] = { "", ".", "..", ".gatherfs", NULL };

    return !among(no, s, len) && !memchr(s, '/', len);
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

        if (known || !gf_components_next(&it, &s, &len) || !it.p || !can_be_view(s, len))
            continue;
        for (size_t k = 0; k < n && !known; k++)
            known = strlen(ret[k]) == len && memcmp(ret[k], s, len) == 0;
        if (known || n == max)
            continue;
        ret[n] = strndup(s, len);
        if (!ret[n])
            return gf_nomem(err);
        if (gf_view_is_reserved(ret[n])) {
            free(ret[n]);
            continue;
        }
        *ret_n = ++n;
    }
    return 0;
}
