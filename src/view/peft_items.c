/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peft_items.c - the tensors of the adapter file that PEFT's save_pretrained would write of a
 * state, and the base model's under them.
 *
 * The file holds what the tuner layers own, under names without the adapter's. Besides: the
 * biases that `bias` says are trained, the embeddings' own weights where an embedding is a
 * target or the vocabulary was resized, VeRA's projections once if `save_projection`.
 *
 * Source: peft 0.21 get_peft_model_state_dict, _get_adapter_state_dict.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "view/peft_int.h"

struct saving {
    struct gf_peft_state state;
    struct gf_strmap tuned; /* modules with tuner layers, by their paths in the base */
    struct gf_strmap base;  /* the base model's tensors, by name */
};

/* Which modules have tuner layers around them, and what is of the base. */
static int look_around(struct saving *s, struct gf_err *err)
{
    for (uint32_t i = 0; i < gf_catalog_len(s->state.spec->catalog); i++) {
        const struct gf_adapter_name *name = &s->state.names[i];
        int r = 0;

        if (!name->marker)
            r = gf_strmap_put(&s->base, name->base, i, NULL);
        else if (strcmp(name->adapter, s->state.adapter) == 0 &&
                 strcmp(name->marker, "modules_to_save") != 0)
            r = gf_strmap_put(&s->tuned, name->module, i, NULL);
        if (r && r != -EEXIST)
            return gf_nomem(err);
    }
    return 0;
}

/* Is this module an input or output embedding, by the name of its last component? */
static bool is_embedding(const char *module)
{
    static const char *const words[] = { "embed_tokens",    "lm_head",  "wte",
                                         "word_embeddings", "embed_in", "embed_out",
                                         "tok_embeddings",  "shared",   "tokens_embed" };
    const char *dot = strrchr(module, '.'), *last = dot ? dot + 1 : module;

    for (size_t i = 0; i < GF_COUNT(words); i++)
        if (strcmp(last, words[i]) == 0)
            return true;
    return false;
}

/* Has the model another vocabulary than its base? Then PEFT saves the embeddings whole. */
static bool is_resized(const struct saving *s, const struct gf_tensor *tensor,
                       const struct gf_adapter_name *name)
{
    return s->state.spec->base_vocab && is_embedding(name->module) &&
           tensor->shape.rank == 2 && gf_ends_with(name->base, ".weight") &&
           tensor->shape.dims[0] != s->state.spec->base_vocab;
}

/* A tensor without a tuner's name: is it saved nevertheless? */
static bool is_saved(const struct saving *s, const struct gf_tensor *tensor,
                     const struct gf_adapter_name *name)
{
    bool tuned = gf_strmap_get(&s->tuned, name->module, &(uint64_t){ 0 });

    if (!*s->state.adapter)
        return name->below;
    if (!s->state.peft || name->aside)
        return false;
    if (s->state.peft->bias == GF_PEFT_BIAS_ALL && gf_ends_with(name->file, ".bias"))
        return true;
    if (s->state.peft->bias == GF_PEFT_BIAS_ONLY && tuned &&
        gf_ends_with(name->file, ".base_layer.bias"))
        return true;
    if (gf_peft_targets_embedding(s->state.peft, name->module))
        return tuned && is_embedding(name->module) && strstr(name->file, ".base_layer.");
    return is_resized(s, tensor, name);
}

/* Shared by all modules, saved once, and only if the config says so. */
static bool is_projection_copy(const struct saving *s, const struct gf_adapter_name *name)
{
    static const char *const shared[] = { "vera_A", "vera_B", "pvera_A", "pvera_B" };

    for (size_t i = 0; i < GF_COUNT(shared); i++)
        if (strcmp(name->marker, shared[i]) == 0)
            return *name->module ||
                   (s->state.peft &&
                    !gf_json_bool(gf_json_get(s->state.peft->config, "save_projection"),
                                  true));
    return false;
}

/* A tied output head's, which are the embedding's. */
static bool is_tied_token(const struct saving *s, const struct gf_adapter_name *name)
{
    const struct gf_json *tied = gf_json_get(s->state.spec->config, "tie_word_embeddings");

    return s->state.peft && strcmp(name->marker, "trainable_tokens_delta") == 0 &&
           !gf_peft_owns_tokens(s->state.peft, name->module, gf_json_bool(tied, false));
}

static int check_whole(const struct gf_tensor *tensor, const struct gf_adapter_name *name,
                       struct gf_err *err)
{
    static const char *const matrices[] = { "lora_A", "lora_B", "lora_embedding_A",
                                            "lora_embedding_B" };
    char shape[GF_SHAPE_TEXT];
    bool matrix = false;

    for (size_t i = 0; i < GF_COUNT(matrices); i++)
        matrix |= strcmp(name->marker, matrices[i]) == 0 && strcmp(name->rest, "bias") != 0;
    if (tensor->numel && (!matrix || tensor->shape.rank >= 2))
        return 0;
    return gf_fail(err, GF_EBAD,
                   "tensor '%s' has shape %s: a shard that was never gathered",
                   tensor->name, gf_shape_text(tensor->shape, shape));
}

/* A rank's rows of lora_A, or of lora_B, have a shape that is no adapter's: the config says of
 * what rank it is, and the weight how many outputs it has. */
