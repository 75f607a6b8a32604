/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lowrank: sums in the promised order with the promised roundings, and every vector kernel
 * against the reference, bit for bit, for all beginnings and ends of rows and columns.
 */
#include "t.h"

#include <math.h>
#include <stdlib.h>

#include "tensor/lowrank.h"
#include "tensor/lowrank_int.h"

enum {
    ROWS = 20,
    COLS = 100,
    RANK = 130,
    STRIDE = 110,
    GROUPS = 4,
    BYTES = ROWS * STRIDE * 4
};

static uint64_t seed = 88172645463325252u;

static float number(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return ((float)(seed >> 40) / 0x1p23f - 1) * (seed & 15 ? 1.0f : 1e-3f);
}

struct world {
    float left[ROWS * RANK], right[GROUPS * GF_LOWRANK_GROUP * RANK];
    uint8_t before[BYTES + 1], want[BYTES + 1], got[BYTES + 1]; /* read from an odd place */
};

static int setup(void **state)
{
    struct world *w = malloc(sizeof(*w));

    for (size_t i = 0; i < ROWS * RANK; i++)
        w->left[i] = number();
    for (size_t i = 0; i < GROUPS * GF_LOWRANK_GROUP * RANK; i++)
        w->right[i] = number();
    for (size_t i = 0; i < BYTES / 2; i++) { /* in any dtype: small, no NaN, some zero */
        uint16_t bits = (uint16_t)(number() > 0.9f ? 0 : 0x3800 + (int)(number() * 512));

        memcpy(w->before + 1 + 2 * i, &bits, 2);
    }
    w->left[3] = -0.0f;
    w->left[RANK + 1] = INFINITY;
    w->right[7] = 1e-42f; /* a denormal */
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static struct gf_lowrank product(const struct world *w, size_t rank, enum gf_dtype dtype,
                                 bool add)
{
    return (struct gf_lowrank){ w->left, w->right, rank, 1.7f, add, dtype };
}

static float right_at(const struct world *w, size_t rank, size_t k, size_t j)
{
    return w->right[(j / 32 * rank + k) * 32 + j % 32];
}

static void sums_are_fused(void **state)
{
    /* Fused, 1 + 2^-23 squared keeps the 2^-46 that a product of its own would lose. */
    const float a = 1 + 0x1p-23f, left[2] = { 1, a };
    float right[2 * GF_LOWRANK_GROUP] = { [0] = -1, [GF_LOWRANK_GROUP] = a }, dst = 0;
    struct gf_lowrank p = { left, right, 2, 1, false, GF_F32 };

    (void)state;
    gf_lowrank_c(&p, 0, 1, 1, &dst, 1);
    assert_true(dst == 0x1p-22f + 0x1p-46f);
}

static void the_sum_runs_upwards_and_is_scaled_before_it_is_added(void **state)
{
    struct world *w = *state;
    struct gf_lowrank p = product(w, 5, GF_F32, true);

    memcpy(w->got, w->before, sizeof(w->got));
    gf_lowrank_c(&p, 33, 2, 3, w->got + 1, STRIDE);
    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < 3; j++) {
            float sum = 0, weight;

            for (size_t k = 0; k < 5; k++)
                sum = fmaf(w->left[i * 5 + k], right_at(w, 5, k, 33 + j), sum);
            sum *= 1.7f;
            memcpy(&weight, w->before + 1 + (i * STRIDE + j) * 4, 4);
            sum += weight;
            assert_memory_equal(&sum, w->got + 1 + (i * STRIDE + j) * 4, 4);
        }
    assert_memory_equal(w->got + 1 + 12, w->before + 1 + 12, 4);
}

static void a_16_bit_sum_is_rounded_once_to_nearest_even(void **state)
{
    const float left = 1.00390625f, even = 1;
    float right[GF_LOWRANK_GROUP] = { 1 };
    struct gf_lowrank p = { &left, right, 1, 1, true, GF_BF16 };
    uint16_t weight = 0x4380; /* 256: the next bfloat16 is 258 */

    (void)state;
    gf_lowrank_c(&p, 0, 1, 1, &weight, 1);
    assert_int_equal(weight, 0x4381);
    weight = 0x4380;
    p.left = &even;
    gf_lowrank_c(&p, 0, 1, 1, &weight, 1);
    assert_int_equal(weight, 0x4380);
    weight = 0x6800; /* 2048 in float16: the next is 2050 */
    p.left = &left;
    p.dtype = GF_F16;
    gf_lowrank_c(&p, 0, 1, 1, &weight, 1);
    assert_int_equal(weight, 0x6801);
}

