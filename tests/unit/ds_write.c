/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "tests/unit/ds_write.h"
#include "tests/unit/torch_write.h"

float dw_master(size_t i, uint64_t e)
{
    return (float)((i + 1) * 10000 + e);
}

uint16_t dw_live(size_t i, uint64_t e)
{
    return (uint16_t)((i + 1) * 1000 + e);
}

uint64_t dw_numel(const struct dw_param *param)
{
    uint64_t n = 1;

    for (size_t d = 0; d < param->rank; d++)
        n *= param->dims[d];
    return n;
}

/* `archive`: as in dw_run. */
static void add_file(struct gf_dir *dir, const char *path, const char *archive,
                     struct tw *w)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char own[200];
    size_t len;
    void *bytes;

    snprintf(own, sizeof(own), "%.*s", (int)(strrchr(name, '.') - name), name);
    bytes = tw_finish(w, archive ? archive : own, &len);
    if (gf_dir_mem_add(dir, path, bytes, len, NULL))
        abort();
    free(bytes);
}

void dw_text(struct gf_dir *dir, const char *path, const char *text)
{
    if (gf_dir_mem_add(dir, path, text, strlen(text), NULL))
        abort();
}

static bool trained(const struct dw_param *param)
{
    return param->role == DW_TRAINED || param->role == DW_HIDDEN;
}

/* All live elements in one storage, as ZeRO keeps them; ret_at: where each starts. */
static size_t live_storage(struct tw *w, const struct dw_param *params, size_t n,
                           uint64_t *ret_at)
{
    uint16_t *all = calloc(1 << 16, sizeof(*all));
    uint64_t at = 3; /* storages need not start with the first tensor */
    size_t key;

    for (size_t i = 0; i < n; i++) {
        ret_at[i] = at;
        for (uint64_t e = 0; e < dw_numel(&params[i]); e++)
            all[at++] = dw_live(i, e);
    }
    key = tw_storage(w, GF_BF16, all, (at + 64) * sizeof(*all));
    free(all);
    return key;
}

static void write_module(struct tw *w, const struct dw_run *run)
{
    const struct dw_param *params = run->module ? run->module : run->params;
    uint64_t at[64];
    size_t key = live_storage(w, params, run->n, at);
    size_t empty = tw_storage(w, GF_BF16, NULL, 0);

    tw_dict(w);
    for (size_t i = 0; i < run->n; i++) {
        const struct dw_param *p = &params[i];
        size_t of = p->role == DW_TIED ? p->tied_to : i;

        if (p->role == DW_HIDDEN)
            continue;
        tw_str(w, p->name);
        if (run->odd && strcmp(run->odd, p->name) == 0)
            tw_none(w);
        else if ((run->stage == 3 && p->role != DW_BUFFER) || p->role == DW_EXCLUDED)
            tw_tensor(w, empty, 0, (uint64_t[]){ 0 }, 1);
        else
            tw_tensor(w, key, at[of], params[of].dims, params[of].rank);
    }
    if (run->extra_state) {
        tw_str(w, "block._extra_state");
        tw_none(w);
    }
    tw_end(w);
}

static void write_shapes(struct tw *w, const struct dw_run *run)
{
    tw_list(w);
    for (size_t g = 0; g < run->groups; g++) {
        if (g == 0 || !run->one_list)
            tw_dict(w);
        for (size_t i = 0; i < run->n; i++)
            if (trained(&run->params[i]) && run->params[i].group == g) {
                tw_str(w, run->params[i].name);
                tw_size(w, run->params[i].dims, run->params[i].rank);
            }
        if (g + 1 == run->groups || !run->one_list)
            tw_end(w);
    }
    tw_end(w);
}

