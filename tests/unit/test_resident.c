/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resident: loaded once, shared, evicted in the order of last use, and failures that those
 * who waited share and the one who asked next does not inherit.
 */
#include "t.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "gather/resident.h"

enum { N = 1000, BYTES = N * 4 };

struct loads {
    atomic_int n;
    int fail;
    float first;
};

static int fill(void *ctx, float *values)
{
    struct loads *loads = ctx;

    atomic_fetch_add(&loads->n, 1);
    if (loads->fail)
        return loads->fail;
    for (int i = 0; i < N; i++)
        values[i] = loads->first + (float)i;
    return 0;
}

static const struct gf_resident_item *get(struct gf_resident *r, uint32_t tensor,
                                          struct loads *loads)
{
    struct gf_resident_key key = { .tensor = tensor };
    const struct gf_resident_item *item = NULL;

    loads->first = (float)tensor;
    assert_int_equal(gf_resident_get(r, &key, N, fill, loads, &item), 0);
    assert_true(item->values[N - 1] == (float)tensor + N - 1);
    assert_int_equal((uintptr_t)item->values % 64, 0);
    return item;
}

static int setup(void **state)
{
    struct gf_resident *r = NULL;

    GF_OK(gf_resident_new(3 * (BYTES + 256), &r, &t_err));
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    gf_resident_free(*state);
    return 0;
}

static void the_same_key_is_loaded_once(void **state)
{
    struct loads loads = { 0 };
    const struct gf_resident_item *a = get(*state, 1, &loads), *b = get(*state, 1, &loads);

    assert_ptr_equal(a, b);
    gf_resident_put(*state, a);
    gf_resident_put(*state, b);
    gf_resident_put(*state, get(*state, 1, &loads));
    assert_int_equal(loads.n, 1);
}

static void every_part_of_a_key_counts(void **state)
{
    const struct gf_resident_key keys[] = {
        { 0 },           { .owner = "x" }, { .part = 1 }, { .catalog = 1 },
        { .tensor = 1 }, { .form = 1 },
    };
    struct loads loads = { 0 };

    for (int i = 0; i < 6; i++) {
        const struct gf_resident_item *item = NULL;

        loads.first = (float)i;
        assert_int_equal(gf_resident_get(*state, &keys[i], N, fill, &loads, &item), 0);
        assert_true(item->values[0] == (float)i);
        gf_resident_put(*state, item);
    }
    assert_int_equal(loads.n, 6);
}

static void the_least_recently_used_goes_first(void **state)
{
    struct loads loads = { 0 };

    for (uint32_t t = 1; t <= 3; t++)
        gf_resident_put(*state, get(*state, t, &loads));
    gf_resident_put(*state, get(*state, 1, &loads)); /* 2 is the oldest now */
    gf_resident_put(*state, get(*state, 4, &loads));
    assert_int_equal(loads.n, 4);
    gf_resident_put(*state, get(*state, 1, &loads));
    gf_resident_put(*state, get(*state, 3, &loads));
    assert_int_equal(loads.n, 4);
    gf_resident_put(*state, get(*state, 2, &loads));
    assert_int_equal(loads.n, 5);
    assert_in_range(gf_resident_bytes(*state), 3 * BYTES, 3 * (BYTES + 256));
}

static void what_is_held_stays(void **state)
{
    const struct gf_resident_item *held[6];
    struct loads loads = { 0 };

    for (uint32_t t = 0; t < 6; t++)
        held[t] = get(*state, t, &loads);
    assert_in_range(gf_resident_bytes(*state), 6 * BYTES, 6 * (BYTES + 256));
    for (uint32_t t = 0; t < 6; t++)
        assert_true(held[t]->values[0] == (float)t);
    for (uint32_t t = 0; t < 6; t++)
        gf_resident_put(*state, held[t]);
    assert_in_range(gf_resident_bytes(*state), 3 * BYTES, 3 * (BYTES + 256));
}

