/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_metadata.c - from the values of the pickle to the tables of dcp_metadata.h.
 *
 * One pass over the tensors and their chunks, which are then sorted by tensor, and one over
 * storage_data, which finds each chunk by name and offset: n log n in the number of items.
 * Values of a pickle may be shared, so that a small file could name one list of chunks a
 * million times; honest files write each chunk out, which is what bounds their number here.
 */
#include "format/dcp_metadata.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "container/torch_file.h"
#include "format/dcp_path.h"
#include "source/dir.h"

#define CHUNK_BYTES 8 /* no pickle says a chunk in less */

struct reader {
    struct gf_dcp_table *table;
    const char *name;            /* the file's, for errors */
    const struct gf_pv *planner; /* dict fqn -> path, or NULL */
    struct gf_strmap planned;    /* fqn -> index into planner */
    size_t chunks_left;
    struct gf_err *err;
};

#define BAD(r, fmt, ...) gf_fail((r)->err, GF_EBAD, "'%s': " fmt, (r)->name, ##__VA_ARGS__)

int gf_dcp_table_new(const struct gf_limits *limits, struct gf_dcp_table **ret,
                     struct gf_err *err)
{
    GF_AUTO(gf_dcp_table) table = calloc(1, sizeof(*table));

    if (!table || gf_vec_push(&table->packings, "", 1))
        return gf_nomem(err);
    table->limits = limits;
    *ret = gf_take(&table);
    return 0;
}

void gf_dcp_table_free(struct gf_dcp_table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->tensors.n; i++)
        gf_vec_free(&table->tensors.at[i].chunks);
    gf_vec_free(&table->tensors);
    gf_vec_free(&table->groups);
    gf_vec_free(&table->files);
    gf_vec_free(&table->objects);
    gf_vec_free(&table->packings);
    gf_strmap_done(&table->by_fqn);
    gf_strmap_done(&table->by_path);
    gf_strmap_done(&table->by_file);
    gf_strmap_done(&table->objects_by_fqn);
    gf_arena_done(&table->arena);
    free(table);
}

/* --- values --------------------------------------------------------------------------- */

/* An instance of one of torch.distributed's classes, wherever it lived in that version. */
static bool is_a(const struct gf_pv *v, const char *class)
{
    const char *module = gf_pv_global_module(gf_pv_func(v));
    const char *name = gf_pv_global_name(gf_pv_func(v));

    return module && strncmp(module, "torch.distributed.", 18) == 0 &&
           strcmp(name, class) == 0;
}

static const struct gf_pv *field(const struct gf_pv *v, const char *name)
{
    const struct gf_pv *state = gf_pv_state(v);

    if (gf_pv_kind(state) == GF_PV_TUPLE) /* a class with __slots__ */
        state = gf_pv_item(state, 1);
    return gf_pv_get(state, name);
}

static bool number(const struct gf_pv *v, uint64_t *ret)
{
    int64_t i;

    if (!gf_pv_int(v, &i) || i < 0)
        return false;
    *ret = (uint64_t)i;
    return true;
}

static int copy_text(struct reader *r, const char *text, const char **ret)
{
    char *copy = gf_arena_strdup(&r->table->arena, text);

    if (!copy)
        return gf_nomem(r->err);
    *ret = copy;
    return 0;
}

/* --- paths and groups ----------------------------------------------------------------- */

static int find_path(struct reader *r, const char *fqn, struct gf_dcp_path *path,
                     uint64_t *order)
{
    uint64_t at;

    if (!gf_strmap_get(&r->planned, fqn, &at)) {
        *order = UINT64_MAX / 2 + r->table->tensors.n; /* behind all that have one */
        return gf_dcp_path_of_key(fqn, path) ? 0
                                             : BAD(r, "a key of %zu bytes", strlen(fqn));
    }
    *order = at;
    return gf_dcp_path_of_value(gf_pv_value(r->planner, at), path)
               ? 0
               : BAD(r, "path of '%s' in planner_data is no tuple of keys", fqn);
}

static int add_group(struct reader *r, const struct gf_dcp_path *path, const char *key)
{
    struct gf_dcp_group group = { .last = "", .depth = (uint32_t)path->n - 1 };
    char *text = gf_arena_strdup(&r->table->arena, key);

    if (!text)
        return gf_nomem(r->err);
    group.path = text;
    for (; *text; text++)
        if (*text == *GF_DCP_PATH_BETWEEN)
            *text = '.';
    if (path->n > 1 && copy_text(r, path->elements[path->n - 2], &group.last))
        return gf_nomem(r->err);
    return gf_vec_push(&r->table->groups, group, UINT32_MAX - 1) ? gf_nomem(r->err) : 0;
}

