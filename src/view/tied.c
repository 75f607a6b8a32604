/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tied.c - tied weights: one matrix under two names.
 *
 * save_pretrained() writes such a matrix once, under the input embedding's name, and
 * from_pretrained() ties the other name again if config.json says so. Checkpoints of a
 * sharded training hold one name, both as one storage (an alias in the catalog), or both as
 * two copies. So, where config.json says tied:
 *
 *   same storage, or equal bytes    only the input embedding is served
 *   anything else                   all names are served and config.json is to say untied,
 *                                   and nothing is dropped: an untied model ties no name
 *
 * Where it does not, every name that is there is served; and a causal model whose output
 * head is nowhere is refused, since it would load with a random one, silently.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "view/fit.h"
#include "view/kind.h"
#include "view/view_int.h"

/* The one component in front stands for the base model: 'bert', 'roberta', ... */
#define ANY_MODEL "*.embeddings.word_embeddings.weight"

/* Names below the same prefix; of the embeddings, the first that is served counts. From
 * the `_tied_weights_keys` of transformers 5.18. */
struct tie {
    const char *head;
    bool output; /* the output head of a language model */
    const char *embeddings[20];
};

static const struct tie ties[] = {
    { "lm_head.weight",
      true,
      { "model.shared.weight", "shared.weight", "led.shared.weight",
        "model.language_model.shared.weight", "model.embed_tokens.weight",
        "model.language_model.embed_tokens.weight", "model.text_model.embed_tokens.weight",
        "model.decoder.embed_tokens.weight", "transformer.wte.weight",
        "transformer.word_embeddings.weight", "transformer.w.weight",
        "transformer.tokens_embed.weight", "gpt_neox.embed_in.weight",
        "backbone.embeddings.weight", "prophetnet.word_embeddings.weight",
        "model.embed_tokens.word_embeddings.weight",
        "model.text_model.embeddings.tok_embeddings.weight", "embed_tokens.weight",
        ANY_MODEL } },
    { "embed_out.weight",
      true,
      { "gpt_neox.embed_in.weight", "gpt_neox_japanese.embed_in.weight" } },
    { "lm_head.decoder.weight", true, { ANY_MODEL } },
    { "lm_head.out_proj.weight",
      true,
      { "model.decoder.embed_tokens.weight",
        "model.encoder.text_model.embed_tokens.weight" } },
    { "lm_loss.weight", true, { "transformer.word_embedding.weight" } },
    { "cls.predictions.decoder.weight", true, { ANY_MODEL } },
    { "predictions.decoder.weight", true, { ANY_MODEL } },
    { "lm_predictions.lm_head.weight", true, { ANY_MODEL } },
    { "generator_lm_head.weight", true, { ANY_MODEL } },
    { "vocab_projector.weight", true, { ANY_MODEL } },
    { "pred_layer.proj.weight", true, { "transformer.embeddings.weight" } },
    { "head.weight", true, { "rwkv.embeddings.weight" } },
    { "output.weight", true, { ANY_MODEL } },
    { "output_projection.weight",
      true,
      { "biogpt.embed_tokens.weight", "model.decoder.embed_tokens.weight" } },
    { "proj_out.weight", true, { "model.decoder.embed_tokens.weight" } },
    { "decoder.weight", true, { "model.embeddings.tok_embeddings.weight" } },
    { "cls.predictions.decoder.bias", false, { "cls.predictions.bias" } },
    { "predictions.decoder.bias", false, { "predictions.bias" } },
    { "lm_head.decoder.bias", false, { "lm_head.bias" } },
    { "encoder.embed_tokens.weight", false, { "shared.weight" } },
    { "decoder.embed_tokens.weight", false, { "shared.weight" } },
    { "text_encoder.embed_tokens.weight", false, { "shared.weight" } },
    { "text_decoder.embed_tokens.weight", false, { "shared.weight" } },
};

struct tying {
    const struct gf_view_spec *spec;
    struct gf_items *items;
    struct gf_view *view;
    struct gf_strmap words; /* prefix -> item of that prefix's ANY_MODEL */
    char *name;             /* room for any name built from a prefix and a table's name */
    size_t room;
};

