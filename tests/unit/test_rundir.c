/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "live/channel.h"
#include "live/rundir.h"

static void base_is_the_first_of_three_places(void **state)
{
    char want[64];
    char *path;

    (void)state;
    unsetenv("GATHERFS_RUNDIR");
    unsetenv("XDG_RUNTIME_DIR");
    snprintf(want, sizeof(want), "/tmp/gatherfs-%u/run7", geteuid());
    GF_OK(gf_live_job_path("run7", &path, &t_err));
    assert_string_equal(path, want);
    free(path);
    setenv("XDG_RUNTIME_DIR", "/run/user/5", 1);
    GF_OK(gf_live_base_path(&path, &t_err));
    assert_string_equal(path, "/run/user/5/gatherfs");
    free(path);
    setenv("GATHERFS_RUNDIR", "/jobs", 1);
    GF_OK(gf_live_job_path("run7", &path, &t_err));
    assert_string_equal(path, "/jobs/run7");
    free(path);
    GF_OK(gf_live_job_path("./here", &path, &t_err));
    assert_string_equal(path, "./here");
    free(path);
    unsetenv("GATHERFS_RUNDIR");
    unsetenv("XDG_RUNTIME_DIR");
}

static void job_names_are_plain(void **state)
{
    char *path, job[GF_LIVE_JOB_MAX + 2];

    (void)state;
    memset(job, 'x', sizeof(job));
    job[GF_LIVE_JOB_MAX] = '\0';
    assert_true(gf_live_job_valid(job));
    assert_true(gf_live_job_valid("run-7_b.2"));
    job[GF_LIVE_JOB_MAX] = 'x';
    job[GF_LIVE_JOB_MAX + 1] = '\0';
    assert_false(gf_live_job_valid(job));
    assert_false(gf_live_job_valid(""));
    assert_false(gf_live_job_valid(".."));
    assert_false(gf_live_job_valid("a b"));
    GF_FAILS(gf_live_job_path("a b", &path, &t_err), EINVAL, "job 'a b'");
}

static void sockets_name_their_rank(void **state)
{
    uint32_t rank = 9;

    (void)state;
    assert_true(gf_live_socket_rank("rank-0.sock", &rank));
    assert_int_equal(rank, 0);
    assert_true(gf_live_socket_rank("rank-1048575.sock", &rank));
    assert_int_equal(rank, 1048575);
    assert_false(gf_live_socket_rank("rank-1048576.sock", &rank));
    assert_false(gf_live_socket_rank("rank-99999999999999999999.sock", &rank));
    assert_false(gf_live_socket_rank("rank-01.sock", &rank));
    assert_false(gf_live_socket_rank("rank-.sock", &rank));
    assert_false(gf_live_socket_rank("rank--1.sock", &rank));
    assert_false(gf_live_socket_rank("rank-1.sock2", &rank));
    assert_false(gf_live_socket_rank("agent.sock", &rank));
    assert_int_equal(rank, 1048575);
}

static void directories_that_others_control_are_refused(void **state)
{
    char dir[] = "/tmp/gatherfs-rundir-XXXXXX", made[64], link[64];
    struct stat st;
    int fd;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(made, sizeof(made), "%s/made", dir);
    snprintf(link, sizeof(link), "%s/link", dir);
    GF_FAILS(gf_live_dir_open(made, false, &fd, &t_err), ENOENT, made);
    GF_OK(gf_live_dir_open(made, true, &fd, &t_err));
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    close(fd);
    assert_int_equal(symlink(made, link), 0);
    GF_FAILS(gf_live_dir_open(link, true, &fd, &t_err), ENOTDIR, "or a link");
    assert_int_equal(chmod(made, 0770), 0);
    GF_FAILS(gf_live_dir_open(made, true, &fd, &t_err), EPERM, "mode 770");
    assert_int_equal(rmdir(made) | unlink(link) | rmdir(dir), 0);
}

static void long_paths_are_no_matter(void **state)
{
    char dir[] = "/tmp/gatherfs-rundir-XXXXXX", path[300];
    struct sockaddr_un address;
    int fd, listener, sock, r;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/%0200d", dir, 0);
    GF_OK(gf_live_dir_open(path, true, &fd, &t_err));
    GF_FAILS(gf_live_connect(fd, "rank-0.sock", &sock, &t_err), ENOENT, "'rank-0.sock'");
    listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    gf_live_address(fd, "rank-0.sock", &address);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    GF_OK(gf_live_connect(fd, "rank-0.sock", &sock, &t_err));
    close(sock);
    /* A publisher that does not come to accept: no wait here. */
    for (int i = 0; i < 4 && (r = gf_live_connect(fd, "rank-0.sock", &sock, &t_err)) == 0;
         i++)
        continue;
    assert_int_equal(r, -EAGAIN);
    close(listener);
    GF_FAILS(gf_live_connect(fd, "rank-0.sock", &sock, &t_err), ECONNREFUSED, "refused");
    assert_int_equal(unlinkat(fd, "rank-0.sock", 0), 0);
    close(fd);
    assert_int_equal(rmdir(path) | rmdir(dir), 0);
}

