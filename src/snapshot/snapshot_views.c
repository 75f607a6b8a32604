/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_views.c - views as directories: weights and side files, built as they are asked
 * for.
 *
 * Lock: snapshot->lock guards the list of built directories. What the list points at is
 * immutable, and lives as long as the snapshot.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"
#include "base/text.h"
#include "catalog/names.h"
#include "image/config_out.h"
#include "image/weights.h"
#include "snapshot/snapshot_int.h"
#include "view/fit.h"

void gf_built_free(struct gf_built *b)
{
    for (size_t i = 0; i < b->n; i++)
        gf_image_free(b->images[i]);
    free(b->images);
    free(b->files);
    free(b->sub_files);
    gf_view_free(b->view);
    free(b->warning);
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
static bool belongs(const struct gf_built *b, const struct gf_side_file *file)
{
    if (strcmp(file->name, "adapter_config.json") == 0)
        return false; /* add_adapter_config() */
    if (strcmp(file->name, "config.json") == 0 ||
        strcmp(file->name, "generation_config.json") == 0)
        return b->fits && !b->adapter;
    return !b->adapter || !file->base;
}

/* With another base_model_name_or_path, all else as it is. */
static int rename_base(const struct gf_snapshot *s, const char *text, size_t len,
                       struct gf_image *image, struct gf_err *err)
{
    struct gf_text name = { 0 };
    GF_AUTO_MEM char *value = NULL;
    GF_AUTO_MEM char *edited = NULL;
    size_t edited_len;
    int r;

    gf_text_json(&name, s->opt->base_name);
    value = gf_text_take(&name, NULL);
    if (!value)
        return gf_nomem(err);
    r = gf_json_edit(text, len, "base_model_name_or_path", value, &edited, &edited_len,
                     err);
    return r ? r : gf_image_add_bytes(image, edited, edited_len, err);
}

static int add_adapter_config(const struct gf_snapshot *s, struct gf_built *b,
                              struct gf_err *err)
{
    const char *text = b->own ? b->own->text : s->side.adapter_text;
    size_t len = b->own ? b->own->len : s->side.adapter_len;
    uint32_t source = b->own ? b->own->source : 0;
    GF_AUTO(gf_image) image = NULL;
    int r;

    if (!b->adapter || !text)
        return 0;
    for (size_t i = 0; i < s->side.files.n && !b->own; i++)
        if (strcmp(s->side.files.at[i].name, "adapter_config.json") == 0)
            source = s->side.files.at[i].source;
    r = gf_image_new("adapter_config.json", &image, err);
    if (!r)
        r = s->opt->base_name ? rename_base(s, text, len, image, err)
                              : gf_image_add_source(image, source, 0, len, err);
    if (!r)
        r = gf_image_seal(image, err);
    return r ? r : add_image(b, gf_take(&image), false, err);
}

static int add_side(const struct gf_snapshot *s, struct gf_built *b, struct gf_err *err)
{
    for (size_t i = 0; i < s->side.files.n; i++) {
        const struct gf_side_file *file = &s->side.files.at[i];
        const struct gf_source *src = s->side.sources.at[file->source];
        bool config = strcmp(file->name, "config.json") == 0;
        GF_AUTO(gf_image) image = NULL;
        int r;

        if (!belongs(b, file))
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
    return add_adapter_config(s, b, err);
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

/* Heads alone are no model of config.json's. */
static bool heads_alone(const struct gf_view *view)
{
    size_t n = 0;

    while (n < view->n && gf_name_is_head(view->outputs[n].name))
        n++;
    return n == view->n;
}

static enum gf_fit fit_of(const struct gf_snapshot *s, const struct gf_view *view,
                          char why[static GF_FIT_WHY])
{
    return gf_fit_view(view, s->side.config, s->found.template, why);
}

/* The whole model, under names that are its own: config.json goes with it. */
static int build_whole(const struct gf_snapshot *s, const struct gf_view_spec *spec,
                       struct gf_built *b, struct gf_err *err)
{
    char why[GF_FIT_WHY];
    int r = gf_view_build(spec, &b->view, err);

    if (r)
        return r;
    b->fits = !heads_alone(b->view);
    b->fit = fit_of(s, b->view, why);
    if (b->view->scores)
        snprintf(why, sizeof(why),
                 "a scoring head is there and no output head: from_pretrained() of "
                 "config.json's "
                 "class would give it a random one (AutoModelForSequenceClassification "
                 "does not)");
    if ((b->fit == GF_FIT_NO || b->view->scores) && b->fits && s->side.config &&
        !(b->warning = strdup(why)))
        return gf_nomem(err);
    return 0;
}

/* Names as stored: config.json goes with them if that is harmless. */
static int build_raw(const struct gf_snapshot *s, const struct gf_view_spec *spec,
                     struct gf_built *b, struct gf_err *err)
{
    char why[GF_FIT_WHY];
    int r = gf_view_build(spec, &b->view, err);

    if (r)
        return r;
    b->fit = fit_of(s, b->view, why);
    b->fits = s->kind == GF_STATE_PLAIN && b->fit != GF_FIT_NO && !heads_alone(b->view);
    return 0;
}

/* Is a layer missing, as config.json says? Then the component fits it, and is incomplete. */
static bool lacks_layer(const struct gf_snapshot *s, const struct gf_view_spec *spec)
{
    struct gf_view_spec partial = *spec;
    GF_AUTO(gf_view) view = NULL;
    char why[GF_FIT_WHY];

    partial.partial = true;
    return !spec->partial && !gf_view_build(&partial, &view, NULL) &&
           fit_of(s, view, why) > GF_FIT_UNKNOWN;
}

/* One of several models: config.json goes with those that it fits. */
static int build_component(const struct gf_snapshot *s, struct gf_view_spec *spec,
                           struct gf_built *b, struct gf_err *err)
{
    char why[GF_FIT_WHY];
    int r;

    if (gf_component_is_head(spec->name))
        spec->config = NULL;
    r = gf_view_build(spec, &b->view, err);
    if (!spec->config || (r && r != -GF_EINCOMPLETE))
        return r;
    if (r && lacks_layer(s, spec))
        return r;
    if (!r) {
        b->fit = fit_of(s, b->view, why);
        b->fits = b->fit > GF_FIT_UNKNOWN;
        if (b->fits)
            return 0;
    }
    gf_view_free(gf_take(&b->view));
    spec->config = NULL;
    return gf_view_build(spec, &b->view, err);
}

/* adapter, full, and those of one adapter by name. */
static bool is_peft_view(const struct gf_snapshot *s, const char *name)
{
    return s->kind == GF_STATE_PEFT &&
           (gf_adapter_is_view(name, "adapter") || gf_adapter_is_view(name, "full"));
}

/* The adapter_config.json of the adapter that the view is about, if that has one of its own. */
static const struct gf_side_adapter *own_adapter(const struct gf_snapshot *s,
                                                 const char *name)
{
    char adapter[GF_ADAPTER_NAME];

    if (!is_peft_view(s, name) || gf_adapter_choose(s->found.catalog, name, adapter, NULL))
        return NULL;
    return gf_side_adapter_find(&s->side, adapter);
}

static int build_view(const struct gf_snapshot *s, struct gf_view_spec *spec,
                      struct gf_built *b, struct gf_err *err)
{
    bool peft = s->kind == GF_STATE_PEFT;

    b->fit = GF_FIT_UNKNOWN;
    if (spec->component ||
        (!gf_view_is_reserved(spec->name) && !is_peft_view(s, spec->name)))
        return build_component(s, spec, b, err);
    if (strcmp(spec->name, "raw") == 0)
        return build_raw(s, spec, b, err);
    if (s->kind == GF_STATE_COMPOSITE)
        return gf_fail(err, ENOENT,
                       "no view '%s': several models are in it, each is a view of its own",
                       spec->name);
    b->adapter = peft && gf_adapter_is_view(spec->name, "adapter");
    return b->adapter ? gf_view_build(spec, &b->view, err) : build_whole(s, spec, b, err);
}

/* Tensors of the model that this layout left out on purpose, and that this view would need. */
static const char *left_out(const struct gf_snapshot *s, const struct gf_view_spec *spec,
                            size_t *ret_n)
{
    bool peft = !spec->component && s->kind == GF_STATE_PEFT &&
                (strcmp(spec->name, "base") == 0 || gf_adapter_is_view(spec->name, "full"));
    bool whole = peft || (!spec->component &&
                          (gf_view_is_reserved(spec->name) || is_peft_view(s, spec->name)));
    size_t len = strlen(spec->name);
    const char *first = NULL;

    *ret_n = 0;
    if (whole && !peft && (s->kind != GF_STATE_PLAIN || strcmp(spec->name, "raw") == 0))
        return NULL;
    for (size_t i = 0; i < s->found.left_out.n; i++) {
        const char *name = s->found.left_out.at[i];

        if (!whole && (strncmp(name, spec->name, len) != 0 || name[len] != '.'))
            continue;
        if (!first)
            first = name;
        ++*ret_n;
    }
    return first;
}

/* Cheap, as readers ask for many files that are not there: each could be a component. */
static bool may_be_view(const struct gf_snapshot *s, const char *name)
{
    if (gf_view_is_reserved(name) || is_peft_view(s, name))
        return true;
    for (uint32_t i = 0; i < gf_catalog_len(s->found.catalog); i++)
        if (gf_name_is_below(gf_catalog_at(s->found.catalog, i)->name, name))
            return true;
    return false;
}

/* What stands in the one directory that a view may have, as a directory. */
static int add_sub(const struct gf_snapshot *s, struct gf_built *b, struct gf_err *err)
{
    static const char front[] = GF_CHAT_TEMPLATES "/";
    size_t len = sizeof(front) - 1, n = 0;

    b->sub_files = calloc(b->n + 1, sizeof(*b->sub_files));
    if (!b->sub_files)
        return gf_nomem(err);
    for (size_t i = 0; i < b->n; i++)
        if (strncmp(b->files[i].name, front, len) == 0) {
            b->sub_files[n] = b->files[i];
            b->sub_files[n++].name += len;
        }
    if (n == 0)
        return 0;
    b->sub = b->dir;
    b->sub.name = GF_CHAT_TEMPLATES;
    b->sub.ino = ino_of(s, b->view->name, GF_CHAT_TEMPLATES);
    b->sub.files = b->sub_files;
    b->sub.n = n;
    b->dir.sub = &b->sub;
    return 0;
}

static int build(struct gf_snapshot *s, const char *name, struct gf_built **ret,
                 struct gf_err *err)
{
    struct gf_view_spec spec = {
        .name = name,
        .component = s->opt->prefix && strcmp(name, s->opt->prefix) == 0,
        .catalog = s->found.catalog,
        .config = s->side.config,
        .adapter_config = s->side.adapter_config,
        .template = s->found.template,
        .base_why = *s->base_why ? s->base_why : NULL,
        .base_vocab = s->base_vocab,
        .names = s->opt->names,
        .policy = s->opt->policy,
        .dtype = s->opt->dtype,
        .partial = s->opt->allow_incomplete,
        .same = same_samples,
        .ctx = s,
    };
    GF_AUTO(gf_built) b = calloc(1, sizeof(*b));
    const char *missing;
    size_t nmissing;
    int r;

    if (!b)
        return gf_nomem(err);
    b->own = own_adapter(s, name);
    if (b->own)
        spec.adapter_config = b->own->config;
    missing = left_out(s, &spec, &nmissing);
    if (missing && !s->opt->allow_incomplete)
        return gf_fail(err, GF_EINCOMPLETE,
                       "%zu tensors are left out of this checkpoint, first '%s'; base=DIR "
                       "supplies them",
                       nmissing, missing);
    if (!may_be_view(s, name))
        return gf_fail(err, ENOENT, "no view '%s': no tensor's name starts with '%s.'",
                       name, name);
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
        .warning = b->warning,
        .gather = { .view = b->view,
                    .bound = &s->bound,
                    .nbound = 1,
                    .side = s->side.sources.at,
                    .nside = s->side.sources.n,
                    .resident = s->resident },
    };
    r = add_sub(s, b, err);
    if (!r)
        *ret = gf_take(&b);
    return r;
}

int gf_snapshot_built(struct gf_snapshot *s, const char *name, const struct gf_built **ret,
                      struct gf_err *err)
{
    struct gf_built *b;
    int r = 0;

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
        *ret = b;
    return r;
}

int gf_snapshot_dir(struct gf_snapshot *s, const char *name, const struct gf_vdir **ret,
                    struct gf_err *err)
{
    const struct gf_built *b;
    int r;

    if (!name)
        name = s->info.default_view;
    if (!name)
        return gf_fail(err, ENOENT, "%s", s->why_no_default);
    if (s->opt->view && strcmp(name, s->opt->view) != 0)
        return gf_fail(err, ENOENT, "no view '%s' beside view=%s", name, s->opt->view);
    r = gf_snapshot_built(s, name, &b, err);
    if (!r)
        *ret = &b->dir;
    return r;
}

const struct gf_vfile *gf_vdir_find(const struct gf_vdir *dir, const char *name)
{
    struct gf_vfile key = { .name = name };

    return dir->n ? bsearch(&key, dir->files, dir->n, sizeof(key), by_name) : NULL;
}
