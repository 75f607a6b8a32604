/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_refuse.c - layouts that are recognised and not served, each with its reason.
 */
#include <inttypes.h>

#include "format/deepspeed_read.h"

static int tensor_parallel(const char *file, uint64_t degree, struct gf_err *err)
{
    return gf_fail(err, ENOTSUP,
                   "'%s': tensor parallel of degree %" PRIu64
                   ", only degree 1 is supported",
                   file, degree);
}

int gf_ds_refuse_names(const struct gf_ds_dir *dir, struct gf_err *err)
{
    static const enum gf_ds_kind kinds[] = { GF_DS_MODEL, GF_DS_MODEL3, GF_DS_OPTIM,
                                             GF_DS_LAYER, GF_DS_EXPERT };
    struct gf_ds_set model = gf_ds_dir_kind(dir, GF_DS_MODEL);
    struct gf_ds_set model3 = gf_ds_dir_kind(dir, GF_DS_MODEL3);
    bool pipeline = gf_ds_dir_kind(dir, GF_DS_LAYER).n > 0;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct gf_ds_set set = gf_ds_dir_kind(dir, kinds[i]);
        const struct gf_ds_entry *last = set.n ? &set.at[set.n - 1] : NULL;

        /* In a pipeline, mp numbers the stages; the tensor rank is in the layers' names. */
        if (last && last->is.mp > 0 && (!pipeline || kinds[i] == GF_DS_LAYER))
            return tensor_parallel(last->path, (uint64_t)last->is.mp + 1, err);
    }
    if (model.n && model3.n)
        return gf_fail(err, GF_EBAD,
                       "'%s' is of ZeRO-3, '%s' is not: two checkpoints in one",
                       model3.at->path, model.at->path);
    if (pipeline && model3.n)
        return gf_fail(err, ENOTSUP, "'%s': a pipeline with ZeRO-3 is not known",
                       model3.at->path);
    if (!model.n && !model3.n)
        return gf_fail(err, GF_EINCOMPLETE, "missing '%smp_rank_00_model_states.pt'%s",
                       dir->prefix,
                       gf_ds_dir_kind(dir, GF_DS_OPTIM).n
                           ? " (of ZeRO-3: 'zero_pp_rank_0_mp_rank_00_model_states.pt')"
                           : "");
    return 0;
}

int gf_ds_refuse_model(const struct gf_ds *ds, const struct gf_ds_file *file,
                       struct gf_err *err)
{
    const struct gf_ds_model *model = &file->model;

    if (model->tp_degree > 1)
        return tensor_parallel(file->path, model->tp_degree, err);
    if (model->mp_world > 1 && !ds->pipeline)
        return tensor_parallel(file->path, model->mp_world, err);
    if (model->autoep)
        return gf_fail(err, ENOTSUP,
                       "'%s': AutoEP layers ('ds_autoep_layers') are not supported",
                       file->path);
    if (model->quantized && model->frozen.n)
        return gf_fail(err, ENOTSUP,
                       "'%s': frozen weights are quantized "
                       "(zero_quantized_nontrainable_weights), which is not supported",
                       file->path);
    if (model->no_module != ds->pipeline)
        return gf_fail(err, GF_EINCOMPLETE,
                       model->no_module
                           ? "'%s': 'module' is None, and no layer files are there"
                           : "'%s': has a 'module', yet layer files are there",
                       file->path);
    return 0;
}
