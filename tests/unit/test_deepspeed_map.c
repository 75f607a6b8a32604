/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "base/math.h"
#include "format/deepspeed_map.h"

static void running_sums_stop_at_the_largest_number(void **state)
{
    uint64_t ends[3];

    (void)state;
    assert_false(gf_ds_ends((uint64_t[]){ 3, 0, 4 }, 3, ends));
    assert_int_equal(ends[0], 3);
    assert_int_equal(ends[1], 3);
    assert_int_equal(ends[2], 7);
    assert_true(gf_ds_ends((uint64_t[]){ UINT64_MAX, 1 }, 2, ends));
}

static void parts_of_a_parameter_add_up_to_it(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 40; n++)
        for (uint32_t world = 1; world < 12; world++) {
            uint64_t sum = 0;

            for (uint32_t r = 0; r < world; r++) {
                uint64_t used = gf_ds_part_used(n, world, r);

                assert_true(used <= gf_ds_part(n, world));
                /* All parts but the last used one are full: starts are r * part. */
                if (used)
                    assert_int_equal(sum, r * gf_ds_part(n, world));
                sum += used;
            }
            assert_int_equal(sum, n);
        }
}

static void few_elements_leave_the_last_ranks_empty(void **state)
{
    (void)state;
    assert_int_equal(gf_ds_part(1, 4), 1);
    assert_int_equal(gf_ds_part_used(1, 4, 0), 1);
    assert_int_equal(gf_ds_part_used(1, 4, 1), 0);
    assert_int_equal(gf_ds_part_used(5, 4, 2), 1);
    assert_int_equal(gf_ds_part_used(5, 4, 3), 0);
    /* Ranks so far out that their start overflows. */
    assert_int_equal(gf_ds_part_used(UINT64_MAX, 2, 2), 0);
    assert_int_equal(gf_ds_part_used(UINT64_MAX - 1, 2, 4000000000u), 0);
}

static void a_walk_crosses_parts_and_skips_empty_ones(void **state)
{
    static const uint64_t ends[] = { 4, 4, 9, 9, 9, 10 };
    static const struct {
        size_t part;
        uint64_t at, count;
    } want[] = { { 0, 2, 2 }, { 2, 0, 5 }, { 5, 0, 1 } };
    struct gf_ds_walk walk;
    uint64_t at, count;
    size_t part;

    (void)state;
    gf_ds_walk_start(&walk, ends, 6, 2, 8);
    for (size_t i = 0; i < GF_COUNT(want); i++) {
        assert_true(gf_ds_walk_next(&walk, &part, &at, &count));
        assert_int_equal(part, want[i].part);
        assert_int_equal(at, want[i].at);
        assert_int_equal(count, want[i].count);
    }
    assert_false(gf_ds_walk_next(&walk, &part, &at, &count));
}

static void every_walk_is_what_a_loop_over_elements_gives(void **state)
{
    static const uint64_t ends[] = { 0, 3, 5, 5, 9, 9 };

    (void)state;
    for (uint64_t off = 0; off <= 9; off++)
        for (uint64_t n = 0; off + n <= 9; n++) {
            struct gf_ds_walk walk;
            uint64_t at, count, pos = off;
            size_t part;

            gf_ds_walk_start(&walk, ends, 6, off, n);
            while (gf_ds_walk_next(&walk, &part, &at, &count))
                for (uint64_t i = 0; i < count; i++, pos++) {
                    size_t k = 0;

                    while (ends[k] <= pos)
                        k++;
                    assert_int_equal(part, k);
                    assert_int_equal(at + i, pos - (k ? ends[k - 1] : 0));
                }
            assert_int_equal(pos, off + n);
        }
}

static void a_walk_over_nothing_ends_at_once(void **state)
{
    struct gf_ds_walk walk;
    uint64_t at, count;
    size_t part;

    (void)state;
    gf_ds_walk_start(&walk, NULL, 0, 0, 5);
    assert_false(gf_ds_walk_next(&walk, &part, &at, &count));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(running_sums_stop_at_the_largest_number),
        cmocka_unit_test(parts_of_a_parameter_add_up_to_it),
        cmocka_unit_test(few_elements_leave_the_last_ranks_empty),
        cmocka_unit_test(a_walk_crosses_parts_and_skips_empty_ones),
        cmocka_unit_test(every_walk_is_what_a_loop_over_elements_gives),
        cmocka_unit_test(a_walk_over_nothing_ends_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
