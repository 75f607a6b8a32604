/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.c - opening SOURCE: a file, one checkpoint that the user picked, or all that is there.
 */
#include "snapshot/run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/format.h"
#include "snapshot/run_int.h"

/* One checkpoint alone, at the root. */
static int set_root(struct gf_run *run, const char *dir, const char *tag, const char *file,
                    struct gf_err *err)
{
    struct gf_step step = { .path = strdup(""),
                            .dir = strdup(dir),
                            .tag = tag ? strdup(tag) : NULL,
                            .file = file ? strdup(file) : NULL,
                            .complete = true };
    struct gf_steps steps = { 0 };
    bool ignored;

    if (gf_vec_push(&steps.at, step, 1)) {
        free(step.path);
        free(step.dir);
        free(step.tag);
        free(step.file);
        return gf_nomem(err);
    }
    if (!step.path || !step.dir || (tag && !step.tag) || (file && !step.file)) {
        gf_steps_done(&steps);
        return gf_nomem(err);
    }
    run->alone = true;
    return gf_run_slots_new(run, &steps, &ignored, err);
}

static bool is_called(const struct gf_step *step, const char *want)
{
    char number[24];

    snprintf(number, sizeof(number), "%" PRIu64, step->number);
    return *step->path && !step->tag && step->has_number && strcmp(number, want) == 0;
}

/* tag= or step= of a run: a checkpoint by its path, its number, or a link. *ret is NULL if there
 * is none. */
static int by_choice(struct gf_run *run, const char *want, struct gf_slot **ret,
                     struct gf_err *err)
{
    GF_AUTO_MEM char *link = NULL;
    struct gf_slot *slot = *want ? gf_run_slot(run, want) : NULL;
    size_t first, end;

    if (!slot && strcmp(want, "latest") == 0)
        link = gf_run_latest(run);
    else if (!slot && strcmp(want, "best") == 0)
        link = gf_run_best(run);
    if (link)
        slot = gf_run_slot(run, want = link);
    if (slot) {
        *ret = slot;
        return 0;
    }
    gf_run_range(run, want, &first, &end);
    for (size_t i = 0; i < run->n; i++) {
        struct gf_slot *other = &run->slots[i];

        if (!is_called(other->step, want) && (i < first || i >= end || !*want))
            continue;
        if (slot)
            return gf_fail(err, EINVAL, "'%s': '%s' may be '%s' or '%s': name one",
                           run->source, want, slot->step->path, other->step->path);
        slot = other;
    }
    *ret = slot;
    return 0;
}

static int choose(struct gf_run *run, struct gf_err *err)
{
    GF_AUTO_MEM char *dir = NULL;
    GF_AUTO_MEM char *tag = NULL;
    GF_AUTO_MEM char *file = NULL;
    struct gf_slot *slot = NULL;
    int r;

    pthread_mutex_lock(&run->lock);
    do
        r = by_choice(run, run->opt->tag, &slot, err);
    while (gf_run_again(run, NULL, &r, err));
    pthread_mutex_unlock(&run->lock);
    if (r)
        return r;
    if (!slot)
        return gf_fail(err, ENOENT, "'%s': no checkpoint '%s' in it", run->source,
                       run->opt->tag);
    if (!slot->step->complete && !run->opt->allow_incomplete)
        return gf_fail(err, GF_EINCOMPLETE, "'%s': %s", slot->step->path, slot->step->why);
    dir = strdup(slot->step->dir);
    tag = slot->step->tag ? strdup(slot->step->tag) : NULL;
    file = slot->step->file ? strdup(slot->step->file) : NULL;
    if (!dir || (slot->step->tag && !tag) || (slot->step->file && !file))
        return gf_nomem(err);
    return set_root(run, dir, tag, file, err);
}

