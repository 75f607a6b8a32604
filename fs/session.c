/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.c - the threads of a mount:
 *
 *     main      mounts, waits for a signal or the end of the loop, takes everything down
 *     loop      fuse_session_loop_mt(): starts workers and waits for their end
 *     workers   libfuse's, as many as there are requests at once: ops.c
 *     follow    once a second: is there something new in SOURCE?
 *
 * Signals are blocked everywhere and fetched by main; SIGUSR1 only passes between main
 * (the loop has ended) and loop (wake up from sem_wait).
 *
 * The order at the end matters. `follow` may be waiting in the kernel for a directory that
 * a look-up holds, and look-ups are answered by the workers: it is stopped while they run.
 * Then the workers finish the request they are at. Then the device is closed, which gives
 * whoever still waits an error, and the mount is detached.
 */
#include "fs/session.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/fs.h"
#include "fs/mount.h"
#include "fs/mountinfo.h"

#define READ_AHEAD (2u << 20)
#define STOP_SECONDS 10

struct session {
    struct gf_fs fs;
    struct fuse_session *se;
    dev_t dev; /* of the mount */
    pthread_t main, loop, follow;
    bool has_loop, has_follow;
    atomic_bool loop_ended;
    sem_t stop; /* posted: follow ends */
};

/* ---------------------------------------------------------------- libfuse */

/* "fuse: text\n..." -> "text" */
static char *first_reason(char *text)
{
    static const char *const prefixes[] = { "fuse: ", "fusermount3: " };

    text[strcspn(text, "\n")] = '\0';
    for (size_t i = 0; i < 2; i++)
        if (!strncmp(text, prefixes[i], strlen(prefixes[i])))
            text += strlen(prefixes[i]);
    return text;
}

static int new_session(struct session *s, const char *source, struct gf_err *err)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    GF_AUTO_MEM char *fsname = NULL;
    char *opts = NULL;
    bool failed;

    /* The user's first: the later one of two wins. */
    failed = asprintf(&fsname, "fsname=%s", source) < 0 ||
             (s->fs.fuse_opts && fuse_opt_add_opt(&opts, s->fs.fuse_opts)) ||
             (s->fs.opt->allow_other && fuse_opt_add_opt(&opts, "allow_other")) ||
             fuse_opt_add_opt_escaped(&opts, fsname) ||
             fuse_opt_add_opt(&opts, "subtype=gatherfs,default_permissions,ro") ||
             fuse_opt_add_arg(&args, "gatherfs") || fuse_opt_add_arg(&args, "-o") ||
             fuse_opt_add_arg(&args, opts);
    if (!failed)
        s->se = fuse_session_new(&args, &gf_ops, sizeof(gf_ops), &s->fs);
    fuse_opt_free_args(&args);
    free(opts);
    return failed ? gf_nomem(err) : s->se ? 0 : -EINVAL;
}

/* libfuse and fusermount3 say on stderr why they fail: kept in a memory file, for the one
 * line that the user gets. */
static int mount_session(struct session *s, const char *source, struct gf_err *err)
{
    int fd = memfd_create("gatherfs-stderr", MFD_CLOEXEC), saved = dup(STDERR_FILENO), r;
    char text[400] = "", *reason;
    ssize_t n;

    if (fd >= 0 && saved >= 0)
        dup2(fd, STDERR_FILENO);
    r = new_session(s, source, err);
    if (!r && fuse_session_mount(s->se, s->fs.mountpoint))
        r = -ENODEV;
    if (saved >= 0) {
        dup2(saved, STDERR_FILENO);
        close(saved);
    }
    n = fd >= 0 ? pread(fd, text, sizeof(text) - 1, 0) : 0;
    if (fd >= 0)
        close(fd);
    if (!r || r == -ENOMEM)
        return r;
    text[n > 0 ? n : 0] = '\0';
    reason = first_reason(text);
    return gf_fail(err, -r, "cannot mount on '%s': %s", s->fs.mountpoint,
                   reason[0] ? reason : "libfuse gives no reason");
}

static void *run_loop(void *arg)
{
    struct session *s = arg;
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    sigset_t wake;
    int r = -ENOMEM;

    sigemptyset(&wake);
    sigaddset(&wake, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &wake, NULL);
    if (config) {
        fuse_loop_cfg_set_clone_fd(config, 0);
        fuse_loop_cfg_set_max_threads(config, s->fs.threads);
        fuse_loop_cfg_set_idle_threads(config, s->fs.threads);
        r = fuse_session_loop_mt(s->se, config);
        fuse_loop_cfg_destroy(config);
    }
    if (r)
        gf_fs_log(&s->fs, GF_LOG_ERROR, "the request loop ended: %s", strerror(abs(r)));
    atomic_store(&s->loop_ended, true);
    pthread_kill(s->main, SIGUSR1);
    return NULL;
}

