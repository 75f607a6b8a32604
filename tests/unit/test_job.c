/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_job.h"

#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

/* ---- ranks ---- */

static void all_ranks_make_a_job(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;

    t_job_start(t, 3, "one");
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    assert_int_equal(ranks->n, 3);
    assert_int_equal(ranks->at[2].table->rank, 2);
    assert_true(gf_job_has(job, ranks));
}

static void a_job_that_is_not_there_is_named(void **state)
{
    struct gf_job *job;

    (void)state;
    GF_FAILS(gf_job_open("nothing", &gf_limits_default, &job, &t_err), ENOENT,
             "no job 'nothing'");
}

static void a_directory_without_sockets_is_no_job(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    struct gf_ranks *ranks;

    assert_int_equal(mkdir(t->dir, 0700), 0);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_FAILS(gf_job_ranks(job, false, &t_short, &ranks, &t_err), GF_EINCOMPLETE,
             "no rank of it is here");
}

static void missing_ranks_are_named(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    struct gf_ranks *ranks;

    t->world = 3;
    t->run_id = "one";
    t_job_rank(t, 1);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_FAILS(gf_job_ranks(job, false, &t_short, &ranks, &t_err), GF_EINCOMPLETE,
             "1 of 3 ranks are here; missing on this node: rank 0, 2");
}

static void some_ranks_will_do_if_that_is_allowed(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;

    t->world = 3;
    t->run_id = "one";
    t_job_rank(t, 1);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, true, &t_short, &ranks, &t_err));
    assert_int_equal(ranks->n, 1);
    assert_int_equal(ranks->world, 3);
}

static void ranks_of_two_starts_are_not_mixed(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    struct gf_ranks *ranks;

    t->world = 2;
    t->run_id = "one";
    t_job_rank(t, 0);
    t->run_id = "two";
    t_job_rank(t, 1);
    GF_OK(gf_job_open(t->dir, &gf_limits_default, &job, &t_err));
    GF_FAILS(gf_job_ranks(job, false, &t_short, &ranks, &t_err), EINVAL, "is of run");
}

static void of_replicas_one_is_chosen(void **state)
{
    struct t_job *t = *state;
    const uint64_t shape[1] = { T_EACH };
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_shot) shot = NULL;

    t->world = 2;
    for (uint32_t i = 0; i < 2; i++) {
        struct gatherfs_pub_options options = { .struct_size = sizeof(options),
                                                .job = "job",
                                                .rank = i,
                                                .world = 2,
                                                .run_id = "one",
                                                .rundir = t->base };
        struct gatherfs_tensor_desc w = { .struct_size = sizeof(w),
                                          .name = "w",
                                          .dtype = "float32",
                                          .data = t->w[i],
                                          .shape = shape,
                                          .ndim = 1,
                                          .replica = 1 - i,
                                          .replicas = 2 };

        assert_int_equal(gatherfs_pub_open(&options, &t->pub[i]), 0);
        assert_true(gatherfs_pub_add(t->pub[i], &w) >= 0);
        assert_int_equal(gatherfs_pub_start(t->pub[i]), 0);
    }
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    assert_false(ranks->at[0].moving);
    assert_true(ranks->at[1].moving);
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &shot, &t_err));
    assert_null(shot->at[0].memory);
    assert_non_null(shot->at[1].memory);
}

/* ---- steps ---- */

static void a_shot_is_one_step_of_all_ranks(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_shot) shot = NULL;

    t_job_start(t, 3, "one");
    t_job_step(t);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &shot, &t_err));
    assert_int_equal(shot->step, 1);
    t_job_step(t);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(t_job_value(shot, i) == 1);
}

/* Ranks that are not at one step now are waited for. */
struct late {
    struct t_job *t;
    uint32_t rank;
};

static void *catch_up(void *arg)
{
    struct late *late = arg;
    const struct timespec pause = { .tv_nsec = 50000000 };

    nanosleep(&pause, NULL);
    t_job_step_rank(late->t, late->rank, 2);
    return NULL;
}

