/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.c - the thread of a job: finds publishers, keeps the connections, answers requests.
 *
 *     caller              thread
 *     ask(): queue, wake  --> poll: sockets, wake
 *                             scan the directory now and then, connect
 *                             group: are all ranks of one start there?
 *                             the requests, as far as they go
 *     wake up         <------ done
 */
#include "job/job.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/math.h"
#include "job/job_int.h"
#include "live/rundir.h"

#define SCAN_MS 1000     /* looks for new sockets, while all is well */
#define HURRY_MS 20      /* ... while somebody waits for ranks */
#define GREETING_MS 5000 /* until HELLO */
#define TAKEN_MS 1000    /* an agent that was killed is noticed within this */
#define YIELD_MS 300     /* two agents with half of a job each */

int64_t gf_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wake(struct gf_job *job)
{
    const uint64_t one = 1;

    if (write(job->wake, &one, sizeof(one)) < 0)
        return; /* full: it is awake */
}

/* ---------------------------------------------------------------- requests */

static void ranks_run(struct gf_job *job, struct gf_request *q)
{
    int64_t now = gf_now_ms();

    if (!job->alive && q->partial && now >= q->end_ms)
        gf_job_group(job, true);
    if (job->alive) {
        q->found = gf_ranks_ref(job->ranks);
        q->done = true;
        q->r = 0;
    } else if ((q->r = gf_job_dead(job, q))) {
        q->done = true;
    } else if (now >= q->end_ms) {
        if (!job->why.code)
            gf_job_group(job, false);
        q->done = true;
        q->err = job->why;
        q->r = -q->err.code;
    }
}

/* Those that nobody waits for are done, whatever becomes of them. */
static void answer(struct gf_job *job, struct gf_request *q)
{
    struct gf_request **p = &job->queue;

    while (*p != q)
        p = &(*p)->next;
    *p = q->next;
    if (job->active == q)
        job->active = NULL;
    if (q->guests)
        return;
    q->answered = true;
    pthread_cond_broadcast(&job->answered);
}

/* Before any request that may need what was given back. */
static void give_back(struct gf_job *job)
{
    struct GF_VEC(struct gf_lease) list = { 0 };
    bool bye;

    pthread_mutex_lock(&job->lock);
    memcpy(&list, &job->given_back, sizeof(list));
    memset(&job->given_back, 0, sizeof(job->given_back));
    /* Who waits for nothing more does not hold up the end. */
    bye = job->bye || (job->finishing && !job->keep && !job->queue);
    job->bye = false;
    pthread_mutex_unlock(&job->lock);
    for (size_t i = 0; i < list.n && job->host >= 0; i++)
        if (list.at[i].peer == job->host_serial)
            gf_host_release(job, list.at[i].seq);
    for (size_t i = 0; i < list.n; i++)
        for (size_t k = 0; k < job->peers.n; k++)
            if (job->peers.at[k]->serial == list.at[i].peer &&
                job->peers.at[k]->said->table->incarnation == list.at[i].incarnation)
                gf_peer_release(job->peers.at[k], list.at[i].slot, list.at[i].seq);
    gf_vec_free(&list);
    for (size_t k = 0; bye && k < job->peers.n; k++)
        gf_peer_bye(job->peers.at[k]);
}

struct gf_request *gf_job_next(struct gf_job *job, const struct gf_request *q)
{
    struct gf_request *next;

    pthread_mutex_lock(&job->lock);
    next = q ? q->next : job->queue;
    pthread_mutex_unlock(&job->lock);
    return next;
}

static void run_request(struct gf_job *job, struct gf_request *q, bool gave_up)
{
    if (gave_up) {
        if (job->host >= 0)
            gf_host_abort(job, q);
        else
            gf_take_abort(job, q);
        q->done = true;
        q->r = gf_fail(&q->err, EINTR, "interrupted");
    } else if (q->kind == GF_REQUEST_RANKS) {
        ranks_run(job, q);
    } else if (job->host >= 0) {
        if (!q->done)
            gf_host_run(job, q);
    } else if (q->kind == GF_REQUEST_TAKE) {
        gf_take_run(job, q);
    } else {
        gf_frozen_run(job, q);
    }
    if (q->done && q->guests && q->r == -ENOTCONN && q->kind == GF_REQUEST_TAKE &&
        !q->has_want) {
        q->shot = gf_shot_newest(job, q->ranks); /* the last there was */
        q->r = q->shot ? 0 : q->r;
    }
}

