/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t_torch.h - torch.save files of distributed tensors, written into directories in memory.
 *
 * The pickle is written with pickle_writer.h; storages are "0", "1", ... of floats that
 * count on from a first value, so that a misplaced part shows.
 */
#ifndef GF_TESTS_T_TORCH_H
#define GF_TESTS_T_TORCH_H

#include "catalog/catalog.h"
#include "format/format.h"
#include "pickle_writer.h"
#include "source/dir.h"
#include "zip_writer.h"

#define T_STORAGES 8

/* A file in the making: a dict from names to tensors. */
struct t_file {
    struct pw w;
    struct {
        float first;
        size_t n;
    } storages[T_STORAGES];
    size_t n;
};

static inline void t_file_begin(struct t_file *f)
{
    memset(f, 0, sizeof(*f));
    pw_op(&f->w, "\x80\x02}(");
}

/* A storage of n floats; its key, good until the next call. */
static inline const char *t_storage(struct t_file *f, float first, size_t n)
{
    static char key[8];

    snprintf(key, sizeof(key), "%zu", f->n);
    f->storages[f->n].first = first;
    f->storages[f->n++].n = n;
    return key;
}

static inline size_t t_count(const int64_t *dims)
{
    size_t n = 1;

    for (; *dims != -1; dims++)
        n *= (size_t)*dims;
    return n;
}

/* A contiguous tensor whose values count on from `first`. */
static inline void t_values(struct t_file *f, float first, const int64_t *dims)
{
    int64_t strides[GF_MAX_RANK + 1], stride = 1;
    size_t rank = 0, n = t_count(dims);

    while (dims[rank] != -1)
        rank++;
    strides[rank] = -1;
    for (size_t d = rank; d-- > 0; stride *= dims[d] ? dims[d] : 1)
        strides[d] = stride;
    pw_tensor(&f->w, "FloatStorage", t_storage(f, first, n), (int64_t)n, 0, dims, strides);
}

static inline void t_plain(struct t_file *f, const char *name, float first,
                           const int64_t *dims)
{
    pw_str(&f->w, name);
    t_values(f, first, dims);
}

/* An object of module.name without arguments; "b" after its state ends it. */
static inline void t_object(struct pw *w, const char *module, const char *name)
{
    pw_global(w, module, name);
    pw_op(w, ")\x81");
}

/* _rebuild_from_type_v2(_rebuild_wrapper_subclass, class, (class, dtype, size, ...), the
 * state: it follows, and t_wrapper_end(). */
static inline void t_wrapper(struct pw *w, const char *module, const char *name,
                             const int64_t *size)
{
    pw_global(w, "torch._tensor", "_rebuild_from_type_v2");
    pw_op(w, "(");
    pw_global(w, "torch._utils", "_rebuild_wrapper_subclass");
    pw_global(w, module, name);
    pw_op(w, "(");
    pw_global(w, module, name);
    pw_global(w, "torch", "float32");
    pw_ints(w, size);
    pw_op(w, "t");
}

static inline void t_wrapper_end(struct pw *w)
{
    pw_op(w, "tR");
}

struct t_placement {
    const char *class; /* NULL: the end */
    int64_t dim, factor;
};

/* How the mesh tells its sizes: torch 2.13, 2.9, up to 2.8. */
enum t_mesh { T_AXES, T_SHAPE, T_TENSOR };

struct t_spread {
    enum t_mesh form;
    const int64_t *mesh;
    const int64_t *at; /* coordinates; NULL: the pickle has none */
    const struct t_placement *placements;
    const int64_t *order; /* mesh dims that cut dim 0, in order; NULL: not told */
};

static inline void t_mesh(struct t_file *f, const struct t_spread *s)
{
    struct pw *w = &f->w;

    t_object(w, "torch.distributed.device_mesh", "DeviceMesh");
    pw_op(w, "}(");
    if (s->form == T_TENSOR) {
        pw_str(w, "mesh");
        t_values(f, 0, s->mesh);
    } else {
        pw_str(w, "_layout");
        t_object(w, "torch.distributed._mesh_layout", "_MeshLayout");
        pw_op(w, "}");
        pw_str(w, s->form == T_AXES ? "axes" : "shape");
        pw_op(w, "(");
        for (const int64_t *size = s->mesh; *size != -1; size++) {
            if (s->form == T_AXES) {
                t_object(w, "torch.distributed._mesh_layout", "_FlatLayout");
                pw_op(w, "}");
                pw_str(w, "shape");
                pw_ints(w, PW_DIMS(*size));
                pw_op(w, "sb");
            } else {
                pw_int(w, *size);
            }
        }
        pw_op(w, "tsb");
    }
    if (s->at) {
        pw_str(w, "_coordinate_on_dim");
        pw_ints(w, s->at);
    }
    pw_op(w, "ub");
}

static inline void t_dtensor_value(struct t_file *f, float first, const int64_t *local,
                                   const int64_t *size, const struct t_spread *s)
{
    struct pw *w = &f->w;

    t_wrapper(w, "torch.distributed.tensor", "DTensor", size);
    pw_op(w, "N}(");
    pw_str(w, "_local_tensor");
    t_values(f, first, local);
    pw_str(w, "_spec");
    t_object(w, "torch.distributed.tensor._dtensor_spec", "DTensorSpec");
    pw_op(w, "}(");
    pw_str(w, "mesh");
    t_mesh(f, s);
    pw_str(w, "placements");
    pw_op(w, "(");
    for (const struct t_placement *p = s->placements; p->class; p++) {
        t_object(w, "torch.distributed.tensor.placement_types", p->class);
        pw_op(w, "}(");
        pw_str(w, "dim");
        pw_int(w, p->dim);
        pw_str(w, "split_factor");
        pw_int(w, p->factor);
        pw_op(w, "ub");
    }
    pw_op(w, "t");
    if (s->order) {
        pw_str(w, "shard_order");
        pw_op(w, "((");
        pw_int(w, 0);
        pw_ints(w, s->order);
        pw_op(w, "tt");
    }
    pw_op(w, "ubu\x86");
    t_wrapper_end(w);
}

