/* SPDX-License-Identifier: Apache-2.0 */
#include "job/epoch.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/vec.h"

#define SLOTS 2u /* that we ask of a publisher */

const struct gf_lease_times gf_lease_times_default = { 10000, 300000, 900000 };

enum state { PROMISED, BINDING, BOUND, OVER };

struct gf_epoch {
    atomic_uint refs;
    struct gf_epochs *of;
    uint64_t id;
    struct gf_ranks *ranks;
    bool has_want;
    uint64_t want;
    atomic_int state;
    atomic_uint readers;  /* between enter() and leave() */
    struct gf_shot *shot; /* while BOUND */
    uint64_t step;        /* once BOUND */
    unsigned opens;
    int64_t bound_ms, used_ms;
};

struct lease {
    pid_t reader;
    struct gf_epoch *epoch;
    unsigned opens;
    int64_t used_ms;
};

struct gf_epochs {
    struct gf_job *job;
    struct gf_lease_times times;
    bool partial;
    struct gf_wait wait;
    pthread_mutex_t lock; /* guards all below, and the epochs' unatomic fields */
    pthread_cond_t bound;
    struct GF_VEC(struct gf_epoch *) all; /* oldest first; each with a reference */
    struct GF_VEC(struct lease) leases;
    struct gf_epoch *current; /* in `all`, or NULL */
    uint64_t ids;
};

/* ---------------------------------------------------------------- one epoch */

struct gf_epoch *gf_epoch_ref(struct gf_epoch *e)
{
    atomic_fetch_add(&e->refs, 1);
    return e;
}

void gf_epoch_free(struct gf_epoch *e)
{
    if (!e || atomic_fetch_sub(&e->refs, 1) > 1)
        return;
    gf_shot_free(e->shot);
    gf_ranks_free(e->ranks);
    free(e);
}

struct gf_ranks *gf_epoch_ranks(const struct gf_epoch *e)
{
    return e->ranks;
}

uint64_t gf_epoch_id(const struct gf_epoch *e)
{
    return e->id;
}

bool gf_epoch_step(const struct gf_epoch *e, uint64_t *ret)
{
    int state = atomic_load(&e->state);

    if ((state != BOUND && state != OVER) || !e->bound_ms)
        return false;
    *ret = e->step;
    return true;
}

bool gf_epoch_is_over(const struct gf_epoch *e)
{
    return atomic_load(&e->state) == OVER;
}

static bool in_use(const struct gf_epoch *e, int64_t now)
{
    return e->opens > 0 || now - e->used_ms < e->of->times.idle;
}

/* The rest with the lock held. Gives its slots back, once the reads that are at it are done:
 * each is a copy of at most a few MiB. */
static void end_epoch(struct gf_epoch *e)
{
    atomic_store(&e->state, OVER);
    while (atomic_load(&e->readers))
        sched_yield();
    gf_shot_free(gf_take(&e->shot));
}

static void set_bound(struct gf_epoch *e, struct gf_shot *shot)
{
    e->shot = shot;
    e->step = shot->step;
    e->bound_ms = e->used_ms = gf_now_ms();
    atomic_store(&e->state, BOUND);
}

/* ---------------------------------------------------------------- all epochs */

static bool is_bound(const struct gf_epoch *e)
{
    return atomic_load(&e->state) == BOUND;
}

static struct gf_epoch *newest_bound(struct gf_epochs *es, const struct gf_ranks *ranks)
{
    struct gf_epoch *newest = NULL;

    for (size_t i = 0; i < es->all.n; i++) {
        struct gf_epoch *e = es->all.at[i];

        if (is_bound(e) && (!ranks || e->ranks == ranks) &&
            (!newest || e->bound_ms >= newest->bound_ms))
            newest = e;
    }
    return newest;
}

static bool has_lease(const struct gf_epochs *es, const struct gf_epoch *e)
{
    for (size_t i = 0; i < es->leases.n; i++)
        if (es->leases.at[i].epoch == e)
            return true;
    return false;
}

