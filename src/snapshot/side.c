/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/side.h"

#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "format/steps.h"

/* Sub-directories of a checkpoint that trainers put its Hugging Face files into. */
static const char *const below[] = { "", "huggingface", "hf_config", "hf_model" };

static const char *const tokenizer_names[] = {
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
};

static const char *const other_names[] = {
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "README.md",
    "adapter_config.json",
    "audio_tokenizer_config.json",
    "config.json",
    "feature_extractor_config.json",
    "generation_config.json",
    "image_processor_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
};

/* Written beside DeepSpeed's tags by DeepSpeed itself: tools, not the model's code. */
static const char *const not_code[] = { "zero_to_fp32.py", "zero_to_torch.py" };

static bool in(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, list[i]) == 0)
            return true;
    return false;
}

static bool is_chat_template(const char *name)
{
    static const char front[] = GF_CHAT_TEMPLATES "/";

    return strncmp(name, front, sizeof(front) - 1) == 0 && gf_ends_with(name, ".jinja");
}

static bool is_tokenizer(const char *name)
{
    return is_chat_template(name) || in(name, tokenizer_names, GF_COUNT(tokenizer_names)) ||
           gf_ends_with(name, ".tiktoken");
}

/* What a tokenizer is made of; the rest of its files only adds to it. */
static bool is_vocabulary(const char *name)
{
    static const char *const names[] = {
        "sentencepiece.bpe.model", "spiece.model", "tekken.json", "tokenizer.json",
        "tokenizer.model",         "vocab.json",   "vocab.txt",
    };

    return in(name, names, GF_COUNT(names)) || gf_ends_with(name, ".tiktoken");
}

static bool is_code(const char *name)
{
    return gf_ends_with(name, ".py") && !in(name, not_code, GF_COUNT(not_code));
}

bool gf_side_is_wanted(const char *name)
{
    return is_tokenizer(name) || is_code(name) ||
           in(name, other_names, GF_COUNT(other_names));
}

static bool have(const struct gf_side *side, const char *name)
{
    for (size_t i = 0; i < side->files.n; i++)
        if (strcmp(side->files.at[i].name, name) == 0)
            return true;
    return false;
}

/* Takes over src, also on failure. */
static int add(struct gf_side *side, const char *name, struct gf_source *src,
               struct gf_err *err)
{
    struct gf_side_file file = { strdup(name), (uint32_t)side->sources.n, false };

    if (!file.name || gf_vec_push(&side->sources, src, UINT32_MAX - 1)) {
        free(file.name);
        gf_source_free(src);
        return gf_nomem(err);
    }
    if (gf_vec_push(&side->files, file, UINT32_MAX - 1)) {
        free(file.name);
        return gf_nomem(err);
    }
    return 0;
}

/* The file `name` of directory `path`. */
static int add_path(struct gf_side *side, struct gf_dir *dir, const char *path,
                    const char *name, struct gf_err *err)
{
    GF_AUTO_MEM char *full = NULL;
    struct gf_source *src;
    int r;

    if (asprintf(&full, "%s%s%s", path, *path ? "/" : "", name) < 0) {
        full = NULL;
        return gf_nomem(err);
    }
    r = gf_dir_open(dir, full, &src, err);
    return r ? r : add(side, name, src, err);
}

static bool is_there(struct gf_dir *dir, const char *path, const char *name)
{
    GF_AUTO_MEM char *full = NULL;
    struct gf_dir_entry entry;

    if (asprintf(&full, "%s%s%s", path, *path ? "/" : "", name) < 0)
        full = NULL;
    return full && !gf_dir_stat(dir, full, &entry) && !entry.is_dir;
}

/* Files of one tokenizer belong together: behind the first directory that has one no other
 * directory's are taken. */
static bool takes(const struct gf_side *side, bool (*wanted)(const char *name),
                  const char *name)
{
    return wanted(name) && !(side->tokenizer && is_tokenizer(name)) && !have(side, name);
}

static void close_tokenizer(struct gf_side *side)
{
    for (size_t i = 0; i < side->files.n; i++)
        side->tokenizer |= is_vocabulary(side->files.at[i].name);
}

/* The files of one directory by their names: it need not be listed, and a run's may be long. */
static int collect_known(struct gf_side *side, struct gf_dir *dir, const char *path,
                         bool (*wanted)(const char *name), struct gf_err *err)
{
    size_t n = GF_COUNT(tokenizer_names);
    int r = 0;

    for (size_t i = 0; i < n + GF_COUNT(other_names) && !r; i++) {
        const char *name = i < n ? tokenizer_names[i] : other_names[i - n];

        if (takes(side, wanted, name) && is_there(dir, path, name))
            r = add_path(side, dir, path, name, err);
    }
    close_tokenizer(side);
    return r;
}

