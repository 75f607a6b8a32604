/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pickle_value.c - looking at a parsed pickle.
 */
#include "container/pickle.h"

#include <string.h>

#include "container/pickle_int.h"

const struct gf_pv *gf_pickle_root(const struct gf_pickle *pickle)
{
    return pickle->root;
}

size_t gf_pickle_persids(const struct gf_pickle *pickle)
{
    return pickle->persids.n;
}

const struct gf_pv *gf_pickle_persid(const struct gf_pickle *pickle, size_t i)
{
    return i < pickle->persids.n ? pickle->persids.at[i] : NULL;
}

void *gf_pickle_alloc(struct gf_pickle *pickle, size_t size)
{
    return gf_arena_alloc(&pickle->arena, size);
}

void gf_pickle_free(struct gf_pickle *pickle)
{
    if (!pickle)
        return;
    gf_arena_done(&pickle->arena);
    gf_vec_free(&pickle->persids);
    free(pickle);
}

enum gf_pv_kind gf_pv_kind(const struct gf_pv *v)
{
    return v ? (enum gf_pv_kind)v->kind : GF_PV_NONE;
}

bool gf_pv_is_none(const struct gf_pv *v)
{
    return gf_pv_kind(v) == GF_PV_NONE;
}

bool gf_pv_int(const struct gf_pv *v, int64_t *ret)
{
    if (gf_pv_kind(v) == GF_PV_INT)
        *ret = v->u.integer;
    else if (gf_pv_kind(v) == GF_PV_BOOL)
        *ret = v->u.truth;
    else
        return false;
    return true;
}

bool gf_pv_bool(const struct gf_pv *v, bool *ret)
{
    if (gf_pv_kind(v) != GF_PV_BOOL)
        return false;
    *ret = v->u.truth;
    return true;
}

bool gf_pv_float(const struct gf_pv *v, double *ret)
{
    if (gf_pv_kind(v) != GF_PV_FLOAT)
        return false;
    *ret = v->u.real;
    return true;
}

const char *gf_pv_str(const struct gf_pv *v)
{
    enum gf_pv_kind kind = gf_pv_kind(v);

    return (kind == GF_PV_STR || kind == GF_PV_BYTES) && v->text ? v->u.s : NULL;
}

const uint8_t *gf_pv_bytes(const struct gf_pv *v, size_t *ret_len)
{
    enum gf_pv_kind kind = gf_pv_kind(v);

    if (kind != GF_PV_STR && kind != GF_PV_BYTES)
        return NULL;
    *ret_len = v->n;
    return (const uint8_t *)v->u.s;
}

static const struct gf_pv *list_of(const struct gf_pv *v)
{
    switch (gf_pv_kind(v)) {
    case GF_PV_TUPLE:
    case GF_PV_LIST:
    case GF_PV_SET:
        return v;
    case GF_PV_CALL:
        return v->u.call->list;
    default:
        return NULL;
    }
}

bool gf_pv_is_list(const struct gf_pv *v)
{
    return list_of(v) != NULL;
}

size_t gf_pv_len(const struct gf_pv *v)
{
    v = list_of(v);
    return v ? v->n : 0;
}

const struct gf_pv *gf_pv_item(const struct gf_pv *v, size_t i)
{
    v = list_of(v);
    return v && i < v->n ? v->u.at[i] : NULL;
}

static const struct gf_pv *dict_of(const struct gf_pv *v)
{
    switch (gf_pv_kind(v)) {
    case GF_PV_DICT:
        return v;
    case GF_PV_CALL:
        return v->u.call->items;
    default:
        return NULL;
    }
}

/* Python 2: OrderedDict([[key, value], ...]). */
static const struct gf_pv *pairs_argument(const struct gf_pv *v)
{
    return dict_of(v) || !gf_pv_is_call(v, "collections", "OrderedDict")
               ? NULL
               : gf_pv_item(gf_pv_args(v), 0);
}

