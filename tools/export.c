/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/export.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/math.h"
#include "snapshot/sweep.h"
#include "tools/progress.h"
#include "tools/stage.h"

/* Linux caches each write in one piece of memory if it can, and filling fresh pieces of MiB
 * takes several times as long as filling small ones. */
#define WRITE_MAX ((size_t)256 << 10)

struct target {
    int fd;
    const char *name;
    struct gf_progress *progress;
};

static volatile sig_atomic_t stop;

static void on_signal(int signal)
{
    (void)signal;
    stop = 1;
}

void gf_export_catch_signals(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action = { .sa_handler = on_signal }, old;

    for (size_t i = 0; i < GF_COUNT(signals); i++)
        if (!sigaction(signals[i], NULL, &old) && old.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
}

bool gf_export_is_stopped(void)
{
    return stop;
}

static int check_stop(struct gf_err *err)
{
    return stop ? gf_fail(err, EINTR, "interrupted, nothing was written") : 0;
}

static int write_chunk(void *ctx, uint64_t off, const uint8_t *buf, size_t len,
                       struct gf_err *err)
{
    struct target *target = ctx;
    uint64_t at = off;
    size_t left = len;

    while (left > 0) {
        size_t want = GF_MIN(left, WRITE_MAX);
        ssize_t n = pwrite(target->fd, buf + (at - off), want, (off_t)at);

        if (n < 0 && errno != EINTR)
            return gf_fail(err, errno, "'%s': cannot write %zu bytes at %llu: %s",
                           target->name, want, (unsigned long long)at, strerror(errno));
        if (n > 0) {
            at += (uint64_t)n;
            left -= (size_t)n;
        }
    }
    /* The disk starts now, so that the fsync at the end has little left to wait for. */
    sync_file_range(target->fd, (off_t)off, (off_t)len, SYNC_FILE_RANGE_WRITE);
    gf_progress_add(target->progress, len);
    return check_stop(err);
}

static mode_t current_umask(void)
{
    mode_t mask = umask(077);

    umask(mask);
    return mask;
}

/* The step's time, whoever may read SOURCE may read this, and all of it on disk. */
static int finish_file(const struct target *target, const struct gf_snapshot_info *info,
                       struct gf_err *err)
{
    int64_t mtime_ns = info->mtime_ns;
    struct timespec times[2] = { { .tv_nsec = UTIME_OMIT },
                                 { mtime_ns / 1000000000, mtime_ns % 1000000000 } };

    if (mtime_ns > 0 && futimens(target->fd, times))
        return gf_fail(err, errno, "'%s': cannot set the time: %s", target->name,
                       strerror(errno));
    if (fchmod(target->fd, (info->mode | 0200) & ~current_umask()))
        return gf_fail(err, errno, "'%s': cannot set the permissions: %s", target->name,
                       strerror(errno));
    if (fsync(target->fd))
        return gf_fail(err, errno, "'%s': cannot flush to disk: %s", target->name,
                       strerror(errno));
    return 0;
}

static int write_file(const struct gf_opened *from, const struct gf_vfile *file,
                      struct gf_stage *stage, unsigned jobs, struct gf_progress *progress,
                      struct gf_err *err)
{
    struct target target = { .name = file->name, .progress = progress };
    int r = gf_stage_create(stage, file->name, file->size, &target.fd, err);

    if (r)
        return r;
    r = gf_sweep(from->dir, file, jobs, write_chunk, &target, err);
    if (!r)
        r = finish_file(&target, gf_snapshot_info(from->snapshot), err);
    if (close(target.fd) && !r)
        r = gf_fail(err, errno, "'%s': cannot write: %s", file->name, strerror(errno));
    return r ? r : check_stop(err);
}

static int write_all(const struct gf_opened *from, struct gf_stage *stage, unsigned jobs,
                     struct gf_progress *progress, struct gf_err *err)
{
    int r = 0;

    for (size_t i = 0; !r && i < from->dir->n; i++)
        r = write_file(from, &from->dir->files[i], stage, jobs, progress, err);
    if (!r && !gf_snapshot_unchanged(from->snapshot))
        r = gf_fail(err, ESTALE, "'%s' changed while it was exported",
                    gf_run_source(from->run));
    return r;
}

int gf_export_write(const struct gf_opened *from, const char *dest, const char *source,
                    bool replace, unsigned jobs, struct gf_export_result *ret,
                    struct gf_err *err)
{
    GF_AUTO(gf_stage) stage = NULL;
    struct gf_progress progress;
    uint64_t bytes = 0;
    int r;

    for (size_t i = 0; i < from->dir->n; i++)
        bytes += from->dir->files[i].size;
    gf_export_catch_signals();
    r = gf_stage_open(dest, source, replace, &stage, err);
    if (r)
        return r;
    gf_progress_start(&progress, "export", bytes);
    r = write_all(from, stage, jobs, &progress, err);
    if (!r)
        r = gf_stage_commit(stage, err);
    ret->bytes = bytes;
    ret->seconds = gf_progress_end(&progress);
    return r;
}
