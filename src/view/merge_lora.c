/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge_lora.c - LoRA's tensors of one module -> the merge of its weight and bias.
 *
 * Shapes decide what they can: whether a weight is stored as [in, out] (Conv1D), which
 * parameter of a module a wrapper is about, how many experts it has. Where a matrix is
 * square, adapter_config.json and the model's type do.
 *
 * Source: peft 0.21 tuners/lora/layer.py (Linear, Embedding, ParamWrapper), dora.py.
 */
#include <inttypes.h>
#include <string.h>

#include "view/merge_int.h"

#define MAX_NESTED 16

/* Two factors [k, in] and [out, k], k a multiple of the config's rank. */
struct factors {
    uint32_t a, b;
    uint64_t in, out, k;
    struct gf_peft_rank rank;
};

static int read_factors(struct gf_attaching *a, const struct gf_peft_slot *slot,
                        enum gf_peft_part x, enum gf_peft_part y, const char *path,
                        struct factors *ret, struct gf_err *err)
{
    struct gf_shape sa, sb;
    char text[GF_SHAPE_TEXT];

    if (gf_slot_need(a, slot, x, "partner A", err) ||
        gf_slot_need(a, slot, y, "partner B", err))
        return -GF_EBAD;
    sa = gf_slot_shape(a, slot, x);
    sb = gf_slot_shape(a, slot, y);
    if (sa.rank > 2)
        return gf_fail(err, ENOENT,
                       "tensor '%s' has shape %s: adapters of convolutions are not merged",
                       gf_attach_tensor(a, slot->parts[x])->name, gf_shape_text(sa, text));
    if (sa.rank < 2 || sb.rank != 2)
        return gf_fail(err, GF_EBAD,
                       "tensor '%s' has shape %s: a shard that was never gathered",
                       gf_attach_tensor(a, slot->parts[sa.rank < 2 ? x : y])->name,
                       gf_shape_text(sa.rank < 2 ? sa : sb, text));
    if (sa.dims[0] != sb.dims[1] || sa.dims[0] == 0)
        return gf_fail(err, GF_EBAD,
                       "tensor '%s' has shape %s and '%s' %s: shapes that don't multiply",
                       gf_attach_tensor(a, slot->parts[x])->name, gf_shape_text(sa, text),
                       gf_attach_tensor(a, slot->parts[y])->name,
                       gf_shape_text(sb, (char[GF_SHAPE_TEXT]){ 0 }));
    *ret = (struct factors){ .a = slot->parts[x],
                             .b = slot->parts[y],
                             .in = sa.dims[1],
                             .out = sb.dims[0],
                             .k = sa.dims[0],
                             .rank = gf_peft_rank_of(a->state->peft, path) };
    return 0;
}

static int set_magnitude(struct gf_attaching *a, const struct gf_peft_slot *slot,
                         uint64_t out, struct gf_merge *merge, struct gf_err *err)
{
    const struct gf_tensor *m;
    char shape[GF_SHAPE_TEXT];

    if (!a->state->peft->dora && !gf_slot_has(slot, GF_PART_MAGNITUDE))
        return 0;
    if (gf_slot_need(a, slot, GF_PART_MAGNITUDE, "magnitude, lora_magnitude_vector", err))
        return -GF_EBAD;
    m = gf_attach_tensor(a, slot->parts[GF_PART_MAGNITUDE]);
    if (m->numel != out)
        return gf_fail(err, GF_EBAD,
                       "tensor '%s' has shape %s, the weight has %" PRIu64 " outputs",
                       m->name, gf_shape_text(m->shape, shape), out);
    merge->magnitude = slot->parts[GF_PART_MAGNITUDE];
    return 0;
}

static int attach_bias(struct gf_attaching *a, const struct gf_peft_slot *slot, float scale,
                       struct gf_err *err)
{
    struct gf_merge merge = gf_merge_of(GF_MERGE_BIAS);
    struct gf_shape shape;
    struct gf_target bias;
    int r;