/* The group of all paths that differ only in their last element. */
static int group_of(struct reader *r, const struct gf_dcp_path *path, uint32_t *ret)
{
    struct gf_dcp_table *table = r->table;
    char key[GF_DCP_PATH_BYTES];
    const char *kept = NULL;
    uint64_t index;
    int e;

    gf_dcp_path_dict(path, key);
    if (!gf_strmap_get(&table->by_path, key, &index)) {
        index = table->groups.n;
        e = copy_text(r, key, &kept);
        if (!e)
            e = add_group(r, path, key);
        if (e)
            return e;
        if (gf_strmap_put(&table->by_path, kept, index, NULL))
            return gf_nomem(r->err);
    }
    *ret = (uint32_t)index;
    return 0;
}

/* --- tensors and chunks --------------------------------------------------------------- */

static int by_box(const void *a, const void *b, void *rank)
{
    const struct gf_dcp_chunk *x = a, *y = b;
    size_t n = 2 * (size_t) * (const uint32_t *)rank;

    for (size_t i = 0; i < n; i++)
        if (x->box[i] != y->box[i])
            return x->box[i] < y->box[i] ? -1 : 1;
    return 0;
}

/* Sorts the chunks from `from` on; of equal boxes the first stays. */
static void sort_chunks(struct gf_dcp_tensor *t, size_t from)
{
    size_t n = from;

    if (t->chunks.n - from > 1)
        qsort_r(t->chunks.at + from, t->chunks.n - from, sizeof(*t->chunks.at), by_box,
                &t->shape.rank);
    for (size_t i = from; i < t->chunks.n; i++)
        if (n == from || by_box(&t->chunks.at[n - 1], &t->chunks.at[i], &t->shape.rank))
            t->chunks.at[n++] = t->chunks.at[i];
    t->chunks.n = n;
}

static int add_chunk(struct reader *r, struct gf_dcp_tensor *t, const struct gf_pv *v)
{
    struct gf_dcp_chunk chunk = { .place.file = GF_DCP_NOWHERE };
    uint64_t first[GF_MAX_RANK], size[GF_MAX_RANK], *box, end;
    uint32_t rank = t->shape.rank, nfirst, nsize;

    if (!is_a(v, "ChunkStorageMetadata") ||
        !gf_pv_size(field(v, "offsets"), first, &nfirst) ||
        !gf_pv_size(field(v, "sizes"), size, &nsize) || nfirst != rank || nsize != rank)
        return BAD(r, "tensor '%s': a chunk is not a box of %u dimensions", t->fqn, rank);
    for (uint32_t d = 0; d < rank; d++) {
        if (size[d] == 0)
            return 0; /* a rank that has nothing of it */
        if (gf_add(first[d], size[d], &end) || end > t->shape.dims[d])
            return BAD(r,
                       "tensor '%s': a chunk of %" PRIu64 " at %" PRIu64
                       " of dimension %u, "
                       "which has %" PRIu64,
                       t->fqn, size[d], first[d], d, t->shape.dims[d]);
    }
    if (r->chunks_left-- == 0)
        return BAD(r, "tensor '%s': more chunks than the file can hold", t->fqn);
    box = gf_arena_alloc(&r->table->arena, 2 * rank * sizeof(*box));
    if (!box)
        return gf_nomem(r->err);
    if (rank) {
        memcpy(box, first, rank * sizeof(*box));
        memcpy(box + rank, size, rank * sizeof(*box));
    }
    chunk.box = box;
    return gf_vec_push(&t->chunks, chunk, r->table->limits->pieces) ? gf_nomem(r->err) : 0;
}

static int read_dtype(struct reader *r, const struct gf_pv *properties,
                      struct gf_dcp_tensor *t)
{
    const struct gf_pv *state = gf_pv_state(properties), *dtype = gf_pv_item(state, 0);

    if (gf_pv_is_dict(state))
        dtype = gf_pv_get(state, "dtype");
    if (!gf_pv_global_name(dtype))
        return BAD(r, "tensor '%s': its properties name no dtype", t->fqn);
    t->servable = gf_torch_dtype(dtype, &t->dtype);
    return copy_text(r, gf_pv_global_name(dtype), &t->dtype_text);
}