/* Shard(0) of `ranks`, whose place is `rank`, as torch 2.13 writes it. */
static inline void t_shard0(struct t_file *f, const char *name, float first,
                            const int64_t *local, const int64_t *size, int64_t ranks,
                            int64_t rank)
{
    struct t_spread s = { .mesh = PW_DIMS(ranks),
                          .at = PW_DIMS(rank),
                          .placements =
                              (struct t_placement[]){ { "Shard", 0, 0 }, { 0 } } };

    pw_str(&f->w, name);
    t_dtensor_value(f, first, local, size, &s);
}

/* A ShardedTensor with one local shard at these offsets. */
static inline void t_sharded_value(struct t_file *f, float first, const int64_t *offsets,
                                   const int64_t *local, const int64_t *said,
                                   const int64_t *size, int64_t world)
{
    struct pw *w = &f->w;

    t_wrapper(w, "torch.distributed._shard.sharded_tensor.api", "ShardedTensor", size);
    pw_op(w, "(](");
    t_object(w, "torch.distributed._shard.sharded_tensor.shard", "Shard");
    pw_op(w, "N}(");
    pw_str(w, "tensor");
    t_values(f, first, local);
    pw_str(w, "metadata");
    t_object(w, "torch.distributed._shard.metadata", "ShardMetadata");
    pw_op(w, "N}(");
    pw_str(w, "shard_offsets");
    pw_ints(w, offsets);
    pw_str(w, "shard_sizes");
    pw_ints(w, said);
    pw_op(w, "u\x86"
             "bu\x86"
             "be");
    t_object(w, "torch.distributed._shard.sharded_tensor.metadata",
             "ShardedTensorMetadata");
    pw_op(w, "}b");
    t_object(w, "x", "ProcessGroupState");
    pw_op(w, "}");
    pw_str(w, "global_world_size");
    pw_int(w, world);
    pw_op(w, "sbt");
    t_wrapper_end(w);
}

/* Writes the file to `path`. */
static inline void t_file_end(struct t_file *f, struct gf_dir *dir, const char *path)
{
    struct zw z = { 0 };

    pw_op(&f->w, "u.");
    zw_add(&z, "archive/data.pkl", f->w.p, f->w.n, 64);
    for (size_t i = 0; i < f->n; i++) {
        float values[256];
        char name[40];

        for (size_t k = 0; k < f->storages[i].n; k++)
            values[k] = f->storages[i].first + (float)k;
        snprintf(name, sizeof(name), "archive/data/%zu", i);
        zw_add(&z, name, values, f->storages[i].n * sizeof(float), 64);
    }
    zw_end(&z);
    GF_OK(gf_dir_mem_add(dir, path, z.p, z.n, &t_err));
    zw_done(&z);
}

static inline struct gf_dir *t_dir(void)
{
    struct gf_dir *dir = NULL;

    GF_OK(gf_dir_mem("ckpt", &gf_limits_default, &dir, &t_err));
    return dir;
}

static inline struct gf_format_in t_in(struct gf_dir *dir)
{
    return (struct gf_format_in){ .dir = dir, .limits = &gf_limits_default, .threads = 2 };
}

static inline int t_check(struct gf_found *found)
{
    uint64_t sizes[16];
    const char *names[16];

    for (size_t i = 0; i < found->sources.n; i++) {
        sizes[i] = found->sources.at[i]->size;
        names[i] = found->sources.at[i]->name;
    }
    return gf_catalog_check(found->catalog, sizes, names, found->sources.n, &t_err);
}

/* Element (i, j, ...) of a float tensor, read through its pieces; row-major index `at`. */
static inline float t_element(const struct gf_found *found, const char *name, uint64_t at)
{
    const struct gf_tensor *t = gf_catalog_find(found->catalog, name);
    uint64_t strides[GF_MAX_RANK];
    float value = -1;

    assert_non_null(t);
    gf_shape_strides(t->shape, strides);
    for (uint32_t p = 0; p < t->npieces; p++) {
        const struct gf_piece *piece = gf_catalog_piece(found->catalog, t->pieces + p);
        uint64_t off = piece->offset;
        bool inside = true;

        if (piece->box == GF_NONE) {
            inside = at >= piece->start && at < piece->start + piece->count;
            off += (at - piece->start) * sizeof(float);
        } else {
            struct gf_box box = gf_catalog_box(found->catalog, t, piece);

            for (uint32_t d = 0; d < t->shape.rank; d++) {
                uint64_t i = at / strides[d] % t->shape.dims[d];

                inside = inside && i >= box.first[d] && i < box.first[d] + box.size[d];
                off += (i - box.first[d]) * box.stride[d] * sizeof(float);
            }
        }
        if (inside)
            assert_int_equal(gf_source_read(found->sources.at[piece->source], &value,
                                            sizeof(value), off),
                             0);
    }
    return value;
}

/* The first n elements. */
#define T_ELEMENTS(found, name, ...)                                                       \
    do {                                                                                   \
        static const float t_want[] = { __VA_ARGS__ };                                     \
        for (size_t t_i = 0; t_i < sizeof(t_want) / sizeof(t_want[0]); t_i++)              \
            assert_float_equal(t_element(found, name, t_i), t_want[t_i], 0);               \
    } while (0)

#endif
