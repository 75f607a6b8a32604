/* SPDX-License-Identifier: Apache-2.0 */
#include "format/dtensor.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "base/math.h"

#define MAX_WRAPS 8
#define LAYOUT_DEPTH 4

struct mesh {
    uint64_t size[GF_MAX_RANK], at[GF_MAX_RANK]; /* ranks, and this rank's place */
    uint32_t n;
    bool outside; /* this rank is not in the mesh */
};

/* How a tensor lies on one dimension of the mesh. */
struct placement {
    enum { REPLICATE, SHARD, STRIDED } kind;
    uint64_t dim, factor;
};

struct reader {
    struct gf_pickle *pickle;
    const char *file, *what;
    uint64_t rank;
    struct gf_dtensor out;
    const char *why; /* it cannot be served */
    struct gf_err *err;
};

#define BAD(r, fmt, ...)                                                                   \
    gf_fail((r)->err, GF_EBAD, "'%s': tensor '%s': " fmt, (r)->file, (r)->what,            \
            ##__VA_ARGS__)

static int cannot(struct reader *r, const char *why)
{
    r->why = why;
    return 0;
}

/* The attributes of an object: its state is a dict, or (None, dict) for __slots__. */
static const struct gf_pv *attributes(const struct gf_pv *object)
{
    const struct gf_pv *state = gf_pv_state(object);

    if (!gf_pv_is_dict(state) && gf_pv_len(state) == 2)
        state = gf_pv_item(state, 1);
    return gf_pv_is_dict(state) ? state : NULL;
}

static const struct gf_pv *attribute(const struct gf_pv *object, const char *name)
{
    return gf_pv_get(attributes(object), name);
}

static bool number(const struct gf_pv *v, uint64_t *ret)
{
    int64_t i;

    if (!gf_pv_int(v, &i) || i < 0)
        return false;
    *ret = (uint64_t)i;
    return true;
}

static bool is_torch_class(const struct gf_pv *v, const char *name)
{
    const char *module = gf_pv_global_module(v);

    return module && strncmp(module, "torch.distributed.", 18) == 0 &&
           gf_pv_is_global(v, NULL, name);
}

/* --- DTensor -------------------------------------------------------------------------- */

/* 4, (4,), ((2, 2),): all are four ranks. */
static bool product(const struct gf_pv *v, unsigned depth, uint64_t *ret)
{
    uint64_t one, all = 1;

    if (!gf_pv_is_list(v))
        return number(v, ret);
    for (size_t i = 0; i < gf_pv_len(v); i++)
        if (depth == 0 || !product(gf_pv_item(v, i), depth - 1, &one) ||
            gf_mul(all, one, &all))
            return false;
    *ret = all;
    return true;
}

/* The sizes of the mesh's dimensions, wherever this version of torch keeps them. */
static bool mesh_sizes(struct reader *r, const struct gf_pv *object, struct mesh *mesh)
{
    const struct gf_pv *layout = attribute(object, "_layout");
    const struct gf_pv *axes = attribute(layout, "axes"), *list = axes;
    const struct gf_pv *tensor = attribute(object, "mesh");
    struct gf_torch_view view;
    enum gf_torch_is is = GF_TORCH_OTHER;
    const char *why;

    if (tensor) {
        if (gf_torch_tensor(r->pickle, tensor, r->file, "mesh", &is, &view, &why, NULL) ||
            is != GF_TORCH_TENSOR)
            return false;
        mesh->n = view.shape.rank;
        if (mesh->n)
            memcpy(mesh->size, view.shape.dims, mesh->n * sizeof(*mesh->size));
        return true;
    }
    if (!axes) {
        list = attribute(layout, "shape");
        if (!gf_pv_is_list(list)) {
            mesh->n = 1;
            return number(list, &mesh->size[0]);
        }
    }
    if (!gf_pv_is_list(list) || gf_pv_len(list) > GF_MAX_RANK)
        return false;
    mesh->n = (uint32_t)gf_pv_len(list);
    for (uint32_t i = 0; i < mesh->n; i++) {
        const struct gf_pv *size = gf_pv_item(list, i);

        if (!product(axes ? attribute(size, "shape") : size, LAYOUT_DEPTH, &mesh->size[i]))
            return false;
    }
    return true;
}

/* Sizes, and this rank's place: as the pickle says, else by the order of ranks. */
static int read_mesh(struct reader *r, const struct gf_pv *object, struct mesh *mesh)
{
    const struct gf_pv *attrs = attributes(object), *at;
    uint64_t rank;
    uint32_t n;

    if (!mesh_sizes(r, object, mesh))
        return cannot(r, "DTensor on a device mesh of unknown form");
    r->out.ranks = 1;
    for (uint32_t i = 0; i < mesh->n; i++)
        if (mesh->size[i] == 0 || gf_mul(r->out.ranks, mesh->size[i], &r->out.ranks) ||
            r->out.ranks > UINT32_MAX)
            return BAD(r, "impossible device mesh");
    at = gf_pv_get(attrs, "_coordinate_on_dim");
    if (at) {
        mesh->outside = gf_pv_is_none(at);
        if (!mesh->outside && (!gf_pv_size(at, mesh->at, &n) || n != mesh->n))
            return BAD(r, "malformed coordinates in its device mesh");
    } else {
        rank = r->rank % r->out.ranks;
        for (uint32_t i = mesh->n; i-- > 0; rank /= mesh->size[i])
            mesh->at[i] = rank % mesh->size[i];
    }
    for (uint32_t i = 0; i < mesh->n && !mesh->outside; i++)
        if (mesh->at[i] >= mesh->size[i])
            return BAD(r, "coordinate %" PRIu64 " in a device mesh of %" PRIu64,
                       mesh->at[i], mesh->size[i]);
    return 0;
}

/* An argument of a placement: Shard(dim), _StridedShard(dim, split_factor). */
static bool placement_number(const struct gf_pv *v, const char *name, size_t i,
                             uint64_t *ret)
{
    const struct gf_pv *found = attribute(v, name);

    if (!found)
        found = gf_pv_item(gf_pv_state(v), i);
    if (!found)
        found = gf_pv_item(gf_pv_args(v), i);
    return number(found, ret);
}

static int read_placement(struct reader *r, const struct gf_pv *v, struct placement *ret)
{
    const struct gf_pv *class = gf_pv_func(v);
    bool strided = is_torch_class(class, "_StridedShard");

    *ret = (struct placement){ .kind = REPLICATE };
    if (is_torch_class(class, "Replicate"))
        return 0;
    if (is_torch_class(class, "Partial") || is_torch_class(class, "_Partial"))
        return cannot(r, "DTensor whose ranks hold terms of a sum (Partial)");
    if (!strided && !is_torch_class(class, "Shard"))
        return cannot(r, "DTensor with an unknown placement");
    ret->kind = strided ? STRIDED : SHARD;
    if (!placement_number(v, "dim", 0, &ret->dim) || ret->dim >= r->out.shape.rank)
        return BAD(r, "malformed placement");
    if (strided && (!placement_number(v, "split_factor", 1, &ret->factor) || !ret->factor))
        return BAD(r, "malformed placement");
    return 0;
}

/* In which order the dimensions of the mesh cut dimension `dim` of the tensor: from left to
 * right, but a strided one comes behind those on its right that make up its factor. */
static bool cutting_order(const struct mesh *mesh, const struct placement *placements,
                          uint64_t dim, uint32_t *order, uint32_t *ret_n)
{
    uint32_t n = 0;

    for (uint32_t i = mesh->n; i-- > 0;) {
        const struct placement *p = &placements[i];
        uint64_t before = 1;
        uint32_t to = 0;

        if (p->kind == REPLICATE || p->dim != dim)
            continue;
        if (p->kind == STRIDED) {
            while (to < n && before < p->factor)
                before *= mesh->size[order[to++]]; /* at most all ranks: 32 bits */
            if (before != p->factor)
                return false;
        }
        memmove(order + to + 1, order + to, (n - to) * sizeof(*order));
        order[to] = i;
        n++;
    }
    *ret_n = n;
    return true;
}

/* An explicit order, which torch writes since 2.10: ((tensor dim, (mesh dims)), ...). */
static bool told_order(const struct mesh *mesh, const struct gf_pv *spec, uint64_t dim,
                       uint32_t *order, uint32_t n)
{
    const struct gf_pv *entries = attribute(spec, "shard_order");

    for (size_t i = 0; i < gf_pv_len(entries); i++) {
        const struct gf_pv *entry = gf_pv_item(entries, i);
        const struct gf_pv *pair = gf_pv_is_list(entry) ? entry : gf_pv_args(entry);
        uint64_t dims[GF_MAX_RANK], which;
        uint32_t have;

        if (!number(gf_pv_item(pair, 0), &which) || which != dim)
            continue;
        if (!gf_pv_size(gf_pv_item(pair, 1), dims, &have) || have != n)
            return false;
        for (uint32_t k = 0; k < n; k++) {
            bool known = false;

            for (uint32_t j = 0; j < n; j++)
                known |= order[j] == dims[k];
            for (uint32_t j = 0; j < k; j++)
                known &= dims[j] != dims[k];
            if (!known || dims[k] >= mesh->n)
                return false;
        }
        for (uint32_t k = 0; k < n; k++)
            order[k] = (uint32_t)dims[k];
        return true;
    }
    return true;
}

static bool has_strided(const struct mesh *mesh, const struct placement *placements)
{
    for (uint32_t i = 0; i < mesh->n; i++)
        if (placements[i].kind == STRIDED)
            return true;
    return false;
}

/* Cuts the whole tensor down to this rank's box. */
static int find_box(struct reader *r, const struct gf_pv *spec, const struct mesh *mesh,
                    const struct placement *placements, uint64_t *first, uint64_t *size)
{
    bool strided = has_strided(mesh, placements);

    for (uint32_t d = 0; d < r->out.shape.rank; d++) {
        uint32_t order[GF_MAX_RANK + 1], n = 0;

        first[d] = 0;
        size[d] = r->out.shape.dims[d];
        if (!cutting_order(mesh, placements, d, order, &n) ||
            (!strided && n > 1 && !told_order(mesh, spec, d, order, n)))
            return cannot(r, "DTensor with an unknown order of shards");
        for (uint32_t i = 0; i < n; i++) {
            uint64_t chunk = gf_ceil_div(size[d], mesh->size[order[i]]), skip;

            if (gf_mul(chunk, mesh->at[order[i]], &skip))
                return BAD(r, "impossible device mesh");
            skip = GF_MIN(skip, size[d]);
            first[d] += skip;
            size[d] = GF_MIN(chunk, size[d] - skip);
        }
    }
    return 0;
}

static int add_box(struct reader *r, const uint64_t *first,
                   const struct gf_torch_view *view)
{
    size_t bytes = r->out.shape.rank * sizeof(*first);
    uint64_t *copy;

    if (view->numel == 0)
        return 0;
    copy = gf_pickle_alloc(r->pickle, bytes);
    if (!copy)
        return gf_nomem(r->err);
    if (bytes)
        memcpy(copy, first, bytes);
    r->out.boxes[r->out.n++] = (struct gf_dtensor_box){ copy, *view };
    return 0;
}

static int room(struct reader *r, size_t n)
{
    r->out.boxes = gf_pickle_alloc(r->pickle, n * sizeof(*r->out.boxes));
    return r->out.boxes ? 0 : gf_nomem(r->err);
}

/* The tensor that lies in this file. */
static int read_local(struct reader *r, const struct gf_pv *value,
                      struct gf_torch_view *view)
{
    enum gf_torch_is is;
    const char *why = NULL;
    int e = gf_torch_tensor(r->pickle, value, r->file, r->what, &is, view, &why, r->err);

    if (e)
        return e;
    if (is == GF_TORCH_OTHER)
        return BAD(r, "its local part is no tensor");
    if (is == GF_TORCH_UNSUPPORTED)
        return cannot(r, why);
    if (view->twist || view->dtype == GF_F4)
        return cannot(r, "distributed tensor that is conjugated, negated or float4");
    if (view->dtype != r->out.dtype)
        return BAD(r, "its local part is %s, it is %s", gf_dtype_info(view->dtype)->torch,
                   gf_dtype_info(r->out.dtype)->torch);
    return 0;
}

static int read_dtensor(struct reader *r, const struct gf_pv *state)
{
    const struct gf_pv *slots = gf_pv_is_dict(state) ? state : gf_pv_item(state, 1);
    const struct gf_pv *spec = gf_pv_get(slots, "_spec");
    const struct gf_pv *list = attribute(spec, "placements");
    struct placement placements[GF_MAX_RANK];
    uint64_t first[GF_MAX_RANK], size[GF_MAX_RANK];
    char wanted[GF_SHAPE_TEXT], found[GF_SHAPE_TEXT];
    struct mesh mesh = { 0 };
    struct gf_torch_view view;
    struct gf_shape box = { r->out.shape.rank, size };
    int e = read_mesh(r, attribute(spec, "mesh"), &mesh);

    if (e || r->why)
        return e;
    if (!gf_pv_is_list(list) || gf_pv_len(list) != mesh.n)
        return BAD(r, "%zu placements on a device mesh of %" PRIu32 " dimensions",
                   gf_pv_len(list), mesh.n);
    for (uint32_t i = 0; i < mesh.n && !e && !r->why; i++)
        e = read_placement(r, gf_pv_item(list, i), &placements[i]);
    if (!e && !r->why)
        e = find_box(r, spec, &mesh, placements, first, size);
    if (e || r->why || mesh.outside)
        return e;
    e = read_local(r, gf_pv_get(slots, "_local_tensor"), &view);
    if (e || r->why)
        return e;
    if (view.numel && !gf_shape_equal(view.shape, box))
        return BAD(r, "this rank's part is %s, by its device mesh it is %s of %s",
                   gf_shape_text(view.shape, found), gf_shape_text(box, wanted),
                   gf_dtype_info(view.dtype)->torch);
    e = room(r, 1);
    return e ? e : add_box(r, first, &view);
}

/* --- ShardedTensor -------------------------------------------------------------------- */

/* The process group says how many ranks there are; else each shard is one rank's. */
static void count_ranks(struct reader *r, const struct gf_pv *state,
                        const struct gf_pv *metadata)
{
    uint64_t n;

    if (number(attribute(gf_pv_item(state, 2), "global_world_size"), &n) && n)
        r->out.ranks = n;
    else
        r->out.ranks = GF_MAX(gf_pv_len(attribute(metadata, "shards_metadata")), (size_t)1);
}

static int read_shard(struct reader *r, const struct gf_pv *shard)
{
    const struct gf_pv *metadata = attribute(shard, "metadata");
    uint64_t first[GF_MAX_RANK], size[GF_MAX_RANK], end;
    uint32_t nfirst, nsize, rank = r->out.shape.rank;
    char wanted[GF_SHAPE_TEXT], found[GF_SHAPE_TEXT];
    struct gf_torch_view view;
    int e;

    if (!gf_pv_size(attribute(metadata, "shard_offsets"), first, &nfirst) ||
        !gf_pv_size(attribute(metadata, "shard_sizes"), size, &nsize) || nfirst != rank ||
        nsize != rank)
        return BAD(r, "malformed shard");
    for (uint32_t d = 0; d < rank; d++)
        if (gf_add(first[d], size[d], &end) || end > r->out.shape.dims[d])
            return BAD(r,
                       "a shard starts at %" PRIu64 " and has %" PRIu64 " of %" PRIu64
                       " in dimension %" PRIu32,
                       first[d], size[d], r->out.shape.dims[d], d);
    e = read_local(r, attribute(shard, "tensor"), &view);
    if (e || r->why)
        return e;
    if (!gf_shape_equal(view.shape, (struct gf_shape){ rank, size }))
        return BAD(r, "a shard is %s, its metadata says %s",
                   gf_shape_text(view.shape, found),
                   gf_shape_text((struct gf_shape){ rank, size }, wanted));
    return add_box(r, first, &view);
}

static int read_sharded(struct reader *r, const struct gf_pv *state)
{
    const struct gf_pv *shards = gf_pv_item(state, 0);
    int e;

    if (!gf_pv_is_list(shards))
        return BAD(r, "malformed ShardedTensor");
    count_ranks(r, state, gf_pv_item(state, 1));
    e = room(r, gf_pv_len(shards));
    for (size_t i = 0; i < gf_pv_len(shards) && !e && !r->why; i++)
        e = read_shard(r, gf_pv_item(shards, i));
    return e;
}

/* -------------------------------------------------------------------------------------- */

/* Takes nn.Parameter off. */
static const struct gf_pv *unwrap(const struct gf_pv *v)
{
    for (int i = 0; i < MAX_WRAPS; i++) {
        if (!gf_pv_is_call(v, "torch._utils", "_rebuild_parameter") &&
            !gf_pv_is_call(v, "torch._utils", "_rebuild_parameter_with_state"))
            break;
        v = gf_pv_item(gf_pv_args(v), 0);
    }
    return v;
}

/* (class, dtype, size, ...) */
static int read_whole(struct reader *r, const struct gf_pv *args)
{
    uint64_t dims[GF_MAX_RANK], *copy, numel;
    uint32_t rank;

    if (!gf_torch_dtype(gf_pv_item(args, 1), &r->out.dtype))
        return cannot(r, "distributed tensor of a dtype that safetensors lacks");
    if (!gf_pv_size(gf_pv_item(args, 2), dims, &rank))
        return BAD(r, "malformed size");
    copy = gf_pickle_alloc(r->pickle, rank * sizeof(*copy));
    if (!copy)
        return gf_nomem(r->err);
    if (rank)
        memcpy(copy, dims, rank * sizeof(*copy));
    r->out.shape = (struct gf_shape){ rank, copy };
    if (gf_shape_numel(r->out.shape, &numel))
        return BAD(r, "impossible size of more than 2^63 elements");
    return 0;
}

int gf_dtensor_parse(struct gf_pickle *pickle, const struct gf_pv *value, uint64_t rank,
                     const char *file, const char *what, enum gf_torch_is *ret_is,
                     struct gf_dtensor *ret, const char **why, struct gf_err *err)
{
    struct reader r = {
        .pickle = pickle, .file = file, .what = what, .rank = rank, .err = err
    };
    const struct gf_pv *args, *class;
    bool sharded;
    int e;

    value = unwrap(value);
    args = gf_pv_args(value);
    class = gf_pv_item(args, 1);
    sharded = is_torch_class(class, "ShardedTensor");
    if (!gf_pv_is_call(value, "torch._tensor", "_rebuild_from_type_v2") ||
        (!sharded && !is_torch_class(class, "DTensor"))) {
        *ret_is = GF_TORCH_OTHER;
        return 0;
    }
    e = read_whole(&r, gf_pv_item(args, 2));
    if (!e && !r.why)
        e = sharded ? read_sharded(&r, gf_pv_item(args, 3))
                    : read_dtensor(&r, gf_pv_item(args, 3));
    if (e)
        return e;
    *ret_is = r.why ? GF_TORCH_UNSUPPORTED : GF_TORCH_TENSOR;
    if (r.why)
        *why = r.why;
    else
        *ret = r.out;
    return 0;
}