/* The chat templates in a directory below `path`. */
static int collect_templates(struct gf_side *side, struct gf_dir *dir, const char *path,
                             bool (*wanted)(const char *name), struct gf_err *err)
{
    struct gf_dir_listing listing = { 0 };
    GF_AUTO_MEM char *folder = NULL;
    int r = 0;

    if (asprintf(&folder, "%s%s" GF_CHAT_TEMPLATES, path, *path ? "/" : "") < 0) {
        folder = NULL;
        return gf_nomem(err);
    }
    if (gf_dir_list(dir, folder, &listing, NULL))
        return 0;
    for (size_t i = 0; i < listing.n && !r; i++) {
        char *name;

        if (listing.at[i].is_dir)
            continue;
        if (asprintf(&name, GF_CHAT_TEMPLATES "/%s", listing.at[i].name) < 0) {
            r = gf_nomem(err);
            break;
        }
        if (takes(side, wanted, name))
            r = add_path(side, dir, path, name, err);
        free(name);
    }
    gf_dir_listing_free(&listing);
    return r;
}

/* The wanted files of one directory that are not there yet. Names of any kind (code) count
 * where there is a config too, else they are a project's, not a model's. A directory that is
 * missing or cannot be read has none; a file that is listed and cannot be opened is an error. */
static int collect(struct gf_side *side, struct gf_dir *dir, const char *path,
                   bool (*wanted)(const char *name), struct gf_err *err)
{
    bool model = is_there(dir, path, "config.json");
    struct gf_dir_listing listing = { 0 };
    int r = 0;

    if (!model && !is_there(dir, path, "tokenizer_config.json"))
        return collect_known(side, dir, path, wanted, err);
    if (gf_dir_list(dir, path, &listing, NULL))
        return 0;
    for (size_t i = 0; i < listing.n && !r; i++) {
        const char *name = listing.at[i].name;

        if (listing.at[i].is_dir && strcmp(name, GF_CHAT_TEMPLATES) == 0)
            r = collect_templates(side, dir, path, wanted, err);
        if (!listing.at[i].is_dir && takes(side, wanted, name) && (model || !is_code(name)))
            r = add_path(side, dir, path, name, err);
    }
    close_tokenizer(side);
    gf_dir_listing_free(&listing);
    return r;
}

/* A checkpoint's own directory and the sub-directories that may hold its files. */
static int collect_checkpoint(struct gf_side *side, struct gf_dir *dir, const char *base,
                              bool (*wanted)(const char *name), struct gf_err *err)
{
    for (size_t i = 0; i < GF_COUNT(below); i++) {
        GF_AUTO_MEM char *path = NULL;
        struct gf_dir_entry entry;
        int r;

        if (asprintf(&path, "%s%s%s", base, *base && *below[i] ? "/" : "", below[i]) < 0) {
            path = NULL;
            return gf_nomem(err);
        }
        if (*below[i] && gf_dir_stat(dir, path, &entry))
            continue;
        r = collect(side, dir, path, wanted, err);
        if (r)
            return r;
    }
    return 0;
}

/* An option's directory: it must be there. */
static int collect_option(struct gf_side *side, const char *key, const char *path,
                          const struct gf_options *opt, bool (*wanted)(const char *name),
                          struct gf_err *err)
{
    GF_AUTO(gf_dir) dir = NULL;
    size_t before = side->files.n;
    int r = gf_dir_local(path, opt->follow_links, opt->limits, &dir, err);

    if (r)
        return gf_wrap(err, "option '%s'", key);
    r = collect_checkpoint(side, dir, "", wanted, err);
    /* Weights alone are a template or a base; a directory with nothing is a slip. */
    if (!r && side->files.n == before && strcmp(key, "base") != 0 &&
        !gf_format_of_layer(dir, NULL, GF_LAYER_SAFETENSORS) &&
        !gf_format_of_layer(dir, NULL, GF_LAYER_BIN))
        r = gf_fail(err, EINVAL, "option '%s': nothing of a model in '%s'", key, path);
    return r;
}

static int add_generation_config(struct gf_side *side, const struct gf_options *opt,
                                 struct gf_err *err)
{
    const char *value = opt->generation_config, *slash = strrchr(value, '/');
    GF_AUTO(gf_json) json = NULL;
    GF_AUTO(gf_dir) dir = NULL;
    GF_AUTO_MEM char *text = NULL;
    GF_AUTO_MEM char *parent = NULL;
    struct gf_source *src;
    size_t len;
    int r = 0;

