/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_map.h - from parameters to places in flat partitions: arithmetic, nothing else.
 *
 * ZeRO-1 and -2 lay the parameters of a group one after another and cut the whole into one
 * part per rank:
 *
 *      params   | a . . . . | b . . | gap | c . . . . . . |  pad
 *      ranks    | rank 0 . . . | rank 1 . . . . | rank 2 . .|
 *
 * ZeRO-3 cuts each parameter on its own, ceil(n / world) elements for each rank, and every
 * rank lays its parts one after another, in one or more sub-groups:
 *
 *      rank r   | a[r*p, ..) | b[r*p, ..) | c[r*p, ..) |
 *
 * All numbers are elements. "ends" are running sums: part i is [ends[i - 1], ends[i]).
 */
#ifndef GF_FORMAT_DEEPSPEED_MAP_H
#define GF_FORMAT_DEEPSPEED_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Running sums of `sizes`; true if they overflow. */
bool gf_ds_ends(const uint64_t *sizes, size_t n, uint64_t *ret_ends);

/* Elements of each rank's part of a parameter of n elements (world > 0). */
uint64_t gf_ds_part(uint64_t n, uint32_t world);
/* How many of them are real: the last ranks' parts are shorter or empty. */
uint64_t gf_ds_part_used(uint64_t n, uint32_t world, uint32_t rank);

/* Walks [off, off + n) over consecutive parts. The caller knows that they cover it. */
struct gf_ds_walk {
    const uint64_t *ends;
    size_t nends, part;
    uint64_t at, end;
};

void gf_ds_walk_start(struct gf_ds_walk *walk, const uint64_t *ends, size_t nends,
                      uint64_t off, uint64_t n);
/* The next run: `count` elements at element `at` of part `part`. false at the end. */
bool gf_ds_walk_next(struct gf_ds_walk *walk, size_t *ret_part, uint64_t *ret_at,
                     uint64_t *ret_count);

#endif
