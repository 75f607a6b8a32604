/* SPDX-License-Identifier: Apache-2.0 */
#include "format/torch_state.h"

#include <inttypes.h>
#include <string.h>

#include "base/math.h"
#include "format/dtensor.h"
#include "format/state_pick.h"
#include "format/torch_open.h"

struct reader {
    struct gf_torch *torch;
    struct gf_state *state;
    uint64_t rank;
    const struct gf_limits *limits;
    struct gf_err *err;
};

static int copy_numbers(struct reader *r, const uint64_t *from, uint32_t n,
                        const uint64_t **ret)
{
    uint64_t *copy = gf_arena_alloc(&r->state->arena, n * sizeof(*copy));

    if (!copy)
        return gf_nomem(r->err);
    if (n)
        memcpy(copy, from, n * sizeof(*copy));
    *ret = copy;
    return 0;
}

static int room_for_parts(struct reader *r, struct gf_state_tensor *tensor, size_t n)
{
    tensor->parts = gf_arena_alloc(&r->state->arena, n * sizeof(*tensor->parts));
    return tensor->parts ? 0 : gf_nomem(r->err);
}

static int add_part(struct reader *r, struct gf_state_tensor *tensor, const uint64_t *first,
                    const struct gf_torch_view *view)
{
    struct gf_state_part *part = &tensor->parts[tensor->nparts];
    uint32_t n = view->shape.rank;
    int e = copy_numbers(r, first, n, &part->first);

    if (!e)
        e = copy_numbers(r, view->shape.dims, n, &part->size);
    if (!e)
        e = copy_numbers(r, view->strides, n, &part->strides);
    if (!e)
        e = gf_torch_locate(r->torch, view, &part->offset, r->err);
    if (!e)
        tensor->nparts++;
    return e;
}

/* torch counts pairs of F4, the catalog single ones. *why: it cannot. */
static void count_halves(const struct gf_torch_view *view, uint64_t *dims,
                         uint64_t *strides, const char **why)
{
    uint32_t n = view->shape.rank;
    struct gf_shape halves = { n, dims };
    uint64_t numel;

    if (n == 0 || !gf_shape_contiguous(view->shape, view->strides) ||
        gf_mul(dims[n - 1], 2, &dims[n - 1]) || gf_shape_numel(halves, &numel)) {
        *why = "float4 tensor that is a scalar or strided";
        return;
    }
    gf_shape_strides(halves, strides);
}

static int read_whole(struct reader *r, const struct gf_torch_view *view,
                      struct gf_state_tensor *tensor, const char **why)
{
    static const uint64_t zeros[GF_MAX_RANK];
    uint64_t dims[GF_MAX_RANK], strides[GF_MAX_RANK];
    struct gf_torch_view in_catalog = *view;
    uint32_t n = view->shape.rank;
    int e;

    if (n) {
        memcpy(dims, view->shape.dims, n * sizeof(*dims));
        memcpy(strides, view->strides, n * sizeof(*strides));
    }
    if (view->dtype == GF_F4)
        count_halves(view, dims, strides, why);
    if (*why)
        return 0;
    in_catalog.shape.dims = dims;
    in_catalog.strides = strides;
    tensor->dtype = view->dtype;
    tensor->twist = view->twist;
    tensor->start = view->offset;
    tensor->ranks = 1;
    tensor->shape.rank = n;
    e = copy_numbers(r, dims, n, &tensor->shape.dims);
    if (e || gf_shape_numel(tensor->shape, &tensor->numel))
        return e ? e : gf_nomem(r->err); /* impossible: checked with the view */
    tensor->storage = gf_arena_strdup(&r->state->arena, view->storage.key);
    if (!tensor->storage)
        return gf_nomem(r->err);
    e = room_for_parts(r, tensor, 1);
    return e || tensor->numel == 0 ? e : add_part(r, tensor, zeros, &in_catalog);
}

