/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge_tuners.c - what is not LoRA: trained tokens, IA3, LoHa, LoKr, VeRA.
 *
 * Source: peft 0.21 get_delta_weight() and merge() of these tuners' layers.
 */
#include <inttypes.h>
#include <string.h>

#include "view/merge_int.h"

int gf_attach_tokens(struct gf_attaching *a, const struct gf_peft_slot *slot,
                     const char *name, struct gf_err *err)
{
    const struct gf_tensor *tensor = gf_attach_tensor(a, slot->parts[GF_PART_TOKENS]);
    const struct gf_json *list = gf_peft_tokens_of(a->state->peft, slot->module);
    struct gf_merge merge = gf_merge_of(GF_MERGE_ROWS);
    size_t n = gf_json_len(list);
    char shape[GF_SHAPE_TEXT];
    struct gf_target w;
    uint64_t *rows;
    int r;

    if (tensor->shape.rank != 2 || tensor->shape.dims[0] != n)
        return gf_fail(err, GF_EBAD,
                       "tensor '%s' has shape %s, adapter_config.json lists %zu tokens",
                       tensor->name, gf_shape_text(tensor->shape, shape), n);
    r = gf_target_need(a, slot, name, tensor->shape, &w, err);
    if (r)
        return r;
    rows = gf_arena_alloc(a->state->view->arena, (n + 1) * sizeof(*rows));
    if (!rows)
        return gf_nomem(err);
    if (w.shape.rank != 2 || w.shape.dims[1] != tensor->shape.dims[1])
        return gf_slot_misfit(a, slot, GF_PART_TOKENS, GF_PART_TOKENS, name, w.shape, err);
    n = 0;
    for (const struct gf_json *m = gf_json_at(list, 0); m; m = gf_json_next(m), n++)
        if (!gf_json_u64(m, &rows[n]) || rows[n] >= w.shape.dims[0])
            return gf_fail(err, GF_EBAD,
                           "adapter_config.json: trained token %zu is none of the %" PRIu64
                           " rows of '%s'",
                           n, w.shape.dims[0], name);
    merge.a = slot->parts[GF_PART_TOKENS];
    merge.shape = w.shape;
    merge.rows = rows;
    merge.nrows = n;
    return gf_target_add(a, slot, &w, &merge, err);
}

/* Has W, [out, in], n outputs (axis 0) or inputs (axis 1)? Or is it stored as [in, out]? */
static bool is_axis(const struct gf_attaching *a, struct gf_shape w, unsigned axis,
                    uint64_t n, bool *ret_transposed)
{
    bool straight = w.rank == 2 && w.dims[axis] == n;
    bool turned = w.rank == 2 && w.dims[!axis] == n;

    *ret_transposed = turned && (!straight || a->conv1d);
    return straight || turned;
}

/* [out, 1] scales outputs, and their bias; [1, in] the inputs of a feed-forward module. */
int gf_attach_ia3(struct gf_attaching *a, const struct gf_peft_slot *slot, const char *name,
                  struct gf_err *err)
{
    struct gf_merge merge = gf_merge_of(GF_MERGE_SCALE);
    struct gf_shape l = gf_slot_shape(a, slot, GF_PART_IA3);
    bool inputs = l.rank == 2 && l.dims[0] == 1 && l.dims[1] != 1;
    uint64_t n = l.rank == 2 ? l.dims[inputs] : 0;
    struct gf_target w, bias;
    int r = gf_target_need(a, slot, name, gf_attach_shape(a, 2, n, n, 0), &w, err);

    if (r)
        return r;
    if (l.rank != 2 || l.dims[!inputs] != 1 ||
        !is_axis(a, w.shape, inputs, n, &merge.transposed))
        return gf_slot_misfit(a, slot, GF_PART_IA3, GF_PART_IA3, name, w.shape, err);
    merge.a = slot->parts[GF_PART_IA3];
    merge.shape = w.shape;
    r = gf_target_add(a, slot, &w, &merge, err);
    if (r || inputs)
        return r;
    r = gf_target_bias(a, slot, n, &bias, err);
    if (r || !bias.n)
        return r;
    if (bias.shape.rank != 1 || bias.shape.dims[0] != n)
        return gf_slot_misfit(a, slot, GF_PART_IA3, GF_PART_IA3, "bias", bias.shape, err);
    merge.transposed = false;
    merge.shape = bias.shape;
    return gf_target_add(a, slot, &bias, &merge, err);
}

