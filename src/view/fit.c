/* SPDX-License-Identifier: Apache-2.0 */
#include "view/fit.h"

#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"
#include "base/text.h"

/* Model types with the input embedding in one place: '<prefix>.<embedding>.weight', or without
 * the prefix. Names and shapes of every class of these types were compared with
 * transformers 5.18; types whose names on the hub differ there, that have the embedding in
 * another shape than config.json's, or that are part of a larger model are not listed. */
struct family {
    const char *prefixes[2];
    const char *embeddings[3];
    const char *types; /* a space between two */
};

static const struct family families[] = {
    { { "model", "transformer" },
      { "embed_tokens" },
      "afmoe apertus arcee axk1 bamba bitnet cohere cohere2 cohere2_moe cwm "
      "deepseek_v2 deepseek_v3 deepseek_v32 diffllama doge dots1 ernie4_5 "
      "ernie4_5_moe eurobert exaone4 exaone_moe falcon_h1 flex_olmo gemma "
      "gemma2 gemma3_text glm glm4 glm4_moe glm4_moe_lite glm_moe_dsa "
      "gpt_oss granite granitemoe granitemoehybrid granitemoeshared helium "
      "hyperclovax jais2 jamba jetmoe lfm2 lfm2_moe llama longcat_flash "
      "minimax minimax_m2 ministral3 mistral mistral4 mixtral nanochat "
      "nemotron olmo olmo2 olmo3 olmo_hybrid olmoe persimmon phi phi3 phimoe "
      "qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next recurrent_gemma seed_oss "
      "smollm3 solar_open stablelm starcoder2 vaultgemma xglm zamba zamba2" },
    { { "transformer" }, { "wte" }, "codegen gpt-sw3 gpt2 gpt_bigcode gpt_neo gptj" },
    { { "transformer" }, { "word_embeddings" }, "bloom falcon" },
    { { "gpt_neox" }, { "embed_in" }, "gpt_neox" },
    { { "model" }, { "decoder.embed_tokens" }, "opt" },
    { { "transformer", "model" },
      { "shared", "encoder.embed_tokens", "decoder.embed_tokens" },
      "longt5 mt5 t5 umt5" },
    { { "model" },
      { "shared", "encoder.embed_tokens", "decoder.embed_tokens" },
      "bart bigbird_pegasus blenderbot m2m_100 mbart pegasus pegasus_x" },
    { { "bert" }, { "embeddings.word_embeddings" }, "bert" },
    { { "roberta" },
      { "embeddings.word_embeddings" },
      "camembert roberta xlm-roberta xlm-roberta-xl" },
    { { "distilbert" }, { "embeddings.word_embeddings" }, "distilbert" },
    { { "deberta" }, { "embeddings.word_embeddings" }, "deberta deberta-v2" },
    { { "model" }, { "embeddings.tok_embeddings" }, "modernbert modernbert-decoder" },
};

/* ---- config.json ---- */

static bool has_word(const char *words, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = words; n && (p = strstr(p, word)); p += n)
        if ((p == words || p[-1] == ' ') && (p[n] == ' ' || !p[n]))
            return true;
    return false;
}

static const struct family *family_of(const struct gf_json *config)
{
    const char *type = gf_json_str(gf_json_get(config, "model_type"));

    for (size_t i = 0; type && !strchr(type, ' ') && i < GF_COUNT(families); i++)
        if (has_word(families[i].types, type))
            return &families[i];
    return NULL;
}

/* The input embedding's shape; false where config.json does not say it. */
static bool embedding_shape(const struct gf_json *config, uint64_t ret[2])
{
    static const char *const columns[] = { "embedding_size", "word_embed_proj_dim",
                                           "hidden_size",    "n_embd",
                                           "d_model",        "dim" };

    if (!gf_json_u64(gf_json_get(config, "vocab_size"), &ret[0]))
        config = gf_json_get(config, "text_config");
    if (!gf_json_u64(gf_json_get(config, "vocab_size"), &ret[0]))
        return false;
    for (size_t i = 0; i < GF_COUNT(columns); i++)
        if (gf_json_u64(gf_json_get(config, columns[i]), &ret[1]))
            return true;
    return false;
}

static const char *class_of(const struct gf_json *config)
{
    const char *class = gf_json_str(gf_json_at(gf_json_get(config, "architectures"), 0));

    return class ? class : "";
}

static bool writes(const char *class)
{
    return gf_ends_with(class, "ForCausalLM") || gf_ends_with(class, "LMHeadModel") ||
           gf_ends_with(class, "ForConditionalGeneration");
}

bool gf_fit_generates(const struct gf_json *config)
{
    const char *class = class_of(config);

    return (*class ? writes(class) : family_of(config) != NULL) &&
           !gf_json_get(config, "auto_map");
}

