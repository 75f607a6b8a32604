/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_views.c - views as directories: weights and side files, built as they are asked
 * for; which one is at the root, and which are listed.
 *
 * Lock: snapshot->lock guards the list of built directories. What the list points at is
 * immutable, and lives as long as the snapshot.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"
#include "image/config_out.h"
#include "image/weights.h"
#include "snapshot/snapshot_int.h"

void gf_built_free(struct gf_built *b)
{
    for (size_t i = 0; i < b->n; i++)
        gf_image_free(b->images[i]);
    free(b->images);
    free(b->files);
    gf_view_free(b->view);
    free(b);
}

static int add_image(struct gf_built *b, struct gf_image *image, bool weights,
                     struct gf_err *err)
{
    struct gf_image **images = reallocarray(b->images, b->n + 1, sizeof(*images));
    struct gf_vfile *files = reallocarray(b->files, b->n + 1, sizeof(*files));

    b->images = images ? images : b->images;
    b->files = files ? files : b->files;
    if (!images || !files) {
        gf_image_free(image);
        return gf_nomem(err);
    }
    b->images[b->n] = image;
    b->files[b->n++] = (struct gf_vfile){ .name = gf_image_name(image),
                                          .size = gf_image_size(image),
                                          .weights = weights,
                                          .image = image };
    return 0;
}

static int add_weights(const struct gf_snapshot *s, struct gf_built *b, struct gf_err *err)
{
    const struct gf_file_format *format =
        s->opt->bin ? &gf_file_torchbin : &gf_file_safetensors;
    const char *stem = b->adapter    ? "adapter_model"
                       : s->opt->bin ? "pytorch_model"
                                     : "model";
    struct gf_image **images = NULL;
    size_t n = 0;
    int r =
        gf_images_of_view(b->view, format, stem, s->opt->max_shard_size, &images, &n, err);

    for (size_t i = 0; i < n; i++) {
        if (r)
            gf_image_free(images[i]);
        else
            r = add_image(b, images[i], true, err);
    }
    free(images);
    return r;
}

/* config.json, corrected to what this view serves. */
static int config_image(const struct gf_snapshot *s, const struct gf_view *view,
                        struct gf_image *image, struct gf_err *err)
{
    GF_AUTO_MEM char *text = NULL;
    size_t len;
    int r = gf_config_patch(s->side.config_text, s->side.config_len, s->side.config, view,
                            &text, &len, err);

    return r ? r : gf_image_add_bytes(image, text, len, err);
}

/* Adapter and full weights never stand in one directory: beside config.json transformers
 * looks for full weights, beside adapter_config.json it applies an adapter. And names that do
 * not fit config.json would load as silent random weights. */
static bool belongs(const struct gf_built *b, const char *name)
{
    if (strcmp(name, "adapter_config.json") == 0)
        return b->adapter;
    if (strcmp(name, "config.json") == 0)
        return b->fits && !b->adapter;
    if (strcmp(name, "generation_config.json") == 0)
        return !b->adapter;
    return true;
}

static int add_side(const struct gf_snapshot *s, struct gf_built *b, struct gf_err *err)
{
    for (size_t i = 0; i < s->side.files.n; i++) {
        const struct gf_side_file *file = &s->side.files.at[i];
        const struct gf_source *src = s->side.sources.at[file->source];
        bool config = strcmp(file->name, "config.json") == 0;
        GF_AUTO(gf_image) image = NULL;
        int r;

        if (!belongs(b, file->name))
            continue;
        r = gf_image_new(file->name, &image, err);
        if (!r)
            r = config ? config_image(s, b->view, image, err)
                       : gf_image_add_source(image, file->source, 0, src->size, err);
        if (!r)
            r = gf_image_seal(image, err);
        if (!r)
            r = add_image(b, gf_take(&image), false, err);
        if (r)
            return r;
    }
    return 0;
}

#define SAMPLES 64
#define SAMPLE_ELEMENTS 64

