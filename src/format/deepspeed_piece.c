/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_piece.c - the pieces of flat runs and masters, for the tensor added last.
 *
 * Places were checked against the flat tensors' lengths, and those against their files, so
 * offsets cannot overflow here.
 */
#include "format/deepspeed_map.h"
#include "format/deepspeed_read.h"

int gf_ds_source(struct gf_ds *ds, struct gf_ds_file *file, uint32_t *ret,
                 struct gf_err *err)
{
    if (file->index == GF_NONE) {
        struct gf_source *source = file->source;
        int r;

        file->source = NULL;
        r = gf_found_add_source(ds->out, source, &file->index, err);
        if (r)
            return r;
    }
    *ret = file->index;
    return 0;
}

int gf_ds_add_flat(struct gf_ds *ds, struct gf_ds_file *file, const struct gf_ds_flat *flat,
                   uint64_t at, uint64_t start, uint64_t count, struct gf_err *err)
{
    uint32_t source;
    int r = gf_ds_source(ds, file, &source, err);

    return r ? r
             : gf_catalog_add_linear(ds->out->catalog, source,
                                     flat->offset + at * gf_dtype_size(flat->dtype), start,
                                     count, err);
}

/* ZeRO-3: every rank has a part. */
static int add_split(struct gf_ds *ds, const struct gf_ds_param *param, struct gf_err *err)
{
    const struct gf_ds_stage *stage = param->stage;
    uint32_t world = (uint32_t)stage->optims.n;
    uint64_t start = 0;

    for (uint32_t rank = 0; rank < world; rank++) {
        struct gf_ds_file *file = &stage->optims.at[rank];
        struct gf_ds_walk walk;
        uint64_t at, count;
        size_t group;

        gf_ds_walk_start(&walk, stage->ends, stage->ngroups, param->off,
                         gf_ds_part_used(param->numel, world, rank));
        while (gf_ds_walk_next(&walk, &group, &at, &count)) {
            int r = gf_ds_add_flat(ds, file, &file->optim.at[group].flat, at, start, count,
                                   err);

            if (r)
                return r;
            start += count;
        }
    }
    return 0;
}

/* ZeRO-1, -2: some neighbouring ranks of its group have it. */
static int add_group(struct gf_ds *ds, const struct gf_ds_param *param, struct gf_err *err)
{
    const struct gf_ds_stage *stage = param->stage;
    struct gf_ds_walk walk;
    uint64_t at, count, start = 0;
    size_t rank;

    gf_ds_walk_start(&walk, stage->ends + param->group * stage->optims.n, stage->optims.n,
                     param->off, param->numel);
    while (gf_ds_walk_next(&walk, &rank, &at, &count)) {
        struct gf_ds_file *file = &stage->optims.at[rank];
        int r = gf_ds_add_flat(ds, file, &file->optim.at[param->group].flat, at, start,
                               count, err);

        if (r)
            return r;
        start += count;
    }
    return 0;
}

int gf_ds_add_master(struct gf_ds *ds, const struct gf_ds_param *param, struct gf_err *err)
{
    if (param->whole)
        return gf_ds_add_flat(ds, param->whole, &param->whole->flat, 0, 0, param->numel,
                              err);
    return param->stage->split ? add_split(ds, param, err) : add_group(ds, param, err);
}
