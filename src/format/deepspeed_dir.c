/* SPDX-License-Identifier: Apache-2.0 */
#include "format/deepspeed_dir.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool eat(const char **p, const char *literal)
{
    size_t n = strlen(literal);

    if (strncmp(*p, literal, n) != 0)
        return false;
    *p += n;
    return true;
}

static bool eat_last(const char **p, const char *literal)
{
    return eat(p, literal) && !**p;
}

static bool eat_number(const char **p, uint32_t *ret)
{
    uint32_t value = 0;
    size_t n = strspn(*p, "0123456789");

    if (n == 0 || n > 9)
        return false;
    for (size_t i = 0; i < n; i++)
        value = value * 10 + (uint32_t)((*p)[i] - '0');
    *p += n;
    *ret = value;
    return true;
}

/* Behind "layer_": a pipeline layer, or an expert of the MoE layer with that number. */
static bool parse_layer(const char *p, struct gf_ds_name *ret)
{
    if (!eat_number(&p, &ret->layer))
        return false;
    if (eat(&p, "_expert_")) {
        ret->kind = GF_DS_EXPERT;
        return eat_number(&p, &ret->expert) && eat(&p, "_mp_rank_") &&
               eat_number(&p, &ret->mp) && eat_last(&p, "_model_states.pt");
    }
    ret->kind = GF_DS_LAYER;
    if (eat(&p, "-model_states.pt"))
        return !*p;
    return eat(&p, "-model_") && eat_number(&p, &ret->mp) &&
           eat_last(&p, "-model_states.pt");
}

static bool parse_zero(const char *p, struct gf_ds_name *ret)
{
    if (!eat_number(&p, &ret->dp) || !eat(&p, "_mp_rank_") || !eat_number(&p, &ret->mp))
        return false;
    ret->kind = GF_DS_MODEL3;
    if (eat_last(&p, "_model_states.pt"))
        return true;
    ret->kind = GF_DS_OPTIM;
    return eat_last(&p, "_optim_states.pt") || eat_last(&p, "optim_states.pt");
}

bool gf_ds_name_parse(const char *name, struct gf_ds_name *ret)
{
    struct gf_ds_name is = { 0 };
    const char *p = name;
    bool ok;

    if (eat(&p, "mp_rank_")) {
        is.kind = GF_DS_MODEL;
        ok = eat_number(&p, &is.mp) && eat_last(&p, "_model_states.pt");
    } else if (eat(&p, "layer_")) {
        ok = parse_layer(p, &is);
    } else if (eat(&p, "expert_")) {
        is.kind = GF_DS_EXPERT;
        is.bare_expert = true;
        ok = eat_number(&p, &is.expert) && eat(&p, "_mp_rank_") && eat_number(&p, &is.mp) &&
             eat_last(&p, "_model_states.pt");
    } else {
        ok = (eat(&p, "bf16_") || eat(&p, "fp16_") || true) && eat(&p, "zero_pp_rank_") &&
             parse_zero(p, &is);
    }
    if (ok)
        *ret = is;
    return ok;
}

int gf_ds_name_order(const struct gf_ds_name *a, const struct gf_ds_name *b)
{
    const uint32_t keys[][2] = {
        { a->kind, b->kind },     { a->mp, b->mp }, { a->layer, b->layer },
        { a->expert, b->expert }, { a->dp, b->dp },
    };

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (keys[i][0] != keys[i][1])
            return keys[i][0] < keys[i][1] ? -1 : 1;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return gf_ds_name_order(&((const struct gf_ds_entry *)a)->is,
                            &((const struct gf_ds_entry *)b)->is);
}

static int add_entries(struct gf_ds_dir *ds, const char *path,
                       const struct gf_dir_listing *listing, struct gf_err *err)
{
    ds->prefix = gf_arena_printf(&ds->arena, "%s%s", path, *path ? "/" : "");
    ds->at = calloc(listing->n + 1, sizeof(*ds->at));
    if (!ds->prefix || !ds->at)
        return gf_nomem(err);
    for (size_t i = 0; i < listing->n; i++) {
        const struct gf_dir_entry *entry = &listing->at[i];
        struct gf_ds_entry *to = &ds->at[ds->n];

        if (entry->is_dir) {
            ds->nvme |= strcmp(entry->name, "offloaded_tensors") == 0;
            ds->universal |= strcmp(entry->name, "zero") == 0;
            continue;
        }
        if (!gf_ds_name_parse(entry->name, &to->is))
            continue;
        to->path = gf_arena_printf(&ds->arena, "%s%s", ds->prefix, entry->name);
        if (!to->path)
            return gf_nomem(err);
        ds->n++;
    }
    qsort(ds->at, ds->n, sizeof(*ds->at), by_name);
    for (size_t i = 1; i < ds->n; i++)
        if (by_name(&ds->at[i - 1], &ds->at[i]) == 0)
            return gf_fail(err, GF_EBAD, "'%s' and '%s' are both there: which one is it",
                           ds->at[i - 1].path, ds->at[i].path);
    return 0;
}

