/* SPDX-License-Identifier: Apache-2.0 */
#include "source/source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"

int gf_source_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    if (!gf_inside(off, len, src->size))
        return -EINVAL;
    return len ? src->ops->read_at(src, buf, len, off) : 0;
}

const void *gf_source_map(struct gf_source *src, uint64_t off, size_t len)
{
    return src->ops->map && gf_inside(off, len, src->size) ? src->ops->map(src, off, len)
                                                           : NULL;
}

int gf_source_pin(struct gf_source *src)
{
    return src->ops->pin ? src->ops->pin(src) : 0;
}

void gf_source_unpin(struct gf_source *src)
{
    if (src->ops->unpin)
        src->ops->unpin(src);
}

int gf_source_check(struct gf_source *src)
{
    return src->ops->check ? src->ops->check(src) : 0;
}

void gf_source_free(struct gf_source *src)
{
    if (src)
        src->ops->free(src);
}

int gf_source_read_err(struct gf_source *src, void *buf, size_t len, uint64_t off,
                       struct gf_err *err)
{
    int r = gf_source_read(src, buf, len, off);

    if (r == -EINVAL)
        return gf_fail(err, GF_EBAD,
                       "'%s': needs %zu bytes at %" PRIu64 ", the file has %" PRIu64,
                       src->name, len, off, src->size);
    if (r == -ESTALE)
        return gf_fail(err, ESTALE, "'%s': changed while it was read", src->name);
    if (r)
        return gf_fail(err, -r, "'%s': cannot read %zu bytes at %" PRIu64 ": %s", src->name,
                       len, off, strerror(-r));
    return 0;
}
