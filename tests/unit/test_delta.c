/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delta: every kind of merge, on numbers small enough to check by hand.
 */
#include "t.h"

#include "base/math.h"
#include "t_merge.h"

static void lowrank_adds_the_scaled_product(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 3), w23);
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(2, 3));

    m->a = add(w, GF_BF16, SHAPE(2, 3), VALUES(1, 2, 3, 10, 20, 30));
    m->b = add(w, GF_F16, SHAPE(2, 2), VALUES(1, 1, 2, -1));
    m->rank = 2;
    m->scale = 0.5f;
    serve(w, leaf, 0, 0, 6, GF_F32);
    /* B @ A = [11 22 33; -8 -16 -24] */
    expect(w, VALUES(6.5f, 13, 19.5f, 0, -3, -6));
}

static void lowrank_transposed_is_stored_the_other_way_round(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(3, 2), w23);
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(3, 2));

    m->a = add(w, GF_F32, SHAPE(2, 3), VALUES(1, 2, 3, 10, 20, 30));
    m->b = add(w, GF_F32, SHAPE(2, 2), VALUES(1, 1, 2, -1));
    m->rank = 2;
    m->transposed = true;
    serve(w, leaf, 0, 0, 6, GF_F32);
    expect(w, VALUES(12, 2 - 8, 3 + 22, 4 - 16, 5 + 33, 6 - 24));
}

/* 256 + a in bfloat16, whose steps are 2 there. */
static void the_sum_is_rounded_once_or_the_delta_first(void **state)
{
    const float a = 1.00390625f; /* 1 + 2^-8: halfway between two bfloat16 */

    for (int round = 0; round < 2; round++) {
        struct world *w = NULL;
        void *s = NULL;
        struct gf_merge *m;
        uint32_t leaf;

        (void)state;
        setup(&s);
        w = s;
        leaf = add(w, GF_BF16, SHAPE(1, 1), VALUES(256));
        m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(1, 1));
        m->a = add(w, GF_F32, SHAPE(1, 1), &a);
        m->b = add(w, GF_F32, SHAPE(1, 1), VALUES(1));
        m->rank = 1;
        m->dtype = GF_BF16;
        m->round_delta = round;
        serve(w, leaf, 0, 0, 1, GF_BF16);
        /* 257.0039 is nearer to 258; 256 + 1 is a tie, and goes to the even 256. */
        expect(w, VALUES(round ? 256 : 258));
        teardown(&s);
    }
}

static void weights_are_cast_to_the_live_dtype_before_they_are_merged(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(1, 2), VALUES(257, 1.00390625f));
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(1, 2));

    m->a = add(w, GF_F32, SHAPE(1, 2), VALUES(1.25f, 0.5f));
    m->b = add(w, GF_F32, SHAPE(1, 1), VALUES(1));
    m->rank = 1;
    m->dtype = GF_BF16;
    serve(w, leaf, 0, 0, 2, GF_F32);
    expect(w, VALUES(258, 1.5f)); /* 257 -> 256, 257.25 -> 258 */
}

static void dora_divides_by_row_norms_and_multiplies_by_magnitudes(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 2), VALUES(2, 4, 4, 12));
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(2, 2));

    m->a = add(w, GF_F32, SHAPE(1, 2), VALUES(1, 0));
    m->b = add(w, GF_F32, SHAPE(2, 1), VALUES(1, 1));
    m->magnitude = add(w, GF_F32, SHAPE(2), VALUES(10, 26));
    m->rank = 1;
    serve(w, leaf, 0, 0, 4, GF_F32);
    expect(w, VALUES(6, 8, 10, 24)); /* norms 5 and 13 */
}

static void dora_of_a_transposed_weight_takes_column_norms(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 2), VALUES(2, 4, 4, 12));
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(2, 2));

    m->a = add(w, GF_F32, SHAPE(1, 2), VALUES(1, 0)); /* D^T = [1 1; 0 0] */
    m->b = add(w, GF_F32, SHAPE(2, 1), VALUES(1, 1));
    m->magnitude = add(w, GF_F32, SHAPE(2), VALUES(10, 26));
    m->rank = 1;
    m->transposed = true;
    serve(w, leaf, 0, 0, 4, GF_F32);
    expect(w, VALUES(6, 10, 8, 24));
}

/* Two experts of [out 2, in 3], r = 1: B's last index is the expert. */
static struct gf_merge *two_experts(struct world *w, struct gf_shape shape, bool swapped)
{
    struct gf_merge *m = merge(w, 0, GF_MERGE_EXPERTS, shape);

    m->a = add(w, GF_F32, SHAPE(2, 3), VALUES(1, 2, 3, 10, 20, 30));
    m->b = add(w, GF_F32, SHAPE(2, 2), VALUES(1, 3, 2, 4));
    m->rank = 1;
    m->experts = 2;
    m->scale = 2;
    m->swapped = swapped;
    return m;
}