/* ---------------------------------------------------------------- what is new in SOURCE */

static bool told_to_stop(struct session *s)
{
    struct timespec next;

    clock_gettime(CLOCK_MONOTONIC, &next);
    next.tv_sec++;
    while (sem_clockwait(&s->stop, CLOCK_MONOTONIC, &next))
        if (errno == ETIMEDOUT)
            return false;
    return true;
}

/* Entries expire within GF_SHORT by themselves; for what the root shows of a step this makes it
 * sooner. Directories are left alone: whoever works in one keeps it while it stays the same. */
static void invalidate(struct session *s)
{
    const struct gf_node *root = gf_tree_get(s->fs.tree, GF_ROOT_ID);
    struct gf_listing list;

    if (gf_walk_list(s->fs.run, s->fs.opt, root, &list, NULL))
        return;
    for (size_t i = 0; i < list.entries.n; i++) {
        const char *name = list.entries.at[i].name;

        if (!list.entries.at[i].is_dir)
            fuse_lowlevel_notify_inval_entry(s->se, GF_ROOT_ID, name, strlen(name));
    }
    fuse_lowlevel_notify_inval_inode(s->se, GF_ROOT_ID, -1, 0);
    gf_listing_done(&list);
}

static void *run_follow(void *arg)
{
    struct session *s = arg;

    while (!told_to_stop(s))
        if (gf_run_poll(s->fs.run)) {
            gf_fs_log(&s->fs, GF_LOG_INFO, "the source has changed");
            invalidate(s);
        }
    return NULL;
}

/* ---------------------------------------------------------------- start */

static void set_read_ahead(struct session *s)
{
    uint64_t kb = (s->fs.opt->readahead ? s->fs.opt->readahead : READ_AHEAD) / 1024;
    char path[64], text[32];
    int fd, n;

    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(s->dev),
             minor(s->dev));
    n = snprintf(text, sizeof(text), "%" PRIu64, kb);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, text, (size_t)n) == n)
        atomic_store(&s->fs.read_ahead_kb, kb);
    else
        gf_fs_log(&s->fs, GF_LOG_WARN,
                  "read-ahead stays at the kernel's default, mmap will be slow: '%s': %s",
                  path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* Serves, and asks as any program would: the reply comes from a worker. */
static int answer(struct session *s, dev_t before, struct gf_err *err)
{
    struct stat st;

    if (pthread_create(&s->loop, NULL, run_loop, s))
        return gf_fail(err, EAGAIN, "cannot start a thread");
    s->has_loop = true;
    if (stat(s->fs.mountpoint, &st))
        return gf_fail(err, errno, "the mount on '%s' does not answer: %s",
                       s->fs.mountpoint, strerror(errno));
    if (st.st_dev == before)
        return gf_fail(err, ECANCELED, "'%s' was unmounted during the start",
                       s->fs.mountpoint);
    s->dev = st.st_dev;
    set_read_ahead(s);
    if (pthread_create(&s->follow, NULL, run_follow, s))
        return gf_fail(err, EAGAIN, "cannot start a thread");
    s->has_follow = true;
    return 0;
}

/* Nothing shown is what a run looks like before its first checkpoint, but also what a wrong
 * SOURCE does: said while there is a terminal to say it on. */
static void warn_if_empty(struct session *s)
{
    GF_AUTO(gf_snapshot) root = NULL;
    struct gf_run_entry *entries;
    const char *why = "";
    bool shown = false;
    size_t n;

    if (!gf_run_snapshot(s->fs.run, "", &root, NULL) ||
        gf_run_entries(s->fs.run, NULL, &entries, &n, NULL))
        return;
    for (size_t i = 0; i < n && !shown; i++) {
        shown = entries[i].kind == GF_RUN_CHECKPOINT && entries[i].complete;
        if (!why[0])
            why = entries[i].why;
    }
    if (!shown)
        gf_fs_log(&s->fs, GF_LOG_WARN, "no finished checkpoint in it yet%s%s",
                  why[0] ? ": " : "", why);
    gf_run_entries_free(entries, n);
}

/* What export and verify say of the checkpoint at the root. */
static void warn_of_source(struct session *s)
{
    GF_AUTO(gf_snapshot) root = NULL;
    const struct gf_found *found;

    if (gf_run_snapshot(s->fs.run, "", &root, NULL))
        return;
    found = gf_snapshot_found(root);
    for (size_t i = 0; i < found->warnings.n; i++)
        gf_fs_log(&s->fs, GF_LOG_WARN, "%s", found->warnings.at[i]);
}

/* ---------------------------------------------------------------- end */

static time_t now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void wake_up(int sig)
{
    (void)sig;
}

/* A thread that does not end (a source that hangs) must not keep the process. */
static void join_or_leave(struct session *s, pthread_t thread, time_t end)
{
    struct timespec soon;

    for (;;) {
        clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_nsec += 20000000;
        soon.tv_sec += soon.tv_nsec / 1000000000;
        soon.tv_nsec %= 1000000000;
        if (!pthread_timedjoin_np(thread, NULL, &soon))
            return;
        if (now_seconds() > end) {
            gf_fs_log(&s->fs, GF_LOG_ERROR, "a request is stuck: leaving without it");
            gf_umount(s->fs.mountpoint, true, NULL);
            _exit(1);
        }
        /* sem_wait() may be entered right after a wake-up: so again and again. */
        if (pthread_equal(thread, s->loop))
            pthread_kill(thread, SIGUSR1);
    }
}

/* Is there something to detach, or has the connection ended already? Of a mount that
 * somebody else has detached, with files open, the place may be another mount's by now. */
static bool may_unmount(struct session *s)
{
    struct pollfd pfd = { .fd = fuse_session_fd(s->se) };
    const struct gf_mountinfo *info;
    struct gf_mountinfos infos;
    bool ours;

    if (poll(&pfd, 1, 0) == 1 && (pfd.revents & POLLERR))
        return true;
    if (gf_mountinfo_read(&infos, NULL))
        return false;
    info = gf_mountinfo_at(&infos, s->fs.mountpoint);
    ours = gf_mountinfo_is_gatherfs(info) && (!s->dev || info->dev == s->dev);
    gf_mountinfo_done(&infos);
    return ours;
}

static void stop(struct session *s)
{
    time_t end = now_seconds() + STOP_SECONDS;

    sem_post(&s->stop);
    if (s->has_follow)
        join_or_leave(s, s->follow, end);
    fuse_session_exit(s->se);
    if (s->has_loop)
        join_or_leave(s, s->loop, end);
    /* Else the session stays as it is until the process ends, which is now. */
    if (may_unmount(s)) {
        fuse_session_unmount(s->se);
        fuse_session_destroy(s->se);
    }
}

static void wait_for_end(struct session *s, const sigset_t *signals)
{
    int sig;

    gf_fs_log(&s->fs, GF_LOG_INFO, "serving '%s' on '%s'", gf_run_source(s->fs.run),
              s->fs.mountpoint);
    do
        if (sigwait(signals, &sig))
            break;
    while (sig == SIGUSR1 && !atomic_load(&s->loop_ended));
    gf_fs_log(&s->fs, GF_LOG_INFO, "%s",
              sig == SIGUSR1 ? "unmounted" : "unmounting: a signal came");
}

/* ---------------------------------------------------------------- the whole */

static void raise_limits(void)
{
    struct rlimit lim;

    if (!getrlimit(RLIMIT_NOFILE, &lim) && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_NOFILE, &lim);
    }
}

