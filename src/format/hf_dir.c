/* SPDX-License-Identifier: Apache-2.0 */
#include "format/hf_dir.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "container/safetensors.h"
#include "format/module_order.h"
#include "format/shard_order.h"
#include "format/weight_index.h"

#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"
#define ADAPTER "adapter_model.safetensors"
#define CONFIG "config.json"
#define EXTENSION ".safetensors"

/* The files of SOURCE, opened and parsed. */
struct model {
    const struct gf_format_in *in;
    struct gf_found *out;
    struct gf_weight_index *index;   /* NULL: one file */
    struct gf_safetensors **headers; /* of source i */
    size_t n;
};

static bool is_there(struct gf_dir *dir, const char *path)
{
    struct gf_dir_entry entry;

    return gf_dir_stat(dir, path, &entry) == 0 && !entry.is_dir;
}

static bool has_extension(const char *name)
{
    size_t n = strlen(name), m = strlen(EXTENSION);

    return n > m && strcmp(name + n - m, EXTENSION) == 0;
}

static int hf_probe(struct gf_dir *dir, const char *file, char why[static GF_WHY])
{
    static const struct {
        const char *name;
        int sure;
    } known[] = { { SINGLE, GF_HF_SURE_MODEL },
                  { INDEX, GF_HF_SURE_MODEL },
                  { ADAPTER, GF_HF_SURE_ADAPTER } };

    if (file) {
        bool ours = has_extension(file);

        snprintf(why, GF_WHY,
                 ours ? "a '*" EXTENSION "' file" : "not called '*" EXTENSION "'");
        return ours ? GF_HF_SURE_FILE : 0;
    }
    for (size_t i = 0; i < GF_COUNT(known); i++)
        if (is_there(dir, known[i].name)) {
            snprintf(why, GF_WHY, "'%s' is there", known[i].name);
            return known[i].sure;
        }
    snprintf(why, GF_WHY, "no '" SINGLE "', no '" INDEX "'");
    return 0;
}

int gf_hf_header_read(struct gf_source *src, const struct gf_limits *limits,
                      struct gf_safetensors **ret, struct gf_err *err)
{
    GF_AUTO_MEM uint8_t *header = NULL;
    uint8_t first[8] = { 0 };
    uint64_t len = 0;
    int r = 0;

    if (src->size >= sizeof(first))
        r = gf_source_read_err(src, first, sizeof(first), 0, err);
    if (!r)
        r = gf_safetensors_header_len(src->name, first, src->size, limits, &len, err);
    if (r)
        return r;
    header = malloc(len + 1);
    if (!header)
        return gf_nomem(err);
    r = gf_source_read_err(src, header, len, sizeof(first), err);
    return r ? r
             : gf_safetensors_parse(src->name, header, len, src->size, limits, ret, err);
}

/* A rank's own file has names of whole tensors, but shapes of parts. */
static int refuse_parts(const struct gf_safetensors *st, const char *path,
                        struct gf_err *err)
{
    const char *slash = strrchr(path, '/');

    if (strncmp(slash ? slash + 1 : path, "shard-", 6) != 0)
        return 0;
    for (size_t i = 0; i < st->nmeta; i++)
        if (strcmp(st->meta[i][0], "DCP_SHARDING_INFO") == 0)
            return gf_fail(err, ENOTSUP,
                           "'%s': one rank's parts of a sharded checkpoint: SOURCE is the "
                           "directory with the files of all ranks",
                           path);
    return 0;
}

static int open_file(struct model *m, const char *path, struct gf_err *err)
{
    struct gf_source *src = NULL;
    uint32_t index;
    int r = gf_dir_open(m->in->dir, path, &src, err);

    if (r == -ENOENT && m->index)
        return gf_fail(err, GF_EINCOMPLETE, "missing '%s', which '%s' names", path, INDEX);
    if (!r)
        r = gf_found_add_source(m->out, src, &index, err);
    if (!r)
        r = gf_hf_header_read(src, m->in->limits, &m->headers[m->n], err);
    if (r)
        return r;
    m->out->mtime_ns = GF_MAX(m->out->mtime_ns, src->identity.mtime_ns);
    return refuse_parts(m->headers[m->n++], path, err);
}

