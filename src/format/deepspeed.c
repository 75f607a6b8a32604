/* SPDX-License-Identifier: Apache-2.0 */
#include "format/deepspeed.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "format/deepspeed_load.h"
#include "format/deepspeed_read.h"
#include "format/deepspeed_tag.h"

static void ds_done(struct gf_ds *ds)
{
    for (size_t i = 0; i < ds->nstages; i++) {
        gf_ds_files_done(&ds->stages[i].models);
        gf_ds_files_done(&ds->stages[i].optims);
    }
    gf_ds_files_done(&ds->parts);
    gf_ds_files_done(&ds->whole);
    gf_strmap_done(&ds->names);
    gf_ds_dir_free(ds->dir);
    gf_arena_done(&ds->arena);
}

/* The first model file of each stage. What it says decides how to go on. */
static int load_models(struct gf_ds *ds, struct gf_err *err)
{
    struct gf_ds_set model = gf_ds_dir_kind(ds->dir, GF_DS_MODEL);
    struct gf_ds_set model3 = gf_ds_dir_kind(ds->dir, GF_DS_MODEL3);
    size_t n = model3.n ? 1 : model.n;

    ds->pipeline = gf_ds_dir_kind(ds->dir, GF_DS_LAYER).n > 0;
    ds->stages = gf_arena_alloc(&ds->arena, n * sizeof(*ds->stages));
    if (!ds->stages)
        return gf_nomem(err);
    for (ds->nstages = 0; ds->nstages < n;) {
        struct gf_ds_stage *stage = &ds->stages[ds->nstages];
        struct gf_ds_set set = { model.at + ds->nstages, 1 };
        int r;

        stage->mp = (uint32_t)ds->nstages;
        stage->split = model3.n > 0;
        r = gf_ds_files_of(model3.n ? model3 : set, GF_DS_WANT_MODEL, &stage->models, err);
        ds->nstages++;
        if (r)
            return r;
        stage->models.at[0].split = stage->split;
        r = gf_ds_load(ds->in, (struct gf_ds_files){ stage->models.at, 1 }, 0, NULL, err);
        if (!r)
            r = gf_ds_refuse_model(ds, &stage->models.at[0], err);
        if (r)
            return r;
    }
    return 0;
}

static int check_stages(const struct gf_ds *ds, struct gf_err *err)
{
    struct gf_ds_set set = gf_ds_dir_kind(ds->dir, GF_DS_MODEL);
    uint64_t wanted = GF_MAX(ds->stages[0].models.at[0].model.mp_world, (uint64_t)set.n);

    for (size_t i = 0; ds->pipeline && i < wanted; i++)
        if (i >= set.n || set.at[i].is.mp != i)
            return gf_fail(err, GF_EINCOMPLETE,
                           "missing '%smp_rank_%02zu_model_states.pt': %zu of %" PRIu64
                           " pipeline stages are there",
                           ds->dir->prefix, i, set.n, wanted);
    return 0;
}

/* The other ranks' model files of ZeRO-3: their parts of frozen parameters, if there are
 * any; they must be there and whole in any case. */
static int load_rank_models(struct gf_ds *ds, struct gf_err *err)
{
    struct gf_ds_stage *stage = &ds->stages[0];
    const struct gf_ds_model *rank0 = &stage->models.at[0].model;
    int r;

    if (!stage->split)
        return 0;
    r = gf_ds_check_ranks(gf_ds_dir_kind(ds->dir, GF_DS_MODEL3), (uint32_t)stage->optims.n,
                          ds->in->limits, err);
    if (r)
        return r;
    for (size_t i = 1; i < stage->models.n; i++)
        stage->models.at[i].want = GF_DS_WANT_RANK;
    return gf_ds_load(ds->in, stage->models, 1, rank0, err);
}

static int check_steps(const struct gf_ds *ds, struct gf_err *err)
{
    const struct gf_ds_file *first = &ds->stages[0].models.at[0];

    for (size_t s = 0; s < ds->nstages; s++)
        for (size_t i = 0; i < ds->stages[s].models.n; i++) {
            const struct gf_ds_file *file = &ds->stages[s].models.at[i];

            if (file->model.has_step && first->model.has_step &&
                file->model.step != first->model.step)
                return gf_fail(
                    err, GF_EBAD, "'%s' is of step %" PRIu64 ", '%s' of step %" PRIu64,
                    file->path, file->model.step, first->path, first->model.step);
        }
    return 0;
}

static void stage_text(const struct gf_ds *ds, struct gf_text *text)
{
    const struct gf_ds_stage *stage = &ds->stages[0];
    const struct gf_ds_optim *optim = stage->optims.n ? &stage->optims.at[0].optim : NULL;

    if (ds->dir->universal) /* its model files do not tell ZeRO-1 from ZeRO-2 */
        gf_text_printf(text, "universal%s", stage->split ? " from ZeRO stage 3" : "");
    else if (stage->split || (optim && optim->has_stage))
        gf_text_printf(text, "ZeRO stage %" PRIu64, stage->split ? 3 : optim->stage);
    else if (ds->live_only)
        gf_text_add(text, "ZeRO stage 1 or 2");
    else
        gf_text_add(text, optim ? "ZeRO stage 1 (BF16_Optimizer)" : "ZeRO stage 0");
}

