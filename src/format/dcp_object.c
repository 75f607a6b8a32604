/* SPDX-License-Identifier: Apache-2.0 */
#include "format/dcp_object.h"

#include <inttypes.h>
#include <string.h>

#include "format/dcp_archive.h"
#include "format/state_pick.h"
#include "format/torch_open.h"

const struct gf_dcp_object *gf_dcp_object_choose(const struct gf_dcp_table *table)
{
    const struct gf_dcp_object *best = NULL;
    struct gf_dcp_group pair[2] = { 0 };

    for (size_t i = 0; i < table->objects.n; i++) {
        const char *fqn = table->objects.at[i].fqn, *dot = strrchr(fqn, '.');

        pair[1] = (struct gf_dcp_group){
            .path = fqn, .last = dot ? dot + 1 : fqn, .depth = 1, .tensors = 1, .weights = 1
        };
        if (!best || gf_dcp_group_choose(pair, 2) == 1) {
            best = &table->objects.at[i];
            pair[0] = pair[1];
        }
    }
    return best;
}

struct object {
    const struct gf_dcp_object *is;
    struct gf_source *archive;
    struct gf_torch *torch;
    uint32_t source;
    struct gf_catalog *catalog;
    struct gf_err *err;
};

static int add(struct object *o, const char *name, const struct gf_torch_view *view)
{
    struct gf_tensor_spec spec = { .name = name,
                                   .shape = view->shape,
                                   .dtype = view->dtype,
                                   .live = view->dtype,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE,
                                   .twist = view->twist };
    uint64_t at;
    int r = gf_torch_locate(o->torch, view, &at, o->err);

    if (!r)
        r = gf_catalog_add(o->catalog, &spec, NULL, o->err);
    return r ? r
             : gf_catalog_add_strided(o->catalog, o->source, o->is->place.at + at,
                                      view->strides, o->err);
}

static int read_entry(struct object *o, const struct gf_pv *key, const struct gf_pv *value)
{
    const char *name = gf_pv_str(key), *why = NULL;
    struct gf_torch_view view;
    enum gf_torch_is is;
    int r;

    if (!name)
        return 0;
    r = gf_torch_tensor(gf_torch_pickle(o->torch), value, o->archive->name, name, &is,
                        &view, &why, o->err);
    if (r || is == GF_TORCH_OTHER)
        return r;
    if (is == GF_TORCH_TENSOR && view.dtype != GF_F4)
        return add(o, name, &view);
    return gf_fail(o->err, ENOTSUP,
                   "'%s': '%s' was saved as one object (flatten_state_dict=False), and its "
                   "'%s' is a %s there: only a part, if it was distributed",
                   o->archive->name, o->is->fqn, name, why ? why : "packed float4");
}

int gf_dcp_object_read(struct gf_source *file, const struct gf_dcp_object *object,
                       uint32_t source, const struct gf_limits *limits,
                       struct gf_catalog *catalog, struct gf_err *err)
{
    struct gf_dcp_item item = { .at = object->place.at, .length = object->place.length };
    GF_AUTO(gf_source) archive = NULL;
    GF_AUTO(gf_torch) torch = NULL;
    struct gf_state_pick pick;
    int r = gf_dcp_archive(file, &item, &archive, err);

    if (!r)
        r = gf_torch_open(archive, limits, &torch, err);
    if (!r)
        r = gf_state_pick(gf_torch_pickle(torch), file->name, limits, &pick, err);
    if (!r) {
        struct object o = { object, archive, torch, source, catalog, err };

        for (size_t i = 0; i < gf_pv_pairs(pick.dict) && !r; i++)
            r = read_entry(&o, gf_pv_key(pick.dict, i), gf_pv_value(pick.dict, i));
    }
    if (!r && gf_catalog_len(catalog) == 0)
        r = gf_fail(err, ENOENT, "'%s': no tensors in '%s'", file->name, object->fqn);
    return r;
}
