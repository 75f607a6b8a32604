/* SPDX-License-Identifier: Apache-2.0 */
#include "format/deepspeed_value.h"

#include <inttypes.h>
#include <string.h>

int gf_ds_room(struct gf_ds_reader *r, size_t n, size_t size, void *ret)
{
    void *p;

    if (n > r->limits->tensors - r->items)
        return gf_fail(r->err, GF_EBAD, "'%s': more than %zu names in it", r->file->path,
                       r->limits->tensors);
    r->items += n;
    p = gf_arena_alloc(&r->file->arena, n * size);
    if (!p)
        return gf_nomem(r->err);
    memcpy(ret, &p, sizeof(p));
    return 0;
}

int gf_ds_not(struct gf_ds_reader *r, const char *what, const char *kind)
{
    return gf_fail(r->err, GF_EBAD, "'%s': %s is no %s", r->file->path, what, kind);
}

int gf_ds_copy_name(struct gf_ds_reader *r, const struct gf_pv *value, const char *what,
                    const char **ret)
{
    const char *name = gf_pv_str(value);
    size_t len = name ? strlen(name) : 0;
    char *copy;

    if (!name)
        return gf_fail(r->err, GF_EBAD, "'%s': a name in %s is no string", r->file->path,
                       what);
    if (len > r->limits->name)
        return gf_fail(r->err, GF_EBAD, "'%s': a name in %s has %zu bytes, %zu are allowed",
                       r->file->path, what, len, r->limits->name);
    copy = gf_arena_strndup(&r->file->arena, name, len);
    if (!copy)
        return gf_nomem(r->err);
    *ret = copy;
    return 0;
}

bool gf_ds_u64(const struct gf_pv *value, uint64_t *ret)
{
    int64_t number;

    if (!gf_pv_int(value, &number) || number < 0)
        return false;
    *ret = (uint64_t)number;
    return true;
}

static int copy_dims(struct gf_ds_reader *r, const uint64_t *dims, uint32_t rank,
                     const uint64_t **ret)
{
    uint64_t *copy = gf_arena_alloc(&r->file->arena, rank * sizeof(*dims));

    if (!copy)
        return gf_nomem(r->err);
    if (rank)
        memcpy(copy, dims, rank * sizeof(*dims));
    *ret = copy;
    return 0;
}

static int read_shape(struct gf_ds_reader *r, const struct gf_pv *key,
                      const struct gf_pv *value, const char *what, struct gf_ds_shape *ret)
{
    uint64_t dims[GF_MAX_RANK];
    int e = gf_ds_copy_name(r, key, what, &ret->name);

    if (e)
        return e;
    if (!gf_pv_size(value, dims, &ret->shape.rank))
        return gf_fail(r->err, GF_EBAD, "'%s': shape of '%s' in %s is no list of sizes",
                       r->file->path, ret->name, what);
    e = copy_dims(r, dims, ret->shape.rank, &ret->shape.dims);
    if (e)
        return e;
    if (gf_shape_numel(ret->shape, &ret->numel) || ret->numel > INT64_MAX / 16)
        return gf_fail(r->err, GF_EBAD, "'%s': impossible shape of '%s' in %s",
                       r->file->path, ret->name, what);
    return 0;
}

int gf_ds_read_shapes(struct gf_ds_reader *r, const struct gf_pv *value, const char *what,
                      struct gf_ds_shapes *ret)
{
    struct gf_ds_shapes shapes = { .n = gf_pv_pairs(value) };
    int e;

    if (!gf_pv_is_dict(value))
        return gf_ds_not(r, what, "dict");
    e = gf_ds_room(r, shapes.n, sizeof(*shapes.at), &shapes.at);
    for (size_t i = 0; i < shapes.n && !e; i++)
        e = read_shape(r, gf_pv_key(value, i), gf_pv_value(value, i), what, &shapes.at[i]);
    if (!e)
        *ret = shapes;
    return e;
}

int gf_ds_read_groups(struct gf_ds_reader *r, const struct gf_pv *value, const char *what,
                      struct gf_ds_groups *ret)
{
    struct gf_ds_groups groups = { .n = gf_pv_is_dict(value) ? 1 : gf_pv_len(value) };
    int e;

