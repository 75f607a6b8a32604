/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_master.c - where the master of each trained parameter lies.
 *
 * param_shapes names the parameters in the order in which they were laid into the flat
 * partitions (deepspeed_map.h); the optimizer files say how long each rank's part is. The
 * sums must agree: whatever does not add up is refused here.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/math.h"
#include "format/deepspeed_load.h"
#include "format/deepspeed_map.h"
#include "format/deepspeed_read.h"

static int add_params(struct gf_ds *ds, struct gf_ds_stage *stage,
                      const struct gf_ds_groups *groups, const char *path,
                      struct gf_err *err)
{
    stage->first_param = ds->nparams;
    for (size_t g = 0; g < groups->n; g++)
        for (size_t i = 0; i < groups->at[g].n; i++) {
            const struct gf_ds_shape *shape = &groups->at[g].at[i];
            struct gf_ds_param *param = &ds->params[ds->nparams];
            int r = gf_strmap_put(&ds->names, shape->name, ds->nparams, NULL);

            if (r == -EEXIST)
                return gf_fail(err, GF_EBAD, "'%s': 'param_shapes' has '%s' twice", path,
                               shape->name);
            if (r)
                return gf_nomem(err);
            *param = (struct gf_ds_param){ .name = shape->name,
                                           .shape = shape->shape,
                                           .numel = shape->numel,
                                           .stage = stage,
                                           .group = g };
            ds->nparams++;
        }
    stage->nparams = ds->nparams - stage->first_param;
    return 0;
}

static const struct gf_ds_groups *shapes_of(const struct gf_ds_stage *stage)
{
    const struct gf_ds_model *model = &stage->models.at[0].model;

    /* Before 0.6.0 they were in the optimizer files. */
    return !model->has_shapes && stage->optims.n ? &stage->optims.at[0].optim.shapes
                                                 : &model->shapes;
}

static int list_params(struct gf_ds *ds, struct gf_err *err)
{
    size_t n = 0;
    int r = 0;

    for (size_t s = 0; s < ds->nstages; s++)
        for (size_t g = 0; g < shapes_of(&ds->stages[s])->n; g++)
            n += shapes_of(&ds->stages[s])->at[g].n;
    ds->params = gf_arena_alloc(&ds->arena, n * sizeof(*ds->params));
    if (!ds->params)
        return gf_nomem(err);
    for (size_t s = 0; s < ds->nstages && !r; s++)
        r = add_params(ds, &ds->stages[s], shapes_of(&ds->stages[s]),
                       ds->stages[s].models.at[0].path, err);
    return r;
}

static const struct gf_ds_flat *flat_of(const struct gf_ds_stage *stage, size_t rank,
                                        size_t g)
{
    return &stage->optims.at[rank].optim.at[g].flat;
}

/* NVMe offload leaves flat groups empty, and the masters in swap files. */
static int bad_sum(const struct gf_ds *ds, const struct gf_ds_file *file, size_t group,
                   uint64_t found, uint64_t wanted, struct gf_err *err)
{
    if (ds->dir->nvme || (found == 0 && wanted))
        return gf_fail(
            err, ENOTSUP,
            "'%s': group %zu has %" PRIu64 " elements, its parameters need %" PRIu64
            ": the optimizer state is on NVMe swap files, which are not supported",
            file->path, group, found, wanted);
    return gf_fail(err, GF_EBAD,
                   "'%s': group %zu has %" PRIu64 " elements, its parameters need %" PRIu64,
                   file->path, group, found, wanted);
}

static int too_large(const struct gf_ds_file *file, struct gf_err *err)
{
    return gf_fail(err, GF_EBAD, "'%s': the sizes of its groups overflow", file->path);
}

/* All ranks step together: a count of its own shows a file of another save. */
static int check_updates(const struct gf_ds_stage *stage, struct gf_err *err)
{
    const struct gf_ds_file *first = NULL;

    for (size_t r = 0; r < stage->optims.n; r++) {
        const struct gf_ds_file *file = &stage->optims.at[r];

        if (!file->optim.has_updates)
            continue;
        if (first && file->optim.updates != first->optim.updates)
            return gf_fail(err, GF_EBAD,
                           "'%s': the optimizer has made %" PRIu64
                           " steps, in '%s' %" PRIu64 ": files of two saves",
                           file->path, file->optim.updates, first->path,
                           first->optim.updates);
        first = first ? first : file;
    }
    return 0;
}