static int find_slots(struct gf_run *run, struct gf_err *err)
{
    const struct gf_options *opt = run->opt;
    const struct gf_format *format;
    char why[GF_WHY];
    bool changed;
    int r;

    if (run->file || opt->source_format)
        return set_root(run, "", opt->tag, NULL, err);
    if (opt->tag && !gf_format_detect(run->dir, NULL, NULL, &format, why, err) &&
        format->tags)
        return set_root(run, "", opt->tag, NULL, err);
    r = gf_run_update(run, &changed, err);
    if (r)
        return r;
    /* Nothing below either: then the words of the detection stand. */
    if (!run->n)
        return gf_format_detect(run->dir, NULL, NULL, &format, why, err);
    return opt->tag ? choose(run, err) : 0;
}

static int open_dir(struct gf_run *run, struct gf_err *err)
{
    GF_AUTO_MEM char *parent = strdup(run->source);
    struct stat st;
    char *slash;

    if (stat(run->source, &st))
        return gf_fail(err, errno, "'%s': %s", run->source, strerror(errno));
    if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
        return gf_fail(err, EINVAL, "'%s': neither a directory nor a regular file",
                       run->source);
    if (!parent)
        return gf_nomem(err);
    slash = strrchr(parent, '/');
    if (S_ISREG(st.st_mode)) {
        run->file = strdup(slash ? slash + 1 : parent);
        if (!run->file)
            return gf_nomem(err);
        if (slash)
            slash[slash == parent] = '\0';
    }
    return gf_dir_local(run->file && !slash ? "." : parent, run->opt->follow_links,
                        run->opt->limits, &run->dir, err);
}

/* The root must be what the user wanted to see: what is wrong with it is said now. */
static int open_root(struct gf_run *run, struct gf_err *err)
{
    struct gf_slot *root;
    int r;

    pthread_mutex_lock(&run->lock);
    do {
        root = gf_run_slot(run, "");
        if (root && !root->step->complete)
            r = gf_fail(err, EINVAL, "%s", root->step->why);
        else
            r = root ? gf_run_try(run, root, err) : 0;
    } while (gf_run_again(run, NULL, &r, err));
    pthread_mutex_unlock(&run->lock);
    return r;
}

int gf_run_open(const char *source, const struct gf_options *opt, struct gf_run **ret,
                struct gf_err *err)
{
    GF_AUTO(gf_run) run = calloc(1, sizeof(*run));
    pthread_condattr_t monotonic;
    int r;

    if (!run)
        return gf_nomem(err);
    pthread_mutex_init(&run->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&run->opened, &monotonic);
    pthread_condattr_destroy(&monotonic);
    run->opt = opt;
    run->source = strdup(source);
    if (!run->source)
        return gf_nomem(err);
    if (gf_live_name(source)) {
        r = gf_live_open(gf_live_name(source), opt, &run->live, err);
    } else {
        r = open_dir(run, err);
        if (!r)
            r = find_slots(run, err);
        if (!r)
            r = open_root(run, err);
    }
    if (!r)
        *ret = gf_take(&run);
    return r;
}

void gf_run_free(struct gf_run *run)
{
    if (!run)
        return;
    gf_live_free(run->live);
    gf_run_slots_free(run);
    gf_dir_free(run->dir);
    pthread_cond_destroy(&run->opened);
    pthread_mutex_destroy(&run->lock);
    free(run->file);
    free(run->source);
    free(run);
}

const char *gf_run_source(const struct gf_run *run)
{
    return run->source;
}

struct gf_live *gf_run_live(struct gf_run *run)
{
    return run->live;
}

int gf_run_snapshot(struct gf_run *run, const char *path, struct gf_snapshot **ret,
                    struct gf_err *err)
{
    struct gf_slot *slot;
    int r;

    if (run->live)
        return gf_live_snapshot(run->live, path, ret, err);
    pthread_mutex_lock(&run->lock);
    do {
        slot = gf_run_slot(run, path);
        if (slot)
            r = gf_run_try(run, slot, err);
        else
            r = gf_fail(err, ENOENT, "'%s': %s", run->source,
                        *path ? "no such checkpoint" : "no weights at the root");
    } while (gf_run_again(run, NULL, &r, err));
    if (!r)
        *ret = gf_snapshot_ref(slot->snapshot);
    pthread_mutex_unlock(&run->lock);
    return r;
}
