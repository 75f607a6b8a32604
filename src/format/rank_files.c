/* SPDX-License-Identifier: Apache-2.0 */
#include "format/rank_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"

#define NONE SIZE_MAX

/* One file's view of a tensor; those of one name are chained in the order of ranks. */
struct link {
    uint32_t file, tensor;
    size_t next;
};

struct name {
    size_t first, last; /* links */
};

struct merge {
    const struct gf_format_in *in;
    struct gf_found *out;
    const struct gf_rank_set *set;
    struct gf_rank_states states;
    struct name *names; /* in the order in which they are seen, rank 0's first */
    size_t nnames;
    struct link *links;
    size_t nspread;
};

struct box {
    const struct gf_state_part *part;
    uint32_t rank; /* dimensions */
    uint32_t file;
};

static const struct gf_state_tensor *tensor_of(const struct merge *m, size_t link)
{
    return &m->states.at[m->links[link].file].at[m->links[link].tensor];
}

static const char *path_of(const struct merge *m, size_t link)
{
    return m->set->paths[m->links[link].file];
}

static int probe(struct gf_dir *dir, const char *file, char why[static GF_WHY])
{
    GF_AUTO(gf_rank_set) set = NULL;
    struct gf_err err = { 0 };
    int r;

    if (file) {
        snprintf(why, GF_WHY, "a single file");
        return 0;
    }
    r = gf_rank_set_find(dir, false, &set, &err);
    if (r == -GF_EBAD) { /* ours, and read() will say what is wrong */
        snprintf(why, GF_WHY, "%.200s", err.text);
        return GF_RANKS_SURE;
    }
    if (r) {
        snprintf(why, GF_WHY, "no '*_rank_0.pt' or '*_rank0.bin'");
        return 0;
    }
    snprintf(why, GF_WHY, "'%.160s' and %zu more rank files", set->paths[0], set->n - 1);
    return set->kind == GF_RANK_PLAIN ? GF_RANKS_SURE_PLAIN : GF_RANKS_SURE;
}

/* Chains what the files say by name. */
static int collect(struct merge *m, struct gf_strmap *map, struct gf_err *err)
{
    size_t total = 0, at = 0;

    for (size_t f = 0; f < m->states.n; f++)
        total += m->states.at[f].n;
    m->links = calloc(total + 1, sizeof(*m->links));
    m->names = calloc(total + 1, sizeof(*m->names));
    if (!m->links || !m->names)
        return gf_nomem(err);
    for (size_t f = 0; f < m->states.n; f++)
        for (size_t i = 0; i < m->states.at[f].n; i++, at++) {
            uint64_t known = m->nnames;
            int r = gf_strmap_put(map, m->states.at[f].at[i].name, known, &known);

            m->links[at] = (struct link){ (uint32_t)f, (uint32_t)i, NONE };
            if (r == -ENOMEM)
                return gf_nomem(err);
            if (r == -EEXIST) {
                m->links[m->names[known].last].next = at;
                m->names[known].last = at;
            } else {
                m->names[m->nnames++] = (struct name){ at, at };
            }
        }
    return 0;
}

/* All files must mean the same tensor. */
static int compare(const struct merge *m, size_t a, size_t b, struct gf_err *err)
{
    const struct gf_state_tensor *x = tensor_of(m, a), *y = tensor_of(m, b);
    char sx[GF_SHAPE_TEXT], sy[GF_SHAPE_TEXT];

    if (x->dtype == y->dtype && x->twist == y->twist && x->spread == y->spread &&
        gf_shape_equal(x->shape, y->shape))
        return 0;
    return gf_fail(
        err, GF_EBAD, "tensor '%s' is %s%s %s in '%s' and %s%s %s in '%s'%s", x->name,
        x->spread ? "distributed " : "", gf_dtype_info(x->dtype)->torch,
        gf_shape_text(x->shape, sx), path_of(m, a), y->spread ? "distributed " : "",
        gf_dtype_info(y->dtype)->torch, gf_shape_text(y->shape, sy), path_of(m, b),
        x->spread || y->spread ? "" : ": plain parts that do not say their places");
}

static int compare_numbers(const uint64_t *a, const uint64_t *b, uint32_t n)
{
    for (uint32_t d = 0; d < n; d++)
        if (a[d] != b[d])
            return a[d] < b[d] ? -1 : 1;
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct box *x = a, *y = b;
    int c = compare_numbers(x->part->first, y->part->first, x->rank);

    if (!c)
        c = compare_numbers(x->part->size, y->part->size, x->rank);
    if (c)
        return c;
    return x->file < y->file ? -1 : x->file > y->file;
}

