/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_universal.c - <tag>_universal/zero/<name>/fp32.pt: one whole master per file.
 *
 * Written by ds_to_universal. The file is a dict with `param`, flat or in its shape (other
 * keys join tensor-parallel parts). Everything else comes from the copied model files.
 */
#include <inttypes.h>

#include "format/deepspeed_load.h"
#include "format/deepspeed_read.h"

int gf_ds_universal_load(struct gf_ds *ds, struct gf_err *err)
{
    int r = gf_ds_files_new(ds->nparams, &ds->whole, err);

    for (size_t i = 0; i < ds->nparams && !r; i++) {
        struct gf_ds_file *file = &ds->whole.at[i];

        file->want = GF_DS_WANT_MASTER;
        file->path = gf_arena_printf(&ds->arena, "%szero/%s/fp32.pt", ds->dir->prefix,
                                     ds->params[i].name);
        if (!file->path)
            return gf_nomem(err);
        if (!gf_path_is_inside(file->path))
            return gf_fail(err, GF_EBAD,
                           "'%s': parameter '%s' cannot be a directory's name",
                           ds->params[i].stage->models.at[0].path, ds->params[i].name);
    }
    if (!r)
        r = gf_ds_load(ds->in, ds->whole, 0, NULL, err);
    for (size_t i = 0; i < ds->nparams && !r; i++) {
        struct gf_ds_param *param = &ds->params[i];
        const struct gf_ds_flat *flat = &ds->whole.at[i].flat;

        if (flat->numel != param->numel)
            return gf_fail(err, GF_EBAD,
                           "'%s': %" PRIu64 " elements, the parameter has %" PRIu64,
                           ds->whole.at[i].path, flat->numel, param->numel);
        param->whole = &ds->whole.at[i];
        param->dtype = flat->dtype;
        param->has_master = true;
    }
    return r;
}