/* x [rows, k] times y [k, columns]. */
static bool multiply(const struct gf_attaching *a, uint32_t x, uint32_t y,
                     uint64_t *ret_rows, uint64_t *ret_columns, uint64_t *ret_k)
{
    struct gf_shape sx = gf_attach_tensor(a, x)->shape, sy = gf_attach_tensor(a, y)->shape;

    if (sx.rank != 2 || sy.rank != 2 || sx.dims[1] != sy.dims[0] || sx.dims[1] == 0)
        return false;
    *ret_rows = sx.dims[0];
    *ret_columns = sy.dims[1];
    *ret_k = sx.dims[1];
    return true;
}

int gf_attach_loha(struct gf_attaching *a, const struct gf_peft_slot *slot,
                   const char *name, struct gf_err *err)
{
    static const enum gf_peft_part parts[] = { GF_PART_HADA_W1_A, GF_PART_HADA_W1_B,
                                               GF_PART_HADA_W2_A, GF_PART_HADA_W2_B };
    struct gf_peft_rank rank = gf_peft_rank_of(a->state->peft, slot->module);
    struct gf_merge merge = gf_merge_of(GF_MERGE_HADAMARD);
    uint64_t rows, columns, k, rows2, columns2, k2;
    struct gf_target w;
    int r;

    for (size_t i = 0; i < GF_COUNT(parts); i++)
        if (gf_slot_need(a, slot, parts[i], "partners (hada_w1_a, _b, hada_w2_a, _b)", err))
            return -GF_EBAD;
    merge.a = slot->parts[GF_PART_HADA_W1_A];
    merge.b = slot->parts[GF_PART_HADA_W1_B];
    merge.c = slot->parts[GF_PART_HADA_W2_A];
    merge.d = slot->parts[GF_PART_HADA_W2_B];
    if (!multiply(a, merge.a, merge.b, &rows, &columns, &k) ||
        !multiply(a, merge.c, merge.d, &rows2, &columns2, &k2) || rows != rows2 ||
        columns != columns2 || k != k2)
        return gf_slot_misfit(a, slot, parts[0], parts[1], name,
                              gf_attach_tensor(a, merge.c)->shape, err);
    if (k != rank.r)
        return gf_slot_wrong_rank(a, merge.a, k, rank.r, err);
    r = gf_target_need(a, slot, name, gf_attach_shape(a, 2, rows, columns, 0), &w, err);
    if (r)
        return r;
    if (!gf_is_matrix(w.shape, rows, columns))
        return gf_slot_misfit(a, slot, parts[0], parts[1], name, w.shape, err);
    merge.shape = w.shape;
    merge.rank = k;
    merge.scale = (float)rank.scale;
    return gf_target_add(a, slot, &w, &merge, err);
}

/* A Kronecker factor: one matrix, or the product of two. */
static int lokr_factor(const struct gf_attaching *a, const struct gf_peft_slot *slot,
                       enum gf_peft_part whole, uint32_t *ret_x, uint32_t *ret_y,
                       uint64_t *ret_rows, uint64_t *ret_columns, uint64_t *ret_k,
                       struct gf_err *err)
{
    enum gf_peft_part x = whole + 1, y = whole + 2;

    if (gf_slot_has(slot, whole)) {
        struct gf_shape shape = gf_slot_shape(a, slot, whole);

        if (shape.rank != 2)
            return gf_slot_misfit(a, slot, whole, whole, slot->module, shape, err);
        *ret_x = slot->parts[whole];
        *ret_rows = shape.dims[0];
        *ret_columns = shape.dims[1];
        return 0;
    }
    if (gf_slot_need(a, slot, x, "partners (lokr_w1, lokr_w2)", err) ||
        gf_slot_need(a, slot, y, "partners (lokr_w1, lokr_w2)", err))
        return -GF_EBAD;
    *ret_x = slot->parts[x];
    *ret_y = slot->parts[y];
    if (!multiply(a, *ret_x, *ret_y, ret_rows, ret_columns, ret_k))
        return gf_slot_misfit(a, slot, x, y, slot->module,
                              gf_attach_tensor(a, *ret_x)->shape, err);
    return 0;
}

