/* SPDX-License-Identifier: Apache-2.0 */
#include "view/peft.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/math.h"
#include "base/text.h"

#define MAX_PATTERNS 4096

/* A hostile config has patterns that backtrack for long, and many of them: one match is
 * bounded in steps, all of them together in processor time. */
#define MATCH_STEPS 10000
#define MAX_SPENT 2000000000 /* ns; 600 patterns on 600 modules take 0.3 s */
#define TRIES_TIMED 64       /* the clock is read once for so many */

static const char *const embedding_names[] = { "embed_tokens", "lm_head" };

/* What PEFT can save and what becomes of it here. */
static const struct {
    const char *name;
    enum gf_peft_type type;
    const char *why_not;
} types[] = {
    { "LORA", GF_PEFT_LORA, "" },
    { "IA3", GF_PEFT_IA3, "" },
    { "LOHA", GF_PEFT_LOHA, "" },
    { "LOKR", GF_PEFT_LOKR, "" },
    { "VERA", GF_PEFT_VERA, "" },
    { "TRAINABLE_TOKENS", GF_PEFT_TRAINABLE_TOKENS, "" },
    { "ADALORA", GF_PEFT_OTHER, "its singular values change the adapter itself" },
    { "OFT", GF_PEFT_OTHER, "it turns the weights, that is no sum" },
    { "BOFT", GF_PEFT_OTHER, "it turns the weights, that is no sum" },
    { "HRA", GF_PEFT_OTHER, "it turns the weights, that is no sum" },
    { "XLORA", GF_PEFT_OTHER, "its parts depend on the input" },
    { "POLY", GF_PEFT_OTHER, "its parts depend on the input" },
    { "PROMPT_TUNING", GF_PEFT_OTHER, "a prompt changes no weights" },
    { "MULTITASK_PROMPT_TUNING", GF_PEFT_OTHER, "a prompt changes no weights" },
    { "P_TUNING", GF_PEFT_OTHER, "a prompt changes no weights" },
    { "PREFIX_TUNING", GF_PEFT_OTHER, "a prompt changes no weights" },
    { "ADAPTION_PROMPT", GF_PEFT_OTHER, "a prompt changes no weights" },
    { "CPT", GF_PEFT_OTHER, "a prompt changes no weights" },
};

/* Kinds of LoRA whose merge is another one, or none. */
static const char *const variants[] = {
    "use_bdlora",        "use_qalora",  "alora_invocation_tokens", "arrow_config",
    "monteclora_config", "kasa_config", "velora_config",
};

/* Initialisations that take the adapter off the base's weights when training begins. */
static const char *const off_the_base[] = { "pissa", "olora", "corda", "lora_ga", "loftq" };

/* Python's truth: neither false nor null nor empty. */
static bool is_set(const struct gf_json *value)
{
    double number;

    if (gf_json_bool(value, false))
        return true;
    if (gf_json_f64(value, &number))
        return number != 0;
    if (gf_json_str(value))
        return *gf_json_str(value);
    return gf_json_len(value) > 0;
}

static void choose_type(struct gf_peft *peft)
{
    const char *name = gf_json_str(gf_json_get(peft->config, "peft_type"));

    peft->type = GF_PEFT_OTHER;
    for (size_t i = 0; name && i < GF_COUNT(types); i++)
        if (strcmp(name, types[i].name) == 0) {
            peft->type = types[i].type;
            if (*types[i].why_not)
                snprintf(peft->why_not, sizeof(peft->why_not),
                         "peft_type %s is not merged: %s", name, types[i].why_not);
            return;
        }
    snprintf(peft->why_not, sizeof(peft->why_not),
             name ? "peft_type '%.40s' is not known here" : "no peft_type", name);
}

static void refuse_variants(struct gf_peft *peft)
{
    for (size_t i = 0; i < GF_COUNT(variants) && !*peft->why_not; i++)
        if (is_set(gf_json_get(peft->config, variants[i])))
            snprintf(peft->why_not, sizeof(peft->why_not), "%s is set: it is not merged",
                     variants[i]);
}

static int read_number(const struct gf_json *config, const char *key, double *ret,
                       struct gf_err *err)
{
    const struct gf_json *value = gf_json_get(config, key);

