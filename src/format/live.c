/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live.c - one tensor of the catalog is all entries of its name, on whatever ranks.
 *
 * Ranks list their tensors in the module's order, and each rank may list others (pipeline
 * stages, experts): the order is that of the first rank, then what the second adds, and so
 * on. Tied weights are entries that name another entry of the same rank as their data; the
 * first name in the order holds the pieces, further names share them.
 */
#include "format/live.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/math.h"
#include "base/strmap.h"

#define NONE UINT32_MAX

struct entry {
    uint32_t rank, index;
    uint32_t next; /* of the same name, in `entries` */
};

/* All entries of one name. */
struct group {
    uint32_t first, last; /* in `entries` */
    uint32_t tied;        /* the group whose data this is; its own, if not tied */
    uint32_t tensor;      /* in the catalog: of the tied group, the one with the pieces */
};

struct fill {
    const struct gf_live_rank *ranks;
    uint32_t n;
    struct gf_found *found;
    struct gf_err *err;
    struct gf_strmap names; /* -> group */
    struct GF_VEC(struct entry) entries;
    struct GF_VEC(struct group) groups;
    uint32_t *slot, *frozen; /* indices of each rank's sources */
};

static const struct gf_live_tensor *tensor_of(const struct fill *f, const struct entry *e)
{
    return &f->ranks[e->rank].table->at[e->index];
}

static const struct gf_live_tensor *first_of(const struct fill *f, const struct group *g)
{
    return tensor_of(f, &f->entries.at[g->first]);
}

static uint32_t rank_number(const struct fill *f, const struct entry *e)
{
    return f->ranks[e->rank].table->rank;
}

/* ---------------------------------------------------------------- groups */

static int disagree(const struct fill *f, const struct group *g, const struct entry *e,
                    const char *about)
{
    return gf_fail(f->err, GF_EBAD,
                   "tensor '%s': rank %" PRIu32 " and rank %" PRIu32 " give it %s",
                   first_of(f, g)->name, rank_number(f, &f->entries.at[g->first]),
                   rank_number(f, e), about);
}

static int join(struct fill *f, uint32_t group, const struct entry *e)
{
    struct group *g = &f->groups.at[group];
    const struct gf_live_tensor *a = first_of(f, g), *b = tensor_of(f, e);

    if (!gf_shape_equal(a->shape, b->shape))
        return disagree(f, g, e, "different shapes");
    if (a->dtype != b->dtype)
        return disagree(f, g, e, "different dtypes");
    if ((a->flags ^ b->flags) & GF_LIVE_ALIAS)
        return disagree(f, g, e, "data of its own and another's");
    f->entries.at[g->last].next = (uint32_t)f->entries.n - 1;
    g->last = (uint32_t)f->entries.n - 1;
    return 0;
}

static int add_entry(struct fill *f, uint32_t rank, uint32_t index)
{
    struct entry e = { .rank = rank, .index = index, .next = NONE };
    uint32_t at = (uint32_t)f->entries.n, group = (uint32_t)f->groups.n;
    struct group g = { .first = at, .last = at, .tied = group, .tensor = GF_NONE };
    uint64_t old;
    int r = gf_vec_push(&f->entries, e, NONE - 1);

    if (!r)
        r = gf_strmap_put(&f->names, tensor_of(f, &e)->name, group, &old);
    if (r == -EEXIST)
        return join(f, (uint32_t)old, &e);
    if (!r)
        r = gf_vec_push(&f->groups, g, NONE - 1);
    return r == -E2BIG ? gf_fail(f->err, GF_EBAD, "too many tensors")
           : r         ? gf_nomem(f->err)
                       : 0;
}

static int add_entries(struct fill *f)
{
    int r = 0;

    for (uint32_t i = 0; i < f->n; i++)
        for (uint32_t k = 0; k < f->ranks[i].table->n && !r; k++)
            r = add_entry(f, i, k);
    return r;
}

/* The parser has checked that an alias names an entry of its own rank that is none. */
static int tie(struct fill *f)
{
    for (uint32_t i = 0; i < f->groups.n; i++) {
        struct group *g = &f->groups.at[i];

        for (uint32_t k = g->first; k != NONE; k = f->entries.at[k].next) {
            const struct entry *e = &f->entries.at[k];
            const struct gf_live_tensor *t = tensor_of(f, e);
            uint64_t to;

            if (!(t->flags & GF_LIVE_ALIAS))
                continue;
            if (!gf_strmap_get(&f->names, f->ranks[e->rank].table->at[t->alias].name, &to))
                return gf_fail(f->err, GF_EBAD, "tensor '%s': tied to nothing", t->name);
            if (k != g->first && to != g->tied)
                return disagree(f, g, e, "different tensors that it is tied to");
            g->tied = (uint32_t)to;
        }
    }
    for (uint32_t i = 0; i < f->groups.n; i++) {
        const struct group *g = &f->groups.at[i], *to = &f->groups.at[g->tied];

        if (g->tied != i && to->tied != g->tied)
            return gf_fail(f->err, GF_EBAD, "tensor '%s': tied to '%s', which is tied",
                           first_of(f, g)->name, first_of(f, to)->name);
    }
    return 0;
}

