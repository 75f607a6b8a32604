/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view.c - which tensors of the catalog a view shows, under which names, as which dtype.
 *
 *   full     the model: wrapper names dropped, tied weights once
 *   raw      every tensor as stored, under its stored name
 *            of a PEFT state: the adapter merged into the base (merged.c)
 *   adapter  of a PEFT state: the adapter file's tensors under its names
 *   base     of a PEFT state: the model under the adapter
 *   X        the component X of several models: names that start with 'X.', without it
 */
#include "view/view.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "view/adapter.h"
#include "view/fit.h"
#include "view/kind.h"
#include "view/view_int.h"

#define MAX_NOTES 64

/* How a view names tensors. */
struct naming {
    bool raw;                   /* as stored */
    bool adapter, base, merged; /* of a PEFT state */
    const char *prefix;         /* only what is below this component, or NULL */
    bool heads_apart;           /* without what trainers put beside the model */
};

int gf_view_note(struct gf_view *view, struct gf_err *err, const char *fmt, ...)
{
    va_list ap;
    char *line;
    int n;

    if (view->notes.n == MAX_NOTES)
        return 0;
    va_start(ap, fmt);
    n = vasprintf(&line, fmt, ap);
    va_end(ap);
    if (n < 0)
        return gf_nomem(err);
    if (gf_vec_push(&view->notes, line, MAX_NOTES)) {
        free(line);
        return gf_nomem(err);
    }
    return 0;
}

/* A value head beside a model that config.json says writes text: save_pretrained() of the
 * model has no head, and it is a view of its own. A class with code of its own, or a reward
 * model's, may have that head itself. */
static bool has_heads_apart(const struct gf_view_spec *spec)
{
    size_t heads = 0, n = 0;

    if (!spec->config || !gf_fit_generates(spec->config))
        return false;
    for (uint32_t i = 0; i < gf_catalog_len(spec->catalog); i++) {
        const struct gf_tensor *tensor = gf_catalog_at(spec->catalog, i);

        n += !tensor->hidden;
        heads += !tensor->hidden && gf_name_is_head(tensor->name);
    }
    return heads && heads < n;
}

static int choose_naming(const struct gf_view_spec *spec, struct naming *ret,
                         struct gf_err *err)
{
    const char *sign;

    *ret = (struct naming){ .raw = !spec->component && strcmp(spec->name, "raw") == 0,
                            .prefix = spec->component ? spec->name : NULL };
    if (ret->raw || ret->prefix)
        return 0;
    if (gf_state_kind(spec->catalog, &sign) == GF_STATE_PEFT) {
        ret->adapter = gf_adapter_is_view(spec->name, "adapter");
        ret->base = strcmp(spec->name, "base") == 0;
        ret->merged = gf_adapter_is_view(spec->name, "full");
        if (ret->adapter || ret->base || ret->merged)
            return 0;
    }
    if (strcmp(spec->name, "full") == 0) {
        switch (gf_state_kind(spec->catalog, &sign)) {
        case GF_STATE_PLAIN:
            ret->heads_apart = has_heads_apart(spec);
            return 0;
        case GF_STATE_PEFT:
            break;
        case GF_STATE_COMPOSITE:
            return gf_fail(err, ENOENT,
                           "no view 'full': tensor '%s' belongs to one of several models, "
                           "each is a view of its own",
                           sign);
        }
    }
    if (gf_view_is_reserved(spec->name))
        return gf_fail(err, ENOENT, "no view '%s' of this checkpoint", spec->name);
    ret->prefix = spec->name;
    return 0;
}

/* *ret: the name in the view, NULL if the view does not show it. */
static int name_of(const struct naming *naming, const struct gf_tensor *tensor,
                   struct gf_arena *arena, const char **ret, struct gf_err *err)
{
    size_t n = naming->prefix ? strlen(naming->prefix) : 0;
    char *name = gf_arena_strdup(arena, tensor->name);

    if (!name)
        return gf_nomem(err);
    if (!naming->raw)
        gf_name_unwrap(tensor->name, name);
    *ret = name;
    if (naming->heads_apart)
        *ret = *ret && gf_name_is_head(tensor->name) ? NULL : *ret;
    if (naming->prefix)
        *ret = strncmp(name, naming->prefix, n) == 0 && name[n] == '.' && name[n + 1]
                   ? name + n + 1
                   : NULL;
    return 0;
}

