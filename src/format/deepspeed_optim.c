/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_optim.c - *_optim_states.pt: one dict, `optimizer_state_dict` in it.
 *
 *     zero_stage                         ZeroStageEnum(n), before 0.7.0 an int;
 *                                        BF16_Optimizer: -
 *     partition_count                    ZeRO 1, 2: [int] per group; ZeRO-3: int
 *     single_partition_of_fp32_groups    ZeRO 1, 2: [flat tensor] per group
 *     fp32_flat_groups                   ZeRO-3: [flat tensor] per sub-group
 *     param_alignment_paddings           [[int]] per group and parameter (0.19.6)
 *     param_slice_mappings               [name -> fragment_address(numel, start)] of this
 *                                        rank
 *     base_optimizer_state               ZeRO 1, 2: the optimizer within, as torch has it,
 *                                        or (elastic) only its list of states
 *     optimizer_state_dict               ZeRO-3: the same
 *
 * The masters' dtype is whatever the tensors say. Of the optimizer within only the number of
 * its steps is looked at, never the moments.
 */
#include <inttypes.h>

#include "format/deepspeed_value.h"

static void read_stage(const struct gf_pv *value, struct gf_ds_optim *ret)
{
    if (gf_pv_is_call(value, NULL, "ZeroStageEnum"))
        value = gf_pv_item(gf_pv_args(value), 0);
    ret->has_stage = gf_ds_u64(value, &ret->stage);
}

static int read_flats(struct gf_ds_reader *r, const struct gf_pv *list, const char *what,
                      struct gf_ds_optim *ret)
{
    int e;

    if (!gf_pv_is_list(list))
        return gf_ds_not(r, what, "list");
    ret->n = gf_pv_len(list);
    e = gf_ds_room(r, ret->n, sizeof(*ret->at), &ret->at);
    for (size_t i = 0; i < ret->n && !e; i++) {
        e = gf_ds_read_flat(r, gf_pv_item(list, i), what, &ret->at[i].flat);
        if (!e && !gf_dtype_info(ret->at[i].flat.dtype)->wide_float)
            return gf_fail(r->err, GF_EBAD, "'%s': %s: group %zu holds %s, no masters",
                           r->file->path, what, i,
                           gf_dtype_info(ret->at[i].flat.dtype)->safetensors);
    }
    return e;
}

static int read_parts(struct gf_ds_reader *r, const struct gf_pv *value,
                      struct gf_ds_optim *ret)
{
    bool list = gf_pv_is_list(value);

    if (gf_pv_is_none(value))
        return 0;
    if (list && gf_pv_len(value) != ret->n)
        return gf_fail(r->err, GF_EBAD,
                       "'%s': 'partition_count' has %zu entries, there are %zu groups",
                       r->file->path, gf_pv_len(value), ret->n);
    for (size_t i = 0; i < ret->n; i++) {
        int64_t count;

        if (!gf_pv_int(list ? gf_pv_item(value, i) : value, &count))
            return gf_ds_not(r, "'partition_count'", "number");
        if (count < 1 || (uint64_t)count > r->limits->ranks)
            return gf_fail(r->err, GF_EBAD,
                           "'%s': 'partition_count' is %" PRIi64
                           ", 1 to %zu ranks are allowed",
                           r->file->path, count, r->limits->ranks);
        ret->at[i].parts = (uint64_t)count;
    }
    return 0;
}

static int read_gaps(struct gf_ds_reader *r, const struct gf_pv *list,
                     struct gf_ds_optim *ret)
{
    static const char what[] = "'param_alignment_paddings'";

    if (gf_pv_is_none(list))
        return 0;
    if (!gf_pv_is_list(list) || gf_pv_len(list) != ret->n)
        return gf_ds_not(r, what, "list with an entry per group");
    for (size_t i = 0; i < ret->n; i++) {
        const struct gf_pv *group = gf_pv_item(list, i);
        size_t n = gf_pv_len(group);
        uint64_t *gaps;
        int e = gf_ds_room(r, n, sizeof(*gaps), &gaps);

        if (e)
            return e;
        for (size_t k = 0; k < n; k++)
            if (!gf_ds_u64(gf_pv_item(group, k), &gaps[k]))
                return gf_ds_not(r, what, "list of numbers");
        ret->at[i].gaps = gaps;
        ret->at[i].ngaps = n;
    }
    return 0;
}

/* fragment_address is a class with two fields: pickled with a state, or as a tuple. */
static bool read_address(const struct gf_pv *value, struct gf_ds_claim *ret)
{
    const struct gf_pv *state = gf_pv_state(value), *args = gf_pv_args(value);

    if (gf_pv_is_dict(state))
        return gf_ds_u64(gf_pv_get(state, "numel"), &ret->count) &&
               gf_ds_u64(gf_pv_get(state, "start"), &ret->start);
    return gf_ds_u64(gf_pv_item(args, 0), &ret->count) &&
           gf_ds_u64(gf_pv_item(args, 1), &ret->start);
}

