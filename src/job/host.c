/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.c - a guest's side of agent.sock (guest.c has the protocol): ranks and steps come from
 * the gatherfs process that has the publishers.
 *
 * When that process ends, its guests look for publishers again: the first one becomes the
 * next agent. What a guest holds it keeps meanwhile, since the memory is mapped; and the
 * publishers never write again to slots whose agent went away.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/math.h"
#include "job/job_int.h"
#include "live/channel.h"
#include "live/rundir.h"

#define GRACE_MS 2000 /* the host answers at the end of a wait by itself */

static void forget_said(struct gf_job *job)
{
    for (size_t i = 0; i < job->host_said.n; i++)
        gf_said_free(job->host_said.at[i]);
    job->host_said.n = 0;
}

void gf_host_close(struct gf_job *job)
{
    forget_said(job);
    gf_vec_free(&job->host_said);
    if (job->host < 0)
        return;
    close(job->host);
    job->host = -1;
    for (struct gf_request *q = NULL; (q = gf_job_next(job, q));) {
        if (q->done)
            continue;
        gf_shot_free(gf_take(&q->shot));
        q->parts = 0;
        q->sent = false;
    }
    gf_job_set_ranks(job, NULL, false, false);
}

bool gf_host_connect(struct gf_job *job)
{
    int dir, sock;

    if (gf_live_dir_open(job->dir, false, &dir, NULL))
        return false;
    if (!gf_live_connect(dir, GF_AGENT_SOCK, &sock, NULL)) {
        while (job->peers.n)
            gf_job_drop(job, job->peers.n - 1);
        job->host = sock;
        job->host_serial = ++job->serials;
    }
    close(dir);
    return job->host >= 0;
}

/* ---------------------------------------------------------------- what it says */

static int strange(struct gf_job *job, const char *what, struct gf_err *err)
{
    return gf_fail(err, GF_EBAD, "job '%s': its agent says %s", job->name, what);
}

/* One rank of many. Takes over fd. */
static int take_rank(struct gf_job *job, const struct gf_live_msg *msg, int fd,
                     struct gf_err *err)
{
    struct gf_ranks *ranks;
    struct gf_said *said;
    size_t n;
    int r;

    if (msg->req != job->host_version)
        forget_said(job);
    job->host_version = msg->req;
    n = job->host_said.n;
    if (n >= msg->seq || (n && job->host_said.at[n - 1]->table->rank >= msg->slot)) {
        close(fd);
        return strange(job, "more ranks than there are, or not in order", err);
    }
    r = gf_said_read(msg->slot, fd, msg->bytes, job->limits, &said, err);
    if (r)
        return r;
    if (gf_vec_push(&job->host_said, said, GF_MAX_PEERS)) {
        gf_said_free(said);
        return gf_nomem(err);
    }
    if (job->host_said.n < msg->seq)
        return 0;
    r = gf_ranks_agree(job->name, job->host_said.at, job->host_said.n, err);
    if (r && r != -GF_EINCOMPLETE) /* it may have been told that some will do */
        return r;
    r = gf_ranks_new(job->host_said.at, job->host_said.n, &ranks, err);
    if (r)
        return r;
    gf_job_set_ranks(job, ranks, true, false);
    pthread_mutex_lock(&job->lock);
    job->ended = msg->why; /* what there is is the last */
    pthread_mutex_unlock(&job->lock);
    return 0;
}

/* What it answers to; NULL: nobody waits for it any more. */
static struct gf_request *asked(struct gf_job *job, const struct gf_live_msg *msg)
{
    for (struct gf_request *q = NULL; (q = gf_job_next(job, q));)
        if (q->sent && !q->done && q->host_req == msg->req)
            return q;
    return NULL;
}

static void fail_request(struct gf_job *job, const struct gf_live_msg *msg,
                         const uint8_t *payload, size_t len)
{
    struct gf_request *q = asked(job, msg);

    if (!q)
        return;
    q->done = true;
    q->r = gf_fail(&q->err, (int)GF_MIN(GF_MAX(msg->bytes, 1u), 4095u), "%.*s",
                   (int)GF_MIN(len, sizeof(q->err.text) - 1), (const char *)payload);
}

static void release(struct gf_job *job, uint64_t req)
{
    struct gf_live_msg msg = { .type = GF_LIVE_RELEASE, .seq = req };

    gf_live_send(job->host, &msg, NULL, 0, -1);
}

/* A rank's part of the step. Takes over fd. */
static int take_part(struct gf_job *job, const struct gf_live_msg *msg, int fd,
                     struct gf_err *err)
{
    struct gf_request *q = asked(job, msg);
    uint32_t i = (uint32_t)msg->seq;
    struct gf_rank *rank;
    int r = 0;

    if (!q || q->kind != GF_REQUEST_TAKE || i != q->parts || i >= q->ranks->n) {
        if (fd >= 0)
            close(fd);
        /* Of a request that was given up: the first part is enough to give all back. */
        if (!msg->seq)
            release(job, msg->req);
        return 0;
    }
    rank = &q->ranks->at[i];
    if (!q->shot)
        r = gf_shot_new(job, q->ranks, msg->step, &q->shot, err);
    if (!r && fd >= 0)
        r = gf_memory_map("a step", fd, rank->table->slot_bytes, &q->shot->at[i].memory,
                          err);
    else if (fd >= 0)
        close(fd);
    else if (!r && rank->moving)
        r = strange(job, "nothing of a rank's step", err);
    if (r)
        return r;
    if (++q->parts == q->ranks->n) {
        q->shot->at[0].peer = job->host_serial;
        q->shot->at[0].seq = msg->req;
        q->done = true;
    }
    return 0;
}