int gf_items_add(struct gf_items *items, const struct gf_catalog *catalog, const char *name,
                 uint32_t tensor, struct gf_err *err)
{
    uint64_t old;
    int r = gf_strmap_put(&items->by_name, name, items->n, &old);

    if (r == -EEXIST)
        return gf_fail(err, EEXIST, "tensors '%s' and '%s' are both '%s' in this view",
                       gf_catalog_at(catalog, items->at[old].tensor)->name,
                       gf_catalog_at(catalog, tensor)->name, name);
    if (!r && items->n == items->room) {
        size_t room = GF_MAX(items->room * 2, 64);
        struct gf_item *at = reallocarray(items->at, room, sizeof(*at));

        if (!at)
            return gf_nomem(err);
        items->at = at;
        items->room = room;
    }
    if (r)
        return gf_nomem(err);
    items->at[items->n++] = (struct gf_item){ .name = name };
    gf_item_set(&items->at[items->n - 1], catalog, tensor);
    return 0;
}

void gf_item_set(struct gf_item *item, const struct gf_catalog *catalog, uint32_t tensor)
{
    item->tensor = item->like = tensor;
    item->shape = gf_catalog_at(catalog, tensor)->shape;
}

void gf_items_done(struct gf_items *items)
{
    free(items->at);
    gf_strmap_done(&items->by_name);
    *items = (struct gf_items){ 0 };
}

static int collect(const struct gf_view_spec *spec, const struct naming *naming,
                   struct gf_arena *arena, struct gf_items *items, struct gf_err *err)
{
    size_t n = gf_catalog_len(spec->catalog);

    for (uint32_t i = 0; i < n; i++) {
        const struct gf_tensor *tensor = gf_catalog_at(spec->catalog, i);
        const char *name = NULL;
        int r;

        if (tensor->hidden)
            continue;
        r = name_of(naming, tensor, arena, &name, err);
        if (r)
            return r;
        if (!name)
            continue;
        r = gf_items_add(items, spec->catalog, name, i, err);
        if (r)
            return r == -EEXIST ? -GF_EBAD : r;
    }
    if (items->n == 0 && naming->prefix)
        return gf_fail(err, ENOENT, "no view '%s': no tensor's name starts with '%s.'",
                       spec->name, spec->name);
    if (items->n == 0)
        return gf_fail(err, GF_EBAD, "view '%s' would be empty: no tensors", spec->name);
    return 0;
}

/* Which stored tensor supplies tensor `index`, and as what it is served. */
static int choose_expr(const struct gf_view_spec *spec, enum gf_dtype_policy policy,
                       const struct gf_item *item, struct gf_expr *ret, struct gf_err *err)
{
    const struct gf_tensor *tensor = gf_catalog_at(spec->catalog, item->tensor);
    const struct gf_tensor *like = gf_catalog_at(spec->catalog, item->like);
    enum gf_dtype to = like->dtype;
    bool copy = false;

    if (policy == GF_DTYPE_AUTO) {
        to = like->live;
        copy = tensor->copy != GF_NONE;
    } else if (policy == GF_DTYPE_FIXED && gf_dtype_info(to)->wide_float) {
        to = spec->dtype;
        copy = tensor->copy != GF_NONE &&
               gf_catalog_at(spec->catalog, tensor->copy)->dtype == to;
    }
    return gf_expr_gather(spec->catalog, 0, copy ? tensor->copy : item->tensor, to, ret,
                          err);
}