    if (!value || gf_json_is_null(value))
        return 0;
    if (!gf_json_f64(value, ret) || !isfinite(*ret))
        return gf_fail(err, GF_EBAD, "adapter_config.json: '%s' is no number", key);
    return 0;
}

static int compile(const char *form, const char *pattern, const char *key,
                   struct gf_regex **ret, struct gf_err *err)
{
    GF_AUTO_MEM char *text = NULL;

    if (asprintf(&text, "%s(%s)\\z", form, pattern) < 0) {
        text = NULL;
        return gf_nomem(err);
    }
    if (gf_regex_new(text, ret, err))
        return gf_wrap(err, "adapter_config.json: '%s': '%.60s'", key, pattern);
    gf_regex_limit(*ret, MATCH_STEPS);
    return 0;
}

static int add_pattern(struct gf_peft_patterns *patterns, const char *key,
                       const struct gf_json *member, struct gf_err *err)
{
    struct gf_peft_pattern pattern = { .text = gf_json_key(member) };
    int r;

    if (!gf_json_f64(member, &pattern.value) || !isfinite(pattern.value))
        return gf_fail(err, GF_EBAD, "adapter_config.json: '%s': '%.60s' is no number", key,
                       pattern.text);
    r = compile("(?:.*\\.)?", pattern.text, key, &pattern.regex, err);
    if (!r && gf_vec_push(&patterns->list, pattern, MAX_PATTERNS)) {
        gf_regex_free(pattern.regex);
        r = gf_fail(err, GF_EBAD, "adapter_config.json: '%s': more than %d patterns", key,
                    MAX_PATTERNS);
    }
    return r;
}

static int read_patterns(struct gf_peft *peft, const char *key,
                         struct gf_peft_patterns *patterns, struct gf_err *err)
{
    const struct gf_json *object = gf_json_get(peft->config, key);
    int r = 0;

    patterns->field = key;
    if (!gf_json_is_object(object))
        return 0;
    for (const struct gf_json *m = gf_json_at(object, 0); m && !r; m = gf_json_next(m))
        r = add_pattern(patterns, key, m, err);
    return r;
}

static void read_bias(struct gf_peft *peft)
{
    const char *bias = gf_json_str(gf_json_get(peft->config, "bias"));
    size_t n = bias ? strlen(bias) : 0;

    if (bias && strcmp(bias, "all") == 0)
        peft->bias = GF_PEFT_BIAS_ALL;
    else if (n > 5 && strcmp(bias + n - 5, "_only") == 0)
        peft->bias = GF_PEFT_BIAS_ONLY;
}

static int read_parameters(struct gf_peft *peft, struct gf_err *err)
{
    const struct gf_json *list = gf_json_get(peft->config, "target_parameters");

    for (const struct gf_json *m = gf_json_at(list, 0); m; m = gf_json_next(m))
        if (gf_json_str(m) && gf_vec_push(&peft->parameters, gf_json_str(m), MAX_PATTERNS))
            return gf_fail(err, GF_EBAD,
                           "adapter_config.json: 'target_parameters': more than %d",
                           MAX_PATTERNS);
    return 0;
}

static int read_targets(struct gf_peft *peft, struct gf_err *err)
{
    const struct gf_json *targets = gf_json_get(peft->config, "target_modules");
    const char *pattern = gf_json_str(targets);

    for (const struct gf_json *m = gf_json_at(targets, 0); m; m = gf_json_next(m))
        for (size_t i = 0; i < GF_COUNT(embedding_names); i++)
            peft->lists_embedding |=
                gf_json_str(m) && strcmp(gf_json_str(m), embedding_names[i]) == 0;
    if (!pattern || strcmp(pattern, "all-linear") == 0)
        return 0;
    return compile("", pattern, "target_modules", &peft->targets, err);
}

static bool begins(const char *s, const char *word)
{
    return s && strncasecmp(s, word, strlen(word)) == 0;
}

