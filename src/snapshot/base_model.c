/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/base_model.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"

#define MAX_REPO 96
#define MAX_REF 512

void gf_base_model_done(struct gf_base_model *base)
{
    gf_dir_free(base->dir);
    *base = (struct gf_base_model){ 0 };
}

/* huggingface_hub's validate_repo_id: words of letters, digits, '-', '_' and '.', no '--' or
 * '..' in them, neither '-' nor '.' at an end; one '/' at most. */
bool gf_base_model_is_repo(const char *name)
{
    size_t n = strlen(name), slashes = 0;

    if (n == 0 || n > MAX_REPO || strstr(name, "--") || strstr(name, ".."))
        return false;
    for (size_t i = 0; i < n; i++) {
        bool edge = i == 0 || i + 1 == n || name[i - 1] == '/' || name[i + 1] == '/';

        if (name[i] == '/' && !edge && slashes++ == 0)
            continue;
        if (!isascii(name[i]) || (!isalnum((unsigned char)name[i]) &&
                                  (!strchr("-_.", name[i]) || (edge && name[i] != '_'))))
            return false;
    }
    return true;
}

static bool is_commit(const char *s)
{
    return strlen(s) == 40 && strspn(s, "0123456789abcdef") == 40;
}

/* Where the cache is; NULL: nobody says. To be freed. */
static char *cache_path(void)
{
    static const struct {
        const char *variable, *below;
    } places[] = { { "HF_HUB_CACHE", "" },
                   { "HUGGINGFACE_HUB_CACHE", "" },
                   { "HF_HOME", "/hub" },
                   { "XDG_CACHE_HOME", "/huggingface/hub" },
                   { "HOME", "/.cache/huggingface/hub" } };

    for (size_t i = 0; i < GF_COUNT(places); i++) {
        const char *value = getenv(places[i].variable);
        char *path;

        if (value && *value)
            return asprintf(&path, "%s%s", value, places[i].below) < 0 ? NULL : path;
    }
    return NULL;
}

/* The snapshot that the revision names, "snapshots/HASH" into ret; false: not in this cache. */
static bool find_snapshot(struct gf_dir *repo, const char *revision, char ret[static 64])
{
    struct gf_dir_entry entry;
    GF_AUTO_MEM char *ref = NULL;
    GF_AUTO_MEM char *text = NULL;
    char hash[41] = "";
    size_t len;

    if (is_commit(revision)) {
        memcpy(hash, revision, sizeof(hash));
    } else {
        if (strlen(revision) > MAX_REF || asprintf(&ref, "refs/%s", revision) < 0) {
            ref = NULL;
            return false;
        }
        if (!gf_path_is_inside(ref) || gf_dir_read(repo, ref, 256, &text, &len, NULL))
            return false;
        text[strcspn(text, "\r\n")] = '\0';
        if (!is_commit(text))
            return false;
        memcpy(hash, text, sizeof(hash));
    }
    snprintf(ret, 64, "snapshots/%s", hash);
    return !gf_dir_stat(repo, ret, &entry) && entry.is_dir;
}

/* *ret stays NULL if the cache does not have it. */
static int open_cached(const char *name, const char *revision, const struct gf_options *opt,
                       struct gf_dir **ret, struct gf_err *err)
{
    GF_AUTO_MEM char *cache = cache_path();
    GF_AUTO_MEM char *path = NULL;
    GF_AUTO(gf_dir) repo = NULL;
    const char *slash = strchr(name, '/');
    int org = slash ? (int)(slash - name) : 0;
    char snapshot[64];

    if (!cache)
        return 0;
    if (asprintf(&path, "%s/models--%.*s%s%s", cache, org, name, slash ? "--" : "",
                 slash ? slash + 1 : name) < 0) {
        path = NULL;
        return gf_nomem(err);
    }
    if (gf_dir_local(path, false, opt->limits, &repo, NULL) ||
        !find_snapshot(repo, revision, snapshot))
        return 0;
    free(path);
    if (asprintf(&path, "%s/%s", repo->name, snapshot) < 0) {
        path = NULL;
        return gf_nomem(err);
    }
    /* Opened by itself: its links into the blobs/ of this repository are followed then. */
    return gf_dir_local(path, false, opt->limits, ret, err);
}

/* A directory of SOURCE: whatever leads out of that leads out of this. */
static int open_below(struct gf_dir *source, const char *path, struct gf_dir **ret,
                      struct gf_err *err)
{
    struct gf_dir_entry entry;

    while (strncmp(path, "./", 2) == 0)
        path += 2;
    if (!*path || !gf_path_is_inside(path) || gf_dir_stat(source, path, &entry) ||
        !entry.is_dir)
        return 0;
    return gf_dir_sub(source, path, ret, err);
}

static int find_named(struct gf_dir *source, const struct gf_json *config,
                      const struct gf_options *opt, struct gf_base_model *ret,
                      struct gf_err *err)
{
    const char *name = gf_json_str(gf_json_get(config, "base_model_name_or_path"));
    const char *revision = gf_json_str(gf_json_get(config, "revision"));
    int r = 0;

    if (!name || !*name) {
        snprintf(ret->why, sizeof(ret->why), "base=DIR supplies it");
        return 0;
    }
    if (*name == '/') {
        snprintf(
            ret->why, sizeof(ret->why),
            "adapter_config.json names a directory outside SOURCE; base=%.120s supplies it",
            name);
        return 0;
    }
    if (source)
        r = open_below(source, name, &ret->dir, err);
    if (!r && !ret->dir && gf_base_model_is_repo(name))
        r = open_cached(name, revision && *revision ? revision : "main", opt, &ret->dir,
                        err);
    if (!r && !ret->dir)
        snprintf(ret->why, sizeof(ret->why),
                 "'%.100s' is neither below SOURCE nor in the Hugging Face cache; base=DIR "
                 "supplies it",
                 name);
    return r;
}

/* A base without a config is one still. */
static void read_vocab(struct gf_base_model *base, const struct gf_limits *limits)
{
    GF_AUTO_MEM char *text = NULL;
    GF_AUTO(gf_json) config = NULL;
    size_t len;

    if (gf_dir_read(base->dir, "config.json", limits->json_bytes, &text, &len, NULL) ||
        gf_json_parse("config.json", text, len, limits, &config, NULL))
        return;
    if (!gf_json_u64(gf_json_get(config, "vocab_size"), &base->vocab))
        gf_json_u64(gf_json_get(gf_json_get(config, "text_config"), "vocab_size"),
                    &base->vocab);
}

int gf_base_model_find(struct gf_dir *source, const struct gf_json *adapter_config,
                       const struct gf_options *opt, struct gf_base_model *ret,
                       struct gf_err *err)
{
    struct gf_base_model base = { 0 };
    int r = opt->base
                ? gf_dir_local(opt->base, opt->follow_links, opt->limits, &base.dir, err)
                : find_named(source, adapter_config, opt, &base, err);

    if (r) {
        gf_base_model_done(&base);
        return opt->base ? gf_wrap(err, "option 'base'") : r;
    }
    if (base.dir)
        read_vocab(&base, opt->limits);
    *ret = base;
    return 0;
}
