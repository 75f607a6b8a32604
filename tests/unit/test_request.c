/* SPDX-License-Identifier: Apache-2.0 */
/* What a reader asks of a publisher, and what it must not get; both in one process. */
#include "t.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "check.h"

/* ---------------------------------------------------------------- snapshots */

static void a_snapshot_is_the_step_that_was_armed(struct job *job)
{
    struct reader r;
    int seen = 0;

    OK(job_start(job));
    assert_int_equal(reader_open(&r, job->dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_ready(&r, 1), 0);
    for (uint64_t step = 1; step < 100; step += 3) {
        int e;

        /* Armed a step ahead; the step may be over before the request is there. */
        assert_int_equal(reader_arm(&r, 0, step + 1), 0);
        usleep((useconds_t)(step % 4 * 1000));
        job_step(job, step);
        job_step(job, step + 1);
        job_step(job, step + 2);
        e = reader_wait(&r, 5 * SEC);
        if (e == GF_LIVE_MISSED)
            continue;
        assert_int_equal(e, GF_LIVE_READY);
        assert_int_equal(r.msg.step, step + 1);
        assert_true(job_holds(&r, r.msg.slot, W, (float)step + 1));
        assert_true(job_holds(&r, r.msg.slot, MEAN, 2000 + (float)step + 1));
        assert_true(job_holds(&r, r.msg.slot, FROZEN, 1000));
        assert_int_equal(reader_release(&r, r.msg.slot, r.msg.seq), 0);
        seen++;
    }
    assert_in_range(seen, 10, 33);
    reader_close(&r);
    job_end(job);
}

static void snapshots_in_background(void **state)
{
    struct job job = { .options.background = GATHERFS_BACKGROUND };

    (void)state;
    a_snapshot_is_the_step_that_was_armed(&job);
}

static void snapshots_in_commit(void **state)
{
    struct job job = { .options.background = GATHERFS_SYNCHRONOUS };

    (void)state;
    a_snapshot_is_the_step_that_was_armed(&job);
}

static void snapshots_wherever_it_costs_less(void **state)
{
    struct job job = { .options.background = GATHERFS_AUTO };

    (void)state;
    a_snapshot_is_the_step_that_was_armed(&job);
}

static void the_present_step_is_copied_at_once(void **state)
{
    struct job job = { .options.step = 7 };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(r.msg.step, 7);
    assert_int_equal(reader_select(&r, 0, 1, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(r.msg.bytes, 32 * 4);
    assert_int_equal(reader_arm(&r, 0, 7), 0);
    expect(&r, GF_LIVE_READY);
    assert_int_equal(r.msg.step, 7);
    assert_true(job_holds(&r, r.msg.slot, W, 7));
    assert_false(job_holds(&r, r.msg.slot, MEAN, 2007)); /* not selected */
    assert_null(r.statics);
    reader_close(&r);
    job_end(&job);
}

static void buffers_are_copied_only_when_a_step_ends(void **state)
{
    struct job job = { 0 };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_ready(&r, 1), 0);
    assert_int_equal(reader_arm(&r, 0, 0), 0);
    expect_why(&r, GF_LIVE_MISSED, GF_LIVE_WHY_BUFFERS);
    assert_int_equal(reader_arm(&r, 0, 1), 0);
    usleep(20000);
    job_step(&job, 1);
    job_set(job.mean, 5, -1); /* forward */
    expect(&r, GF_LIVE_READY);
    assert_true(job_holds(&r, r.msg.slot, MEAN, 2001));
    reader_close(&r);
    job_end(&job);
}

static void steps_that_are_over_or_changing_are_missed(void **state)
{
    struct job job = { 0 };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    job_step(&job, 4);
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_select(&r, 3, 1, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(reader_arm(&r, 3, 3), 0);
    expect_why(&r, GF_LIVE_MISSED, GF_LIVE_WHY_PASSED);
    assert_int_equal(r.msg.step, 4);
    OK(gatherfs_pub_begin(job.pub));
    assert_int_equal(reader_arm(&r, 3, 4), 0);
    expect_why(&r, GF_LIVE_MISSED, GF_LIVE_WHY_MUTATING);
    assert_int_equal(reader_arm(&r, 3, 5), 0);
    usleep(20000);
    OK(gatherfs_pub_commit(job.pub, 6));
    expect_why(&r, GF_LIVE_MISSED, GF_LIVE_WHY_PASSED);
    assert_int_equal(r.msg.step, 6);
    reader_close(&r);
    job_end(&job);
}

static void requests_out_of_turn_are_busy(void **state)
{
    struct job job = { 0 };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_arm(&r, 0, 1), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_NO_SET);
    assert_int_equal(reader_ready(&r, 1), 0);
    assert_int_equal(reader_arm(&r, 0, 9), 0);
    assert_int_equal(reader_select(&r, 0, 1, only_w), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_PENDING);
    assert_int_equal(reader_arm(&r, 0, 9), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_PENDING);
    r.requests--;
    assert_int_equal(reader_cancel(&r), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_CANCELLED);
    assert_int_equal(r.msg.req, r.requests);
    assert_int_equal(reader_cancel(&r), 0); /* nothing is there */
    r.table->incarnation++;
    assert_int_equal(reader_arm(&r, 0, 9), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_NO_TABLE);
    assert_int_equal(reader_select(&r, 0, 1, NULL), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_NO_TABLE);
    reader_close(&r);
    job_end(&job);
}

static void leases_keep_their_bytes_until_they_are_released(void **state)
{
    struct job job = { 0 };
    struct gf_live_msg first;
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_select(&r, 0, 2, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(reader_arm(&r, 0, 0), 0);
    expect(&r, GF_LIVE_READY);
    first = r.msg;
    job_step(&job, 1);
    assert_int_equal(reader_arm(&r, 0, 1), 0);
    expect(&r, GF_LIVE_READY);
    assert_int_not_equal(first.slot, r.msg.slot);
    job_step(&job, 2);
    assert_int_equal(reader_arm(&r, 0, 2), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_NO_SLOT);
    assert_true(job_holds(&r, first.slot, W, 0));
    assert_true(job_holds(&r, !first.slot, W, 1));
    /* Another lease's number releases nothing. */
    assert_int_equal(reader_release(&r, first.slot, first.seq + 2), 0);
    assert_int_equal(reader_arm(&r, 0, 2), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_NO_SLOT);
    assert_int_equal(reader_release(&r, first.slot, first.seq), 0);
    assert_int_equal(reader_arm(&r, 0, 2), 0);
    expect(&r, GF_LIVE_READY);
    assert_int_equal(r.msg.slot, first.slot);
    assert_int_equal(r.msg.flags & GF_LIVE_FD, 0); /* the reader has it */
    assert_true(job_holds(&r, first.slot, W, 2));
    reader_close(&r);
    job_end(&job);
}

static void static_tensors_are_copied_once(void **state)
{
    struct job job = { 0 };
    struct gatherfs_pub_stats stats = { .struct_size = sizeof(stats) };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_ready(&r, 1), 0);
    assert_non_null(r.statics);
    for (uint64_t step = 1; step <= 5; step++) {
        assert_int_equal(reader_arm(&r, 0, step), 0);
        usleep(10000);
        job_step(&job, step);
        expect(&r, GF_LIVE_READY);
        assert_int_equal(reader_release(&r, r.msg.slot, r.msg.seq), 0);
    }
    OK(gatherfs_pub_stats(job.pub, &stats));
    assert_int_equal(stats.snapshots, 5);
    assert_int_equal(stats.bytes, 4000 + 5 * (32 + 5) * 4);
    assert_int_equal(stats.agent, 1);
    reader_close(&r);
    job_end(&job);
}

static void sets_stand_side_by_side(void **state)
{
    static const uint8_t w_and_frozen[1] = { 1 << W | 1 << FROZEN };
    struct job job = { 0 };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_select(&r, 1, 1, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(r.msg.set, 1);
    assert_null(r.statics);
    assert_int_equal(reader_select(&r, 2, 2, w_and_frozen), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(r.msg.set, 2);
    assert_non_null(r.statics);
    for (uint64_t step = 1; step <= 6; step++) {
        job_step(&job, step);
        assert_int_equal(reader_arm(&r, 1 + (uint32_t)(step % 2), step), 0);
        expect(&r, GF_LIVE_READY);
        assert_int_equal(r.msg.set, 1 + step % 2);
        assert_true(job_holds(&r, r.msg.slot, W, (float)step));
        assert_true(job_holds(&r, r.msg.slot, FROZEN, 1000));
        assert_int_equal(reader_release(&r, r.msg.slot, r.msg.seq), 0);
    }
    /* A set may be chosen anew. */
    assert_int_equal(reader_select(&r, 1, 1, (const uint8_t[]){ 1 << MEAN }), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(r.msg.bytes, 5 * 4);
    assert_int_equal(reader_arm(&r, 1, 6), 0);
    expect_why(&r, GF_LIVE_MISSED, GF_LIVE_WHY_BUFFERS);
    reader_close(&r);
    job_end(&job);
}

static void without_a_reader_there_is_no_memory(void **state)
{
    struct job job = { .big_len = 1 << 20 };
    struct gatherfs_pub_stats stats = { .struct_size = sizeof(stats) };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(gatherfs_pub_wanted(job.pub), 0);
    OK(gatherfs_pub_stats(job.pub, &stats));
    assert_int_equal(stats.memory, 0);
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(gatherfs_pub_wanted(job.pub), 1);
    assert_int_equal(reader_ready(&r, 2), 0);
    OK(gatherfs_pub_stats(job.pub, &stats));
    assert_in_range(stats.memory, 2 * 4 << 20, (2 * 4 << 20) + 65536);
    reader_close(&r);
    for (int i = 0; i < 500 && stats.memory; i++) {
        usleep(10000);
        OK(gatherfs_pub_stats(job.pub, &stats));
    }
    assert_int_equal(stats.memory, 0);
    job_end(&job);
}

static void too_little_memory_is_busy_not_death(void **state)
{
    struct job job = { .big_len = 1 << 20, .options.memory_limit = 6 << 20 };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_select(&r, 0, 2, NULL), 0);
    expect(&r, GF_LIVE_SELECTED); /* one slot is better than none */
    assert_int_equal(reader_arm(&r, 0, 1), 0);
    usleep(20000);
    job_step(&job, 1);
    expect(&r, GF_LIVE_READY);
    assert_int_equal(reader_arm(&r, 0, 2), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_NO_MEMORY);
    assert_in_range(r.msg.bytes, 2 << 20, 3 << 20);
    reader_close(&r);
    job_end(&job);

    job = (struct job){ .big_len = 1 << 20, .options.memory_limit = 1 << 20 };
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_select(&r, 0, 1, NULL), 0);
    expect_why(&r, GF_LIVE_BUSY, GF_LIVE_WHY_NO_MEMORY);
    assert_int_equal(reader_select(&r, 0, 1, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    reader_close(&r);
    job_end(&job);
}

/* ---------------------------------------------------------------- readers */

static void one_reader_at_a_time(void **state)
{
    struct job job = { 0 };
    struct reader r, second;
    const float *left;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_open(&second, job.dir, 0, 0), -EBUSY);
    assert_int_equal(reader_select(&r, 0, 1, only_w), 0);
    expect(&r, GF_LIVE_SELECTED);
    assert_int_equal(reader_arm(&r, 0, 0), 0);
    expect(&r, GF_LIVE_READY);
    /* It goes; who still has its memory (another process, say) keeps those bytes. */
    left = (const float *)(const void *)r.slots[r.msg.slot];
    r.slots[r.msg.slot] = NULL;
    reader_close(&r);
    assert_int_equal(reader_open(&second, job.dir, 0, 5 * SEC), 0);
    job_step(&job, 1);
    assert_int_equal(reader_select(&second, 0, 1, only_w), 0);
    expect(&second, GF_LIVE_SELECTED);
    assert_int_equal(reader_arm(&second, 0, 1), 0);
    expect(&second, GF_LIVE_READY);
    assert_true(job_holds(&second, second.msg.slot, W, 1));
    assert_true(left[0] == 0 && left[31] == 0);
    munmap((void *)(uintptr_t)left, second.table->slot_bytes);
    reader_close(&second);
    job_end(&job);
}

static void hostile_readers_are_dropped(void **state)
{
    static const uint8_t noise[200] = { 1, 2, 3 };
    struct job job = { 0 };
    struct gf_live_msg msg;
    struct reader r;

    (void)state;
    OK(job_start(&job));
    for (int k = 0; k < 5; k++) {
        assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
        msg = (struct gf_live_msg){ .type = GF_LIVE_HELLO, .bytes = 1 << 20 };
        if (k == 0)
            assert_int_equal(send(r.sock, noise, sizeof(noise), 0), sizeof(noise));
        else if (k == 1)
            assert_int_equal(gf_live_send(r.sock, &msg, noise, 100, r.control_fd), 0);
        else if (k == 2)
            assert_int_equal(reader_select(&r, 0, 1, (const uint8_t[]){ 0xff }), 0);
        else if (k == 3) {
            msg = (struct gf_live_msg){ .type = GF_LIVE_SELECT,
                                        .slot = 1,
                                        .incarnation = r.table->incarnation };
            assert_int_equal(gf_live_send(r.sock, &msg, noise, 3, -1), 0);
        } else
            while (gf_live_send(r.sock,
                                &(struct gf_live_msg){ .type = GF_LIVE_ARM, .req = 1 },
                                NULL, 0, -1) != -EPIPE)
                continue; /* never reads: its answers pile up */
        assert_int_equal(reader_wait_for(&r, 99, 5 * SEC), -EPIPE);
        reader_close(&r);
    }
    /* Unknown messages, stale releases and a descriptor too many do no harm. */
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_int_equal(reader_say(&r, (struct gf_live_msg){ .type = 77 }), 0);
    assert_int_equal(reader_release(&r, 7, 5), 0);
    msg = (struct gf_live_msg){ .type = GF_LIVE_CANCEL, .req = 3 };
    assert_int_equal(gf_live_send(r.sock, &msg, NULL, 0, r.control_fd), 0);
    assert_int_equal(reader_ready(&r, 8), 0);
    reader_close(&r);
    job_end(&job);
}

static void readers_cannot_write_or_resize(void **state)
{
    struct job job = { 0 };
    struct reader r;

    (void)state;
    OK(job_start(&job));
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, r.control_fd, 0),
                     MAP_FAILED);
    assert_int_equal(ftruncate(r.control_fd, 0), -1);
    assert_int_equal(ftruncate(r.control_fd, 1 << 30), -1);
    assert_int_equal(pwrite(r.control_fd, "x", 1, 0), -1);
    assert_int_equal(mprotect((void *)(uintptr_t)r.control, 4096, PROT_READ | PROT_WRITE),
                     -1);
    reader_close(&r);
    job_end(&job);
}

static void other_users_are_turned_away(void **state)
{
    struct job job = { 0 };
    struct reader r;
    char sock[100];
    int status;
    pid_t pid;

    (void)state;
    if (geteuid() != 0)
        skip();
    OK(job_start(&job));
    snprintf(sock, sizeof(sock), "%s/rank-0.sock", job.dir);
    assert_int_equal(chmod(job.base, 0755) | chmod(job.dir, 0755) | chmod(sock, 0777), 0);
    pid = fork();
    if (pid == 0) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        char c;

        if (setgid(65534) || setuid(65534))
            _exit(9);
        /* gf_live_dir_open would refuse already: go the direct way. */
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", sock);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
            _exit(8);
        _exit(recv(fd, &c, 1, 0) == 0 ? 0 : 7);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(reader_open(&r, job.dir, 0, 5 * SEC), 0);
    reader_close(&r);
    job_end(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(snapshots_in_background),
        cmocka_unit_test(snapshots_in_commit),
        cmocka_unit_test(snapshots_wherever_it_costs_less),
        cmocka_unit_test(the_present_step_is_copied_at_once),
        cmocka_unit_test(buffers_are_copied_only_when_a_step_ends),
        cmocka_unit_test(steps_that_are_over_or_changing_are_missed),
        cmocka_unit_test(requests_out_of_turn_are_busy),
        cmocka_unit_test(leases_keep_their_bytes_until_they_are_released),
        cmocka_unit_test(static_tensors_are_copied_once),
        cmocka_unit_test(sets_stand_side_by_side),
        cmocka_unit_test(without_a_reader_there_is_no_memory),
        cmocka_unit_test(too_little_memory_is_busy_not_death),
        cmocka_unit_test(one_reader_at_a_time),
        cmocka_unit_test(hostile_readers_are_dropped),
        cmocka_unit_test(readers_cannot_write_or_resize),
        cmocka_unit_test(other_users_are_turned_away),
    };

    alarm(100); /* a test that hangs has failed */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
