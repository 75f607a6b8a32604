/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/heads.h"

#include <string.h>

#include "base/math.h"
#include "snapshot/layers.h"
#include "view/kind.h"

static bool is_there(const struct gf_format_in *in, const char *name)
{
    struct gf_dir_entry entry;

    return !gf_dir_stat(in->dir, name, &entry) && !entry.is_dir;
}

static bool heads_alone(const struct gf_catalog *catalog)
{
    uint32_t i = 0;

    while (i < gf_catalog_len(catalog) && gf_name_is_head(gf_catalog_at(catalog, i)->name))
        i++;
    return i && i == gf_catalog_len(catalog);
}

static int read_file(const struct gf_format_in *in, const char *name, struct gf_found *ret,
                     struct gf_err *err)
{
    struct gf_format_in one = *in;
    const struct gf_format *format;
    char why[GF_WHY];
    int r = gf_format_detect(in->dir, name, NULL, &format, why, err);

    one.file = name;
    one.tag = NULL;
    one.template = NULL;
    return r ? r : gf_layer_read(format, &one, ret, err);
}

/* Tensors whose names are new, and the sources of all. */
static int adopt(struct gf_found *to, struct gf_found *from, struct gf_err *err)
{
    uint32_t first = (uint32_t)to->sources.n;
    int r = 0;

    for (uint32_t i = 0; i < gf_catalog_len(from->catalog) && !r; i++)
        if (!gf_catalog_find(to->catalog, gf_catalog_at(from->catalog, i)->name))
            r = gf_catalog_adopt(to->catalog, from->catalog, i, first, err);
    to->mtime_ns = GF_MAX(to->mtime_ns, from->mtime_ns);
    return r ? r : gf_found_take_sources(to, from, err);
}

/* What was found are the heads of the adapter beside them. */
static int put_adapter_first(const struct gf_format_in *in, struct gf_found *found,
                             struct gf_err *err)
{
    static const char name[] = "adapter_model.bin";
    struct gf_found heads = *found, adapter = { 0 };
    int r;

    if (!is_there(in, name) || !heads_alone(found->catalog))
        return 0;
    r = read_file(in, name, &adapter, err);
    if (!r)
        r = adopt(&adapter, &heads, err);
    *found = r ? heads : adapter;
    gf_found_done(r ? &adapter : &heads);
    return r;
}

static int join_file(const struct gf_format_in *in, const char *name,
                     struct gf_found *found, struct gf_err *err)
{
    struct gf_found heads = { 0 };
    struct gf_err why = { 0 };
    int r = read_file(in, name, &heads, &why);

    /* Whatever is wrong with it is not the model's fault. */
    if (r == -ENOMEM || (r && gf_found_warn(found, "not used beside it: %s", why.text)))
        r = gf_nomem(err);
    else if (!r && heads_alone(heads.catalog))
        r = adopt(found, &heads, err);
    else
        r = 0;
    gf_found_done(&heads);
    return r;
}

/* An adapter in safetensors was found before a .bin: the heads beside it, or a model that was
 * saved over a stale adapter. Weights of a model decide, as they do in one format. */
static int join_bin(const struct gf_format_in *in, struct gf_found *found,
                    struct gf_err *err)
{
    const struct gf_format *format = gf_format_of_layer(in->dir, NULL, GF_LAYER_BIN);
    struct gf_found bin = { 0 }, adapter = *found;
    struct gf_err why = { 0 };
    int r;

    if (strcmp(found->format, "safetensors") != 0 || !format ||
        gf_state_kind(found->catalog, NULL) != GF_STATE_PEFT)
        return 0;
    r = gf_layer_read(format, in, &bin, &why);
    if (r == -ENOMEM || (r && gf_found_warn(found, "not used beside it: %s", why.text))) {
        r = gf_nomem(err);
    } else if (r) {
        r = 0;
    } else if (heads_alone(bin.catalog)) {
        r = adopt(found, &bin, err);
    } else if (gf_state_kind(bin.catalog, NULL) != GF_STATE_PEFT) {
        *found = bin;
        bin = adapter;
        if (gf_found_warn(found, "'adapter_model.safetensors' is left out: transformers "
                                 "would apply it to the model weights beside it once more"))
            r = gf_nomem(err);
    }
    gf_found_done(&bin);
    return r;
}

int gf_heads_join(const struct gf_format_in *in, struct gf_found *found, struct gf_err *err)
{
    static const char *const names[] = { "value_head.safetensors", "value_head.bin" };
    int r = put_adapter_first(in, found, err);

    if (!r)
        r = join_bin(in, found, err);
    for (size_t i = 0; i < GF_COUNT(names) && !r; i++)
        if (is_there(in, names[i]))
            return join_file(in, names[i], found, err);
    return r;
}
