/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_fill.c - the model's tensors: their files, checked against the metadata, and the
 * catalog with one box per chunk, in the coordinates of dcp_item.h.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "format/dcp_int.h"
#include "format/dcp_object.h"
#include "format/dcp_zstd.h"

/* How much newer than the metadata a data file may be: clocks of nodes differ. */
#define GRACE_NS ((int64_t)600 * 1000000000)

int gf_dcp_path_below(const struct gf_dcp *d, const char *name, char **ret,
                      struct gf_err *err)
{
    if (asprintf(ret, "%s%s%s", d->dir.base, *d->dir.base ? "/" : "", name) >= 0)
        return 0;
    *ret = NULL;
    return gf_nomem(err);
}

/* Is it served? A dtype without a name in safetensors is not, nor half a pair of F4. */
static bool is_served(const struct gf_dcp *d, const struct gf_dcp_tensor *t)
{
    return t->group == d->group && t->servable && (t->dtype != GF_F4 || t->shape.rank);
}

static int check_served(struct gf_dcp *d, struct gf_err *err)
{
    for (size_t i = 0; i < d->table->tensors.n; i++) {
        const struct gf_dcp_tensor *t = &d->table->tensors.at[i];

        if (t->group != d->group)
            continue;
        if (!is_served(d, t) &&
            gf_found_warn(d->out, "left out: tensor '%s': safetensors has no %s", t->name,
                          t->dtype_text))
            return gf_nomem(err);
        for (size_t k = 0; k < t->chunks.n; k++) {
            const char *packed = d->table->packings.at[t->chunks.at[k].place.packed];

            if (*packed && (strcmp(packed, "stream.zstd/1") != 0 || !gf_dcp_zstd_here()))
                return gf_fail(err, ENOTSUP,
                               "tensor '%s': its items are packed by '%s', %s", t->name,
                               packed,
                               strcmp(packed, "stream.zstd/1") == 0
                                   ? "but gatherfs was built without libzstd"
                                   : "which is not known");
        }
    }
    return 0;
}

/* --- files ---------------------------------------------------------------------------- */

static int check_file(struct gf_dcp *d, const struct gf_dcp_file *file,
                      const struct gf_source *src, struct gf_err *err)
{
    int64_t mtime = src->identity.mtime_ns;

    d->out->mtime_ns = GF_MAX(d->out->mtime_ns, mtime);
    if (src->size < file->need)
        return gf_fail(err, GF_EBAD,
                       "'%s': cut short: %" PRIu64 " bytes, its items end at %" PRIu64,
                       src->name, src->size, file->need);
    if (mtime <= d->saved_ns || mtime - d->saved_ns <= GRACE_NS)
        return 0;
    d->newer = file->path;
    if (d->in->allow_incomplete)
        return 0;
    return gf_fail(err, GF_EINCOMPLETE,
                   "'%s' is %" PRId64 " minutes newer than its metadata: it is being saved "
                   "again, and may be of another step (option allow_incomplete)",
                   src->name, (mtime - d->saved_ns) / 60000000000);
}

static int missing(const struct gf_dcp *d, const char *path, struct gf_err *err)
{
    size_t used = 0, gone = 0;

    for (size_t f = 0; f < d->table->files.n; f++) {
        GF_AUTO_MEM char *other = NULL;
        struct gf_dir_entry entry;

        if (d->first[f] == d->first[f + 1])
            continue;
        used++;
        if (gf_dcp_path_below(d, d->table->files.at[f].path, &other, err))
            return -ENOMEM;
        gone += gf_dir_stat(d->in->dir, other, &entry) == -ENOENT;
    }
    return gf_fail(err, GF_EINCOMPLETE,
                   "missing '%s': %zu of %zu data files are not there (on another node?)",
                   path, gone, used);
}

static int open_file(struct gf_dcp *d, struct gf_dcp_cache *cache, size_t f,
                     struct gf_err *err)
{
    const struct gf_dcp_file *file = &d->table->files.at[f];
    size_t n = d->first[f + 1] - d->first[f];
    GF_AUTO(gf_source) src = NULL;
    GF_AUTO_MEM char *path = NULL;
    struct gf_source *items;
    int r;

    if (n == 0)
        return 0;
    r = gf_dcp_path_below(d, file->path, &path, err);
    if (r)
        return r;
    r = gf_dir_open(d->in->dir, path, &src, err);
    if (r == -ENOENT)
        return missing(d, path, err);
    if (!r)
        r = check_file(d, file, src, err);
    if (!r)
        r = gf_dcp_source(gf_take(&src), cache, &d->items[d->first[f]], n, &items, err);
    return r ? r : gf_found_add_source(d->out, items, &d->source[f], err);
}