/* All files of a stage are alike: kind, groups, dtypes, and for ZeRO-3 sizes. */
static int check_alike(const struct gf_ds_stage *stage, struct gf_err *err)
{
    const struct gf_ds_file *first = &stage->optims.at[0];

    for (size_t r = 0; r < stage->optims.n; r++) {
        const struct gf_ds_file *file = &stage->optims.at[r];

        if (file->optim.split != stage->split ||
            (file->optim.has_stage && (file->optim.stage == 3) != stage->split))
            return gf_fail(err, GF_EBAD, "'%s' is %sof ZeRO-3, '%s' is%s", file->path,
                           stage->split ? "not " : "", stage->models.at[0].path,
                           stage->split ? "" : " not");
        if (file->optim.n != first->optim.n)
            return gf_fail(err, GF_EBAD, "'%s': %zu groups, '%s' has %zu", file->path,
                           file->optim.n, first->path, first->optim.n);
        for (size_t g = 0; g < file->optim.n; g++) {
            const struct gf_ds_flat *flat = flat_of(stage, r, g),
                                    *as = flat_of(stage, 0, g);

            if (flat->dtype != as->dtype || (stage->split && flat->numel != as->numel) ||
                file->optim.at[g].parts != first->optim.at[g].parts)
                return gf_fail(
                    err, GF_EBAD,
                    "'%s': group %zu is %" PRIu64 " x %s, in '%s' %" PRIu64 " x %s",
                    file->path, g, flat->numel, gf_dtype_info(flat->dtype)->safetensors,
                    first->path, as->numel, gf_dtype_info(as->dtype)->safetensors);
        }
    }
    return check_updates(stage, err);
}

/* ZeRO-3. The sub-groups are one long vector; as written by DeepSpeed no parameter
 * straddles two of them, so with as many groups of shapes as of elements each must add up.
 */
static int place_split(struct gf_ds *ds, struct gf_ds_stage *stage, struct gf_err *err)
{
    const struct gf_ds_file *file = &stage->optims.at[0];
    const struct gf_ds_groups *shapes = shapes_of(stage);
    struct gf_ds_param *param = ds->params + stage->first_param;
    size_t n = file->optim.n;
    uint64_t off = 0, start;

    for (size_t g = 0; g < n; g++)
        if (gf_add(g ? stage->ends[g - 1] : 0, flat_of(stage, 0, g)->numel,
                   &stage->ends[g]))
            return too_large(file, err);
    for (size_t g = 0; g < shapes->n; g++) {
        start = off;
        for (size_t i = 0; i < shapes->at[g].n; i++, param++) {
            param->off = off;
            param->dtype = flat_of(stage, 0, shapes->n == n ? g : 0)->dtype;
            param->has_master = true;
            if (gf_add(off, gf_ds_part(param->numel, (uint32_t)stage->optims.n), &off))
                return too_large(file, err);
        }
        if (shapes->n == n && flat_of(stage, 0, g)->numel != off - start)
            return bad_sum(ds, file, g, flat_of(stage, 0, g)->numel, off - start, err);
    }
    if (off != (n ? stage->ends[n - 1] : 0))
        return bad_sum(ds, file, 0, n ? stage->ends[n - 1] : 0, off, err);
    for (size_t g = 1; g < n && shapes->n != n; g++)
        if (flat_of(stage, 0, g)->dtype != flat_of(stage, 0, 0)->dtype)
            return gf_fail(err, GF_EBAD, "'%s': groups of different types", file->path);
    return 0;
}

/* The files say themselves where parameters lie: an independent check of the arithmetic. */
static int check_claims(const struct gf_ds *ds, const struct gf_ds_stage *stage, size_t g,
                        struct gf_err *err)
{
    const uint64_t *ends = stage->ends + g * stage->optims.n;

