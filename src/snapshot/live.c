/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live.c - epochs of a job as snapshots.
 *
 * Side files are copied when a snapshot is made: the job removes them when it ends, and its
 * last step can be read for longer than that. A mount also puts copies back for others.
 *
 * Lock: live->lock guards the list of snapshots, and one is made at a time.
 */
#include "snapshot/live.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/math.h"
#include "format/live.h"
#include "job/epoch.h"
#include "job/job.h"
#include "snapshot/live_int.h"
#include "snapshot/side.h"
#include "source/slot.h"

#define STEPS "steps"        /* steps/N/: the steps that are held */
#define SIDE_MAX (64u << 20) /* bytes of one side file */

/* ---------------------------------------------------------------- who asks */

static _Thread_local pid_t asker;

/* FUSE knows threads; a process is what keeps a step. */
static pid_t process_of(pid_t pid)
{
    char path[64], line[128];
    long tgid = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
    f = pid > 0 ? fopen(path, "re") : NULL;
    if (!f)
        return 0;
    while (!tgid && fgets(line, sizeof(line), f))
        if (strncmp(line, "Tgid:", 5) == 0)
            tgid = strtol(line + 5, NULL, 10);
    fclose(f);
    return (pid_t)tgid;
}

void gf_live_asked_by(pid_t pid)
{
    asker = process_of(pid);
}

pid_t gf_live_asker(void)
{
    return asker;
}

static struct gf_wait wait_of(const struct gf_options *opt)
{
    return (struct gf_wait){ .ms = (opt->timeout ? opt->timeout : GF_LIVE_TIMEOUT) * 1000 };
}

/* ---------------------------------------------------------------- side files */

static int copy_file(struct gf_dir *from, const struct gf_dir_entry *entry,
                     struct gf_dir *to, struct gf_err *err)
{
    GF_AUTO_MEM char *text = NULL;
    size_t len;
    int r;

    if (entry->is_dir || !gf_side_is_wanted(entry->name))
        return 0;
    r = gf_dir_read(from, entry->name, SIDE_MAX, &text, &len, err);
    if (r == -ENOENT)
        return 0; /* it was removed meanwhile */
    return r ? r : gf_dir_mem_add(to, entry->name, text, len, err);
}

/* What the job has put beside its sockets; once that is gone, what was there before. */
static int read_side(struct gf_live *live, struct gf_err *err)
{
    struct gf_dir_listing listing = { 0 };
    GF_AUTO(gf_dir) from = NULL;
    GF_AUTO(gf_dir) to = NULL;
    GF_AUTO_MEM char *path = NULL;
    int r;

    if (asprintf(&path, "%s/model", gf_job_dir(live->job)) < 0) {
        path = NULL;
        return gf_nomem(err);
    }
    if (gf_dir_local(path, false, live->opt->limits, &from, NULL) ||
        gf_dir_list(from, "", &listing, NULL))
        return live->side ? 0
                          : gf_dir_mem(live->source, live->opt->limits, &live->side, err);
    r = gf_dir_mem(live->source, live->opt->limits, &to, err);
    for (size_t i = 0; i < listing.n && !r; i++)
        r = copy_file(from, &listing.at[i], to, err);
    if (!r && (listing.n || !live->side)) {
        gf_dir_free(live->side);
        live->side = gf_take(&to);
    }
    gf_dir_listing_free(&listing);
    return r;
}

/* Who publishes only tensors has none; else it should be known why they are missing. */
static void warn_without_side(struct gf_live *live)
{
    struct gf_dir_listing listing = { 0 };

    if (gf_job_has_ended(live->job) && !gf_dir_list(live->side, "", &listing, NULL) &&
        !listing.n)
        gf_log_limited(GF_LOG_WARN,
                       "%s: the job has ended, and there is no config.json nor any other "
                       "side file of it any more, only its weights",
                       live->source);
    gf_dir_listing_free(&listing);
}

static int keep_each(struct gf_live *live, struct gf_err *err)
{
    struct gf_dir_listing listing = { 0 };
    int r = read_side(live, err);

    if (!r)
        r = gf_dir_list(live->side, "", &listing, err);
    for (size_t i = 0; i < listing.n && !r; i++) {
        const char *name = listing.at[i].name;
        GF_AUTO_MEM char *text = NULL;
        size_t len;

        r = gf_dir_read(live->side, name, SIDE_MAX, &text, &len, err);
        if (!r)
            r = gf_job_side_keep(live->job, name, text, len, err);
    }
    gf_dir_listing_free(&listing);
    return r;
}

