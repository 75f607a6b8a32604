/* SPDX-License-Identifier: Apache-2.0 */
/*
 * take.c - one training step of all ranks, without a word between the ranks.
 *
 *     START      every rank has memory for its part (SELECT, once)
 *                arm step S = the newest step of any rank + k, k = 0, 1, 2, 4, ...
 *     ARMED      all READY: that is the shot
 *                any MISSED or BUSY: cancel what still waits
 *     CLEARING   all have answered: give back what is ready, START again with the next k; or
 *                with the same, if slots were full: who asks gives back what he reads no
 *                more, then all others do
 *
 * k = 0 succeeds while all ranks are between two updates, which is nearly always; with k >= 1
 * the ranks only have to hear of S before they get there. Weights cannot be torn whatever
 * happens here: a rank copies at its own commit(S) or not at all.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "job/job_int.h"

#define PAUSE_MS 2    /* before the next k */
#define BUSY_MS 20    /* before the same again */
#define MAX_AHEAD 64u /* steps */
#define YIELDS 4u     /* tries after a slot was asked of the readers */

static void finish(struct gf_request *request, int r)
{
    request->done = true;
    request->r = r;
}

static struct gf_peer *peer_at(struct gf_job *job, const struct gf_request *q, uint32_t i)
{
    return q->ranks->at[i].moving ? gf_job_peer(job, q->ranks, i) : NULL;
}

/* Are these still the job's ranks? */
static bool are_there(struct gf_job *job, struct gf_request *q)
{
    if (q->ranks != job->ranks) {
        finish(q, gf_fail(&q->err, ESTALE,
                          "job '%s' was started again, or its tensors have changed",
                          job->name));
        return false;
    }
    for (uint32_t i = 0; i < q->ranks->n; i++)
        if (!gf_job_peer(job, q->ranks, i)) {
            finish(q, gf_fail(&q->err, ENOTCONN,
                              "job '%s': rank %" PRIu32 " has ended or is restarting",
                              job->name, q->ranks->at[i].table->rank));
            return false;
        }
    return true;
}

static bool cannot_tell(struct gf_request *q, const struct gf_peer *peer, int r)
{
    if (r)
        finish(q, gf_fail(&q->err, -r, "rank %" PRIu32 ": cannot be told: %s", peer->rank,
                          strerror(-r)));
    return r;
}

/* ---------------------------------------------------------------- memory for it */

/* One set of one rank; true once it is there. */
static bool is_selected(struct gf_job *job, struct gf_request *q, uint32_t i, int set)
{
    struct gf_peer *peer = gf_job_peer(job, q->ranks, i);

    if (peer->sets & 1u << set)
        return true;
    if (peer->selecting >= 0)
        return false;
    if (peer->select_why == GF_LIVE_WHY_NO_MEMORY && peer->nslots < 2) {
        finish(q, gf_fail(&q->err, ENOMEM,
                          "rank %" PRIu32 ": no memory for a snapshot: needs %" PRIu64
                          " bytes more than the node or its limit has",
                          peer->rank, peer->select_bytes));
        return false;
    }
    if (peer->select_why == GF_LIVE_WHY_NO_MEMORY)
        peer->nslots = 1;
    if (peer->select_why)
        q->again_ms = gf_now_ms() + BUSY_MS;
    peer->select_why = 0;
    if (q->again_ms <= gf_now_ms())
        cannot_tell(q, peer, gf_peer_select(peer, set, &q->ranks->at[i]));
    return false;
}

/* ---------------------------------------------------------------- arming */

static uint64_t step_of(const struct gf_rank *rank)
{
    struct gf_live_status status;

    gf_live_status_load(gf_rank_control(rank), &status);
    return status.step;
}

/* Where the foremost rank is: for the choice of S alone, so it need not be true. */
static uint64_t newest(struct gf_job *job, const struct gf_request *q)
{
    uint64_t step = q->least;

    for (uint32_t i = 0; i < q->ranks->n; i++)
        if (peer_at(job, q, i))
            step = GF_MAX(step, step_of(&q->ranks->at[i]));
    return step;
}

