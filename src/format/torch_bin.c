/* SPDX-License-Identifier: Apache-2.0 */
#include "format/torch_bin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "container/torch_file.h"
#include "format/parallel.h"
#include "format/torch_state.h"
#include "format/weight_index.h"

#define SINGLE "pytorch_model.bin"
#define INDEX "pytorch_model.bin.index.json"
#define FSDP_FULL "pytorch_model_fsdp.bin"
#define ADAPTER "adapter_model.bin"
#define HEAD 16

struct model {
    const struct gf_format_in *in;
    struct gf_found *out;
    struct gf_weight_index *index; /* NULL: one file */
    struct gf_state *files;
    const char *const *paths; /* of the files */
    size_t n;
};

static bool is_there(struct gf_dir *dir, const char *path)
{
    struct gf_dir_entry entry;

    return gf_dir_stat(dir, path, &entry) == 0 && !entry.is_dir;
}

/* --- probe ---------------------------------------------------------------------------- */

static bool begins_as_torch(struct gf_dir *dir, const char *file)
{
    GF_AUTO(gf_source) src = NULL;
    uint8_t head[HEAD];

    return gf_dir_open(dir, file, &src, NULL) == 0 && src->size >= HEAD &&
           gf_source_read(src, head, HEAD, 0) == 0 &&
           (gf_torch_is_zip(head, HEAD) || gf_torch_is_legacy(head, HEAD));
}

static bool has_extension(const char *name)
{
    static const char *const known[] = { ".bin", ".pt", ".pth", ".ckpt" };
    const char *dot = strrchr(name, '.');

    for (size_t i = 0; dot && i < GF_COUNT(known); i++)
        if (strcmp(dot, known[i]) == 0)
            return true;
    return false;
}

static int probe_file(struct gf_dir *dir, const char *file, char why[static GF_WHY])
{
    if (gf_state_is_side_file(file)) {
        snprintf(why, GF_WHY, "a trainer's own file, no weights");
        return 0;
    }
    if (begins_as_torch(dir, file)) {
        snprintf(why, GF_WHY, "begins as torch.save begins");
        return GF_BIN_SURE_FILE;
    }
    if (has_extension(file)) {
        snprintf(why, GF_WHY, "called like a torch file");
        return GF_BIN_SURE_NAME;
    }
    snprintf(why, GF_WHY, "neither by its name nor by its bytes a torch file");
    return 0;
}

static int bin_probe(struct gf_dir *dir, const char *file, char why[static GF_WHY])
{
    static const struct {
        const char *name;
        int sure;
    } known[] = { { SINGLE, GF_BIN_SURE_MODEL },
                  { INDEX, GF_BIN_SURE_MODEL },
                  { FSDP_FULL, GF_BIN_SURE_MODEL },
                  { ADAPTER, GF_BIN_SURE_ADAPTER } };

    if (file)
        return probe_file(dir, file, why);
    for (size_t i = 0; i < GF_COUNT(known); i++)
        if (is_there(dir, known[i].name)) {
            snprintf(why, GF_WHY, "'%s' is there", known[i].name);
            return known[i].sure;
        }
    snprintf(why, GF_WHY, "no '" SINGLE "', no '" INDEX "', no '" FSDP_FULL "'");
    return 0;
}

/* --- read ----------------------------------------------------------------------------- */

static int read_one(void *ctx, size_t i, struct gf_err *err)
{
    struct model *m = ctx;
    int r = gf_state_read(m->in->dir, m->paths[i], 0, m->in->limits, &m->files[i], err);

    if (r == -ENOENT && m->index)
        return gf_fail(err, GF_EINCOMPLETE, "missing '%s', which '%s' names", m->paths[i],
                       m->index->name);
    return r;
}

/* A distributed tensor in a file that should hold all of it: accelerate saved FSDP2
 * adapters so before 1.11 (its #4206), rank 0's part alone. */
static int refuse_part(const struct gf_state *file, const struct gf_state_tensor *tensor,
                       struct gf_err *err)
{
    char part[GF_SHAPE_TEXT] = "none", whole[GF_SHAPE_TEXT];