    if (!gf_slot_has(slot, GF_PART_LORA_BIAS))
        return 0;
    shape = gf_slot_shape(a, slot, GF_PART_LORA_BIAS);
    r = gf_target_bias(a, slot, shape.rank ? shape.dims[0] : 1, &bias, err);
    if (r)
        return r;
    if (!bias.n)
        return gf_fail(err, GF_EBAD,
                       "tensor '%s': '%s' has no bias in the base model to merge it into",
                       gf_attach_tensor(a, slot->parts[GF_PART_LORA_BIAS])->name,
                       slot->module);
    if (!gf_shape_equal(bias.shape, shape))
        return gf_slot_misfit(a, slot, GF_PART_LORA_BIAS, GF_PART_LORA_BIAS, "bias",
                              bias.shape, err);
    merge.a = slot->parts[GF_PART_LORA_BIAS];
    merge.shape = bias.shape;
    merge.scale = scale;
    return gf_target_add(a, slot, &bias, &merge, err);
}

/* `rounded`: PEFT casts the delta to the weight's dtype before it adds it. */
static int attach_lowrank(struct gf_attaching *a, const struct gf_peft_slot *slot,
                          const struct factors *f, const char *name, bool transposed,
                          bool rounded, struct gf_err *err)
{
    struct gf_merge merge = gf_merge_of(GF_MERGE_LOWRANK);
    uint64_t rows = transposed ? f->in : f->out, columns = transposed ? f->out : f->in;
    struct gf_target w;
    int r = gf_target_need(a, slot, name, gf_attach_shape(a, 2, rows, columns, 0), &w, err);

    if (r)
        return r;
    if (f->k != f->rank.r)
        return gf_slot_wrong_rank(a, f->a, f->k, f->rank.r, err);
    merge.transposed = transposed;
    if (transposed ? !gf_is_matrix(w.shape, rows, columns)
                   : !gf_attach_orient(a, w.shape, f->out, f->in, &merge.transposed))
        return gf_slot_misfit(a, slot, transposed ? GF_PART_EMBEDDING_A : GF_PART_LORA_A,
                              transposed ? GF_PART_EMBEDDING_B : GF_PART_LORA_B, name,
                              w.shape, err);
    merge.rank = f->k;
    merge.a = f->a;
    merge.b = f->b;
    merge.shape = w.shape;
    merge.scale = (float)f->rank.scale;
    r = set_magnitude(a, slot, f->out, &merge, err);
    merge.round_delta = rounded && merge.magnitude == GF_NONE;
    return r ? r : gf_target_add(a, slot, &w, &merge, err);
}

static int attach_linear(struct gf_attaching *a, const struct gf_peft_slot *slot,
                         const char *name, struct gf_err *err)
{
    struct factors f;
    int r = read_factors(a, slot, GF_PART_LORA_A, GF_PART_LORA_B, slot->module, &f, err);

    if (!r)
        r = attach_lowrank(a, slot, &f, name, false, false, err);
    return r ? r : attach_bias(a, slot, (float)f.rank.scale, err);
}

int gf_attach_embedding(struct gf_attaching *a, const struct gf_peft_slot *slot,
                        const char *name, struct gf_err *err)
{
    struct factors f;
    int r = read_factors(a, slot, GF_PART_EMBEDDING_A, GF_PART_EMBEDDING_B, slot->module,
                         &f, err);

    return r ? r : attach_lowrank(a, slot, &f, name, true, true, err);
}

/* ---- LoRA on parameters: experts ---- */

struct param {
    const char *name; /* "model.layers.0.mlp.experts.gate_up_proj" */
    uint64_t place;   /* among the items, or behind all of them */
    bool taken;
};

/* The parameters of a module that target_parameters names, in the module's order as far as
 * the items tell it. */
static int find_params(struct gf_attaching *a, const char *module, struct param *params,
                       size_t *ret_n, struct gf_err *err)
{
    const char *last;
    size_t n = 0, next = 0;

    while (n < MAX_NESTED && (last = gf_peft_parameter(a->state->peft, module, &next))) {
        struct param param = { .place = UINT64_MAX };
        size_t at;

        param.name = gf_arena_printf(&a->state->arena, "%s.%s", module, last);
        if (!param.name)
            return gf_nomem(err);
        for (at = 0; at < n && strcmp(params[at].name, param.name) != 0;)
            at++;
        if (at < n)
            continue;
        gf_strmap_get(&a->state->items->by_name, param.name, &param.place);
        for (at = n++; at > 0 && params[at - 1].place > param.place; at--)
            params[at] = params[at - 1];
        params[at] = param;
    }
    *ret_n = n;
    return 0;
}

