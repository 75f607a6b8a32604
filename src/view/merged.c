/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merged.c - the whole model of a PEFT state: what merge_and_unload() would leave.
 *
 *   1. the base model's tensors, under its names
 *   2. what the adapter replaces: modules_to_save; in an adapter file also biases and
 *      embeddings that were trained or resized as a whole
 *   3. the adapter's other tensors, gathered into one slot for each module
 *   4. each slot's merge, attached to the module's weight and bias (merge_attach.c)
 *
 * Nothing is left over: an adapter's tensor that fits no weight is an error, never ignored.
 */
#include <string.h>

#include "base/math.h"
#include "view/peft_int.h"

/* Where a marker and what is behind it belong in a slot. */
static const struct {
    const char *marker, *rest;
    enum gf_peft_part part;
} places[] = {
    { "lora_A", "weight", GF_PART_LORA_A },
    { "lora_B", "weight", GF_PART_LORA_B },
    { "lora_B", "bias", GF_PART_LORA_BIAS },
    { "lora_embedding_A", "", GF_PART_EMBEDDING_A },
    { "lora_embedding_B", "", GF_PART_EMBEDDING_B },
    { "lora_magnitude_vector", "weight", GF_PART_MAGNITUDE },
    { "lora_magnitude_vector", "", GF_PART_MAGNITUDE },
    { "trainable_tokens_delta", "", GF_PART_TOKENS },
    { "ia3_l", "", GF_PART_IA3 },
    { "hada_w1_a", "", GF_PART_HADA_W1_A },
    { "hada_w1_b", "", GF_PART_HADA_W1_B },
    { "hada_w2_a", "", GF_PART_HADA_W2_A },
    { "hada_w2_b", "", GF_PART_HADA_W2_B },
    { "lokr_w1", "", GF_PART_LOKR_W1 },
    { "lokr_w1_a", "", GF_PART_LOKR_W1_A },
    { "lokr_w1_b", "", GF_PART_LOKR_W1_B },
    { "lokr_w2", "", GF_PART_LOKR_W2 },
    { "lokr_w2_a", "", GF_PART_LOKR_W2_A },
    { "lokr_w2_b", "", GF_PART_LOKR_W2_B },
    { "vera_lambda_b", "", GF_PART_LAMBDA_B },
    { "vera_lambda_d", "", GF_PART_LAMBDA_D },
};

struct merged {
    struct gf_peft_state state;
    struct gf_peft_slots slots;
};

static const char *stored(const struct merged *m, uint32_t tensor)
{
    return gf_catalog_at(m->state.spec->catalog, tensor)->name;
}

struct gf_peft_slot *gf_slot_find(struct gf_peft_slots *slots, unsigned depth,
                                  const char *module, struct gf_arena *arena)
{
    const char *key = gf_arena_printf(arena, "%u.%s", depth, module);
    uint64_t i;

    return key && gf_strmap_get(&slots->by_key, key, &i) ? &slots->list.at[i] : NULL;
}

/* NULL: no memory. */
static struct gf_peft_slot *slot_of(struct merged *m, uint32_t tensor)
{
    const struct gf_adapter_name *name = &m->state.names[tensor];
    struct gf_peft_slot slot = { .module = name->module,
                                 .depth = name->depth,
                                 .any = tensor };
    const char *key;
    uint64_t i;

    key = gf_arena_printf(&m->state.arena, "%u.%s", name->depth, name->module);
    if (!key)
        return NULL;
    if (gf_strmap_get(&m->slots.by_key, key, &i))
        return &m->slots.list.at[i];
    for (size_t k = 0; k < GF_NPARTS; k++)
        slot.parts[k] = GF_NONE;
    if (gf_strmap_put(&m->slots.by_key, key, m->slots.list.n, NULL) ||
        gf_vec_push(&m->slots.list, slot, UINT32_MAX))
        return NULL;
    return &m->slots.list.at[m->slots.list.n - 1];
}

static int add_part(struct merged *m, uint32_t tensor, struct gf_err *err)
{
    const struct gf_adapter_name *name = &m->state.names[tensor];
    struct gf_peft_slot *slot;

    for (size_t i = 0; i < GF_COUNT(places); i++) {
        if (strcmp(name->marker, places[i].marker) != 0 ||
            strcmp(name->rest, places[i].rest) != 0)
            continue;
        slot = slot_of(m, tensor);
        if (!slot)
            return gf_nomem(err);
        if (slot->parts[places[i].part] != GF_NONE)
            return gf_fail(err, GF_EBAD, "tensors '%s' and '%s' are the same part",
                           stored(m, slot->parts[places[i].part]), stored(m, tensor));
        slot->parts[places[i].part] = tensor;
        return 0;
    }
    return gf_fail(err, ENOENT,
                   "no view '%s': tensor '%s' is no adapter that is merged here",
                   m->state.spec->name, stored(m, tensor));
}

