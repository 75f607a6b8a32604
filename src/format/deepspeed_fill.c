/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_fill.c - state dict, masters, fragments -> catalog.
 *
 * In the order of the state dict. Where a tensor's bytes come from:
 *
 *   trained      masters from the optimizer files; the weights as trained, if `module` has
 *                them whole (below ZeRO-3), as a hidden copy
 *   frozen       `module` where it is whole there, else the fragments of all ranks
 *   buffers ...  `module`
 *   tied         the pieces of the name that came first
 *
 * ZeRO-3 placeholders whose bytes are nowhere are never served as empty tensors: they are
 * left out if the checkpoint says that they were (exclude_frozen_parameters), else refused.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/deepspeed_map.h"
#include "format/deepspeed_read.h"

struct fill {
    struct gf_ds *ds;
    struct gf_catalog *catalog;
    struct gf_err *err;
    struct gf_strmap added;    /* name that tied names share -> catalog index */
    struct gf_strmap storages; /* "file:key:start" -> catalog index, of whole tensors */
    struct gf_strmap shared;   /* alias -> index in the model's shared_params */
    struct gf_strmap frozen;   /* name -> index in the model's frozen shapes */
    struct gf_strmap buffers;
    size_t nowhere;
    const char *first_nowhere;
};

/* An entry of a state dict, and what is known about its name. */
struct entry {
    struct gf_ds_file *file;
    const struct gf_ds_tensor *tensor;
    const char *name; /* in the catalog */
    const char *key;  /* the name with the data: `name` itself, or what it is tied to */
    struct gf_ds_param *param; /* trained, else NULL */
    const struct gf_ds_shape *frozen;
    bool buffer;
};

static const struct gf_ds_model *model_of(const struct fill *f)
{
    return &f->ds->stages[0].models.at[0].model;
}

static int warned(struct fill *f, int r)
{
    return r ? gf_nomem(f->err) : 0;
}

static int add(struct fill *f, const char *path, const struct gf_tensor_spec *spec,
               uint32_t *ret)
{
    int r = gf_catalog_add(f->catalog, spec, ret, f->err);

    return r ? gf_wrap(f->err, "'%s'", path) : 0;
}

/* The pieces of a whole tensor of a state dict. */
static int add_tensor(struct fill *f, const struct entry *e)
{
    uint32_t source;
    int r = gf_ds_source(f->ds, e->file, &source, f->err);

    return r ? r
             : gf_catalog_add_strided(f->catalog, source, e->tensor->offset,
                                      e->tensor->strides, f->err);
}

static int bad_shape(struct fill *f, const struct entry *e, struct gf_shape wanted)
{
    char found_text[GF_SHAPE_TEXT], wanted_text[GF_SHAPE_TEXT];

    return gf_fail(f->err, GF_EBAD, "'%s': '%s' is %s in 'module', and %s by its shapes",
                   e->file->path, e->name, gf_shape_text(e->tensor->shape, found_text),
                   gf_shape_text(wanted, wanted_text));
}

static bool is_whole(const struct entry *e, struct gf_shape shape)
{
    return gf_shape_equal(e->tensor->shape, shape);
}

static int fill_trained(struct fill *f, const struct entry *e, uint32_t *ret)
{
    struct gf_tensor_spec spec = { .name = e->name,
                                   .shape = e->param->shape,
                                   .dtype = e->param->dtype,
                                   .live = e->tensor->dtype,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };
    struct gf_tensor_spec hidden = { .name = e->name,
                                     .shape = e->param->shape,
                                     .dtype = e->tensor->dtype,
                                     .live = e->tensor->dtype,
                                     .copy = GF_NONE,
                                     .alias = GF_NONE,
                                     .hidden = true,
                                     .twist = e->tensor->twist };
    int r = 0;

    if (!is_whole(e, spec.shape) && !(e->param->stage->split && e->tensor->numel == 0))
        return bad_shape(f, e, spec.shape);
    if (is_whole(e, spec.shape) && e->param->numel) {
        r = add(f, e->file->path, &hidden, &spec.copy);
        if (!r)
            r = add_tensor(f, e);
    }
    if (!r)
        r = add(f, e->file->path, &spec, ret);
    return r ? r : gf_ds_add_master(f->ds, e->param, f->err);
}

