/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishers that lie: what a reader must not believe of a rank.
 */
#include "t.h"

#include "t_job.h"

#include <sys/mman.h>

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
        TEST(different_worlds_are_not_mixed),
        TEST(memory_that_is_shorter_than_it_was_said_is_refused),
        TEST(a_rank_that_says_it_is_another_is_refused),
        TEST(a_tensor_outside_its_slot_is_refused),
        TEST(memory_that_is_not_sealed_is_refused),
    };

    return cmocka_run_group_tests_name("peer", tests, NULL, NULL);
}