static int check_share(struct saving *s, uint32_t index, struct gf_err *err)
{
    const struct gf_tensor *tensor = gf_catalog_at(s->state.spec->catalog, index);
    const struct gf_adapter_name *name = &s->state.names[index];
    bool a = strcmp(name->marker, "lora_A") == 0, b = strcmp(name->marker, "lora_B") == 0;
    const struct gf_peft *peft = s->state.peft;
    char shape[GF_SHAPE_TEXT], weight[GF_SHAPE_TEXT];
    const struct gf_tensor *w;
    const char *full;
    uint64_t k;

    if ((!a && !b) || strcmp(name->rest, "weight") != 0 || tensor->shape.rank != 2 ||
        !peft || peft->type != GF_PEFT_LORA || gf_peft_has_parameters(peft))
        return 0;
    if (a) {
        k = gf_peft_rank_of(s->state.peft, name->module).r;
        if (k == 0 || tensor->shape.dims[0] >= k)
            return 0;
        return gf_fail(err, GF_EBAD,
                       "tensor '%s' has shape %s, adapter_config.json says rank %" PRIu64
                       ": a part of an adapter",
                       tensor->name, gf_shape_text(tensor->shape, shape), k);
    }
    full = gf_arena_printf(&s->state.arena, "%s.weight", name->module);
    if (!full)
        return gf_nomem(err);
    if (!gf_strmap_get(&s->base, full, &k))
        return 0;
    w = gf_catalog_at(s->state.spec->catalog, (uint32_t)k);
    if (w->shape.rank != 2 || gf_dtype_info(w->dtype)->bits < 16 ||
        tensor->shape.dims[0] == w->shape.dims[0] ||
        tensor->shape.dims[0] == w->shape.dims[1])
        return 0;
    return gf_fail(err, GF_EBAD,
                   "tensor '%s' has shape %s, its weight '%s' %s: a part of an adapter",
                   tensor->name, gf_shape_text(tensor->shape, shape), w->name,
                   gf_shape_text(w->shape, weight));
}

static int save(struct saving *s, uint32_t index, struct gf_err *err)
{
    const struct gf_tensor *tensor = gf_catalog_at(s->state.spec->catalog, index);
    const struct gf_adapter_name *name = &s->state.names[index];
    int r;

    if (!name->marker)
        return is_saved(s, tensor, name) ? gf_peft_add(&s->state, name->file, index, err)
                                         : 0;
    if (strcmp(name->adapter, s->state.adapter) != 0 || is_projection_copy(s, name) ||
        is_tied_token(s, name))
        return 0;
    r = check_whole(tensor, name, err);
    if (!r)
        r = check_share(s, index, err);
    return r ? r : gf_peft_add(&s->state, name->file, index, err);
}

/* Two factors of one product: a part of either, were it saved alone, shows here. */
static int check_factors(const struct saving *s, const char *a, const char *b, bool is_a,
                         struct gf_err *err)
{
    char sa[GF_SHAPE_TEXT], sb[GF_SHAPE_TEXT];

    for (size_t i = 0; i < s->state.items->n; i++) {
        const char *name = s->state.items->at[i].name, *at = strstr(name, a);
        GF_AUTO_MEM char *partner = NULL;
        struct gf_shape x = s->state.items->at[i].shape, y;
        uint64_t k;

        if (!at || strcmp(at + strlen(a), "bias") == 0)
            continue;
        if (asprintf(&partner, "%.*s%s%s", (int)(at - name), name, b, at + strlen(a)) < 0) {
            partner = NULL;
            return gf_nomem(err);
        }
        if (!gf_strmap_get(&s->state.items->by_name, partner, &k))
            return gf_fail(err, GF_EBAD, "tensor '%s' is there without '%s'", name,
                           partner);
        y = s->state.items->at[k].shape;
        if (x.rank >= 2 && y.rank >= 2 && x.dims[!is_a] != y.dims[is_a])
            return gf_fail(
                err, GF_EBAD,
                "tensor '%s' has shape %s and '%s' %s: shapes that don't multiply", name,
                gf_shape_text(x, sa), partner, gf_shape_text(y, sb));
    }
    return 0;
}

static int save_all(struct saving *s, struct gf_err *err)
{
    int r = look_around(s, err);

    for (uint32_t i = 0; i < gf_catalog_len(s->state.spec->catalog) && !r; i++)
        if (!gf_catalog_at(s->state.spec->catalog, i)->hidden)
            r = save(s, i, err);
    if (!r)
        r = check_factors(s, ".lora_A.", ".lora_B.", true, err);
    if (!r)
        r = check_factors(s, ".lora_B.", ".lora_A.", false, err);
    if (!r)
        r = check_factors(s, ".lora_embedding_A", ".lora_embedding_B", true, err);
    if (!r)
        r = check_factors(s, ".lora_embedding_B", ".lora_embedding_A", false, err);
    if (!r && (s->state.items->n == 0 || s->tuned.n == 0))
        r = gf_fail(err, ENOENT, "no view '%s': its tensors are not in this checkpoint",
                    s->state.spec->name);
    return r;
}

int gf_adapter_collect(const struct gf_view_spec *spec, struct gf_view *view,
                       struct gf_items *items, struct gf_err *err)
{
    struct saving s = { 0 };
    struct gf_err why = { 0 };
    int r = gf_peft_state_init(spec, view, items, &s.state, err);

    /* The tensors are the same whatever the config says of them: it may be wrong. */
    if (!r && spec->adapter_config &&
        gf_peft_new(spec->adapter_config, &s.state.peft, &why))
        r = gf_view_note(view, err, "%s", why.text);
    if (!r)
        r = save_all(&s, err);
    gf_strmap_done(&s.tuned);
    gf_strmap_done(&s.base);
    gf_peft_state_done(&s.state);
    return r;
}

int gf_base_collect(const struct gf_view_spec *spec, struct gf_view *view,
                    struct gf_items *items, struct gf_err *err)
{
    struct gf_peft_state state;
    int r = gf_peft_state_init(spec, view, items, &state, err);

    if (!r)
        r = gf_peft_base_items(&state, false, err);
    gf_peft_state_done(&state);
    return r;
}