/* ---- names ---- */

/* Is `name` '<stem>.weight'? */
static bool is_weight(const char *name, size_t len, const char *stem)
{
    size_t n = strlen(stem);

    return len == n + 7 && memcmp(name, stem, n) == 0 &&
           memcmp(name + n, ".weight", 7) == 0;
}

/* Is it the family's input embedding, where from_pretrained() looks for it? */
static bool is_embedding(const struct family *family, const char *name)
{
    const char *rest[GF_COUNT(family->prefixes) + 1] = { name };
    size_t n = 1;

    for (size_t i = 0; i < GF_COUNT(family->prefixes) && family->prefixes[i]; i++) {
        size_t len = strlen(family->prefixes[i]);

        if (strncmp(name, family->prefixes[i], len) == 0 && name[len] == '.')
            rest[n++] = name + len + 1;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < GF_COUNT(family->embeddings) && family->embeddings[k]; k++)
            if (is_weight(rest[i], strlen(rest[i]), family->embeddings[k]))
                return true;
    return false;
}

/* The same below other names, and how long those are; NULL if there is none. */
static const char *elsewhere(const struct gf_view *view, const struct family *family,
                             size_t *ret_len)
{
    for (size_t i = 0; i < view->n; i++) {
        const char *name = view->outputs[i].name;

        for (const char *p = strchr(name, '.'); p; p = strchr(p + 1, '.'))
            if (is_embedding(family, p + 1)) {
                *ret_len = (size_t)(p - name);
                return name;
            }
    }
    return NULL;
}

static bool is_output_head(const char *name)
{
    return strcmp(name, "lm_head.weight") == 0 || strcmp(name, "embed_out.weight") == 0;
}

static bool first_is(const char *name, const char *const *words)
{
    size_t len = strcspn(name, ".");

    for (; *words; words++)
        if (strlen(*words) == len && strncmp(name, *words, len) == 0)
            return true;
    return false;
}

bool gf_fit_is_score(const char *name)
{
    static const char *const words[] = { "score",           "scores",     "v_head",
                                         "value_head",      "classifier", "reward_head",
                                         "regression_head", NULL };

    return first_is(name, words);
}

/* A head that config.json's class does not have, or lacks the one that it has: of several
 * models of one family, the class tells which one config.json is of. */
static bool other_head(const struct gf_view *view, const char *class)
{
    static const char *const outputs[] = { "lm_head", "embed_out", NULL };
    bool scored = gf_ends_with(class, "ForSequenceClassification") ||
                  gf_ends_with(class, "ForTokenClassification");
    bool has_score = false, has_output = false;

    for (size_t i = 0; i < view->n; i++) {
        has_score |= gf_fit_is_score(view->outputs[i].name);
        has_output |= first_is(view->outputs[i].name, outputs);
    }
    if (scored)
        return has_output || !has_score;
    return writes(class) && has_score;
}

/* ---- verdicts ---- */

static enum gf_fit by_family(const struct gf_view *view, const struct gf_json *config,
                             char why[static GF_FIT_WHY])
{
    const struct family *family = family_of(config);
    const char *type = gf_json_str(gf_json_get(config, "model_type")), *other;
    uint64_t want[2];
    bool sized = embedding_shape(config, want), head = false;
    char shape[GF_SHAPE_TEXT];
    size_t len;

    if (!family)
        return GF_FIT_UNKNOWN;
    for (size_t i = 0; i < view->n; i++) {
        const struct gf_output *out = &view->outputs[i];

        head |= is_output_head(out->name);
        if (!is_embedding(family, out->name))
            continue;
        if (!sized || (out->shape.rank == 2 && out->shape.dims[0] == want[0] &&
                       out->shape.dims[1] == want[1]))
            return GF_FIT_YES;
        snprintf(why, GF_FIT_WHY,
                 "'%.160s' is %s, config.json's is [%llu, %llu]: from_pretrained() will "
                 "refuse it",
                 out->name, gf_shape_text(out->shape, shape), (unsigned long long)want[0],
                 (unsigned long long)want[1]);
        return GF_FIT_NO;
    }
    /* Tied weights may be there under the head's name alone: it is tied from there. */
    if (head && gf_json_bool(gf_json_get(config, "tie_word_embeddings"), true))
        return GF_FIT_YES;
    other = elsewhere(view, family, &len);
    snprintf(why, GF_FIT_WHY,
             "no '%s.%s.weight', which config.json's model type '%.40s' has: "
             "from_pretrained() would fill the model with random weights",
             family->prefixes[0], family->embeddings[0], type);
    if (other)
        snprintf(why + strlen(why), GF_FIT_WHY - strlen(why),
                 " ('%.120s' is there: --prefix %.*s)", other, (int)GF_MIN(len, 80), other);
    return GF_FIT_NO;
}

