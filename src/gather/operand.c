/* SPDX-License-Identifier: Apache-2.0 */
#include "gather/operand.h"

#include <errno.h>

#include "base/math.h"
#include "gather/leaf.h"
#include "tensor/convert.h"
#include "tensor/lowrank.h"

/* Elements that are put in order at once. */
#define PIECE ((uint64_t)64 << 10)

struct load {
    const struct gf_bound *bound;
    const struct gf_tensor *tensor;
    enum gf_operand_form form;
    uint64_t experts, rank, places;
    struct gf_fault *fault;
};

uint64_t gf_operand_groups(uint64_t cols)
{
    return gf_ceil_div(cols, GF_LOWRANK_GROUP);
}

static bool is_left(enum gf_operand_form form)
{
    return form == GF_OPERAND_LEFT_A || form == GF_OPERAND_LEFT_B;
}

/* Where [expert, place, rank] is kept. */
static uint64_t kept_at(const struct load *load, uint64_t e, uint64_t place, uint64_t k)
{
    uint64_t group = e * gf_operand_groups(load->places) + place / GF_LOWRANK_GROUP;

    if (is_left(load->form))
        return (e * load->places + place) * load->rank + k;
    return (group * load->rank + k) * GF_LOWRANK_GROUP + place % GF_LOWRANK_GROUP;
}

/* The next of the operand's elements, in the order in which they are stored. */
struct cursor {
    uint64_t i, k, j;
};

static void reorder(const struct load *load, struct cursor *at, const float *from, size_t n,
                    float *to)
{
    bool is_a = load->form == GF_OPERAND_LEFT_A || load->form == GF_OPERAND_RIGHT_A;
    uint64_t last = is_a ? load->places : load->experts;

    for (size_t i = 0; i < n; i++) {
        to[is_a ? kept_at(load, at->i, at->j, at->k) : kept_at(load, at->j, at->i, at->k)] =
            from[i];
        if (++at->j < last)
            continue;
        at->j = 0;
        if (++at->k < load->rank)
            continue;
        at->k = 0;
        at->i++;
    }
}

/* Masters are rounded to what the live model had: that is what an adapter file holds. */
static void round_to_live(const struct gf_tensor *tensor, float *values, uint64_t count)
{
    gf_convert_fn *down = gf_convert_get(GF_F32, tensor->live);
    gf_convert_fn *up = gf_convert_get(tensor->live, GF_F32);
    uint16_t rounded[256];

    if (tensor->dtype == tensor->live || gf_dtype_size(tensor->live) != 2 || !down || !up)
        return;
    for (uint64_t i = 0; i < count; i += GF_COUNT(rounded)) {
        size_t n = GF_MIN(GF_COUNT(rounded), count - i);

        down(rounded, values + i, n);
        up(values + i, rounded, n);
    }
}

static int load_plain(const struct load *load, float *values, struct gf_scratch *scratch)
{
    uint64_t n = load->tensor->numel;
    int r =
        gf_leaf_read(load->bound, load->tensor, 0, n, GF_F32, values, scratch, load->fault);

    if (!r)
        round_to_live(load->tensor, values, n);
    return r;
}

/* Piece by piece: the operand is in memory once. */
static int load_ordered(const struct load *load, float *values, struct gf_scratch *scratch)
{
    uint64_t left = load->tensor->numel;
    struct cursor at = { 0 };
    int r = 0;

    if (gf_scratch_grow(&scratch->weights, &scratch->weights_size,
                        GF_MIN(left, PIECE) * sizeof(float)))
        return gf_fault_set(load->fault, NULL, 0, 0, -ENOMEM);
    while (left && !r) {
        size_t n = (size_t)GF_MIN(left, PIECE);
        float *plain = (float *)(void *)scratch->weights;

        r = gf_leaf_read(load->bound, load->tensor, load->tensor->numel - left, n, GF_F32,
                         plain, scratch, load->fault);
        if (!r) {
            round_to_live(load->tensor, plain, n);
            reorder(load, &at, plain, n, values);
        }
        left -= n;
    }
    return r;
}

static int load_operand(void *ctx, float *values)
{
    const struct load *load = ctx;
    struct gf_scratch scratch = { 0 };
    int r = load->form == GF_OPERAND_PLAIN ? load_plain(load, values, &scratch)
                                           : load_ordered(load, values, &scratch);

    gf_scratch_done(&scratch);
    return r;
}

/* The columns that the last group lacks are in memory, but what is in them is not used. */
static bool packed_size(uint64_t experts, uint64_t places, uint64_t rank, uint64_t *ret)
{
    return gf_mul(gf_operand_groups(places), GF_LOWRANK_GROUP, ret) ||
           gf_mul(*ret, rank, ret) || gf_mul(*ret, experts, ret);
}

int gf_operand_hold(const struct gf_gather *g, const struct gf_expr *expr, uint32_t tensor,
                    enum gf_operand_form form, uint64_t experts, uint64_t rank,
                    struct gf_operand *ret, struct gf_fault *fault)
{
    const struct gf_bound *bound = &g->bound[expr->catalog];
    const struct gf_tensor *t =
        tensor == GF_NONE ? NULL : gf_catalog_at(bound->catalog, tensor);
    struct load load = { .bound = bound,
                         .tensor = t,
                         .form = form,
                         .experts = experts,
                         .rank = rank,
                         .fault = fault };
    struct gf_resident_key key = { .part = form == GF_OPERAND_PLAIN ? 0 : experts,
                                   .catalog = expr->catalog,
                                   .tensor = tensor,
                                   .form = form };
    struct gf_operand op = { 0 };
    uint64_t n;
    int r;

    if (!t)
        return 0;
    n = t->numel;
    load.places = experts && rank ? n / experts / rank : 0;
    if (form != GF_OPERAND_PLAIN && !is_left(form) &&
        packed_size(experts, load.places, rank, &n))
        return gf_fault_set(fault, NULL, 0, 0, -ENOMEM);
    r = gf_resident_get(g->resident, &key, n, load_operand, &load, &op.item);
    if (r) /* without a fault of its own: no memory, or another thread's load failed */
        return fault && fault->code ? r : gf_fault_set(fault, NULL, 0, 0, r);
    op.at = op.item->values;
    op.rows = t->shape.rank > 1 ? t->shape.dims[0] : 1;
    op.stride = op.rows ? t->numel / op.rows : 0;
    *ret = op;
    return 0;
}

void gf_operand_put(const struct gf_gather *g, const struct gf_operand *operand)
{
    gf_resident_put(g->resident, operand->item);
}
