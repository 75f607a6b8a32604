/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_snapshot.c - checkpoints of a running job, taken from outside: one now, or by a schedule.
 *
 * The job never waits for the disk: a step is copied into shared memory while it trains, and
 * written from there. Steps that a schedule names are asked for exactly; one that has passed
 * by then is replaced by the newest. While others read all slots there is no newer step than
 * theirs: then the schedule goes on with the next one that is due.
 */
#include "base/math.h"
#include "base/text.h"
#include "snapshot/live.h"
#include "snapshot/plan.h"
#include "tools/cmd.h"
#include "tools/export.h"
#include "tools/retain.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LOOK_MS 20      /* how often a schedule looks where the job is */
#define MTBF 86400.0    /* --mtbf for --every auto */
#define AUTO_FIRST 60.0 /* seconds until the second one, if the job has no step times yet */

struct schedule {
    struct gf_args *args;
    struct gf_run *run;
    struct gf_live *live;
    struct gf_retain retain;
    bool automatic;
    uint64_t steps; /* every so many; 0: by time */
    double seconds; /* every so long */
    double mtbf;
    uint64_t keep, jobs;
    uint64_t last;  /* step written last, or where the job was at the start */
    double last_at; /* when */
    bool any;       /* a step was taken */
    uint64_t taken; /* that one */
    bool skipped;   /* instead of the last one there was only an old one */
    bool wrote;     /* and is on disk: */
    uint64_t wrote_step;
    bool full;       /* the step taken last found no room */
    bool ending;     /* this is the job's last */
    bool has_metric; /* as it was published last, and at which step */
    double metric;
    uint64_t metric_at;
};

static double now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void pause_ms(unsigned ms)
{
    const struct timespec pause = { .tv_sec = ms / 1000,
                                    .tv_nsec = (long)(ms % 1000) * 1000000 };

    nanosleep(&pause, NULL);
}

/* ---------------------------------------------------------------- one of them */

static void print_one(const struct gf_args *args, const char *dest,
                      const struct gf_opened *from, const struct gf_export_result *result,
                      const char *name, const double *metric)
{
    const struct gf_snapshot_info *info = gf_snapshot_info(from->snapshot);
    struct gf_text text = { 0 };
    char size[GF_SIZE_TEXT];

    if (gf_args_flag(args, "json")) {
        gf_text_add(&text, "{\"dest\": ");
        gf_text_json(&text, dest);
        gf_text_printf(&text,
                       ", \"step\": %" PRIu64 ", \"files\": %zu, \"bytes\": %" PRIu64
                       ", \"seconds\": %.3f",
                       info->step, from->dir->n, result->bytes, result->seconds);
        if (metric)
            gf_text_printf(&text, ", \"metric\": %.17g", *metric);
        gf_text_add(&text, "}\n");
    } else {
        gf_text_printf(&text, "%s: %zu files, %s, step %" PRIu64, dest, from->dir->n,
                       gf_size_text(result->bytes, size), info->step);
        if (metric)
            gf_text_printf(&text, ", %s %g", name, *metric);
        gf_text_printf(&text, ", in %.1f s\n", result->seconds);
    }
    fputs(text.s ? text.s : "", stdout);
    fflush(stdout);
    gf_text_done(&text);
}

static int snapshot_once(struct gf_args *args, struct gf_run *run, uint64_t jobs,
                         struct gf_err *err)
{
    struct gf_export_result result;
    struct gf_opened from;
    int r = gf_opened_take(run, &from, err);

    if (r)
        return r;
    r = gf_export_write(&from, args->word[1], args->word[0],
                        gf_args_flag(args, "force") != NULL, (unsigned)jobs, &result, err);
    if (!r) {
        gf_print_warnings(from.snapshot);
        print_one(args, args->word[1], &from, &result, NULL, NULL);
    }
    gf_opened_close(&from);
    return r;
}

/* ---------------------------------------------------------------- a schedule */

/* Only what was published after the checkpoint before (`after`, unless this is the first) and
 * not after this one says something about it. The job goes on meanwhile, so this is called
 * before the step is taken and after it is written. */
static void find_metric(struct schedule *s, const uint64_t *after, uint64_t step)
{
    double value;
    uint64_t at;

    if (s->retain.metric && gf_live_metric(s->live, s->retain.metric, &value, &at) &&
        value - value == 0 && at <= step && (!after || at > *after)) {
        s->has_metric = true;
        s->metric = value;
        s->metric_at = at;
    }
}