static uint64_t ahead(const struct gf_request *q, bool final)
{
    unsigned n = q->tries + q->later;

    return final ? 0 : n < 2 ? n : n > 7 ? MAX_AHEAD : 1u << (n - 1);
}

/* A shot of ranks that have nothing in slots: any step will do. */
static void take_nothing(struct gf_request *q)
{
    q->step = 0;
    for (uint32_t i = 0; i < q->ranks->n; i++)
        q->step = GF_MAX(q->step, step_of(&q->ranks->at[i]));
}

static void finish_shot(struct gf_job *job, struct gf_request *q)
{
    struct gf_shot *shot;

    if (gf_shot_new(job, q->ranks, q->step, &shot, &q->err)) {
        gf_take_abort(job, q);
        finish(q, -ENOMEM);
        return;
    }
    for (uint32_t i = 0; i < q->ranks->n; i++) {
        struct gf_peer *peer = peer_at(job, q, i);

        if (!peer)
            continue;
        shot->at[i] = (struct gf_lease){
            .slot = peer->said_last.slot,
            .seq = peer->said_last.seq,
            .peer = peer->serial,
            .incarnation = q->ranks->at[i].table->incarnation,
        };
        shot->at[i].memory = gf_memory_ref(peer->slots[peer->said_last.slot]);
    }
    q->shot = shot;
    finish(q, 0);
}

/* A rank that has ended at an earlier step will never get to this one. */
static bool has_ended_before(struct gf_job *job, struct gf_request *q, uint64_t step)
{
    for (uint32_t i = 0; i < q->ranks->n && !q->done; i++) {
        const struct gf_peer *peer = peer_at(job, q, i);

        if (peer && peer->final && step_of(&q->ranks->at[i]) < step)
            finish(q, gf_fail(&q->err, GF_EINCOMPLETE,
                              "job '%s': rank %" PRIu32 " has ended at step %" PRIu64
                              ", others at %" PRIu64,
                              job->name, peer->rank, step_of(&q->ranks->at[i]), step));
    }
    return q->done;
}

static void arm(struct gf_job *job, struct gf_request *q)
{
    bool final = false, any = false;
    uint64_t now = newest(job, q);

    for (uint32_t i = 0; i < q->ranks->n; i++) {
        struct gf_peer *peer = peer_at(job, q, i);

        if (peer && peer->armed)
            return; /* an old request: its answer comes, or the deadline does */
        final |= peer && peer->final;
        any |= peer != NULL;
    }
    if (!any) {
        take_nothing(q);
        finish_shot(job, q);
        return;
    }
    if (q->has_want && now > q->want) {
        finish(q, gf_fail(&q->err, ENOENT,
                          "step %" PRIu64 " is over: job '%s' is at step %" PRIu64, q->want,
                          job->name, now));
        return;
    }
    q->step = q->has_want ? q->want : now + ahead(q, final);
    if (has_ended_before(job, q, q->step))
        return;
    q->phase = GF_PHASE_ARMED;
    if (!++job->reqs)
        ++job->reqs;
    for (uint32_t i = 0; i < q->ranks->n && !q->done; i++) {
        struct gf_peer *peer = peer_at(job, q, i);

        if (peer)
            cannot_tell(q, peer, gf_peer_arm(peer, job->reqs, q->step));
    }
    if (q->done)
        gf_take_abort(job, q);
}

static void start(struct gf_job *job, struct gf_request *q)
{
    bool all = true;

    if (q->again_ms > gf_now_ms())
        return;
    for (uint32_t i = 0; i < q->ranks->n && !q->done; i++)
        if (q->ranks->at[i].moving)
            all &= is_selected(job, q, i, GF_SET_MOVING);
    if (all && !q->done)
        arm(job, q);
}

/* ---------------------------------------------------------------- answers */

static bool is_ours(const struct gf_job *job, const struct gf_peer *peer)
{
    return peer && peer->req == job->reqs;
}