static void drop_old_leases(struct gf_epochs *es, int64_t now)
{
    size_t n = 0;

    for (size_t i = 0; i < es->leases.n; i++) {
        struct lease *l = &es->leases.at[i];

        if (l->opens || now - l->used_ms < es->times.idle)
            es->leases.at[n++] = *l;
        else
            gf_epoch_free(l->epoch);
    }
    es->leases.n = n;
}

/* Epochs that are over, or were promised and never asked for, when somebody has another; of a
 * certain step, when who asked has gone. */
static void forget(struct gf_epochs *es)
{
    size_t n = 0;

    for (size_t i = 0; i < es->all.n; i++) {
        struct gf_epoch *e = es->all.at[i];
        int state = atomic_load(&e->state);

        if (e == es->current || state == BOUND || state == BINDING || e->opens ||
            (state == PROMISED && e->has_want && atomic_load(&e->refs) > 1) ||
            has_lease(es, e)) {
            es->all.at[n++] = e;
            continue;
        }
        /* Kept by snapshots that the kernel still knows: they look for another. */
        atomic_store(&e->state, OVER);
        gf_epoch_free(e);
    }
    es->all.n = n;
}

void gf_epochs_tick(struct gf_epochs *es)
{
    int64_t now = gf_now_ms();
    struct gf_epoch *newest;

    pthread_mutex_lock(&es->lock);
    drop_old_leases(es, now);
    newest = newest_bound(es, NULL);
    for (size_t i = 0; i < es->all.n; i++) {
        struct gf_epoch *e = es->all.at[i];

        if (is_bound(e) && e != newest && !in_use(e, now))
            end_epoch(e);
    }
    forget(es);
    pthread_mutex_unlock(&es->lock);
}

/* Slots that are held of these ranks. */
static unsigned held(const struct gf_epochs *es, const struct gf_ranks *ranks)
{
    unsigned n = 0;

    for (size_t i = 0; i < es->all.n; i++) {
        const struct gf_epoch *e = es->all.at[i];
        bool first = is_bound(e) && e->ranks == ranks;

        for (size_t k = 0; k < i && first; k++)
            first = es->all.at[k]->shot != e->shot;
        n += first;
    }
    return n;
}

static unsigned slots_of(const struct gf_ranks *ranks)
{
    unsigned n = SLOTS;

    for (uint32_t i = 0; i < ranks->n; i++)
        n = GF_MIN(n, (unsigned)GF_MAX(ranks->at[i].table->nslots, 1u));
    return n;
}

/* Makes room for one step more: from who reads no more, then from who has read too long. */
static bool make_room(struct gf_epochs *es, const struct gf_epoch *fresh)
{
    int64_t now = gf_now_ms();

    for (int hard = 0; hard < 2; hard++)
        for (size_t i = 0;
             i < es->all.n && held(es, fresh->ranks) >= slots_of(fresh->ranks); i++) {
            struct gf_epoch *e = es->all.at[i];

            if (is_bound(e) && e->ranks == fresh->ranks &&
                (hard ? now - e->bound_ms >= es->times.hard : !in_use(e, now)))
                end_epoch(e);
        }
    return held(es, fresh->ranks) < slots_of(fresh->ranks);
}

/* The same for another process, or for ranks that have fewer slots than they were asked for. */
static void yield_idle(void *ctx)
{
    struct gf_epochs *es = ctx;
    int64_t now = gf_now_ms();

    pthread_mutex_lock(&es->lock);
    for (size_t i = 0; i < es->all.n; i++)
        if (is_bound(es->all.at[i]) && !in_use(es->all.at[i], now))
            end_epoch(es->all.at[i]);
    pthread_mutex_unlock(&es->lock);
}

/* ---------------------------------------------------------------- binding */

/* Somebody else is binding it, or another one: there is one step at a time. */
static int wait_turn(struct gf_epochs *es, struct gf_epoch *e, const struct gf_wait *wait,
                     struct gf_err *err)
{
    int64_t end = gf_now_ms() + wait->ms;