static const struct gf_tensor *tensor_of(const struct tying *t, const struct gf_item *item)
{
    return gf_catalog_at(t->spec->catalog, item->tensor);
}

static bool ends_with(const char *name, const char *suffix, size_t *ret_prefix)
{
    size_t n = strlen(name), m = strlen(suffix);

    if (n < m || memcmp(name + n - m, suffix, m) != 0)
        return false;
    *ret_prefix = n - m;
    return true;
}

/* Is the end of `name` the table's `suffix`, from a component's start on? */
static bool below(const char *name, const char *suffix, size_t *ret_prefix)
{
    size_t n;

    if (!ends_with(name, suffix, &n) || (n && name[n - 1] != '.'))
        return false;
    *ret_prefix = n;
    return true;
}

/* 'decoder.bert.embeddings...' -> the length of 'decoder.'. */
static bool below_any_model(const char *name, size_t *ret_prefix)
{
    size_t n;

    if (!ends_with(name, &(ANY_MODEL)[1], &n))
        return false;
    while (n && name[n - 1] != '.')
        n--;
    *ret_prefix = n;
    return true;
}

static const char *join(struct tying *t, const char *prefix, size_t len, const char *suffix)
{
    size_t need = len + strlen(suffix) + 1;

    if (need > t->room) {
        char *p = realloc(t->name, need);

        if (!p)
            return NULL;
        t->name = p;
        t->room = need;
    }
    memcpy(t->name, prefix, len);
    memcpy(t->name + len, suffix, need - len);
    return t->name;
}

static int find_words(struct tying *t, struct gf_err *err)
{
    for (size_t i = 0; i < t->items->n; i++) {
        const char *prefix;
        size_t len;
        int r;

        if (!below_any_model(t->items->at[i].name, &len))
            continue;
        prefix = gf_arena_strndup(t->view->arena, t->items->at[i].name, len);
        if (!prefix)
            return gf_nomem(err);
        r = gf_strmap_put(&t->words, prefix, i, NULL);
        if (r && r != -EEXIST)
            return gf_nomem(err);
    }
    return 0;
}

/* The embedding that is there for a head below this prefix; *ret is NULL if there is none.
 */
static int find_embedding(struct tying *t, const struct tie *tie, const char *prefix,
                          size_t len, struct gf_item **ret, struct gf_err *err)
{
    *ret = NULL;
    for (const char *const *e = tie->embeddings; *e && !*ret; e++) {
        bool any = strcmp(*e, ANY_MODEL) == 0;
        const char *key = join(t, prefix, len, any ? "" : *e);
        uint64_t i;

        if (!key)
            return gf_nomem(err);
        if (gf_strmap_get(any ? &t->words : &t->items->by_name, key, &i))
            *ret = &t->items->at[i];
    }
    return 0;
}

/* Where the storage that a tensor shares was first seen. */
static uint32_t storage_of(const struct gf_catalog *catalog, uint32_t tensor)
{
    while (gf_catalog_at(catalog, tensor)->alias != GF_NONE)
        tensor = gf_catalog_at(catalog, tensor)->alias;
    return tensor;
}

static bool alike(const struct gf_tensor *a, const struct gf_tensor *b)
{
    return gf_shape_equal(a->shape, b->shape) && a->dtype == b->dtype && a->live == b->live;
}

static int compare(struct tying *t, const struct gf_item *a, const struct gf_item *b,
                   bool *ret, struct gf_err *err)
{
    const struct gf_catalog *catalog = t->spec->catalog;

    *ret = false;
    if (!alike(tensor_of(t, a), tensor_of(t, b)))
        return 0;
    if (storage_of(catalog, a->tensor) == storage_of(catalog, b->tensor)) {
        *ret = true;
        return 0;
    }
    return t->spec->same(t->spec->ctx, a->tensor, b->tensor, ret, err);
}

static int drop(struct tying *t, struct gf_item *item, const struct gf_item *kept,
                struct gf_err *err)
{
    item->dropped = true;
    item->kept = (size_t)(kept - t->items->at);
    return gf_view_note(t->view, err, "'%s' is tied to '%s' and served once", item->name,
                        kept->name);
}