bool gf_pv_is_dict(const struct gf_pv *v)
{
    return dict_of(v) || gf_pv_is_call(v, "collections", "OrderedDict");
}

size_t gf_pv_pairs(const struct gf_pv *v)
{
    const struct gf_pv *dict = dict_of(v);

    return dict ? dict->n : gf_pv_len(pairs_argument(v));
}

static const struct gf_pv *half_pair(const struct gf_pv *v, size_t i, size_t which)
{
    const struct gf_pv *dict = dict_of(v);

    if (!dict)
        return gf_pv_item(gf_pv_item(pairs_argument(v), i), which);
    return i < dict->n ? dict->u.at[2 * i + which] : NULL;
}

const struct gf_pv *gf_pv_key(const struct gf_pv *v, size_t i)
{
    return half_pair(v, i, 0);
}

const struct gf_pv *gf_pv_value(const struct gf_pv *v, size_t i)
{
    return half_pair(v, i, 1);
}

const struct gf_pv *gf_pv_get(const struct gf_pv *v, const char *key)
{
    for (size_t i = gf_pv_pairs(v); i-- > 0;) {
        const char *have = gf_pv_str(gf_pv_key(v, i));

        if (have && strcmp(have, key) == 0)
            return gf_pv_value(v, i);
    }
    return NULL;
}

const char *gf_pv_global_module(const struct gf_pv *v)
{
    return gf_pv_kind(v) == GF_PV_GLOBAL ? v->u.path[0] : NULL;
}

const char *gf_pv_global_name(const struct gf_pv *v)
{
    return gf_pv_kind(v) == GF_PV_GLOBAL ? v->u.path[1] : NULL;
}

/* Python 3 writes the module's Python 2 name in protocols up to 2. */
static const char *module_now(const char *module)
{
    return strcmp(module, "__builtin__") == 0 ? "builtins" : module;
}

bool gf_pv_is_global(const struct gf_pv *v, const char *module, const char *name)
{
    return gf_pv_kind(v) == GF_PV_GLOBAL && strcmp(v->u.path[1], name) == 0 &&
           (!module || strcmp(module_now(v->u.path[0]), module_now(module)) == 0);
}

const struct gf_pv *gf_pv_func(const struct gf_pv *v)
{
    return gf_pv_kind(v) == GF_PV_CALL ? v->u.call->func : NULL;
}

const struct gf_pv *gf_pv_args(const struct gf_pv *v)
{
    return gf_pv_kind(v) == GF_PV_CALL ? v->u.call->args : NULL;
}

const struct gf_pv *gf_pv_state(const struct gf_pv *v)
{
    return gf_pv_kind(v) == GF_PV_CALL ? v->u.call->state : NULL;
}

const struct gf_pv *gf_pv_persid(const struct gf_pv *v)
{
    return gf_pv_kind(v) == GF_PV_PERSID ? v->u.id : NULL;
}

bool gf_pv_is_call(const struct gf_pv *v, const char *module, const char *name)
{
    return gf_pv_is_global(gf_pv_func(v), module, name);
}

bool gf_pv_size(const struct gf_pv *v, uint64_t *ret, uint32_t *ret_n)
{
    uint64_t dims[GF_MAX_RANK];
    size_t n;

    if (gf_pv_is_call(v, "torch", "Size"))
        v = gf_pv_item(gf_pv_args(v), 0);
    if (gf_pv_kind(v) != GF_PV_TUPLE && gf_pv_kind(v) != GF_PV_LIST)
        return false;
    n = gf_pv_len(v);
    if (n > GF_MAX_RANK)
        return false;
    for (size_t i = 0; i < n; i++) {
        int64_t dim;

        if (!gf_pv_int(gf_pv_item(v, i), &dim) || dim < 0)
            return false;
        dims[i] = (uint64_t)dim;
    }
    if (n)
        memcpy(ret, dims, n * sizeof(*dims));
    *ret_n = (uint32_t)n;
    return true;
}