    for (size_t r = 0; r < stage->optims.n; r++) {
        const struct gf_ds_optim_group *group = &stage->optims.at[r].optim.at[g];
        uint64_t first = r ? ends[r - 1] : 0, index;

        for (size_t i = 0; i < group->nclaims; i++) {
            const struct gf_ds_claim *claim = &group->claims[i];
            const struct gf_ds_param *param;
            uint64_t lo, hi;

            if (!gf_strmap_get(&ds->names, claim->name, &index))
                continue;
            param = &ds->params[index];
            lo = GF_MAX(param->off, first);
            hi = GF_MAX(lo, GF_MIN(param->off + param->numel, ends[r]));
            if (claim->count == hi - lo && (hi == lo || claim->start == lo - first))
                continue;
            return gf_fail(err, GF_EBAD,
                           "'%s': 'param_slice_mappings' has %" PRIu64
                           " elements of '%s' at %" PRIu64 ", the sizes give %" PRIu64
                           " at %" PRIu64,
                           stage->optims.at[r].path, claim->count, claim->name,
                           claim->start, hi - lo, lo - first);
        }
    }
    return 0;
}

/* ZeRO-1, -2, BF16_Optimizer: one group. Only the very end is padding (cut off, or at most
 * 2 elements per rank), so that the sum of the lengths in front of a rank is its start. */
static int place_group(struct gf_ds *ds, struct gf_ds_stage *stage,
                       struct gf_ds_param *params, size_t n, size_t g, struct gf_err *err)
{
    const struct gf_ds_file *file = &stage->optims.at[0];
    const struct gf_ds_optim_group *group = &file->optim.at[g];
    size_t world = stage->optims.n;
    uint64_t *ends = stage->ends + g * world, off = 0, sum;

    if (group->gaps && group->ngaps != n)
        return gf_fail(
            err, GF_EBAD,
            "'%s': 'param_alignment_paddings' of group %zu has %zu entries for %zu "
            "parameters",
            file->path, g, group->ngaps, n);
    for (size_t r = 0; r < world; r++)
        if (gf_add(r ? ends[r - 1] : 0, flat_of(stage, r, g)->numel, &ends[r]))
            return too_large(&stage->optims.at[r], err);
    for (size_t i = 0; i < n; i++) {
        params[i].off = off;
        params[i].dtype = group->flat.dtype;
        params[i].has_master = true;
        if (gf_add(off, params[i].numel, &off) ||
            gf_add(off, group->gaps ? group->gaps[i] : 0, &off))
            return too_large(file, err);
    }
    sum = ends[world - 1];
    if (sum < off || sum - off > 2 * (uint64_t)world)
        return bad_sum(ds, file, g, sum, off, err);
    return check_claims(ds, stage, g, err);
}

static int place_whole(struct gf_ds *ds, struct gf_ds_stage *stage, struct gf_err *err)
{
    const struct gf_ds_file *file = &stage->optims.at[0];
    const struct gf_ds_groups *shapes = shapes_of(stage);
    struct gf_ds_param *params = ds->params + stage->first_param;

    if (shapes->n != file->optim.n)
        return gf_fail(err, GF_EBAD, "'%s': %zu groups, 'param_shapes' has %zu", file->path,
                       file->optim.n, shapes->n);
    for (size_t g = 0; g < shapes->n; params += shapes->at[g++].n) {
        uint64_t parts = file->optim.at[g].parts;
        int r;

        /* Experts are trained by fewer ranks, and called by local numbers here: their
         * weights are in files of their own. */
        if (ds->moe && parts && parts < stage->optims.n)
            continue;
        if (parts && parts != stage->optims.n)
            return gf_fail(err, GF_EBAD,
                           "'%s': 'partition_count' of group %zu is %" PRIu64
                           ", there are %zu rank files",
                           file->path, g, parts, stage->optims.n);
        r = place_group(ds, stage, params, shapes->at[g].n, g, err);
        if (r)
            return r;
    }
    return 0;
}

