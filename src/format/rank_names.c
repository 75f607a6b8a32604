/* SPDX-License-Identifier: Apache-2.0 */
#include "format/rank_names.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "format/torch_state.h"

/* Steps over `word`. */
static bool skip(const char **p, const char *word)
{
    size_t n = strlen(word);

    if (strncmp(*p, word, n) != 0)
        return false;
    *p += n;
    return true;
}

/* Steps over a decimal number of at most nine digits. */
static bool skip_number(const char **p, uint32_t *ret)
{
    size_t n = strspn(*p, "0123456789");

    if (n == 0 || n > 9)
        return false;
    *ret = (uint32_t)strtoul(*p, NULL, 10);
    *p += n;
    return true;
}

static bool skip_head(const char **p, struct gf_rank_name *ret)
{
    static const char *const plain[] = { "rank", "model_rank", "state_dict_rank",
                                         "checkpoint_rank" };
    uint32_t model;

    if (skip(p, "pytorch_model_fsdp_")) {
        ret->kind = GF_RANK_LOCAL;
        if (skip(p, "rank"))
            return true;
        ret->kind = GF_RANK_ACCELERATE;
        return skip_number(p, &model) && skip(p, "_rank");
    }
    if (skip(p, "model_world_size_")) {
        ret->kind = GF_RANK_VERL;
        return skip_number(p, &ret->world) && ret->world && skip(p, "_rank_");
    }
    ret->kind = GF_RANK_PLAIN;
    for (size_t i = 0; i < GF_COUNT(plain); i++)
        if (skip(p, plain[i])) {
            skip(p, "_");
            return true;
        }
    return false;
}

bool gf_rank_name_parse(const char *name, struct gf_rank_name *ret)
{
    struct gf_rank_name found = { 0 };
    const char *p = name;

    if (gf_state_is_side_file(name) || !skip_head(&p, &found))
        return false;
    found.stem = (size_t)(p - name);
    if (!skip_number(&p, &found.rank) ||
        (strcmp(p, ".bin") != 0 && strcmp(p, ".pt") != 0 && strcmp(p, ".pth") != 0))
        return false;
    *ret = found;
    return true;
}

struct entry {
    const char *name; /* the listing's */
    struct gf_rank_name is;
};

static int by_kind_and_stem(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    size_t n = GF_MIN(x->is.stem, y->is.stem);
    int c;

    if (x->is.kind != y->is.kind)
        return x->is.kind < y->is.kind ? -1 : 1;
    c = memcmp(x->name, y->name, n);
    if (c || x->is.stem != y->is.stem)
        return c ? c : x->is.stem < y->is.stem ? -1 : 1;
    if (x->is.rank != y->is.rank)
        return x->is.rank < y->is.rank ? -1 : 1;
    return strcmp(x->name, y->name);
}

static bool same_set(const struct entry *a, const struct entry *b)
{
    return a->is.kind == b->is.kind && a->is.stem == b->is.stem &&
           memcmp(a->name, b->name, a->is.stem) == 0;
}

/* The first set of the sorted entries. */
static int take_set(const struct entry *at, size_t n, struct gf_rank_set **ret,
                    struct gf_err *err)
{
    GF_AUTO(gf_rank_set) set = calloc(1, sizeof(*set));

    if (!set)
        return gf_nomem(err);
    set->kind = at[0].is.kind;
    set->world = at[0].is.world;
    set->paths = calloc(n, sizeof(*set->paths));
    set->ranks = calloc(n, sizeof(*set->ranks));
    if (!set->paths || !set->ranks)
        return gf_nomem(err);
    for (size_t i = 0; i < n && same_set(&at[0], &at[i]); i++) {
        if (i && at[i].is.rank == at[i - 1].is.rank)
            return gf_fail(err, GF_EBAD, "two files of rank %" PRIu32 ": '%s' and '%s'",
                           at[i].is.rank, at[i - 1].name, at[i].name);
        set->ranks[i] = at[i].is.rank;
        set->paths[i] = strdup(at[i].name);
        if (!set->paths[i])
            return gf_nomem(err);
        set->n++;
    }
    if (set->n < n) {
        const struct entry *other = &at[set->n];

        if (set->kind == GF_RANK_VERL && other->is.kind == GF_RANK_VERL)
            return gf_fail(
                err, GF_EBAD,
                "'%s' and '%s': files of two runs with different numbers of ranks",
                at[0].name, other->name);
        set->left_out = strdup(other->name);
        if (!set->left_out)
            return gf_nomem(err);
    }
    *ret = gf_take(&set);
    return 0;
}

int gf_rank_set_find(struct gf_dir *dir, bool local, struct gf_rank_set **ret,
                     struct gf_err *err)
{
    GF_AUTO_MEM struct entry *entries = NULL;
    struct gf_dir_listing listing = { 0 };
    size_t n = 0;
    int r = gf_dir_list(dir, "", &listing, err);

    if (r)
        return r;
    entries = calloc(listing.n + 1, sizeof(*entries));
    for (size_t i = 0; i < listing.n && entries; i++) {
        struct entry entry = { .name = listing.at[i].name };

        if (!listing.at[i].is_dir && gf_rank_name_parse(entry.name, &entry.is) &&
            (entry.is.kind == GF_RANK_LOCAL) == local)
            entries[n++] = entry;
    }
    if (!entries) {
        r = gf_nomem(err);
    } else if (n == 0) {
        r = -ENOENT;
    } else if (n > dir->limits->ranks) {
        r = gf_fail(err, GF_EBAD, "'%s': %zu rank files, at most %zu are read", dir->name,
                    n, dir->limits->ranks);
    } else {
        qsort(entries, n, sizeof(*entries), by_kind_and_stem);
        r = take_set(entries, n, ret, err);
    }
    gf_dir_listing_free(&listing);
    return r;
}

void gf_rank_set_free(struct gf_rank_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->n; i++)
        free(set->paths[i]);
    free(set->paths);
    free(set->ranks);
    free(set->left_out);
    free(set);
}

int gf_rank_set_check(const struct gf_rank_set *set, uint64_t world, struct gf_err *err)
{
    struct gf_rank_name is;
    uint32_t rank = 0;

    /* Ranks are sorted and differ: the first that is not at its own place is missing. */
    while (rank < set->n && set->ranks[rank] == rank)
        rank++;
    if (rank >= world || !gf_rank_name_parse(set->paths[0], &is))
        return 0;
    return gf_fail(err, GF_EINCOMPLETE,
                   "missing '%.*s%" PRIu32 "%s': %zu of %" PRIu64 " rank files are there",
                   (int)is.stem, set->paths[0], rank, strrchr(set->paths[0], '.'), set->n,
                   world);
}