static int add_tensor(struct model *m, const struct gf_safetensors_entry *entry,
                      uint32_t source, struct gf_err *err)
{
    struct gf_tensor_spec spec = { .name = entry->name,
                                   .shape = entry->shape,
                                   .dtype = entry->dtype,
                                   .live = entry->dtype,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };
    uint32_t index;
    int r = gf_catalog_add(m->out->catalog, &spec, &index, err);

    if (r)
        return gf_wrap(err, "'%s'", m->out->sources.at[source]->name);
    return gf_catalog_add_linear(m->out->catalog, source, entry->begin, 0,
                                 gf_catalog_at(m->out->catalog, index)->numel, err);
}

/* By config.json's model_type; NULL if that, or the type, is not there. What is wrong with
 * config.json is for those who need it. */
static const struct gf_module_order *order_of_type(struct gf_dir *dir,
                                                   const struct gf_limits *limits)
{
    GF_AUTO(gf_json) config = NULL;
    GF_AUTO_MEM char *text = NULL;
    size_t len;

    if (gf_dir_read(dir, CONFIG, limits->json_bytes, &text, &len, NULL) ||
        gf_json_parse(CONFIG, text, len, limits, &config, NULL))
        return NULL;
    return gf_module_order_find(gf_json_str(gf_json_get(config, "model_type")));
}

bool gf_hf_dir_is_ordered(struct gf_dir *dir, const struct gf_limits *limits,
                          const struct gf_catalog *catalog)
{
    const struct gf_module_order *order = order_of_type(dir, limits);

    for (uint32_t i = 0; order && i < gf_catalog_len(catalog); i++)
        if (!gf_module_order_knows(order, gf_catalog_at(catalog, i)->name))
            return false;
    return order != NULL;
}

/* A tensor, where it is, and what qsort's callback needs to know. */
struct item {
    const struct gf_safetensors_entry *entry;
    const struct gf_module_order *order;
    uint32_t file;
};

static int by_module_order(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    return gf_module_order_compare(x->order, x->entry->name, y->entry->name);
}

static int add_in_order(struct model *m, const struct item *items, const size_t *order,
                        size_t n, struct gf_err *err)
{
    int r = 0;

    for (size_t i = 0; i < n && !r; i++) {
        const struct item *item = &items[order ? order[i] : i];

        r = add_tensor(m, item->entry, item->file, err);
    }
    return r;
}

/* Cuts into these files again. */
static int add_by_shards(struct model *m, const struct item *items, const size_t *starts,
                         struct gf_err *err)
{
    size_t n = starts[m->n];
    GF_AUTO_MEM uint64_t *sizes = calloc(n + 1, sizeof(*sizes));
    GF_AUTO_MEM size_t *order = NULL;
    int r = 0;

    if (!sizes)
        return gf_nomem(err);
    for (size_t i = 0; i < n; i++)
        sizes[i] = items[i].entry->end - items[i].entry->begin;
    r = gf_shard_order(sizes, starts, m->n, &order, err);
    return r ? r : add_in_order(m, items, order, n, err);
}

static int add_tensors(struct model *m, struct gf_err *err)
{
    const struct gf_module_order *order = order_of_type(m->in->dir, m->in->limits);
    GF_AUTO_MEM size_t *starts = calloc(m->n + 1, sizeof(*starts));
    GF_AUTO_MEM struct item *items = NULL;
    size_t n = 0;

    for (size_t f = 0; f < m->n; f++)
        n += m->headers[f]->n;
    items = calloc(n + 1, sizeof(*items));
    if (!starts || !items)
        return gf_nomem(err);
    for (size_t f = 0, at = 0; f < m->n; f++) {
        for (size_t i = 0; i < m->headers[f]->n; i++) {
            const struct gf_safetensors_entry *entry = &m->headers[f]->at[i];

            if (order && !gf_module_order_knows(order, entry->name))
                order = NULL;
            items[at++] = (struct item){ entry, NULL, (uint32_t)f };
        }
        starts[f + 1] = at;
    }
    if (!order && m->n > 1)
        return add_by_shards(m, items, starts, err);
    for (size_t i = 0; i < n && order; i++)
        items[i].order = order;
    if (order)
        qsort(items, n, sizeof(*items), by_module_order);
    return add_in_order(m, items, NULL, n, err);
}

/* Each tensor that the index names is in the file that it names. Tensors that it does not
 * name are served, as from_pretrained() loads them, too. */