int gf_attach_lokr(struct gf_attaching *a, const struct gf_peft_slot *slot,
                   const char *name, struct gf_err *err)
{
    struct gf_peft_rank rank = gf_peft_rank_of(a->state->peft, slot->module);
    struct gf_merge merge = gf_merge_of(GF_MERGE_KRONECKER);
    uint64_t r1, c1, r2, c2, rows = 0, columns = 0, k1 = rank.r, k2 = rank.r;
    struct gf_target w;
    int r = lokr_factor(a, slot, GF_PART_LOKR_W1, &merge.a, &merge.b, &r1, &c1, &k1, err);

    if (!r)
        r = lokr_factor(a, slot, GF_PART_LOKR_W2, &merge.c, &merge.d, &r2, &c2, &k2, err);
    if (r)
        return r;
    if (k1 != rank.r || k2 != rank.r)
        return gf_slot_wrong_rank(a, k1 != rank.r ? merge.a : merge.c,
                                  k1 != rank.r ? k1 : k2, rank.r, err);
    if (gf_mul(r1, r2, &rows) || gf_mul(c1, c2, &columns))
        return gf_slot_misfit(a, slot, GF_PART_LOKR_W1, GF_PART_LOKR_W2, name,
                              gf_attach_tensor(a, merge.c)->shape, err);
    r = gf_target_need(a, slot, name, gf_attach_shape(a, 2, rows, columns, 0), &w, err);
    if (r)
        return r;
    if (!gf_is_matrix(w.shape, rows, columns))
        return gf_fail(err, GF_EBAD,
                       "tensor '%s' and its partners make [%" PRIu64 ", %" PRIu64
                       "]: shapes that don't multiply to '%s'",
                       gf_attach_tensor(a, merge.a)->name, rows, columns, name);
    merge.shape = w.shape;
    merge.rank = rank.r;
    merge.scale = (float)rank.scale;
    return gf_target_add(a, slot, &w, &merge, err);
}

int gf_attach_vera(struct gf_attaching *a, const struct gf_peft_slot *slot,
                   const char *name, struct gf_err *err)
{
    struct gf_merge merge = gf_merge_of(GF_MERGE_VECTOR);
    struct gf_shape d, b, va, vb;
    struct gf_target w;
    int r;

    if (gf_slot_need(a, slot, GF_PART_LAMBDA_B, "partner vera_lambda_b", err) ||
        gf_slot_need(a, slot, GF_PART_LAMBDA_D, "partner vera_lambda_d", err))
        return -GF_EBAD;
    if (a->slots->vera_a == GF_NONE || a->slots->vera_b == GF_NONE)
        return gf_fail(err, ENOENT,
                       "tensor '%s': vera_A and vera_B were not saved with it "
                       "(save_projection), so it is not merged",
                       gf_attach_tensor(a, slot->any)->name);
    d = gf_slot_shape(a, slot, GF_PART_LAMBDA_D);
    b = gf_slot_shape(a, slot, GF_PART_LAMBDA_B);
    va = gf_attach_tensor(a, a->slots->vera_a)->shape;
    vb = gf_attach_tensor(a, a->slots->vera_b)->shape;
    if (d.rank != 1 || b.rank != 1 || va.rank != 2 || vb.rank != 2 ||
        d.dims[0] != va.dims[0] || d.dims[0] != vb.dims[1] || d.dims[0] == 0)
        return gf_slot_misfit(a, slot, GF_PART_LAMBDA_D, GF_PART_LAMBDA_B, name, va, err);
    r = gf_target_need(a, slot, name, gf_attach_shape(a, 2, b.dims[0], va.dims[1], 0), &w,
                       err);
    if (r)
        return r;
    if (!is_axis(a, w.shape, 0, b.dims[0], &merge.transposed) || b.dims[0] > vb.dims[0] ||
        w.shape.dims[!merge.transposed] > va.dims[1])
        return gf_slot_misfit(a, slot, GF_PART_LAMBDA_D, GF_PART_LAMBDA_B, name, w.shape,
                              err);
    merge.a = a->slots->vera_a;
    merge.b = a->slots->vera_b;
    merge.c = slot->parts[GF_PART_LAMBDA_D];
    merge.d = slot->parts[GF_PART_LAMBDA_B];
    merge.shape = w.shape;
    merge.rank = d.dims[0];
    return gf_target_add(a, slot, &w, &merge, err);
}
