/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torchbin_out.c - a pytorch_model.bin: the zip that torch.save writes around a state dict,
 * laid out before any tensor byte is read.
 *
 *     | local header, data.pkl | .format_version .storage_alignment byteorder |
 *     | local header, padding, data/0 | ... | version | central directory, end records |
 *
 * Stored members, each payload on a multiple of 64 bytes (extra field 'FB', as torch pads).
 * Sizes stand in the local headers, so no data descriptors are needed; CRCs are 0, which
 * torch.load never looks at and `unzip -t` complains about. One storage per tensor, all on
 * 'cpu'. Zip64 fields appear where torch's own writer has them. Source: torch 2.13
 * serialization.py and inline_container.h; loads with all of weights_only and mmap.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "image/weights.h"

#define ALIGN 64
#define ZIP64 0xffffffffu

static void le(struct gf_text *text, uint64_t value, unsigned bytes)
{
    uint8_t b[8];

    for (unsigned i = 0; i < bytes; i++)
        b[i] = (uint8_t)(value >> 8 * i);
    gf_text_addn(text, b, bytes);
}

/* ---- pickle, protocol 2 ---- */

static void pickle_str(struct gf_text *p, const char *s)
{
    gf_text_add(p, "X");
    le(p, strlen(s), 4);
    gf_text_add(p, s);
}

static void pickle_int(struct gf_text *p, uint64_t value)
{
    if (value < 256) {
        gf_text_add(p, "K");
        le(p, value, 1);
    } else if (value < 65536) {
        gf_text_add(p, "M");
        le(p, value, 2);
    } else if (value <= INT32_MAX) {
        gf_text_add(p, "J");
        le(p, value, 4);
    } else { /* LONG1 of eight bytes; values are below 2^63 */
        gf_text_addn(p, "\x8a\x08", 2);
        le(p, value, 8);
    }
}

static void pickle_size(struct gf_text *p, const uint64_t *at, uint32_t n)
{
    gf_text_add(p, "(");
    for (uint32_t i = 0; i < n; i++)
        pickle_int(p, at[i]);
    gf_text_add(p, "t");
}

/* _rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict()), or _v3 with the dtype
 * behind it for those that have no storage class of their own. */
static void pickle_tensor(struct gf_text *p, const struct gf_output *out, size_t key)
{
    const struct gf_dtype_info *info = gf_dtype_info(out->dtype);
    uint64_t dims[GF_MAX_RANK], strides[GF_MAX_RANK], numel = 1;
    struct gf_shape shape = { out->shape.rank, dims };
    char text[24];

    for (uint32_t d = 0; d < shape.rank; d++)
        dims[d] = out->shape.dims[d];
    if (out->dtype == GF_F4 && shape.rank) /* two of ours are one of torch's */
        dims[shape.rank - 1] /= 2;
    gf_shape_strides(shape, strides);
    gf_shape_numel(shape, &numel);
    snprintf(text, sizeof(text), "%zu", key);
    gf_text_add(p, info->storage ? "ctorch._utils\n_rebuild_tensor_v2\n"
                                 : "ctorch._utils\n_rebuild_tensor_v3\n");
    gf_text_add(p, "((");
    pickle_str(p, "storage");
    if (info->storage)
        gf_text_printf(p, "ctorch\n%s\n", info->storage);
    else
        gf_text_add(p, "ctorch.storage\nUntypedStorage\n");
    pickle_str(p, text);
    pickle_str(p, "cpu");
    pickle_int(p, info->storage ? numel : out->nbytes);
    gf_text_add(p, "tQ");
    pickle_int(p, 0);
    pickle_size(p, dims, shape.rank);
    pickle_size(p, strides, shape.rank);
    gf_text_add(p, "\x89"
                   "ccollections\nOrderedDict\n)R");
    if (!info->storage)
        gf_text_printf(p, "ctorch\n%s\n", info->torch);
    gf_text_add(p, "tR");
}

static int make_pickle(const struct gf_view *view, const uint32_t *outputs, size_t n,
                       struct gf_text *p, struct gf_err *err)
{
    gf_text_addn(p, "\x80\x02", 2);
    gf_text_add(p, "ccollections\nOrderedDict\n)R(");
    for (size_t i = 0; i < n; i++) {
        const struct gf_output *out = &view->outputs[outputs[i]];

        if (!gf_dtype_info(out->dtype)->torch)
            return gf_fail(err, ENOTSUP, "tensor '%s': torch has no dtype %s", out->name,
                           gf_dtype_info(out->dtype)->safetensors);
        pickle_str(p, out->name);
        pickle_tensor(p, out, i);
    }
    gf_text_add(p, "u.");
    return p->failed ? gf_nomem(err) : 0;
}

/* ---- zip ---- */

struct zip {
    struct gf_image *image;
    const char *root;       /* "pytorch_model": the directory all members stand in */
    struct gf_text central; /* the directory so far */
    uint64_t n;
};

/* A member's local header with padding up to its payload, and its central entry. */
static int begin_member(struct zip *zip, const char *name, uint64_t size,
                        struct gf_err *err)
{
    struct gf_text local = { 0 };
    uint64_t at = gf_image_size(zip->image);
    size_t name_len = strlen(zip->root) + 1 + strlen(name);
    bool big = size >= ZIP64, far = at >= ZIP64;
    size_t wide = big ? 20 : 0; /* local zip64: both sizes */
    uint64_t pad = (ALIGN - (at + 30 + name_len + wide + 4) % ALIGN) % ALIGN;
    int r;

