/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a publisher, with a reader in the same process; test_request.c has what readers
 * may ask for, tests/live several processes that are stopped and killed. */
#include "t.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "live/publish_int.h"
#include "check.h"

/* ---------------------------------------------------------------- tables */

static void a_new_table_is_a_new_incarnation(void **state)
{
    struct job job = { 0 };
    float other[6];
    uint64_t old;
    struct reader r;
    const float *left;

    (void)state;
    OK(job_start(&job));
    OK(gatherfs_pub_metric(job.pub, "loss", 0.5));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_select(&r, 0, 1, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(reader_arm(&r, 0, 0), 0);
    expect(&r, GF_LIVE_READY);
    assert_int_equal(reader_arm(&r, 0, 10), 0);
    left = (const float *)(const void *)r.slots[r.msg.slot];
    r.slots[r.msg.slot] = NULL;
    old = r.table->incarnation;
    usleep(20000);
    OK(gatherfs_pub_reset_table(job.pub));
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_NO_TABLE);
    assert_int_equal(reader_arm(&r, 0, 10), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_NO_TABLE);
    job_step(&job, 1); /* training does not wait for the new one */
    job_set(other, 6, 42);
    assert_int_equal(job_add(&job, "other", other, 6, 0), 0);
    OK(gatherfs_pub_start(job.pub));
    expect(&r, GF_LIVE_TABLE);
    assert_int_equal(r.msg.step, 1);
    assert_true(r.table->incarnation > old);
    assert_int_equal(r.table->n, 1);
    assert_int_equal(reader_ready(&r, 1), 0);
    assert_int_equal(reader_arm(&r, 0, 1), 0);
    expect(&r, GF_LIVE_READY);
    assert_true(job_holds(&r, r.msg.slot, 0, 42));
    assert_true(left[0] == 0 && left[31] == 0);
    munmap((void *)(uintptr_t)left, 4096);
    {
        char name[GF_LIVE_METRIC_NAME + 1];
        double value;
        uint64_t step;

        assert_true(gf_live_metric_load(r.control, 0, name, &value, &step));
        assert_string_equal(name, "loss");
    }
    reader_close(&r);
    job_end(&job);
}

