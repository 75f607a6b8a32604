/* SPDX-License-Identifier: Apache-2.0 */
#include "image/image.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/vec.h"

struct gf_image {
    char *name;
    struct GF_VEC(struct gf_segment) segments;
    uint64_t size;
    bool sealed;
};

int gf_image_new(const char *name, struct gf_image **ret, struct gf_err *err)
{
    GF_AUTO(gf_image) image = calloc(1, sizeof(*image));

    if (!image || !(image->name = strdup(name)))
        return gf_nomem(err);
    *ret = gf_take(&image);
    return 0;
}

void gf_image_free(struct gf_image *image)
{
    if (!image)
        return;
    for (size_t i = 0; i < image->segments.n; i++)
        if (image->segments.at[i].kind == GF_SEGMENT_BYTES)
            free((void *)(uintptr_t)image->segments.at[i].u.bytes);
    gf_vec_free(&image->segments);
    free(image->name);
    free(image);
}

static int append(struct gf_image *image, struct gf_segment segment, struct gf_err *err)
{
    uint64_t end;

    assert(!image->sealed);
    if (gf_add(image->size, segment.len, &end) || end > INT64_MAX)
        return gf_fail(err, EOVERFLOW,
                       "'%s': %" PRIu64 " bytes behind %" PRIu64
                       " pass the largest file size",
                       image->name, segment.len, image->size);
    segment.off = image->size;
    if (gf_vec_push(&image->segments, segment, SIZE_MAX / sizeof(segment)))
        return gf_nomem(err);
    image->size = end;
    return 0;
}

int gf_image_add_bytes(struct gf_image *image, const void *bytes, size_t len,
                       struct gf_err *err)
{
    struct gf_segment segment = { .len = len, .kind = GF_SEGMENT_BYTES };
    GF_AUTO_MEM uint8_t *copy = NULL;
    int r;

    if (len == 0)
        return 0;
    copy = malloc(len);
    if (!copy)
        return gf_nomem(err);
    memcpy(copy, bytes, len);
    segment.u.bytes = copy;
    r = append(image, segment, err);
    if (!r)
        copy = NULL;
    return r;
}

int gf_image_add_tensor(struct gf_image *image, uint32_t tensor, uint64_t len,
                        struct gf_err *err)
{
    struct gf_segment segment = { .len = len,
                                  .kind = GF_SEGMENT_TENSOR,
                                  .u.tensor = tensor };

    return len ? append(image, segment, err) : 0;
}

int gf_image_add_source(struct gf_image *image, uint32_t source, uint64_t offset,
                        uint64_t len, struct gf_err *err)
{
    struct gf_segment segment = { .len = len, .kind = GF_SEGMENT_SOURCE };

    segment.u.source.index = source;
    segment.u.source.offset = offset;
    if (!gf_inside(offset, len, INT64_MAX))
        return gf_fail(err, EOVERFLOW,
                       "'%s': %" PRIu64 " bytes at %" PRIu64
                       " of a source pass the largest "
                       "file size",
                       image->name, len, offset);
    return len ? append(image, segment, err) : 0;
}

int gf_image_seal(struct gf_image *image, struct gf_err *err)
{
    size_t n = image->segments.n;
    struct gf_segment *at;

    assert(!image->sealed);
    if (n) {
        at = realloc(image->segments.at, n * sizeof(*at));
        if (!at)
            return gf_nomem(err);
        image->segments.at = at;
        image->segments.room = n;
    }
    image->sealed = true;
    return 0;
}

const char *gf_image_name(const struct gf_image *image)
{
    return image->name;
}

uint64_t gf_image_size(const struct gf_image *image)
{
    return image->size;
}

const struct gf_segment *gf_image_find(const struct gf_image *image, uint64_t off)
{
    size_t low = 0, high = image->segments.n;

    if (off >= image->size)
        return NULL;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (image->segments.at[middle].off <= off)
            low = middle;
        else
            high = middle;
    }
    return &image->segments.at[low];
}

const struct gf_segment *gf_image_segments(const struct gf_image *image, size_t *ret_n)
{
    *ret_n = image->segments.n;
    return image->segments.at;
}