/* Training ends, and its publishers with their files: those of other processes that ask us
 * for the last step need them, too. */
static void keep_side(struct gf_live *live)
{
    struct gf_err err = { 0 };

    if (live->kept_side)
        return;
    live->kept_side = true;
    pthread_mutex_lock(&live->lock);
    if (keep_each(live, &err))
        gf_log(GF_LOG_WARN, "%s: other processes will miss config.json and the like: %s",
               live->source, err.text);
    pthread_mutex_unlock(&live->lock);
}

/* ---------------------------------------------------------------- snapshots */

static int make_sources(struct gf_epoch *epoch, struct gf_live_rank *at, struct gf_err *err)
{
    const struct gf_ranks *ranks = gf_epoch_ranks(epoch);
    int64_t id = (int64_t)gf_epoch_id(epoch);
    int r = 0;

    for (uint32_t i = 0; i < ranks->n && !r; i++) {
        const struct gf_rank *rank = &ranks->at[i];
        char name[64];

        at[i].table = rank->table;
        at[i].set = rank->set;
        snprintf(name, sizeof(name), "rank-%" PRIu32, rank->table->rank);
        if (rank->moving)
            r = gf_source_slot(name, rank->table->slot_bytes, &gf_epoch_guard, epoch, 2 * i,
                               id, &at[i].slot, err);
        snprintf(name, sizeof(name), "rank-%" PRIu32 " (static)", rank->table->rank);
        if (rank->resting && !r)
            r = gf_source_slot(name, rank->table->static_bytes, &gf_epoch_guard, epoch,
                               2 * i + 1, id, &at[i].frozen, err);
    }
    return r;
}

static int find_tensors(struct gf_live *live, struct gf_epoch *epoch, struct gf_found *ret,
                        struct gf_err *err)
{
    const struct gf_ranks *ranks = gf_epoch_ranks(epoch);
    GF_AUTO_MEM struct gf_live_rank *at = calloc(ranks->n, sizeof(*at));
    int r = at ? make_sources(epoch, at, err) : gf_nomem(err);

    if (!r)
        return gf_live_found(at, ranks->n, ranks->world - ranks->n, live->opt->limits, ret,
                             err);
    for (uint32_t i = 0; at && i < ranks->n; i++) {
        gf_source_free(at[i].slot);
        gf_source_free(at[i].frozen);
    }
    return r;
}

static int make_snapshot(struct gf_live *live, struct gf_epoch *epoch,
                         struct gf_snapshot **ret, struct gf_err *err)
{
    struct gf_found found = { 0 };
    int r = read_side(live, err);

    if (!r) {
        warn_without_side(live);
        r = find_tensors(live, epoch, &found, err);
    }
    if (!r)
        return gf_snapshot_open_live(live->side, &found, epoch, live->opt, ret, err);
    gf_found_done(&found);
    return r;
}

/* The epoch's snapshot, made at the first call. */
static int snapshot_of(struct gf_live *live, struct gf_epoch *epoch,
                       struct gf_snapshot **ret, struct gf_err *err)
{
    struct gf_live_step step = { 0 };
    int r = 0;

    pthread_mutex_lock(&live->lock);
    for (size_t i = 0; i < live->steps.n && !step.snapshot; i++)
        if (live->steps.at[i].epoch == epoch)
            step = live->steps.at[i];
    if (!step.snapshot) {
        r = make_snapshot(live, epoch, &step.snapshot, err);
        step.epoch = epoch;
        if (!r && gf_vec_push(&live->steps, step, SIZE_MAX / sizeof(step))) {
            gf_snapshot_free(step.snapshot);
            r = gf_nomem(err);
        } else if (!r) {
            gf_epoch_ref(epoch);
        }
    }
    if (!r)
        *ret = gf_snapshot_ref(step.snapshot);
    pthread_mutex_unlock(&live->lock);
    return r;
}

/* Snapshots of epochs that are over live on as long as the kernel knows them. */
static bool drop_old(struct gf_live *live)
{
    size_t n = 0, before;

    pthread_mutex_lock(&live->lock);
    before = live->steps.n;
    for (size_t i = 0; i < before; i++) {
        struct gf_live_step *step = &live->steps.at[i];

        if (!gf_epoch_is_over(step->epoch)) {
            live->steps.at[n++] = *step;
            continue;
        }
        gf_snapshot_free(step->snapshot);
        gf_epoch_free(step->epoch);
    }
    live->steps.n = n;
    pthread_mutex_unlock(&live->lock);
    return n != before;
}