/* Tied weights that are stored twice: compared at fixed places, all of it by verify. */
static int same_samples(void *ctx, uint32_t a, uint32_t b, bool *ret, struct gf_err *err)
{
    const struct gf_snapshot *s = ctx;
    const struct gf_tensor *ta = gf_catalog_at(s->found.catalog, a);
    const struct gf_tensor *tb = gf_catalog_at(s->found.catalog, b);
    uint64_t n = GF_MIN(ta->numel, SAMPLE_ELEMENTS);
    uint8_t x[SAMPLE_ELEMENTS * 16], y[SAMPLE_ELEMENTS * 16];

    *ret = ta->dtype == tb->dtype && ta->twist == tb->twist &&
           gf_shape_equal(ta->shape, tb->shape);
    for (uint64_t i = 0; i < SAMPLES && *ret && n; i++) {
        uint64_t first = (ta->numel - n) / (SAMPLES - 1) * i;
        size_t len = n * gf_dtype_info(ta->dtype)->bits / 8;
        struct gf_fault fault = { 0 };
        int r;

        if (i == SAMPLES - 1)
            first = ta->numel - n;
        r = gf_gather_elements(&s->bound, ta, first, n, x, &fault);
        if (!r)
            r = gf_gather_elements(&s->bound, tb, first, n, y, &fault);
        if (r)
            return gf_fail(err, -r, "'%s': cannot read %zu bytes at %" PRIu64 ": %s",
                           fault.source ? fault.source : ta->name, fault.len, fault.offset,
                           strerror(-r));
        *ret = memcmp(x, y, len) == 0;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct gf_vfile *)a)->name, ((const struct gf_vfile *)b)->name);
}

static uint64_t ino_of(const struct gf_snapshot *s, const char *view, const char *name)
{
    uint64_t h = gf_hash(s->info.id, view, strlen(view) + 1);

    h = gf_hash(h, name, strlen(name));
    return h > 1 ? h : 2;
}

/* Of a composite's models, config.json describes the one that has its input embedding. */
static bool has_embedding(const struct gf_view *view, const struct gf_json *config)
{
    const struct gf_json *text = gf_json_get(config, "text_config");
    uint64_t rows = 0, columns = 0;

    if (!gf_json_u64(gf_json_get(config, "vocab_size"), &rows))
        gf_json_u64(gf_json_get(text, "vocab_size"), &rows);
    if (!gf_json_u64(gf_json_get(config, "hidden_size"), &columns) &&
        !gf_json_u64(gf_json_get(config, "n_embd"), &columns))
        gf_json_u64(gf_json_get(text, "hidden_size"), &columns);
    for (size_t i = 0; i < view->n; i++) {
        struct gf_shape shape = view->outputs[i].shape;

        if (shape.rank == 2 && shape.dims[0] == rows && shape.dims[1] == columns)
            return true;
    }
    return false;
}

/* Views of the whole model: config.json goes with them, but for `raw` on anything that is
 * not plain. */
static bool is_whole(const struct gf_snapshot *s, const char *name)
{
    bool plain = s->kind == GF_STATE_PLAIN;

    return (plain && strcmp(name, "full") == 0) || (plain && strcmp(name, "raw") == 0) ||
           (s->kind == GF_STATE_PEFT && strcmp(name, "base") == 0);
}

/* The view, and whether config.json goes with it: of components, with the one it describes. */
static int build_view(struct gf_snapshot *s, struct gf_view_spec *spec, struct gf_built *b,
                      struct gf_err *err)
{
    int r = -GF_EINCOMPLETE;

    b->adapter = s->kind == GF_STATE_PEFT && strcmp(spec->name, "adapter") == 0;
    b->fits = is_whole(s, spec->name);
    if (b->fits || b->adapter || !spec->config)
        return gf_view_build(spec, &b->view, err);
    if (strcmp(spec->name, "raw") != 0)
        r = gf_view_build(spec, &b->view, err);
    b->fits = !r && has_embedding(b->view, spec->config);
    if (b->fits || (r && r != -GF_EINCOMPLETE))
        return r;
    gf_view_free(gf_take(&b->view));
    spec->config = NULL;
    return gf_view_build(spec, &b->view, err);
}

