/* SPDX-License-Identifier: Apache-2.0 */
#include "format/shard_order.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/math.h"

struct shard {
    size_t first, n, largest; /* tensors; which of them is the largest */
    uint64_t total, most;     /* bytes: of all, of the largest */
};

static struct shard shard_of(const uint64_t *sizes, size_t first, size_t end)
{
    struct shard s = { .first = first, .n = end - first, .largest = first };

    for (size_t i = first; i < end; i++) {
        if (gf_add(s.total, sizes[i], &s.total))
            s.total = UINT64_MAX;
        if (sizes[i] > s.most) {
            s.most = sizes[i];
            s.largest = i;
        }
    }
    return s;
}

static bool is_above(const struct shard *s, uint64_t limit)
{
    return s->n == 1 && s->most > limit;
}

/* If tensors above `limit` were put aside: was each other shard closed for want of room?
 * `limit` is the largest of the other shards, and so the least that the real one can be. */
static bool explains(const struct shard *shards, size_t n, uint64_t limit)
{
    const struct shard *before = NULL;
    uint64_t sum;

    for (size_t i = 0; i < n; i++) {
        if (is_above(&shards[i], limit))
            continue;
        if (before && !gf_add(before->total, shards[i].most, &sum) && sum <= limit)
            return false;
        before = &shards[i];
    }
    return true;
}

static int downwards(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x > *y ? -1 : *x < *y;
}

/* The largest candidate that explains the cuts; the first where none does. */
static int find_limit(const struct shard *shards, size_t n, uint64_t *ret,
                      struct gf_err *err)
{
    GF_AUTO_MEM uint64_t *totals = calloc(n + 1, sizeof(*totals));
    uint64_t least = 0; /* a shard of several tensors is never above the limit */

    if (!totals)
        return gf_nomem(err);
    for (size_t i = 0; i < n; i++) {
        totals[i] = shards[i].total;
        if (shards[i].n > 1)
            least = GF_MAX(least, shards[i].total);
    }
    qsort(totals, n, sizeof(*totals), downwards);
    *ret = totals[0];
    for (size_t i = 0; i < n && totals[i] >= least; i++) {
        if (i && totals[i] == totals[i - 1])
            continue;
        if (explains(shards, n, totals[i])) {
            *ret = totals[i];
            break;
        }
    }
    return 0;
}

static void put_rest(const struct shard *s, size_t *order, size_t *at)
{
    for (size_t i = s->first; i < s->first + s->n; i++)
        if (i != s->largest)
            order[(*at)++] = i;
}

int gf_shard_order(const uint64_t *sizes, const size_t *starts, size_t nshards,
                   size_t **ret, struct gf_err *err)
{
    GF_AUTO_MEM struct shard *shards = calloc(nshards + 1, sizeof(*shards));
    GF_AUTO_MEM size_t *order = calloc(starts[nshards] + 1, sizeof(*order));
    size_t at = 0, aside = 0; /* shards [aside, i) are oversized and wait */
    bool open = false;
    uint64_t limit = 0;
    int r;

    if (!shards || !order)
        return gf_nomem(err);
    for (size_t s = 0; s < nshards; s++)
        shards[s] = shard_of(sizes, starts[s], starts[s + 1]);
    r = find_limit(shards, nshards, &limit, err);
    if (r)
        return r;
    for (size_t s = 0; s < nshards; s++) {
        if (is_above(&shards[s], limit) && open)
            continue;
        if (shards[s].n)
            order[at++] = shards[s].largest;
        for (; aside < s; aside++)
            order[at++] = shards[aside].largest;
        put_rest(&shards[s], order, &at);
        aside = s + 1;
        open |= !is_above(&shards[s], limit);
    }
    for (; aside < nshards; aside++)
        order[at++] = shards[aside].largest;
    *ret = gf_take(&order);
    return 0;
}