/* ---------------------------------------------------------------- paths */

/* "steps/40" -> 40. */
static bool step_in(const char *path, uint64_t *ret)
{
    const char *p = path + strlen(STEPS "/");

    if (strncmp(path, STEPS "/", strlen(STEPS "/")) != 0 || *p < '0' || *p > '9' ||
        (*p == '0' && p[1]))
        return false;
    for (*ret = 0; *p >= '0' && *p <= '9'; p++)
        if (gf_mul(*ret, 10, ret) || gf_add(*ret, (uint64_t)(*p - '0'), ret))
            return false;
    return !*p;
}

/* With step= the one that was chosen, for all. */
static int epoch_for(struct gf_live *live, struct gf_epoch **ret, struct gf_err *err)
{
    struct gf_wait wait = wait_of(live->opt);

    if (live->chosen) {
        *ret = gf_epoch_ref(live->chosen);
        return 0;
    }
    return gf_epochs_get(live->epochs, asker, NULL, &wait, ret, err);
}

int gf_live_snapshot(struct gf_live *live, const char *path, struct gf_snapshot **ret,
                     struct gf_err *err)
{
    GF_AUTO(gf_epoch) epoch = NULL;
    uint64_t step;
    int r;

    if (!*path) {
        r = epoch_for(live, &epoch, err);
        if (r)
            return r;
    } else {
        epoch = step_in(path, &step) ? gf_epochs_at(live->epochs, step) : NULL;
        if (!epoch)
            return gf_fail(err, ENOENT, "'%s': no step '%s' is held", live->source, path);
    }
    return snapshot_of(live, epoch, ret, err);
}

int gf_live_look(struct gf_live *live, const char *path, enum gf_run_kind *ret)
{
    GF_AUTO(gf_epoch) epoch = NULL;
    uint64_t step;

    if (live->opt->view)
        return -ENOENT;
    if (strcmp(path, STEPS) == 0) {
        *ret = GF_RUN_DIR;
        return 0;
    }
    epoch = step_in(path, &step) ? gf_epochs_at(live->epochs, step) : NULL;
    *ret = GF_RUN_CHECKPOINT;
    return epoch ? 0 : -ENOENT;
}

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

int gf_live_entries(struct gf_live *live, const char *dir, struct gf_run_entry **ret,
                    size_t *ret_n, struct gf_err *err)
{
    uint64_t steps[16];
    size_t n = 0;
    struct gf_run_entry *entries;

    if (dir && strcmp(dir, STEPS) == 0)
        n = gf_epochs_steps(live->epochs, steps, GF_COUNT(steps));
    entries = calloc(n + 1, sizeof(*entries));
    if (!entries)
        return gf_nomem(err);
    qsort(steps, n, sizeof(*steps), by_number);
    for (size_t i = 0; i < n; i++) {
        entries[i] = (struct gf_run_entry){ .kind = GF_RUN_CHECKPOINT,
                                            .complete = true,
                                            .format = "live",
                                            .has_step = true,
                                            .step = steps[i] };
        if (asprintf(&entries[i].path, STEPS "/%" PRIu64, steps[i]) < 0) {
            entries[i].path = NULL;
            gf_run_entries_free(entries, n);
            return gf_nomem(err);
        }
    }
    *ret = entries;
    *ret_n = n;
    return 0;
}

/* ---------------------------------------------------------------- following */

/* What training leaves as it is comes when it is read first, which may be too late then. */
static bool take_frozen(struct gf_live *live, struct gf_epoch *epoch,
                        const struct gf_wait *wait)
{
    struct gf_ranks *ranks = gf_epoch_ranks(epoch);
    struct gf_err err = { 0 };

    for (uint32_t i = 0; i < ranks->n; i++)
        if (ranks->at[i].resting && gf_job_frozen(live->job, ranks, i, wait, &err)) {
            gf_log_limited(GF_LOG_WARN, "%s: no weights yet that are not trained: %s",
                           live->source, err.text);
            return false;
        }
    return true;
}

/* Training is over: its last step is kept, then the trainer may go. Until that step is here
 * (slots may still be read) the trainer waits, within its own limits. */
