/* SPDX-License-Identifier: Apache-2.0 */
#include "format/hf_sharded.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/math.h"
#include "base/strmap.h"
#include "container/safetensors.h"
#include "format/hf_dir.h"
#include "format/steps.h"
#include "format/template.h"

/* Where the shards are: of a save that is consolidated at once, below the model. */
static const char *const bases[] = { "", "sharded" };

struct shard {
    uint64_t rank, file, of; /* the numbers in its name */
    const char *path;        /* below SOURCE */
};

struct piece {
    const uint64_t *first, *size;
    uint64_t offset; /* of its bytes in the source */
    uint32_t source;
};

struct tensor {
    const char *name;
    enum gf_dtype dtype;
    uint32_t rank;
    uint64_t *dims; /* so far: the furthest end of a piece */
    struct GF_VEC(struct piece) pieces;
    const char *path; /* the file that it was first seen in */
};

struct hf {
    const struct gf_format_in *in;
    struct gf_found *out;
    const char *base;
    struct gf_arena arena;
    struct GF_VEC(struct shard) shards; /* by file, then rank */
    struct GF_VEC(struct tensor) tensors;
    struct gf_strmap by_name;
};

static void hf_done(struct hf *hf)
{
    for (size_t i = 0; i < hf->tensors.n; i++)
        gf_vec_free(&hf->tensors.at[i].pieces);
    gf_vec_free(&hf->tensors);
    gf_vec_free(&hf->shards);
    gf_strmap_done(&hf->by_name);
    gf_arena_done(&hf->arena);
}

/* --- names ---------------------------------------------------------------------------- */

static bool number(const char **s, const char *before, uint64_t *ret)
{
    size_t skip = strlen(before), n;

    if (strncmp(*s, before, skip) != 0)
        return false;
    *s += skip;
    n = strspn(*s, "0123456789");
    if (n == 0 || n > 9)
        return false;
    *ret = strtoull(*s, NULL, 10);
    *s += n;
    return *ret > 0;
}

static bool parse_name(const char *name, struct shard *ret)
{
    return number(&name, "shard-", &ret->rank) && number(&name, "-model-", &ret->file) &&
           number(&name, "-of-", &ret->of) && strcmp(name, ".safetensors") == 0;
}

/* The directory with shards and its listing; NULL if there is none. */
static const char *find_base(struct gf_dir *dir, struct gf_dir_listing *ret)
{
    for (size_t i = 0; i < GF_COUNT(bases); i++) {
        struct gf_dir_listing listing;
        struct shard shard;

        if (gf_dir_list(dir, bases[i], &listing, NULL))
            continue;
        for (size_t k = 0; k < listing.n; k++)
            if (!listing.at[k].is_dir && parse_name(listing.at[k].name, &shard)) {
                *ret = listing;
                return bases[i];
            }
        gf_dir_listing_free(&listing);
    }
    return NULL;
}