static void a_failed_load_leaves_nothing_and_can_be_tried_again(void **state)
{
    struct gf_resident_key key = { .tensor = 9 };
    const struct gf_resident_item *item = NULL;
    struct loads loads = { .fail = -EIO };

    assert_int_equal(gf_resident_get(*state, &key, N, fill, &loads, &item), -EIO);
    assert_null(item);
    assert_int_equal(gf_resident_bytes(*state), 0);
    loads.fail = 0;
    gf_resident_put(*state, get(*state, 9, &loads));
}

static void sizes_that_no_memory_holds_are_refused(void **state)
{
    struct gf_resident_key key = { .tensor = 9 };
    const struct gf_resident_item *item = NULL;
    struct loads loads = { 0 };

    assert_int_equal(gf_resident_get(*state, &key, UINT64_MAX / 4, fill, &loads, &item),
                     -ENOMEM);
    assert_int_equal(gf_resident_get(*state, &key, UINT64_MAX, fill, &loads, &item),
                     -ENOMEM);
    assert_int_equal(loads.n, 0);
}

/* Loading 1 waits until 2 was loaded: that must not wait for 1. */
static int wait_for_other(void *ctx, float *values)
{
    struct loads *loads = ctx;

    for (int i = 0; i < 10000 && atomic_load(&loads->n) == 0; i++)
        usleep(1000);
    values[0] = atomic_load(&loads->n) ? 1 : -1;
    return 0;
}

static void *hold_slow(void *resident)
{
    static struct loads other;
    struct gf_resident_key slow = { .tensor = 1 };
    const struct gf_resident_item *item = NULL;
    static atomic_int turn;

    if (atomic_fetch_add(&turn, 1) == 3)
        gf_resident_put(resident, get(resident, 2, &other));
    assert_int_equal(gf_resident_get(resident, &slow, N, wait_for_other, &other, &item), 0);
    assert_true(item->values[0] == 1);
    gf_resident_put(resident, item);
    return NULL;
}

static void a_slow_load_holds_up_only_those_who_want_it(void **state)
{
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hold_slow, *state), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static int fail_slowly(void *ctx, float *values)
{
    struct loads *loads = ctx;

    (void)values;
    atomic_fetch_add(&loads->n, 1);
    usleep(200000);
    return -EIO;
}

static struct loads failing;

static void *want_broken(void *resident)
{
    struct gf_resident_key key = { .tensor = 1 };
    const struct gf_resident_item *item = NULL;

    assert_int_equal(gf_resident_get(resident, &key, N, fail_slowly, &failing, &item),
                     -EIO);
    assert_null(item);
    return NULL;
}

static void those_who_wait_for_a_load_fail_with_it(void **state)
{
    pthread_t threads[4];

    assert_int_equal(pthread_create(&threads[0], NULL, want_broken, *state), 0);
    while (!atomic_load(&failing.n))
        usleep(100);
    for (int i = 1; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, want_broken, *state), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(failing.n, 1);
    assert_int_equal(gf_resident_bytes(*state), 0);
    want_broken(*state); /* the next one tries */
    assert_int_equal(failing.n, 2);
}

static void *churn(void *resident)
{
    struct loads loads = { 0 };

    for (uint32_t i = 0; i < 3000; i++)
        gf_resident_put(resident, get(resident, (i * 7 + i / 13) % 11, &loads));
    return NULL;
}

static void many_threads_share_a_budget_that_is_too_small(void **state)
{
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, *state), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_in_range(gf_resident_bytes(*state), BYTES, 3 * (BYTES + 256));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(the_same_key_is_loaded_once),
        TEST(every_part_of_a_key_counts),
        TEST(the_least_recently_used_goes_first),
        TEST(what_is_held_stays),
        TEST(a_failed_load_leaves_nothing_and_can_be_tried_again),
        TEST(sizes_that_no_memory_holds_are_refused),
        TEST(a_slow_load_holds_up_only_those_who_want_it),
        TEST(those_who_wait_for_a_load_fail_with_it),
        TEST(many_threads_share_a_budget_that_is_too_small),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