static void write_frozen(struct tw *w, const struct dw_run *run, uint32_t rank)
{
    uint64_t at[64];
    size_t key = live_storage(w, run->params, run->n, at);
    size_t tail =
        tw_storage(w, run->other_dtype ? GF_I8 : GF_BF16, (uint16_t[64]){ 0 }, 128);

    tw_str(w, "frozen_param_shapes");
    if (run->none_frozen)
        tw_none(w);
    else
        tw_dict(w);
    for (size_t i = 0; i < run->n && !run->none_frozen; i++)
        if (run->params[i].role == DW_FROZEN) {
            tw_str(w, run->params[i].name);
            tw_size(w, run->params[i].dims, run->params[i].rank);
        }
    if (!run->none_frozen)
        tw_end(w);
    tw_str(w, "frozen_param_fragments");
    if (run->none_frozen) {
        tw_none(w);
        return;
    }
    tw_dict(w);
    for (size_t i = 0; i < run->n; i++) {
        uint64_t n = dw_numel(&run->params[i]), p = (n + run->world - 1) / run->world;

        if (run->params[i].role != DW_FROZEN)
            continue;
        tw_str(w, run->params[i].name);
        if (run->stage != 3)
            tw_tensor(w, key, at[i], run->params[i].dims, run->params[i].rank);
        else if (rank * p < n && !run->other_dtype) /* the last one ends in garbage */
            tw_tensor(w, key, at[i] + rank * p, &p, 1);
        else
            tw_tensor(w, tail, 0, &p, 1);
    }
    tw_end(w);
}

static void write_config(struct tw *w, const struct dw_run *run)
{
    tw_str(w, "ds_config");
    tw_dict(w);
    tw_str(w, "bf16");
    tw_dict(w);
    tw_str(w, "enabled");
    tw_bool(w, true);
    tw_end(w);
    tw_str(w, "zero_optimization");
    tw_dict(w);
    tw_str(w, "zero_quantized_nontrainable_weights");
    tw_bool(w, run->quantized);
    tw_str(w, "round_robin_gradients");
    tw_bool(w, run->round_robin);
    tw_end(w);
    tw_end(w);
}

static void write_numbers(struct tw *w, const struct dw_run *run, uint32_t rank)
{
    if (run->step) {
        tw_str(w, "global_steps");
        tw_int(w, (int64_t)run->step - (run->stale_model >> rank & 1));
    }
    if (run->mp_world) {
        tw_str(w, "mp_world_size");
        tw_int(w, run->mp_world);
    }
    if (run->tp_degree) {
        tw_str(w, "checkpoint_parallel_dimensions");
        tw_dict(w);
        tw_str(w, "tp_degree");
        tw_int(w, run->tp_degree);
        tw_end(w);
    }
    if (run->experts) {
        tw_str(w, "num_experts");
        tw_list(w);
        for (const int64_t *e = run->experts; *e >= 0; e++)
            tw_int(w, *e);
        tw_end(w);
    }
    if (run->autoep) {
        tw_str(w, "ds_autoep_layers");
        tw_list(w);
        tw_dict(w);
        tw_end(w);
        tw_end(w);
    }
}

static void write_model(struct tw *w, const struct dw_run *run, uint32_t rank)
{
    tw_start(w);
    tw_dict(w);
    tw_str(w, "module");
    if (run->no_module)
        tw_none(w);
    else
        write_module(w, run);
    tw_str(w, "buffer_names");
    tw_list(w);
    for (size_t i = 0; i < run->n; i++)
        if (run->params[i].role == DW_BUFFER)
            tw_str(w, run->params[i].name);
    tw_end(w);
    if (!run->old_shapes) {
        tw_str(w, "param_shapes");
        if (run->stage == 0)
            tw_none(w);
        else
            write_shapes(w, run);
    }
    if (!run->no_frozen_keys)
        write_frozen(w, run, rank);
    if (!run->no_shared) {
        tw_str(w, "shared_params");
        tw_dict(w);
        for (size_t i = 0; i < run->n && rank == 0; i++)
            if (run->params[i].role == DW_TIED) {
                tw_str(w, run->params[i].name);
                tw_str(w, run->params[run->params[i].tied_to].name);
            }
        tw_end(w);
    }
    write_numbers(w, run, rank);
    write_config(w, run);
    tw_end(w);
}

/* One group as ZeRO-1 and -2 lay it out, before it is cut: *ret_off has where each
 * parameter starts, and the padded length is returned. */