    if (value[strspn(value, " \t\r\n")] == '{') {
        text = strdup(value);
        len = strlen(value);
    } else {
        parent = slash ? strndup(value, GF_MAX((size_t)(slash - value), 1)) : strdup(".");
        if (parent)
            r = gf_dir_local(parent, true, opt->limits, &dir, err);
        if (parent && !r)
            r = gf_dir_read(dir, slash ? slash + 1 : value, opt->limits->json_bytes, &text,
                            &len, err);
        if (r)
            return gf_wrap(err, "option 'generation_config'");
    }
    if (!text)
        return gf_nomem(err);
    if (gf_json_parse("generation_config", text, len, opt->limits, &json, err))
        r = gf_fail(err, EINVAL, "option 'generation_config': not JSON: '%.60s'", text);
    else if (!gf_json_is_object(json))
        r = gf_fail(err, EINVAL, "option 'generation_config': not a JSON object");
    if (!r)
        r = gf_source_mem("generation_config.json", text, len, &src, err);
    return r ? r : add(side, "generation_config.json", src, err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct gf_side_file *)a)->name,
                  ((const struct gf_side_file *)b)->name);
}

static int parse_source(struct gf_source *src, const char *name,
                        const struct gf_limits *limits, char **ret_text, size_t *ret_len,
                        struct gf_json **ret, struct gf_err *err)
{
    GF_AUTO_MEM char *text = NULL;
    GF_AUTO(gf_json) json = NULL;
    int r;

    if (src->size > limits->json_bytes)
        return gf_fail(err, GF_EBAD, "'%s': too large for a %s", src->name, name);
    text = malloc(src->size + 1);
    if (!text)
        return gf_nomem(err);
    r = gf_source_read_err(src, text, src->size, 0, err);
    text[src->size] = '\0';
    if (!r)
        r = gf_json_parse(src->name, text, src->size, limits, &json, err);
    if (!r && !gf_json_is_object(json))
        r = gf_fail(err, GF_EBAD, "'%s': not a JSON object", src->name);
    if (r)
        return r;
    *ret_len = src->size;
    *ret_text = gf_take(&text);
    *ret = gf_take(&json);
    return 0;
}

/* The text of a file, parsed, if there is one of that name. */
static int load_json(const struct gf_side *side, const char *name,
                     const struct gf_limits *limits, char **ret_text, size_t *ret_len,
                     struct gf_json **ret, struct gf_err *err)
{
    for (size_t i = 0; i < side->files.n; i++)
        if (strcmp(side->files.at[i].name, name) == 0)
            return parse_source(side->sources.at[side->files.at[i].source], name, limits,
                                ret_text, ret_len, ret, err);
    return 0;
}

/* Is a directory of this name part of a run's output directory: a step, or what holds steps? */
static bool is_in_run(const char *name)
{
    uint64_t ignored;

    return gf_step_number(name, &ignored) || strcmp(name, "checkpoints") == 0 ||
           strcmp(name, "checkpoint") == 0;
}

/* SOURCE may be a part of something that has the files: a tag (its layout's root has them), a
 * step (its run's output directory), or a tag in a step. */
static int collect_above(struct gf_side *side, struct gf_dir *dir,
                         const struct gf_found *found, const struct gf_options *opt,
                         struct gf_err *err)
{
    GF_AUTO_MEM char *path = realpath(dir->name, NULL);
    bool up = found->parent_side;
    int r = 0;

    while (path && !r) {
        GF_AUTO(gf_dir) above = NULL;
        char *slash = strrchr(path, '/');

        if (!slash || slash == path || (!up && !is_in_run(slash + 1)))
            break;
        *slash = '\0';
        up = false;
        /* One that cannot be opened has no files for us: SOURCE was given, not it. */
        if (!gf_dir_local(path, opt->follow_links, opt->limits, &above, NULL))
            r = collect_checkpoint(side, above, "", gf_side_is_wanted, err);
    }
    return r;
}

/* What a base model has: no adapter. */
static bool is_models(const char *name)
{
    return strcmp(name, "adapter_config.json") != 0 && gf_side_is_wanted(name);
}

static void mark_base(struct gf_side *side, size_t first)
{
    for (size_t i = first; i < side->files.n; i++)
        side->files.at[i].base = true;
}

static int search(struct gf_dir *dir, const char *layout, const struct gf_found *found,
                  const struct gf_options *opt, struct gf_side *side, struct gf_err *err)
{
    GF_AUTO_MEM char *base = NULL;
    int r = 0;

    if (asprintf(&base, "%s%s%s", layout, *layout && *found->base ? "/" : "", found->base) <
        0) {
        base = NULL;
        return gf_nomem(err);
    }
    if (opt->generation_config)
        r = add_generation_config(side, opt, err);
    if (!r && opt->tokenizer)
        r = collect_option(side, "tokenizer", opt->tokenizer, opt, is_tokenizer, err);
    if (!r && opt->config_from)
        r = collect_option(side, "config_from", opt->config_from, opt, gf_side_is_wanted,
                           err);
    while (!r) {
        char *slash = strrchr(base, '/');

        r = collect_checkpoint(side, dir, base, gf_side_is_wanted, err);
        if (!*base)
            break;
        *(slash ? slash : base) = '\0';
    }
    if (!r && !*layout)
        r = collect_above(side, dir, found, opt, err);
    if (!r && opt->base) {
        size_t before = side->files.n;

        r = collect_option(side, "base", opt->base, opt, is_models, err);
        mark_base(side, before);
    }
    return r;
}