static void take_signals(sigset_t *ret)
{
    struct sigaction wake = { .sa_handler = wake_up };

    sigemptyset(ret);
    sigaddset(ret, SIGTERM);
    sigaddset(ret, SIGINT);
    sigaddset(ret, SIGHUP);
    sigaddset(ret, SIGUSR1);
    /* For good: what comes after the end finds a process that is leaving anyway. */
    pthread_sigmask(SIG_BLOCK, ret, NULL);
    sigaction(SIGUSR1, &wake, NULL);
    signal(SIGPIPE, SIG_IGN);
}

int gf_session_run(const char *source, const char *mountpoint, const struct gf_options *opt,
                   const char *fuse_opts, int (*ready)(void *ctx), void *ctx,
                   struct gf_err *err)
{
    static struct session s; /* a process serves one mount */
    struct stat before;
    sigset_t signals;
    int r;

    raise_limits();
    if (stat(mountpoint, &before))
        return gf_fail(err, errno, "'%s': %s", mountpoint, strerror(errno));
    r = gf_fs_init(&s.fs, source, mountpoint, opt, fuse_opts, err);
    if (r)
        return r;
    s.main = pthread_self();
    sem_init(&s.stop, 0, 0);
    take_signals(&signals);
    r = mount_session(&s, source, err);
    if (!r) {
        r = answer(&s, before.st_dev, err);
        if (!r) {
            warn_if_empty(&s);
            warn_of_source(&s);
            r = ready(ctx);
        }
        if (!r)
            wait_for_end(&s, &signals);
        stop(&s);
    } else if (s.se) {
        fuse_session_destroy(s.se);
    }
    sem_destroy(&s.stop);
    gf_fs_done(&s.fs);
    return r;
}