static uint64_t lay_group(const struct dw_run *run, size_t g, float *out, uint64_t *ret_off,
                          uint64_t *ret_used)
{
    uint64_t off = 0, align = 2 * (uint64_t)run->world;

    for (size_t i = 0; i < run->n; i++) {
        if (!trained(&run->params[i]) || run->params[i].group != g)
            continue;
        if (run->gaps)
            off = gf_align(off, 8);
        ret_off[i] = off;
        for (uint64_t e = 0; e < dw_numel(&run->params[i]); e++)
            out[off++] = dw_master(i, e);
    }
    *ret_used = off;
    return (off + align - 1) / align * align;
}

static void write_flat(struct tw *w, const struct dw_run *run, uint32_t rank, size_t g,
                       const float *at, uint64_t n)
{
    if (rank < run->lying && g == 0)
        n = (uint64_t)((int64_t)n + run->numel_lie);
    tw_tensor(w, tw_storage(w, GF_F32, at, (n + 1) * sizeof(*at)), 0, &n, 1);
}

/* ZeRO-3: this rank's part of each parameter, with garbage behind the last. */
static void write_split(struct tw *w, const struct dw_run *run, uint32_t rank)
{
    tw_str(w, "fp32_flat_groups");
    tw_list(w);
    for (size_t g = 0; g < run->groups; g++) {
        float *out = calloc(1 << 16, sizeof(*out));
        uint64_t n = 0;

        for (size_t i = 0; i < run->n; i++) {
            uint64_t all = dw_numel(&run->params[i]),
                     p = (all + run->world - 1) / run->world;

            if (!trained(&run->params[i]) || run->params[i].group != g)
                continue;
            for (uint64_t e = rank * p; e < rank * p + p; e++)
                out[n++] = e < all ? dw_master(i, e) : -1;
        }
        write_flat(w, run, rank, g, out, n);
        free(out);
    }
    tw_end(w);
}

static void write_cut(struct tw *w, const struct dw_run *run, uint32_t rank)
{
    tw_str(w, "single_partition_of_fp32_groups");
    tw_list(w);
    for (size_t g = 0; g < run->groups; g++) {
        float *out = calloc(1 << 16, sizeof(*out));
        uint64_t off[64], used, padded = lay_group(run, g, out, off, &used);
        uint64_t part = padded / run->world, first = GF_MIN(rank * part, used);

        write_flat(w, run, rank, g, out + first,
                   run->bf16_optimizer ? part : GF_MIN(part, used - first));
        free(out);
    }
    tw_end(w);
}

static void write_slices(struct tw *w, const struct dw_run *run, uint32_t rank)
{
    tw_str(w, "param_slice_mappings");
    tw_list(w);
    for (size_t g = 0; g < run->groups; g++) {
        float *out = calloc(1 << 16, sizeof(*out));
        uint64_t off[64], used, part = lay_group(run, g, out, off, &used) / run->world;

        free(out);
        tw_dict(w);
        for (size_t i = 0; i < run->n; i++) {
            uint64_t lo, hi;

            if (!trained(&run->params[i]) || run->params[i].group != g)
                continue;
            lo = GF_MAX(off[i], rank * part);
            hi = GF_MIN(off[i] + dw_numel(&run->params[i]), rank * part + part);
            if (lo >= hi)
                continue;
            tw_str(w, run->params[i].name);
            tw_address(w, hi - lo, lo - rank * part + (run->claims == DW_CLAIMS_WRONG));
        }
        tw_end(w);
    }
    tw_end(w);
}

static void write_gaps(struct tw *w, const struct dw_run *run)
{
    tw_str(w, "param_alignment_paddings");
    tw_list(w);
    for (size_t g = 0; g < run->groups; g++) {
        size_t last = run->n;

        tw_list(w);
        for (size_t i = 0; i < run->n; i++)
            if (trained(&run->params[i]) && run->params[i].group == g)
                last = i;
        for (size_t i = 0; i < run->n; i++)
            if (trained(&run->params[i]) && run->params[i].group == g)
                tw_int(w, i == last ? 0
                                    : (int64_t)(gf_align(dw_numel(&run->params[i]), 8) -
                                                dw_numel(&run->params[i])));
        tw_end(w);
    }
    tw_end(w);
}