static int by_file(const void *a, const void *b)
{
    const struct shard *x = a, *y = b;

    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static int list_shards(struct hf *hf, struct gf_err *err)
{
    struct gf_dir_listing listing = { 0 };
    int r = 0;

    hf->base = find_base(hf->in->dir, &listing);
    if (!hf->base)
        return gf_fail(err, ENOENT, "'%s': no 'shard-*-model-*.safetensors'",
                       hf->in->dir->name);
    for (size_t i = 0; i < listing.n && !r; i++) {
        struct shard shard;

        if (listing.at[i].is_dir || !parse_name(listing.at[i].name, &shard))
            continue;
        shard.path = gf_arena_printf(&hf->arena, "%s%s%s", hf->base, *hf->base ? "/" : "",
                                     listing.at[i].name);
        if (!shard.path || gf_vec_push(&hf->shards, shard, hf->in->limits->dir_entries))
            r = gf_nomem(err);
    }
    gf_dir_listing_free(&listing);
    if (!r)
        qsort(hf->shards.at, hf->shards.n, sizeof(*hf->shards.at), by_file);
    return r;
}

/* Ranks 1 to N and files 1 to `of` are there; not each rank has each file. */
static int check_numbers(const struct hf *hf, struct gf_err *err)
{
    const struct shard *first = &hf->shards.at[0];
    uint64_t ranks = 0, file = 0;
    GF_AUTO_MEM bool *seen = NULL;

    for (size_t i = 0; i < hf->shards.n; i++) {
        const struct shard *shard = &hf->shards.at[i];

        if (shard->of != first->of || shard->file > shard->of)
            return gf_fail(err, GF_EBAD,
                           "'%s': file %" PRIu64 " of %" PRIu64 ", but '%s' is of %" PRIu64,
                           shard->path, shard->file, shard->of, first->path, first->of);
        if (i && by_file(&hf->shards.at[i - 1], shard) == 0)
            return gf_fail(err, GF_EBAD, "'%s' and '%s' have the same numbers", shard->path,
                           hf->shards.at[i - 1].path);
        if (shard->file > file + 1)
            return gf_fail(err, GF_EINCOMPLETE,
                           "missing 'shard-*-model-%05" PRIu64 "-of-%05" PRIu64
                           ".safetensors' of all ranks",
                           file + 1, shard->of);
        file = shard->file;
        ranks = GF_MAX(ranks, shard->rank);
    }
    if (file < first->of)
        return gf_fail(err, GF_EINCOMPLETE,
                       "missing 'shard-*-model-%05" PRIu64 "-of-%05" PRIu64
                       ".safetensors' of all ranks",
                       file + 1, first->of);
    if (ranks > hf->in->limits->ranks)
        return gf_fail(err, GF_EBAD, "'%s': more than %zu ranks", hf->in->dir->name,
                       hf->in->limits->ranks);
    seen = calloc(ranks + 1, sizeof(*seen));
    if (!seen)
        return gf_nomem(err);
    for (size_t i = 0; i < hf->shards.n; i++)
        seen[hf->shards.at[i].rank] = true;
    for (uint64_t rank = 1; rank <= ranks; rank++)
        if (!seen[rank])
            return gf_fail(err, GF_EINCOMPLETE,
                           "missing 'shard-%05" PRIu64 "-model-*.safetensors': ranks 1 to "
                           "%" PRIu64 " are due",
                           rank, ranks);
    return 0;
}

/* --- pieces --------------------------------------------------------------------------- */

static int copy_dims(struct hf *hf, const uint64_t *dims, uint32_t rank, uint64_t **ret,
                     struct gf_err *err)
{
    uint64_t *copy = gf_arena_alloc(&hf->arena, rank * sizeof(*copy));

    if (!copy)
        return gf_nomem(err);
    if (rank)
        memcpy(copy, dims, rank * sizeof(*copy));
    *ret = copy;
    return 0;
}

static int find_tensor(struct hf *hf, const struct gf_safetensors_entry *entry,
                       const char *path, struct tensor **ret, struct gf_err *err)
{
    struct tensor t = { .dtype = entry->dtype, .rank = entry->shape.rank, .path = path };
    uint64_t index;

    if (!gf_strmap_get(&hf->by_name, entry->name, &index)) {
        uint64_t none[GF_MAX_RANK] = { 0 };
        int r = copy_dims(hf, none, t.rank, &t.dims, err);

        if (r)
            return r;
        index = hf->tensors.n;
        t.name = gf_arena_strdup(&hf->arena, entry->name);
        if (!t.name || gf_vec_push(&hf->tensors, t, hf->in->limits->tensors) ||
            gf_strmap_put(&hf->by_name, t.name, index, NULL))
            return gf_nomem(err);
    }
    *ret = &hf->tensors.at[index];
    if ((*ret)->dtype != t.dtype || (*ret)->rank != t.rank)
        return gf_fail(
            err, GF_EBAD, "tensor '%s': %s with %u dimensions in '%s', %s with %u in '%s'",
            entry->name, gf_dtype_info(t.dtype)->safetensors, t.rank, path,
            gf_dtype_info((*ret)->dtype)->safetensors, (*ret)->rank, (*ret)->path);
    return 0;
}

/* {"saved_offsets": [...]}: one number for each dimension. */
static bool read_offsets(const struct gf_json *info,
                         const struct gf_safetensors_entry *entry, uint64_t *ret)
{
    const struct gf_json *list = gf_json_get(info, "saved_offsets");
    uint32_t rank = entry->shape.rank;

    if (!gf_json_is_array(list) || gf_json_len(list) != rank)
        return false;
    for (uint32_t d = 0; d < rank; d++)
        if (!gf_json_u64(gf_json_at(list, d), &ret[d]))
            return false;
    if (entry->dtype == GF_F4 && rank) /* torch counts pairs */
        ret[rank - 1] *= 2;
    return true;
}

static int add_piece(struct hf *hf, const struct gf_safetensors_entry *entry,
                     const struct gf_json *info, uint32_t source, const char *path,
                     struct gf_err *err)
{
    struct piece piece = { .offset = entry->begin, .source = source };
    uint64_t first[GF_MAX_RANK], end, *copy = NULL;
    struct tensor *t = NULL;
    int r;

    if (!read_offsets(info, entry, first))
        return gf_fail(err, GF_EBAD,
                       "'%s': tensor '%s': DCP_SHARDING_INFO has no place for it", path,
                       entry->name);
    r = find_tensor(hf, entry, path, &t, err);
    for (uint32_t d = 0; d < entry->shape.rank && !r; d++) {
        if (gf_add(first[d], entry->shape.dims[d], &end))
            return gf_fail(err, GF_EBAD, "'%s': tensor '%s': impossible place", path,
                           entry->name);
        t->dims[d] = GF_MAX(t->dims[d], end);
    }
    if (r || entry->begin == entry->end)
        return r;
    r = copy_dims(hf, first, t->rank, &copy, err);
    piece.first = copy;
    if (!r)
        r = copy_dims(hf, entry->shape.dims, t->rank, &copy, err);
    piece.size = copy;
    if (!r && gf_vec_push(&t->pieces, piece, hf->in->limits->pieces))
        r = gf_nomem(err);
    return r;
}

/* --- files ---------------------------------------------------------------------------- */

static int read_info(struct hf *hf, const struct gf_safetensors *st, const char *path,
                     struct gf_json **ret, struct gf_err *err)
{
    for (size_t i = 0; i < st->nmeta; i++)
        if (strcmp(st->meta[i][0], "DCP_SHARDING_INFO") == 0)
            return gf_json_parse(path, st->meta[i][1], strlen(st->meta[i][1]),
                                 hf->in->limits, ret, err);
    return gf_fail(err, GF_EBAD, "'%s': no DCP_SHARDING_INFO in its __metadata__", path);
}

/* The pieces in the order of DCP_SHARDING_INFO, which is that of the state dict: the file's
 * own is by dtype and name. */
static int add_pieces(struct hf *hf, const struct gf_safetensors *st,
                      const struct gf_json *info, uint32_t source, const char *path,
                      struct gf_err *err)
{
    struct gf_strmap entries = { 0 };
    size_t used = 0;
    uint64_t at;
    int r = 0;

    for (size_t i = 0; i < st->n && !r; i++)
        if (gf_strmap_put(&entries, st->at[i].name, i, NULL))
            r = gf_nomem(err);
    for (const struct gf_json *one = gf_json_at(info, 0); one && !r;
         one = gf_json_next(one))
        if (gf_strmap_get(&entries, gf_json_key(one) ? gf_json_key(one) : "", &at)) {
            used++;
            r = add_piece(hf, &st->at[at], one, source, path, err);
        }
    gf_strmap_done(&entries);
    if (!r && used != st->n)
        r = gf_fail(err, GF_EBAD, "'%s': DCP_SHARDING_INFO names %zu of its %zu tensors",
                    path, used, st->n);
    return r;
}

static int read_shard(struct hf *hf, const struct shard *shard, struct gf_err *err)
{
    GF_AUTO(gf_safetensors) st = NULL;
    GF_AUTO(gf_source) src = NULL;
    GF_AUTO(gf_json) info = NULL;
    uint32_t source;
    int r = gf_dir_open(hf->in->dir, shard->path, &src, err);

    if (!r)
        r = gf_hf_header_read(src, hf->in->limits, &st, err);
    if (!r)
        r = read_info(hf, st, shard->path, &info, err);
    if (r)
        return r;
    hf->out->mtime_ns = GF_MAX(hf->out->mtime_ns, src->identity.mtime_ns);
    r = gf_found_add_source(hf->out, gf_take(&src), &source, err);
    return r ? r : add_pieces(hf, st, info, source, shard->path, err);
}

/* --- catalog -------------------------------------------------------------------------- */

/* The template's shape is the whole one: what the pieces do not reach is then missing. */
static int apply_template(const struct hf *hf, struct tensor *t, struct gf_err *err)
{
    const struct gf_tensor *wanted =
        hf->in->template ? gf_catalog_find(hf->in->template, t->name) : NULL;
    char found[GF_SHAPE_TEXT], due[GF_SHAPE_TEXT];
    bool fits = wanted && wanted->shape.rank == t->rank;

    if (!wanted)
        return 0;
    for (uint32_t d = 0; fits && d < t->rank; d++)
        fits = t->dims[d] <= wanted->shape.dims[d];
    if (!fits)
        return gf_fail(err, GF_EBAD, "tensor '%s': pieces reach to %s, the template has %s",
                       t->name, gf_shape_text((struct gf_shape){ t->rank, t->dims }, found),
                       gf_shape_text(wanted->shape, due));
    if (t->rank)
        memcpy(t->dims, wanted->shape.dims, t->rank * sizeof(*t->dims));
    return 0;
}

static int add_tensor(struct hf *hf, const struct tensor *t, struct gf_err *err)
{
    struct gf_tensor_spec spec = { .name = t->name,
                                   .shape = { t->rank, t->dims },
                                   .dtype = t->dtype,
                                   .live = t->dtype,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };
    uint64_t stride[GF_MAX_RANK];
    int r = gf_catalog_add(hf->out->catalog, &spec, NULL, err);

    for (size_t i = 0; i < t->pieces.n && !r; i++) {
        const struct piece *piece = &t->pieces.at[i];

        gf_shape_strides((struct gf_shape){ t->rank, piece->size }, stride);
        r = gf_catalog_add_box(hf->out->catalog, piece->source, piece->offset, piece->first,
                               piece->size, stride, err);
    }
    return r;
}

/* Is each tensor of the template there? *ret: it is, by names and shapes. */
static int check_template(const struct hf *hf, bool *ret, struct gf_err *err)
{
    int r =
        hf->in->template ? gf_template_check(hf->out->catalog, hf->in->template, err) : 0;

    *ret = hf->in->template && !r;
    return r == -GF_EINCOMPLETE && hf->in->allow_incomplete ? 0 : r;
}

static void describe(struct hf *hf, bool confirmed)
{
    struct gf_found *out = hf->out;
    uint64_t ranks = 0;

    for (size_t i = 0; i < hf->shards.n; i++)
        ranks = GF_MAX(ranks, hf->shards.at[i].rank);
    out->format = gf_hf_sharded_format.name;
    snprintf(out->base, sizeof(out->base), "%s", hf->base);
    snprintf(out->detail, sizeof(out->detail),
             "DCP in safetensors, %" PRIu64 " rank%s, %zu tensors in %zu files", ranks,
             ranks == 1 ? "" : "s", hf->tensors.n, hf->shards.n);
    if (confirmed) {
        out->complete = GF_COMPLETE_YES;
        snprintf(out->why, sizeof(out->why),
                 "all tensors of the template are there, in its shapes");
        return;
    }
    out->complete = GF_COMPLETE_UNKNOWN;
    snprintf(
        out->why, sizeof(out->why),
        "the shards do not say how many ranks and tensors there were; names and shapes "
        "of the model would tell (config_from=DIR with its weights)");
}

static void read_step(struct hf *hf)
{
    const char *name = hf->in->dir->name, *end = name + strlen(name), *start;
    char last[64];

    while (end > name && end[-1] == '/')
        end--;
    for (start = end; start > name && start[-1] != '/';)
        start--;
    snprintf(last, sizeof(last), "%.*s", (int)GF_MIN(end - start, 63), start);
    hf->out->has_step = gf_step_number(last, &hf->out->step);
    hf->out->parent_side = hf->out->has_step || strcmp(last, "sharded") == 0;
}

/* --- the format ----------------------------------------------------------------------- */

static int read_all(struct hf *hf, struct gf_err *err)
{
    bool confirmed = false;
    int r = list_shards(hf, err);

    if (!r)
        r = check_numbers(hf, err);
    for (size_t i = 0; i < hf->shards.n && !r; i++)
        r = read_shard(hf, &hf->shards.at[i], err);
    if (!r)
        r = gf_catalog_new(hf->in->limits, &hf->out->catalog, err);
    for (size_t i = 0; i < hf->tensors.n && !r; i++) {
        r = apply_template(hf, &hf->tensors.at[i], err);
        if (!r)
            r = add_tensor(hf, &hf->tensors.at[i], err);
    }
    if (!r)
        r = check_template(hf, &confirmed, err);
    if (!r) {
        read_step(hf);
        describe(hf, confirmed);
    }
    return r;
}

static int hf_read(const struct gf_format_in *in, struct gf_found *out, struct gf_err *err)
{
    struct hf hf = { .in = in, .out = out };
    int r = in->tag ? gf_fail(err, EINVAL, "tag '%s': sharded safetensors have no tags",
                              in->tag)
                    : read_all(&hf, err);

    hf_done(&hf);
    return r;
}

static int hf_probe(struct gf_dir *dir, const char *file, char why[static GF_WHY])
{
    struct gf_dir_listing listing = { 0 };
    const char *base = file ? NULL : find_base(dir, &listing);

    if (!base) {
        snprintf(why, GF_WHY, "no 'shard-*-model-*.safetensors'");
        return 0;
    }
    snprintf(why, GF_WHY, "'shard-*-model-*.safetensors'%s%s", *base ? " in " : "", base);
    gf_dir_listing_free(&listing);
    return 90;
}

const struct gf_format gf_hf_sharded_format = {
    .name = "dcp-safetensors",
    .layer = GF_LAYER_SHARDS,
    .probe = hf_probe,
    .read = hf_read,
};
