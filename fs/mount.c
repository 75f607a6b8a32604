/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mount.c - a mount's start: checks, and the background process.
 *
 *     parent  fork ──────────── waits on the pipe ─────────────▶ returns what came
 *     child        opens log and SOURCE, mounts, asks itself, detaches ─▶ serves
 *
 * One struct gf_err goes through the pipe: code 0, or why the start failed. An end of file
 * instead means that the child died; nothing at all until the deadline, that it hangs.
 */
#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/math.h"
#include "fs/mountinfo.h"
#include "fs/session.h"

#define TIMEOUT 30

/* ---------------------------------------------------------------- checks */

/* The background process leaves this directory. */
static int absolute_source(const char *source, char **ret, struct gf_err *err)
{
    GF_AUTO_MEM char *cwd = NULL;

    if (source[0] == '/' || access(source, F_OK)) {
        *ret = strdup(source);
    } else {
        cwd = getcwd(NULL, 0);
        if (!cwd)
            return gf_fail(err, errno, "the current directory: %s", strerror(errno));
        if (asprintf(ret, "%s/%s", strcmp(cwd, "/") ? cwd : "", source) < 0)
            *ret = NULL;
    }
    return *ret ? 0 : gf_nomem(err);
}

static int check_mountpoint(const char *mountpoint, char **ret, struct gf_err *err)
{
    GF_AUTO_MEM char *path = realpath(mountpoint, NULL);
    struct gf_mountinfos infos;
    struct stat st;
    bool busy;
    int r;

    if (!path && errno == ENOTCONN)
        return gf_fail(err, ENOTCONN,
                       "mountpoint '%s': a mount whose process has died is still there, "
                       "'gatherfs umount' removes it",
                       mountpoint);
    if (!path || stat(path, &st))
        return gf_fail(err, errno, "mountpoint '%s': %s", mountpoint, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return gf_fail(err, ENOTDIR, "mountpoint '%s': not a directory", mountpoint);
    r = gf_mountinfo_read(&infos, err);
    if (r)
        return r;
    busy = gf_mountinfo_is_gatherfs(gf_mountinfo_at(&infos, path));
    gf_mountinfo_done(&infos);
    if (busy)
        return gf_fail(err, EBUSY,
                       "mountpoint '%s': there is a gatherfs mount already, "
                       "'gatherfs umount' ends it",
                       mountpoint);
    *ret = gf_take(&path);
    return 0;
}

/* Asked where SOURCE is opened, since a SOURCE that hangs must not hold up the parent. */
static int check_outside(const char *source, const char *mountpoint, struct gf_err *err)
{
    GF_AUTO_MEM char *path = realpath(source, NULL);
    size_t n = path ? strlen(path) : 0;

    if (!path || strncmp(mountpoint, path, n))
        return 0;
    if (mountpoint[n] && mountpoint[n] != '/' && strcmp(path, "/"))
        return 0;
    return gf_fail(err, EINVAL, "'%s' is %sSOURCE '%s': a mount would contain itself",
                   mountpoint, mountpoint[n] ? "inside " : "", path);
}

static int open_log(const struct gf_options *opt, struct gf_err *err)
{
    int level = GF_LOG_WARN + opt->verbose;
    int r = gf_log_open(opt->log, (enum gf_log_level)GF_MIN(level, (int)GF_LOG_DEBUG));

    return r ? gf_fail(err, -r, "log file '%s': %s", opt->log, strerror(-r)) : 0;
}

static int serve(const char *source, const char *mountpoint, const struct gf_options *opt,
                 const char *fuse_opts, int (*ready)(void *ctx), void *ctx,
                 struct gf_err *err)
{
    int r = check_outside(source, mountpoint, err);

    if (!r)
        r = open_log(opt, err);
    return r ? r : gf_session_run(source, mountpoint, opt, fuse_opts, ready, ctx, err);
}

/* ---------------------------------------------------------------- the child */

/* The caller's descriptors: a lock or a pipe among them would be held until the unmount. */
static void close_all_but(int fd)
{
    if (fd > 3)
        close_range(3, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0U, 0);
}

static int leave_terminal(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (fd < 0 || chdir("/"))
        return -errno;
    setsid();
    for (int i = 0; i < 3; i++)
        if (dup2(fd, i) < 0)
            return -errno;
    if (fd > 2)
        close(fd);
    return 0;
}

/* The mount answers. A parent that has gone away does not want it any more. */
static int tell_parent(void *ctx)
{
    const struct gf_err fine = { 0 };
    int *fd = ctx, r = leave_terminal();

    if (!r && write(*fd, &fine, sizeof(fine)) != (ssize_t)sizeof(fine))
        r = -EPIPE;
    close(*fd);
    *fd = -1;
    return r;
}

static _Noreturn void child(const char *source, const char *mountpoint,
                            const struct gf_options *opt, const char *fuse_opts, int fd)
{
    struct gf_err err = { 0 };
    int r;

    close_all_but(fd);
    r = serve(source, mountpoint, opt, fuse_opts, tell_parent, &fd, &err);
    if (r && !err.code)
        gf_fail(&err, -r, "%s", strerror(-r));
    if (r && fd >= 0 && write(fd, &err, sizeof(err)) < 0)
        r = -EPIPE; /* nobody to tell */
    exit(r ? 2 : 0);
}

/* ---------------------------------------------------------------- the parent */

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The whole report: 1; end of file: 0; nothing in time: -ETIMEDOUT. */
static int read_report(int fd, int64_t deadline, struct gf_err *ret)
{
    struct pollfd pfd = { .fd = fd, .events = POLLIN };
    ssize_t n;

    for (;;) {
        int64_t left = deadline - now_ms();

        if (left <= 0)
            return -ETIMEDOUT;
        if (poll(&pfd, 1, (int)GF_MIN(left, 1000)) <= 0)
            continue;
        n = read(fd, ret, sizeof(*ret)); /* below PIPE_BUF: whole or not at all */
        if (n < 0 && errno == EINTR)
            continue;
        return n == (ssize_t)sizeof(*ret);
    }
}

static void end_child(pid_t pid, const char *mountpoint)
{
    static const int signals[] = { SIGTERM, SIGKILL };
    const struct timespec tick = { .tv_nsec = 20000000 };

    for (size_t i = 0; i < 2; i++) {
        kill(pid, signals[i]);
        for (int64_t end = now_ms() + 2000; now_ms() < end;) {
            if (waitpid(pid, NULL, WNOHANG))
                goto gone;
            nanosleep(&tick, NULL);
        }
    }
gone:
    gf_umount(mountpoint, true, NULL);
}

static int wait_for_child(pid_t pid, int fd, const char *source, const char *mountpoint,
                          const struct gf_options *opt, struct gf_err *err)
{
    unsigned seconds = opt->timeout ? opt->timeout : TIMEOUT;
    struct gf_err report = { 0 };
    int r = read_report(fd, now_ms() + (int64_t)seconds * 1000, &report), status = 0;

    if (r < 0) {
        end_child(pid, mountpoint);
        return gf_fail(err, ETIMEDOUT, "mounting '%s': no answer within %u s (timeout=)",
                       source, seconds);
    }
    if (r && !report.code)
        return 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!r) {
        gf_umount(mountpoint, true, NULL);
        return gf_fail(err, ECHILD, "mounting '%s': the process ended with %s %d", source,
                       WIFSIGNALED(status) ? "signal" : "status",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    return gf_fail(err, report.code, "%s", report.text);
}

/* ---------------------------------------------------------------- the door */

static int stay(void *ctx)
{
    (void)ctx;
    return 0;
}

int gf_mount(const char *source, const char *mountpoint, const struct gf_options *opt,
             const char *fuse_opts, struct gf_err *err)
{
    GF_AUTO_MEM char *from = NULL;
    GF_AUTO_MEM char *on = NULL;
    int fds[2], r;
    pid_t pid;

    r = absolute_source(source, &from, err);
    if (!r)
        r = check_mountpoint(mountpoint, &on, err);
    if (r)
        return r;
    if (opt->foreground)
        return serve(from, on, opt, fuse_opts, stay, NULL, err);
    fflush(NULL);
    if (pipe2(fds, O_CLOEXEC))
        return gf_fail(err, errno, "pipe: %s", strerror(errno));
    pid = fork();
    if (pid < 0) {
        r = gf_fail(err, errno, "fork: %s", strerror(errno));
        close(fds[0]);
        close(fds[1]);
        return r;
    }
    if (!pid) {
        close(fds[0]);
        child(from, on, opt, fuse_opts, fds[1]);
    }
    close(fds[1]);
    r = wait_for_child(pid, fds[0], source, on, opt, err);
    close(fds[0]);
    return r;
}