static int build(struct gf_snapshot *s, const char *name, struct gf_built **ret,
                 struct gf_err *err)
{
    struct gf_view_spec spec = {
        .name = name,
        .catalog = s->found.catalog,
        .config = s->side.config,
        .adapter_config = s->side.adapter_config,
        .template = s->found.template,
        .names = s->opt->names,
        .policy = s->opt->policy,
        .dtype = s->opt->dtype,
        .partial = s->opt->allow_incomplete,
        .same = same_samples,
        .ctx = s,
    };
    GF_AUTO(gf_built) b = calloc(1, sizeof(*b));
    int r;

    if (!b)
        return gf_nomem(err);
    if (s->found.left_out.n && s->kind == GF_STATE_PLAIN && strcmp(name, "raw") != 0 &&
        !s->opt->allow_incomplete)
        return gf_fail(err, GF_EINCOMPLETE,
                       "%zu tensors are left out of this checkpoint, first '%s'; base=DIR "
                       "supplies them",
                       s->found.left_out.n, s->found.left_out.at[0]);
    r = build_view(s, &spec, b, err);
    if (!r)
        r = add_weights(s, b, err);
    if (!r)
        r = add_side(s, b, err);
    if (r)
        return r;
    qsort(b->files, b->n, sizeof(*b->files), by_name);
    for (size_t i = 0; i < b->n; i++)
        b->files[i].ino = ino_of(s, b->view->name, b->files[i].name);
    b->dir = (struct gf_vdir){
        .name = b->view->name,
        .ino = ino_of(s, b->view->name, ""),
        .files = b->files,
        .n = b->n,
        .view = b->view,
        .gather = { .view = b->view,
                    .bound = &s->bound,
                    .nbound = 1,
                    .side = s->side.sources.at,
                    .nside = s->side.sources.n },
    };
    *ret = gf_take(&b);
    return 0;
}

int gf_snapshot_dir(struct gf_snapshot *s, const char *name, const struct gf_vdir **ret,
                    struct gf_err *err)
{
    struct gf_built *b;
    int r = 0;

