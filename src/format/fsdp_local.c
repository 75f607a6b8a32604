/* SPDX-License-Identifier: Apache-2.0 */
#include "format/fsdp_local.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"
#include "catalog/names.h"
#include "format/rank_files.h"
#include "format/template.h"

#define FLAT "_flat_param"

/* A wrapped module: its flat parameter, and how far the template has used it up. */
struct unit {
    const char *prefix; /* clean, with the dot: "model.layers.0." */
    const char *key;    /* as in the files */
    uint64_t numel, used;
    enum gf_dtype dtype;
    size_t members;
    const char *last; /* the member that was placed last */
};

struct local {
    const struct gf_format_in *in;
    struct gf_found *out;
    const struct gf_rank_set *set;
    struct gf_rank_states states;
    struct gf_arena arena;
    struct gf_strmap *names; /* per file: clean name -> tensor */
    struct unit *units;
    size_t nunits;
    struct gf_strmap by_prefix; /* -> unit */
    bool sliced;                /* parameters stand under their names, in slices */
};

static bool is_flat(const char *name)
{
    const char *dot = strrchr(name, '.');

    return strcmp(dot ? dot + 1 : name, FLAT) == 0;
}

/* The tensor of this clean name in a file, or NULL. */
static const struct gf_state_tensor *in_file(const struct local *l, size_t file,
                                             const char *name)
{
    uint64_t i;

    return gf_strmap_get(&l->names[file], name, &i) ? &l->states.at[file].at[i] : NULL;
}

static int probe(struct gf_dir *dir, const char *file, char why[static GF_WHY])
{
    GF_AUTO(gf_rank_set) set = NULL;
    struct gf_err err = { 0 };
    int r = file ? -ENOENT : gf_rank_set_find(dir, true, &set, &err);

    if (r && r != -GF_EBAD) {
        snprintf(why, GF_WHY, "no 'pytorch_model_fsdp_rank0.bin'");
        return 0;
    }
    snprintf(why, GF_WHY, "%.200s", r ? err.text : set->paths[0]);
    return GF_LOCAL_SURE;
}

/* Clean names of all files, and the units, which are those of the first file. */
static int index_files(struct local *l, struct gf_err *err)
{
    const struct gf_state *first = &l->states.at[0];

    l->names = gf_arena_alloc(&l->arena, l->states.n * sizeof(*l->names));
    l->units = gf_arena_alloc(&l->arena, first->n * sizeof(*l->units));
    if (!l->names || !l->units)
        return gf_nomem(err);
    for (size_t f = 0; f < l->states.n; f++)
        for (size_t i = 0; i < l->states.at[f].n; i++) {
            const struct gf_state_tensor *t = &l->states.at[f].at[i];
            char *clean = gf_arena_strdup(&l->arena, t->name);
            int r;

            if (!clean)
                return gf_nomem(err);
            gf_name_unwrap(t->name, clean);
            r = gf_strmap_put(&l->names[f], clean, i, NULL);
            if (r == -EEXIST)
                return gf_fail(err, GF_EBAD, "'%s': tensor '%s' is there twice",
                               l->set->paths[f], clean);
            if (!r && f == 0 && t->spread && is_flat(clean)) {
                char *prefix =
                    gf_arena_strndup(&l->arena, clean, strlen(clean) - strlen(FLAT));

                l->units[l->nunits] = (struct unit){
                    .prefix = prefix, .key = clean, .numel = t->numel, .dtype = t->dtype
                };
                r = prefix ? gf_strmap_put(&l->by_prefix, prefix, l->nunits, NULL)
                           : -ENOMEM;
                l->nunits++;
            }
            if (r)
                return gf_nomem(err);
        }
    return 0;
}

/* The innermost unit that this name lies in, or NULL. */
static struct unit *unit_of(struct local *l, const char *name, char *buf)
{
    size_t len = strlen(name);
    uint64_t unit;

    memcpy(buf, name, len + 1);
    do {
        while (len && buf[len - 1] != '.')
            len--;
        buf[len] = '\0';
        if (gf_strmap_get(&l->by_prefix, buf, &unit))
            return &l->units[unit];
    } while (len && len--);
    return NULL;
}

static int add_spec(struct local *l, const struct gf_tensor *want, enum gf_dtype dtype,
                    struct gf_err *err)
{
    struct gf_tensor_spec spec = { .name = want->name,
                                   .shape = want->shape,
                                   .dtype = dtype,
                                   .live = dtype,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };

    return gf_catalog_add(l->out->catalog, &spec, NULL, err);
}

/* --- use_orig_params=True: a slice per rank under the parameter's name ------------------ */