static void experts_have_a_product_each(void **state)
{
    struct world *w = *state;
    uint32_t leaf =
        add(w, GF_F32, SHAPE(2, 2, 3), VALUES(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));

    two_experts(w, SHAPE(2, 2, 3), true);
    serve(w, leaf, 0, 0, 12, GF_F32);
    expect(w, VALUES(2, 4, 6, 4, 8, 12, 60, 120, 180, 80, 160, 241));
}

static void experts_that_are_not_swapped_are_stored_in_by_out(void **state)
{
    struct world *w = *state;
    uint32_t leaf =
        add(w, GF_F32, SHAPE(2, 3, 2), VALUES(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));

    two_experts(w, SHAPE(2, 3, 2), false);
    serve(w, leaf, 0, 0, 12, GF_F32);
    expect(w, VALUES(2, 4, 4, 8, 6, 12, 60, 80, 120, 160, 180, 241));
}

static void a_leaf_can_be_one_experts_own_tensor(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 3), w23);

    two_experts(w, SHAPE(2, 2, 3), true);
    serve(w, leaf, 0, 6, 6, GF_F32); /* expert 1 */
    expect(w, VALUES(61, 122, 183, 84, 165, 246));
}

static void a_leaf_can_be_a_slice_of_the_weight(void **state)
{
    struct world *w = *state;
    uint32_t leaf =
        add(w, GF_F32, SHAPE(2, 2, 3), VALUES(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));

    two_experts(w, SHAPE(2, 2, 3), true);
    serve(w, leaf, 9, 9, 3, GF_F32);
    expect(w, VALUES(80, 160, 241));
}

static void hadamard_multiplies_two_products(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 2), w23);
    struct gf_merge *m = merge(w, 0, GF_MERGE_HADAMARD, SHAPE(2, 2));

    m->a = add(w, GF_F32, SHAPE(2, 1), VALUES(1, 2));
    m->b = add(w, GF_F32, SHAPE(1, 2), VALUES(3, 4)); /* [3 4; 6 8] */
    m->c = add(w, GF_F32, SHAPE(2, 1), VALUES(1, 10));
    m->d = add(w, GF_F32, SHAPE(1, 2), VALUES(1, -1)); /* [1 -1; 10 -10] */
    m->rank = 1;
    m->scale = 0.5f;
    serve(w, leaf, 0, 0, 4, GF_F32);
    expect(w, VALUES(2.5f, 0, 33, -36));
}

static void kronecker_repeats_the_second_factor(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 6), VALUES(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1));
    struct gf_merge *m = merge(w, 0, GF_MERGE_KRONECKER, SHAPE(2, 6));

    m->a = add(w, GF_F32, SHAPE(1, 2), VALUES(1, 10));
    m->c = add(w, GF_F32, SHAPE(2, 1), VALUES(1, 2)); /* w2 = [1 2 3; 2 4 6] */
    m->d = add(w, GF_F32, SHAPE(1, 3), VALUES(1, 2, 3));
    m->scale = 2;
    serve(w, leaf, 0, 0, 12, GF_F32);
    expect(w, VALUES(2, 4, 6, 20, 40, 60, 4, 8, 12, 40, 80, 121));
}

static void kronecker_of_a_product_and_a_matrix(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 2), w23);
    struct gf_merge *m = merge(w, 0, GF_MERGE_KRONECKER, SHAPE(2, 2));

    m->a = add(w, GF_F32, SHAPE(2, 1), VALUES(1, 2)); /* w1 = [3 5; 6 10] */
    m->b = add(w, GF_F32, SHAPE(1, 2), VALUES(3, 5));
    m->c = add(w, GF_F32, SHAPE(1, 1), VALUES(7));
    serve(w, leaf, 0, 0, 4, GF_F32);
    expect(w, VALUES(22, 37, 45, 74));
}

/* The matrices are larger than this weight: A [1, 4], B [3, 1] for [2, 3]. */
static struct gf_merge *vector(struct world *w, struct gf_shape shape)
{
    struct gf_merge *m = merge(w, 0, GF_MERGE_VECTOR, shape);

    m->a = add(w, GF_F32, SHAPE(2, 4), VALUES(1, 2, 3, 99, 1, 1, 1, 99));
    m->b = add(w, GF_F32, SHAPE(3, 2), VALUES(1, 1, 2, 1, 99, 99));
    m->c = add(w, GF_F32, SHAPE(2), VALUES(10, 1000)); /* lambda_d */
    m->d = add(w, GF_F32, SHAPE(2), VALUES(1, -1));    /* lambda_b */
    m->rank = 2;
    return m;
}

static void vector_scales_both_matrices(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 3), w23);

    vector(w, SHAPE(2, 3));
    serve(w, leaf, 0, 0, 6, GF_F32);
    expect(w, VALUES(1011, 1022, 1033, 4 - 1020, 5 - 1040, 6 - 1060));
}

