/* SPDX-License-Identifier: Apache-2.0 */
#include "catalog/catalog.h"

#include <inttypes.h>
#include <string.h>

#include "base/math.h"
#include "base/utf8.h"
#include "catalog/catalog_int.h"

int gf_catalog_new(const struct gf_limits *limits, struct gf_catalog **ret,
                   struct gf_err *err)
{
    struct gf_catalog *catalog = calloc(1, sizeof(*catalog));

    if (!catalog)
        return gf_nomem(err);
    catalog->limits = limits;
    *ret = catalog;
    return 0;
}

void gf_catalog_free(struct gf_catalog *catalog)
{
    if (!catalog)
        return;
    gf_vec_free(&catalog->tensors);
    gf_vec_free(&catalog->pieces);
    gf_vec_free(&catalog->boxes);
    gf_strmap_done(&catalog->names);
    gf_arena_done(&catalog->arena);
    free(catalog);
}

static int check_spec(const struct gf_catalog *catalog, const struct gf_tensor_spec *spec,
                      uint64_t *ret_numel, struct gf_err *err)
{
    char text[GF_SHAPE_TEXT];
    uint64_t bytes;
    size_t len = strlen(spec->name);

    if (len == 0 || len > catalog->limits->name)
        return gf_fail(err, GF_EBAD,
                       "tensor name of %zu bytes, 1 to %zu are allowed: '%.80s'", len,
                       catalog->limits->name, spec->name);
    if (!gf_utf8_valid((const uint8_t *)spec->name, len))
        return gf_fail(err, GF_EBAD, "tensor name is not UTF-8: '%.80s'", spec->name);
    if (strcmp(spec->name, "__metadata__") == 0)
        return gf_fail(err, GF_EBAD,
                       "tensor name '__metadata__' is reserved by safetensors");
    if (spec->shape.rank > GF_MAX_RANK)
        return gf_fail(err, GF_EBAD,
                       "tensor '%s': %" PRIu32 " dimensions, at most %d are allowed",
                       spec->name, spec->shape.rank, GF_MAX_RANK);
    if (gf_shape_numel(spec->shape, ret_numel) ||
        gf_dtype_nbytes(spec->dtype, *ret_numel, &bytes) || bytes > INT64_MAX)
        return gf_fail(err, GF_EBAD, "tensor '%s': impossible shape %s", spec->name,
                       gf_shape_text(spec->shape, text));
    if (catalog->tensors.n >= catalog->limits->tensors)
        return gf_fail(err, GF_EBAD, "tensor '%s': more than %zu tensors", spec->name,
                       catalog->limits->tensors);
    return 0;
}

int gf_catalog_add(struct gf_catalog *catalog, const struct gf_tensor_spec *spec,
                   uint32_t *ret_index, struct gf_err *err)
{
    uint32_t index = (uint32_t)catalog->tensors.n;
    struct gf_tensor tensor = {
        .dtype = spec->dtype,
        .live = spec->live,
        .copy = spec->copy,
        .alias = spec->alias,
        .hidden = spec->hidden,
        .buffer = spec->buffer,
        .frozen = spec->frozen,
        .twist = spec->twist,
        .pieces = catalog->pieces.n,
    };
    uint64_t *dims;
    int r = check_spec(catalog, spec, &tensor.numel, err);

    if (r)
        return r;
    tensor.name = gf_arena_strdup(&catalog->arena, spec->name);
    dims = gf_arena_alloc(&catalog->arena, spec->shape.rank * sizeof(*dims));
    if (!tensor.name || !dims)
        return gf_nomem(err);
    if (spec->shape.rank)
        memcpy(dims, spec->shape.dims, spec->shape.rank * sizeof(*dims));
    tensor.shape = (struct gf_shape){ spec->shape.rank, dims };
    if (!spec->hidden) {
        r = gf_strmap_put(&catalog->names, tensor.name, index, NULL);
        if (r == -EEXIST)
            return gf_fail(err, GF_EBAD, "tensor '%s' is there twice", spec->name);
        if (r)
            return gf_nomem(err);
    }
    if (gf_vec_push(&catalog->tensors, tensor, catalog->limits->tensors))
        return gf_nomem(err);
    if (ret_index)
        *ret_index = index;
    return 0;
}