static int add_fragments(struct fill *f, const struct entry *e)
{
    const struct gf_ds_files *files = &f->ds->stages[0].models;
    const struct gf_ds_model *model = model_of(f);
    size_t index = (size_t)(e->frozen - model->frozen.at);
    uint32_t world = (uint32_t)files->n;
    uint64_t part = gf_ds_part(e->frozen->numel, world), start = 0;

    for (uint32_t rank = 0; rank < world; rank++) {
        struct gf_ds_file *file = &files->at[rank];
        const struct gf_ds_flat *flat = &file->model.fragments[index];
        uint64_t used = gf_ds_part_used(e->frozen->numel, world, rank);
        int r;

        if (flat->numel != part || flat->dtype != e->tensor->dtype)
            return gf_fail(f->err, flat->dtype == e->tensor->dtype ? GF_EBAD : ENOTSUP,
                           "'%s': fragment of frozen '%s' is %" PRIu64
                           " x %s, expected %" PRIu64 " x %s%s",
                           file->path, e->name, flat->numel,
                           gf_dtype_info(flat->dtype)->safetensors, part,
                           gf_dtype_info(e->tensor->dtype)->safetensors,
                           flat->dtype == e->tensor->dtype ? "" : " (quantized weights?)");
        r = gf_ds_add_flat(f->ds, file, flat, 0, start, used, f->err);
        if (r)
            return r;
        start += used;
    }
    return 0;
}

static int fill_plain(struct fill *f, const struct entry *e, struct gf_shape shape,
                      bool frozen, uint32_t *ret)
{
    struct gf_tensor_spec spec = { .name = e->name,
                                   .shape = shape,
                                   .dtype = e->tensor->dtype,
                                   .live = e->tensor->dtype,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE,
                                   .buffer = e->buffer,
                                   .frozen = frozen,
                                   .twist = e->tensor->twist };
    bool split = f->ds->stages[0].split && e->frozen;
    int r;

    if (!is_whole(e, shape) && !(split && e->tensor->numel == 0))
        return bad_shape(f, e, shape);
    r = add(f, e->file->path, &spec, ret);
    if (r)
        return r;
    return is_whole(e, shape) ? add_tensor(f, e) : add_fragments(f, e);
}

/* `e` is tied to the tensor at `index`. */
static int fill_alias(struct fill *f, const struct entry *e, uint32_t index)
{
    const struct gf_tensor *of = gf_catalog_at(f->catalog, index);
    struct gf_tensor_spec spec = { .name = e->name,
                                   .shape = of->shape,
                                   .dtype = of->dtype,
                                   .live = e->tensor->dtype,
                                   .copy = of->copy,
                                   .alias = index,
                                   .buffer = of->buffer,
                                   .frozen = of->frozen,
                                   .twist = of->twist };
    uint32_t ignored;
    int r;

    if (!is_whole(e, of->shape) && !(f->ds->stages[0].split && e->tensor->numel == 0))
        return bad_shape(f, e, of->shape);
    if (e->tensor->dtype != of->live)
        return gf_fail(f->err, GF_EBAD, "'%s': '%s' is tied to '%s' and of another type",
                       e->file->path, e->name, of->name);
    r = add(f, e->file->path, &spec, &ignored);
    return r ? r : gf_catalog_share(f->catalog, index, f->err);
}

/* Tied weights by memory: before 0.9.2, and buffers and frozen ones of any version. */
static int find_storage(struct fill *f, const struct entry *e, const char **ret_key,
                        bool *ret_found, uint32_t *ret)
{
    const struct gf_tensor *other;
    uint64_t index;

    *ret_found = false;
    *ret_key = NULL;
    if (e->tensor->numel == 0)
        return 0;
    *ret_key = gf_arena_printf(&f->ds->arena, "%p:%" PRIu64 ":%s", (const void *)e->file,
                               e->tensor->start, e->tensor->storage);
    if (!*ret_key)
        return gf_nomem(f->err);
    if (!gf_strmap_get(&f->storages, *ret_key, &index))
        return 0;
    other = gf_catalog_at(f->catalog, (uint32_t)index);
    *ret = (uint32_t)index;
    *ret_found = gf_shape_equal(other->shape, e->tensor->shape) &&
                 other->live == e->tensor->dtype && other->twist == e->tensor->twist;
    return 0;
}

static int remember(struct fill *f, struct gf_strmap *map, const char *key, uint64_t value)
{
    int r = gf_strmap_put(map, key, value, NULL);

    return r == -ENOMEM ? gf_nomem(f->err) : 0;
}

