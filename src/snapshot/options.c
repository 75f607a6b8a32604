/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/math.h"

const struct gf_option_info gf_option_table[] = {
    { "view", "NAME", "serve exactly this view, without sub-directories" },
    { "views", "LIST", "view sub-directories that are listed; 'none' lists none" },
    { "prefix", "NAME",
      "a part of the model by its (nested) name: becomes the default view" },
    { "dtype", "TYPE",
      "auto (as in the live model), stored, float32, bfloat16 or float16" },
    { "names", "hub|module", "names as on the hub (default), or as in the module" },
    { "max_shard_size", "SIZE",
      "split the weights into files of at most this size (50GB)" },
    { "base", "DIR",
      "base model: supplies tensors that the checkpoint leaves out, and files" },
    { "base_name", "NAME", "base_model_name_or_path of the adapter_config.json to serve" },
    { "bin", NULL, "pytorch_model.bin in place of safetensors" },
    { "format", "NAME", "safetensors or bin" },
    { "config_from", "DIR", "where config.json and other side files come from" },
    { "tokenizer", "DIR", "where tokenizer files come from" },
    { "generation_config", "FILE|JSON", "the generation_config.json to serve" },
    { "tag", "TAG", "which tag or step of SOURCE" },
    { "step", "TAG", "the same as tag" },
    { "source_format", "NAME", "do not guess what SOURCE is" },
    { "allow_incomplete", NULL,
      "serve what is there in spite of missing or doubtful parts" },
    { "follow_links", NULL, "follow symbolic links that lead out of SOURCE" },
    { "allow_other", NULL, "let other users read the mount" },
    { "uid", "N", "owner of the mounted files" },
    { "gid", "N", "group of the mounted files" },
    { "mode", "OCTAL", "permissions of the mounted files (may widen those of SOURCE)" },
    { "threads", "N", "threads at most" },
    { "cache", "SIZE", "memory for adapters that are merged on read (1GiB)" },
    { "readahead", "SIZE", "kernel read-ahead of the mount (2MiB)" },
    { "timeout", "SECONDS", "how long a start may take (30)" },
    { "direct_io", NULL, "bypass the page cache: for one-shot copies" },
    { "log", "FILE", "append messages to FILE" },
    { NULL, NULL, NULL },
};

/* What mount(8), mount.fuse and fstab add, and what means nothing to a read-only mount. */
static const char *const ignored[] = {
    "rw",         "ro",          "defaults",   "auto",
    "noauto",     "user",        "nouser",     "users",
    "owner",      "group",       "nofail",     "_netdev",
    "suid",       "nosuid",      "dev",        "nodev",
    "exec",       "noexec",      "async",      "sync",
    "atime",      "noatime",     "nodiratime", "relatime",
    "norelatime", "strictatime", "diratime",   "default_permissions",
};

/* libfuse's own session options (fuse_lowlevel.c, mount.c): handed through, save for subtype:
 * status and umount know a mount by it. */
static const char *const fuse_keys[] = {
    "debug",      "allow_root", "auto_unmount",     "fsname",  "max_read",
    "blkdev",     "blksize",    "fscontext",        "context", "rootcontext",
    "defcontext", "io_uring",   "io_uring_q_depth",
};

static bool listed(const char *key, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, list[i]) == 0)
            return true;
    return false;
}

void gf_options_init(struct gf_options *opt)
{
    *opt = (struct gf_options){
        .policy = GF_DTYPE_AUTO,
        .max_shard_size = 50000000000u,
        .cache = (uint64_t)1 << 30,
        .timeout = 30,
        .limits = &gf_limits_default,
    };
}

void gf_options_done(struct gf_options *opt)
{
    char **owned[] = { &opt->view,        &opt->prefix,        &opt->views,
                       &opt->tag,         &opt->source_format, &opt->base,
                       &opt->config_from, &opt->tokenizer,     &opt->generation_config,
                       &opt->log,         &opt->base_name };

    for (size_t i = 0; i < GF_COUNT(owned); i++)
        free(*owned[i]);
    *opt = (struct gf_options){ 0 };
}

/* "--config-from" and "config_from" are one key. */
static bool same_key(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (*a != *b && !(*a == '-' && *b == '_'))
            return false;
    return *a == *b;
}

const struct gf_option_info *gf_option_find(const char *key)
{
    for (const struct gf_option_info *info = gf_option_table; info->key; info++)
        if (same_key(key, info->key))
            return info;
    return NULL;
}