static void a_tensor_may_move(void **state)
{
    struct job job = { 0 };
    struct reader r;
    float elsewhere[32];

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_select(&r, 0, 1, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    job_set(elsewhere, 32, 9);
    OK(gatherfs_pub_begin(job.pub));
    OK(gatherfs_pub_set_ptr(job.pub, W, elsewhere));
    OK(gatherfs_pub_commit(job.pub, 1));
    assert_int_equal(reader_arm(&r, 0, 1), 0);
    expect(&r, GF_LIVE_READY);
    assert_true(job_holds(&r, r.msg.slot, W, 9));
    FAILS(gatherfs_pub_set_ptr(job.pub, 99, elsewhere), EINVAL, "no tensor 99");
    FAILS(gatherfs_pub_set_ptr(job.pub, W, NULL), EINVAL, "'w' has no address");
    reader_close(&r);
    job_end(&job);
}

static void unverified_commits_are_no_snapshots(void **state)
{
    struct job job = { .options.verify = 1 };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    job_step(&job, 1); /* nobody was there: not verified */
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_select(&r, 0, 1, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(reader_arm(&r, 0, 1), 0);
    expect_why(&r, GF_LIVE_MISSED, GF_LIVE_WHY_BUFFERS);
    assert_int_equal(reader_arm(&r, 0, 2), 0);
    usleep(20000);
    job_step(&job, 2);
    expect_why(&r, GF_LIVE_MISSED, GF_LIVE_WHY_BUFFERS);
    assert_int_equal(gatherfs_pub_wanted(job.pub), 1);
    job_step(&job, 3);
    assert_int_equal(reader_arm(&r, 0, 3), 0);
    expect(&r, GF_LIVE_READY);
    assert_true(job_holds(&r, r.msg.slot, W, 3));
    job_step(&job, 4);
    OK(gatherfs_pub_reset_table(job.pub)); /* a new table's addresses are those of now */
    OK(job_add(&job, "w", job.w, 32, 0));
    OK(gatherfs_pub_start(job.pub));
    expect(&r, GF_LIVE_TABLE);
    assert_int_equal(reader_ready(&r, 1), 0);
    assert_int_equal(reader_arm(&r, 0, 4), 0);
    expect(&r, GF_LIVE_READY);
    assert_true(job_holds(&r, r.msg.slot, 0, 4));
    reader_close(&r);
    job_end(&job);
}

/* ---------------------------------------------------------------- ends */

static void final_without_a_reader_does_not_wait(void **state)
{
    struct job job = { 0 };
    uint64_t start = reader_now_ms();

    (void)state;
    OK(job_start(&job));
    OK(gatherfs_pub_final(job.pub, 60 * SEC));
    assert_in_range(reader_now_ms() - start, 0, 10 * SEC);
    job_end(&job);
}

static void final_waits_for_the_reader(void **state)
{
    struct job job = { 0 };
    struct reader r;
    int status;
    pid_t pid;

    (void)state;
    assert_int_equal(job_open(&job), 0);
    gatherfs_pub_close(job.pub);
    pid = fork();
    if (pid == 0) { /* the trainer */
        struct job mine = job;
        uint64_t step = 0;

        OK(gatherfs_pub_open(&mine.options, &mine.pub));
        OK(job_fill(&mine));
        while (!gatherfs_pub_wanted(mine.pub))
            usleep(1000);
        usleep(50000);
        while (step < 5)
            job_step(&mine, ++step);
        status = gatherfs_pub_final(mine.pub, 20 * SEC);
        job_update(&mine, 99); /* after final nobody looks here */
        _exit(status ? 1 : 0); /* dies without close */
    }
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_ready(&r, 1), 0);
    assert_int_equal(reader_arm(&r, 0, 1000), 0);
    expect_why(&r, GF_LIVE_MISSED, GF_LIVE_WHY_PASSED);
    expect(&r, GF_LIVE_FINAL);
    assert_int_equal(r.msg.step, 5);
    assert_int_equal(reader_arm(&r, 0, 5), 0); /* buffers too: nothing changes any more */
    expect(&r, GF_LIVE_READY);
    assert_int_equal(reader_say(&r, (struct gf_live_msg){ .type = GF_LIVE_BYE }), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(reader_wait(&r, 5 * SEC), -EPIPE);
    assert_true(job_holds(&r, 0, W, 5));
    assert_true(job_holds(&r, 0, MEAN, 2005));
    assert_true(job_holds(&r, 0, FROZEN, 1000));
    reader_close(&r);

    /* Its socket is stale; the next start takes it over and cleans up. */
    OK(gatherfs_pub_open(&job.options, &job.pub));
    job_end(&job);
    assert_int_equal(access(job.base, F_OK), -1);
}

static void final_gives_up_on_a_reader_that_sleeps(void **state)
{
    struct job job = { 0 };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    FAILS(gatherfs_pub_final(job.pub, 50), ETIMEDOUT, "50 ms");
    reader_close(&r);
    job_end(&job);
}

static void close_says_bye_and_leaves_nothing(void **state)
{
    struct job job = { .options.world = 2 };
    struct gatherfs_pub_options other;
    struct gatherfs_pub *pub;
    char path[120];
    struct reader r;

    (void)state;
    OK(job_start(&job));
    other = job.options;
    other.rank = 1;
    OK(gatherfs_pub_open(&other, &pub));
    OK(gatherfs_pub_file(job.pub, "config.json", "{}", 2));
    OK(gatherfs_pub_file(pub, "config.json", "{} ", 3));
    FAILS(gatherfs_pub_file(pub, "../x", "", 0), EINVAL, "side file");
    FAILS(gatherfs_pub_file(pub, ".x", "", 0), EINVAL, "side file");
    snprintf(path, sizeof(path), "%s/model/config.json", job.dir);
    {
        struct stat st;

        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, 3);
        assert_int_equal(stat(job.dir, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0700);
    }
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    gatherfs_pub_close(job.pub);
    expect(&r, GF_LIVE_BYE);
    assert_int_equal(reader_wait(&r, 5 * SEC), -EPIPE);
    reader_close(&r);
    assert_int_equal(access(path, F_OK), 0); /* rank 1 is still there */
    job.pub = pub;
    job_end(&job);
    assert_int_equal(access(job.base, F_OK), -1);
}

static void files_of_others_stay(void **state)
{
    struct job job = { 0 };
    char mine[120], theirs[120], replaced[120], model[120];
    FILE *f;

    (void)state;
    OK(job_start(&job));
    OK(gatherfs_pub_file(job.pub, "config.json", "{}", 2));
    OK(gatherfs_pub_file(job.pub, "tokenizer.json", "{}", 2));
    snprintf(mine, sizeof(mine), "%s/model/config.json", job.dir);
    snprintf(theirs, sizeof(theirs), "%s/model/model.safetensors", job.dir);
    snprintf(replaced, sizeof(replaced), "%s/model/tokenizer.json", job.dir);
    f = fopen(theirs, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(unlink(replaced), 0);
    f = fopen(replaced, "w");
    assert_non_null(f);
    fclose(f);
    gatherfs_pub_close(job.pub);
    job.pub = NULL;
    assert_int_equal(access(mine, F_OK), -1);
    assert_int_equal(access(theirs, F_OK), 0);
    assert_int_equal(access(replaced, F_OK), 0);
    snprintf(model, sizeof(model), "%s/model", job.dir);
    unlink(theirs);
    unlink(replaced);
    assert_int_equal(rmdir(model), 0);
    assert_int_equal(rmdir(job.dir), 0);
    job_end(&job);
}

static void a_rank_is_published_once(void **state)
{
    struct job job = { 0 };
    struct gatherfs_pub *pub = NULL;

    (void)state;
    OK(job_start(&job));
    FAILS(gatherfs_pub_open(&job.options, &pub), EADDRINUSE, "rank 0 of job 'run'");
    assert_null(pub);
    job_step(&job, 1);
    job_end(&job);
    assert_int_equal(access(job.base, F_OK), -1);
}

static void a_forked_child_is_dead_to_readers(void **state)
{
    struct job job = { 0 };
    struct reader r;
    int status, go[2];
    pid_t pid;

    (void)state;
    assert_int_equal(job_open(&job), 0);
    gatherfs_pub_close(job.pub);
    assert_int_equal(pipe(go), 0);
    pid = fork();
    if (pid == 0) { /* a trainer that forks a data loader and dies */
        struct job mine = job;
        char c;

        close(go[1]);
        OK(gatherfs_pub_open(&mine.options, &mine.pub));
        OK(job_fill(&mine));
        while (!gatherfs_pub_wanted(mine.pub))
            usleep(1000);
        usleep(50000); /* the reader has its snapshot */
        if (fork() == 0) {
            struct gatherfs_pub_stats stats = { .struct_size = sizeof(stats) };

            job_step(&mine, 77);
            gatherfs_pub_stats(mine.pub, &stats);
            gatherfs_pub_set_ptr(mine.pub, 0, NULL);
            gatherfs_pub_reset_table(mine.pub);
            gatherfs_pub_final(mine.pub, 1000);
            gatherfs_pub_close(mine.pub);
            _exit(read(go[0], &c, 1) == 0 ? 0 : 1); /* lives on until the test ends it */
        }
        usleep(200000);
        _exit(0);
    }
    close(go[0]);
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_select(&r, 0, 1, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(reader_arm(&r, 0, 0), 0);
    expect(&r, GF_LIVE_READY);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(reader_wait(&r, 5 * SEC), -EPIPE);
    assert_int_equal(reader_step(&r), 0);
    assert_true(job_holds(&r, 0, W, 0));
    reader_close(&r);
    assert_int_equal(reader_open(&r, job.dir, 0, 50), -ECONNREFUSED);
    close(go[1]);
    OK(gatherfs_pub_open(&job.options, &job.pub));
    job_end(&job);
}

/* ---------------------------------------------------------------- arguments */

static void bad_options_are_refused(void **state)
{
    struct job job = { 0 };
    struct gatherfs_pub_options o;
    struct gatherfs_pub *pub = NULL;

    (void)state;
    OK(job_open(&job));
#define REFUSED(change, code, words)                                                       \
    do {                                                                                   \
        o = job.options;                                                                   \
        change;                                                                            \
        FAILS(gatherfs_pub_open(&o, &pub), code, words);                                   \
    } while (0)
    REFUSED(o.struct_size = 0, EINVAL, "struct_size is 0");
    REFUSED(o.job = NULL, EINVAL, "no job");
    REFUSED(o.job = "../x", EINVAL, "job '../x'");
    REFUSED(o.job = ".x", EINVAL, "job '.x'");
    REFUSED(o.job = "", EINVAL, "job ''");
    REFUSED(o.rank = 1, EINVAL, "rank 1 of 1");
    REFUSED(o.slots = 9, EINVAL, "9 slots");
    REFUSED(o.background = 3, EINVAL, "background 3");
    REFUSED(o.max_stall = -1, EINVAL, "-1 seconds");
    REFUSED(o.step = UINT64_MAX, EINVAL, "too large");
    REFUSED(o.rundir = "/proc/nowhere/there", ENOENT, "'/proc/nowhere/there'");
    {
        struct {
            struct gatherfs_pub_options o;
            uint64_t more;
        } newer = { .o = job.options, .more = 1 };

        newer.o.struct_size = sizeof(newer);
        FAILS(gatherfs_pub_open(&newer.o, &pub), ENOTSUP, "newer gatherfs.h");
        newer.more = 0;
        newer.o.job = "newer";
        OK(gatherfs_pub_open(&newer.o, &pub));
        gatherfs_pub_close(pub);
    }
    job_end(&job);
    assert_int_equal(access(job.base, F_OK), -1);
}

static void bad_tensors_are_refused(void **state)
{
    static const uint64_t shape[2] = { 4, 6 }, local[2] = { 2, 6 }, first[2] = { 3, 0 },
                          huge[2] = { UINT64_MAX / 2, 4 };
    static const int64_t backwards[2] = { -6, 1 };
    static float data[24];
    const struct gatherfs_tensor_desc good = { .struct_size = sizeof(good),
                                               .name = "t",
                                               .dtype = "float32",
                                               .data = data,
                                               .shape = shape,
                                               .ndim = 2 };
    struct gatherfs_tensor_desc d;
    struct job job = { 0 };

    (void)state;
    OK(job_open(&job));
#define BAD(change, code, words)                                                           \
    do {                                                                                   \
        d = good;                                                                          \
        change;                                                                            \
        FAILS(gatherfs_pub_add(job.pub, &d), code, words);                                 \
    } while (0)
    BAD(d.name = "", EINVAL, "0 bytes");
    BAD(d.name = NULL, EINVAL, "0 bytes");
    BAD(d.name = "\xff", EINVAL, "UTF-8");
    BAD(d.dtype = "float33", EINVAL, "'float33'");
    BAD(d.dtype = "float4_e2m1fn_x2", EINVAL, "cannot be published");
    BAD(d.ndim = 9, EINVAL, "9 dimensions");
    BAD(d.shape = NULL, EINVAL, "2 dimensions");
    BAD(d.shape = huge, EOVERFLOW, "too many");
    BAD(d.device = 1, ENOTSUP, "host memory only");
    BAD(d.flags = 1u << 9, EINVAL, "0x200");
    BAD(d.flags = GATHERFS_STATIC | GATHERFS_BUFFER, EINVAL, "both static");
    BAD(d.replica = 2, EINVAL, "copy 2 of 0");
    BAD((d.local = local, d.first = first), EINVAL, "does not lie in 4");
    BAD(d.stride = backwards, EINVAL, "negative stride");
    BAD((d.flags = GATHERFS_FLAT, d.flat_off = 20, d.flat_count = 5), EINVAL, "lie in 24");
    BAD(d.data = NULL, EINVAL, "no address");
    assert_int_equal(gatherfs_pub_add(job.pub, &good), 0);
    d = good;
    d.flags = GATHERFS_FLAT; /* nothing of it is here */
    d.data = NULL;
    assert_int_equal(gatherfs_pub_add(job.pub, &d), 1);
    d = good;
    d.ndim = 0;
    d.shape = NULL;
    assert_int_equal(gatherfs_pub_add(job.pub, &d), 2);
    assert_int_equal(gatherfs_pub_alias(job.pub, "tied", 0), 3);
    FAILS(gatherfs_pub_alias(job.pub, "tied", 3), EINVAL, "tensor 3");
    OK(gatherfs_pub_start(job.pub));
    FAILS(gatherfs_pub_add(job.pub, &good), EBUSY, "only before start");
    FAILS(gatherfs_pub_start(job.pub), EALREADY, "started before");
    FAILS(gatherfs_pub_metric(job.pub, "", 1), EINVAL, "metric ''");
    for (int i = 0; i < GF_LIVE_METRICS; i++) {
        char name[16];

        snprintf(name, sizeof(name), "m%d", i);
        OK(gatherfs_pub_metric(job.pub, name, i));
        OK(gatherfs_pub_metric(job.pub, name, i + 1));
    }
    FAILS(gatherfs_pub_metric(job.pub, "more", 1), ENOSPC, "'more'");
    FAILS(gatherfs_pub_commit(job.pub, UINT64_MAX), EINVAL, "too large");
    job_end(&job);
}

static void strided_tensors_keep_their_strides(void **state)
{
    static const uint64_t shape[2] = { 3, 2 };
    static const int64_t transposed[2] = { 1, 3 };
    static float data[6] = { 0, 1, 2, 3, 4, 5 };
    struct gatherfs_tensor_desc d = { .struct_size = sizeof(d),
                                      .name = "t",
                                      .dtype = "float32",
                                      .data = data,
                                      .shape = shape,
                                      .stride = transposed,
                                      .ndim = 2 };
    const struct gf_live_tensor *t;
    struct job job = { 0 };
    struct reader r;

    (void)state;
    OK(job_open(&job));
    OK(gatherfs_pub_add(job.pub, &d));
    OK(gatherfs_pub_start(job.pub));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_ready(&r, 1), 0);
    assert_int_equal(reader_arm(&r, 0, 0), 0);
    expect(&r, GF_LIVE_READY);
    t = &r.table->at[0];
    assert_int_equal(t->stride[0], 1);
    assert_int_equal(t->stride[1], 3);
    assert_int_equal(t->nbytes, 24);
    assert_memory_equal(r.slots[r.msg.slot] + t->data_off, data, 24);
    reader_close(&r);
    job_end(&job);
}

static void run_ids_tell_runs_apart(void **state)
{
    uint8_t a[16], b[16];

    (void)state;
    gf_pub_run_id("job", 2, "x", a);
    gf_pub_run_id("job", 2, "x", b);
    assert_memory_equal(a, b, 16);
    gf_pub_run_id("job", 2, "y", b);
    assert_memory_not_equal(a, b, 16);
    setenv("TORCHELASTIC_RESTART_COUNT", "0", 1);
    gf_pub_run_id("job", 2, NULL, a);
    setenv("TORCHELASTIC_RESTART_COUNT", "1", 1);
    gf_pub_run_id("job", 2, NULL, b);
    assert_memory_not_equal(a, b, 16);
    gf_pub_run_id("job", 3, NULL, a);
    assert_memory_not_equal(a, b, 16);
    unsetenv("TORCHELASTIC_RESTART_COUNT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_table_is_a_new_incarnation),
        cmocka_unit_test(a_tensor_may_move),
        cmocka_unit_test(unverified_commits_are_no_snapshots),
        cmocka_unit_test(final_without_a_reader_does_not_wait),
        cmocka_unit_test(final_waits_for_the_reader),
        cmocka_unit_test(final_gives_up_on_a_reader_that_sleeps),
        cmocka_unit_test(close_says_bye_and_leaves_nothing),
        cmocka_unit_test(files_of_others_stay),
        cmocka_unit_test(a_rank_is_published_once),
        cmocka_unit_test(a_forked_child_is_dead_to_readers),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(bad_tensors_are_refused),
        cmocka_unit_test(strided_tensors_keep_their_strides),
        cmocka_unit_test(run_ids_tell_runs_apart),
    };

    alarm(100); /* a test that hangs has failed */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