/* Does the checkpoint say that frozen parameters were left out on request? */
static bool is_excluding(const struct fill *f)
{
    return model_of(f)->has_frozen && model_of(f)->no_frozen;
}

/* Only names of which it is certain that no other holds their data are handed on. */
static int leave_out(struct fill *f, const char *name)
{
    struct gf_found *out = f->ds->out;
    char *copy;

    if (f->nowhere++ == 0)
        f->first_nowhere = name;
    if (!is_excluding(f))
        return 0;
    copy = strdup(name);
    if (!copy || gf_vec_push(&out->left_out, copy, f->ds->in->limits->tensors)) {
        free(copy);
        return gf_nomem(f->err);
    }
    return 0;
}

static bool is_nowhere(const struct fill *f, const struct entry *e)
{
    return f->ds->stages[0].split && !e->param && !e->frozen && !e->buffer &&
           e->tensor->numel == 0 && e->tensor->shape.rank == 1;
}

static int fill_entry(struct fill *f, const struct entry *e)
{
    bool trained = e->param && e->param->has_master, tied;
    bool frozen = !e->param && !e->buffer && model_of(f)->has_buffers && f->ds->nparams &&
                  !f->ds->pipeline && !f->ds->moe;
    const char *storage;
    uint32_t index;
    uint64_t first;
    int r;

    if (e->param)
        e->param->seen = true;
    if (gf_strmap_get(&f->added, e->key, &first))
        return fill_alias(f, e, (uint32_t)first);
    if (is_nowhere(f, e))
        return leave_out(f, e->name);
    r = find_storage(f, e, &storage, &tied, &index);
    if (r)
        return r;
    if (tied && !trained)
        return fill_alias(f, e, index);
    if (trained)
        r = fill_trained(f, e, &index);
    else
        r = fill_plain(f, e,
                       e->param    ? e->param->shape
                       : e->frozen ? e->frozen->shape
                                   : e->tensor->shape,
                       frozen, &index);
    if (!r)
        r = remember(f, &f->added, e->key, index);
    return r || !storage ? r : remember(f, &f->storages, storage, index);
}

/* What the files say about a name, and about what it is tied to. */
static void look_up(struct fill *f, struct entry *e)
{
    uint64_t index;

    e->key = e->name;
    if (gf_strmap_get(&f->shared, e->name, &index))
        e->key = model_of(f)->shared[index].name;
    e->buffer = gf_strmap_get(&f->buffers, e->name, &index);
    if (gf_strmap_get(&f->ds->names, e->key, &index))
        e->param = &f->ds->params[index];
    else if (gf_strmap_get(&f->frozen, e->key, &index))
        e->frozen = &model_of(f)->frozen.at[index];
}

/* Modules may keep anything in a state dict (_extra_state), but not in a weight's place. */
static int judge_odd(struct fill *f, const struct entry *e)
{
    if (!e->param && !e->frozen && !e->buffer)
        return 0;
    return gf_fail(f->err, GF_EBAD, "'%s': %s '%s' is no tensor", e->file->path,
                   e->buffer ? "buffer" : "parameter", e->name);
}

static int fill_state(struct fill *f, struct gf_ds_file *file,
                      const struct gf_ds_state *state, const char *prefix)
{
    const char *odd = NULL; /* the first of `nodd` entries that are no tensors */
    size_t nodd = 0;

    for (size_t i = 0; i < state->n; i++) {
        struct entry e = { .file = file,
                           .tensor = &state->at[i],
                           .name = state->at[i].name };
        int r;

        if (prefix)
            e.name = gf_arena_printf(&f->ds->arena, "%s.%s", prefix, e.name);
        if (!e.name)
            return gf_nomem(f->err);
        look_up(f, &e);
        if (f->ds->moe && file->want == GF_DS_WANT_STATE && e.param) {
            e.param->seen = true;
            e.param = NULL;
        }
        r = e.tensor->odd ? judge_odd(f, &e) : fill_entry(f, &e);
        if (r)
            return r;
        if (e.tensor->odd && nodd++ == 0)
            odd = e.name;
    }
    if (nodd)
        return warned(
            f, gf_found_warn(f->ds->out,
                             "'%s': left out %zu entries that are no tensors: '%s'%s",
                             file->path, nodd, odd, nodd > 1 ? " ..." : ""));
    return 0;
}