static bool take_last(struct gf_live *live)
{
    struct gf_wait wait = wait_of(live->opt);
    GF_AUTO(gf_epoch) epoch = NULL;
    struct gf_live_progress now;
    uint64_t step;

    gf_epochs_refresh(live->epochs);
    if (gf_epochs_get(live->epochs, 0, NULL, &wait, &epoch, NULL) ||
        gf_epoch_bind(epoch, &wait, NULL))
        return false;
    gf_live_progress(live, &now);
    if (!gf_epoch_step(epoch, &step) || step < now.step) {
        gf_log_limited(GF_LOG_WARN, "%s: no room yet for its last step %" PRIu64,
                       live->source, now.step);
        return false;
    }
    if (!take_frozen(live, epoch, &wait))
        return false;
    gf_job_bye(live->job);
    return true;
}

bool gf_live_poll(struct gf_live *live)
{
    uint64_t version = gf_job_version(live->job);
    bool changed = version != live->version;

    if (!live->polled)
        gf_job_keep(live->job);
    live->polled = true;
    live->version = version;
    if (!gf_job_finishing(live->job)) {
        live->said_bye = false;
        if (live->kept_side && gf_job_is_whole(live->job)) { /* it was started again */
            gf_job_side_drop(live->job);
            live->kept_side = false;
        }
    } else if (!live->said_bye) {
        keep_side(live);
        live->said_bye = take_last(live);
    }
    gf_epochs_tick(live->epochs);
    return drop_old(live) || changed;
}

void gf_live_refresh(struct gf_live *live)
{
    gf_epochs_refresh(live->epochs);
}

int gf_live_choose(struct gf_live *live, const uint64_t *step, struct gf_err *err)
{
    struct gf_wait wait = wait_of(live->opt);
    GF_AUTO(gf_epoch) epoch = NULL;
    int r = step ? gf_epochs_get(live->epochs, 0, step, &wait, &epoch, err) : 0;

    if (epoch && !r)
        r = gf_epoch_bind(epoch, &wait, err);
    if (r)
        return r;
    gf_epoch_free(live->chosen);
    live->chosen = gf_take(&epoch);
    return 0;
}

/* ---------------------------------------------------------------- opening */

const char *gf_live_name(const char *source)
{
    return strncmp(source, "live:", 5) == 0 && source[5] ? source + 5 : NULL;
}

/* step=: now, if there is a chance that it still comes. */
static int choose_option(struct gf_live *live, struct gf_err *err)
{
    uint64_t step;
    char path[64];

    if (!live->opt->tag)
        return 0;
    snprintf(path, sizeof(path), STEPS "/%s", live->opt->tag);
    if (!step_in(path, &step))
        return gf_fail(err, EINVAL, "option 'step': '%s' is no step of a live job",
                       live->opt->tag);
    return gf_live_choose(live, &step, err);
}

int gf_live_open(const char *name, const struct gf_options *opt, struct gf_live **ret,
                 struct gf_err *err)
{
    GF_AUTO(gf_live) live = calloc(1, sizeof(*live));
    struct gf_wait wait = wait_of(opt);
    GF_AUTO(gf_snapshot) first = NULL;
    int r;

    if (!live)
        return gf_nomem(err);
    pthread_mutex_init(&live->lock, NULL);
    live->opt = opt;
    if (asprintf(&live->source, "live:%s", name) < 0) {
        live->source = NULL;
        return gf_nomem(err);
    }
    r = gf_job_open(name, opt->limits, &live->job, err);
    if (!r)
        r = gf_epochs_new(live->job, &gf_lease_times_default, opt->allow_incomplete,
                          wait.ms, &live->epochs, err);
    if (!r)
        r = choose_option(live, err);
    if (!r)
        r = gf_live_snapshot(live, "", &first, err);
    if (!r)
        *ret = gf_take(&live);
    return r;
}

void gf_live_free(struct gf_live *live)
{
    if (!live)
        return;
    for (size_t i = 0; i < live->steps.n; i++) {
        gf_snapshot_free(live->steps.at[i].snapshot);
        gf_epoch_free(live->steps.at[i].epoch);
    }
    gf_vec_free(&live->steps);
    gf_epoch_free(live->chosen);
    gf_epochs_free(live->epochs);
    gf_job_free(live->job);
    gf_dir_free(live->side);
    pthread_mutex_destroy(&live->lock);
    free(live->source);
    free(live);
}