static int check_index(struct model *m, struct gf_err *err)
{
    const char *surplus = NULL;
    struct gf_strmap where = { 0 };
    size_t nsurplus = 0;
    int r = 0;

    for (size_t f = 0; f < m->n; f++)
        for (size_t i = 0; i < m->headers[f]->n && !r; i++) {
            const char *name = m->headers[f]->at[i].name;
            uint64_t named;

            if (gf_strmap_put(&where, name, f, NULL) == -ENOMEM)
                r = gf_nomem(err);
            if (!gf_strmap_get(&m->index->places, name, &named) && nsurplus++ == 0)
                surplus = name;
        }
    for (const struct gf_json *at = gf_weight_index_first(m->index); at && !r;
         at = gf_json_next(at)) {
        uint64_t f;

        if (!gf_strmap_get(&where, gf_json_key(at), &f))
            r = gf_fail(err, GF_EINCOMPLETE, "'%s': no tensor '%s' in it, which '%s' names",
                        gf_json_str(at), gf_json_key(at), INDEX);
        else if (strcmp(m->index->files[f], gf_json_str(at)) != 0)
            r = gf_fail(err, GF_EBAD, "'%s': tensor '%s' is in '%s', not in '%s'", INDEX,
                        gf_json_key(at), m->index->files[f], gf_json_str(at));
    }
    gf_strmap_done(&where);
    if (!r && nsurplus &&
        gf_found_warn(m->out, "'%s' does not name %zu tensor%s of its files: '%s'%s", INDEX,
                      nsurplus, nsurplus == 1 ? "" : "s", surplus,
                      nsurplus > 1 ? ", ..." : ""))
        return gf_nomem(err);
    return r;
}

/* "model-00002-of-00005.safetensors" alone is not the model. */
static bool is_one_of_many(const char *file, unsigned *ret_n)
{
    const char *of = strstr(file, "-of-");
    char end;

    return of && sscanf(of, "-of-%5u.safetensor%c", ret_n, &end) == 2 && *ret_n > 1;
}

static void judge(const struct model *m, const char *file)
{
    struct gf_found *out = m->out;
    unsigned many;

    out->complete = GF_COMPLETE_YES;
    if (m->index) {
        snprintf(out->why, sizeof(out->why), "all %zu files that '%s' names are present",
                 m->n, INDEX);
    } else if (is_one_of_many(file, &many)) {
        out->complete = GF_COMPLETE_UNKNOWN;
        snprintf(out->why, sizeof(out->why), "'%.80s' is one of %u files", file, many);
    } else {
        snprintf(out->why, sizeof(out->why), "'%.80s' is whole", file);
    }
}

static int read_model(struct model *m, const char *file, struct gf_err *err)
{
    size_t n = m->index ? m->index->nfiles : 1;
    int r = 0;

    m->headers = calloc(n, sizeof(struct gf_safetensors *));
    if (!m->headers)
        return gf_nomem(err);
    for (size_t i = 0; i < n && !r; i++)
        r = open_file(m, m->index ? m->index->files[i] : file, err);
    if (!r && m->index)
        r = check_index(m, err);
    if (!r)
        r = add_tensors(m, err);
    if (r)
        return r;
    snprintf(m->out->detail, sizeof(m->out->detail), "%zu safetensors file%s", n,
             n == 1 ? "" : "s");
    judge(m, file);
    return 0;
}

static int find_files(struct model *m, const char **ret_file, struct gf_err *err)
{
    struct gf_dir *dir = m->in->dir;
    int r = 0;

    *ret_file = m->in->file;
    if (*ret_file)
        return 0;
    if (is_there(dir, SINGLE)) {
        *ret_file = SINGLE;
    } else if (is_there(dir, INDEX)) {
        r = gf_weight_index_read(dir, INDEX, m->in->limits, &m->index, err);
    } else {
        *ret_file = ADAPTER;
        return 0;
    }
    if (!r && is_there(dir, ADAPTER) &&
        gf_found_warn(m->out,
                      "'" ADAPTER "' is left out: transformers would apply it to the model "
                      "weights beside it once more"))
        return gf_nomem(err);
    return r;
}

static int hf_read(const struct gf_format_in *in, struct gf_found *out, struct gf_err *err)
{
    struct model m = { .in = in, .out = out };
    const char *file;
    int r = gf_catalog_new(in->limits, &out->catalog, err);

    out->format = gf_hf_dir_format.name;
    if (!r)
        r = find_files(&m, &file, err);
    if (!r)
        r = read_model(&m, file, err);
    for (size_t i = 0; i < m.n; i++)
        gf_safetensors_free(m.headers[i]);
    free(m.headers);
    gf_weight_index_free(m.index);
    return r;
}

const struct gf_format gf_hf_dir_format = {
    .name = "safetensors",
    .layer = GF_LAYER_SAFETENSORS,
    .probe = hf_probe,
    .read = hf_read,
};
