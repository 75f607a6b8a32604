/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_epoch.c - who sees which step. Leases here last a tenth of a second, not ten.
 */
#include "t.h"

#include "t_job.h"

#include "job/epoch.h"

#define IDLE 100
#define MAX 600
#define HARD 900

struct epochs {
    struct t_job *t;
    struct gf_job *job;
    struct gf_epochs *of;
};

static int setup(void **state)
{
    static const struct gf_lease_times times = { IDLE, MAX, HARD };
    struct epochs *e = calloc(1, sizeof(*e));
    void *t;

    assert_non_null(e);
    t_job_setup(&t);
    e->t = t;
    t_job_start(e->t, 2, "one");
    t_job_step(e->t);
    GF_OK(gf_job_open("job", &gf_limits_default, &e->job, &t_err));
    GF_OK(gf_epochs_new(e->job, &times, false, 3000, &e->of, &t_err));
    *state = e;
    return 0;
}

static int teardown(void **state)
{
    struct epochs *e = *state;
    void *t = e->t;

    gf_epochs_free(e->of);
    gf_job_free(e->job);
    t_job_teardown(&t);
    free(e);
    return 0;
}

static struct gf_epoch *get(struct epochs *e, pid_t reader)
{
    struct gf_epoch *epoch;

    GF_OK(gf_epochs_get(e->of, reader, NULL, &t_wait, &epoch, &t_err));
    return epoch;
}

/* The step that the reader gets, with a file open from now on. */
static uint64_t open_one(struct epochs *e, pid_t reader, struct gf_epoch **ret)
{
    uint64_t step = 0;

    *ret = get(e, reader);
    GF_OK(gf_epoch_open(*ret, reader, &t_wait, &t_err));
    assert_true(gf_epoch_step(*ret, &step));
    return step;
}

static void close_one(struct gf_epoch *epoch, pid_t reader)
{
    gf_epoch_close(epoch, reader);
    gf_epoch_free(epoch);
}

static void a_look_costs_the_trainer_nothing(void **state)
{
    struct epochs *e = *state;
    GF_AUTO(gf_epoch) epoch = get(e, 1);
    struct gatherfs_pub_stats stats = { .struct_size = sizeof(stats) };
    uint64_t step;

    assert_false(gf_epoch_step(epoch, &step));
    gatherfs_pub_stats(e->t->pub[0], &stats);
    assert_int_equal(stats.snapshots, 0);
    assert_int_equal(stats.memory, 0);
}

static void the_step_is_that_of_the_first_open(void **state)
{
    struct epochs *e = *state;
    GF_AUTO(gf_epoch) looked = get(e, 1);
    struct gf_epoch *opened;

    t_job_step(e->t);
    assert_int_equal(open_one(e, 1, &opened), 2);
    assert_ptr_equal(opened, looked);
    close_one(opened, 1);
}

static void a_process_stays_with_its_step(void **state)
{
    struct epochs *e = *state;
    struct gf_epoch *a, *b, *c;

    assert_int_equal(open_one(e, 1, &a), 1);
    t_job_step(e->t);
    assert_int_equal(open_one(e, 1, &b), 1);
    close_one(a, 1);
    close_one(b, 1);
    usleep(IDLE * 500);
    assert_int_equal(open_one(e, 1, &c), 1);
    close_one(c, 1);
}

static void others_join_while_it_is_in_use(void **state)
{
    struct epochs *e = *state;
    struct gf_epoch *a, *b;

    assert_int_equal(open_one(e, 1, &a), 1);
    t_job_step(e->t);
    assert_int_equal(open_one(e, 2, &b), 1);
    close_one(a, 1);
    close_one(b, 2);
}

static void after_a_while_there_is_a_new_one(void **state)
{
    struct epochs *e = *state;
    struct gf_epoch *a, *b;

    assert_int_equal(open_one(e, 1, &a), 1);
    close_one(a, 1);
    t_job_step(e->t);
    usleep(IDLE * 1500);
    assert_int_equal(open_one(e, 1, &b), 2);
    close_one(b, 1);
}

static void without_a_newer_step_the_old_one_is_kept(void **state)
{
    struct epochs *e = *state;
    struct gf_epoch *a, *b;

    open_one(e, 1, &a);
    close_one(a, 1);
    usleep(IDLE * 1500);
    open_one(e, 1, &b);
    assert_ptr_equal(a, b);
    close_one(b, 1);
}

static void an_old_one_is_left_to_those_who_have_it(void **state)
{
    struct epochs *e = *state;
    struct gf_epoch *a, *b, *c;

    assert_int_equal(open_one(e, 1, &a), 1);
    t_job_step(e->t);
    usleep(MAX * 1000);
    assert_int_equal(open_one(e, 2, &b), 2);
    assert_int_equal(open_one(e, 1, &c), 1);
    close_one(a, 1);
    close_one(b, 2);
    close_one(c, 1);
}

/* Both slots are read: whoever comes then shares the newest, until one has been read for too
 * long. */
