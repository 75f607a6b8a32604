/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge_attach.c - every slot to its weight, in the order that PEFT merges them.
 */
#include <string.h>

#include "view/merge_int.h"

static int attach_slot(struct gf_attaching *a, struct gf_peft_slot *slot,
                       struct gf_err *err)
{
    const char *name = gf_slot_name(a, slot, "weight");

    if (!name)
        return gf_nomem(err);
    if (gf_slot_has(slot, GF_PART_LORA_A) || gf_slot_has(slot, GF_PART_LORA_B))
        return gf_attach_lora(a, slot, name, err);
    slot->done = true;
    if (gf_slot_has(slot, GF_PART_EMBEDDING_A) || gf_slot_has(slot, GF_PART_EMBEDDING_B))
        return gf_attach_embedding(a, slot, name, err);
    if (gf_slot_has(slot, GF_PART_TOKENS))
        return gf_attach_tokens(a, slot, name, err);
    if (gf_slot_has(slot, GF_PART_IA3))
        return gf_attach_ia3(a, slot, name, err);
    if (a->state->peft->type == GF_PEFT_LOHA)
        return gf_attach_loha(a, slot, name, err);
    if (a->state->peft->type == GF_PEFT_LOKR)
        return gf_attach_lokr(a, slot, name, err);
    if (a->state->peft->type == GF_PEFT_VERA)
        return gf_attach_vera(a, slot, name, err);
    return gf_fail(err, GF_EBAD, "tensor '%s' is there without its partners lora_A, lora_B",
                   gf_attach_tensor(a, slot->any)->name);
}

/* Its weight is the embedding's, which is merged first. */
static int is_tied_head(struct gf_attaching *a, const struct gf_peft_slot *slot, bool *ret,
                        struct gf_err *err)
{
    const char *name = gf_slot_name(a, slot, "weight");
    struct gf_item *embedding = NULL;
    int r = 0;

    if (!name)
        return gf_nomem(err);
    if (!gf_strmap_get(&a->state->items->by_name, name, &(uint64_t){ 0 }))
        r = gf_tied_embedding(a->state->spec, a->state->items, a->state->view, name,
                              &embedding, err);
    *ret = embedding;
    return r;
}

/* Model types whose linear layers are transformers' Conv1D, and whose experts are stored as
 * [in, out]. */
static void know_model(struct gf_attaching *a)
{
    static const char *const conv1d[] = { "gpt2",     "openai-gpt", "decision_transformer",
                                          "imagegpt", "clvp",       "clvp_decoder" };
    static const char *const in_out[] = { "gpt_oss", "openai_privacy_filter", "aria",
                                          "aria_text" };
    const char *type = gf_json_str(gf_json_get(a->state->spec->config, "model_type"));

    a->conv1d = a->state->peft->fan_in_fan_out;
    for (size_t i = 0; type && i < GF_COUNT(conv1d); i++)
        a->conv1d |= strcmp(type, conv1d[i]) == 0;
    for (size_t i = 0; type && i < GF_COUNT(in_out); i++)
        a->experts_in_out |= strcmp(type, in_out[i]) == 0;
}

static int attach_slots(struct gf_attaching *a, struct gf_err *err)
{
    for (int late = 0; late < 2; late++)
        for (size_t i = 0; i < a->slots->list.n; i++) {
            struct gf_peft_slot *slot = &a->slots->list.at[i];
            bool tied = false;
            int r = slot->done ? 0 : is_tied_head(a, slot, &tied, err);

            if (!r && !slot->done && tied == late)
                r = attach_slot(a, slot, err);
            if (r)
                return r;
        }
    return 0;
}

static int attach_all(struct gf_attaching *a, struct gf_err *err)
{
    int r = attach_slots(a, err);
    const char *field, *pattern = gf_peft_too_slow(a->state->peft, &field);

    if (pattern) /* also where a rank that is not known made it fail */
        return gf_fail(err, GF_EBAD,
                       "adapter_config.json: '%s': '%.60s' takes too long to match", field,
                       pattern);
    if (r)
        return r;
    pattern = gf_peft_unused(a->state->peft, &field);
    if (pattern)
        return gf_fail(err, GF_EBAD, "adapter_config.json: '%s': '%.60s' matches no module",
                       field, pattern);
    return 0;
}

int gf_merge_attach(struct gf_peft_state *s, struct gf_peft_slots *slots,
                    struct gf_err *err)
{
    struct gf_attaching a = { .state = s, .slots = slots };
    GF_AUTO(gf_hub) hub = NULL;
    int r = gf_hub_new(s->spec->config, &hub, err);

    if (r)
        return r;
    a.hub = hub;
    know_model(&a);
    return attach_all(&a, err);
}