static void warn(const struct gf_err *err)
{
    fprintf(stderr, "gatherfs: warning: %s\n", err->text);
}

/* Somebody else's checkpoint of that step, or a full disk, ends no schedule; but one that
 * never wrote anything, or does not have the last step, has not done what it is for. */
static int forgive(struct schedule *s, int r, const struct gf_err *err)
{
    bool full = r == -ENOSPC || r == -EDQUOT;

    if (r != -EEXIST && r != -ENOTEMPTY && (!full || !s->wrote || s->ending))
        return r;
    s->full = full;
    warn(err);
    return 0;
}

static int write_one(struct schedule *s, const struct gf_opened *from,
                     const uint64_t *after, struct gf_err *err)
{
    uint64_t step = gf_snapshot_info(from->snapshot)->step;
    struct gf_export_result result;
    GF_AUTO_MEM char *path = NULL;
    const double *metric = NULL;
    bool replace;
    int r = gf_retain_begin(&s->retain, step, from->dir, &path, &replace, err);

    if (r)
        return forgive(s, r, err);
    find_metric(s, after, step);
    r = gf_export_write(from, path, s->args->word[0], replace, (unsigned)s->jobs, &result,
                        err);
    if (r) {
        gf_retain_cancel(&s->retain);
        return forgive(s, r, err);
    }
    find_metric(s, after, step);
    if (s->has_metric && s->metric_at <= step)
        metric = &s->metric;
    s->wrote = true;
    s->full = false;
    s->wrote_step = step;
    if (gf_retain_commit(&s->retain, metric, s->keep, err))
        warn(err); /* the checkpoint itself is there */
    print_one(s->args, path, from, &result, s->retain.metric, metric);
    return 0;
}

/* Which interval costs least, from what the job's own steps and snapshots take. */
static void replan(struct schedule *s, const struct gf_live_progress *before, double wrote)
{
    struct gf_live_progress after;
    struct gf_plan plan;
    struct gf_plan_in in;

    gf_live_progress(s->live, &after);
    in = (struct gf_plan_in){
        .step = (double)after.step_ns / 1e9,
        .save = (double)(after.stall_ns - GF_MIN(before->stall_ns, after.stall_ns)) / 1e9,
        .write = wrote,
        .mtbf = s->mtbf,
    };
    /* A snapshot that cost training nothing that can be measured still has a price. */
    in.save = GF_MAX(in.save, 1e-4);
    s->seconds = AUTO_FIRST;
    if (in.step > 0 && !gf_plan_interval(&in, &plan, NULL)) {
        s->steps = plan.best.steps;
        s->seconds = 0;
    }
}

/* What was had instead of *want (may be NULL), or of the newest, is an old one: a step that
 * others hold. */
static bool is_old(const struct schedule *s, uint64_t step, const uint64_t *want)
{
    return (want && step < *want) ||
           (s->any && (s->full ? step < s->taken : step <= s->taken));
}

/* Once for all that follow each other. */
static void skip(struct schedule *s, uint64_t step, const uint64_t *want)
{
    struct gf_live_progress now;

    if (!s->skipped)
        fprintf(stderr,
                "gatherfs: warning: '%s': no new step: all its slots are being read; step "
                "%" PRIu64 ", which others read, is not written%s\n",
                s->args->word[0], step, s->any && step == s->taken ? " again" : "");
    s->skipped = true;
    gf_live_progress(s->live, &now);
    s->last = GF_MAX(now.step, want ? *want : 0);
}

/* *step (may be NULL): exactly that one, if it is not over. */
static int take_one(struct schedule *s, const uint64_t *step, struct gf_err *err)
{
    struct gf_live_progress before;
    double start = now_seconds();
    /* Where the job was at the start has its metric from this very step at the earliest. */
    uint64_t last = s->any ? s->taken : GF_MAX(s->last, 1u) - 1;
    const uint64_t *after = last ? &last : NULL;
    struct gf_opened from;
    int r;

    gf_live_progress(s->live, &before);
    s->has_metric = false;
    find_metric(s, after, UINT64_MAX);
    gf_live_refresh(s->live);
    r = step ? gf_live_choose(s->live, step, err) : 0;
    if (r == -ENOENT || r == -ETIMEDOUT || r == -EBUSY)
        r = 0;
    if (!r)
        r = gf_opened_take(s->run, &from, err);
    if (!r) {
        uint64_t got = gf_snapshot_info(from.snapshot)->step;

        s->last_at = start;
        if (is_old(s, got, step)) {
            skip(s, got, step);
        } else {
            s->last = s->taken = got;
            s->any = true;
            s->skipped = false;
            r = write_one(s, &from, after, err);
        }
        gf_opened_close(&from);
    }
    gf_live_choose(s->live, NULL, NULL);
    gf_live_refresh(s->live); /* others may have its slot */
    gf_live_poll(s->live);
    if (!r && s->automatic)
        replan(s, &before, now_seconds() - start);
    return r;
}

