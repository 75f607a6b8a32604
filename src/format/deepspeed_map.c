/* SPDX-License-Identifier: Apache-2.0 */
#include "format/deepspeed_map.h"

#include "base/math.h"

bool gf_ds_ends(const uint64_t *sizes, size_t n, uint64_t *ret_ends)
{
    uint64_t end = 0;

    for (size_t i = 0; i < n; i++) {
        if (gf_add(end, sizes[i], &end))
            return true;
        ret_ends[i] = end;
    }
    return false;
}

uint64_t gf_ds_part(uint64_t n, uint32_t world)
{
    return gf_ceil_div(n, world);
}

uint64_t gf_ds_part_used(uint64_t n, uint32_t world, uint32_t rank)
{
    uint64_t part = gf_ds_part(n, world), start;

    if (gf_mul(part, rank, &start) || start >= n)
        return 0;
    return GF_MIN(part, n - start);
}

void gf_ds_walk_start(struct gf_ds_walk *walk, const uint64_t *ends, size_t nends,
                      uint64_t off, uint64_t n)
{
    size_t lo = 0, hi = nends;

    /* The first part that ends behind off: empty parts in front of it are skipped. */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (ends[mid] > off)
            hi = mid;
        else
            lo = mid + 1;
    }
    *walk = (struct gf_ds_walk){ ends, nends, lo, off, off + n };
}

bool gf_ds_walk_next(struct gf_ds_walk *walk, size_t *ret_part, uint64_t *ret_at,
                     uint64_t *ret_count)
{
    uint64_t first, stop;

    while (walk->part < walk->nends && walk->ends[walk->part] <= walk->at)
        walk->part++;
    if (walk->at >= walk->end || walk->part >= walk->nends)
        return false;
    first = walk->part ? walk->ends[walk->part - 1] : 0;
    stop = GF_MIN(walk->ends[walk->part], walk->end);
    *ret_part = walk->part;
    *ret_at = walk->at - first;
    *ret_count = stop - walk->at;
    walk->at = stop;
    return true;
}
