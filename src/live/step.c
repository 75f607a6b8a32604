/* SPDX-License-Identifier: Apache-2.0 */
/*
 * step.c - begin() and commit(): the two calls in the training loop. Without a reader each
 * is a few stores and one look at a flag; see publish_int.h for why that is enough.
 */
#include "live/publish_int.h"

#include <time.h>

#include "base/math.h"

#ifdef GATHERFS_TEST_HOOKS
bool gf_test_no_wait;
#endif

static void show(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static void stalled(struct gatherfs_pub *pub, uint64_t since)
{
    uint64_t ns = gf_pub_now() - since;

    gf_pub_count(pub, stall_ns, pub->stats.stall_ns + ns);
    gf_pub_count(pub, stall_max_ns, GF_MAX(pub->stats.stall_max_ns, ns));
}

static void wait_for_copy(struct gatherfs_pub *pub)
{
    uint64_t start = gf_pub_now(), until = start + pub->max_stall_ns;
    struct timespec deadline = { .tv_sec = (time_t)(until / 1000000000),
                                 .tv_nsec = (long)(until % 1000000000) };

    pthread_mutex_lock(&pub->lock);
    while (__atomic_load_n(&pub->copying, __ATOMIC_SEQ_CST)) {
        if (pthread_cond_timedwait(&pub->changed, &pub->lock, &deadline) != ETIMEDOUT)
            continue;
        /* The copier may go on for a chunk; what it copies from now on is thrown away. */
        if (__atomic_load_n(&pub->copying, __ATOMIC_SEQ_CST))
            gf_pub_decide(pub, GF_LIVE_BUSY, GF_LIVE_WHY_STALLED);
    }
    stalled(pub, start);
    pthread_mutex_unlock(&pub->lock);
}

int gatherfs_pub_begin(struct gatherfs_pub *pub)
{
    uint64_t step;

    if (!pub || pub->dead)
        return 0;
    step = gf_pub_step(__atomic_load_n(&pub->state, __ATOMIC_RELAXED));
    __atomic_store_n(&pub->state, gf_pub_state(step, false, GF_LIVE_MUTATING),
                     __ATOMIC_SEQ_CST);
    if (pub->control)
        show(&pub->control->status.phase, GF_LIVE_MUTATING);
#ifdef GATHERFS_TEST_HOOKS
    if (gf_test_no_wait)
        return 0;
#endif
    if (__atomic_load_n(&pub->copying, __ATOMIC_SEQ_CST))
        wait_for_copy(pub);
    return 0;
}

/* Whether commit() itself should copy these bytes: only where that takes hardly longer than
 * handing them to another thread. More than that is a stall that the thread avoids, even
 * where all processors are busy. */
static bool copy_in_commit(const struct gatherfs_pub *pub, uint64_t bytes)
{
    uint64_t expected_ns = bytes * 1000 / (pub->bytes_per_s / 1000000);

    if (pub->background != GATHERFS_AUTO)
        return pub->background == GATHERFS_SYNCHRONOUS;
    return bytes < ((uint64_t)1 << 30) && expected_ns < GF_MIN(200000, pub->step_ns / 50);
}

/* Under the lock, which is released meanwhile. Copies a part of the requested set here; false
 * if that took longer than training may wait. */
static bool copy_here(struct gatherfs_pub *pub, enum gf_pub_part part)
{
    struct gf_pub_request *req = &pub->request;
    const struct gf_pub_set *set = &pub->sets[req->set];
    uint8_t *slot = pub->slots[req->slot].memory.map;
    struct gf_pub_cursor cursor = { 0 };
    uint64_t start = gf_pub_now(), moved = 0;
    bool done = false;

    req->state = GF_PUB_COMMIT;
    pub->reading++;
    pthread_mutex_unlock(&pub->lock);
    while (!done && gf_pub_now() - start <= pub->max_stall_ns)
        done = gf_pub_copy(pub, set, part, &cursor, slot, GF_PUB_CHUNK, &moved);
    pthread_mutex_lock(&pub->lock);
    pub->reading--;
    gf_pub_count(pub, bytes, pub->stats.bytes + moved);
    stalled(pub, start);
    pthread_cond_broadcast(&pub->changed);
    return done;
}

/* This commit is the step that was armed. Under the lock. */
static void take_snapshot(struct gatherfs_pub *pub)
{
    struct gf_pub_request *req = &pub->request;
    const struct gf_pub_set *set = &pub->sets[req->set];

    __atomic_store_n(&pub->armed, 0, __ATOMIC_SEQ_CST);
    req->started_ns = gf_pub_now();
    req->commit = pub->commits;
    if (copy_in_commit(pub, set->bytes)) {
        bool done = copy_here(pub, GF_PUB_ALL);

        if (done)
            gf_pub_measured(pub);
        gf_pub_count(pub, background, 0);
        gf_pub_decide(pub, done ? GF_LIVE_READY : GF_LIVE_BUSY,
                      done ? GF_LIVE_WHY_NONE : GF_LIVE_WHY_STALLED);
        return;
    }
    if (set->buffers && !copy_here(pub, GF_PUB_BUFFERS)) {
        gf_pub_decide(pub, GF_LIVE_BUSY, GF_LIVE_WHY_STALLED);
        return;
    }
    req->state = GF_PUB_COPY;
    req->part = GF_PUB_REST;
    req->cursor = (struct gf_pub_cursor){ 0 };
    gf_pub_count(pub, background, 1);
    __atomic_store_n(&pub->copying, 1, __ATOMIC_SEQ_CST);
}

static void look_at_request(struct gatherfs_pub *pub, uint64_t step)
{
    struct gf_pub_request *req = &pub->request;

    pthread_mutex_lock(&pub->lock);
    if (req->state == GF_PUB_ARMED && step >= req->step) {
        if (step > req->step)
            gf_pub_decide(pub, GF_LIVE_MISSED, GF_LIVE_WHY_PASSED);
        else if (!(pub->slots[req->slot].faulted >> req->set & 1))
            gf_pub_decide(pub, GF_LIVE_MISSED, GF_LIVE_WHY_SLOW);
        else if (pub->verify && !gf_pub_verified(pub->state))
            gf_pub_decide(pub, GF_LIVE_MISSED, GF_LIVE_WHY_BUFFERS);
        else
            take_snapshot(pub);
    }
    pthread_mutex_unlock(&pub->lock);
    gf_pub_notify(pub);
}

int gatherfs_pub_commit(struct gatherfs_pub *pub, uint64_t step)
{
    uint64_t now, took;

    if (!pub || pub->dead)
        return 0;
    if (step > GF_PUB_MAX_STEP)
        return gf_fail(gf_pub_err(), EINVAL, "step %llu is too large",
                       (unsigned long long)step);
    now = gf_pub_now();
    if (pub->last_commit_ns) {
        took = now - pub->last_commit_ns;
        pub->step_ns = pub->step_ns ? pub->step_ns - pub->step_ns / 8 + took / 8 : took;
    }
    pub->last_commit_ns = now;
    pub->commits++;
    __atomic_store_n(&pub->state, gf_pub_state(step, pub->checked, GF_LIVE_STABLE),
                     __ATOMIC_SEQ_CST);
    pub->checked = false;
    if (pub->control) {
        struct gf_live_status *status = &pub->control->status;

        show(&status->step, step);
        show(&status->phase, GF_LIVE_STABLE);
        show(&status->commits, pub->commits);
        show(&status->commit_ns, gf_pub_clock());
        show(&status->step_ns, pub->step_ns);
    }
    if (__atomic_load_n(&pub->armed, __ATOMIC_SEQ_CST))
        look_at_request(pub, step);
    return 0;
}

int gatherfs_pub_wanted(struct gatherfs_pub *pub)
{
    if (!pub || pub->dead || !__atomic_load_n(&pub->attached, __ATOMIC_RELAXED))
        return 0;
    pub->checked = true;
    return 1;
}