static int receive(int sock, int *ret_fd)
{
    GF_AUTO_MEM uint8_t *buffer = malloc(GF_LIVE_MSG_MAX);
    struct gf_live_msg msg;
    const uint8_t *payload;
    size_t len;

    return gf_live_recv(sock, buffer, &msg, &payload, &len, ret_fd, &t_err);
}

static void descriptors_come_exactly_where_announced(void **state)
{
    struct gf_live_msg msg = { .type = GF_LIVE_READY, .req = 1 };
    uint8_t raw[64];
    int pair[2], fd = -1;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    assert_int_equal(receive(pair[1], &fd), 0);
    GF_OK(gf_live_send(pair[0], &msg, NULL, 0, 0));
    assert_int_equal(receive(pair[1], &fd), 1);
    assert_true(fd > 0);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    GF_OK(gf_live_send(pair[0], &msg, NULL, 0, -1));
    assert_int_equal(receive(pair[1], &fd), 1);
    assert_int_equal(fd, -1);
    msg.flags = GF_LIVE_FD; /* promised, not sent */
    gf_live_msg_seal(&msg, 0);
    memcpy(raw, &msg, sizeof(raw));
    assert_int_equal(send(pair[0], raw, sizeof(raw), 0), sizeof(raw));
    GF_FAILS(receive(pair[1], &fd), GF_EBAD, "lacks a descriptor");
    close(pair[0]);
    GF_FAILS(receive(pair[1], &fd), EPIPE, "closed");
    close(pair[1]);
}

static int lowest_free_fd(void)
{
    int fd = dup(0);

    close(fd);
    return fd;
}

static void of_two_descriptors_none_stays(void **state)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control = { 0 };
    struct gf_live_msg msg = { .type = GF_LIVE_READY, .req = 1 };
    struct iovec part = { .iov_base = &msg, .iov_len = sizeof(msg) };
    struct msghdr m = { .msg_iov = &part,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = CMSG_SPACE(2 * sizeof(int)) };
    const int fds[2] = { 0, 0 };
    int pair[2], fd = -1, lowest;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(sizeof(fds));
    memcpy(CMSG_DATA(&control.head), fds, sizeof(fds));
    lowest = lowest_free_fd();
    for (uint32_t flags = 0; flags <= GF_LIVE_FD; flags += GF_LIVE_FD) {
        msg.flags = flags;
        gf_live_msg_seal(&msg, 0);
        assert_int_equal(sendmsg(pair[0], &m, 0), sizeof(msg));
        GF_FAILS(receive(pair[1], &fd), GF_EBAD, "or 1 descriptor");
        assert_int_equal(sendmsg(pair[0], &m, 0), sizeof(msg));
        receive(pair[1], NULL); /* the kernel drops what has no room at all */
        assert_int_equal(lowest_free_fd(), lowest);
    }
    close(pair[0]);
    close(pair[1]);
}

static void only_sealed_memory_is_mapped(void **state)
{
    const void *seen;
    uint8_t *map;
    void *made;
    int fd;

    (void)state;
    GF_OK(gf_live_memory_new("test", 8192, &fd, &made, &t_err));
    map = made;
    map[8191] = 7;
    GF_FAILS(gf_live_memory_map("x", fd, 8193, &seen, &t_err), GF_EBAD, "of 8192 bytes");
    GF_FAILS(gf_live_memory_map("x", fd, 0, &seen, &t_err), GF_EBAD, "wanted 0");
    GF_OK(gf_live_memory_map("x", fd, 8192, &seen, &t_err));
    assert_int_equal(((const uint8_t *)seen)[8191], 7);
    map[8191] = 8;
    assert_int_equal(((const uint8_t *)seen)[8191], 8);
    assert_ptr_equal(mmap(NULL, 8192, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    munmap((void *)(uintptr_t)seen, 8192);
    munmap(made, 8192);
    close(fd);
    fd = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, 8192), 0);
    GF_FAILS(gf_live_memory_map("x", fd, 8192, &seen, &t_err), GF_EBAD, "can shrink");
    close(fd);
    GF_FAILS(gf_live_memory_map("x", 0, 8192, &seen, &t_err), GF_EBAD, "can shrink");
}

static void peers_are_known_by_uid(void **state)
{
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    GF_OK(gf_live_peer_check(pair[0], geteuid(), &t_err));
    if (geteuid() != 0)
        GF_FAILS(gf_live_peer_check(pair[0], geteuid() + 1, &t_err), EACCES, "uid");
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base_is_the_first_of_three_places),
        cmocka_unit_test(job_names_are_plain),
        cmocka_unit_test(sockets_name_their_rank),
        cmocka_unit_test(directories_that_others_control_are_refused),
        cmocka_unit_test(long_paths_are_no_matter),
        cmocka_unit_test(descriptors_come_exactly_where_announced),
        cmocka_unit_test(of_two_descriptors_none_stays),
        cmocka_unit_test(only_sealed_memory_is_mapped),
        cmocka_unit_test(peers_are_known_by_uid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
