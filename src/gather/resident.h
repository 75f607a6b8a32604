/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resident.h - the small matrices of an adapter, kept in memory as float32.
 *
 * Each is loaded once by the first thread that asks; others that want the same one wait for
 * it, and fail with it; those that want another one do not wait. What nobody holds is evicted, least recently used
 * first, while all of it together is more than the budget; what is held stays, so the
 * budget may be passed by what the reads under way need.
 *
 * Lock: one mutex, held for look-ups and book-keeping, never while something is loaded.
 */
#ifndef GF_GATHER_RESIDENT_H
#define GF_GATHER_RESIDENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"

struct gf_resident;

/* What it is: equal keys mean equal values. */
struct gf_resident_key {
    const void *owner; /* whose, where `tensor` does not say it all; or NULL */
    uint64_t part;
    uint32_t catalog, tensor, form;
};

struct gf_resident_item {
    const float *values; /* aligned to 64 bytes; valid until the item is put back */
};

/* Fills all values; a negative errno fails the get. */
typedef int gf_resident_load_fn(void *ctx, float *values);

int gf_resident_new(uint64_t budget, struct gf_resident **ret, struct gf_err *err);
void gf_resident_free(struct gf_resident *resident); /* nothing is held; NULL is fine */
GF_DEFINE_AUTO(gf_resident);

/* The n values of the key, loaded if they are not there. Put it back with
 * gf_resident_put. */
int gf_resident_get(struct gf_resident *resident, const struct gf_resident_key *key,
                    uint64_t n, gf_resident_load_fn *load, void *ctx,
                    const struct gf_resident_item **ret);
void gf_resident_put(struct gf_resident *resident,
                     const struct gf_resident_item *item); /* NULL is fine */

/* Bytes in use, held or not. */
uint64_t gf_resident_bytes(struct gf_resident *resident);

#endif