/* Is it time? *ret_step is the step to ask for, or 0: the newest. */
static bool is_due(struct schedule *s, const struct gf_live_progress *p, uint64_t *ret_step)
{
    uint64_t next, ahead;

    *ret_step = 0;
    /* The job went back to an earlier state. A step less is a rank that is a bit later. */
    if (p->step + 1 < s->last) {
        s->last = p->step;
        s->taken = GF_MIN(s->taken, p->step);
    }
    if (s->automatic && !s->any)
        return true;
    if (!s->steps)
        return now_seconds() - s->last_at >= s->seconds;
    next = (s->last / s->steps + 1) * s->steps;
    /* Asked for before the next look could be too late for it. */
    ahead = 1 + (p->step_ns ? GF_MIN(2 * LOOK_MS * 1000000 / p->step_ns, 1000u) : 0);
    if (p->step + ahead < next)
        return false;
    *ret_step = next;
    return true;
}

static int job_is_gone(struct schedule *s, struct gf_err *err)
{
    if (s->wrote)
        return gf_fail(err, ENOTCONN,
                       "'%s' has gone; its last checkpoint is '%s/checkpoint-%" PRIu64 "'",
                       s->args->word[0], s->args->word[1], s->wrote_step);
    return gf_fail(err, ENOTCONN, "'%s' has gone before its first checkpoint",
                   s->args->word[0]);
}

/* Until training is over (0), the job is gone for longer than timeout=, or a signal comes. */
static int follow(struct schedule *s, struct gf_err *err)
{
    double seen = now_seconds();
    unsigned patience = s->args->opt.timeout ? s->args->opt.timeout : 30;
    int r = 0;

    while (!r && !gf_export_is_stopped()) {
        struct gf_live_progress p;
        uint64_t step;

        gf_live_progress(s->live, &p);
        if (p.finished) {
            s->ending = true;
            if (s->any && !s->full && p.step == s->taken)
                return 0;
            r = take_one(s, NULL, err);
            if (r || !s->skipped)
                return r;
            if (now_seconds() - seen > patience)
                return job_is_gone(s, err);
        } else if (p.connected) {
            seen = now_seconds();
            if (is_due(s, &p, &step))
                r = take_one(s, step ? &step : NULL, err);
        } else if (now_seconds() - seen > patience) {
            return job_is_gone(s, err);
        }
        /* A restart in the middle of it: the next one will do. */
        if (r == -ESTALE || r == -ENOTCONN || r == -ETIMEDOUT || r == -EBUSY) {
            warn(err);
            s->last_at = now_seconds();
            s->last = GF_MAX(s->last, p.step);
            r = 0;
        }
        pause_ms(LOOK_MS);
    }
    /* A signal is how a schedule ends. */
    return gf_export_is_stopped() ? 0 : r;
}

/* ---------------------------------------------------------------- options */

static int parse_every(struct schedule *s, const char *text, struct gf_err *err)
{
    size_t digits = strspn(text, "0123456789");

    if (!strcmp(text, "auto")) {
        s->automatic = true;
        return 0;
    }
    if (digits && !text[digits])
        return gf_parse_number("--every", text, 1, UINT64_MAX / 4, &s->steps, err);
    if (!digits || gf_parse_time(text, &s->seconds) || s->seconds <= 0)
        return gf_fail(err, EINVAL,
                       "--every: '%s' is neither a number of steps, nor a time such as "
                       "10m, nor 'auto'",
                       text);
    return 0;
}

/* METRIC[:min|max] */
static int parse_best(const char *text, char **ret, bool *ret_max, struct gf_err *err)
{
    const char *colon = strrchr(text, ':');

    *ret_max = colon && !strcmp(colon, ":max");
    if (colon && !*ret_max && strcmp(colon, ":min") != 0)
        return gf_fail(err, EINVAL, "--best: '%s' is not METRIC, METRIC:min or METRIC:max",
                       text);
    *ret = colon ? strndup(text, (size_t)(colon - text)) : strdup(text);
    if (!*ret)
        return gf_nomem(err);
    return **ret ? 0 : gf_fail(err, EINVAL, "--best: no metric in '%s'", text);
}