int gf_parse_size(const char *text, uint64_t *ret)
{
    static const struct {
        const char *suffix;
        uint64_t unit;
    } units[] = { { "", 1 },
                  { "B", 1 },
                  { "KB", 1000 },
                  { "MB", 1000000 },
                  { "GB", 1000000000 },
                  { "TB", 1000000000000 },
                  { "K", 1000 },
                  { "M", 1000000 },
                  { "G", 1000000000 },
                  { "T", 1000000000000 },
                  { "KIB", 1 << 10 },
                  { "MIB", 1 << 20 },
                  { "GIB", 1 << 30 },
                  { "TIB", (uint64_t)1 << 40 } };
    char suffix[4] = "";
    char *end;
    double n;

    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    errno = 0;
    n = strtod(text, &end);
    if (errno || strlen(end) >= sizeof(suffix))
        return -EINVAL;
    for (size_t i = 0; end[i]; i++)
        suffix[i] = (char)toupper((unsigned char)end[i]);
    for (size_t i = 0; i < GF_COUNT(units); i++)
        if (strcmp(suffix, units[i].suffix) == 0) {
            n *= (double)units[i].unit;
            if (!(n >= 1 && n < 9e18))
                return -EINVAL;
            *ret = (uint64_t)n;
            return 0;
        }
    return -EINVAL;
}

static int bad_value(const char *key, const char *value, const char *want,
                     struct gf_err *err)
{
    return gf_fail(err, EINVAL, "option '%s': '%s' is not %s", key, value, want);
}

static int set_string(char **field, const char *value, struct gf_err *err)
{
    char *copy = strdup(value);

    if (!copy)
        return gf_nomem(err);
    free(*field);
    *field = copy;
    return 0;
}

/* From the root of the filesystem: a mount in the background leaves the working directory. */
static int set_path(char **field, const char *value, struct gf_err *err)
{
    GF_AUTO_MEM char *here = NULL, *path = NULL;

    if (*value == '/')
        return set_string(field, value, err);
    here = getcwd(NULL, 0);
    if (!here)
        return gf_fail(err, errno, "working directory: %s", strerror(errno));
    if (asprintf(&path, "%s/%s", here, value) < 0) {
        path = NULL;
        return gf_nomem(err);
    }
    return set_string(field, path, err);
}

static int set_number(const char *key, const char *value, int base, uint64_t max,
                      uint32_t *ret, struct gf_err *err)
{
    unsigned long n;
    char *end;

    errno = 0;
    n = strtoul(value, &end, base);
    if (errno || !isdigit((unsigned char)*value) || *end || n > max)
        return bad_value(key, value, base == 8 ? "an octal number up to 777" : "a number",
                         err);
    *ret = (uint32_t)n;
    return 0;
}

static int set_size(const char *key, const char *value, uint64_t *ret, struct gf_err *err)
{
    return gf_parse_size(value, ret)
               ? bad_value(key, value, "a size such as 5GB, 500MB or 2MiB", err)
               : 0;
}

static int set_names(struct gf_options *opt, const char *value, struct gf_err *err)
{
    bool hub = strcmp(value, "hub") == 0;

    if (!hub && strcmp(value, "module") != 0)
        return bad_value("names", value, "hub or module", err);
    opt->names = hub ? GF_NAMES_HUB : GF_NAMES_MODULE;
    return 0;
}

static int set_dtype(struct gf_options *opt, const char *value, struct gf_err *err)
{
    static const struct {
        const char *name;
        enum gf_dtype_policy policy;
        enum gf_dtype dtype;
    } names[] = {
        { "auto", GF_DTYPE_AUTO, GF_F32 },       { "stored", GF_DTYPE_STORED, GF_F32 },
        { "float32", GF_DTYPE_FIXED, GF_F32 },   { "fp32", GF_DTYPE_FIXED, GF_F32 },
        { "bfloat16", GF_DTYPE_FIXED, GF_BF16 }, { "bf16", GF_DTYPE_FIXED, GF_BF16 },
        { "float16", GF_DTYPE_FIXED, GF_F16 },   { "fp16", GF_DTYPE_FIXED, GF_F16 },
    };

    for (size_t i = 0; i < GF_COUNT(names); i++)
        if (strcmp(value, names[i].name) == 0) {
            opt->policy = names[i].policy;
            opt->dtype = names[i].dtype;
            return 0;
        }
    return bad_value("dtype", value, "auto, stored, float32, bfloat16 or float16", err);
}

static int set_value(struct gf_options *opt, const char *key, const char *value,
                     struct gf_err *err)
{
    const struct {
        const char *key;
        char **field;
    } strings[] = {
        { "view", &opt->view },
        { "prefix", &opt->prefix },
        { "views", &opt->views },
        { "tag", &opt->tag },
        { "step", &opt->tag },
        { "source_format", &opt->source_format },
        { "base_name", &opt->base_name },
    };
    const struct {
        const char *key;
        char **field;
    } paths[] = {
        { "base", &opt->base },
        { "config_from", &opt->config_from },
        { "tokenizer", &opt->tokenizer },
        { "log", &opt->log },
    };
    int r;