/* Each request as far as it goes; true: the ranks are free for another step. */
static bool run_all(struct gf_job *job)
{
    struct gf_request *q, *next;
    bool freed = false;

    gf_take_choose(job);
    for (q = gf_job_next(job, NULL); q; q = next) {
        bool gave_up, done, of_guest = q->guests;

        pthread_mutex_lock(&job->lock);
        gave_up = q->gave_up;
        pthread_mutex_unlock(&job->lock);
        run_request(job, q, gave_up);
        done = q->done;
        freed |= done && q == job->active;
        pthread_mutex_lock(&job->lock);
        next = q->next;
        if (done)
            answer(job, q); /* it is gone now, if it is not of a guest */
        pthread_mutex_unlock(&job->lock);
        if (done && of_guest)
            gf_guest_answer(q);
    }
    return freed;
}

static void run_requests(struct gf_job *job)
{
    do {
        give_back(job);
    } while (run_all(job));
    give_back(job);
}

/* ---------------------------------------------------------------- the thread */

/* One of them has something to say, or has gone. */
static bool pump(struct gf_job *job, size_t i)
{
    struct gf_err err = { 0 };
    bool changed = false;
    int r = gf_peer_pump(job, job->peers.at[i], &changed, &err);

    if (!r)
        return changed;
    if (r == -EBUSY) {
        if (!job->taken_ms)
            job->taken_ms = gf_now_ms();
        job->scan_ms = gf_now_ms() + HURRY_MS;
    }
    if (r != -EPIPE)
        job->why = err;
    changed = job->peers.at[i]->said != NULL;
    if (r == -EPIPE && job->peers.at[i]->final) {
        pthread_mutex_lock(&job->lock);
        job->ended = true;
        pthread_mutex_unlock(&job->lock);
    }
    gf_job_drop(job, i);
    return changed;
}

static bool pump_all(struct gf_job *job, const struct pollfd *fds, size_t n)
{
    bool changed = false;

    /* Backwards, as those that have gone are taken out. */
    for (size_t i = n; i-- > 0;)
        if (fds[i].revents)
            changed |= pump(job, i);
    for (size_t i = job->peers.n; i-- > 0;)
        if (!job->peers.at[i]->said &&
            gf_now_ms() - job->peers.at[i]->since_ms > GREETING_MS) {
            gf_fail(&job->why, ETIMEDOUT,
                    "job '%s': rank %" PRIu32 " is there, but says nothing", job->name,
                    job->peers.at[i]->rank);
            gf_job_drop(job, i);
        }
    return changed;
}

/* Until when there is nothing to do unless somebody speaks. */
static int pause_ms(struct gf_job *job)
{
    int64_t now = gf_now_ms(), next = job->scan_ms;

    for (const struct gf_request *q = NULL; (q = gf_job_next(job, q));) {
        if (q->end_ms > now)
            next = GF_MIN(next, q->end_ms);
        if (q->again_ms > now)
            next = GF_MIN(next, q->again_ms);
        next = GF_MIN(next, now + GF_TICK_MS);
    }
    return next <= now ? 0 : (int)(next - now);
}

static bool is_told_to_stop(struct gf_job *job, bool *ret_hurried)
{
    bool stop;

    pthread_mutex_lock(&job->lock);
    stop = job->stop;
    *ret_hurried = job->queue != NULL;
    pthread_mutex_unlock(&job->lock);
    return stop;
}

/* Publishers, or the agent; guests; who wants to be one; wake-ups. */
static int poll_all(struct gf_job *job)
{
    size_t npeers = job->peers.n, nguests = job->guests.n, n = npeers + nguests, i;
    uint64_t ignored;
    bool changed = false;

    if (gf_vec_reserve(&job->fds, n + 3, SIZE_MAX / 64))
        return -ENOMEM;
    for (i = 0; i < n; i++)
        job->fds.at[i] =
            (struct pollfd){ .fd = i < npeers ? job->peers.at[i]->sock
                                              : job->guests.at[i - npeers]->sock,
                             .events = POLLIN };
    job->fds.at[n] = (struct pollfd){ .fd = job->wake, .events = POLLIN };
    job->fds.at[n + 1] =
        (struct pollfd){ .fd = gf_now_ms() < job->deaf_ms ? -1 : job->listen,
                         .events = POLLIN };
    job->fds.at[n + 2] = (struct pollfd){ .fd = job->host, .events = POLLIN };
    if (poll(job->fds.at, n + 3, pause_ms(job)) < 0)
        return errno == EINTR ? 0 : -errno;
    if (job->fds.at[n].revents && read(job->wake, &ignored, sizeof(ignored)) < 0)
        return 0;
    if (job->host >= 0 && job->fds.at[n + 2].revents)
        gf_host_pump(job);
    changed = pump_all(job, job->fds.at, npeers);
    for (i = nguests; i-- > 0;)
        if (job->fds.at[npeers + i].revents)
            gf_guests_pump(job, i);
    if (job->listen >= 0 && job->fds.at[n + 1].revents)
        gf_guests_accept(job);
    if (changed)
        gf_job_group(job, false);
    return 0;
}