/* Adds the tensor if its name stands in the files. */
static int add_named(struct local *l, const struct gf_tensor *want, const char *clean,
                     bool *ret_done, struct gf_err *err)
{
    const struct gf_state_tensor *any = NULL;
    bool whole = true, flat = true;
    uint64_t sum = 0, at = 0;
    int r;

    for (size_t f = 0; f < l->states.n && !any; f++)
        any = in_file(l, f, clean);
    *ret_done = any != NULL;
    for (size_t f = 0; f < l->states.n && any; f++) {
        const struct gf_state_tensor *t = in_file(l, f, clean);

        if (!t || t->spread || t->dtype != any->dtype)
            return gf_fail(err, t ? GF_EBAD : GF_EINCOMPLETE,
                           "'%s': %s '%s' as in the files of other ranks", l->set->paths[f],
                           t ? "not the same" : "no", clean);
        whole &= gf_shape_equal(t->shape, want->shape);
        flat &= t->shape.rank == 1 && !gf_add(sum, t->numel, &sum);
    }
    if (!any)
        return 0;
    r = add_spec(l, want, any->dtype, err);
    if (!r && whole) /* a buffer, or there is one rank */
        return any->nparts
                   ? gf_catalog_add_strided(l->out->catalog, 0, any->parts[0].offset,
                                            any->parts[0].strides, err)
                   : 0;
    if (!r && (!flat || sum != want->numel))
        return gf_fail(err, GF_EBAD,
                       "tensor '%s': the ranks' slices have %" PRIu64
                       " elements, the template has %" PRIu64,
                       want->name, sum, want->numel);
    for (size_t f = 0; f < l->states.n && !r; f++) {
        const struct gf_state_tensor *t = in_file(l, f, clean);

        if (t->nparts && !gf_shape_contiguous(t->shape, t->parts[0].strides))
            return gf_fail(err, GF_EBAD, "'%s': '%s' is strided", l->set->paths[f], clean);
        if (t->nparts)
            r = gf_catalog_add_linear(l->out->catalog, (uint32_t)f, t->parts[0].offset, at,
                                      t->numel, err);
        at += t->numel;
    }
    return r;
}

/* --- use_orig_params=False: a stretch of the unit's flat parameter ---------------------- */

static int add_stretch(struct local *l, const struct unit *unit, uint64_t from,
                       uint64_t count, struct gf_err *err)
{
    int r = 0;

    for (size_t f = 0; f < l->states.n && !r; f++) {
        const struct gf_state_tensor *t = in_file(l, f, unit->key);

        if (!t || !t->spread || t->shape.rank != 1 || t->numel != unit->numel ||
            t->dtype != unit->dtype)
            return gf_fail(err, GF_EBAD, "'%s': no '%s' as in '%s'", l->set->paths[f],
                           unit->key, l->set->paths[0]);
        for (size_t i = 0; i < t->nparts && !r; i++) {
            const struct gf_state_part *part = &t->parts[i];
            uint64_t lo = GF_MAX(part->first[0], from);
            uint64_t hi = GF_MIN(part->first[0] + part->size[0], from + count);

            if (part->strides[0] != 1 && part->size[0] > 1)
                return gf_fail(err, GF_EBAD, "'%s': '%s' is strided", l->set->paths[f],
                               unit->key);
            if (lo < hi)
                r = gf_catalog_add_linear(l->out->catalog, (uint32_t)f,
                                          part->offset + (lo - part->first[0]) *
                                                             gf_dtype_size(t->dtype),
                                          lo - from, hi - lo, err);
        }
    }
    return r;
}

static int add_member(struct local *l, const struct gf_tensor *want, struct unit *unit,
                      struct gf_err *err)
{
    uint64_t from = unit->used;
    int r;

    if (gf_add(unit->used, want->numel, &unit->used) || unit->used > unit->numel)
        return gf_fail(err, GF_EBAD,
                       "'%s' has %" PRIu64 " elements, too few for the template's '%s'",
                       unit->key, unit->numel, want->name);
    unit->members++;
    unit->last = want->name;
    r = add_spec(l, want, unit->dtype, err);
    return r ? r : add_stretch(l, unit, from, want->numel, err);
}

static int check_units(const struct local *l, struct gf_err *err)
{
    for (size_t i = 0; i < l->nunits && !l->sliced; i++) {
        const struct unit *unit = &l->units[i];

        if (unit->used != unit->numel)
            return gf_fail(err, GF_EBAD,
                           "'%s' has %" PRIu64 " elements, the template's %zu parameters "
                           "of it have %" PRIu64,
                           unit->key, unit->numel, unit->members, unit->used);
    }
    return 0;
}

/* -------------------------------------------------------------------------------------- */

/* Is any of the template's tensors in the files, in another shape? */
static bool has_slices(const struct local *l, char *clean)
{
    for (uint32_t i = 0; i < gf_catalog_len(l->in->template); i++) {
        const struct gf_tensor *want = gf_catalog_at(l->in->template, i);
        const struct gf_state_tensor *t;

        gf_name_unwrap(want->name, clean);
        t = in_file(l, 0, clean);
        if (t && !t->spread && !gf_shape_equal(t->shape, want->shape))
            return true;
    }
    return false;
}