    if (!name)
        name = s->info.default_view;
    if (!name)
        return gf_fail(err, ENOENT, "%s", s->why_no_default);
    if (s->opt->view && strcmp(name, s->opt->view) != 0)
        return gf_fail(err, ENOENT, "no view '%s' beside view=%s", name, s->opt->view);
    pthread_mutex_lock(&s->lock);
    for (b = s->built; b && strcmp(b->dir.name, name) != 0;)
        b = b->next;
    if (!b) {
        r = build(s, name, &b, err);
        if (!r) {
            b->next = s->built;
            s->built = b;
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (!r)
        *ret = &b->dir;
    return r;
}

const struct gf_vfile *gf_vdir_find(const struct gf_vdir *dir, const char *name)
{
    struct gf_vfile key = { .name = name };

    return dir->n ? bsearch(&key, dir->files, dir->n, sizeof(key), by_name) : NULL;
}

/* A composite's default: the one model that config.json describes. */
static int choose_component(struct gf_snapshot *s, struct gf_err *err)
{
    size_t n = 0;

    for (size_t i = 0; i < s->ncomponents; i++) {
        const struct gf_vdir *dir;

        if (gf_snapshot_dir(s, s->components[i], &dir, NULL))
            continue;
        for (const struct gf_built *b = s->built; b; b = b->next)
            if (&b->dir == dir && b->fits && n++ == 0)
                s->info.default_view = dir->name;
    }
    if (n == 1)
        return 0;
    s->info.default_view = NULL;
    return gf_fail(err, ENOENT, "%s",
                   n ? "several of the models in it fit config.json"
                     : "several models, and config.json tells of none which "
                       "it describes");
}

/* The view at the root: the option's, else `full`, else the fitting component. That there is
 * none is not an error yet (the root is then without weights); that it cannot be built is. */
int gf_snapshot_choose_default(struct gf_snapshot *s, struct gf_err *err)
{
    const char *chosen = s->opt->view ? s->opt->view : s->opt->prefix;
    const char *name = chosen ? chosen : s->kind == GF_STATE_PEFT ? "adapter" : "full";
    const struct gf_vdir *dir;
    int r;

    if (s->kind == GF_STATE_COMPOSITE && !chosen) {
        if (!choose_component(s, err))
            return 0;
        snprintf(s->why_no_default, sizeof(s->why_no_default), "%s", err->text);
        return 0;
    }
    r = gf_snapshot_dir(s, name, &dir, err);
    if (!r) {
        s->info.default_view = dir->name;
        return 0;
    }
    if (r != -ENOENT || chosen)
        return r;
    snprintf(s->why_no_default, sizeof(s->why_no_default), "%s", err->text);
    return 0;
}

/* By default: what can be built of a PEFT state, a composite's models, nothing on a plain
 * one. */
static int list_components(struct gf_snapshot *s, struct gf_err *err)
{
    static const char *const peft[] = { "adapter", "full", "base" };

    for (size_t i = 0; i < GF_COUNT(peft) && s->kind == GF_STATE_PEFT; i++) {
        const struct gf_vdir *dir;

        if (!gf_snapshot_dir(s, peft[i], &dir, NULL) &&
            gf_vec_push(&s->listed, dir->name, GF_MAX_COMPONENTS))
            return gf_nomem(err);
    }
    for (size_t i = 0; i < s->ncomponents; i++) {
        const struct gf_vdir *dir;

        if (!gf_snapshot_dir(s, s->components[i], &dir, NULL) &&
            gf_vec_push(&s->listed, dir->name, GF_MAX_COMPONENTS))
            return gf_nomem(err);
    }
    return 0;
}

/* Views that `ls` shows: those of views=, or the default ones. */
int gf_snapshot_choose_listed(struct gf_snapshot *s, struct gf_err *err)
{
    GF_AUTO_MEM char *list = s->opt->views ? strdup(s->opt->views) : NULL;
    char *rest = list, *name;

    if (s->opt->view || (s->opt->views && strcmp(s->opt->views, "none") == 0))
        return 0;
    if (!s->opt->views)
        return list_components(s, err);
    if (!list)
        return gf_nomem(err);
    while ((name = strsep(&rest, ", +:"))) {
        const struct gf_vdir *dir;
        int r = *name ? gf_snapshot_dir(s, name, &dir, err) : -ENOENT;

        if (!*name)
            continue;
        if (r)
            return gf_wrap(err, "option 'views'");
        if (gf_vec_push(&s->listed, dir->name, 4096))
            return gf_nomem(err);
    }
    return 0;
}

const char *const *gf_snapshot_listed(const struct gf_snapshot *s, size_t *ret_n)
{
    *ret_n = s->listed.n;
    return s->listed.at;
}

int gf_snapshot_views(struct gf_snapshot *s, struct gf_view_state **ret, size_t *ret_n,
                      struct gf_err *err)
{
    static const char *const peft[] = { "adapter", "base", "full", "raw" };
    size_t first = s->kind == GF_STATE_PEFT ? 0 : 2;
    size_t n = s->ncomponents + GF_COUNT(peft) - first;
    struct gf_view_state *views = calloc(n, sizeof(*views));

    if (!views)
        return gf_nomem(err);
    for (size_t i = 0; i < n; i++) {
        const char *name =
            i < s->ncomponents ? s->components[i] : peft[first + i - s->ncomponents];
        const struct gf_vdir *dir;
        struct gf_err why = { 0 };

        views[i].name = name;
        if (gf_snapshot_dir(s, name, &dir, &why))
            snprintf(views[i].why_not, sizeof(views[i].why_not), "%.*s", GF_WHY - 1,
                     why.text);
        views[i].is_default =
            s->info.default_view && strcmp(name, s->info.default_view) == 0;
        for (size_t k = 0; k < s->listed.n; k++)
            views[i].listed |= strcmp(name, s->listed.at[k]) == 0;
    }
    *ret = views;
    *ret_n = n;
    return 0;
}