    if (tensor->nparts)
        gf_shape_text((struct gf_shape){ tensor->shape.rank, tensor->parts[0].size }, part);
    return gf_fail(
        err, GF_EINCOMPLETE,
        "'%s': tensor '%s': one rank's part of it alone (%s of %s, spread over "
        "%" PRIu64 " ranks): if each rank has a file, SOURCE is their directory; "
        "if not, the other parts were never saved",
        file->path, tensor->name, part, gf_shape_text(tensor->shape, whole), tensor->ranks);
}

static int add_spread(struct model *m, const struct gf_state *file,
                      const struct gf_state_tensor *tensor, uint32_t source,
                      struct gf_err *err)
{
    struct gf_state_tensor whole = *tensor;
    uint64_t numel = 0;

    if (tensor->nparts == 1 &&
        gf_shape_numel((struct gf_shape){ tensor->shape.rank, tensor->parts[0].size },
                       &numel))
        return gf_nomem(err); /* impossible: part of a checked size */
    if (numel != tensor->numel)
        return refuse_part(file, tensor, err);
    whole.spread = false;
    return gf_state_add(m->out, &whole, source, GF_NONE, err);
}

/* What tells one place in memory from another, as text. */
static char *place_text(struct gf_state *file, const struct gf_state_tensor *tensor)
{
    struct gf_text text = { 0 };
    char *copy;

    gf_text_printf(&text, "%s %" PRIu64 " %d %d", tensor->storage, tensor->start,
                   (int)tensor->dtype, tensor->twist);
    for (uint32_t d = 0; d < tensor->shape.rank; d++)
        gf_text_printf(&text, " %" PRIu64 "*%" PRIu64, tensor->shape.dims[d],
                       tensor->parts[0].strides[d]);
    copy = text.s && !text.failed ? gf_arena_strdup(&file->arena, text.s) : NULL;
    gf_text_done(&text);
    return copy;
}

static int add_whole(struct model *m, struct gf_state *file,
                     const struct gf_state_tensor *tensor, uint32_t source,
                     struct gf_strmap *places, struct gf_err *err)
{
    uint64_t index = gf_catalog_len(m->out->catalog), same = GF_NONE;
    char *place;
    int r;

    if (tensor->numel) {
        place = place_text(file, tensor);
        r = place ? gf_strmap_put(places, place, index, &same) : -ENOMEM;
        if (r == -ENOMEM)
            return gf_nomem(err);
    }
    return gf_state_add(m->out, tensor, source, (uint32_t)same, err);
}

static int add_file(struct model *m, struct gf_state *file, struct gf_err *err)
{
    struct gf_strmap places = { 0 };
    uint32_t source;
    int r = gf_state_judge(file, m->in->allow_incomplete, m->out, err);

    m->out->mtime_ns = GF_MAX(m->out->mtime_ns, file->source->identity.mtime_ns);
    if (!r)
        r = gf_found_add_source(m->out, gf_take(&file->source), &source, err);
    for (size_t i = 0; i < file->n && !r; i++) {
        const struct gf_state_tensor *tensor = &file->at[i];

        r = tensor->spread ? add_spread(m, file, tensor, source, err)
                           : add_whole(m, file, tensor, source, &places, err);
        if (r == -GF_EBAD) /* the catalog does not know files */
            gf_wrap(err, "'%s'", file->path);
    }
    gf_strmap_done(&places);
    return r;
}

/* Is what the index names in the file that it names? */
static int check_index(const struct model *m, struct gf_err *err)
{
    struct gf_strmap where = { 0 };
    int r = 0;

    for (size_t f = 0; f < m->n; f++) {
        for (size_t i = 0; i < m->files[f].n && !r; i++)
            if (gf_strmap_put(&where, m->files[f].at[i].name, f, NULL) == -ENOMEM)
                r = gf_nomem(err);
        for (size_t i = 0; i < m->files[f].nodd && !r; i++)
            if (gf_strmap_put(&where, m->files[f].odd[i].name, f, NULL) == -ENOMEM)
                r = gf_nomem(err);
    }
    for (const struct gf_json *at = gf_weight_index_first(m->index); at && !r;
         at = gf_json_next(at)) {
        uint64_t f;

        if (!gf_strmap_get(&where, gf_json_key(at), &f))
            r = gf_fail(err, GF_EINCOMPLETE, "'%s': no tensor '%s' in it, which '%s' names",
                        gf_json_str(at), gf_json_key(at), m->index->name);
        else if (strcmp(m->paths[f], gf_json_str(at)) != 0)
            r = gf_fail(err, GF_EBAD, "'%s': tensor '%s' is in '%s', not in '%s'",
                        m->index->name, gf_json_key(at), m->paths[f], gf_json_str(at));
    }
    gf_strmap_done(&where);
    return r;
}