static int add_template(struct local *l, struct gf_err *err)
{
    const struct gf_catalog *template = l->in->template;
    bool ordered = gf_template_is_ordered(template);
    size_t room = l->in->limits->name + 1;
    GF_AUTO_MEM char *clean = malloc(room);
    GF_AUTO_MEM char *buf = malloc(room);
    int r = 0;

    if (!clean || !buf)
        return gf_nomem(err);
    l->sliced = has_slices(l, clean);
    for (uint32_t i = 0; i < gf_catalog_len(template) && !r; i++) {
        const struct gf_tensor *want = gf_catalog_at(template, i);
        struct unit *unit;
        bool done = false;

        if (want->alias != GF_NONE) /* a shared parameter is stored once */
            continue;
        gf_name_unwrap(want->name, clean);
        r = add_named(l, want, clean, &done, err);
        unit = r || done || l->sliced ? NULL : unit_of(l, clean, buf);
        if (!unit) /* one that is nowhere is found by gf_template_check() */
            continue;
        if (unit->members && !ordered)
            return gf_fail(
                err, ENOTSUP,
                "'%s' holds '%s' and '%s', in an order that the template does not "
                "tell: safetensors do not keep it and its model_type is not "
                "known here; config_from= may name a directory with "
                "'pytorch_model.bin'",
                unit->key, unit->last, want->name);
        r = add_member(l, want, unit, err);
    }
    return r ? r : check_units(l, err);
}

/* What the files have beside the template's tensors: buffers are whole. */
static int add_others(struct local *l, struct gf_err *err)
{
    const struct gf_state *first = &l->states.at[0];
    size_t left = 0;
    const char *which = NULL;
    int r = 0;

    for (size_t i = 0; i < first->n && !r; i++) {
        const struct gf_state_tensor *t = &first->at[i];
        GF_AUTO_MEM char *clean = strdup(t->name);

        if (!clean)
            return gf_nomem(err);
        gf_name_unwrap(t->name, clean);
        if (is_flat(clean) || gf_catalog_find(l->out->catalog, clean))
            continue;
        if (t->shape.rank != 1 || !l->sliced) {
            struct gf_state_tensor named = *t;

            named.name = clean;
            r = gf_state_add(l->out, &named, 0, GF_NONE, err);
        } else if (left++ == 0) {
            which = t->name;
        }
    }
    if (r || left == 0)
        return r;
    if (!l->in->allow_incomplete)
        return gf_fail(
            err, GF_EINCOMPLETE,
            "'%s': %zu tensors are not in the template, the first is '%s': their "
            "shapes are not known (allow_incomplete leaves them out)",
            first->path, left, which);
    return gf_found_warn(l->out, "left out %zu tensors that the template lacks: '%s'%s",
                         left, which, left > 1 ? ", ..." : "")
               ? gf_nomem(err)
               : 0;
}

static int need_template(const struct local *l, struct gf_err *err)
{
    if (l->in->template)
        return 0;
    return gf_fail(err, ENOTSUP,
                   "'%s': flat parameters of FSDP's LOCAL_STATE_DICT, without shapes: give "
                   "config_from=DIR, a directory with the base model's weights",
                   l->set->paths[0]);
}

static int read_all(struct local *l, struct gf_err *err)
{
    int r = need_template(l, err);

    if (!r)
        r = gf_rank_states_read(l->in, l->set, &l->states, err);
    if (!r) /* slices do not say their places: never with a rank missing */
        r = gf_rank_set_check(l->set, l->states.world, err);
    if (!r)
        r = gf_rank_states_hand_over(l->in, &l->states, l->out, err);
    if (!r)
        r = index_files(l, err);
    if (!r)
        r = add_template(l, err);
    return r ? r : add_others(l, err);
}

static int local_read(const struct gf_format_in *in, struct gf_found *out,
                      struct gf_err *err)
{
    GF_AUTO(gf_rank_set) set = NULL;
    struct local l = { .in = in, .out = out };
    int r = gf_catalog_new(in->limits, &out->catalog, err);

    out->format = gf_fsdp_local_format.name;
    if (!r) {
        r = gf_rank_set_find(in->dir, true, &set, err);
        if (r == -ENOENT)
            gf_fail(err, ENOENT, "'%s': no 'pytorch_model_fsdp_rank0.bin' in it",
                    in->dir->name);
    }
    if (r)
        return r;
    l.set = set;
    r = read_all(&l, err);
    if (!r) {
        snprintf(out->detail, sizeof(out->detail),
                 "FSDP LOCAL_STATE_DICT, %zu rank%s, use_orig_params=%s", set->n,
                 set->n == 1 ? "" : "s", l.sliced ? "True" : "False");
        snprintf(out->why, sizeof(out->why),
                 "all %zu rank files are present and fit the template", set->n);
        out->complete = GF_COMPLETE_YES;
    }
    for (size_t f = 0; f < l.states.n && l.names; f++)
        gf_strmap_done(&l.names[f]);
    gf_strmap_done(&l.by_prefix);
    gf_rank_states_done(&l.states);
    gf_arena_done(&l.arena);
    return r;
}

const struct gf_format gf_fsdp_local_format = {
    .name = "fsdp-local",
    .layer = GF_LAYER_SHARDS,
    .probe = probe,
    .read = local_read,
};
