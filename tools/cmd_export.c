/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_export.c - the directory that a mount would show, written to disk without FUSE.
 *
 * The files appear together, under DEST, once all are on disk; a failure, SIGINT or SIGTERM
 * leaves nothing behind (stage.h).
 */
#include "base/math.h"
#include "base/text.h"
#include "snapshot/sweep.h"
#include "tools/cmd.h"
#include "tools/progress.h"
#include "tools/stage.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static void catch_signals(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action = { .sa_handler = on_signal }, old;

    for (size_t i = 0; i < GF_COUNT(signals); i++)
        if (!sigaction(signals[i], NULL, &old) && old.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
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

static void print_result(const struct gf_opened *from, const char *dest, uint64_t bytes,
                         double seconds, bool json)
{
    const struct gf_snapshot_info *info = gf_snapshot_info(from->snapshot);
    struct gf_text text = { 0 };
    char size[GF_SIZE_TEXT];

    if (json) {
        gf_text_add(&text, "{\"dest\": ");
        gf_text_json(&text, dest);
        gf_text_add(&text, ", \"view\": ");
        gf_text_json(&text, from->dir->name);
        gf_text_printf(&text, ", \"files\": %zu, \"bytes\": %llu, \"seconds\": %.3f",
                       from->dir->n, (unsigned long long)bytes, seconds);
        if (info->has_step)
            gf_text_printf(&text, ", \"step\": %llu", (unsigned long long)info->step);
        if (*from->path) {
            gf_text_add(&text, ", \"checkpoint\": ");
            gf_text_json(&text, from->path);
        }
        gf_text_add(&text, "}\n");
    } else {
        gf_text_printf(&text, "%s: %zu files, %s, view %s", dest, from->dir->n,
                       gf_size_text(bytes, size), from->dir->name);
        if (info->has_step)
            gf_text_printf(&text, ", step %llu", (unsigned long long)info->step);
        if (*from->path)
            gf_text_printf(&text, " (the newest checkpoint, %s)", from->path);
        gf_text_printf(&text, ", in %.1f s\n", seconds);
    }
    fputs(text.s ? text.s : "", stdout);
    gf_text_done(&text);
}

static int export_opened(const struct gf_args *args, const struct gf_opened *from,
                         unsigned jobs, struct gf_err *err)
{
    const char *dest = args->word[1];
    GF_AUTO(gf_stage) stage = NULL;
    struct gf_progress progress;
    uint64_t bytes = 0;
    double seconds;
    int r;

    for (size_t i = 0; i < from->dir->n; i++)
        bytes += from->dir->files[i].size;
    catch_signals();
    r = gf_stage_open(dest, args->word[0], gf_args_flag(args, "force") != NULL, &stage,
                      err);
    if (r)
        return r;
    gf_progress_start(&progress, "export", bytes);
    r = write_all(from, stage, jobs, &progress, err);
    if (!r)
        r = gf_stage_commit(stage, err);
    seconds = gf_progress_end(&progress);
    if (r)
        return r;
    gf_print_warnings(from->snapshot);
    print_result(from, dest, bytes, seconds, gf_args_flag(args, "json") != NULL);
    return 0;
}

static int run(struct gf_args *args, struct gf_err *err)
{
    const char *text = gf_args_flag(args, "jobs");
    struct gf_opened from = { 0 };
    uint64_t jobs = args->opt.threads;
    int r = text ? gf_parse_number("--jobs", text, 1, 1024, &jobs, err) : 0;

    if (!r)
        r = gf_opened_open(args->word[0], &args->opt, &from, err);
    if (r)
        return r;
    r = export_opened(args, &from, (unsigned)jobs, err);
    gf_opened_close(&from);
    return r;
}

const struct gf_cmd gf_cmd_export = {
    .name = "export",
    .words = "SOURCE DEST",
    .summary = "write the directory that a mount would show, without FUSE",
    .min_words = 2,
    .max_words = 2,
    .shared = true,
    .flags = { { "jobs", 'j', "N", "threads (default: one for each processor)" },
               { "force", 0, NULL, "replace what is in DEST" },
               { "json", 0, NULL, "print the result as one JSON object" } },
    .details =
        "The bytes are those that cp from a mount would give. DEST appears when all of it\n"
        "is on disk; until then it is DEST.gatherfs-part, which a failure removes.\n"
        "\n"
        "Examples:\n"
        "  gatherfs export /data/run/ckpt /data/model\n"
        "  gatherfs export --tag global_step40 --dtype bf16 /data/run/ckpt /data/step40\n"
        "  gatherfs export --view raw /data/run/ckpt /data/raw\n",
    .run = run,
};