static int read_shape(struct reader *r, const struct gf_pv *v, struct gf_dcp_tensor *t)
{
    uint64_t dims[GF_MAX_RANK], *copy, numel;

    if (!gf_pv_size(v, dims, &t->shape.rank))
        return BAD(r, "tensor '%s': its size is no list of at most %d numbers", t->fqn,
                   GF_MAX_RANK);
    copy = gf_arena_alloc(&r->table->arena, t->shape.rank * sizeof(*copy));
    if (!copy)
        return gf_nomem(r->err);
    if (t->shape.rank)
        memcpy(copy, dims, t->shape.rank * sizeof(*copy));
    t->shape.dims = copy;
    if (gf_shape_numel(t->shape, &numel) || numel > INT64_MAX / 16)
        return BAD(r, "tensor '%s': impossible size", t->fqn);
    return 0;
}

/* A tensor that is not known yet. */
static int new_tensor(struct reader *r, const struct gf_dcp_path *path,
                      struct gf_dcp_tensor *t)
{
    struct gf_dcp_table *table = r->table;
    struct gf_dcp_group *group;
    int e = copy_text(r, path->elements[path->n - 1], &t->name);

    if (!e)
        e = group_of(r, path, &t->group);
    if (e)
        return e;
    if (table->tensors.n >= table->limits->tensors)
        return BAD(r, "more than %zu tensors", table->limits->tensors);
    if (gf_vec_push(&table->tensors, *t, table->limits->tensors) ||
        gf_strmap_put(&table->by_fqn, t->fqn, table->tensors.n - 1, NULL))
        return gf_nomem(r->err);
    group = &table->groups.at[t->group];
    group->tensors++;
    group->weights += t->shape.rank > 0;
    return 0;
}

static int read_tensor(struct reader *r, const char *fqn, const struct gf_dcp_path *path,
                       uint64_t order, const struct gf_pv *v)
{
    struct gf_dcp_table *table = r->table;
    struct gf_dcp_tensor t = { .order = order }, *known;
    const struct gf_pv *chunks = field(v, "chunks");
    uint64_t index;
    int e = copy_text(r, fqn, &t.fqn);

    if (!e)
        e = read_dtype(r, field(v, "properties"), &t);
    if (!e)
        e = read_shape(r, field(v, "size"), &t);
    if (e)
        return e;
    if (!gf_strmap_get(&table->by_fqn, fqn, &index)) {
        index = table->tensors.n;
        e = new_tensor(r, path, &t);
        if (e)
            return e;
    }
    known = &table->tensors.at[index];
    if (!gf_shape_equal(known->shape, t.shape) ||
        strcmp(known->dtype_text, t.dtype_text) != 0)
        return BAD(r, "tensor '%s': another shape or dtype than before", fqn);
    if (known->fresh != known->chunks.n)
        return BAD(r, "tensor '%s' is there twice", fqn);
    if (!gf_pv_is_list(chunks))
        return BAD(r, "tensor '%s': no list of chunks", fqn);
    for (size_t i = 0; i < gf_pv_len(chunks) && !e; i++)
        e = add_chunk(r, known, gf_pv_item(chunks, i));
    if (!e)
        sort_chunks(known, known->fresh);
    return e;
}

static int read_object(struct reader *r, const char *fqn)
{
    struct gf_dcp_table *table = r->table;
    struct gf_dcp_object object = { .place.file = GF_DCP_NOWHERE };
    int e;

    if (gf_strmap_get(&table->objects_by_fqn, fqn, &(uint64_t){ 0 }))
        return 0; /* another rank's copy */
    e = copy_text(r, fqn, &object.fqn);
    if (e)
        return e;
    if (gf_vec_push(&table->objects, object, table->limits->tensors) ||
        gf_strmap_put(&table->objects_by_fqn, object.fqn, table->objects.n - 1, NULL))
        return gf_nomem(r->err);
    return 0;
}

static int read_entry(struct reader *r, const struct gf_pv *key, const struct gf_pv *v)
{
    const char *fqn = gf_pv_str(key);
    struct gf_dcp_path path;
    uint64_t order;
    int e;

    if (!fqn)
        return BAD(r, "a key of state_dict_metadata is no text");
    e = find_path(r, fqn, &path, &order);
    if (e)
        return e;
    if (gf_dcp_path_is_other(&path)) {
        if (is_a(v, "TensorStorageMetadata") && r->table->skipped++ == 0)
            return copy_text(r, fqn, &r->table->skipped_as);
        return 0;
    }
    if (is_a(v, "BytesStorageMetadata"))
        return read_object(r, fqn);
    if (!is_a(v, "TensorStorageMetadata"))
        return gf_fail(r->err, ENOTSUP, "'%s': '%s' is stored as '%s', which is not known",
                       r->name, fqn,
                       gf_pv_func(v) ? gf_pv_global_name(gf_pv_func(v)) : "?");
    return read_tensor(r, fqn, &path, order, v);
}