int gf_ds_dir_read(struct gf_dir *dir, const char *path, struct gf_ds_dir **ret,
                   struct gf_err *err)
{
    GF_AUTO(gf_ds_dir) ds = calloc(1, sizeof(*ds));
    struct gf_dir_listing listing = { 0 };
    int r;

    if (!ds)
        return gf_nomem(err);
    r = gf_dir_list(dir, path, &listing, err);
    if (r)
        return r;
    r = add_entries(ds, path, &listing, err);
    gf_dir_listing_free(&listing);
    if (r)
        return r;
    *ret = gf_take(&ds);
    return 0;
}

void gf_ds_dir_free(struct gf_ds_dir *ds)
{
    if (!ds)
        return;
    free(ds->at);
    gf_arena_done(&ds->arena);
    free(ds);
}

const char *gf_ds_dir_mark(const struct gf_dir_listing *listing, bool any)
{
    struct gf_ds_name is;

    for (size_t i = 0; i < listing->n; i++)
        if (!listing->at[i].is_dir && gf_ds_name_parse(listing->at[i].name, &is) &&
            (any || is.kind != GF_DS_OPTIM))
            return listing->at[i].name;
    return NULL;
}

struct gf_ds_set gf_ds_dir_kind(const struct gf_ds_dir *ds, enum gf_ds_kind kind)
{
    size_t first = 0, last;

    while (first < ds->n && ds->at[first].is.kind != kind)
        first++;
    for (last = first; last < ds->n && ds->at[last].is.kind == kind;)
        last++;
    return (struct gf_ds_set){ ds->at + first, last - first };
}

struct gf_ds_set gf_ds_dir_rank(const struct gf_ds_dir *ds, enum gf_ds_kind kind,
                                uint32_t mp)
{
    struct gf_ds_set set = gf_ds_dir_kind(ds, kind);
    size_t n = 0;

    while (set.n && set.at->is.mp != mp) {
        set.at++;
        set.n--;
    }
    while (n < set.n && set.at[n].is.mp == mp)
        n++;
    set.n = n;
    return set;
}

/* "0-2,5": the ranks that are there, cut short where it gets long. */
static void ranks_text(struct gf_ds_set set, char *buf, size_t size)
{
    size_t used = 0;

    buf[0] = '\0';
    for (size_t i = 0, next; i < set.n; i = next) {
        char part[32];
        int n;

        for (next = i + 1;
             next < set.n && set.at[next].is.dp == set.at[next - 1].is.dp + 1;)
            next++;
        n = next - i > 2 ? snprintf(part, sizeof(part), "%" PRIu32 "-%" PRIu32,
                                    set.at[i].is.dp, set.at[next - 1].is.dp)
                         : snprintf(part, sizeof(part), "%" PRIu32, set.at[i].is.dp);
        if (next - i == 2)
            next--;
        if (used + (size_t)n + 6 > size) {
            snprintf(buf + used, size - used, ",...");
            return;
        }
        used += (size_t)snprintf(buf + used, size - used, "%s%s", i ? "," : "", part);
    }
}

static int missing(struct gf_ds_set set, uint32_t rank, uint32_t world, struct gf_err *err)
{
    const char *like = set.at[0].path, *number = strstr(like, "zero_pp_rank_"),
               *at = number;
    char ranks[64], more[32] = "";
    size_t there = 0;

    while ((at = strstr(at + 1, "zero_pp_rank_"))) /* a tag may have such a name, too */
        number = at;
    number += strlen("zero_pp_rank_");
    while (there < set.n && set.at[there].is.dp < world)
        there++;
    ranks_text((struct gf_ds_set){ set.at, there }, ranks, sizeof(ranks));
    if (world - there > 1)
        snprintf(more, sizeof(more), " and %" PRIu64 " more", world - (uint64_t)there - 1);
    return gf_fail(err, GF_EINCOMPLETE,
                   "missing '%.*s%" PRIu32 "%s'%s: %s %s of %" PRIu32 " %s there",
                   (int)(number - like), like, rank, number + strspn(number, "0123456789"),
                   more, there == 1 ? "rank" : "ranks", there ? ranks : "none", world,
                   there == 1 ? "is" : "are");
}

int gf_ds_check_ranks(struct gf_ds_set set, uint32_t world, const struct gf_limits *limits,
                      struct gf_err *err)
{
    if (set.n == 0)
        return 0;
    if (set.n > limits->ranks)
        return gf_fail(err, GF_EBAD, "'%s': one of %zu rank files, %zu are allowed",
                       set.at->path, set.n, limits->ranks);
    if (world == 0)
        world = set.at[set.n - 1].is.dp + 1;
    for (uint32_t i = 0; i < world; i++)
        if (i >= set.n || set.at[i].is.dp != i)
            return missing(set, i, world, err);
    if (set.n > world)
        return gf_fail(err, GF_EBAD,
                       "surplus '%s': the run had %" PRIu32
                       " ranks (left over from an earlier, larger run?)",
                       set.at[world].path, world);
    return 0;
}