static int read_spread(struct reader *r, const struct gf_dtensor *dt,
                       struct gf_state_tensor *tensor)
{
    int e = copy_numbers(r, dt->shape.dims, dt->shape.rank, &tensor->shape.dims);

    if (!e)
        e = room_for_parts(r, tensor, dt->n);
    tensor->shape.rank = dt->shape.rank;
    tensor->dtype = dt->dtype;
    tensor->spread = true;
    tensor->ranks = dt->ranks;
    if (!e && gf_shape_numel(tensor->shape, &tensor->numel))
        return gf_nomem(r->err); /* impossible: checked when it was parsed */
    for (size_t i = 0; i < dt->n && !e; i++)
        e = add_part(r, tensor, dt->boxes[i].first, &dt->boxes[i].view);
    return e;
}

static int read_entry(struct reader *r, const char *name, const struct gf_pv *value)
{
    struct gf_state *s = r->state;
    struct gf_state_tensor *tensor = &s->at[s->n];
    struct gf_pickle *pickle = gf_torch_pickle(r->torch);
    struct gf_torch_view view;
    struct gf_dtensor dt;
    enum gf_torch_is is = GF_TORCH_OTHER;
    const char *why = NULL;
    int e = gf_dtensor_parse(pickle, value, r->rank, s->path, name, &is, &dt, &why, r->err);

    if (!e && is == GF_TORCH_TENSOR) {
        e = read_spread(r, &dt, tensor);
    } else if (!e && is == GF_TORCH_OTHER) {
        e = gf_torch_tensor(pickle, value, s->path, name, &is, &view, &why, r->err);
        if (!e && is == GF_TORCH_TENSOR)
            e = read_whole(r, &view, tensor, &why);
    }
    if (e)
        return e;
    if (why) {
        s->odd[s->nodd++] = (struct gf_state_odd){ name, why };
        *tensor = (struct gf_state_tensor){ 0 };
    } else if (is == GF_TORCH_TENSOR) {
        tensor->name = name;
        s->n++;
    } else if (s->others++ == 0) {
        s->other = name;
    }
    return 0;
}

static int read_entries(struct reader *r, const struct gf_pv *dict)
{
    struct gf_state *s = r->state;
    size_t n = gf_pv_pairs(dict);

    if (n > r->limits->tensors)
        return gf_fail(r->err, GF_EBAD, "'%s': %zu tensors, at most %zu are read", s->path,
                       n, r->limits->tensors);
    s->at = gf_arena_alloc(&s->arena, n * sizeof(*s->at));
    s->odd = gf_arena_alloc(&s->arena, n * sizeof(*s->odd));
    if (!s->at || !s->odd)
        return gf_nomem(r->err);
    for (size_t i = 0; i < n; i++) {
        const char *key = gf_pv_str(gf_pv_key(dict, i)), *name;
        int e;

        if (strlen(key) > r->limits->name)
            return gf_fail(r->err, GF_EBAD, "'%s': a name of %zu bytes, at most %zu",
                           s->path, strlen(key), r->limits->name);
        name = gf_arena_strdup(&s->arena, key);
        if (!name)
            return gf_nomem(r->err);
        e = read_entry(r, name, gf_pv_value(dict, i));
        if (e)
            return e;
    }
    return 0;
}

static void read_step(struct gf_state *s, const struct gf_pv *root)
{
    static const char *const keys[] = { "global_step", "step", "iteration" };
    int64_t step;

    s->lightning = gf_pv_get(root, "pytorch-lightning_version") != NULL;
    for (size_t i = 0; i < GF_COUNT(keys) && !s->has_step; i++)
        if (gf_pv_int(gf_pv_get(root, keys[i]), &step) && step >= 0) {
            s->has_step = true;
            s->step = (uint64_t)step;
        }
}