/* Sorts the chunks into the items of their files. */
static int collect(struct gf_dcp *d, struct gf_err *err)
{
    const struct gf_dcp_table *t = d->table;
    size_t nfiles = t->files.n;

    d->first = calloc(nfiles + 2, sizeof(*d->first));
    d->next = calloc(nfiles + 1, sizeof(*d->next));
    d->source = calloc(nfiles + 1, sizeof(*d->source));
    if (!d->first || !d->next || !d->source)
        return gf_nomem(err);
    for (size_t i = 0; i < t->tensors.n; i++)
        for (size_t k = 0; is_served(d, &t->tensors.at[i]) && k < t->tensors.at[i].chunks.n;
             k++)
            d->first[t->tensors.at[i].chunks.at[k].place.file + 1]++;
    for (size_t f = 0; f < nfiles; f++) {
        d->first[f + 1] += d->first[f];
        d->next[f] = d->first[f];
    }
    d->nitems = d->first[nfiles];
    d->items = calloc(d->nitems + 1, sizeof(*d->items));
    if (!d->items)
        return gf_nomem(err);
    for (size_t i = 0; i < t->tensors.n; i++) {
        const struct gf_dcp_tensor *tensor = &t->tensors.at[i];

        for (size_t k = 0; is_served(d, tensor) && k < tensor->chunks.n; k++) {
            const struct gf_dcp_chunk *chunk = &tensor->chunks.at[k];
            struct gf_shape shape = { tensor->shape.rank, chunk->box + tensor->shape.rank };

            d->items[d->next[chunk->place.file]++] =
                (struct gf_dcp_item){ .at = chunk->place.at,
                                      .length = chunk->place.length,
                                      .shape = shape,
                                      .dtype = tensor->dtype,
                                      .zstd = chunk->place.packed };
        }
    }
    for (size_t f = 0; f < nfiles; f++)
        d->next[f] = d->first[f];
    return 0;
}

/* The model is one object of one file, which is served as it lies there. */
static int read_object(struct gf_dcp *d, struct gf_err *err)
{
    const struct gf_dcp_place *place = &d->object->place;
    GF_AUTO_MEM char *path = NULL;
    GF_AUTO(gf_source) src = NULL;
    uint32_t index;
    int r;

    if (place->file == GF_DCP_NOWHERE)
        return gf_fail(err, GF_EBAD, "'%s': object '%s' is stored nowhere",
                       d->in->dir->name, d->object->fqn);
    if (place->packed)
        return gf_fail(err, ENOTSUP, "'%s': object '%s' is packed by '%s'",
                       d->in->dir->name, d->object->fqn,
                       d->table->packings.at[place->packed]);
    r = gf_dcp_path_below(d, d->table->files.at[place->file].path, &path, err);
    if (!r)
        r = gf_dir_open(d->in->dir, path, &src, err);
    if (r == -ENOENT)
        return gf_fail(err, GF_EINCOMPLETE, "missing '%s'", path);
    if (!r)
        r = check_file(d, &d->table->files.at[place->file], src, err);
    if (!r)
        r = gf_catalog_new(d->in->limits, &d->out->catalog, err);
    if (r)
        return r;
    r = gf_found_add_source(d->out, gf_take(&src), &index, err);
    if (!r)
        r = gf_dcp_object_read(d->out->sources.at[index], d->object, index, d->in->limits,
                               d->out->catalog, err);
    d->ntensors = gf_catalog_len(d->out->catalog);
    d->nitems = 1;
    return r;
}

static int open_files(struct gf_dcp *d, struct gf_err *err)
{
    GF_AUTO(gf_dcp_cache) cache = NULL;
    int r = gf_dcp_cache_new(GF_DCP_CACHE, &cache, err);

    for (size_t f = 0; f < d->table->files.n && !r; f++)
        r = open_file(d, cache, f, err);
    return r;
}

/* --- catalog -------------------------------------------------------------------------- */

/* F4 is counted in pairs by torch, in halves by the catalog. */
static void widen(struct gf_shape shape, enum gf_dtype dtype, uint64_t *ret)
{
    if (shape.rank)
        memcpy(ret, shape.dims, shape.rank * sizeof(*ret));
    if (dtype == GF_F4)
        ret[shape.rank - 1] *= 2;
}

static int add_tensor(struct gf_dcp *d, const struct gf_dcp_tensor *t, struct gf_err *err)
{
    uint64_t dims[GF_MAX_RANK], first[GF_MAX_RANK], stride[GF_MAX_RANK];
    uint32_t rank = t->shape.rank;
    struct gf_tensor_spec spec = { .name = t->name,
                                   .shape = { rank, dims },
                                   .dtype = t->dtype,
                                   .live = t->dtype,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };
    int r;

    widen(t->shape, t->dtype, dims);
    r = gf_catalog_add(d->out->catalog, &spec, NULL, err);
    for (size_t k = 0; k < t->chunks.n && !r; k++) {
        const struct gf_dcp_chunk *chunk = &t->chunks.at[k];
        uint32_t f = chunk->place.file;

        widen((struct gf_shape){ rank, chunk->box }, t->dtype, first);
        widen((struct gf_shape){ rank, chunk->box + rank }, t->dtype, dims);
        gf_shape_strides((struct gf_shape){ rank, dims }, stride);
        r = gf_catalog_add_box(d->out->catalog, d->source[f], d->items[d->next[f]++].start,
                               first, dims, stride, err);
    }
    return r;
}

static int fill(struct gf_dcp *d, struct gf_err *err)
{
    int r = gf_catalog_new(d->in->limits, &d->out->catalog, err);

    for (size_t i = 0; i < d->table->tensors.n && !r; i++)
        if (is_served(d, &d->table->tensors.at[i])) {
            d->ntensors++;
            r = add_tensor(d, &d->table->tensors.at[i], err);
        }
    return r;
}

static int read_tensors(struct gf_dcp *d, struct gf_err *err)
{
    int r = check_served(d, err);

    if (!r)
        r = collect(d, err);
    if (!r)
        r = open_files(d, err);
    return r ? r : fill(d, err);
}

int gf_dcp_fill(struct gf_dcp *d, struct gf_err *err)
{
    return d->object ? read_object(d, err) : read_tensors(d, err);
}
