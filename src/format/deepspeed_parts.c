/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_parts.c - weights outside of the model file: pipeline layers, MoE experts.
 */
#include <inttypes.h>
#include <stdio.h>

#include "format/deepspeed_load.h"
#include "format/deepspeed_read.h"

static int no_expert(const struct gf_ds *ds, size_t layer, uint64_t expert, bool bare,
                     struct gf_err *err)
{
    char number[32] = "";

    if (!bare)
        snprintf(number, sizeof(number), "layer_%zu_", layer);
    return gf_fail(err, GF_EINCOMPLETE,
                   "missing '%s%sexpert_%" PRIu64 "_mp_rank_00_model_states.pt'",
                   ds->dir->prefix, number, expert);
}

/* Experts 0 to num_experts - 1 of each layer, one file each; in files without a layer
 * number each holds that expert of every layer. */
static int check_experts(const struct gf_ds *ds, struct gf_ds_set set, struct gf_err *err)
{
    const struct gf_ds_model *model = &ds->stages[0].models.at[0].model;
    bool bare = set.n && set.at->is.bare_expert;
    size_t layers = bare ? 1 : model->nexperts, i = 0;

    for (size_t layer = 0; layer < layers && layer < model->nexperts; layer++)
        for (uint64_t expert = 0; expert < model->experts[layer]; expert++, i++)
            if (i >= set.n || set.at[i].is.layer != layer || set.at[i].is.expert != expert)
                return no_expert(ds, layer, expert, bare, err);
    if (i < set.n)
        return gf_fail(err, GF_EBAD, "surplus '%s': 'num_experts' knows %zu files",
                       set.at[i].path, i);
    return 0;
}

int gf_ds_parts_load(struct gf_ds *ds, struct gf_err *err)
{
    struct gf_ds_set layers = gf_ds_dir_kind(ds->dir, GF_DS_LAYER);
    struct gf_ds_set experts = gf_ds_dir_kind(ds->dir, GF_DS_EXPERT);
    int r = 0;

    ds->moe = experts.n || ds->stages[0].models.at[0].model.nexperts;
    if (ds->pipeline && ds->moe)
        return gf_fail(err, ENOTSUP, "'%s': experts in a pipeline are not supported",
                       experts.n ? experts.at->path : ds->stages[0].models.at[0].path);
    if (ds->moe)
        r = check_experts(ds, experts, err);
    if (!r)
        r = gf_ds_files_of(ds->pipeline ? layers : experts, GF_DS_WANT_STATE, &ds->parts,
                           err);
    return r ? r : gf_ds_load(ds->in, ds->parts, 0, NULL, err);
}