/* One head of the table and its embedding. *ret: the head, if they differ. */
static int drop_head(struct tying *t, struct gf_item *head, const struct gf_item *embedding,
                     const struct gf_item **ret, struct gf_err *err)
{
    bool same;
    int r = compare(t, head, embedding, &same, err);

    if (r)
        return r;
    if (same)
        return drop(t, head, embedding, err);
    *ret = head;
    return 0;
}

/* All of them, until one differs. */
static int drop_heads(struct tying *t, const struct gf_item **ret, struct gf_err *err)
{
    for (size_t i = 0; i < t->items->n && !*ret; i++) {
        struct gf_item *head = &t->items->at[i], *embedding = NULL;
        size_t prefix;
        int r = 0;

        for (size_t k = 0; k < GF_COUNT(ties) && !embedding && !r; k++)
            if (below(head->name, ties[k].head, &prefix))
                r = find_embedding(t, &ties[k], head->name, prefix, &embedding, err);
        if (!r && embedding)
            r = drop_head(t, head, embedding, ret, err);
        if (r)
            return r;
    }
    return 0;
}

/* Names that the table does not know but that share a storage: the first stays. Buffers
 * stay too, nothing ties those again. */
static int drop_aliases(struct tying *t, struct gf_err *err)
{
    const struct gf_catalog *catalog = t->spec->catalog;
    GF_AUTO_MEM uint32_t *first = malloc((gf_catalog_len(catalog) + 1) * sizeof(*first));
    int r = 0;

    if (!first)
        return gf_nomem(err);
    memset(first, 0xff, gf_catalog_len(catalog) * sizeof(*first)); /* GF_NONE */
    for (uint32_t i = 0; i < t->items->n && !r; i++) {
        struct gf_item *item = &t->items->at[i], *kept;
        const struct gf_tensor *tensor = tensor_of(t, item);
        uint32_t storage = storage_of(catalog, item->tensor);

        if (item->dropped)
            continue;
        if (first[storage] == GF_NONE) {
            first[storage] = i;
            continue;
        }
        kept = &t->items->at[first[storage]];
        if (!tensor->buffer && alike(tensor, tensor_of(t, kept)))
            r = drop(t, item, kept, err);
    }
    return r;
}

static int untie(struct tying *t, const struct gf_item *head, struct gf_err *err)
{
    for (size_t i = 0; i < t->items->n; i++)
        t->items->at[i].dropped = false;
    for (size_t i = 0; i < t->view->notes.n; i++)
        free(t->view->notes.at[i]);
    t->view->notes.n = 0;
    t->view->untie = true;
    return gf_view_note(t->view, err,
                        "'%s' differs from the input embedding: both are served, "
                        "config.json says tie_word_embeddings: false",
                        head->name);
}

/* An output head that the table does not know (remote code): as many rows as the embedding,
 * outside the layers, and no embedding itself. */
static bool is_own_head(const struct tying *t, const struct gf_item *item, uint64_t rows)
{
    struct gf_shape shape = tensor_of(t, item)->shape;

    if (strncmp(item->name, "lm_head.", 8) == 0)
        return true;
    if (shape.rank != 2 || shape.dims[0] != rows || strstr(item->name, "emb") ||
        strstr(item->name, "wte") || strstr(item->name, "wpe"))
        return false;
    for (const char *p = item->name; (p = strchr(p, '.')); p++)
        if (isdigit((unsigned char)p[1]))
            return false;
    return true;
}

/* The class in config.json if it is a causal model with an output head, else NULL. */
static const char *causal_class(const struct gf_json *config)
{
    const char *name = gf_json_str(gf_json_at(gf_json_get(config, "architectures"), 0));
    size_t prefix;

    return name && (ends_with(name, "ForCausalLM", &prefix) ||
                    ends_with(name, "LMHeadModel", &prefix))
               ? name
               : NULL;
}