static void look_around(struct gf_job *job, bool hurried)
{
    if (gf_now_ms() < job->scan_ms)
        return;
    if (job->host < 0)
        gf_job_scan(job);
    if (job->host < 0 && job->alive && job->peers.n)
        gf_guests_listen(job);
    job->scan_ms = gf_now_ms() + (hurried && !job->alive ? HURRY_MS : SCAN_MS);
}

/* Somebody else has a publisher, or all publishers have gone and somebody may hold their last
 * step. Two that have some publishers each let go of them, for different times. */
static void become_guest(struct gf_job *job)
{
    int64_t now = gf_now_ms();

    if ((!job->taken_ms && job->peers.n) || now < job->guest_ms || gf_host_connect(job))
        return;
    job->guest_ms = now + HURRY_MS;
    if (!job->taken_ms)
        return;
    if (now - job->taken_ms < TAKEN_MS)
        job->scan_ms = GF_MIN(job->scan_ms, now + HURRY_MS);
    if (now - job->taken_ms > YIELD_MS && job->peers.n) {
        while (job->peers.n)
            gf_job_drop(job, job->peers.n - 1);
        job->taken_ms = 0;
        job->scan_ms = now + YIELD_MS + getpid() % 16 * HURRY_MS;
    }
}

static void *run(void *arg)
{
    struct gf_job *job = arg;
    bool hurried;

    while (!is_told_to_stop(job, &hurried)) {
        look_around(job, hurried);
        if (poll_all(job)) /* memory is short: what waits still has its deadlines */
            usleep(HURRY_MS * 1000);
        if (job->alive && job->host < 0) {
            job->taken_ms = 0;
            if (job->listen < 0)
                gf_guests_listen(job);
        } else if (job->host < 0 && job->listen < 0) {
            become_guest(job);
        }
        gf_guests_update(job);
        run_requests(job);
    }
    return NULL;
}

/* ---------------------------------------------------------------- callers */

void gf_tick_wait(pthread_cond_t *cond, pthread_mutex_t *lock)
{
    struct timespec tick;

    clock_gettime(CLOCK_MONOTONIC, &tick);
    tick.tv_nsec += GF_TICK_MS * 1000000;
    tick.tv_sec += tick.tv_nsec / 1000000000;
    tick.tv_nsec %= 1000000000;
    pthread_cond_timedwait(cond, lock, &tick);
}

static int ask(struct gf_job *job, struct gf_request *q, const struct gf_wait *wait,
               struct gf_err *err)
{
    struct gf_request **end;

    q->start_ms = gf_now_ms();
    q->end_ms = q->start_ms + wait->ms;
    q->ms = wait->ms;
    pthread_mutex_lock(&job->lock);
    for (end = &job->queue; *end;)
        end = &(*end)->next;
    *end = q;
    wake(job);
    while (!q->answered) {
        gf_tick_wait(&job->answered, &job->lock);
        if (!q->answered && !q->gave_up && wait->gave_up && wait->gave_up(wait->ctx)) {
            q->gave_up = true;
            wake(job);
        }
    }
    pthread_mutex_unlock(&job->lock);
    if (q->r && err)
        *err = q->err;
    return q->r;
}

int gf_job_ranks(struct gf_job *job, bool partial, const struct gf_wait *wait,
                 struct gf_ranks **ret, struct gf_err *err)
{
    struct gf_request q = { .kind = GF_REQUEST_RANKS, .partial = partial };
    int r = ask(job, &q, wait, err);

    if (!r)
        *ret = q.found;
    return r;
}

int gf_job_take(struct gf_job *job, struct gf_ranks *ranks, const uint64_t *want,
                const struct gf_wait *wait, struct gf_shot **ret, struct gf_err *err)
{
    struct gf_request q = { .kind = GF_REQUEST_TAKE,
                            .ranks = ranks,
                            .has_want = want != NULL,
                            .want = want ? *want : 0 };
    int r = ask(job, &q, wait, err);

    if (!r)
        *ret = q.shot;
    return r;
}