/* Layer files hold bare names: the full one starts with the layer's number. */
static int fill_parts(struct fill *f)
{
    struct gf_ds_set set = gf_ds_dir_kind(f->ds->dir, GF_DS_LAYER);
    int r = 0;

    for (size_t i = 0; i < f->ds->parts.n && !r; i++) {
        char number[16] = "";

        if (f->ds->pipeline)
            snprintf(number, sizeof(number), "%" PRIu32, set.at[i].is.layer);
        r = fill_state(f, &f->ds->parts.at[i], &f->ds->parts.at[i].state,
                       f->ds->pipeline ? number : NULL);
    }
    return r;
}

/* Trained parameters that no state dict has. */
static int fill_unseen(struct fill *f)
{
    size_t n = 0;
    const char *name = NULL;
    int r = 0;

    for (size_t i = 0; i < f->ds->nparams && !r; i++) {
        struct gf_ds_param *param = &f->ds->params[i];
        struct gf_tensor_spec spec = { .name = param->name,
                                       .shape = param->shape,
                                       .dtype = param->dtype,
                                       .live = param->dtype,
                                       .copy = GF_NONE,
                                       .alias = GF_NONE };
        const char *path = param->stage->models.at[0].path;

        /* Experts: their files have them by global numbers. Tied layers of a pipeline: the
         * layer files have them by another name. */
        if (param->seen || f->ds->moe ||
            (f->ds->pipeline && strncmp(param->name, "tied_modules.", 13) == 0))
            continue;
        if (f->ds->pipeline || !param->has_master)
            return gf_fail(f->err, GF_EINCOMPLETE, "'%s': no file has the weights of '%s'",
                           path, param->name);
        r = add(f, path, &spec, NULL);
        if (!r)
            r = gf_ds_add_master(f->ds, param, f->err);
        if (n++ == 0)
            name = param->name;
    }
    if (r || n == 0)
        return r;
    return warned(f,
                  gf_found_warn(f->ds->out,
                                "%zu trained parameters are not in 'module', first '%s': "
                                "served as stored",
                                n, name));
}

static int judge_nowhere(struct fill *f)
{
    const struct gf_ds_file *file = &f->ds->stages[0].models.at[0];
    bool excluded = is_excluding(f);

    if (f->nowhere == 0)
        return 0;
    if (!excluded && !f->ds->in->allow_incomplete)
        return gf_fail(
            f->err, GF_EINCOMPLETE,
            "'%s': no bytes for %zu parameters, first '%s': frozen ones were not "
            "saved before DeepSpeed 0.9.1, tied ones not listed before 0.9.2 "
            "(allow_incomplete leaves them out)",
            file->path, f->nowhere, f->first_nowhere);
    if (!excluded) {
        f->ds->out->complete = GF_COMPLETE_NO;
        snprintf(f->ds->out->why, sizeof(f->ds->out->why), "no bytes for %zu parameters",
                 f->nowhere);
    }
    return warned(f, gf_found_warn(f->ds->out, "%zu parameters were not saved, first '%s'",
                                   f->nowhere, f->first_nowhere));
}

static int index_names(struct fill *f)
{
    const struct gf_ds_model *model = model_of(f);
    int r = 0;

    for (size_t i = 0; i < model->nshared && !r; i++)
        r = remember(f, &f->shared, model->shared[i].alias, i);
    for (size_t i = 0; i < model->frozen.n && !r; i++)
        r = remember(f, &f->frozen, model->frozen.at[i].name, i);
    for (size_t s = 0; s < f->ds->nstages; s++) {
        const struct gf_ds_model *stage = &f->ds->stages[s].models.at[0].model;

        for (size_t i = 0; i < stage->nbuffers && !r; i++)
            r = remember(f, &f->buffers, stage->buffers[i], i);
    }
    return r;
}

int gf_ds_fill(struct gf_ds *ds, struct gf_err *err)
{
    struct fill f = { .ds = ds, .err = err };
    int r = gf_catalog_new(ds->in->limits, &ds->out->catalog, err);

    f.catalog = ds->out->catalog;
    if (!r)
        r = index_names(&f);
    if (!r && !ds->pipeline)
        r = fill_state(&f, &ds->stages[0].models.at[0], &model_of(&f)->module, NULL);
    if (!r)
        r = fill_parts(&f);
    if (!r)
        r = fill_unseen(&f);
    if (!r)
        r = judge_nowhere(&f);
    gf_strmap_done(&f.added);
    gf_strmap_done(&f.storages);
    gf_strmap_done(&f.shared);
    gf_strmap_done(&f.frozen);
    gf_strmap_done(&f.buffers);
    return r;
}