static int read_config(struct gf_peft *peft, struct gf_err *err)
{
    const struct gf_json *config = peft->config;
    bool lycoris = peft->type == GF_PEFT_LOHA || peft->type == GF_PEFT_LOKR;
    const struct gf_json *init = gf_json_get(config, "init_lora_weights");
    const struct gf_json *tokens = gf_json_get(config, "trainable_token_indices");
    double r = 8;
    int e = read_number(config, "r", &r, err);

    peft->alpha = 8;
    if (!e)
        e = read_number(config, lycoris ? "alpha" : "lora_alpha", &peft->alpha, err);
    if (!e && (r < 1 || r > UINT32_MAX || floor(r) < r) && peft->type != GF_PEFT_OTHER)
        e = gf_fail(err, GF_EBAD, "adapter_config.json: r is %g, no rank", r);
    if (e)
        return e;
    peft->r = r >= 1 && r <= UINT32_MAX ? (uint64_t)r : 0;
    peft->rslora = gf_json_bool(gf_json_get(config, "use_rslora"), false);
    peft->dora = gf_json_bool(gf_json_get(config, "use_dora"), false);
    peft->fan_in_fan_out = gf_json_bool(gf_json_get(config, "fan_in_fan_out"), false);
    peft->tokens =
        peft->type == GF_PEFT_TRAINABLE_TOKENS || (tokens && !gf_json_is_null(tokens));
    for (size_t i = 0; i < GF_COUNT(off_the_base); i++)
        peft->changes_base |= begins(gf_json_str(init), off_the_base[i]);
    read_bias(peft);
    if (peft->type != GF_PEFT_OTHER) {
        e = read_patterns(peft, "rank_pattern", &peft->ranks, err);
        if (!e)
            e = read_patterns(peft, "alpha_pattern", &peft->alphas, err);
    }
    if (!e)
        e = read_parameters(peft, err);
    return e ? e : read_targets(peft, err);
}

int gf_peft_new(const struct gf_json *config, struct gf_peft **ret, struct gf_err *err)
{
    GF_AUTO(gf_peft) peft = calloc(1, sizeof(*peft));
    int r;

    if (!peft)
        return gf_nomem(err);
    peft->config = config;
    choose_type(peft);
    refuse_variants(peft);
    r = read_config(peft, err);
    if (!r)
        *ret = gf_take(&peft);
    return r;
}

static void free_patterns(struct gf_peft_patterns *patterns)
{
    for (size_t i = 0; i < patterns->list.n; i++)
        gf_regex_free(patterns->list.at[i].regex);
    gf_vec_free(&patterns->list);
}

void gf_peft_free(struct gf_peft *peft)
{
    if (!peft)
        return;
    free_patterns(&peft->ranks);
    free_patterns(&peft->alphas);
    gf_regex_free(peft->targets);
    gf_vec_free(&peft->parameters);
    free(peft);
}

static uint64_t processor_time(void)
{
    struct timespec now = { 0 };

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Every pattern that matches counts as used, the first decides. */
static double pattern_value(struct gf_peft *peft, struct gf_peft_patterns *patterns,
                            const char *module, double otherwise)
{
    uint64_t start = patterns->list.n ? processor_time() : 0, now;
    bool found = false, slow;

    for (size_t i = 0; i < patterns->list.n && !peft->too_slow; i++) {
        struct gf_peft_pattern *pattern = &patterns->list.at[i];

        if (gf_regex_matches_start(pattern->regex, module)) {
            pattern->used = true;
            if (!found)
                otherwise = pattern->value;
            found = true;
        }
        slow = gf_regex_gave_up(pattern->regex);
        if (i % TRIES_TIMED == TRIES_TIMED - 1 || i + 1 == patterns->list.n) {
            now = processor_time();
            peft->spent += now - start;
            start = now;
            slow |= peft->spent > MAX_SPENT;
        }
        if (slow) {
            peft->too_slow = pattern->text;
            peft->too_slow_field = patterns->field;
        }
    }
    return otherwise;
}

struct gf_peft_rank gf_peft_rank_of(struct gf_peft *peft, const char *module)
{
    double r = pattern_value(peft, &peft->ranks, module, (double)peft->r);
    double alpha = pattern_value(peft, &peft->alphas, module, peft->alpha);
    bool whole = r >= 1 && r <= UINT32_MAX && floor(r) == r;

    return (struct gf_peft_rank){
        .r = whole && !peft->too_slow ? (uint64_t)r : 0,
        .scale = alpha / (peft->rslora ? sqrt(r) : r),
    };
}

const char *gf_peft_too_slow(const struct gf_peft *peft, const char **ret_field)
{
    *ret_field = peft->too_slow_field;
    return peft->too_slow;
}

static const char *first_unused(const struct gf_peft_patterns *patterns)
{
    for (size_t i = 0; i < patterns->list.n; i++)
        if (!patterns->list.at[i].used)
            return patterns->list.at[i].text;
    return NULL;
}

const char *gf_peft_unused(const struct gf_peft *peft, const char **ret_field)
{
    const char *text = first_unused(&peft->ranks);

    *ret_field = "rank_pattern";
    if (text)
        return text;
    *ret_field = "alpha_pattern";
    return first_unused(&peft->alphas);
}

/* Does `name` end in `suffix`, from a component's start on? */
static bool ends_in_component(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);

    return gf_ends_with(name, suffix) && (n == m || name[n - m - 1] == '.');
}