/* The dtype of the first floating-point parameter of the live model. */
static const char *live_text(const struct gf_catalog *catalog)
{
    for (uint32_t i = 0; i < gf_catalog_len(catalog); i++) {
        const struct gf_tensor *tensor = gf_catalog_at(catalog, i);

        if (tensor->buffer || !gf_dtype_info(tensor->live)->wide_float)
            continue;
        return tensor->live == GF_BF16  ? "bf16"
               : tensor->live == GF_F16 ? "fp16"
               : tensor->live == GF_F32 ? "fp32"
                                        : gf_dtype_info(tensor->live)->torch;
    }
    return "no floats";
}

static void describe(const struct gf_ds *ds)
{
    const struct gf_ds_stage *stage = &ds->stages[0];
    size_t ranks = stage->split ? stage->models.n : stage->optims.n;
    struct gf_text text = { 0 };

    if (ds->pipeline)
        gf_text_printf(&text, "pipeline of %zu stages, ", ds->nstages);
    stage_text(ds, &text);
    if (ranks && !ds->live_only)
        gf_text_printf(&text, ", %zu rank%s", ranks, ranks == 1 ? "" : "s");
    if (ds->moe)
        gf_text_printf(&text, ", %zu expert files", ds->parts.n);
    gf_text_printf(&text, ", %s", live_text(ds->out->catalog));
    snprintf(ds->out->detail, sizeof(ds->out->detail), "%s", text.s ? text.s : "");
    gf_text_done(&text);
}

/* Nothing was missing, or this is not reached: says what that is concluded from. */
static void judge(const struct gf_ds *ds)
{
    struct gf_found *out = ds->out;
    size_t ranks = 0;
    char parts[64] = "";

    if (out->why[0]) /* decided where it was seen */
        return;
    for (size_t s = 0; s < ds->nstages; s++)
        ranks += ds->stages[s].optims.n;
    if (ds->parts.n)
        snprintf(parts, sizeof(parts), " and %zu %s files", ds->parts.n,
                 ds->pipeline ? "layer" : "expert");
    out->complete = GF_COMPLETE_YES;
    if (ds->pipeline && ds->nparams == 0) {
        out->complete = GF_COMPLETE_UNKNOWN;
        snprintf(out->why, sizeof(out->why),
                 "%zu layer files are there, no file says how many there should be",
                 ds->parts.n);
    } else if (ds->dir->universal) {
        snprintf(out->why, sizeof(out->why), "all %zu parameters present in 'zero/'",
                 ds->nparams);
    } else if (ranks > 1) {
        snprintf(out->why, sizeof(out->why), "all %zu rank files%s present", ranks, parts);
    } else {
        snprintf(out->why, sizeof(out->why), "the %s file%s %s present",
                 ranks ? "one rank" : "model", parts, *parts ? "are" : "is");
    }
}

static void newest(struct gf_found *out, const struct gf_ds_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        out->mtime_ns = GF_MAX(out->mtime_ns, files->at[i].mtime_ns);
}

/* "global_step40" -> 40. */
static bool step_of_tag(const char *tag, uint64_t *ret)
{
    const char *p = tag + strlen(tag);

    while (p > tag && isdigit((unsigned char)p[-1]))
        p--;
    if (!*p || strlen(p) > 18)
        return false;
    *ret = strtoull(p, NULL, 10);
    return true;
}

static void finish(const struct gf_ds *ds, const char *tag)
{
    const struct gf_ds_model *model = &ds->stages[0].models.at[0].model;
    struct gf_found *out = ds->out;

    out->format = gf_deepspeed_format.name;
    snprintf(out->tag, sizeof(out->tag), "%s", tag);
    snprintf(out->base, sizeof(out->base), "%s", tag);
    out->parent_side = !*tag;
    out->has_step = model->has_step || step_of_tag(tag, &out->step);
    if (model->has_step)
        out->step = model->step;
    for (size_t s = 0; s < ds->nstages; s++) {
        newest(out, &ds->stages[s].models);
        if (!ds->live_only)
            newest(out, &ds->stages[s].optims);
    }
    newest(out, &ds->parts);
    newest(out, &ds->whole);
    describe(ds);
    judge(ds);
}

static int read_tag(struct gf_ds *ds, const char *tag, struct gf_err *err)
{
    int r = gf_ds_dir_read(ds->in->dir, tag, &ds->dir, err);

    if (!r)
        r = gf_ds_refuse_names(ds->dir, err);
    if (!r)
        r = load_models(ds, err);
    if (!r)
        r = check_stages(ds, err);
    if (!r)
        r = gf_ds_parts_load(ds, err);
    if (!r)
        r = gf_ds_masters_load(ds, err);
    if (!r)
        r = load_rank_models(ds, err);
    if (!r)
        r = check_steps(ds, err);
    if (!r)
        r = gf_ds_fill(ds, err);
    if (!r)
        finish(ds, tag);
    return r;
}

static int ds_read(const struct gf_format_in *in, struct gf_found *out, struct gf_err *err)
{
    struct gf_ds ds = { .in = in, .out = out };
    char tag[sizeof(out->tag)];
    int r = gf_ds_tag_find(in, tag, err);

    if (!r)
        r = read_tag(&ds, tag, err);
    ds_done(&ds);
    return r;
}

const struct gf_format gf_deepspeed_format = {
    .name = "deepspeed",
    .layer = GF_LAYER_SHARDS,
    .probe = gf_ds_tag_probe,
    .read = ds_read,
    .tags = gf_ds_tag_list,
};
