/* SPDX-License-Identifier: Apache-2.0 */
#include "format/dcp_archive.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "format/dcp_zstd.h"
#include "format/torch_open.h"

/* An archive's own headers stand in its first and last few hundred bytes. */
#define HEAD 1024

/* What one tensor's archive needs, generously: its pickle is some 180 bytes. */
static const struct gf_limits item_limits = {
    .pickle_bytes = 1 << 20,
    .pickle_nodes = 1 << 16,
    .pickle_arena = 8 << 20,
    .pickle_depth = 100,
    .zip_members = 1 << 10,
    .zip_directory = 1 << 20,
};

/* More than an archive adds to the elements, so that a packed bomb is found out. */
#define ARCHIVE_EXTRA ((uint64_t)4 << 20)

struct archive {
    struct gf_source base;
    struct gf_source *file; /* NULL: all of it is in `bytes` */
    uint64_t at;
    size_t n; /* bytes in memory, from the start */
    uint8_t *bytes;
};

bool gf_dcp_item_nbytes(struct gf_shape shape, enum gf_dtype dtype, uint64_t *ret)
{
    uint64_t n;

    return gf_shape_numel(shape, &n) || gf_mul(n, gf_torch_itemsize(dtype), ret);
}

static int archive_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    struct archive *a = (struct archive *)src;

    if (!gf_inside(off, len, a->n))
        return gf_source_read(a->file, buf, len, a->at + off);
    memcpy(buf, a->bytes + off, len);
    return 0;
}

static void archive_free(struct gf_source *src)
{
    free(((struct archive *)src)->bytes);
    free(src);
}

static const struct gf_source_ops archive_ops = {
    .kind = "dcp archive",
    .read_at = archive_read,
    .free = archive_free,
};

static int load_head(struct archive *a, const struct gf_dcp_item *item, struct gf_err *err)
{
    a->base.size = item->length;
    a->at = item->at;
    a->n = GF_MIN(item->length, (uint64_t)HEAD);
    a->bytes = malloc(a->n + 1);
    return a->bytes ? gf_source_read_err(a->file, a->bytes, a->n, a->at, err)
                    : gf_nomem(err);
}

static int unpack(struct archive *a, const struct gf_dcp_item *item, struct gf_err *err)
{
    uint64_t nbytes, max;
    int r;

    if (gf_dcp_item_nbytes(item->shape, item->dtype, &nbytes) ||
        gf_add(nbytes, ARCHIVE_EXTRA, &max))
        return gf_fail(err, GF_EBAD, "'%s': item at %" PRIu64 ": impossible size",
                       a->file->name, item->at);
    r = gf_dcp_zstd_read(a->file, item->at, item->length, max, &a->bytes, &a->n, err);
    a->base.size = a->n;
    return r;
}

int gf_dcp_archive(struct gf_source *file, const struct gf_dcp_item *item,
                   struct gf_source **ret, struct gf_err *err)
{
    struct archive *a = calloc(1, sizeof(*a));
    int r;

    if (!a)
        return gf_nomem(err);
    a->base = (struct gf_source){ .ops = &archive_ops, .name = file->name, .mode = 0444 };
    a->file = file;
    r = item->zstd ? unpack(a, item, err) : load_head(a, item, err);
    if (r) {
        archive_free(&a->base);
        return r;
    }
    *ret = &a->base;
    return 0;
}

static int check(const struct gf_source *archive, const struct gf_dcp_item *item,
                 const struct gf_torch_view *view, struct gf_err *err)
{
    char found[GF_SHAPE_TEXT], wanted[GF_SHAPE_TEXT];

    if (view->dtype != item->dtype || !gf_shape_equal(view->shape, item->shape))
        return gf_fail(err, GF_EBAD,
                       "'%s': item at %" PRIu64 " is %s of %s, its metadata says %s of %s",
                       archive->name, item->at, gf_shape_text(view->shape, found),
                       gf_dtype_info(view->dtype)->torch,
                       gf_shape_text(item->shape, wanted),
                       gf_dtype_info(item->dtype)->torch);
    if (view->twist)
        return gf_fail(err, ENOTSUP, "'%s': item at %" PRIu64 " is conjugated or negated",
                       archive->name, item->at);
    return 0;
}

int gf_dcp_archive_layout(struct gf_source *archive, const struct gf_dcp_item *item,
                          struct gf_dcp_layout *ret, struct gf_err *err)
{
    GF_AUTO(gf_torch) torch = NULL;
    struct gf_dcp_layout layout = { .reach = 1 };
    struct gf_torch_view view;
    enum gf_torch_is is;
    const char *why = "no tensor";
    int r = gf_torch_open(archive, &item_limits, &torch, err);

    if (!r)
        r = gf_torch_tensor(gf_torch_pickle(torch), gf_torch_root(torch), archive->name,
                            "item", &is, &view, &why, err);
    if (r)
        return r;
    if (is != GF_TORCH_TENSOR)
        return gf_fail(err, GF_EBAD, "'%s': item at %" PRIu64 ": %s", archive->name,
                       item->at, why);
    r = check(archive, item, &view, err);
    if (!r)
        r = gf_torch_locate(torch, &view, &layout.data, err);
    if (r)
        return r;
    layout.contiguous = gf_shape_contiguous(view.shape, view.strides);
    for (uint32_t d = 0; d < view.shape.rank; d++) {
        layout.strides[d] = view.strides[d];
        /* The view lies in its storage, and that in the archive: no overflow. */
        layout.reach += (view.shape.dims[d] - 1) * view.strides[d];
    }
    layout.reach *= gf_torch_itemsize(view.dtype);
    *ret = layout;
    return 0;
}