static enum gf_fit by_shape(const struct gf_view *view, const struct gf_json *config)
{
    uint64_t want[2];

    if (!embedding_shape(config, want))
        return GF_FIT_UNKNOWN;
    for (size_t i = 0; i < view->n; i++) {
        struct gf_shape shape = view->outputs[i].shape;

        if (shape.rank == 2 && shape.dims[0] == want[0] && shape.dims[1] == want[1])
            return GF_FIT_LIKELY;
    }
    return GF_FIT_UNKNOWN;
}

/* ---- template ---- */

struct named {
    const struct gf_view *view;
    struct gf_strmap map; /* name -> output */
};

static bool holds(const struct named *names, const char *name, struct gf_shape shape)
{
    uint64_t i;

    return gf_strmap_get(&names->map, name, &i) &&
           gf_shape_equal(names->view->outputs[i].shape, shape);
}

/* How many of the template's tensors are there: with or without the base model's name in
 * front, or, where `front` is not empty, behind that. Stops at the first half. */
static bool mostly_there(const struct named *names, const struct gf_catalog *template,
                         const char *front, size_t front_len)
{
    size_t n = gf_catalog_len(template), there = 0;

    for (uint32_t i = 0; i < n; i++) {
        const struct gf_tensor *t = gf_catalog_at(template, i);
        const char *dot = strchr(t->name, '.');
        char *name;

        if (!front_len) {
            there +=
                holds(names, t->name, t->shape) || (dot && holds(names, dot + 1, t->shape));
            continue;
        }
        if (asprintf(&name, "%.*s%s", (int)front_len, front, t->name) < 0)
            return false;
        there += holds(names, name, t->shape);
        free(name);
    }
    return there * 2 > n;
}

/* What stands in front of the template's names here, as a length of a view's name. */
static size_t front_of(const struct gf_view *view, const struct gf_catalog *template,
                       const char **ret)
{
    const char *name = gf_catalog_at(template, 0)->name;
    size_t len = strlen(name);

    for (size_t i = 0; i < view->n; i++) {
        const char *other = view->outputs[i].name;
        size_t n = strlen(other);

        if (n > len && other[n - len - 1] == '.' && strcmp(other + n - len, name) == 0) {
            *ret = other;
            return n - len;
        }
    }
    return 0;
}

/* Names of a base model that was saved by itself: whole models have one of these in front. */
static bool is_base_prefix(const char *front, size_t len, const struct gf_json *config)
{
    static const char *const words[] = { "model", "transformer", "backbone",
                                         "language_model" };
    const char *type = gf_json_str(gf_json_get(config, "model_type"));

    for (size_t i = 0; i < GF_COUNT(words); i++)
        if (strlen(words[i]) + 1 == len && strncmp(front, words[i], len - 1) == 0)
            return true;
    return type && strlen(type) + 1 == len && strncmp(front, type, len - 1) == 0;
}

static enum gf_fit by_template(const struct gf_view *view, const struct gf_json *config,
                               const struct gf_catalog *template,
                               char why[static GF_FIT_WHY])
{
    struct named names = { .view = view };
    enum gf_fit fit = GF_FIT_UNKNOWN;
    const char *front = NULL;
    bool whole = gf_catalog_len(template) > 0;
    size_t len;

    for (size_t i = 0; i < view->n && whole; i++)
        whole = gf_strmap_put(&names.map, view->outputs[i].name, i, NULL) != -ENOMEM;
    if (whole && mostly_there(&names, template, NULL, 0)) {
        fit = GF_FIT_YES;
    } else if (whole && (len = front_of(view, template, &front)) &&
               mostly_there(&names, template, front, len)) {
        fit = is_base_prefix(front, len, config) ? GF_FIT_YES : GF_FIT_NO;
        if (fit == GF_FIT_NO)
            snprintf(why, GF_FIT_WHY,
                     "the base model's names are there behind '%.*s': from_pretrained() "
                     "would fill the model with random weights",
                     (int)GF_MIN(len, 160), front);
    }
    gf_strmap_done(&names.map);
    return fit;
}

enum gf_fit gf_fit_view(const struct gf_view *view, const struct gf_json *config,
                        const struct gf_catalog *template, char why[static GF_FIT_WHY])
{
    enum gf_fit fit = GF_FIT_UNKNOWN;

    *why = '\0';
    if (config)
        fit = by_family(view, config, why);
    if (fit == GF_FIT_UNKNOWN && template)
        fit = by_template(view, config, template, why);
    if (fit == GF_FIT_UNKNOWN && config)
        fit = by_shape(view, config);
    return fit > GF_FIT_UNKNOWN && other_head(view, class_of(config)) ? GF_FIT_PART : fit;
}