static void collect(struct gf_job *job, struct gf_request *q)
{
    bool waiting = false, failed = false, wrong = false;

    for (uint32_t i = 0; i < q->ranks->n; i++) {
        const struct gf_peer *peer = peer_at(job, q, i);

        if (!is_ours(job, peer))
            continue;
        waiting |= peer->armed;
        failed |= peer->answer == GF_ANSWER_MISSED || peer->answer == GF_ANSWER_BUSY;
        wrong |= peer->answer == GF_ANSWER_READY && peer->said_last.step != q->step;
    }
    if (wrong) {
        gf_take_abort(job, q);
        finish(q, gf_fail(&q->err, GF_EBAD,
                          "job '%s': a rank is ready with another step than %" PRIu64
                          ", which was asked for",
                          job->name, q->step));
    } else if (failed) {
        for (uint32_t i = 0; i < q->ranks->n; i++) {
            struct gf_peer *peer = peer_at(job, q, i);

            if (is_ours(job, peer) && peer->armed)
                gf_peer_cancel(peer);
        }
        q->phase = GF_PHASE_CLEARING;
    } else if (!waiting) {
        finish_shot(job, q);
    }
}

/* One rank's answer that was not READY. */
static void learn(struct gf_job *job, struct gf_request *q, const struct gf_peer *peer)
{
    const struct gf_live_msg *msg = &peer->said_last;

    q->least = GF_MAX(q->least, peer->answer == GF_ANSWER_MISSED ? msg->step : 0);
    q->later |= msg->why == GF_LIVE_WHY_BUFFERS;
    if (msg->why == GF_LIVE_WHY_NO_SLOT && q->yields < YIELDS) {
        q->crowded = true;
        q->again_ms = gf_now_ms() + BUSY_MS;
        return;
    }
    if (msg->why == GF_LIVE_WHY_NO_SLOT && !q->has_want)
        q->shot = gf_shot_newest(job, q->ranks);
    if (q->shot)
        finish(q, 0);
    else if (msg->why == GF_LIVE_WHY_NO_SLOT)
        finish(q, gf_fail(&q->err, EBUSY,
                          "job '%s': rank %" PRIu32 " has no free slot: all are being read",
                          job->name, peer->rank));
    else if (peer->answer == GF_ANSWER_BUSY && msg->why != GF_LIVE_WHY_CANCELLED)
        q->again_ms = gf_now_ms() + BUSY_MS;
}

void gf_job_on_need(struct gf_job *job, void (*make_room)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&job->need_lock);
    job->make_room = make_room;
    job->need_ctx = ctx;
    pthread_mutex_unlock(&job->need_lock);
}

void gf_job_yield(struct gf_job *job)
{
    pthread_mutex_lock(&job->need_lock);
    if (job->make_room)
        job->make_room(job->need_ctx);
    pthread_mutex_unlock(&job->need_lock);
}

/* What is given back comes until the next try. */
static void need_slot(struct gf_job *job, struct gf_request *q)
{
    bool others = q->yields++ > 0;

    q->crowded = false;
    if (others || !q->guests)
        gf_job_yield(job);
    if (others || q->guest)
        gf_guests_yield(job, others ? NULL : q->guest);
}

static void clear(struct gf_job *job, struct gf_request *q)
{
    for (uint32_t i = 0; i < q->ranks->n; i++) {
        const struct gf_peer *peer = peer_at(job, q, i);

        if (is_ours(job, peer) && peer->armed)
            return;
    }
    q->again_ms = gf_now_ms() + PAUSE_MS;
    for (uint32_t i = 0; i < q->ranks->n; i++) {
        struct gf_peer *peer = peer_at(job, q, i);

        if (!is_ours(job, peer))
            continue;
        if (peer->answer == GF_ANSWER_READY)
            gf_peer_release(peer, peer->said_last.slot, peer->said_last.seq);
        else if (!q->done)
            learn(job, q, peer);
        peer->answer = GF_NO_ANSWER;
    }
    if (q->crowded)
        need_slot(job, q);
    else
        q->tries++;
    q->phase = GF_PHASE_START;
}

void gf_take_abort(struct gf_job *job, struct gf_request *q)
{
    if (q->kind != GF_REQUEST_TAKE || q->phase == GF_PHASE_START)
        return;
    for (uint32_t i = 0; i < q->ranks->n; i++) {
        struct gf_peer *peer = peer_at(job, q, i);

        if (!is_ours(job, peer))
            continue;
        if (peer->armed)
            gf_peer_cancel(peer);
        else if (peer->answer == GF_ANSWER_READY)
            gf_peer_release(peer, peer->said_last.slot, peer->said_last.seq);
        peer->answer = GF_NO_ANSWER;
    }
    q->phase = GF_PHASE_START;
}