    for (;;) {
        bool busy = false;

        for (size_t i = 0; i < es->all.n; i++)
            busy |= atomic_load(&es->all.at[i]->state) == BINDING;
        if (!busy || atomic_load(&e->state) >= BOUND)
            return 0;
        if (wait->gave_up && wait->gave_up(wait->ctx))
            return gf_fail(err, EINTR, "interrupted");
        if (gf_now_ms() >= end)
            return gf_fail(err, ETIMEDOUT, "no step of the job in %u ms", wait->ms);
        gf_tick_wait(&es->bound, &es->lock);
    }
}

/* The step that a new one would follow, where there can be no new one. */
static bool share(struct gf_epochs *es, struct gf_epoch *e)
{
    const struct gf_epoch *newest = e->has_want ? NULL : newest_bound(es, e->ranks);

    if (newest)
        set_bound(e, gf_shot_ref(newest->shot));
    return newest;
}

static int bind(struct gf_epochs *es, struct gf_epoch *e, const struct gf_wait *wait,
                struct gf_err *err)
{
    struct gf_shot *shot = NULL;
    int r;

    if (!make_room(es, e)) {
        if (share(es, e))
            return 0;
        return gf_fail(err, EBUSY, "job '%s': all its slots are being read",
                       gf_job_name(es->job));
    }
    atomic_store(&e->state, BINDING);
    pthread_mutex_unlock(&es->lock);
    r = gf_job_take(es->job, e->ranks, e->has_want ? &e->want : NULL, wait, &shot, err);
    pthread_mutex_lock(&es->lock);
    if (!r) {
        set_bound(e, shot);
    } else if (r == -ESTALE) {
        atomic_store(&e->state, OVER); /* its names and sizes are the past's */
    } else {
        atomic_store(&e->state, PROMISED);
        if (r != -EINTR && share(es, e))
            r = 0;
    }
    pthread_cond_broadcast(&es->bound);
    return r;
}

/* With the lock held. */
static int bind_locked(struct gf_epoch *e, const struct gf_wait *wait, struct gf_err *err)
{
    struct gf_epochs *es = e->of;
    int r = wait_turn(es, e, wait, err), state = atomic_load(&e->state);

    if (r)
        return r;
    if (state == OVER)
        return gf_fail(err, ESTALE, "job '%s': the step that was read is over",
                       gf_job_name(es->job));
    return state == BOUND ? 0 : bind(es, e, wait, err);
}

int gf_epoch_bind(struct gf_epoch *e, const struct gf_wait *wait, struct gf_err *err)
{
    int r;

    pthread_mutex_lock(&e->of->lock);
    r = bind_locked(e, wait, err);
    pthread_mutex_unlock(&e->of->lock);
    return r;
}

/* ---------------------------------------------------------------- leases */

static struct lease *find_lease(struct gf_epochs *es, pid_t reader,
                                const struct gf_epoch *e)
{
    for (size_t i = 0; i < es->leases.n; i++)
        if (es->leases.at[i].reader == reader && es->leases.at[i].epoch == e)
            return &es->leases.at[i];
    return NULL;
}

int gf_epoch_open(struct gf_epoch *e, pid_t reader, const struct gf_wait *wait,
                  struct gf_err *err)
{
    struct gf_epochs *es = e->of;
    struct lease *l;
    int r;

    pthread_mutex_lock(&es->lock);
    r = bind_locked(e, wait, err);
    l = r || !reader ? NULL : find_lease(es, reader, e);
    if (!r && reader && !l) {
        struct lease fresh = { .reader = reader, .epoch = e };

        r = gf_vec_push(&es->leases, fresh, SIZE_MAX / sizeof(fresh)) ? gf_nomem(err) : 0;
        if (!r) {
            gf_epoch_ref(e);
            l = &es->leases.at[es->leases.n - 1];
        }
    }
    if (l)
        l->opens++;
    if (!r)
        e->opens++;
    pthread_mutex_unlock(&es->lock);
    return r;
}

