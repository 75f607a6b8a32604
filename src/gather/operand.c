/* SPDX-License-Identifier: Apache-2.0 */
#include "gather/operand.h"

#include <errno.h>
#include <stdlib.h>

#include "base/math.h"
#include "gather/leaf.h"
#include "tensor/convert.h"
#include "tensor/lowrank.h"

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

static void reorder(const struct load *load, const float *from, float *to)
{
    bool is_a = load->form == GF_OPERAND_LEFT_A || load->form == GF_OPERAND_RIGHT_A;
    uint64_t x = is_a ? load->experts : load->places;
    uint64_t z = is_a ? load->places : load->experts;

    for (uint64_t i = 0; i < x; i++)
        for (uint64_t k = 0; k < load->rank; k++)
            for (uint64_t j = 0; j < z; j++)
                to[is_a ? kept_at(load, i, j, k) : kept_at(load, j, i, k)] = *from++;
}

/* Masters are rounded to what the live model had: that is what an adapter file holds. */
static void round_to_live(const struct gf_tensor *tensor, float *values)
{
    gf_convert_fn *down = gf_convert_get(GF_F32, tensor->live);
    gf_convert_fn *up = gf_convert_get(tensor->live, GF_F32);
    uint16_t rounded[256];

    if (tensor->dtype == tensor->live || gf_dtype_size(tensor->live) != 2 || !down || !up)
        return;
    for (uint64_t i = 0; i < tensor->numel; i += GF_COUNT(rounded)) {
        size_t n = GF_MIN(GF_COUNT(rounded), tensor->numel - i);

        down(rounded, values + i, n);
        up(values + i, rounded, n);
    }
}

static int load_operand(void *ctx, float *values)
{
    const struct load *load = ctx;
    uint64_t n = load->tensor->numel;
    GF_AUTO_MEM float *plain =
        load->form == GF_OPERAND_PLAIN ? NULL : malloc(n ? n * sizeof(*plain) : 1);
    struct gf_scratch scratch = { 0 };
    int r;

    if (load->form != GF_OPERAND_PLAIN && !plain)
        return gf_fault_set(load->fault, NULL, 0, 0, -ENOMEM);
    r = gf_leaf_read(load->bound, load->tensor, 0, n, GF_F32, plain ? plain : values,
                     &scratch, load->fault);
    if (!r)
        round_to_live(load->tensor, plain ? plain : values);
    if (!r && plain)
        reorder(load, plain, values);
    gf_scratch_done(&scratch);
    return r;
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
    /* The columns that the last group lacks are in memory, but what is in them is not
     * used. */
    if (form != GF_OPERAND_PLAIN && !is_left(form))
        n = experts * gf_operand_groups(load.places) * rank * GF_LOWRANK_GROUP;
    r = gf_resident_get(g->resident, &key, n, load_operand, &load, &op.item);
    if (r)
        return r == -ENOMEM ? gf_fault_set(fault, NULL, 0, 0, r) : r;
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