int gf_side_find(struct gf_dir *dir, const char *base, const struct gf_found *found,
                 const struct gf_options *opt, struct gf_side *ret, struct gf_err *err)
{
    struct gf_side side = { 0 };
    int r = search(dir, base, found, opt, &side, err);

    if (!r) {
        if (side.files.n)
            qsort(side.files.at, side.files.n, sizeof(*side.files.at), by_name);
        r = load_json(&side, "config.json", opt->limits, &side.config_text,
                      &side.config_len, &side.config, err);
    }
    if (!r)
        r = load_json(&side, "adapter_config.json", opt->limits, &side.adapter_text,
                      &side.adapter_len, &side.adapter_config, err);
    if (r) {
        gf_side_done(&side);
        return r;
    }
    *ret = side;
    return 0;
}

int gf_side_supply(struct gf_side *side, struct gf_dir *dir, const struct gf_options *opt,
                   struct gf_err *err)
{
    size_t before = side->files.n;
    int r = collect_checkpoint(side, dir, "", is_models, err);

    mark_base(side, before);
    if (side->files.n)
        qsort(side->files.at, side->files.n, sizeof(*side->files.at), by_name);
    if (!r && !side->config)
        r = load_json(side, "config.json", opt->limits, &side->config_text,
                      &side->config_len, &side->config, err);
    return r;
}

const struct gf_side_adapter *gf_side_adapter_find(const struct gf_side *side,
                                                   const char *name)
{
    for (size_t i = 0; i < side->adapters.n; i++)
        if (strcmp(side->adapters.at[i].name, name) == 0)
            return &side->adapters.at[i];
    return NULL;
}

static void adapter_done(struct gf_side_adapter *adapter)
{
    free(adapter->name);
    free(adapter->text);
    gf_json_free(adapter->config);
}

static int add_adapter(struct gf_side *side, struct gf_dir *dir, const char *path,
                       const char *name, const struct gf_options *opt, struct gf_err *err)
{
    struct gf_side_adapter adapter = { .source = (uint32_t)side->sources.n };
    struct gf_source *src;
    int r = gf_dir_open(dir, path, &src, err);

    if (r)
        return r;
    if (gf_vec_push(&side->sources, src, UINT32_MAX - 1)) {
        gf_source_free(src);
        return gf_nomem(err);
    }
    r = parse_source(src, "adapter_config.json", opt->limits, &adapter.text, &adapter.len,
                     &adapter.config, err);
    if (!r && !(adapter.name = strdup(name)))
        r = gf_nomem(err);
    if (!r && gf_vec_push(&side->adapters, adapter, UINT32_MAX - 1))
        r = gf_nomem(err);
    if (r)
        adapter_done(&adapter);
    return r;
}

int gf_side_adapter(struct gf_side *side, struct gf_dir *dir, const char *base,
                    const struct gf_found *found, const char *name,
                    const struct gf_options *opt, struct gf_err *err)
{
    const char *places[] = { found->base, "" };

    for (size_t i = 0; i < GF_COUNT(places); i++) {
        GF_AUTO_MEM char *path = NULL;
        struct gf_dir_entry entry;

        if (asprintf(&path, "%s%s%s%s%s/adapter_config.json", base, *base ? "/" : "",
                     places[i], *places[i] ? "/" : "", name) < 0) {
            path = NULL;
            return gf_nomem(err);
        }
        if (gf_path_is_inside(path) && !gf_dir_stat(dir, path, &entry) && !entry.is_dir)
            return add_adapter(side, dir, path, name, opt, err);
    }
    return 0;
}

void gf_side_done(struct gf_side *side)
{
    for (size_t i = 0; i < side->adapters.n; i++)
        adapter_done(&side->adapters.at[i]);
    gf_vec_free(&side->adapters);
    for (size_t i = 0; i < side->files.n; i++)
        free(side->files.at[i].name);
    for (size_t i = 0; i < side->sources.n; i++)
        gf_source_free(side->sources.at[i]);
    gf_vec_free(&side->files);
    gf_vec_free(&side->sources);
    gf_json_free(side->config);
    free(side->config_text);
    gf_json_free(side->adapter_config);
    free(side->adapter_text);
    *side = (struct gf_side){ 0 };
}