static int take_frozen(struct gf_job *job, const struct gf_live_msg *msg, int fd,
                       struct gf_err *err)
{
    struct gf_request *q = asked(job, msg);
    struct gf_memory *memory, *none = NULL;
    int r;

    if (fd < 0)
        return strange(job, "nothing of static memory", err);
    if (!q || q->kind != GF_REQUEST_FROZEN) {
        close(fd);
        return 0;
    }
    r = gf_memory_map("static memory", fd, q->ranks->at[q->rank].table->static_bytes,
                      &memory, err);
    if (r)
        return r;
    if (!atomic_compare_exchange_strong(&q->ranks->at[q->rank].frozen, &none, memory))
        gf_memory_free(memory);
    q->done = true;
    return 0;
}

static int take_message(struct gf_job *job, const struct gf_live_msg *msg,
                        const uint8_t *payload, size_t len, int fd, struct gf_err *err)
{
    switch (msg->type) {
    case GF_LIVE_HELLO:
        return take_rank(job, msg, fd, err);
    case GF_LIVE_READY:
        return take_part(job, msg, fd, err);
    case GF_LIVE_SELECTED:
        return take_frozen(job, msg, fd, err);
    default:
        break;
    }
    if (fd >= 0)
        close(fd);
    if (msg->type == GF_LIVE_MISSED)
        gf_job_set_ranks(job, NULL, false, false);
    else if (msg->type == GF_LIVE_BUSY)
        fail_request(job, msg, payload, len);
    else if (msg->type == GF_LIVE_RELEASE)
        gf_job_yield(job);
    return 0;
}

void gf_host_pump(struct gf_job *job)
{
    struct gf_err err = { 0 };

    for (int i = 0; i < GF_MAX_AT_ONCE; i++) {
        const uint8_t *payload;
        struct gf_live_msg msg;
        size_t len;
        int fd = -1;
        int r = gf_live_recv(job->host, job->buffer, &msg, &payload, &len, &fd, &err);

        if (r == 0)
            return;
        if (r == -ENOMSG)
            continue;
        if (r > 0)
            r = take_message(job, &msg, payload, len, fd, &err);
        if (r) {
            job->why = err;
            gf_host_close(job);
            job->scan_ms = gf_now_ms();
            return;
        }
    }
}

/* ---------------------------------------------------------------- what it is asked */

static int send_request(struct gf_job *job, struct gf_request *q)
{
    bool frozen = q->kind == GF_REQUEST_FROZEN;
    struct gf_live_msg msg = { .type = frozen ? GF_LIVE_SELECT : GF_LIVE_ARM,
                               .set = frozen ? GF_SET_FROZEN : GF_SET_MOVING,
                               .slot = frozen ? 1 : 0,
                               .seq = q->rank,
                               .why = q->has_want,
                               .step = q->want,
                               .bytes = q->ms };

    if (!++job->reqs)
        ++job->reqs;
    msg.req = q->host_req = job->reqs;
    q->sent = true;
    return gf_live_send(job->host, &msg, NULL, 0, -1);
}

static bool may_send(struct gf_job *job)
{
    unsigned n = 0;

    for (struct gf_request *q = NULL; (q = gf_job_next(job, q));)
        n += q->sent && !q->done;
    return n < GF_MAX_ASKED;
}

void gf_host_run(struct gf_job *job, struct gf_request *q)
{
    if (q->kind == GF_REQUEST_FROZEN && q->ranks->at[q->rank].frozen) {
        q->done = true;
        return;
    }
    if (q->ranks != job->ranks || !job->alive) {
        q->r =
            gf_fail(&q->err, q->ranks != job->ranks ? ESTALE : ENOTCONN,
                    "job '%s' was started again, or its tensors have changed", job->name);
    } else if (!q->sent && may_send(job) && send_request(job, q)) {
        q->r = gf_fail(&q->err, ENOTCONN, "job '%s': its agent does not listen", job->name);
    } else if (gf_now_ms() >= q->end_ms + GRACE_MS) {
        q->r = gf_fail(&q->err, ETIMEDOUT, "job '%s': its agent did not answer in %u ms",
                       job->name, q->ms);
        gf_host_abort(job, q);
    }
    q->done = q->r;
    if (q->r)
        gf_shot_free(gf_take(&q->shot));
}

void gf_host_abort(struct gf_job *job, struct gf_request *q)
{
    struct gf_live_msg msg = { .type = GF_LIVE_CANCEL, .req = q->host_req };

    if (q->sent && job->host >= 0)
        gf_live_send(job->host, &msg, NULL, 0, -1);
    gf_shot_free(gf_take(&q->shot));
}

void gf_host_release(struct gf_job *job, uint64_t req)
{
    release(job, req);
}
