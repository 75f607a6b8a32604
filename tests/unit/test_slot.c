/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>

#include "source/slot.h"

struct guard {
    uint8_t bytes[64];
    int entered, left, fails;
    uint32_t part;
};

static int enter(void *ctx, uint32_t part, const uint8_t **ret)
{
    struct guard *g = ctx;

    if (g->fails)
        return -g->fails;
    g->entered++;
    g->part = part;
    *ret = g->bytes;
    return 0;
}

static void leave(void *ctx, uint32_t part)
{
    struct guard *g = ctx;

    assert_int_equal(part, g->part);
    g->left++;
}

static const struct gf_slot_guard ops = { .enter = enter, .leave = leave };

static int setup(void **state)
{
    struct guard *g = calloc(1, sizeof(*g));

    for (size_t i = 0; i < sizeof(g->bytes); i++)
        g->bytes[i] = (uint8_t)i;
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    free(*state);
    return 0;
}

static void a_read_is_guarded(void **state)
{
    struct guard *g = *state;
    GF_AUTO(gf_source) src = NULL;
    uint8_t buf[4];

    GF_OK(gf_source_slot("rank-1", 64, &ops, g, 5, 7, &src, &t_err));
    GF_OK(gf_source_read(src, buf, 4, 60));
    assert_int_equal(buf[3], 63);
    assert_int_equal(g->part, 5);
    assert_int_equal(g->entered, 1);
    assert_int_equal(g->left, 1);
    assert_null(gf_source_map(src, 0, 4));
}

static void a_refused_read_gives_the_reason_and_is_not_left(void **state)
{
    struct guard *g = *state;
    GF_AUTO(gf_source) src = NULL;
    uint8_t buf[4];

    g->fails = ESTALE;
    GF_OK(gf_source_slot("rank-1", 64, &ops, g, 0, 7, &src, &t_err));
    GF_FAILS(gf_source_read_err(src, buf, 4, 0, &t_err), ESTALE, "'rank-1'");
    assert_int_equal(g->left, 0);
}

static void nothing_past_its_size_is_read(void **state)
{
    GF_AUTO(gf_source) src = NULL;
    uint8_t buf[8];

    GF_OK(gf_source_slot("rank-1", 8, &ops, *state, 0, 7, &src, &t_err));
    assert_int_equal(gf_source_read(src, buf, 8, 1), -EINVAL);
    assert_int_equal(((struct guard *)*state)->entered, 0);
}

static void steps_are_told_apart_and_belong_to_their_owner(void **state)
{
    GF_AUTO(gf_source) a = NULL;
    GF_AUTO(gf_source) b = NULL;

    GF_OK(gf_source_slot("rank-1", 8, &ops, *state, 0, 1, &a, &t_err));
    GF_OK(gf_source_slot("rank-1", 8, &ops, *state, 0, 2, &b, &t_err));
    assert_true(a->identity.mtime_ns != b->identity.mtime_ns);
    assert_int_equal(a->mode, 0400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_read_is_guarded, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_read_gives_the_reason_and_is_not_left,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_past_its_size_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(steps_are_told_apart_and_belong_to_their_owner,
                                        setup, teardown),
    };

    return cmocka_run_group_tests_name("slot", tests, NULL, NULL);
}