static int check_head(struct tying *t, const char *class, struct gf_err *err)
{
    struct gf_item *embedding = NULL;
    uint64_t i, rows;

    for (size_t k = 0; k < GF_COUNT(ties); k++) {
        int r;

        if (!ties[k].output)
            continue;
        if (gf_strmap_get(&t->items->by_name, ties[k].head, &i))
            return 0;
        if (!embedding && (r = find_embedding(t, &ties[k], "", 0, &embedding, err)))
            return r;
    }
    if (!embedding || tensor_of(t, embedding)->shape.rank != 2)
        return 0;
    rows = tensor_of(t, embedding)->shape.dims[0];
    for (i = 0; i < t->items->n; i++)
        if (is_own_head(t, &t->items->at[i], rows))
            return 0;
    /* A critic that was made of the model: loaded as what it is, nothing is random. */
    for (i = 0; i < t->items->n && gf_view_is_reserved(t->spec->name); i++)
        if (gf_fit_is_score(t->items->at[i].name)) {
            t->view->scores = true;
            return 0;
        }
    return gf_fail(
        err, GF_EINCOMPLETE,
        "no output head beside '%s', but config.json says %s and that they are not "
        "tied: it would load with a random head",
        embedding->name, class);
}

enum says { NOTHING, NO, YES };

static enum says says(const struct gf_json *object)
{
    const struct gf_json *value = gf_json_get(object, "tie_word_embeddings");

    if (gf_json_bool(value, false))
        return YES;
    return gf_json_bool(value, true) ? NOTHING : NO;
}

/* transformers 5 looks at the top of config.json; where that says nothing, and before 5,
 * the language model's own part decides; the default is tied. NOTHING: the two disagree, so
 * neither a missing name nor one too many is an error. */
static enum says config_says(const struct gf_json *config)
{
    static const char *const parts[] = { "text_config",    "llm_config", "language_config",
                                         "thinker_config", "decoder",    "generator" };
    enum says top = says(config), part = NOTHING;

    for (size_t i = 0; i < GF_COUNT(parts); i++)
        part = GF_MAX(part, says(gf_json_get(config, parts[i])));
    if (top == NO)
        return part == YES ? NOTHING : NO;
    return top == NOTHING && part == NO ? NO : YES;
}

/* What is left of the names that are not served: verify compares them in full. And both
 * names' adapters were merged into the one matrix, first the embedding's. */
static int note_ties(struct tying *t, struct gf_err *err)
{
    for (size_t i = 0; i < t->items->n; i++) {
        const struct gf_item *item = &t->items->at[i];
        struct gf_item *kept = &t->items->at[item->kept];
        struct gf_tie tie = { item->tensor, kept->tensor };

        if (!item->dropped)
            continue;
        if (gf_vec_push(&t->view->ties, tie, UINT32_MAX))
            return gf_nomem(err);
        if (!item->merge)
            continue;
        kept->merge = gf_merge_stack(t->view->arena, kept->merge, item->merge);
        if (!kept->merge)
            return gf_nomem(err);
    }
    return 0;
}

int gf_tied_embedding(const struct gf_view_spec *spec, struct gf_items *items,
                      struct gf_view *view, const char *head, struct gf_item **ret,
                      struct gf_err *err)
{
    struct tying t = { .spec = spec, .items = items, .view = view };
    int r = 0;

    *ret = NULL;
    if (!spec->config || config_says(spec->config) != YES)
        return 0;
    r = find_words(&t, err);
    for (size_t k = 0; k < GF_COUNT(ties) && !r && !*ret; k++) {
        size_t prefix;

        if (below(head, ties[k].head, &prefix))
            r = find_embedding(&t, &ties[k], head, prefix, ret, err);
    }
    gf_strmap_done(&t.words);
    free(t.name);
    return r;
}

int gf_tied_resolve(const struct gf_view_spec *spec, struct gf_items *items,
                    struct gf_view *view, struct gf_err *err)
{
    struct tying t = { .spec = spec, .items = items, .view = view };
    const char *class = causal_class(spec->config);
    enum says tied = config_says(spec->config);
    const struct gf_item *differs = NULL;
    int r = find_words(&t, err);

    if (!r && tied == YES) {
        r = drop_heads(&t, &differs, err);
        if (!r)
            r = differs ? untie(&t, differs, err) : drop_aliases(&t, err);
        if (!r)
            r = note_ties(&t, err);
    } else if (!r && tied == NO && class) {
        r = check_head(&t, class, err);
    }
    gf_strmap_done(&t.words);
    free(t.name);
    return r;
}