/* VeRA's projections: every module has a copy, or a reference to the model's. */
static bool take_projection(struct merged *m, uint32_t tensor)
{
    const struct gf_adapter_name *name = &m->state.names[tensor];
    bool a = strcmp(name->marker, "vera_A") == 0, b = strcmp(name->marker, "vera_B") == 0;
    uint32_t *at = a ? &m->slots.vera_a : &m->slots.vera_b;

    if ((a || b) && (*at == GF_NONE || !*name->module))
        *at = tensor;
    return a || b;
}

/* An item of the base is replaced in its place. From an adapter file it takes the dtype of
 * the base: that is how it would be loaded. */
static int replace(struct merged *m, const char *name, uint32_t tensor, bool from_file,
                   struct gf_err *err)
{
    struct gf_item *item;
    uint32_t base;
    uint64_t i;

    if (!gf_strmap_get(&m->state.items->by_name, name, &i))
        return gf_peft_add(&m->state, name, tensor, err);
    item = &m->state.items->at[i];
    base = item->tensor;
    gf_item_set(item, m->state.spec->catalog, tensor);
    if (from_file)
        item->like = base;
    return 0;
}

static bool is_tied(const struct merged *m)
{
    return gf_json_bool(gf_json_get(m->state.spec->config, "tie_word_embeddings"), false);
}

static int take(struct merged *m, uint32_t tensor, struct gf_err *err)
{
    const struct gf_adapter_name *name = &m->state.names[tensor];
    bool file = !*m->state.adapter;
    const char *full;

    if (!name->marker)
        return file && name->below ? replace(m, name->base, tensor, true, err) : 0;
    if (strcmp(name->adapter, m->state.adapter) != 0 || take_projection(m, tensor))
        return 0;
    if (strcmp(name->marker, "trainable_tokens_delta") == 0 &&
        !gf_peft_owns_tokens(m->state.peft, name->module, is_tied(m)))
        return 0;
    if (strcmp(name->marker, "modules_to_save") != 0)
        return add_part(m, tensor, err);
    full = gf_arena_printf(&m->state.arena, "%s%s%s", name->module,
                           *name->module ? "." : "", name->rest);
    return full ? replace(m, full, tensor, file, err) : gf_nomem(err);
}

static int take_all(struct merged *m, struct gf_err *err)
{
    const struct gf_catalog *catalog = m->state.spec->catalog;
    int r = 0;

    for (uint32_t i = 0; i < gf_catalog_len(catalog) && !r; i++)
        if (!gf_catalog_at(catalog, i)->hidden)
            r = take(m, i, err);
    return r;
}

static int check_config(const struct gf_peft_state *s, struct gf_err *err)
{
    if (!s->peft)
        return gf_fail(
            err, ENOENT,
            "no view '%s': there is no adapter_config.json; config_from=DIR names "
            "a directory that has it",
            s->spec->name);
    if (*s->peft->why_not)
        return gf_fail(err, ENOENT, "no view '%s': adapter_config.json: %s", s->spec->name,
                       s->peft->why_not);
    if (!*s->adapter && s->peft->changes_base)
        return gf_fail(
            err, ENOENT,
            "no view '%s': init_lora_weights says that training changed the base "
            "model, and the changed one is not in this checkpoint",
            s->spec->name);
    return 0;
}

int gf_merged_collect(const struct gf_view_spec *spec, struct gf_view *view,
                      struct gf_items *items, struct gf_err *err)
{
    struct merged m = { .slots = { .vera_a = GF_NONE, .vera_b = GF_NONE } };
    int r = gf_peft_state_init(spec, view, items, &m.state, err);

    if (!r && spec->adapter_config)
        r = gf_peft_new(spec->adapter_config, &m.state.peft, err);
    if (!r)
        r = check_config(&m.state, err);
    if (!r)
        r = gf_peft_base_items(&m.state, true, err);
    if (!r)
        r = take_all(&m, err);
    if (!r)
        r = gf_merge_attach(&m.state, &m.slots, err);
    gf_strmap_done(&m.slots.by_key);
    gf_vec_free(&m.slots.list);
    gf_peft_state_done(&m.state);
    return r;
}