static void describe(const struct model *m)
{
    struct gf_found *out = m->out;
    const struct gf_state *first = &m->files[0];
    size_t odd = 0;

    for (size_t i = 0; i < m->n; i++)
        odd += m->files[i].nodd;
    snprintf(out->detail, sizeof(out->detail), "%s%zu torch file%s%s%.60s%s",
             first->lightning ? "Lightning, " : "", m->n, m->n == 1 ? "" : "s",
             *first->where ? ", state dict at '" : "", first->where,
             *first->where ? "'" : "");
    out->has_step = m->n == 1 && first->has_step;
    out->step = out->has_step ? first->step : 0;
    out->complete = odd ? GF_COMPLETE_NO : GF_COMPLETE_YES;
    if (odd)
        snprintf(out->why, sizeof(out->why),
                 "%zu tensors cannot be served and are left out", odd);
    else if (m->index)
        snprintf(out->why, sizeof(out->why), "all %zu files that '%s' names are present",
                 m->n, m->index->name);
    else
        snprintf(out->why, sizeof(out->why), "'%.80s' is whole", m->paths[0]);
}

static int find_files(struct model *m, const char **single, struct gf_err *err)
{
    static const char *const names[] = { FSDP_FULL, ADAPTER };
    struct gf_dir *dir = m->in->dir;
    int r = 0;

    m->paths = single;
    m->n = 1;
    *single = m->in->file ? m->in->file : SINGLE;
    if (m->in->file || is_there(dir, SINGLE))
        return 0;
    if (is_there(dir, INDEX)) {
        r = gf_weight_index_read(dir, INDEX, m->in->limits, &m->index, err);
        if (!r) {
            m->paths = m->index->files;
            m->n = m->index->nfiles;
        }
        return r;
    }
    for (size_t i = 0; i < GF_COUNT(names); i++)
        if (is_there(dir, names[i])) {
            *single = names[i];
            break;
        }
    return 0;
}

static int read_model(struct model *m, struct gf_err *err)
{
    int r = 0;

    m->files = calloc(m->n, sizeof(*m->files));
    if (!m->files)
        return gf_nomem(err);
    r = gf_parallel(m->n, m->in->threads, read_one, m, err);
    if (!r && m->index)
        r = check_index(m, err);
    for (size_t i = 0; i < m->n && !r; i++)
        r = add_file(m, &m->files[i], err);
    if (!r)
        describe(m);
    for (size_t i = 0; i < m->n; i++)
        gf_state_done(&m->files[i]);
    free(m->files);
    return r;
}

static int bin_read(const struct gf_format_in *in, struct gf_found *out, struct gf_err *err)
{
    struct model m = { .in = in, .out = out };
    const char *single;
    int r = gf_catalog_new(in->limits, &out->catalog, err);

    out->format = gf_torch_bin_format.name;
    if (!r)
        r = find_files(&m, &single, err);
    if (!r && !in->file && strcmp(m.paths[0], ADAPTER) != 0 && is_there(in->dir, ADAPTER) &&
        gf_found_warn(out, "'" ADAPTER "' is left out: transformers would apply it to the "
                           "model weights beside it once more"))
        r = gf_nomem(err);
    if (!r)
        r = read_model(&m, err);
    gf_weight_index_free(m.index);
    return r;
}

const struct gf_format gf_torch_bin_format = {
    .name = "torch",
    .layer = GF_LAYER_BIN,
    .probe = bin_probe,
    .read = bin_read,
};