    gf_text_add(&local, "PK\3\4");
    le(&local, 45, 2);     /* version needed: zip64 */
    le(&local, 0x0800, 2); /* names are UTF-8 */
    le(&local, 0, 6);      /* stored, no time */
    le(&local, 0, 4);      /* crc: see above */
    le(&local, big ? ZIP64 : size, 4);
    le(&local, big ? ZIP64 : size, 4);
    le(&local, name_len, 2);
    le(&local, wide + 4 + pad, 2);
    gf_text_printf(&local, "%s/%s", zip->root, name);
    if (big) {
        le(&local, 1, 2);
        le(&local, 16, 2);
        le(&local, size, 8);
        le(&local, size, 8);
    }
    gf_text_add(&local, "FB");
    le(&local, pad, 2);
    for (uint64_t i = 0; i < pad; i++)
        gf_text_add(&local, "Z");

    gf_text_add(&zip->central, "PK\1\2");
    le(&zip->central, 45, 2);
    le(&zip->central, 45, 2);
    le(&zip->central, 0x0800, 2);
    le(&zip->central, 0, 6);
    le(&zip->central, 0, 4);
    le(&zip->central, big ? ZIP64 : size, 4);
    le(&zip->central, big ? ZIP64 : size, 4);
    le(&zip->central, name_len, 2);
    le(&zip->central, big || far ? 4u + (big ? 16u : 0u) + (far ? 8u : 0u) : 0, 2);
    le(&zip->central, 0, 6); /* no comment, first disk, no internal attributes */
    le(&zip->central, 0, 4); /* nor external ones */
    le(&zip->central, far ? ZIP64 : at, 4);
    gf_text_printf(&zip->central, "%s/%s", zip->root, name);
    if (big || far) {
        le(&zip->central, 1, 2);
        le(&zip->central, (big ? 16u : 0u) + (far ? 8u : 0u), 2);
    }
    if (big) {
        le(&zip->central, size, 8);
        le(&zip->central, size, 8);
    }
    if (far)
        le(&zip->central, at, 8);
    zip->n++;
    r = local.failed || zip->central.failed
            ? gf_nomem(err)
            : gf_image_add_bytes(zip->image, local.s, local.len, err);
    gf_text_done(&local);
    return r;
}

static int add_member(struct zip *zip, const char *name, const void *bytes, size_t len,
                      struct gf_err *err)
{
    int r = begin_member(zip, name, len, err);

    return r ? r : gf_image_add_bytes(zip->image, bytes, len, err);
}

static int end_zip(struct zip *zip, struct gf_err *err)
{
    struct gf_text end = { 0 };
    uint64_t at = gf_image_size(zip->image), len = zip->central.len;
    int r = gf_image_add_bytes(zip->image, zip->central.s, zip->central.len, err);

    gf_text_add(&end, "PK\6\6");
    le(&end, 44, 8);
    le(&end, 45, 2);
    le(&end, 45, 2);
    le(&end, 0, 8); /* this disk, the directory's disk */
    le(&end, zip->n, 8);
    le(&end, zip->n, 8);
    le(&end, len, 8);
    le(&end, at, 8);
    gf_text_add(&end, "PK\6\7");
    le(&end, 0, 4);
    le(&end, at + len, 8);
    le(&end, 1, 4);
    gf_text_add(&end, "PK\5\6");
    le(&end, 0, 4);
    le(&end, GF_MIN(zip->n, 0xffff), 2);
    le(&end, GF_MIN(zip->n, 0xffff), 2);
    le(&end, GF_MIN(len, ZIP64), 4);
    le(&end, GF_MIN(at, ZIP64), 4);
    le(&end, 0, 2);
    if (!r)
        r = end.failed ? gf_nomem(err)
                       : gf_image_add_bytes(zip->image, end.s, end.len, err);
    gf_text_done(&end);
    return r;
}

static int fill(struct zip *zip, const struct gf_view *view, const uint32_t *outputs,
                size_t n, const struct gf_text *pickle, struct gf_err *err)
{
    int r = add_member(zip, "data.pkl", pickle->s, pickle->len, err);

    if (!r)
        r = add_member(zip, ".format_version", "1", 1, err);
    if (!r)
        r = add_member(zip, ".storage_alignment", "64", 2, err);
    if (!r)
        r = add_member(zip, "byteorder", "little", 6, err);
    for (size_t i = 0; i < n && !r; i++) {
        const struct gf_output *out = &view->outputs[outputs[i]];
        char name[32];

        snprintf(name, sizeof(name), "data/%zu", i);
        r = begin_member(zip, name, out->nbytes, err);
        if (!r)
            r = gf_image_add_tensor(zip->image, outputs[i], out->nbytes, err);
    }
    if (!r)
        r = add_member(zip, "version", "3\n", 2, err);
    if (!r)
        r = end_zip(zip, err);
    return r ? r : gf_image_seal(zip->image, err);
}

int gf_image_torchbin(const char *name, const struct gf_view *view, const uint32_t *outputs,
                      size_t n, struct gf_image **ret, struct gf_err *err)
{
    const char *dot = strrchr(name, '.');
    GF_AUTO_MEM char *root = dot ? strndup(name, (size_t)(dot - name)) : strdup(name);
    GF_AUTO(gf_image) image = NULL;
    struct gf_text pickle = { 0 };
    struct zip zip = { .root = root };
    int r = root ? make_pickle(view, outputs, n, &pickle, err) : gf_nomem(err);

    if (!r)
        r = gf_image_new(name, &image, err);
    zip.image = image;
    if (!r)
        r = fill(&zip, view, outputs, n, &pickle, err);
    gf_text_done(&zip.central);
    gf_text_done(&pickle);
    if (!r)
        *ret = gf_take(&image);
    return r;
}