static void a_rank_that_is_behind_is_waited_for(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_shot) shot = NULL;
    struct late late = { t, 1 };
    pthread_t thread;

    t_job_start(t, 2, "one");
    t_job_step(t);
    t_job_step_rank(t, 0, 2);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    assert_int_equal(pthread_create(&thread, NULL, catch_up, &late), 0);
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &shot, &t_err));
    pthread_join(thread, NULL);
    assert_int_equal(shot->step, 2);
    assert_true(t_job_value(shot, 0) == 2);
    assert_true(t_job_value(shot, 1) == 2);
}

static void a_rank_that_does_not_come_is_named(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_shot) shot = NULL;

    t_job_start(t, 2, "one");
    t_job_step_rank(t, 0, 1);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    GF_FAILS(gf_job_take(job, ranks, NULL, &t_short, &shot, &t_err), ETIMEDOUT,
             "rank 1 did not reach step 1");
    /* Nothing stays armed or leased: the next one is had. */
    t_job_step_rank(t, 1, 1);
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &shot, &t_err));
    assert_int_equal(shot->step, 1);
}

static void a_step_that_is_over_cannot_be_had(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    struct gf_shot *shot;
    const uint64_t want = 1;

    t_job_start(t, 2, "one");
    for (int i = 0; i < 3; i++)
        t_job_step(t);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    GF_FAILS(gf_job_take(job, ranks, &want, &t_wait, &shot, &t_err), ENOENT,
             "step 1 is over: job 'job' is at step 3");
}

static void slots_go_back(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    struct gf_shot *a, *b, *c;

    t_job_start(t, 2, "one");
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &a, &t_err));
    t_job_step(t);
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &b, &t_err));
    t_job_step(t);
    /* There is none: the newest is shared. */
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &c, &t_err));
    assert_ptr_equal(c, b);
    gf_shot_free(c);
    gf_shot_free(a);
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &c, &t_err));
    assert_int_equal(c->step, 2);
    gf_shot_free(b);
    gf_shot_free(c);
}

static bool at_once(void *ctx)
{
    (void)ctx;
    return true;
}

static void who_gives_up_is_let_go(void **state)
{
    const struct gf_wait impatient = { .ms = 60000, .gave_up = at_once };
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    struct gf_shot *shot;

    t_job_start(t, 2, "one");
    t_job_step_rank(t, 0, 1);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    GF_FAILS(gf_job_take(job, ranks, NULL, &impatient, &shot, &t_err), EINTR,
             "interrupted");
}

/* ---- ends and starts ---- */

static void a_shot_outlives_its_publishers_and_its_job(void **state)
{
    struct t_job *t = *state;
    struct gf_job *job;
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_shot) shot = NULL;
    struct gf_shot *none;

    t_job_start(t, 2, "one");
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &shot, &t_err));
    t_job_end(t);
    for (int i = 0; i < 100 && gf_job_has(job, ranks); i++)
        usleep(10000);
    GF_FAILS(gf_job_take(job, ranks, NULL, &t_wait, &none, &t_err), ENOTCONN,
             "has ended or is restarting");
    gf_job_free(job);
    assert_true(t_job_value(shot, 1) == 0);
}

static void a_restarted_job_is_another_set_of_ranks(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_ranks) fresh = NULL;
    GF_AUTO(gf_shot) shot = NULL;
    struct gf_shot *none;

    t_job_start(t, 2, "one");
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    t_job_end(t);
    t->step = 10;
    t_job_start(t, 3, "two");
    for (int i = 0; i < 300 && (gf_job_has(job, ranks) || !gf_job_is_whole(job)); i++)
        usleep(10000);
    GF_OK(gf_job_ranks(job, false, &t_wait, &fresh, &t_err));
    assert_int_equal(fresh->n, 3);
    GF_FAILS(gf_job_take(job, ranks, NULL, &t_wait, &none, &t_err), ESTALE,
             "was started again");
    GF_OK(gf_job_take(job, fresh, NULL, &t_wait, &shot, &t_err));
    assert_int_equal(shot->step, 10);
}

static void a_socket_that_nobody_listens_to_is_passed_over(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    struct sockaddr_un address;
    int dir, sock = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    t_job_start(t, 2, "one");
    GF_OK(gf_live_dir_open(t->dir, false, &dir, &t_err));
    gf_live_address(dir, "rank-7.sock", &address);
    assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
    close(sock);
    close(dir);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    assert_int_equal(ranks->n, 2);
}

/* ---- several readers ---- */