static void without_add_what_was_there_does_not_matter(void **state)
{
    struct world *w = *state;
    struct gf_lowrank p = product(w, 9, GF_F32, false);

    memset(w->got, 0xff, sizeof(w->got));
    memset(w->want, 0, sizeof(w->want));
    gf_lowrank_block(&p, 5, 4, 50, w->got, STRIDE);
    gf_lowrank_c(&p, 5, 4, 50, w->want, STRIDE);
    for (size_t i = 0; i < 4; i++)
        assert_memory_equal(w->got + i * STRIDE * 4, w->want + i * STRIDE * 4, 50 * 4);
}

static void a_rank_of_one_keeps_the_sign_of_zero(void **state)
{
    const float left[2] = { -1, -1 };
    float right[2 * GF_LOWRANK_GROUP] = { 0 }, dst = 1;
    struct gf_lowrank p = { left, right, 1, 1, false, GF_F32 };

    (void)state;
    gf_lowrank_block(&p, 0, 1, 1, &dst, 1);
    assert_true(dst == 0 && signbit(dst));
    p.rank = 2;
    gf_lowrank_block(&p, 0, 1, 1, &dst, 1);
    assert_true(dst == 0 && !signbit(dst));
}

static void a_rank_of_zero_is_a_delta_of_zero(void **state)
{
    struct world *w = *state;
    struct gf_lowrank p = product(w, 0, GF_BF16, true);

    memcpy(w->got, w->before, sizeof(w->got));
    gf_lowrank_block(&p, 0, ROWS, COLS, w->got + 1, STRIDE);
    assert_memory_equal(w->got, w->before, sizeof(w->got));
}

static void compare(struct world *w, const struct gf_lowrank_kernel *kernel,
                    struct gf_lowrank p, uint64_t col, size_t rows, size_t cols)
{
    memcpy(w->want, w->before, sizeof(w->want));
    memcpy(w->got, w->before, sizeof(w->got));
    gf_lowrank_c(&p, col, rows, cols, w->want + 1, STRIDE);
    kernel->fn(&p, col, rows, cols, w->got + 1, STRIDE);
    if (memcmp(w->want, w->got, sizeof(w->got)) != 0)
        fail_msg("%s differs: rank %zu, %s, %zu x %zu from column %u", kernel->name, p.rank,
                 gf_dtype_info(p.dtype)->safetensors, rows, cols, (unsigned)col);
}

static void vector_kernels_agree_with_the_reference_bit_for_bit(void **state)
{
    static const size_t ranks[] = { 1, 2, 7, 16, 33, 128, RANK };
    static const enum gf_dtype dtypes[] = { GF_F32, GF_BF16, GF_F16 };
    struct world *w = *state;

    for (const struct gf_lowrank_kernel *k = gf_lowrank_vector(); k->name; k++)
        for (int d = 0; d < 3; d++) {
            struct gf_lowrank p = product(w, 5, dtypes[d], true);

            for (size_t rows = 0; rows <= ROWS; rows++)
                compare(w, k, p, 0, rows, 37);
            for (size_t cols = 0; cols <= COLS; cols++)
                compare(w, k, p, 0, 3, cols);
            for (size_t col = 0; col < 70; col++)
                compare(w, k, p, col, 9, 40);
            for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
                p.rank = ranks[i];
                compare(w, k, p, 0, ROWS, COLS);
            }
            p = product(w, 6, GF_F32, false);
            compare(w, k, p, 3, 12, 90);
        }
}

static void the_environment_can_keep_the_reference(void **state)
{
    const struct gf_lowrank_kernel *kernel = gf_lowrank_vector();

    (void)state;
    setenv("GATHERFS_CPU", "c", 1);
    assert_string_equal(gf_lowrank_init(), "c");
    unsetenv("GATHERFS_CPU");
    assert_string_equal(gf_lowrank_init(), kernel->name ? kernel->name : "c");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_environment_can_keep_the_reference),
        cmocka_unit_test(sums_are_fused),
        cmocka_unit_test(the_sum_runs_upwards_and_is_scaled_before_it_is_added),
        cmocka_unit_test(a_16_bit_sum_is_rounded_once_to_nearest_even),
        cmocka_unit_test(without_add_what_was_there_does_not_matter),
        cmocka_unit_test(a_rank_of_one_keeps_the_sign_of_zero),
        cmocka_unit_test(a_rank_of_zero_is_a_delta_of_zero),
        cmocka_unit_test(vector_kernels_agree_with_the_reference_bit_for_bit),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