/* [E, out, in], or [E, in, out] with *ret_turned; 2-D: [out, in] of one expert. */
static bool fits_experts(const struct gf_attaching *a, struct gf_shape w, uint64_t experts,
                         const struct factors *f, bool *ret_turned)
{
    bool straight, turned;

    *ret_turned = false;
    if (w.rank == 2)
        return experts == 1 && gf_is_matrix(w, f->out, f->in);
    if (w.rank != 3 || w.dims[0] != experts)
        return false;
    straight = w.dims[1] == f->out && w.dims[2] == f->in;
    turned = w.dims[1] == f->in && w.dims[2] == f->out;
    *ret_turned = turned && (!straight || a->experts_in_out);
    return straight || (turned && experts > 1);
}

static int attach_param(struct gf_attaching *a, struct gf_peft_slot *slot,
                        struct param *param, bool *ret_fits, struct gf_err *err)
{
    struct gf_merge merge = gf_merge_of(GF_MERGE_EXPERTS);
    struct factors f;
    struct gf_target w;
    uint64_t experts;
    bool turned;
    int r = read_factors(a, slot, GF_PART_LORA_A, GF_PART_LORA_B, param->name, &f, err);

    if (r)
        return r;
    *ret_fits = false;
    if (f.rank.r == 0 || f.k % f.rank.r)
        return 0;
    experts = f.k / f.rank.r;
    w.n = 0;
    if (experts == 1)
        r = gf_target_find(a, param->name, gf_attach_shape(a, 2, f.out, f.in, 0), &w, err);
    if (!r && !w.n)
        r = gf_target_find(a, param->name, gf_attach_shape(a, 3, experts, f.out, f.in), &w,
                           err);
    if (r)
        return r;
    *ret_fits = w.n && fits_experts(a, w.shape, experts, &f, &turned);
    if (!*ret_fits)
        return 0;
    if (experts == 1) {
        merge = gf_merge_of(GF_MERGE_LOWRANK);
        merge.shape = gf_attach_shape(a, 2, f.out, f.in, 0);
    } else {
        merge.shape = w.shape;
        merge.experts = experts;
        merge.swapped = !turned;
    }
    merge.a = f.a;
    merge.b = f.b;
    merge.rank = f.rank.r;
    merge.scale = (float)f.rank.scale;
    merge.round_delta = true;
    param->taken = slot->done = true;
    return gf_target_add(a, slot, &w, &merge, err);
}

/* A module's wrappers are nested in the order of its parameters, the first innermost. */
static int attach_params(struct gf_attaching *a, const char *module, struct param *params,
                         size_t n, struct gf_err *err)
{
    for (unsigned depth = MAX_NESTED; depth-- > 0;) {
        struct gf_peft_slot *slot = gf_slot_find(a->slots, depth, module, &a->state->arena);
        bool fits = false;
        int r = 0;

        for (size_t k = 0; slot && k < n && !fits && !r; k++)
            if (!params[k].taken)
                r = attach_param(a, slot, &params[k], &fits, err);
        if (r)
            return r;
        if (slot && !fits)
            return gf_fail(err, GF_EBAD,
                           "tensor '%s' fits none of the target_parameters of '%s'",
                           gf_attach_tensor(a, slot->any)->name, module);
    }
    return 0;
}

int gf_attach_lora(struct gf_attaching *a, struct gf_peft_slot *slot, const char *name,
                   struct gf_err *err)
{
    struct param params[MAX_NESTED];
    size_t n = 0;
    int r = find_params(a, slot->module, params, &n, err);

    if (r)
        return r;
    if (n)
        return attach_params(a, slot->module, params, n, err);
    slot->done = true;
    return attach_linear(a, slot, name, err);
}