static void vector_transposed(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(3, 2), w23);

    vector(w, SHAPE(3, 2))->transposed = true;
    serve(w, leaf, 0, 0, 6, GF_F32);
    expect(w, VALUES(1011, 2 - 1020, 1023, 4 - 1040, 1035, 6 - 1060));
}

static void bias_adds_the_scaled_vector(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(3), VALUES(1, 2, 3));
    struct gf_merge *m = merge(w, 0, GF_MERGE_BIAS, SHAPE(3));

    m->a = add(w, GF_F32, SHAPE(3), VALUES(10, 20, 30));
    m->scale = 0.5f;
    serve(w, leaf, 0, 0, 3, GF_F32);
    expect(w, VALUES(6, 12, 18));
}

static void scale_broadcasts_along_rows_or_columns(void **state)
{
    static const uint64_t tall[] = { 2, 1 }, wide[] = { 1, 3 }, one[] = { 1, 1 },
                          flat[] = { 2 };
    static const uint64_t w_2x3[] = { 2, 3 }, w_3x2[] = { 3, 2 }, w_2[] = { 2 };
    static const struct {
        struct gf_shape a, w;
        bool transposed;
        float want[6];
    } cases[] = {
        { { 2, tall }, { 2, w_2x3 }, false, { 10, 20, 30, 400, 500, 600 } },
        { { 2, wide }, { 2, w_2x3 }, false, { 10, 200, 3000, 40, 500, 6000 } },
        { { 2, tall }, { 2, w_3x2 }, true, { 10, 200, 30, 400, 50, 600 } },
        { { 2, wide }, { 2, w_3x2 }, true, { 10, 20, 300, 400, 5000, 6000 } },
        { { 2, one }, { 2, w_2x3 }, false, { 10, 20, 30, 40, 50, 60 } },
        { { 1, flat }, { 2, w_3x2 }, false, { 10, 200, 30, 400, 50, 600 } },
        { { 2, tall }, { 1, w_2 }, false, { 10, 200 } },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        void *s = NULL;
        struct world *w;
        uint32_t leaf;

        setup(&s);
        w = s;
        leaf = add(w, GF_F32, cases[i].w, w23);
        merge(w, 0, GF_MERGE_SCALE, cases[i].w)->transposed = cases[i].transposed;
        w->merges[0].a = add(w, GF_F32, cases[i].a, VALUES(10, 100, 1000));
        serve(w, leaf, 0, 0, numel_of(cases[i].w), GF_F32);
        expect(w, cases[i].want);
        teardown(&s);
    }
}

static void rows_are_replaced_and_the_last_of_two_wins(void **state)
{
    static const uint64_t rows[] = { 2, 0, 2 };
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(3, 2), w23);
    struct gf_merge *m = merge(w, 0, GF_MERGE_ROWS, SHAPE(3, 2));

    m->a = add(w, GF_F32, SHAPE(3, 2), VALUES(7, 8, 9, 10, 11, 12));
    m->rows = rows;
    m->nrows = 3;
    serve(w, leaf, 0, 0, 6, GF_F32);
    expect(w, VALUES(9, 10, 3, 4, 11, 12));
}

static void the_merge_below_comes_first_and_is_rounded(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_BF16, SHAPE(2), VALUES(256, 1));
    struct gf_merge *m = merge(w, 0, GF_MERGE_SCALE, SHAPE(2));
    struct gf_merge *below = merge(w, 1, GF_MERGE_BIAS, SHAPE(2));

    m->a = add(w, GF_F32, SHAPE(2), VALUES(2, 3));
    below->a = add(w, GF_F32, SHAPE(2), VALUES(1, 1));
    m->under = below;
    m->dtype = below->dtype = GF_BF16;
    serve(w, leaf, 0, 0, 2, GF_BF16);
    expect(w, VALUES(512, 6)); /* 257 -> 256 */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(lowrank_adds_the_scaled_product),
        TEST(lowrank_transposed_is_stored_the_other_way_round),
        TEST(the_sum_is_rounded_once_or_the_delta_first),
        TEST(weights_are_cast_to_the_live_dtype_before_they_are_merged),
        TEST(dora_divides_by_row_norms_and_multiplies_by_magnitudes),
        TEST(dora_of_a_transposed_weight_takes_column_norms),
        TEST(experts_have_a_product_each),
        TEST(experts_that_are_not_swapped_are_stored_in_by_out),
        TEST(a_leaf_can_be_one_experts_own_tensor),
        TEST(a_leaf_can_be_a_slice_of_the_weight),
        TEST(hadamard_multiplies_two_products),
        TEST(kronecker_repeats_the_second_factor),
        TEST(kronecker_of_a_product_and_a_matrix),
        TEST(vector_scales_both_matrices),
        TEST(vector_transposed),
        TEST(bias_adds_the_scaled_vector),
        TEST(scale_broadcasts_along_rows_or_columns),
        TEST(rows_are_replaced_and_the_last_of_two_wins),
        TEST(the_merge_below_comes_first_and_is_rounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
