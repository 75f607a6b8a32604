/* SPDX-License-Identifier: Apache-2.0 */
#include "gather/leaf.h"

#include <errno.h>
#include <stdlib.h>

#include "base/math.h"
#include "gather/box.h"
#include "tensor/convert.h"

/* Elements converted at once: the stage stays in the second-level cache. */
#define STAGE_ELEMENTS ((uint64_t)64 << 10)

int gf_scratch_grow(uint8_t **buf, size_t *size, size_t want)
{
    uint8_t *p;

    if (*size >= want)
        return 0;
    p = realloc(*buf, want);
    if (!p)
        return -ENOMEM;
    *buf = p;
    *size = want;
    return 0;
}

int gf_fault_set(struct gf_fault *fault, const struct gf_source *src, uint64_t off,
                 size_t len, int r)
{
    if (fault)
        *fault = (struct gf_fault){ src ? src->name : NULL, off, len, r };
    return r;
}

int gf_leaf_fetch(struct gf_source *src, void *buf, size_t len, uint64_t off,
                  struct gf_fault *fault)
{
    int r = gf_source_read(src, buf, len, off);

    return r ? gf_fault_set(fault, src, off, len, r) : 0;
}

uint32_t gf_leaf_piece(const struct gf_catalog *catalog, const struct gf_tensor *tensor,
                       uint64_t at)
{
    uint32_t lo = 0, hi = tensor->npieces;

    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (gf_catalog_piece(catalog, tensor->pieces + mid)->start <= at)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

int gf_leaf_stored(const struct gf_bound *bound, const struct gf_tensor *tensor,
                   uint64_t first, uint64_t count, void *dst, struct gf_scratch *scratch,
                   struct gf_fault *fault)
{
    unsigned bits = gf_dtype_info(tensor->dtype)->bits;
    uint64_t end = first + count;
    uint8_t *buf = dst;
    int r = 0;

    if (tensor->boxed) {
        struct gf_box_read rd = { .bound = bound,
                                  .tensor = tensor,
                                  .first = first,
                                  .count = count,
                                  .dst = buf,
                                  .fault = fault,
                                  .span = &scratch->span,
                                  .span_size = &scratch->span_size };

        for (uint32_t i = 0; i < tensor->npieces && !r; i++)
            r = gf_box_read(&rd, gf_catalog_piece(bound->catalog, tensor->pieces + i));
        return r;
    }
    for (uint32_t i = gf_leaf_piece(bound->catalog, tensor, first); first < end && !r;
         i++) {
        const struct gf_piece *piece = gf_catalog_piece(bound->catalog, tensor->pieces + i);
        uint64_t n = GF_MIN(end, piece->start + piece->count) - first;
        size_t len = n * bits / 8;

        r = gf_leaf_fetch(bound->sources[piece->source], buf, len,
                          piece->offset + (first - piece->start) * bits / 8, fault);
        buf += len;
        first += n;
    }
    return r;
}

/* torch's lazy conj and neg bits, applied to whole elements in place. */
static void untwist(uint8_t *p, uint64_t n, const struct gf_tensor *tensor)
{
    size_t size = gf_dtype_size(tensor->dtype), part = size;

    if (!tensor->twist)
        return;
    if (tensor->dtype == GF_C64)
        part = 4; /* real and imaginary halves, sign in the last byte of each */
    for (uint64_t i = 0; i < n; i++, p += size)
        for (size_t k = 0; k < size; k += part) {
            bool flip = tensor->twist & GF_TWIST_NEG;

            if ((tensor->twist & GF_TWIST_CONJ) && k)
                flip = !flip;
            if (flip)
                p[k + part - 1] ^= 0x80;
        }
}

int gf_leaf_read(const struct gf_bound *bound, const struct gf_tensor *tensor,
                 uint64_t first, uint64_t count, enum gf_dtype to, void *dst,
                 struct gf_scratch *scratch, struct gf_fault *fault)
{
    gf_convert_fn *convert = gf_convert_get(tensor->dtype, to);
    uint8_t *out = dst;
    int r = 0;

    while (count && !r) {
        uint64_t n = convert ? GF_MIN(count, STAGE_ELEMENTS) : count;
        uint8_t *raw = out;

        if (convert) {
            if (gf_scratch_grow(&scratch->stage, &scratch->stage_size, STAGE_ELEMENTS * 8))
                return gf_fault_set(fault, NULL, 0, 0, -ENOMEM);
            raw = scratch->stage;
        }
        r = gf_leaf_stored(bound, tensor, first, n, raw, scratch, fault);
        if (!r) {
            untwist(raw, n, tensor);
            if (convert)
                convert(out, raw, n);
        }
        out += n * gf_dtype_size(to);
        first += n;
        count -= n;
    }
    return r;
}