int gf_job_frozen(struct gf_job *job, struct gf_ranks *ranks, uint32_t i,
                  const struct gf_wait *wait, struct gf_err *err)
{
    struct gf_request q = { .kind = GF_REQUEST_FROZEN, .ranks = ranks, .rank = i };

    return ranks->at[i].frozen ? 0 : ask(job, &q, wait, err);
}

bool gf_job_has(struct gf_job *job, const struct gf_ranks *ranks)
{
    bool has;

    pthread_mutex_lock(&job->lock);
    has = job->alive && job->ranks == ranks;
    pthread_mutex_unlock(&job->lock);
    return has;
}

bool gf_job_is_whole(struct gf_job *job)
{
    bool whole;

    pthread_mutex_lock(&job->lock);
    whole = job->alive;
    pthread_mutex_unlock(&job->lock);
    return whole;
}

uint64_t gf_job_version(struct gf_job *job)
{
    uint64_t version;

    pthread_mutex_lock(&job->lock);
    version = job->version;
    pthread_mutex_unlock(&job->lock);
    return version;
}

bool gf_job_finishing(struct gf_job *job)
{
    bool finishing;

    pthread_mutex_lock(&job->lock);
    finishing = job->finishing;
    pthread_mutex_unlock(&job->lock);
    return finishing;
}

bool gf_job_has_ended(struct gf_job *job)
{
    bool ended;

    pthread_mutex_lock(&job->lock);
    ended = job->ended;
    pthread_mutex_unlock(&job->lock);
    return ended;
}

void gf_job_keep(struct gf_job *job)
{
    pthread_mutex_lock(&job->lock);
    job->keep = true;
    pthread_mutex_unlock(&job->lock);
}

void gf_job_bye(struct gf_job *job)
{
    pthread_mutex_lock(&job->lock);
    job->bye = true;
    pthread_mutex_unlock(&job->lock);
    wake(job);
}

const char *gf_job_name(const struct gf_job *job)
{
    return job->name;
}

const char *gf_job_dir(const struct gf_job *job)
{
    return job->dir;
}

/* ---------------------------------------------------------------- shots */

static void unref(struct gf_job *job)
{
    if (atomic_fetch_sub(&job->refs, 1) > 1)
        return;
    gf_vec_free(&job->given_back);
    gf_vec_free(&job->shots);
    pthread_mutex_destroy(&job->lock);
    pthread_mutex_destroy(&job->need_lock);
    pthread_cond_destroy(&job->answered);
    close(job->wake);
    free(job->buffer);
    free(job->name);
    free(job->dir);
    free(job);
}

int gf_shot_new(struct gf_job *job, struct gf_ranks *ranks, uint64_t step,
                struct gf_shot **ret, struct gf_err *err)
{
    struct gf_shot *shot = calloc(1, sizeof(*shot));
    int r = -ENOMEM;

    if (shot)
        shot->at = calloc(ranks->n, sizeof(*shot->at));
    if (shot && shot->at) {
        pthread_mutex_lock(&job->lock);
        r = gf_vec_push(&job->shots, shot, SIZE_MAX / 64);
        pthread_mutex_unlock(&job->lock);
    }
    if (r) {
        if (shot)
            free(shot->at);
        free(shot);
        return gf_nomem(err);
    }
    atomic_init(&shot->refs, 1);
    shot->job = job;
    atomic_fetch_add(&job->refs, 1);
    shot->ranks = gf_ranks_ref(ranks);
    shot->step = step;
    *ret = shot;
    return 0;
}

/* One whose last reference is just being dropped is none. */
static bool try_ref(struct gf_shot *shot)
{
    unsigned refs = atomic_load(&shot->refs);

    while (refs && !atomic_compare_exchange_weak(&shot->refs, &refs, refs + 1))
        ;
    return refs;
}

struct gf_shot *gf_shot_newest(struct gf_job *job, const struct gf_ranks *ranks)
{
    struct gf_shot *newest = NULL;

    pthread_mutex_lock(&job->lock);
    for (size_t i = 0; i < job->shots.n; i++)
        if (job->shots.at[i]->ranks == ranks &&
            (!newest || job->shots.at[i]->step > newest->step))
            newest = job->shots.at[i];
    if (newest && !try_ref(newest))
        newest = NULL;
    pthread_mutex_unlock(&job->lock);
    return newest;
}

