/* SPDX-License-Identifier: Apache-2.0 */
#include "live/rundir.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "live/channel.h"

bool gf_live_job_valid(const char *job)
{
    size_t len = strlen(job);

    return len >= 1 && len <= GF_LIVE_JOB_MAX && job[0] != '.' &&
           strspn(job,
                  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
               len;
}

int gf_live_base_path(char **ret, struct gf_err *err)
{
    const char *named = getenv("GATHERFS_RUNDIR"), *runtime = getenv("XDG_RUNTIME_DIR");
    char *path;
    int n;

    if (named && *named)
        n = asprintf(&path, "%s", named);
    else if (runtime && *runtime)
        n = asprintf(&path, "%s/gatherfs", runtime);
    else
        n = asprintf(&path, "/tmp/gatherfs-%u", geteuid());
    if (n < 0)
        return gf_nomem(err);
    *ret = path;
    return 0;
}

int gf_live_job_path(const char *job, char **ret, struct gf_err *err)
{
    GF_AUTO_MEM char *base = NULL;
    char *path;

    if (strchr(job, '/'))
        return (*ret = strdup(job)) ? 0 : gf_nomem(err);
    if (!gf_live_job_valid(job))
        return gf_fail(err, EINVAL,
                       "job '%s': wanted 1 to %d letters, digits, '.', '_' or '-'", job,
                       GF_LIVE_JOB_MAX);
    if (gf_live_base_path(&base, err))
        return -err->code;
    if (asprintf(&path, "%s/%s", base, job) < 0)
        return gf_nomem(err);
    *ret = path;
    return 0;
}

int gf_live_dir_open(const char *path, bool make, int *ret_fd, struct gf_err *err)
{
    struct stat st;
    int fd;

    if (make && mkdir(path, 0700) && errno != EEXIST)
        return gf_fail(err, errno, "making '%s': %s", path, strerror(errno));
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return gf_fail(err, errno, "opening '%s': %s", path,
                       errno == ELOOP || errno == ENOTDIR ? "not a directory, or a link"
                                                          : strerror(errno));
    if (fstat(fd, &st) || (st.st_uid != geteuid() && geteuid() != 0) || st.st_mode & 022) {
        close(fd);
        return gf_fail(err, EPERM,
                       "'%s' has owner %u and mode %03o: wanted %u and no write by others",
                       path, st.st_uid, st.st_mode & 0777, geteuid());
    }
    *ret_fd = fd;
    return 0;
}

bool gf_live_socket_rank(const char *name, uint32_t *ret)
{
    uint32_t rank = 0;
    const char *p = name + 5;

    if (strncmp(name, "rank-", 5) != 0 || *p < '0' || *p > '9' ||
        (*p == '0' && p[1] != '.'))
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        rank = rank * 10 + (uint32_t)(*p - '0');
        if (rank >= GF_LIVE_MAX_WORLD)
            return false;
    }
    if (strcmp(p, ".sock") != 0)
        return false;
    *ret = rank;
    return true;
}

void gf_live_address(int dirfd, const char *name, struct sockaddr_un *ret)
{
    *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
    snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d/%.64s", dirfd, name);
}

int gf_live_connect(int dirfd, const char *name, int *ret_sock, struct gf_err *err)
{
    struct sockaddr_un address;
    struct stat st;
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r = 0;

    gf_live_address(dirfd, name, &address);
    if (sock < 0)
        return gf_fail(err, errno, "making a socket: %s", strerror(errno));
    if (connect(sock, (struct sockaddr *)&address, sizeof(address)))
        r = gf_fail(err, errno, "connecting to '%s': %s", name, strerror(errno));
    else
        r = fstat(dirfd, &st) ? gf_fail(err, errno, "connecting to '%s'", name)
                              : gf_live_peer_check(sock, st.st_uid, err);
    if (r) {
        close(sock);
        return r;
    }
    *ret_sock = sock;
    return 0;
}