/* ---------------------------------------------------------------- requests */

/* The rank that holds it up, for the error. */
static void too_late(struct gf_job *job, struct gf_request *q)
{
    for (uint32_t i = 0; i < q->ranks->n; i++) {
        const struct gf_peer *peer = gf_job_peer(job, q->ranks, i);

        if (!peer || (!(peer->armed && q == job->active) && peer->selecting < 0))
            continue;
        if (peer->selecting >= 0)
            gf_fail(&q->err, ETIMEDOUT,
                    "job '%s': rank %" PRIu32 " did not make room for a snapshot in %u ms",
                    job->name, peer->rank, q->ms);
        else
            gf_fail(&q->err, ETIMEDOUT,
                    "job '%s': rank %" PRIu32 " did not reach step %" PRIu64
                    " in %u ms; it was at %" PRIu64,
                    job->name, peer->rank, q->step, q->ms, step_of(&q->ranks->at[i]));
        break;
    }
    for (uint32_t i = 0; i < q->ranks->n && !q->err.code; i++) {
        const struct gf_peer *peer = peer_at(job, q, i);

        if (peer && peer->said_last.type == GF_LIVE_BUSY)
            gf_fail(&q->err, ETIMEDOUT,
                    "job '%s': no step in %u ms and %u tries; rank %" PRIu32
                    " was busy: %s",
                    job->name, q->ms, q->tries, peer->rank,
                    gf_live_why_text(peer->said_last.why));
    }
    if (!q->err.code)
        gf_fail(&q->err, ETIMEDOUT,
                "job '%s': its ranks were not at one step in %u ms and %u tries", job->name,
                q->ms, q->tries);
    gf_take_abort(job, q);
    finish(q, -ETIMEDOUT);
}

/* Its step is more than one away. */
static bool is_far(struct gf_job *job, const struct gf_request *q)
{
    return q->has_want && q->ranks == job->ranks && job->alive &&
           newest(job, q) + 1 < q->want;
}

void gf_take_choose(struct gf_job *job)
{
    struct gf_request *best = NULL;
    bool best_far = true;

    if (job->host < 0 && job->active && !is_far(job, job->active))
        return;
    for (struct gf_request *q = NULL;
         job->host < 0 && best_far && (q = gf_job_next(job, q));) {
        bool far;

        if (q->kind != GF_REQUEST_TAKE)
            continue;
        far = is_far(job, q);
        if (!best || !far || q->want < best->want) {
            best = q;
            best_far = far;
        }
    }
    if (job->active && job->active != best)
        gf_take_abort(job, job->active);
    job->active = best;
}

void gf_take_run(struct gf_job *job, struct gf_request *q)
{
    if (!are_there(job, q)) {
        /* Those that are still there may be armed. */
        gf_take_abort(job, q);
        return;
    }
    if (gf_now_ms() >= q->end_ms) {
        too_late(job, q);
        return;
    }
    if (q != job->active)
        return;
    if (q->phase == GF_PHASE_ARMED)
        collect(job, q);
    if (q->phase == GF_PHASE_CLEARING)
        clear(job, q);
    if (q->phase == GF_PHASE_START && !q->done)
        start(job, q);
}

void gf_frozen_run(struct gf_job *job, struct gf_request *q)
{
    if (q->ranks->at[q->rank].frozen) {
        finish(q, 0);
        return;
    }
    if (!are_there(job, q))
        return;
    if (is_selected(job, q, q->rank, GF_SET_FROZEN))
        finish(q, q->ranks->at[q->rank].frozen
                      ? 0
                      : gf_fail(&q->err, GF_EBAD,
                                "rank %" PRIu32 ": no static memory came with its set",
                                q->ranks->at[q->rank].table->rank));
    else if (!q->done && gf_now_ms() >= q->end_ms)
        too_late(job, q);
}