static struct gf_tensor *last(struct gf_catalog *catalog)
{
    return &catalog->tensors.at[catalog->tensors.n - 1];
}

static int push_piece(struct gf_catalog *catalog, const struct gf_piece *piece,
                      struct gf_err *err)
{
    struct gf_tensor *tensor = last(catalog);
    int r = gf_vec_push(&catalog->pieces, *piece, catalog->limits->pieces);

    if (r == -E2BIG || tensor->npieces == UINT32_MAX)
        return gf_fail(err, GF_EBAD, "tensor '%s': more than %zu pieces in all",
                       tensor->name, catalog->limits->pieces);
    if (r)
        return gf_nomem(err);
    tensor->npieces++;
    return 0;
}

int gf_catalog_add_linear(struct gf_catalog *catalog, uint32_t source, uint64_t offset,
                          uint64_t start, uint64_t count, struct gf_err *err)
{
    struct gf_tensor *tensor = last(catalog);
    struct gf_piece piece = { start, count, offset, source, GF_NONE };
    uint64_t bytes;

    if (count == 0)
        return 0;
    if (tensor->npieces) {
        struct gf_piece *before = &catalog->pieces.at[catalog->pieces.n - 1];

        if (before->box == GF_NONE && before->source == source &&
            before->start + before->count == start &&
            !gf_dtype_nbytes(tensor->dtype, before->count, &bytes) &&
            before->offset + bytes == offset) {
            before->count += count;
            return 0;
        }
    }
    return push_piece(catalog, &piece, err);
}

/* Contiguous in the source, and one run of the flattened tensor: at most one row of the
 * first dimension that is not 1, and whole dimensions behind it. */
static bool box_is_run(struct gf_shape shape, const uint64_t *first, const uint64_t *size,
                       const uint64_t *stride)
{
    uint32_t d = 0;

    if (!gf_shape_contiguous((struct gf_shape){ shape.rank, size }, stride))
        return false;
    while (d < shape.rank && size[d] == 1)
        d++;
    for (d++; d < shape.rank; d++)
        if (first[d] || size[d] != shape.dims[d])
            return false;
    return true;
}

int gf_catalog_add_box(struct gf_catalog *catalog, uint32_t source, uint64_t offset,
                       const uint64_t *first, const uint64_t *size, const uint64_t *stride,
                       struct gf_err *err)
{
    struct gf_tensor *tensor = last(catalog);
    struct gf_shape shape = tensor->shape;
    struct gf_piece piece = { .offset = offset, .source = source };
    uint64_t strides[GF_MAX_RANK], end;

    if (gf_shape_numel((struct gf_shape){ shape.rank, size }, &piece.count))
        return gf_fail(err, GF_EBAD, "tensor '%s': impossible piece", tensor->name);
    if (piece.count == 0)
        return 0;
    gf_shape_strides(shape, strides);
    for (uint32_t d = 0; d < shape.rank; d++) {
        if (gf_add(first[d], size[d], &end) || end > shape.dims[d])
            return gf_fail(err, GF_EBAD,
                           "tensor '%s': a piece spans [%" PRIu64 ", %" PRIu64
                           ") of dimension %" PRIu32 ", which has %" PRIu64,
                           tensor->name, first[d], first[d] + size[d], d, shape.dims[d]);
        piece.start += first[d] * strides[d];
    }
    if (box_is_run(shape, first, size, stride))
        return gf_catalog_add_linear(catalog, source, offset, piece.start, piece.count,
                                     err);
    if (gf_dtype_info(tensor->dtype)->bits % 8)
        return gf_fail(err, ENOTSUP, "tensor '%s': pieces of %s that are not contiguous",
                       tensor->name, gf_dtype_info(tensor->dtype)->safetensors);
    last(catalog)->boxed = true;
    if (catalog->boxes.n > UINT32_MAX - 1 - 3 * (size_t)GF_MAX_RANK)
        return gf_fail(err, GF_EBAD, "tensor '%s': too many pieces", tensor->name);
    piece.box = (uint32_t)catalog->boxes.n;
    if (gf_vec_reserve(&catalog->boxes, 3 * (size_t)shape.rank, SIZE_MAX / 16))
        return gf_nomem(err);
    for (uint32_t d = 0; d < shape.rank; d++)
        catalog->boxes.at[catalog->boxes.n++] = first[d];
    for (uint32_t d = 0; d < shape.rank; d++)
        catalog->boxes.at[catalog->boxes.n++] = size[d];
    for (uint32_t d = 0; d < shape.rank; d++)
        catalog->boxes.at[catalog->boxes.n++] = stride[d];
    return push_piece(catalog, &piece, err);
}

