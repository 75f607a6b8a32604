/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/shape.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/math.h"

bool gf_shape_numel(struct gf_shape shape, uint64_t *ret)
{
    uint64_t n = 1;
    bool empty = false;

    /* torch computes sizes so that an empty dimension does not hide an overflow. */
    for (uint32_t i = 0; i < shape.rank; i++) {
        empty |= shape.dims[i] == 0;
        if (gf_mul(n, GF_MAX(shape.dims[i], 1), &n))
            return true;
    }
    *ret = empty ? 0 : n;
    return n > INT64_MAX;
}

bool gf_shape_equal(struct gf_shape a, struct gf_shape b)
{
    if (a.rank != b.rank)
        return false;
    for (uint32_t i = 0; i < a.rank; i++)
        if (a.dims[i] != b.dims[i])
            return false;
    return true;
}

void gf_shape_strides(struct gf_shape shape, uint64_t *ret)
{
    uint64_t stride = 1;

    for (uint32_t i = shape.rank; i-- > 0;) {
        ret[i] = stride;
        stride *= GF_MAX(shape.dims[i], 1);
    }
}

bool gf_shape_contiguous(struct gf_shape shape, const uint64_t *strides)
{
    uint64_t want = 1, numel;

    if (gf_shape_numel(shape, &numel))
        return false;
    if (numel == 0)
        return true;
    for (uint32_t i = shape.rank; i-- > 0;) {
        if (shape.dims[i] != 1 && strides[i] != want)
            return false;
        want *= shape.dims[i];
    }
    return true;
}

const char *gf_shape_text(struct gf_shape shape, char buf[GF_SHAPE_TEXT])
{
    size_t at = (size_t)snprintf(buf, GF_SHAPE_TEXT, "[");

    for (uint32_t i = 0; i < shape.rank && at < GF_SHAPE_TEXT - 24; i++)
        at += (size_t)snprintf(buf + at, GF_SHAPE_TEXT - at, "%s%" PRIu64, i ? ", " : "",
                               shape.dims[i]);
    snprintf(buf + at, GF_SHAPE_TEXT - at, "]");
    return buf;
}