static int place(struct gf_ds *ds, struct gf_ds_stage *stage, struct gf_err *err)
{
    int r = check_alike(stage, err);

    if (r)
        return r;
    stage->ngroups = stage->optims.at[0].optim.n;
    stage->ends = gf_arena_alloc(&ds->arena, stage->ngroups * sizeof(*stage->ends) *
                                                 (stage->split ? 1 : stage->optims.n));
    if (!stage->ends)
        return gf_nomem(err);
    return stage->split ? place_split(ds, stage, err) : place_whole(ds, stage, err);
}

static int no_optim(const struct gf_ds *ds, const struct gf_ds_stage *stage,
                    struct gf_err *err)
{
    return gf_fail(err, GF_EINCOMPLETE,
                   "missing '%s%szero_pp_rank_0_mp_rank_%02" PRIu32
                   "_optim_states.pt': no optimizer file is there",
                   ds->dir->prefix, stage->models.at[0].model.bf16 ? "bf16_" : "",
                   stage->mp);
}

/* The first file says how many there must be, so it is read before the others. */
static int load_optims(struct gf_ds *ds, struct gf_ds_stage *stage, struct gf_err *err)
{
    struct gf_ds_set set = gf_ds_dir_rank(ds->dir, GF_DS_OPTIM, stage->mp);
    const struct gf_ds_model *model = &stage->models.at[0].model;
    const struct gf_ds_optim *optim;
    uint64_t world = 0;
    int r;

    if (set.n == 0)
        return model->has_shapes ? no_optim(ds, stage, err) : 0;
    r = gf_ds_files_of(set, GF_DS_WANT_OPTIM, &stage->optims, err);
    if (!r)
        r = gf_ds_load(ds->in, (struct gf_ds_files){ stage->optims.at, 1 }, 0, NULL, err);
    if (r)
        return r;
    optim = &stage->optims.at[0].optim;
    for (size_t g = 0; g < optim->n; g++)
        world = GF_MAX(world, optim->at[g].parts);
    r = gf_ds_check_ranks(set, (uint32_t)world, ds->in->limits, err);
    if (r)
        return r;
    if (!model->has_shapes && optim->shapes.n == 0) {
        /* BF16_Optimizer in ZeRO-0 (pipelines): nothing tells whose the masters are. */
        gf_ds_files_done(&stage->optims);
        return 0;
    }
    return gf_ds_load(ds->in, stage->optims, 1, NULL, err);
}

static int load_all(struct gf_ds *ds, struct gf_err *err)
{
    int r = 0;

    for (size_t s = 0; s < ds->nstages && !r; s++)
        r = load_optims(ds, &ds->stages[s], err);
    return r;
}

static int place_all(struct gf_ds *ds, struct gf_err *err)
{
    int r = 0;

    if (ds->dir->universal)
        return gf_ds_universal_load(ds, err);
    for (size_t s = 0; s < ds->nstages && !r; s++)
        if (ds->stages[s].optims.n)
            r = place(ds, &ds->stages[s], err);
    return r;
}

/* Below ZeRO-3 the model file has all weights, though not the masters. */
static int without(struct gf_ds *ds, int r, struct gf_err *err)
{
    if (r == -ENOMEM || !ds->in->allow_incomplete || ds->stages[0].split)
        return r;
    for (size_t i = 0; i < ds->nparams; i++)
        ds->params[i].has_master = false;
    ds->live_only = true;
    ds->out->complete = GF_COMPLETE_NO;
    snprintf(ds->out->why, sizeof(ds->out->why), "%.200s", err->text);
    r = gf_found_warn(ds->out, "%s; served from the model file, without masters",
                      err->text);
    return r ? gf_nomem(err) : 0;
}

int gf_ds_masters_load(struct gf_ds *ds, struct gf_err *err)
{
    struct gf_err local = { 0 };
    int r = ds->dir->universal ? 0 : load_all(ds, &local);

    if (r)
        r = without(ds, r, &local);
    if (!r)
        r = list_params(ds, &local);
    if (!r && !ds->live_only) {
        r = place_all(ds, &local);
        if (r)
            r = without(ds, r, &local);
    }
    if (r && err)
        *err = local;
    return r;
}