void gf_epoch_close(struct gf_epoch *e, pid_t reader)
{
    struct lease *l;

    pthread_mutex_lock(&e->of->lock);
    l = reader ? find_lease(e->of, reader, e) : NULL;
    e->used_ms = gf_now_ms();
    if (l) {
        l->used_ms = e->used_ms;
        l->opens--;
    }
    e->opens--;
    pthread_mutex_unlock(&e->of->lock);
}

/* ---------------------------------------------------------------- which one */

static bool has_newer(const struct gf_epoch *e)
{
    struct gf_live_status status;

    for (uint32_t i = 0; i < e->ranks->n; i++) {
        gf_live_status_load(gf_rank_control(&e->ranks->at[i]), &status);
        if (status.step > e->step)
            return true;
    }
    return false;
}

/* May somebody who has no epoch yet take the current one? */
static bool can_join(struct gf_epochs *es, const struct gf_epoch *e, int64_t now)
{
    bool connected = gf_job_has(es->job, e->ranks);

    switch (atomic_load(&e->state)) {
    case PROMISED:
    case BINDING:
        return connected || !gf_job_is_whole(es->job);
    case BOUND:
        if (!connected)
            return !gf_job_is_whole(es->job); /* the last there is */
        return (in_use(e, now) && now - e->bound_ms < es->times.max) || !has_newer(e);
    default:
        return false;
    }
}

/* The epoch that a process has opened files of; of several the newest. */
static struct gf_epoch *leased(struct gf_epochs *es, pid_t reader)
{
    struct gf_epoch *e = NULL;

    for (size_t i = 0; i < es->leases.n && reader; i++) {
        struct lease *l = &es->leases.at[i];

        if (l->reader == reader && (!e || l->epoch->id > e->id))
            e = l->epoch;
    }
    return e;
}

static struct gf_epoch *add_epoch(struct gf_epochs *es, struct gf_ranks *ranks,
                                  const uint64_t *want)
{
    struct gf_epoch *e = calloc(1, sizeof(*e));

    if (!e || gf_vec_push(&es->all, e, SIZE_MAX / sizeof(e))) {
        free(e);
        return NULL;
    }
    atomic_init(&e->refs, 1);
    e->of = es;
    e->id = ++es->ids;
    e->ranks = gf_ranks_ref(ranks);
    e->has_want = want != NULL;
    e->want = want ? *want : 0;
    e->used_ms = gf_now_ms();
    return e;
}

/* The one to be given out now, or NULL: a new one has to be made. */
static struct gf_epoch *existing(struct gf_epochs *es, pid_t reader)
{
    int64_t now = gf_now_ms();
    struct gf_epoch *e;

    drop_old_leases(es, now);
    e = leased(es, reader);
    if (!e && es->current && can_join(es, es->current, now))
        e = es->current;
    return e ? gf_epoch_ref(e) : NULL;
}

int gf_epochs_get(struct gf_epochs *es, pid_t reader, const uint64_t *want,
                  const struct gf_wait *wait, struct gf_epoch **ret, struct gf_err *err)
{
    GF_AUTO(gf_ranks) ranks = NULL;
    struct gf_epoch *e;
    int r;

    pthread_mutex_lock(&es->lock);
    e = want ? NULL : existing(es, reader);
    pthread_mutex_unlock(&es->lock);
    if (!e) {
        r = gf_job_ranks(es->job, es->partial, wait, &ranks, err);
        if (r)
            return r;
        pthread_mutex_lock(&es->lock);
        e = want ? NULL : existing(es, reader);
        if (!e) {
            e = add_epoch(es, ranks, want);
            if (e && !want)
                es->current = e;
            if (e)
                gf_epoch_ref(e);
        }
        pthread_mutex_unlock(&es->lock);
    }
    if (!e)
        return gf_nomem(err);
    *ret = e;
    return 0;
}