static int add_output(const struct gf_view_spec *spec, enum gf_dtype_policy policy,
                      const struct gf_item *item, struct gf_view *view, struct gf_err *err)
{
    const struct gf_tensor *tensor = gf_catalog_at(spec->catalog, item->tensor);
    struct gf_output *out = &view->outputs[view->n];
    uint64_t numel;
    int r = choose_expr(spec, policy, item, &out->expr, err);

    if (r)
        return r;
    out->expr.first = item->first;
    out->expr.merge = item->merge;
    out->expr.merge_first = item->merge_first;
    out->name = item->name;
    out->dtype = out->expr.to;
    out->shape = item->shape;
    out->storage = item->storage;
    out->buffer = tensor->buffer;
    if (gf_shape_numel(item->shape, &numel) ||
        gf_dtype_nbytes(out->dtype, numel, &out->nbytes) ||
        gf_add(view->nbytes, out->nbytes, &view->nbytes) || view->nbytes > INT64_MAX)
        return gf_fail(err, EOVERFLOW, "tensor '%s' as %s: the view is too large",
                       item->name, gf_dtype_info(out->dtype)->safetensors);
    /* One torch element of F4 is two of ours. */
    if (!tensor->buffer)
        view->nparameters += out->dtype == GF_F4 ? numel / 2 : numel;
    view->n++;
    return 0;
}

static int build(const struct gf_view_spec *spec, struct gf_items *items,
                 struct gf_view *view, struct gf_err *err)
{
    enum gf_dtype_policy policy = spec->policy;
    struct naming naming;
    bool model = false; /* names mean what config.json says */
    int r = choose_naming(spec, &naming, err);

    if (!r) {
        model = spec->config && !naming.raw && !naming.adapter;
        r = naming.merged    ? gf_merged_collect(spec, view, items, err)
            : naming.adapter ? gf_adapter_collect(spec, view, items, err)
            : naming.base    ? gf_base_collect(spec, view, items, err)
                             : collect(spec, &naming, view->arena, items, err);
    }
    if (!r && model)
        r = gf_tied_resolve(spec, items, view, err);
    if (!r && model && spec->names == GF_NAMES_HUB)
        r = gf_items_to_hub(spec, view, items, err);
    if (!r && model && !spec->partial)
        r = gf_expect_layers(spec, items, err);
    if (r)
        return r;
    view->name = gf_arena_strdup(view->arena, spec->name);
    view->outputs = gf_arena_alloc(view->arena, items->n * sizeof(*view->outputs));
    if (!view->name || !view->outputs)
        return gf_nomem(err);
    if (naming.raw && policy == GF_DTYPE_AUTO)
        policy = GF_DTYPE_STORED;
    for (size_t i = 0; i < items->n && !r; i++)
        if (!items->at[i].dropped)
            r = add_output(spec, policy, &items->at[i], view, err);
    if (!r && naming.heads_apart)
        r = gf_view_note(
            view, err, "heads that a trainer put beside the model are views of their own");
    return r;
}

int gf_view_build(const struct gf_view_spec *spec, struct gf_view **ret, struct gf_err *err)
{
    GF_AUTO(gf_view) view = calloc(1, sizeof(*view));
    struct gf_items items = { 0 };
    int r;

    if (!view || !(view->arena = calloc(1, sizeof(*view->arena))))
        return gf_nomem(err);
    r = build(spec, &items, view, err);
    gf_items_done(&items);
    if (!r)
        *ret = gf_take(&view);
    return r;
}

void gf_view_free(struct gf_view *view)
{
    if (!view)
        return;
    for (size_t i = 0; i < view->notes.n; i++)
        free(view->notes.at[i]);
    gf_vec_free(&view->notes);
    gf_vec_free(&view->ties);
    if (view->arena)
        gf_arena_done(view->arena);
    free(view->arena);
    free(view);
}

static bool is_float(enum gf_dtype dtype)
{
    switch (dtype) {
    case GF_F4:
    case GF_F6_E2M3:
    case GF_F6_E3M2:
    case GF_F8_E5M2:
    case GF_F8_E4M3:
    case GF_F8_E8M0:
    case GF_F8_E4M3FNUZ:
    case GF_F8_E5M2FNUZ:
        return true;
    default:
        return gf_dtype_info(dtype)->wide_float;
    }
}

bool gf_view_dtype(const struct gf_view *view, enum gf_dtype *ret)
{
    for (size_t i = 0; i < view->n; i++)
        if (!view->outputs[i].buffer && is_float(view->outputs[i].dtype)) {
            *ret = view->outputs[i].dtype;
            return true;
        }
    return false;
}
