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

/* ---- publishers that lie ---- */

struct liar {
    pthread_t thread;
    int sock, fd; /* listening; the control memory, or -1 */
    uint64_t bytes;
};

static void *lie(void *arg)
{
    struct liar *liar = arg;
    int sock = accept(liar->sock, NULL, NULL);
    struct gf_live_msg hello = { .type = GF_LIVE_HELLO, .bytes = liar->bytes };
    char end;

    if (sock < 0)
        return NULL;
    gf_live_send(sock, &hello, NULL, 0, liar->fd);
    if (recv(sock, &end, 1, 0) < 0)
        end = 0;
    close(sock);
    return NULL;
}

static void start_liar(struct t_job *t, struct liar *liar)
{
    struct sockaddr_un address;
    int dir;

    GF_OK(gf_live_dir_open(t->base, false, &dir, &t_err));
    close(dir);
    GF_OK(gf_live_dir_open(t->dir, true, &dir, &t_err));
    liar->sock = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    gf_live_address(dir, "rank-0.sock", &address);
    assert_int_equal(bind(liar->sock, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(liar->sock, 1), 0);
    close(dir);
    assert_int_equal(pthread_create(&liar->thread, NULL, lie, liar), 0);
}

static void end_liar(struct liar *liar)
{
    shutdown(liar->sock, SHUT_RDWR);
    pthread_join(liar->thread, NULL);
    close(liar->sock);
    close(liar->fd);
}

/* What a reader says of a publisher with this table, of which it says that it has `bytes`. */
static void expect_refusal(struct t_job *t, const struct gf_live_table *table,
                           uint64_t bytes, int code, const char *words)
{
    struct liar liar = { .bytes = bytes };
    struct gf_job *job;
    struct gf_ranks *ranks;
    uint64_t size;
    void *map;

    GF_OK(gf_live_table_size(table, &size, &t_err));
    GF_OK(gf_live_memory_new("lies", size, &liar.fd, &map, &t_err));
    gf_live_table_write(table, size, map);
    if (!bytes)
        liar.bytes = size;
    start_liar(t, &liar);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_FAILS(gf_job_ranks(job, false, &t_short, &ranks, &t_err), code, words);
    gf_job_free(job);
    end_liar(&liar);
    munmap(map, size);
}

static const uint64_t shape_8[1] = { 8 }, zero_1[1] = { 0 }, one_1[1] = { 1 };

static struct gf_live_tensor tensor_w(void)
{
    return (struct gf_live_tensor){ .name = "w",
                                    .dtype = GF_F32,
                                    .replicas = 1,
                                    .shape = { 1, shape_8 },
                                    .local = shape_8,
                                    .first = zero_1,
                                    .stride = one_1,
                                    .count = 8,
                                    .nbytes = 32 };
}

/* A publisher makes its run id of the world, too: only one that lies gets here. */
static void different_worlds_are_not_mixed(void **state)
{
    struct gf_said *said[2];

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct gf_live_tensor w = tensor_w();
        struct gf_live_table table = {
            .rank = i, .world = 2 + i, .nslots = 2, .n = 1, .at = &w
        };
        uint64_t size;
        void *map;
        int fd;

        GF_OK(gf_live_table_place(&table, &t_err));
        GF_OK(gf_live_table_size(&table, &size, &t_err));
        GF_OK(gf_live_memory_new("table", size, &fd, &map, &t_err));
        gf_live_table_write(&table, size, map);
        GF_OK(gf_said_read(i, fd, size, &gf_limits_default, &said[i], &t_err));
        munmap(map, size);
    }
    GF_FAILS(gf_ranks_agree("job", said, 2, &t_err), EINVAL,
             "rank 0 is one of 2, rank 1 one of 3");
    gf_said_free(said[0]);
    gf_said_free(said[1]);
}

static void memory_that_is_shorter_than_it_was_said_is_refused(void **state)
{
    struct gf_live_tensor w = tensor_w();
    struct gf_live_table table = { .world = 1, .nslots = 2, .n = 1, .at = &w };

    GF_OK(gf_live_table_place(&table, &t_err));
    expect_refusal(*state, &table, 1 << 20, GF_EBAD, "rank 0");
}

static void a_rank_that_says_it_is_another_is_refused(void **state)
{
    struct gf_live_tensor w = tensor_w();
    struct gf_live_table table = { .rank = 1, .world = 2, .nslots = 2, .n = 1, .at = &w };

    GF_OK(gf_live_table_place(&table, &t_err));
    expect_refusal(*state, &table, 0, GF_EBAD, "says that it is rank 1");
}

static void a_tensor_outside_its_slot_is_refused(void **state)
{
    struct gf_live_tensor w = tensor_w();
    struct gf_live_table table = { .world = 1, .nslots = 2, .n = 1, .at = &w };

    GF_OK(gf_live_table_place(&table, &t_err));
    w.data_off = 1 << 20;
    expect_refusal(*state, &table, 0, GF_EBAD, "'w'");
}

static void memory_that_is_not_sealed_is_refused(void **state)
{
    struct t_job *t = *state;
    struct liar liar = { .bytes = 8192 };
    struct gf_job *job;
    struct gf_ranks *ranks;

    liar.fd = memfd_create("lies", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(liar.fd, 8192), 0);
    start_liar(t, &liar);
    GF_OK(gf_job_open("job", &gf_limits_default, &job, &t_err));
    GF_FAILS(gf_job_ranks(job, false, &t_short, &ranks, &t_err), GF_EBAD, "rank 0");
    gf_job_free(job);
    end_liar(&liar);
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
        TEST(different_worlds_are_not_mixed),
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
        TEST(memory_that_is_shorter_than_it_was_said_is_refused),
        TEST(a_rank_that_says_it_is_another_is_refused),
        TEST(a_tensor_outside_its_slot_is_refused),
        TEST(memory_that_is_not_sealed_is_refused),
    };

    return cmocka_run_group_tests_name("job", tests, NULL, NULL);
}