/* ---------------------------------------------------------------- catalog */

static int add_piece(struct fill *f, const struct entry *e)
{
    const struct gf_live_tensor *t = tensor_of(f, e);
    uint32_t source = t->flags & GF_LIVE_STATIC ? f->frozen[e->rank] : f->slot[e->rank];
    struct gf_catalog *catalog = f->found->catalog;

    if (!gf_live_set_has(f->ranks[e->rank].set, e->index) || !t->count)
        return 0;
    if (t->flags & GF_LIVE_FLAT)
        return gf_catalog_add_linear(catalog, source, t->data_off, t->flat_off, t->count,
                                     f->err);
    return gf_catalog_add_box(catalog, source, t->data_off, t->first, t->local, t->stride,
                              f->err);
}

static int add_tensor(struct fill *f, struct group *g)
{
    const struct gf_live_tensor *t = first_of(f, g);
    struct group *data = &f->groups.at[g->tied];
    struct gf_tensor_spec spec = { .name = t->name,
                                   .shape = t->shape,
                                   .dtype = t->dtype,
                                   .live = t->dtype,
                                   .copy = GF_NONE,
                                   .alias = data->tensor,
                                   .buffer = t->flags & GF_LIVE_BUFFER,
                                   .frozen = t->flags & GF_LIVE_FROZEN };
    uint32_t index;
    int r = gf_catalog_add(f->found->catalog, &spec, &index, f->err);

    if (r || data->tensor != GF_NONE)
        return r ? r : gf_catalog_share(f->found->catalog, data->tensor, f->err);
    data->tensor = index;
    for (uint32_t k = data->first; k != NONE && !r; k = f->entries.at[k].next)
        r = add_piece(f, &f->entries.at[k]);
    return r;
}

static int add_source(struct fill *f, struct gf_source **src, uint32_t *ret_index)
{
    *ret_index = GF_NONE; /* the check refuses a piece in it */
    return *src ? gf_found_add_source(f->found, gf_take(src), ret_index, f->err) : 0;
}

static int add_sources(struct fill *f, struct gf_live_rank *ranks)
{
    int r = 0;

    for (uint32_t i = 0; i < f->n && !r; i++) {
        r = add_source(f, &ranks[i].slot, &f->slot[i]);
        if (!r)
            r = add_source(f, &ranks[i].frozen, &f->frozen[i]);
    }
    return r;
}

static void describe(const struct fill *f, uint32_t missing)
{
    const struct gf_live_table *t = f->ranks[0].table;
    struct gf_found *found = f->found;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    found->format = "live";
    found->mtime_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    found->complete = missing ? GF_COMPLETE_UNKNOWN : GF_COMPLETE_YES;
    snprintf(found->detail, sizeof(found->detail), "job '%s', %" PRIu32 " rank%s%s%s",
             t->job, t->world, t->world == 1 ? "" : "s", *t->framework ? ", " : "",
             t->framework);
    if (missing)
        snprintf(found->why, sizeof(found->why),
                 "%" PRIu32 " of %" PRIu32 " ranks are not on this node", missing,
                 t->world);
    else
        snprintf(found->why, sizeof(found->why), "all %" PRIu32 " ranks are there",
                 t->world);
}

static int fill(struct fill *f, struct gf_live_rank *ranks, const struct gf_limits *limits)
{
    int r = gf_catalog_new(limits, &f->found->catalog, f->err);

    if (!r)
        r = add_sources(f, ranks);
    if (!r)
        r = add_entries(f);
    if (!r)
        r = tie(f);
    for (uint32_t i = 0; i < f->groups.n && !r; i++)
        r = add_tensor(f, &f->groups.at[i]);
    return r;
}

int gf_live_found(struct gf_live_rank *ranks, uint32_t n, uint32_t missing,
                  const struct gf_limits *limits, struct gf_found *ret, struct gf_err *err)
{
    struct fill f = { .ranks = ranks, .n = n, .found = ret, .err = err };
    int r;

    f.slot = calloc(n + 1, sizeof(*f.slot));
    f.frozen = calloc(n + 1, sizeof(*f.frozen));
    r = f.slot && f.frozen ? fill(&f, ranks, limits) : gf_nomem(err);
    for (uint32_t i = 0; i < n; i++) {
        gf_source_free(gf_take(&ranks[i].slot));
        gf_source_free(gf_take(&ranks[i].frozen));
    }
    gf_strmap_done(&f.names);
    gf_vec_free(&f.entries);
    gf_vec_free(&f.groups);
    free(f.slot);
    free(f.frozen);
    if (!r)
        describe(&f, missing);
    return r;
}