/* Only a check of our own arithmetic: what does not look as known is left out. */
static int read_claims(struct gf_ds_reader *r, const struct gf_pv *list,
                       struct gf_ds_optim *ret)
{
    for (size_t i = 0; i < ret->n && i < gf_pv_len(list); i++) {
        const struct gf_pv *group = gf_pv_item(list, i);
        struct gf_ds_optim_group *to = &ret->at[i];
        int e = gf_ds_room(r, gf_pv_pairs(group), sizeof(*to->claims), &to->claims);

        for (size_t k = 0; k < gf_pv_pairs(group) && !e; k++) {
            struct gf_ds_claim *claim = &to->claims[to->nclaims];

            if (!read_address(gf_pv_value(group, k), claim) ||
                !gf_pv_str(gf_pv_key(group, k)))
                continue;
            e = gf_ds_copy_name(r, gf_pv_key(group, k), "'param_slice_mappings'",
                                &claim->name);
            to->nclaims++;
        }
        if (e)
            return e;
    }
    return 0;
}

/* A number: optimizers keep it as an int, or as a tensor with one element. */
static int read_count(struct gf_ds_reader *r, const struct gf_pv *value, bool *ret_is,
                      uint64_t *ret)
{
    struct gf_torch_view view;
    enum gf_torch_is is = GF_TORCH_OTHER;
    const char *why;
    uint64_t at;
    float number;
    int e;

    *ret_is = gf_ds_u64(value, ret);
    if (*ret_is)
        return 0;
    /* What is broken here is not served: then the number is not known. */
    e = gf_torch_tensor(gf_torch_pickle(r->torch), value, r->file->path, "step", &is, &view,
                        &why, NULL);
    if (e || is != GF_TORCH_TENSOR || view.numel != 1 || view.dtype != GF_F32)
        return e == -ENOMEM ? gf_nomem(r->err) : 0;
    if (gf_torch_locate(r->torch, &view, &at, NULL) ||
        gf_source_read(r->file->source, &number, sizeof(number), at))
        return 0;
    *ret_is = number >= 0 && number < (float)INT64_MAX;
    if (*ret_is)
        *ret = (uint64_t)number;
    return 0;
}

/* How often the optimizer within has stepped: the same on all ranks. */
static int read_updates(struct gf_ds_reader *r, const struct gf_pv *state,
                        struct gf_ds_optim *ret)
{
    const struct gf_pv *within =
        gf_pv_get(state, ret->split ? "optimizer_state_dict" : "base_optimizer_state");
    const struct gf_pv *first = gf_pv_is_list(within)
                                    ? gf_pv_item(within, 0)
                                    : gf_pv_value(gf_pv_get(within, "state"), 0);
    const struct gf_pv *step = gf_pv_get(first, "step");

    return step ? read_count(r, step, &ret->has_updates, &ret->updates) : 0;
}

static bool round_robin(const struct gf_pv *root)
{
    const struct gf_pv *zero = gf_pv_get(gf_pv_get(root, "ds_config"), "zero_optimization");
    bool on = false;

    gf_pv_bool(gf_pv_get(zero, "round_robin_gradients"), &on);
    return on;
}

int gf_ds_read_optim(struct gf_ds_reader *r, struct gf_ds_optim *ret)
{
    const struct gf_pv *root = gf_torch_root(r->torch);
    const struct gf_pv *state = gf_pv_get(root, "optimizer_state_dict");
    const struct gf_pv *split = gf_pv_get(state, "fp32_flat_groups");
    const struct gf_pv *whole = gf_pv_get(state, "single_partition_of_fp32_groups");
    const struct gf_pv *shapes = gf_pv_get(root, "param_shapes");
    int e;

    if (!split && !whole)
        return gf_fail(r->err, GF_EBAD,
                       "'%s': no ZeRO optimizer file: neither 'fp32_flat_groups' nor "
                       "'single_partition_of_fp32_groups' in it",
                       r->file->path);
    ret->split = split != NULL;
    read_stage(gf_pv_get(state, "zero_stage"), ret);
    e = read_flats(r, split ? split : whole,
                   split ? "'fp32_flat_groups'" : "'single_partition_of_fp32_groups'", ret);
    if (!e)
        e = read_parts(r, gf_pv_get(state, "partition_count"), ret);
    if (!e && !split)
        e = read_gaps(r, gf_pv_get(state, "param_alignment_paddings"), ret);
    /* With round-robin gradients DeepSpeed computes the slices in the order before the
     * parameters were dealt out: they are wrong, and not what it wrote (seen in 0.19.8). */
    if (!e && !split && !round_robin(root))
        e = read_claims(r, gf_pv_get(state, "param_slice_mappings"), ret);
    if (!e)
        e = read_updates(r, state, ret);
    if (!e && !gf_pv_is_none(shapes))
        e = gf_ds_read_groups(r, shapes, "'param_shapes'", &ret->shapes);
    return e;
}