const char *gf_peft_parameter(const struct gf_peft *peft, const char *module, size_t *at)
{
    while (*at < peft->parameters.n) {
        const char *text = peft->parameters.at[(*at)++], *dot = strrchr(text, '.');
        size_t k = dot ? (size_t)(dot - text) : 0, n = strlen(module);

        if (k <= n && memcmp(module + n - k, text, k) == 0 &&
            (k == 0 || k == n || module[n - k - 1] == '.'))
            return dot ? dot + 1 : text;
    }
    return NULL;
}

bool gf_peft_has_parameters(const struct gf_peft *peft)
{
    return peft->parameters.n > 0;
}

const struct gf_json *gf_peft_tokens_of(const struct gf_peft *peft, const char *module)
{
    const struct gf_json *tokens = gf_json_get(peft->config, "trainable_token_indices");

    if (peft->type == GF_PEFT_TRAINABLE_TOKENS)
        return gf_json_get(peft->config, "token_indices");
    if (gf_json_is_array(tokens))
        return tokens;
    for (const struct gf_json *m = gf_json_at(tokens, 0); m; m = gf_json_next(m)) {
        size_t n = strlen(module), k = strlen(gf_json_key(m));

        if (n >= k && strcmp(module + n - k, gf_json_key(m)) == 0)
            return m;
    }
    return NULL;
}

static bool is_head(const char *module)
{
    return ends_in_component(module, "lm_head") || ends_in_component(module, "embed_out");
}

static bool same_tokens(const struct gf_json *a, const struct gf_json *b)
{
    uint64_t x = 0, y = 0;

    a = gf_json_at(a, 0);
    b = gf_json_at(b, 0);
    while (a && b && gf_json_u64(a, &x) && gf_json_u64(b, &y) && x == y) {
        a = gf_json_next(a);
        b = gf_json_next(b);
    }
    return !a && !b;
}

bool gf_peft_owns_tokens(const struct gf_peft *peft, const char *module, bool tied)
{
    const struct gf_json *all = gf_json_get(peft->config, "trainable_token_indices");
    const struct gf_json *own = gf_peft_tokens_of(peft, module);

    if (peft->type == GF_PEFT_TRAINABLE_TOKENS)
        return true;
    if (gf_json_is_array(all))
        return !is_head(module);
    if (!own || !tied || !is_head(module))
        return own;
    for (const struct gf_json *m = gf_json_at(all, 0); m; m = gf_json_next(m))
        if (m != own && same_tokens(m, own))
            return false;
    return true;
}

bool gf_peft_targets_embedding(const struct gf_peft *peft, const char *module)
{
    if (peft->tokens || peft->lists_embedding)
        return !peft->tokens;
    for (size_t i = 0; i < GF_COUNT(embedding_names); i++)
        if (peft->targets && ends_in_component(module, embedding_names[i]) &&
            !gf_regex_gave_up(peft->targets) &&
            gf_regex_matches_start(peft->targets, module))
            return true;
    return false;
}