/* --- where chunks are stored ---------------------------------------------------------- */

static int file_of(struct reader *r, const char *fqn, const char *path, uint64_t end,
                   uint32_t *ret)
{
    struct gf_dcp_table *table = r->table;
    struct gf_dcp_file file = { 0 };
    uint64_t index;
    int e;

    if (!gf_strmap_get(&table->by_file, path, &index)) {
        if (!*path || !gf_path_is_inside(path))
            return BAD(r, "'%s' is stored in '%s', which is not inside the checkpoint", fqn,
                       path);
        if (table->files.n >= table->limits->dir_entries)
            return BAD(r, "more than %zu files", table->limits->dir_entries);
        index = table->files.n;
        e = copy_text(r, path, &file.path);
        if (e)
            return e;
        if (gf_vec_push(&table->files, file, table->limits->dir_entries) ||
            gf_strmap_put(&table->by_file, file.path, index, NULL))
            return gf_nomem(r->err);
    }
    table->files.at[index].need = GF_MAX(table->files.at[index].need, end);
    *ret = (uint32_t)index;
    return 0;
}

/* ['stream.zstd/1'] -> the index of that text. */
static int packing_of(struct reader *r, const char *fqn, const struct gf_pv *list,
                      uint32_t *ret)
{
    struct gf_dcp_table *table = r->table;
    struct gf_text text = { 0 };
    const char *kept = "";
    size_t i = 0;
    int e = 0;

    for (size_t k = 0; k < GF_MIN(gf_pv_len(list), (size_t)8); k++) {
        const char *one = gf_pv_str(gf_pv_item(list, k));

        gf_text_printf(&text, "%s%.200s", k ? ", " : "", one ? one : "?");
    }
    while (i < table->packings.n &&
           strcmp(table->packings.at[i], text.s ? text.s : "") != 0)
        i++;
    if (text.failed) {
        e = gf_nomem(r->err);
    } else if (i == 64) {
        e = BAD(r, "'%s': more than 64 ways of packing items", fqn);
    } else if (i == table->packings.n) {
        e = copy_text(r, text.s, &kept);
        if (!e && gf_vec_push(&table->packings, kept, 64))
            e = gf_nomem(r->err);
    }
    gf_text_done(&text);
    *ret = (uint32_t)i;
    return e;
}

static int read_place(struct reader *r, const char *fqn, const struct gf_pv *info,
                      struct gf_dcp_place *ret)
{
    const char *path = gf_pv_str(field(info, "relative_path"));
    const struct gf_pv *transforms = field(info, "transform_descriptors");
    struct gf_dcp_place place = { 0 };
    uint64_t end;
    int e;

    if (!is_a(info, "_StorageInfo") || !path || !number(field(info, "offset"), &place.at) ||
        !number(field(info, "length"), &place.length) ||
        gf_add(place.at, place.length, &end) || end > INT64_MAX)
        return BAD(r, "'%s': no file, offset and length where it is stored", fqn);
    if (!gf_pv_is_none(transforms) && !gf_pv_is_list(transforms))
        return BAD(r, "'%s': its transforms are no list", fqn);
    e = packing_of(r, fqn, transforms, &place.packed);
    if (!e)
        e = file_of(r, fqn, path, end, &place.file);
    if (!e)
        *ret = place;
    return e;
}

/* The fresh chunk that starts at `first`; empty ones are not there, nor what other groups
 * stored. */
static struct gf_dcp_chunk *find_chunk(struct gf_dcp_tensor *t, const uint64_t *first)
{
    size_t lo = t->fresh, hi = t->chunks.n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const uint64_t *box = t->chunks.at[mid].box;
        uint32_t d = 0;