static void a_job_whose_sockets_all_refuse_has_ended(void **state)
{
    struct t_job *t = *state;
    const struct gf_wait wait = { .ms = 30000 };
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    struct sockaddr_un address;
    int64_t start = gf_now_ms();
    int dir, sock = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    assert_int_equal(mkdir(t->dir, 0700), 0);
    GF_OK(gf_live_dir_open(t->dir, false, &dir, &t_err));
    gf_live_address(dir, "rank-0.sock", &address);
    assert_int_equal(bind(sock, (struct sockaddr *)&address, sizeof(address)), 0);
    close(sock);
    close(dir);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_FAILS(gf_job_ranks(job, false, &wait, &ranks, &t_err), GF_EINCOMPLETE,
             "its trainer has ended");
    assert_true(gf_now_ms() - start < 10000);
    /* Started again after all. */
    t_job_start(t, 2, "one");
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    assert_int_equal(ranks->n, 2);
}

static void a_second_reader_asks_the_first(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_job) second = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_ranks) theirs = NULL;
    GF_AUTO(gf_shot) shot = NULL;
    struct gf_shot *again;

    t_job_start(t, 2, "one");
    t_job_step(t);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    GF_OK(gf_job_open("job", &gf_limits_default, &second, &t_err));
    GF_OK(gf_job_ranks(second, false, &t_wait, &theirs, &t_err));
    assert_int_equal(theirs->n, 2);
    GF_OK(gf_job_take(second, theirs, NULL, &t_wait, &shot, &t_err));
    assert_int_equal(shot->step, 1);
    assert_true(t_job_value(shot, 0) == 1);
    assert_true(t_job_value(shot, 1) == 1);
    /* What it gives back can be had again. */
    for (int i = 0; i < 5; i++) {
        t_job_step(t);
        GF_OK(gf_job_take(second, theirs, NULL, &t_wait, &again, &t_err));
        assert_int_equal(again->step, t->step);
        gf_shot_free(again);
    }
    assert_true(t_job_value(shot, 1) == 1);
}

static void a_guest_takes_over_when_its_agent_ends(void **state)
{
    struct t_job *t = *state;
    struct gf_job *job;
    GF_AUTO(gf_job) second = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_ranks) fresh = NULL;
    GF_AUTO(gf_shot) old = NULL;
    GF_AUTO(gf_shot) shot = NULL;

    t_job_start(t, 2, "one");
    t_job_step(t);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    gf_ranks_free(gf_take(&ranks));
    GF_OK(gf_job_open("job", &gf_limits_default, &second, &t_err));
    GF_OK(gf_job_ranks(second, false, &t_wait, &ranks, &t_err));
    GF_OK(gf_job_take(second, ranks, NULL, &t_wait, &old, &t_err));
    gf_job_free(job);
    for (int i = 0; i < 300 && (gf_job_has(second, ranks) || !gf_job_is_whole(second)); i++)
        usleep(10000);
    t_job_step(t);
    GF_OK(gf_job_ranks(second, false, &t_wait, &fresh, &t_err));
    GF_OK(gf_job_take(second, fresh, NULL, &t_wait, &shot, &t_err));
    assert_int_equal(shot->step, 2);
    assert_true(t_job_value(shot, 1) == 2);
    assert_true(t_job_value(old, 1) == 1);
}

static void the_agent_has_the_last_step_for_others(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_job) second = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_ranks) theirs = NULL;
    GF_AUTO(gf_shot) held = NULL;
    GF_AUTO(gf_shot) shot = NULL;

    t_job_start(t, 2, "one");
    t_job_step(t);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    GF_OK(gf_job_take(job, ranks, NULL, &t_wait, &held, &t_err));
    t_job_end(t);
    for (int i = 0; i < 300 && gf_job_is_whole(job); i++)
        usleep(10000);
    GF_OK(gf_job_open("job", &gf_limits_default, &second, &t_err));
    GF_OK(gf_job_ranks(second, false, &t_wait, &theirs, &t_err));
    GF_OK(gf_job_take(second, theirs, NULL, &t_wait, &shot, &t_err));
    assert_true(t_job_value(shot, 0) == 1);
}

/* Somebody waits for a step that is far away. */
struct patient {
    struct gf_job *job;
    struct gf_ranks *ranks;
    pthread_t thread;
    int r;
};