/* The optimizer within: torch counts in tensors, others in plain numbers. */
static void write_updates(struct tw *w, const struct dw_run *run, uint32_t rank)
{
    float count = (float)(run->updates - (run->stale_optim >> rank & 1));

    tw_str(w, run->stage == 3 ? "optimizer_state_dict" : "base_optimizer_state");
    if (run->elastic) {
        tw_list(w);
    } else {
        tw_dict(w);
        tw_str(w, "state");
        tw_dict(w);
        tw_int(w, 0);
    }
    tw_dict(w);
    tw_str(w, "step");
    if (run->stage == 1)
        tw_int(w, (int64_t)count);
    else
        tw_tensor(w, tw_storage(w, GF_F32, &count, sizeof(count)), 0, NULL, 0);
    tw_end(w);
    if (!run->elastic)
        tw_end(w);
    tw_end(w);
}

static void write_optim(struct tw *w, const struct dw_run *run, uint32_t rank)
{
    uint32_t count = run->partition_count ? run->partition_count : run->world;

    tw_start(w);
    tw_dict(w);
    tw_str(w, "optimizer_state_dict");
    tw_dict(w);
    if (!run->bf16_optimizer) {
        tw_str(w, "zero_stage");
        tw_call(w, "deepspeed.runtime.zero.config", "ZeroStageEnum",
                (int64_t[]){ run->stage }, 1);
    }
    tw_str(w, "partition_count");
    if (run->stage == 3) {
        tw_int(w, count);
        write_split(w, run, rank);
    } else {
        tw_list(w);
        for (size_t g = 0; g < run->groups; g++)
            tw_int(w, count);
        tw_end(w);
        write_cut(w, run, rank);
        if (run->gaps)
            write_gaps(w, run);
        if (run->claims)
            write_slices(w, run, rank);
    }
    if (run->updates)
        write_updates(w, run, rank);
    tw_end(w);
    write_config(w, run);
    if (run->old_shapes) {
        tw_str(w, "param_shapes");
        write_shapes(w, run);
    }
    tw_end(w);
}

void dw_save(struct gf_dir *dir, const char *tag, const struct dw_run *run)
{
    const char *slash = *tag ? "/" : "";
    const char *prefix = run->optim_prefix ? run->optim_prefix : "bf16_";
    char path[256];
    struct tw w;

    for (uint32_t r = 0; r < (run->stage == 3 ? run->world : 1); r++) {
        snprintf(path, sizeof(path), "%s%smp_rank_%02d_model_states.pt", tag, slash,
                 run->mp);
        if (run->stage == 3)
            snprintf(path, sizeof(path), "%s%szero_pp_rank_%u_mp_rank_%02d_model_states.pt",
                     tag, slash, r, run->mp);
        if (run->skip_model >> r & 1)
            continue;
        write_model(&w, run, r);
        add_file(dir, path, run->archive, &w);
    }
    for (uint32_t r = 0; run->stage && r < run->world + run->extra_optim; r++) {
        snprintf(path, sizeof(path), "%s%s%szero_pp_rank_%u_mp_rank_%02d_optim_states.pt",
                 tag, slash, prefix, r, run->mp);
        if (run->skip_optim >> r & 1)
            continue;
        write_optim(&w, run, r);
        add_file(dir, path, run->archive, &w);
    }
}

void dw_state(struct gf_dir *dir, const char *path, const struct dw_param *params, size_t n)
{
    uint64_t at[64];
    size_t key;
    struct tw w;

    tw_start(&w);
    key = live_storage(&w, params, n, at);
    tw_dict(&w);
    for (size_t i = 0; i < n; i++) {
        tw_str(&w, params[i].name);
        tw_tensor(&w, key, at[i], params[i].dims, params[i].rank);
    }
    tw_end(&w);
    add_file(dir, path, NULL, &w);
}

void dw_universal(struct gf_dir *dir, const char *path, const struct dw_param *param,
                  size_t i)
{
    uint64_t n = dw_numel(param);
    float *all = calloc(n + 1, sizeof(*all));
    struct tw w;

    for (uint64_t e = 0; e < n; e++)
        all[e] = dw_master(i, e);
    tw_start(&w);
    tw_dict(&w);
    tw_str(&w, "param");
    tw_tensor(&w, tw_storage(&w, GF_F32, all, n * sizeof(*all)), 0, param->dims,
              param->rank);
    tw_str(&w, "cat_dim");
    tw_int(&w, 0);
    tw_end(&w);
    add_file(dir, path, NULL, &w);
    free(all);
}