    if (!*value)
        return gf_fail(err, EINVAL, "option '%s' needs a value", key);
    for (size_t i = 0; i < GF_COUNT(strings); i++)
        if (strcmp(key, strings[i].key) == 0)
            return set_string(strings[i].field, value, err);
    for (size_t i = 0; i < GF_COUNT(paths); i++)
        if (strcmp(key, paths[i].key) == 0)
            return set_path(paths[i].field, value, err);
    if (strcmp(key, "generation_config") == 0)
        return value[strspn(value, " \t\r\n")] == '{'
                   ? set_string(&opt->generation_config, value, err)
                   : set_path(&opt->generation_config, value, err);
    if (strcmp(key, "dtype") == 0)
        return set_dtype(opt, value, err);
    if (strcmp(key, "names") == 0)
        return set_names(opt, value, err);
    if (strcmp(key, "format") == 0) {
        opt->bin = strcmp(value, "bin") == 0;
        return opt->bin || strcmp(value, "safetensors") == 0
                   ? 0
                   : bad_value(key, value, "safetensors or bin", err);
    }
    if (strcmp(key, "max_shard_size") == 0)
        return set_size(key, value, &opt->max_shard_size, err);
    if (strcmp(key, "cache") == 0)
        return set_size(key, value, &opt->cache, err);
    if (strcmp(key, "readahead") == 0)
        return set_size(key, value, &opt->readahead, err);
    if (strcmp(key, "threads") == 0)
        return set_number(key, value, 10, 256, &opt->threads, err);
    if (strcmp(key, "timeout") == 0)
        return set_number(key, value, 10, 86400, &opt->timeout, err);
    if (strcmp(key, "uid") == 0) {
        r = set_number(key, value, 10, UINT32_MAX - 1, &opt->uid, err);
        opt->has_uid = !r;
    } else if (strcmp(key, "gid") == 0) {
        r = set_number(key, value, 10, UINT32_MAX - 1, &opt->gid, err);
        opt->has_gid = !r;
    } else {
        r = set_number(key, value, 8, 0777, &opt->mode, err);
        opt->has_mode = !r;
    }
    return r;
}

int gf_options_set(struct gf_options *opt, const char *key, const char *value,
                   struct gf_err *err)
{
    const struct gf_option_info *info = gf_option_find(key);
    const struct {
        const char *key;
        bool *field;
    } switches[] = { { "allow_incomplete", &opt->allow_incomplete },
                     { "follow_links", &opt->follow_links },
                     { "bin", &opt->bin },
                     { "allow_other", &opt->allow_other },
                     { "direct_io", &opt->direct_io } };

    if (!info)
        return gf_fail(err, EINVAL, "unknown option '%s'", key);
    if (info->arg)
        return set_value(opt, info->key, value ? value : "", err);
    if (value)
        return gf_fail(err, EINVAL, "option '%s' takes no value, found '%s'", info->key,
                       value);
    for (size_t i = 0; i < GF_COUNT(switches); i++)
        if (strcmp(info->key, switches[i].key) == 0)
            *switches[i].field = true;
    return 0;
}

static int pass_on(char **fuse_opts, const char *item, struct gf_err *err)
{
    char *longer;

    if (!fuse_opts)
        return 0;
    if (asprintf(&longer, "%s%s%s", *fuse_opts ? *fuse_opts : "", *fuse_opts ? "," : "",
                 item) < 0)
        return gf_nomem(err);
    free(*fuse_opts);
    *fuse_opts = longer;
    return 0;
}

static int set_item(struct gf_options *opt, char *item, char **fuse_opts,
                    struct gf_err *err)
{
    char *equals = strchr(item, '=');
    int r;

    if (!*item || strncmp(item, "x-", 2) == 0)
        return 0;
    if (equals)
        *equals = '\0';
    if (listed(item, ignored, GF_COUNT(ignored)))
        return 0;
    if (!gf_option_find(item) && listed(item, fuse_keys, GF_COUNT(fuse_keys))) {
        if (equals)
            *equals = '=';
        return pass_on(fuse_opts, item, err);
    }
    r = gf_options_set(opt, item, equals ? equals + 1 : NULL, err);
    return r;
}

int gf_options_set_list(struct gf_options *opt, const char *list, char **fuse_opts,
                        struct gf_err *err)
{
    GF_AUTO_MEM char *item = malloc(strlen(list) + 1);
    size_t n = 0;
    int r = 0;

    if (!item)
        return gf_nomem(err);
    for (;; list++) {
        if (*list == '\\' && (list[1] == ',' || list[1] == '\\')) {
            item[n++] = *++list;
            continue;
        }
        if (*list && *list != ',') {
            item[n++] = *list;
            continue;
        }
        item[n] = '\0';
        n = 0;
        r = set_item(opt, item, fuse_opts, err);
        if (r || !*list)
            return r;
    }
}
