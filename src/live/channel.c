/* SPDX-License-Identifier: Apache-2.0 */
#include "live/channel.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* F_SEAL_WRITE would ask that no writable mapping exists; FUTURE_WRITE leaves ours. */
#define MEMFD_NOEXEC 8u /* MFD_NOEXEC_SEAL of Linux 6.3 */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

union one_fd {
    struct cmsghdr head;
    char room[CMSG_SPACE(sizeof(int))];
};

int gf_live_send(int sock, struct gf_live_msg *msg, const void *payload, size_t len, int fd)
{
    struct iovec parts[2] = {
        { .iov_base = msg, .iov_len = sizeof(*msg) },
        { .iov_base = (void *)(uintptr_t)payload, .iov_len = len },
    };
    union one_fd control = { 0 };
    struct msghdr m = { .msg_iov = parts, .msg_iovlen = len ? 2 : 1 };
    ssize_t n;

    msg->flags = fd >= 0 ? msg->flags | GF_LIVE_FD : msg->flags & ~GF_LIVE_FD;
    gf_live_msg_seal(msg, len);
    if (fd >= 0) {
        struct cmsghdr *c = &control.head;

        m.msg_control = &control;
        m.msg_controllen = sizeof(control.room);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    do {
        n = sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int gf_live_recv(int sock, uint8_t *buffer, struct gf_live_msg *ret,
                 const uint8_t **ret_payload, size_t *ret_len, int *ret_fd,
                 struct gf_err *err)
{
    struct iovec part = { .iov_base = buffer, .iov_len = GF_LIVE_MSG_MAX };
    union one_fd control = { 0 };
    struct msghdr m = { .msg_iov = &part, .msg_iovlen = 1 };
    int fd = -1, r;
    ssize_t n;

    if (ret_fd) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_LEN(sizeof(fd)); /* CMSG_SPACE has room for two */
    }
    do {
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return gf_fail(err, EPIPE, "the live connection was closed by the other end");
    if (n < 0)
        return gf_fail(err, errno, "receiving a live message: %s", strerror(errno));

    if (ret_fd && m.msg_controllen >= CMSG_LEN(sizeof(fd)) &&
        control.head.cmsg_level == SOL_SOCKET && control.head.cmsg_type == SCM_RIGHTS &&
        control.head.cmsg_len == CMSG_LEN(sizeof(fd)))
        memcpy(&fd, CMSG_DATA(&control.head), sizeof(fd));
    if (m.msg_flags & MSG_TRUNC || (ret_fd && m.msg_flags & MSG_CTRUNC))
        r = gf_fail(err, GF_EBAD, "live message of more than %zu bytes or 1 descriptor",
                    GF_LIVE_MSG_MAX);
    else
        r = gf_live_msg_parse(buffer, (size_t)n, ret, ret_payload, ret_len, err);
    if (r == 0 && ret_fd && !!(ret->flags & GF_LIVE_FD) != (fd >= 0))
        r = gf_fail(err, GF_EBAD, "live message type %u %s a descriptor", ret->type,
                    fd >= 0 ? "has" : "lacks");
    if (r) {
        if (fd >= 0)
            close(fd);
        return r;
    }
    if (ret_fd)
        *ret_fd = fd;
    return 1;
}

int gf_live_peer_check(int sock, uid_t owner, struct gf_err *err)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len))
        return gf_fail(err, errno, "asking who a live peer is: %s", strerror(errno));
    if (peer.uid != owner && peer.uid != 0)
        return gf_fail(err, EACCES, "live peer has uid %u, wanted %u or 0", peer.uid,
                       owner);
    return 0;
}

/* Where vm.memfd_noexec asks for it, memory that could become a program is refused. */
static int memfd(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MEMFD_NOEXEC);

    return fd < 0 && errno == EINVAL ? memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)
                                     : fd;
}

int gf_live_memory_new(const char *name, uint64_t size, int *ret_fd, void **ret_map,
                       struct gf_err *err)
{
    int fd = memfd(name), code;
    const char *doing = "making";
    void *map = MAP_FAILED;

    if (fd < 0)
        goto failed;
    doing = "sizing";
    if (ftruncate(fd, (off_t)size))
        goto failed;
    doing = "mapping";
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        goto failed;
    doing = "sealing";
    if (fcntl(fd, F_ADD_SEALS, SEALS))
        goto failed;
    /* A forked data loader must neither write here nor pay for the page tables. Huge pages
     * are a matter of speed alone. */
    madvise(map, size, MADV_DONTFORK);
    madvise(map, size, MADV_HUGEPAGE);
    *ret_fd = fd;
    *ret_map = map;
    return 0;
failed:
    code = errno;
    if (map != MAP_FAILED)
        munmap(map, size);
    if (fd >= 0)
        close(fd);
    return gf_fail(err, code, "%s shared memory '%s' of %llu bytes: %s", doing, name,
                   (unsigned long long)size, strerror(code));
}

int gf_live_memory_map(const char *what, int fd, uint64_t size, const void **ret,
                       struct gf_err *err)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    void *map;

    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
        return gf_fail(err, GF_EBAD, "%s: live memory that can shrink", what);
    if (fstat(fd, &st) || st.st_size < 0 || (uint64_t)st.st_size < size || size == 0)
        return gf_fail(err, GF_EBAD, "%s: live memory of %lld bytes, wanted %llu", what,
                       (long long)st.st_size, (unsigned long long)size);
    map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return gf_fail(err, errno, "%s: mapping live memory: %s", what, strerror(errno));
    *ret = map;
    return 0;
}