static void slots_that_are_needed_are_taken_from_the_oldest(void **state)
{
    struct epochs *e = *state;
    struct gf_epoch *a, *b, *c, *d;
    const uint8_t *bytes;

    assert_int_equal(open_one(e, 1, &a), 1);
    t_job_step(e->t);
    usleep(MAX * 1000);
    assert_int_equal(open_one(e, 2, &b), 2);
    t_job_step(e->t);
    gf_epochs_refresh(e->of);
    assert_int_equal(open_one(e, 3, &c), 2);
    close_one(c, 3);
    usleep((HARD - MAX) * 1000);
    gf_epochs_refresh(e->of);
    assert_int_equal(open_one(e, 4, &d), 3);
    assert_true(gf_epoch_is_over(a));
    assert_int_equal(gf_epoch_guard.enter(a, 0, &bytes), -ESTALE);
    /* Never another step: what it has open is over, and so is what it opens now. */
    c = get(e, 1);
    assert_ptr_equal(c, a);
    assert_int_equal(gf_epoch_open(c, 1, &t_wait, &t_err), -ESTALE);
    gf_epoch_free(c);
    close_one(a, 1);
    close_one(b, 2);
    close_one(d, 4);
}

static void the_last_step_survives_the_trainer(void **state)
{
    struct epochs *e = *state;
    struct gf_epoch *a, *b;
    const uint8_t *bytes;

    assert_int_equal(open_one(e, 1, &a), 1);
    close_one(a, 1);
    t_job_end(e->t);
    for (int i = 0; i < 100 && gf_job_is_whole(e->job); i++)
        usleep(10000);
    usleep(IDLE * 1500);
    gf_epochs_tick(e->of);
    assert_int_equal(open_one(e, 1, &b), 1);
    assert_int_equal(gf_epoch_guard.enter(b, 2, &bytes), 0);
    assert_true(((const float *)(const void *)bytes)[0] == 1);
    gf_epoch_guard.leave(b, 2);
    close_one(b, 1);
}

static void without_any_step_a_dead_job_is_an_error(void **state)
{
    struct epochs *e = *state;
    GF_AUTO(gf_epoch) epoch = get(e, 1);

    t_job_end(e->t);
    for (int i = 0; i < 100 && gf_job_is_whole(e->job); i++)
        usleep(10000);
    GF_FAILS(gf_epoch_open(epoch, 1, &t_wait, &t_err), ENOTCONN, "has ended");
}

static void after_a_restart_old_promises_are_stale(void **state)
{
    struct epochs *e = *state;
    GF_AUTO(gf_epoch) old = get(e, 1);
    struct gf_epoch *fresh;

    t_job_end(e->t);
    e->t->step = 20;
    t_job_start(e->t, 3, "two");
    for (int i = 0;
         i < 300 && (gf_job_has(e->job, gf_epoch_ranks(old)) || !gf_job_is_whole(e->job));
         i++)
        usleep(10000);
    assert_int_equal(gf_epoch_open(old, 1, &t_wait, &t_err), -ESTALE);
    assert_int_equal(open_one(e, 1, &fresh), 20);
    assert_int_equal(gf_epoch_ranks(fresh)->n, 3);
    close_one(fresh, 1);
}

static void steps_that_are_held_can_be_named(void **state)
{
    struct epochs *e = *state;
    struct gf_epoch *a, *b;
    GF_AUTO(gf_epoch) named = NULL;
    uint64_t steps[4];

    open_one(e, 1, &a);
    t_job_step(e->t);
    usleep(MAX * 1000);
    open_one(e, 2, &b);
    assert_int_equal(gf_epochs_steps(e->of, steps, 4), 2);
    named = gf_epochs_at(e->of, 1);
    assert_ptr_equal(named, a);
    assert_null(gf_epochs_at(e->of, 3));
    close_one(a, 1);
    close_one(b, 2);
}

static void what_nobody_reads_is_given_back(void **state)
{
    struct epochs *e = *state;
    struct gf_epoch *a, *b;

    open_one(e, 1, &a);
    gf_epoch_close(a, 1);
    t_job_step(e->t);
    usleep(IDLE * 1500);
    open_one(e, 2, &b);
    gf_epochs_tick(e->of);
    assert_true(gf_epoch_is_over(a));
    assert_false(gf_epoch_is_over(b));
    gf_epoch_free(a);
    close_one(b, 2);
}

static void a_promise_that_nobody_waits_for_is_forgotten(void **state)
{
    struct epochs *e = *state;
    const uint64_t want = 5;
    struct gf_epoch *epoch;
    struct gf_ranks *ranks;
    unsigned refs;

    GF_OK(gf_epochs_get(e->of, 0, &want, &t_wait, &epoch, &t_err));
    ranks = gf_ranks_ref(gf_epoch_ranks(epoch));
    refs = atomic_load(&ranks->refs);
    gf_epochs_tick(e->of);
    assert_false(gf_epoch_is_over(epoch));
    gf_epoch_free(epoch);
    gf_epochs_tick(e->of);
    assert_int_equal(atomic_load(&ranks->refs), refs - 1);
    gf_ranks_free(ranks);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_look_costs_the_trainer_nothing),
        TEST(the_step_is_that_of_the_first_open),
        TEST(a_process_stays_with_its_step),
        TEST(others_join_while_it_is_in_use),
        TEST(after_a_while_there_is_a_new_one),
        TEST(without_a_newer_step_the_old_one_is_kept),
        TEST(an_old_one_is_left_to_those_who_have_it),
        TEST(slots_that_are_needed_are_taken_from_the_oldest),
        TEST(the_last_step_survives_the_trainer),
        TEST(without_any_step_a_dead_job_is_an_error),
        TEST(after_a_restart_old_promises_are_stale),
        TEST(steps_that_are_held_can_be_named),
        TEST(what_nobody_reads_is_given_back),
        TEST(a_promise_that_nobody_waits_for_is_forgotten),
    };

    return cmocka_run_group_tests_name("epoch", tests, NULL, NULL);
}
