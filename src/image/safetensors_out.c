/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors_out.c - a safetensors file, byte for byte as the safetensors writer emits it
 * for {"format": "pt"}.
 *
 *     0      8                                  8 + N
 *     | N    | {"__metadata__":{"format":"pt"}, | tensors, one after another,
 *     | u64  |  "name":{"dtype":..,"shape":..,  | in the header's order
 *     | LE   |  "data_offsets":[..]},..}  and   |
 *     |      | spaces up to a multiple of 8     |
 *
 * Order: dtype, largest of `enum gf_dtype` first; then name, by bytes. So each tensor
 * starts at a multiple of its element size.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/math.h"
#include "base/text.h"
#include "image/weights.h"

static int by_dtype_and_name(const void *a, const void *b, void *ctx)
{
    const struct gf_output *outputs = (const struct gf_output *)ctx;
    const struct gf_output *x = &outputs[*(const uint32_t *)a];
    const struct gf_output *y = &outputs[*(const uint32_t *)b];

    if (x->dtype != y->dtype)
        return x->dtype > y->dtype ? -1 : 1;
    return strcmp(x->name, y->name);
}

static uint32_t *in_file_order(const struct gf_view *view, const uint32_t *outputs,
                               size_t n)
{
    uint32_t *order = malloc((n ? n : 1) * sizeof(*order));

    if (!order)
        return NULL;
    if (n)
        memcpy(order, outputs, n * sizeof(*order));
    qsort_r(order, n, sizeof(*order), by_dtype_and_name, view->outputs);
    return order;
}

/* The whole front of the file: length, JSON, padding. */
static int make_header(const char *name, const struct gf_view *view, const uint32_t *order,
                       size_t n, struct gf_text *text, struct gf_err *err)
{
    uint8_t length[8] = { 0 };
    uint64_t off = 0, end, header;

    gf_text_addn(text, length, sizeof(length));
    gf_text_add(text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n; i++) {
        const struct gf_output *out = &view->outputs[order[i]];

        if (gf_add(off, out->nbytes, &end))
            return gf_fail(err, EOVERFLOW, "'%s': tensor '%s' passes the largest file size",
                           name, out->name);
        gf_text_add(text, ",");
        gf_text_json(text, out->name);
        gf_text_printf(text, ":{\"dtype\":\"%s\",\"shape\":[",
                       gf_dtype_info(out->dtype)->safetensors);
        for (uint32_t d = 0; d < out->shape.rank; d++)
            gf_text_printf(text, "%s%" PRIu64, d ? "," : "", out->shape.dims[d]);
        gf_text_printf(text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", off, end);
        off = end;
    }
    gf_text_add(text, "}");
    while (!text->failed && text->len % 8)
        gf_text_add(text, " ");
    if (text->failed)
        return gf_nomem(err);
    header = text->len - sizeof(length);
    if (header > gf_limits_default.safetensors_header)
        return gf_fail(err, EFBIG,
                       "'%s': header of %" PRIu64
                       " bytes, readers take at most %zu: a smaller "
                       "max_shard_size gives smaller headers",
                       name, header, gf_limits_default.safetensors_header);
    for (size_t i = 0; i < sizeof(length); i++)
        text->s[i] = (char)(header >> 8 * i);
    return 0;
}

static int fill(struct gf_image *image, const struct gf_view *view, const uint32_t *order,
                size_t n, const struct gf_text *header, struct gf_err *err)
{
    int r = gf_image_add_bytes(image, header->s, header->len, err);

    for (size_t i = 0; i < n && !r; i++)
        r = gf_image_add_tensor(image, order[i], view->outputs[order[i]].nbytes, err);
    return r ? r : gf_image_seal(image, err);
}

int gf_image_safetensors(const char *name, const struct gf_view *view,
                         const uint32_t *outputs, size_t n, struct gf_image **ret,
                         struct gf_err *err)
{
    GF_AUTO_MEM uint32_t *order = in_file_order(view, outputs, n);
    GF_AUTO(gf_image) image = NULL;
    struct gf_text header = { 0 };
    int r;

    if (!order)
        return gf_nomem(err);
    r = make_header(name, view, order, n, &header, err);
    if (!r)
        r = gf_image_new(name, &image, err);
    if (!r)
        r = fill(image, view, order, n, &header, err);
    gf_text_done(&header);
    if (!r)
        *ret = gf_take(&image);
    return r;
}
