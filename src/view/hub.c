/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub.c - which conversions a model has.
 *
 * A model is made of models: each class and each model_type may bring conversions, for the
 * names below it. A class inside another of the same kind brings nothing: the outer one's
 * apply to all of it already (get_model_conversion_mapping).
 */
#include "view/hub.h"

#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "view/hub_int.h"

#define MAX_CONVS 1024
#define MAX_DEPTH 8 /* models in models */

/* A model that has got its conversions: under its class or its model_type. */
struct seen {
    const char *what, *path;
};

/* The walk over the models in a model. */
struct walk {
    struct gf_hub *hub;
    const struct gf_json *config; /* of the whole */
    const char *base;             /* base_model_prefix of the whole */
    struct GF_VEC(struct seen) seen;
};

void gf_hub_free(struct gf_hub *hub)
{
    if (!hub)
        return;
    for (size_t i = 0; i < hub->convs.n; i++)
        gf_hub_conv_done(&hub->convs.at[i]);
    gf_vec_free(&hub->convs);
    gf_arena_done(&hub->arena);
    free(hub);
}

/* ---- which conversions ---- */

static const struct gf_hub_rule *find_rules(const char *name)
{
    static const struct gf_hub_family *const tables[] = { gf_hub_text, gf_hub_vision,
                                                          gf_hub_mixed };

    for (size_t i = 0; name && i < GF_COUNT(tables); i++)
        for (const struct gf_hub_family *f = tables[i]; f->name; f++)
            if (strcmp(f->name, name) == 0)
                return f->rules;
    return NULL;
}

static const struct gf_hub_model *find_class(const char *name)
{
    for (const struct gf_hub_model *m = gf_hub_models; name && m->path; m++)
        if (m->outer && strcmp(m->outer, name) == 0)
            return m;
    return NULL;
}

/* Has a model that this one is inside of got conversions under this name? */
static bool was_seen(const struct walk *walk, const char *what, const char *path)
{
    for (size_t i = 0; what && i < walk->seen.n; i++) {
        const struct seen *seen = &walk->seen.at[i];
        size_t n = strlen(seen->path);

        if (strcmp(seen->what, what) == 0 &&
            (n == 0 || (strncmp(path, seen->path, n) == 0 && path[n] == '.')))
            return true;
    }
    return false;
}

static int see(struct walk *walk, const char *what, const char *path, struct gf_err *err)
{
    struct seen seen = { what, path };

    return gf_vec_push(&walk->seen, seen, MAX_CONVS) ? gf_nomem(err) : 0;
}

static const char *without_prefix(const char *s, const char *prefix)
{
    size_t n = strlen(prefix);

    return strncmp(s, prefix, n) == 0 ? s + n : s;
}

/* Where a conversion of the model at `path` applies: below it, with and without the prefix
 * of the whole model's base. */
static int set_scope(const struct walk *walk, const char *path, struct gf_hub_conv *conv,
                     struct gf_err *err)
{
    const char *scope = without_prefix(without_prefix(path, walk->base), ".");
    struct gf_arena *arena = &walk->hub->arena;

    if (!*path)
        return 0;
    conv->scope = gf_arena_printf(arena, "%s%s", scope, *scope ? "." : "");
    conv->long_scope = gf_arena_printf(arena, "%s%s%s", walk->base, *walk->base ? "." : "",
                                       conv->scope ? conv->scope : "");
    return conv->scope && conv->long_scope ? 0 : gf_nomem(err);
}

/* get_text_config(): the language model's part. */
static const struct gf_json *text_config(const struct gf_json *config)
{
    const struct gf_json *text = gf_json_get(config, "text_config");

    return gf_json_is_object(text) ? text : config;
}

static int add_rules(struct walk *walk, const struct gf_hub_rule *rules, const char *path,
                     struct gf_err *err)
{
    int r = 0;

    for (; rules->op != GF_HUB_END && !r; rules++) {
        struct gf_hub_conv conv;

        if (rules->op == GF_HUB_USE) {
            r = add_rules(walk, find_rules(rules->hub), path, err);
            continue;
        }
        r = gf_hub_conv_init(&conv, rules, &walk->hub->arena, err);
        if (!r)
            r = set_scope(walk, path, &conv, err);
        if (!r && rules->op == GF_HUB_SHARDS &&
            !gf_json_u64(gf_json_get(text_config(walk->config), conv.count_key),
                         &conv.count))
            r = gf_fail(err, GF_EBAD, "config.json has no '%s', which says how '%s' is cut",
                        conv.count_key, rules->hub);
        if (!r && gf_vec_push(&walk->hub->convs, conv, MAX_CONVS))
            r = gf_nomem(err);
        if (r)
            gf_hub_conv_done(&conv);
    }
    return r;
}

static int add_model(struct walk *walk, const char *class, const char *type,
                     const char *path, struct gf_err *err)
{
    const struct gf_hub_rule *rules;
    bool by_class;
    int r;

    if (was_seen(walk, class, path))
        return 0;
    rules = find_rules(class);
    by_class = rules != NULL;
    if (!rules && !was_seen(walk, type, path))
        rules = find_rules(type);
    if (!rules)
        return 0;
    r = add_rules(walk, rules, path, err);
    if (!r && class)
        r = see(walk, class, path, err);
    if (!r && !by_class)
        r = see(walk, type, path, err);
    return r;
}