/* The boxes of one tensor, each place once. */
static int add_boxes(struct merge *m, const struct name *name, struct gf_err *err)
{
    GF_AUTO_MEM struct box *boxes = NULL;
    size_t n = 0;
    int r = 0;

    for (size_t l = name->first; l != NONE; l = m->links[l].next)
        n += tensor_of(m, l)->nparts;
    boxes = calloc(n + 1, sizeof(*boxes));
    if (!boxes)
        return gf_nomem(err);
    n = 0;
    for (size_t l = name->first; l != NONE; l = m->links[l].next) {
        const struct gf_state_tensor *tensor = tensor_of(m, l);

        for (size_t i = 0; i < tensor->nparts; i++)
            boxes[n++] =
                (struct box){ &tensor->parts[i], tensor->shape.rank, m->links[l].file };
    }
    qsort(boxes, n, sizeof(*boxes), by_place);
    for (size_t i = 0; i < n && !r; i++) {
        const struct gf_state_part *part = boxes[i].part,
                                   *before = i ? boxes[i - 1].part : NULL;
        uint32_t rank = boxes[i].rank;

        if (before && compare_numbers(before->first, part->first, rank) == 0 &&
            compare_numbers(before->size, part->size, rank) == 0)
            continue;
        r = gf_catalog_add_box(m->out->catalog, boxes[i].file, part->offset, part->first,
                               part->size, part->strides, err);
    }
    return r;
}

static int add_name(struct merge *m, const struct name *name, struct gf_err *err)
{
    const struct gf_state_tensor *tensor = tensor_of(m, name->first);
    struct gf_state_tensor empty = *tensor;
    int r = 0;

    for (size_t l = m->links[name->first].next; l != NONE && !r; l = m->links[l].next)
        r = compare(m, name->first, l, err);
    if (r)
        return r;
    if (!tensor->spread)
        return gf_state_add(m->out, tensor, m->links[name->first].file, GF_NONE, err);
    m->nspread++;
    empty.nparts = 0;
    r = gf_state_add(m->out, &empty, 0, GF_NONE, err);
    return r ? r : add_boxes(m, name, err);
}

static void describe(const struct merge *m)
{
    static const char *const kinds[] = { "FSDP", "Accelerate", "verl", "torch" };
    struct gf_found *out = m->out;

    snprintf(out->detail, sizeof(out->detail), "%s rank files, %zu rank%s",
             kinds[m->set->kind], m->set->n, m->set->n == 1 ? "" : "s");
    if (m->set->n < m->states.world) {
        out->complete = GF_COMPLETE_NO;
        snprintf(out->why, sizeof(out->why), "%zu of %" PRIu64 " rank files are present",
                 m->set->n, m->states.world);
    } else if (m->nspread == 0 && m->set->n > 1) {
        out->complete = GF_COMPLETE_UNKNOWN;
        snprintf(out->why, sizeof(out->why),
                 "no tensor says that it is distributed: the files are taken for replicas");
    } else {
        out->complete = GF_COMPLETE_YES;
        snprintf(out->why, sizeof(out->why), "all %zu rank files are present", m->set->n);
    }
}

/* Flat parameters in files of this name: a second model of LOCAL_STATE_DICT. */
static int refuse_flat(const struct merge *m, struct gf_err *err)
{
    const struct gf_state *file = &m->states.at[0];

    for (size_t i = 0; i < file->n; i++) {
        size_t n = strlen(file->at[i].name);

        if (n >= 11 && strcmp(file->at[i].name + n - 11, "_flat_param") == 0)
            return gf_fail(err, ENOTSUP,
                           "'%s': '%s' is a flat parameter (LOCAL_STATE_DICT); those are "
                           "read from 'pytorch_model_fsdp_rank*.bin' only",
                           file->path, file->at[i].name);
    }
    return 0;
}

static int merge_all(struct merge *m, struct gf_err *err)
{
    struct gf_strmap map = { 0 };
    int r = gf_rank_states_read(m->in, m->set, &m->states, err);

    if (!r)
        r = refuse_flat(m, err);
    if (!r && !m->in->allow_incomplete)
        r = gf_rank_set_check(m->set, m->states.world, err);
    if (!r && m->set->left_out &&
        gf_found_warn(m->out, "'%s' is of another model and left out", m->set->left_out))
        r = gf_nomem(err);
    if (!r)
        r = gf_rank_states_hand_over(m->in, &m->states, m->out, err);
    if (!r)
        r = collect(m, &map, err);
    for (size_t i = 0; i < m->nnames && !r; i++)
        r = add_name(m, &m->names[i], err);
    if (!r)
        describe(m);
    gf_strmap_done(&map);
    gf_rank_states_done(&m->states);
    free(m->names);
    free(m->links);
    return r;
}

static int ranks_read(const struct gf_format_in *in, struct gf_found *out,
                      struct gf_err *err)
{
    GF_AUTO(gf_rank_set) set = NULL;
    struct merge m = { .in = in, .out = out };
    int r = gf_catalog_new(in->limits, &out->catalog, err);

    out->format = gf_rank_files_format.name;
    if (!r) {
        r = gf_rank_set_find(in->dir, false, &set, err);
        if (r == -ENOENT)
            return gf_fail(err, ENOENT, "'%s': no '*_rank_0.pt' or '*_rank0.bin' in it",
                           in->dir->name);
    }
    m.set = set;
    return r ? r : merge_all(&m, err);
}

const struct gf_format gf_rank_files_format = {
    .name = "torch-ranks",
    .layer = GF_LAYER_SHARDS,
    .probe = probe,
    .read = ranks_read,
};