static void *wait_for_it(void *arg)
{
    struct patient *p = arg;
    const struct gf_wait wait = { .ms = 1000 };
    const uint64_t want = 1000;
    struct gf_shot *shot = NULL;

    p->r = gf_job_take(p->job, p->ranks, &want, &wait, &shot, NULL);
    gf_shot_free(shot);
    return NULL;
}

static void expect_no_hold_up(struct t_job *t, struct gf_job *job, struct gf_job *of)
{
    GF_AUTO(gf_ranks) ranks = NULL;
    GF_AUTO(gf_ranks) again = NULL;
    struct patient p = { .job = of };
    const struct gf_wait wait = { .ms = 500 };
    struct gf_shot *shot;
    int64_t start;

    GF_OK(gf_job_ranks(of, false, &t_wait, &p.ranks, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    start = gf_now_ms();
    assert_int_equal(pthread_create(&p.thread, NULL, wait_for_it, &p), 0);
    usleep(50000);
    for (int i = 0; i < 3; i++) {
        t_job_step(t);
        GF_OK(gf_job_take(job, ranks, NULL, &wait, &shot, &t_err));
        assert_int_equal(shot->step, t->step);
        gf_shot_free(shot);
    }
    GF_OK(gf_job_ranks(job, false, &wait, &again, &t_err));
    assert_true(gf_now_ms() - start < 1000);
    pthread_join(p.thread, NULL);
    gf_ranks_free(p.ranks);
    assert_int_equal(p.r, -ETIMEDOUT);
}

static void a_step_that_is_far_holds_nobody_up(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;

    t_job_start(t, 2, "one");
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    expect_no_hold_up(t, job, job);
}

static void a_guests_step_that_is_far_holds_nobody_up(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    GF_AUTO(gf_job) second = NULL;
    GF_AUTO(gf_ranks) ranks = NULL;

    t_job_start(t, 2, "one");
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_OK(gf_job_ranks(job, false, &t_wait, &ranks, &t_err));
    GF_OK(gf_job_open("job", &gf_limits_default, &second, &t_err));
    expect_no_hold_up(t, job, second);
    expect_no_hold_up(t, second, second);
}

static void a_step_that_is_far_is_had_when_it_comes(void **state)
{
    struct t_job *t = *state;
    GF_AUTO(gf_job) job = NULL;
    struct patient p = { 0 };

    t_job_start(t, 2, "one");
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    p.job = job;
    GF_OK(gf_job_ranks(job, false, &t_wait, &p.ranks, &t_err));
    assert_int_equal(pthread_create(&p.thread, NULL, wait_for_it, &p), 0);
    usleep(50000);
    while (t->step < 1002)
        t_job_step(t);
    pthread_join(p.thread, NULL);
    gf_ranks_free(p.ranks);
    assert_int_equal(p.r, 0);
}
int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, t_job_setup, t_job_teardown)
    const struct CMUnitTest tests[] = {
        TEST(all_ranks_make_a_job),
        TEST(a_job_that_is_not_there_is_named),
        TEST(a_directory_without_sockets_is_no_job),
        TEST(missing_ranks_are_named),
        TEST(some_ranks_will_do_if_that_is_allowed),
        TEST(ranks_of_two_starts_are_not_mixed),
        TEST(of_replicas_one_is_chosen),
        TEST(a_shot_is_one_step_of_all_ranks),
        TEST(a_rank_that_is_behind_is_waited_for),
        TEST(a_rank_that_does_not_come_is_named),
        TEST(a_step_that_is_over_cannot_be_had),
        TEST(slots_go_back),
        TEST(who_gives_up_is_let_go),
        TEST(a_shot_outlives_its_publishers_and_its_job),
        TEST(a_restarted_job_is_another_set_of_ranks),
        TEST(a_socket_that_nobody_listens_to_is_passed_over),
        TEST(a_job_whose_sockets_all_refuse_has_ended),
        TEST(a_second_reader_asks_the_first),
        TEST(a_guest_takes_over_when_its_agent_ends),
        TEST(the_agent_has_the_last_step_for_others),
        TEST(a_step_that_is_far_holds_nobody_up),
        TEST(a_guests_step_that_is_far_holds_nobody_up),
        TEST(a_step_that_is_far_is_had_when_it_comes),
    };

    return cmocka_run_group_tests_name("job", tests, NULL, NULL);
}