int gf_state_read(struct gf_dir *dir, const char *path, uint64_t rank,
                  const struct gf_limits *limits, struct gf_state *ret, struct gf_err *err)
{
    struct reader r = { .state = ret, .rank = rank, .limits = limits, .err = err };
    GF_AUTO(gf_torch) torch = NULL;
    struct gf_state_pick pick;
    int e = gf_dir_open(dir, path, &ret->source, err);

    ret->path = path;
    ret->arena.ceiling = limits->pickle_arena;
    if (!e)
        e = gf_torch_open(ret->source, limits, &torch, err);
    if (!e)
        e = gf_state_pick(gf_torch_pickle(torch), path, limits, &pick, err);
    if (e)
        return e;
    r.torch = torch;
    ret->where = gf_arena_strdup(&ret->arena, pick.where);
    ret->rival = *pick.rival ? gf_arena_strdup(&ret->arena, pick.rival) : NULL;
    if (!ret->where || (*pick.rival && !ret->rival))
        return gf_nomem(err);
    read_step(ret, gf_torch_root(torch));
    return read_entries(&r, pick.dict);
}

void gf_state_done(struct gf_state *state)
{
    gf_source_free(state->source);
    gf_arena_done(&state->arena);
    *state = (struct gf_state){ 0 };
}

int gf_state_judge(const struct gf_state *state, bool allow_incomplete,
                   struct gf_found *out, struct gf_err *err)
{
    int r = 0;

    if (state->nodd && !allow_incomplete)
        return gf_fail(err, ENOTSUP,
                       "'%s': %zu tensor%s cannot be served, the first is '%s': %s "
                       "(allow_incomplete leaves them out)",
                       state->path, state->nodd, state->nodd == 1 ? "" : "s",
                       state->odd[0].name, state->odd[0].why);
    if (state->nodd)
        r = gf_found_warn(out, "'%s': left out %zu tensor%s, the first is '%s': %s",
                          state->path, state->nodd, state->nodd == 1 ? "" : "s",
                          state->odd[0].name, state->odd[0].why);
    if (!r && state->others)
        r = gf_found_warn(
            out, "'%s': %zu entries beside the tensors are no tensors: '%s'%s", state->path,
            state->others, state->other, state->others > 1 ? ", ..." : "");
    if (!r && state->rival)
        r = gf_found_warn(out, "'%s': served is '%s', not '%s', which holds tensors, too",
                          state->path, *state->where ? state->where : "the root",
                          *state->rival ? state->rival : "the root");
    return r ? gf_nomem(err) : 0;
}

int gf_state_add(struct gf_found *out, const struct gf_state_tensor *tensor,
                 uint32_t source, uint32_t alias, struct gf_err *err)
{
    struct gf_tensor_spec spec = { .name = tensor->name,
                                   .shape = tensor->shape,
                                   .dtype = tensor->dtype,
                                   .live = tensor->dtype,
                                   .copy = GF_NONE,
                                   .alias = alias,
                                   .twist = tensor->twist };
    int r = gf_catalog_add(out->catalog, &spec, NULL, err);

    if (r || tensor->nparts == 0)
        return r;
    if (alias != GF_NONE)
        return gf_catalog_share(out->catalog, alias, err);
    return gf_catalog_add_strided(out->catalog, source, tensor->parts[0].offset,
                                  tensor->parts[0].strides, err);
}

bool gf_state_is_side_file(const char *name)
{
    static const char *const starts[] = {
        "optim",         "scheduler",
        "lr_scheduler",  "random_states",
        "rng_state",     "scaler",
        "training_args", "sampler",
        "dl_state_dict", "custom_checkpoint",
        "extra_state",   "profile",
        "tokenizer",
    };
    const char *slash = strrchr(name, '/');

    name = slash ? slash + 1 : name;
    for (size_t i = 0; i < GF_COUNT(starts); i++)
        if (strncmp(name, starts[i], strlen(starts[i])) == 0)
            return true;
    return strstr(name, "_optim_states.") != NULL;
}