    if (!gf_pv_is_dict(value) && !gf_pv_is_list(value))
        return gf_ds_not(r, what, "list");
    e = gf_ds_room(r, groups.n, sizeof(*groups.at), &groups.at);
    for (size_t i = 0; i < groups.n && !e; i++)
        e = gf_ds_read_shapes(r, gf_pv_is_dict(value) ? value : gf_pv_item(value, i), what,
                              &groups.at[i]);
    if (!e)
        *ret = groups;
    return e;
}

int gf_ds_read_flat(struct gf_ds_reader *r, const struct gf_pv *value, const char *what,
                    struct gf_ds_flat *ret)
{
    struct gf_ds_flat flat;
    struct gf_torch_view view;
    enum gf_torch_is is;
    const char *why = NULL;
    int e = gf_torch_tensor(gf_torch_pickle(r->torch), value, r->file->path, what, &is,
                            &view, &why, r->err);

    if (e)
        return e;
    if (is == GF_TORCH_OTHER)
        return gf_ds_not(r, what, "tensor");
    if (is == GF_TORCH_UNSUPPORTED)
        return gf_fail(r->err, ENOTSUP, "'%s': %s: %s", r->file->path, what, why);
    if (view.shape.rank != 1 || view.twist ||
        !gf_shape_contiguous(view.shape, view.strides))
        return gf_ds_not(r, what, "flat tensor");
    flat = (struct gf_ds_flat){ .numel = view.numel, .dtype = view.dtype };
    e = gf_torch_locate(r->torch, &view, &flat.offset, r->err);
    if (!e)
        *ret = flat;
    return e;
}

static int read_tensor(struct gf_ds_reader *r, const char *name, const struct gf_pv *value,
                       struct gf_ds_tensor *ret)
{
    struct gf_torch_view view;
    enum gf_torch_is is;
    const char *why = NULL;
    int e = gf_torch_tensor(gf_torch_pickle(r->torch), value, r->file->path, name, &is,
                            &view, &why, r->err);

    if (e)
        return e;
    if (is == GF_TORCH_TENSOR && view.dtype == GF_F4) {
        is = GF_TORCH_UNSUPPORTED; /* torch counts pairs, catalogs do not */
        why = "four-bit elements";
    }
    if (is == GF_TORCH_UNSUPPORTED)
        return gf_fail(r->err, ENOTSUP, "'%s': tensor '%s': %s", r->file->path, name, why);
    if (is != GF_TORCH_TENSOR) {
        *ret = (struct gf_ds_tensor){ .name = name, .odd = true };
        return 0;
    }
    *ret = (struct gf_ds_tensor){ .name = name,
                                  .start = view.offset,
                                  .numel = view.numel,
                                  .shape = { .rank = view.shape.rank },
                                  .dtype = view.dtype,
                                  .twist = view.twist };
    ret->storage = gf_arena_strdup(&r->file->arena, view.storage.key);
    if (!ret->storage)
        return gf_nomem(r->err);
    e = copy_dims(r, view.shape.dims, view.shape.rank, &ret->shape.dims);
    if (!e)
        e = copy_dims(r, view.strides, view.shape.rank, &ret->strides);
    return e ? e : gf_torch_locate(r->torch, &view, &ret->offset, r->err);
}

int gf_ds_read_state(struct gf_ds_reader *r, const struct gf_pv *dict, const char *what,
                     struct gf_ds_state *ret)
{
    struct gf_ds_state state = { .n = gf_pv_pairs(dict) };
    int e;

    if (!gf_pv_is_dict(dict))
        return gf_ds_not(r, what, "dict");
    e = gf_ds_room(r, state.n, sizeof(*state.at), &state.at);
    for (size_t i = 0; i < state.n && !e; i++) {
        const char *name;

        e = gf_ds_copy_name(r, gf_pv_key(dict, i), what, &name);
        if (!e)
            e = read_tensor(r, name, gf_pv_value(dict, i), &state.at[i]);
    }
    if (!e)
        *ret = state;
    return e;
}