int gf_catalog_add_strided(struct gf_catalog *catalog, uint32_t source, uint64_t offset,
                           const uint64_t *strides, struct gf_err *err)
{
    static const uint64_t zeros[GF_MAX_RANK];
    const struct gf_tensor *tensor = last(catalog);

    if (gf_shape_contiguous(tensor->shape, strides))
        return gf_catalog_add_linear(catalog, source, offset, 0, tensor->numel, err);
    return gf_catalog_add_box(catalog, source, offset, zeros, tensor->shape.dims, strides,
                              err);
}

int gf_catalog_share(struct gf_catalog *catalog, uint32_t other, struct gf_err *err)
{
    struct gf_tensor *tensor = last(catalog);
    const struct gf_tensor *from = &catalog->tensors.at[other];

    if (!gf_shape_equal(tensor->shape, from->shape) || tensor->dtype != from->dtype)
        return gf_fail(err, GF_EBAD,
                       "tensor '%s' is tied to '%s', but shape or dtype differ",
                       tensor->name, from->name);
    tensor->pieces = from->pieces;
    tensor->npieces = from->npieces;
    tensor->boxed = from->boxed;
    return 0;
}

int gf_catalog_adopt(struct gf_catalog *catalog, const struct gf_catalog *from,
                     uint32_t index, uint32_t first_source, struct gf_err *err)
{
    const struct gf_tensor *t = gf_catalog_at(from, index);
    struct gf_tensor_spec spec = { .name = t->name,
                                   .shape = t->shape,
                                   .dtype = t->dtype,
                                   .live = t->live,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE,
                                   .hidden = t->hidden,
                                   .buffer = t->buffer,
                                   .frozen = t->frozen,
                                   .twist = t->twist };
    int r = 0;

    if (t->copy != GF_NONE) {
        spec.copy = (uint32_t)catalog->tensors.n;
        r = gf_catalog_adopt(catalog, from, t->copy, first_source, err);
    }
    if (!r)
        r = gf_catalog_add(catalog, &spec, NULL, err);
    for (uint32_t i = 0; i < t->npieces && !r; i++) {
        const struct gf_piece *piece = gf_catalog_piece(from, t->pieces + i);
        uint32_t source = piece->source + first_source;

        if (piece->box == GF_NONE) {
            r = gf_catalog_add_linear(catalog, source, piece->offset, piece->start,
                                      piece->count, err);
        } else {
            struct gf_box box = gf_catalog_box(from, t, piece);

            r = gf_catalog_add_box(catalog, source, piece->offset, box.first, box.size,
                                   box.stride, err);
        }
    }
    return r;
}

size_t gf_catalog_len(const struct gf_catalog *catalog)
{
    return catalog->tensors.n;
}

const struct gf_tensor *gf_catalog_at(const struct gf_catalog *catalog, uint32_t index)
{
    return &catalog->tensors.at[index];
}

const struct gf_tensor *gf_catalog_find(const struct gf_catalog *catalog, const char *name)
{
    uint64_t index;

    return gf_strmap_get(&catalog->names, name, &index) ? &catalog->tensors.at[index]
                                                        : NULL;
}

uint32_t gf_catalog_index(const struct gf_catalog *catalog, const struct gf_tensor *tensor)
{
    return (uint32_t)(tensor - catalog->tensors.at);
}

const struct gf_piece *gf_catalog_piece(const struct gf_catalog *catalog, uint64_t index)
{
    return &catalog->pieces.at[index];
}

struct gf_box gf_catalog_box(const struct gf_catalog *catalog,
                             const struct gf_tensor *tensor, const struct gf_piece *piece)
{
    const uint64_t *at = &catalog->boxes.at[piece->box];

    return (struct gf_box){ at, at + tensor->shape.rank,
                            at + 2 * (size_t)tensor->shape.rank };
}

size_t gf_catalog_npieces(const struct gf_catalog *catalog)
{
    return catalog->pieces.n;
}