/* "vlm_config.text_config" below a config; "" is the config itself. */
static const struct gf_json *config_at(const struct gf_json *config, const char *path,
                                       struct gf_arena *arena)
{
    while (*path && config) {
        size_t n = strcspn(path, ".");
        const char *key = gf_arena_strndup(arena, path, n);

        config = key ? gf_json_get(config, key) : NULL;
        path += n + (path[n] == '.');
    }
    return config;
}

/* What AutoModel, or AutoBackbone, makes of a model_type. */
static const char *class_of(const char *type, const char *instead_of)
{
    size_t n = strlen(instead_of);
    bool backbone = n > 8 && strcmp(instead_of + n - 8, "Backbone") == 0;

    for (const struct gf_hub_type *t = gf_hub_types; t->type; t++)
        if (strcmp(t->type, type) == 0)
            return backbone ? t->backbone : t->model;
    return NULL;
}

static int visit(struct walk *walk, const char *class, const char *type,
                 const struct gf_json *config, const char *path, int depth,
                 struct gf_err *err)
{
    const struct gf_hub_model *sub = depth < MAX_DEPTH ? find_class(class) : NULL;
    int r = add_model(walk, class, type, path, err);

    while (!r && sub && (++sub)->path && !sub->outer) {
        const struct gf_json *inner = config_at(config, sub->config, &walk->hub->arena);
        const char *inner_type = gf_json_str(gf_json_get(inner, "model_type"));
        const char *inner_class = sub->class, *inner_path;

        if (!inner_type)
            inner_type = sub->type;
        if (*sub->config && strcmp(inner_type, sub->type) != 0)
            inner_class = class_of(inner_type, sub->class);
        inner_path =
            gf_arena_printf(&walk->hub->arena, "%s%s%s", path, *path ? "." : "", sub->path);
        if (!inner_path)
            return gf_nomem(err);
        r = visit(walk, inner_class, inner_type, inner, inner_path, depth + 1, err);
    }
    return r;
}

static int collect(const struct gf_json *config, bool legacy, struct gf_hub **ret,
                   struct gf_err *err)
{
    const char *class = gf_json_str(gf_json_at(gf_json_get(config, "architectures"), 0));
    const char *type = gf_json_str(gf_json_get(config, "model_type"));
    GF_AUTO(gf_hub) hub = calloc(1, sizeof(*hub));
    struct walk walk = { .hub = hub, .config = config, .base = "" };
    const struct gf_hub_model *root;
    int r = 0;

    if (!hub)
        return gf_nomem(err);
    class = class ? without_prefix(class, "FSDP") : NULL;
    root = find_class(class);
    if (root)
        walk.base = root->path;
    hub->type = gf_arena_strdup(&hub->arena, type ? type : "");
    if (!hub->type)
        return gf_nomem(err);
    if (type)
        r = visit(&walk, class, type, config, "", 0, err);
    if (!r && type && legacy) {
        size_t n = hub->convs.n;

        r = add_rules(&walk, find_rules("legacy"), "", err);
        for (; n < hub->convs.n; n++)
            hub->convs.at[n].on_use = true;
    }
    gf_vec_free(&walk.seen);
    if (!r)
        *ret = gf_take(&hub);
    return r;
}

/* Drops the conversions that are not used; NULL if that leaves none. */
static void keep_used(struct gf_hub **hub)
{
    size_t n = 0;

    for (size_t i = 0; i < (*hub)->convs.n; i++) {
        if ((*hub)->convs.at[i].used)
            (*hub)->convs.at[n++] = (*hub)->convs.at[i];
        else
            gf_hub_conv_done(&(*hub)->convs.at[i]);
    }
    (*hub)->convs.n = n;
    if (n == 0)
        gf_hub_free(gf_take(hub));
}

int gf_hub_new(const struct gf_json *config, struct gf_hub **ret, struct gf_err *err)
{
    GF_AUTO(gf_hub) hub = NULL;
    int r = collect(config, false, &hub, err);

    if (r)
        return r;
    for (size_t i = 0; i < hub->convs.n; i++)
        hub->convs.at[i].used = !hub->convs.at[i].on_use;
    keep_used(&hub);
    *ret = gf_take(&hub);
    return 0;
}

int gf_hub_new_for(const struct gf_json *config, const struct gf_catalog *files,
                   struct gf_hub **ret, struct gf_err *err)
{
    GF_AUTO(gf_hub) hub = NULL;
    GF_AUTO_MEM bool *used = NULL;
    struct gf_arena arena = { 0 };
    int r = collect(config, true, &hub, err);

    if (r)
        return r;
    used = calloc(hub->convs.n + 1, sizeof(*used));
    if (!used)
        return gf_nomem(err);
    for (uint32_t i = 0; i < gf_catalog_len(files) && !r; i++) {
        const char *renamed;
        size_t conv;

        r = gf_hub_load_name(hub, gf_catalog_at(files, i)->name, &arena, &renamed, &conv,
                             used, err);
    }
    gf_arena_done(&arena);
    if (r)
        return r;
    for (size_t i = 0; i < hub->convs.n; i++)
        hub->convs.at[i].used = used[i];
    keep_used(&hub);
    *ret = gf_take(&hub);
    return 0;
}