void gf_epochs_refresh(struct gf_epochs *es)
{
    pthread_mutex_lock(&es->lock);
    for (size_t i = 0; i < es->all.n; i++)
        if (!es->all.at[i]->opens)
            es->all.at[i]->used_ms = gf_now_ms() - es->times.idle;
    if (es->current && is_bound(es->current) && has_newer(es->current))
        es->current = NULL;
    pthread_mutex_unlock(&es->lock);
}

struct gf_epoch *gf_epochs_at(struct gf_epochs *es, uint64_t step)
{
    struct gf_epoch *found = NULL;

    pthread_mutex_lock(&es->lock);
    for (size_t i = es->all.n; i-- > 0 && !found;)
        if (is_bound(es->all.at[i]) && es->all.at[i]->step == step)
            found = gf_epoch_ref(es->all.at[i]);
    pthread_mutex_unlock(&es->lock);
    return found;
}

size_t gf_epochs_steps(struct gf_epochs *es, uint64_t *steps, size_t max)
{
    size_t n = 0;

    pthread_mutex_lock(&es->lock);
    for (size_t i = 0; i < es->all.n && n < max; i++) {
        bool fresh = is_bound(es->all.at[i]);

        for (size_t k = 0; k < n && fresh; k++)
            fresh = steps[k] != es->all.at[i]->step;
        if (fresh)
            steps[n++] = es->all.at[i]->step;
    }
    pthread_mutex_unlock(&es->lock);
    return n;
}

/* ---------------------------------------------------------------- reads */

static int enter_frozen(struct gf_epoch *e, uint32_t i, const uint8_t **ret)
{
    struct gf_memory *memory = atomic_load(&e->ranks->at[i].frozen);
    int r = memory ? 0 : gf_job_frozen(e->of->job, e->ranks, i, &e->of->wait, NULL);

    if (r)
        return r;
    *ret = atomic_load(&e->ranks->at[i].frozen)->bytes;
    return 0;
}

static int enter(void *ctx, uint32_t part, const uint8_t **ret)
{
    struct gf_epoch *e = ctx;
    int r;

    if (part & 1)
        return enter_frozen(e, part / 2, ret);
    for (;;) {
        atomic_fetch_add(&e->readers, 1);
        if (atomic_load(&e->state) == BOUND) {
            *ret = e->shot->at[part / 2].memory->bytes;
            return 0;
        }
        atomic_fetch_sub(&e->readers, 1);
        r = gf_epoch_bind(e, &e->of->wait, NULL);
        if (r)
            return r;
    }
}

static void leave(void *ctx, uint32_t part)
{
    struct gf_epoch *e = ctx;

    if (!(part & 1))
        atomic_fetch_sub(&e->readers, 1);
}

const struct gf_slot_guard gf_epoch_guard = { .enter = enter, .leave = leave };

/* ---------------------------------------------------------------- the whole */

int gf_epochs_new(struct gf_job *job, const struct gf_lease_times *times, bool partial,
                  unsigned wait_ms, struct gf_epochs **ret, struct gf_err *err)
{
    struct gf_epochs *es = calloc(1, sizeof(*es));
    pthread_condattr_t monotonic;

    if (!es)
        return gf_nomem(err);
    es->job = job;
    es->times = *times;
    es->partial = partial;
    es->wait = (struct gf_wait){ .ms = wait_ms };
    pthread_mutex_init(&es->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&es->bound, &monotonic);
    pthread_condattr_destroy(&monotonic);
    gf_job_on_need(job, yield_idle, es);
    *ret = es;
    return 0;
}

void gf_epochs_free(struct gf_epochs *es)
{
    if (!es)
        return;
    gf_job_on_need(es->job, NULL, NULL);
    for (size_t i = 0; i < es->leases.n; i++)
        gf_epoch_free(es->leases.at[i].epoch);
    for (size_t i = 0; i < es->all.n; i++)
        gf_epoch_free(es->all.at[i]);
    gf_vec_free(&es->leases);
    gf_vec_free(&es->all);
    pthread_mutex_destroy(&es->lock);
    pthread_cond_destroy(&es->bound);
    free(es);
}