struct gf_shot *gf_shot_ref(struct gf_shot *shot)
{
    atomic_fetch_add(&shot->refs, 1);
    return shot;
}

void gf_shot_free(struct gf_shot *shot)
{
    struct gf_job *job;

    if (!shot || atomic_fetch_sub(&shot->refs, 1) > 1)
        return;
    job = shot->job;
    pthread_mutex_lock(&job->lock);
    for (size_t i = 0; i < job->shots.n; i++)
        if (job->shots.at[i] == shot)
            job->shots.at[i--] = job->shots.at[--job->shots.n];
    for (uint32_t i = 0; i < shot->ranks->n; i++) {
        gf_memory_free(gf_take(&shot->at[i].memory));
        /* Out of memory: the slot stays ours until the connection ends. */
        if (shot->at[i].peer && !job->stop &&
            gf_vec_push(&job->given_back, shot->at[i], SIZE_MAX / 64))
            break;
    }
    pthread_mutex_unlock(&job->lock);
    wake(job);
    for (uint32_t i = 0; i < shot->ranks->n; i++)
        gf_memory_free(shot->at[i].memory);
    gf_ranks_free(shot->ranks);
    free(shot->at);
    free(shot);
    unref(job);
}

/* ---------------------------------------------------------------- the whole */

static int find(const char *name, struct gf_job *job, struct gf_err *err)
{
    GF_AUTO_MEM char *path = NULL;
    const char *slash;
    int r = gf_live_job_path(name, &path, err);

    if (r)
        return r;
    /* Whoever mounts leaves this directory. */
    job->dir = realpath(path, NULL);
    if (!job->dir)
        return errno == ENOENT
                   ? gf_fail(err, ENOENT,
                             "no job '%s' on this node: there is no '%s' (the job "
                             "publishes there, or where GATHERFS_RUNDIR says)",
                             name, path)
                   : gf_fail(err, errno, "job '%s': '%s': %s", name, path, strerror(errno));
    slash = strrchr(job->dir, '/');
    job->name = strdup(slash && slash[1] ? slash + 1 : name);
    return job->name ? 0 : gf_nomem(err);
}

static int start_thread(struct gf_job *job, struct gf_err *err)
{
    sigset_t all, old;
    int r;

    /* Signals are for main threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    r = pthread_create(&job->thread, NULL, run, job);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r ? gf_fail(err, r, "cannot start a thread: %s", strerror(r)) : 0;
}

int gf_job_open(const char *name, const struct gf_limits *limits, struct gf_job **ret,
                struct gf_err *err)
{
    struct gf_job *job = calloc(1, sizeof(*job));
    pthread_condattr_t monotonic;
    int r, fd;

    if (!job)
        return gf_nomem(err);
    atomic_init(&job->refs, 1);
    pthread_mutex_init(&job->lock, NULL);
    pthread_mutex_init(&job->need_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&job->answered, &monotonic);
    pthread_condattr_destroy(&monotonic);
    job->limits = limits;
    job->listen = job->host = -1;
    job->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    job->buffer = malloc(GF_LIVE_MSG_MAX);
    r = job->wake < 0 ? gf_fail(err, errno, "eventfd: %s", strerror(errno))
        : job->buffer ? find(name, job, err)
                      : gf_nomem(err);
    /* One look now, so that a directory that is not to be trusted is an error here. */
    if (!r)
        r = gf_live_dir_open(job->dir, false, &fd, err);
    if (!r) {
        close(fd);
        r = start_thread(job, err);
    }
    if (r) {
        unref(job);
        return r;
    }
    *ret = job;
    return 0;
}

void gf_job_free(struct gf_job *job)
{
    if (!job)
        return;
    pthread_mutex_lock(&job->lock);
    job->stop = true;
    pthread_mutex_unlock(&job->lock);
    wake(job);
    pthread_join(job->thread, NULL);
    gf_guests_free(job);
    gf_host_close(job);
    while (job->queue) { /* of guests: others have been waited for */
        struct gf_request *q = job->queue;

        job->queue = q->next;
        gf_guest_answer(q);
    }
    gf_vec_free(&job->fds);
    while (job->peers.n)
        gf_job_drop(job, job->peers.n - 1);
    gf_vec_free(&job->peers);
    gf_ranks_free(job->ranks);
    job->ranks = NULL;
    unref(job);
}