static int run_schedule(struct schedule *s, const char *every, struct gf_err *err)
{
    const char *best = gf_args_flag(s->args, "best"), *keep = gf_args_flag(s->args, "keep");
    const char *mtbf = gf_args_flag(s->args, "mtbf");
    GF_AUTO_MEM char *metric = NULL;
    struct gf_live_progress p;
    bool max = false;
    int r = parse_every(s, every, err);

    if (!r && best)
        r = parse_best(best, &metric, &max, err);
    if (!r && keep)
        r = gf_parse_number("--keep", keep, 1, 1 << 20, &s->keep, err);
    if (!r && mtbf && (gf_parse_time(mtbf, &s->mtbf) || s->mtbf <= 0))
        r = gf_fail(err, EINVAL, "--mtbf: '%s' is no time such as 12h", mtbf);
    if (!r)
        r = gf_run_open(s->args->word[0], &s->args->opt, &s->run, err);
    if (!r)
        r = gf_retain_open(s->args->word[1], metric, max, &s->retain, err);
    if (!r) {
        s->live = gf_run_live(s->run);
        gf_live_poll(s->live); /* training's end waits for us from now on */
        gf_live_progress(s->live, &p);
        s->last = p.step;
        s->last_at = now_seconds();
        gf_export_catch_signals();
        r = follow(s, err);
        gf_retain_done(&s->retain);
    }
    gf_run_free(s->run);
    return r;
}

static int only_with_every(const struct gf_args *args, struct gf_err *err)
{
    static const char *const flags[] = { "keep", "best", "mtbf" };

    for (size_t i = 0; i < GF_COUNT(flags); i++)
        if (gf_args_flag(args, flags[i]))
            return gf_fail(err, EINVAL, "--%s needs --every", flags[i]);
    return 0;
}

static int run(struct gf_args *args, struct gf_err *err)
{
    const char *every = gf_args_flag(args, "every"), *text = gf_args_flag(args, "jobs");
    struct schedule s = { .args = args, .mtbf = MTBF, .jobs = args->opt.threads };
    GF_AUTO(gf_run) source = NULL;
    int r = text ? gf_parse_number("--jobs", text, 1, 1024, &s.jobs, err) : 0;

    if (!r && !gf_live_name(args->word[0]))
        r = gf_fail(err, EINVAL,
                    "'%s' is no live job (live:JOB); 'gatherfs export' takes checkpoints",
                    args->word[0]);
    if (r)
        return r;
    if (every)
        return run_schedule(&s, every, err);
    r = only_with_every(args, err);
    if (!r)
        r = gf_run_open(args->word[0], &args->opt, &source, err);
    return r ? r : snapshot_once(args, source, s.jobs, err);
}

const struct gf_cmd gf_cmd_snapshot = {
    .name = "snapshot",
    .words = "live:JOB DEST",
    .summary = "write the weights of a running job, once or by a schedule",
    .min_words = 2,
    .max_words = 2,
    .shared = true,
    .flags = { { "every", 0, "N|TIME|auto",
                 "again and again, into DEST/checkpoint-STEP: steps, 10m, or what costs "
                 "least" },
               { "keep", 0, "N", "of these, only the newest N (and the best)" },
               { "best", 0, "METRIC[:min|max]",
                 "link DEST/best by what the job publishes (default: min)" },
               { "mtbf", 0, "TIME",
                 "between two failures of the job, for auto (default: 1d)" },
               { "jobs", 'j', "N", "threads (default: one for each processor)" },
               { "force", 0, NULL, "replace what is in DEST (without --every)" },
               { "json", 0, NULL, "print each result as one JSON object" } },
    .details =
        "Without --every DEST becomes a model directory, as from 'gatherfs export'. With "
        "it,\n"
        "DEST holds checkpoint-STEP directories and the links latest and best; each "
        "appears\n"
        "when all of it is on disk, and an old one goes only after that. Checkpoints that\n"
        "others put into DEST are left alone.\n"
        "It ends with exit code 0 by a signal, or when training has ended and the last\n"
        "step is written. A job that was killed is waited for, --timeout seconds; if it\n"
        "is not started again by then, the exit code is 2.\n"
        "\n"
        "Examples:\n"
        "  gatherfs snapshot live:run7 /data/now\n"
        "  gatherfs snapshot live:run7 /data/run7 --every 500 --keep 3 --best eval_loss\n"
        "  gatherfs snapshot live:run7 /data/run7 --every auto --mtbf 12h --keep 2\n",
    .run = run,
};