        while (d < t->shape.rank && box[d] == first[d])
            d++;
        if (d == t->shape.rank)
            return &t->chunks.at[mid];
        if (first[d] < box[d])
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

static int read_storage(struct reader *r, const struct gf_pv *index,
                        const struct gf_pv *info)
{
    struct gf_dcp_table *table = r->table;
    const char *fqn = gf_pv_str(field(index, "fqn"));
    const struct gf_pv *offset = field(index, "offset");
    struct gf_dcp_chunk *chunk;
    uint64_t first[GF_MAX_RANK], at;
    uint32_t rank;

    if (!is_a(index, "MetadataIndex") || !fqn)
        return BAD(r, "a key of storage_data is no MetadataIndex");
    if (gf_strmap_get(&table->objects_by_fqn, fqn, &at))
        return table->objects.at[at].place.file == GF_DCP_NOWHERE
                   ? read_place(r, fqn, info, &table->objects.at[at].place)
                   : 0;
    if (!gf_strmap_get(&table->by_fqn, fqn, &at))
        return 0;
    if (!gf_pv_size(offset, first, &rank) || rank != table->tensors.at[at].shape.rank)
        return BAD(r, "tensor '%s': stored at an offset that is none of its own", fqn);
    chunk = find_chunk(&table->tensors.at[at], first);
    return chunk ? read_place(r, fqn, info, &chunk->place) : 0;
}

static int check_stored(struct reader *r, struct gf_dcp_tensor *t)
{
    char text[GF_SHAPE_TEXT];

    for (size_t i = t->fresh; i < t->chunks.n; i++)
        if (t->chunks.at[i].place.file == GF_DCP_NOWHERE)
            return BAD(r, "tensor '%s': its chunk at %s is stored nowhere", t->fqn,
                       gf_shape_text(
                           (struct gf_shape){ t->shape.rank, t->chunks.at[i].box }, text));
    t->fresh = t->chunks.n;
    return 0;
}

/* --- the whole ------------------------------------------------------------------------ */

static int index_planner(struct reader *r, const struct gf_pv *planner)
{
    if (gf_pv_is_none(planner))
        return 0;
    if (!gf_pv_is_dict(planner))
        return BAD(r, "planner_data is no dict");
    r->planner = planner;
    for (size_t i = 0; i < gf_pv_pairs(planner); i++) {
        const char *fqn = gf_pv_str(gf_pv_key(planner, i));

        if (!fqn)
            return BAD(r, "a key of planner_data is no text");
        if (gf_strmap_put(&r->planned, fqn, i, NULL) == -ENOMEM)
            return gf_nomem(r->err);
    }
    return 0;
}

static int read_root(struct reader *r, const struct gf_pv *root)
{
    const struct gf_pv *entries = field(root, "state_dict_metadata");
    const struct gf_pv *storage = field(root, "storage_data");
    int e;

    if (!is_a(root, "Metadata"))
        return BAD(r, "no metadata of torch.distributed.checkpoint");
    if (!gf_pv_is_dict(entries) || !gf_pv_is_dict(storage))
        return BAD(r, "no %s in it",
                   gf_pv_is_dict(entries) ? "storage_data" : "state_dict_metadata");
    e = index_planner(r, field(root, "planner_data"));
    for (size_t i = 0; i < gf_pv_pairs(entries) && !e; i++)
        e = read_entry(r, gf_pv_key(entries, i), gf_pv_value(entries, i));
    for (size_t i = 0; i < gf_pv_pairs(storage) && !e; i++)
        e = read_storage(r, gf_pv_key(storage, i), gf_pv_value(storage, i));
    for (size_t i = 0; i < r->table->tensors.n && !e; i++)
        e = check_stored(r, &r->table->tensors.at[i]);
    return e;
}

int gf_dcp_table_add(struct gf_dcp_table *table, const char *name,
                     const struct gf_pickle *pickle, size_t len, struct gf_err *err)
{
    struct reader r = {
        .table = table, .name = name, .chunks_left = len / CHUNK_BYTES, .err = err
    };
    int e = read_root(&r, gf_pickle_root(pickle));

    gf_strmap_done(&r.planned);
    table->npickles++;
    return e;
}

static int by_order(const void *a, const void *b)
{
    const struct gf_dcp_tensor *x = a, *y = b;

    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return strcmp(x->fqn, y->fqn); /* of different pickles */
}

void gf_dcp_table_finish(struct gf_dcp_table *table)
{
    if (table->npickles > 1)
        for (size_t i = 0; i < table->tensors.n; i++)
            sort_chunks(&table->tensors.at[i], 0);
    if (table->tensors.n)
        qsort(table->tensors.at, table->tensors.n, sizeof(*table->tensors.at), by_order);
    gf_strmap_done(&table->by_fqn); /* its indices are the old ones */
}
