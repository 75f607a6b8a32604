/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peer.c - one publisher's connection.
 *
 * It is not believed: a message that does not fit what was asked ends the connection. Answers
 * that nobody waits for any more are undone at once (a READY that crossed a CANCEL is given
 * back).
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/math.h"
#include "job/job_int.h"
#include "live/channel.h"

#define NSLOTS 2 /* one that is read, one that is filled */

static void forget_memory(struct gf_peer *peer)
{
    for (size_t i = 0; i < GF_LIVE_MAX_SLOTS; i++)
        gf_memory_free(gf_take(&peer->slots[i]));
    peer->sets = 0;
    peer->selecting = -1;
    peer->select_why = 0;
    peer->nslots = 0;
}

void gf_peer_free(struct gf_peer *peer)
{
    if (!peer)
        return;
    forget_memory(peer);
    gf_said_free(peer->said);
    close(peer->sock);
    free(peer);
}

/* ---------------------------------------------------------------- what it says */

static int unexpected(const struct gf_peer *peer, const char *what, struct gf_err *err)
{
    return gf_fail(err, GF_EBAD, "rank %" PRIu32 ": %s", peer->rank, what);
}

/* HELLO, TABLE. Takes over fd. */
static int take_table(struct gf_job *job, struct gf_peer *peer,
                      const struct gf_live_msg *msg, int fd, struct gf_err *err)
{
    struct gf_said *said;
    int r;

    if ((msg->type == GF_LIVE_HELLO) != !peer->said) {
        close(fd);
        return unexpected(peer, peer->said ? "a second greeting" : "no greeting", err);
    }
    r = gf_said_read(peer->rank, fd, msg->bytes, job->limits, &said, err);
    if (r)
        return r;
    gf_said_free(peer->said);
    peer->said = said;
    forget_memory(peer);
    return 0;
}

/* The static memory comes with a set that has static tensors. Takes over fd. */
static int take_frozen(struct gf_job *job, struct gf_peer *peer, int fd, struct gf_err *err)
{
    struct gf_memory *memory, *none = NULL;
    char what[64];
    int r;

    snprintf(what, sizeof(what), "rank %" PRIu32 ": its static memory", peer->rank);
    r = gf_memory_map(what, fd, peer->said->table->static_bytes, &memory, err);
    if (r)
        return r;
    for (uint32_t i = 0; job->ranks && i < job->ranks->n; i++)
        if (job->ranks->at[i].said == peer->said &&
            atomic_compare_exchange_strong(&job->ranks->at[i].frozen, &none, memory))
            memory = NULL;
    gf_memory_free(memory);
    return 0;
}

static int take_selected(struct gf_job *job, struct gf_peer *peer,
                         const struct gf_live_msg *msg, int fd, struct gf_err *err)
{
    if (peer->selecting < 0 || msg->set != (uint32_t)peer->selecting) {
        if (fd >= 0)
            close(fd);
        return unexpected(peer, "a set that was not asked for", err);
    }
    peer->sets |= 1u << peer->selecting;
    peer->selecting = -1;
    peer->select_why = 0;
    return fd >= 0 ? take_frozen(job, peer, fd, err) : 0;
}

static int take_ready(struct gf_job *job, struct gf_peer *peer,
                      const struct gf_live_msg *msg, int fd, struct gf_err *err)
{
    const struct gf_live_table *table = peer->said->table;
    struct gf_memory *memory;
    char what[64];
    int r;

    snprintf(what, sizeof(what), "rank %" PRIu32 ": its slot %" PRIu32, peer->rank,
             msg->slot);
    if (fd >= 0) {
        r = gf_memory_map(what, fd, table->slot_bytes, &memory, err);
        if (r)
            return r;
        gf_memory_free(peer->slots[msg->slot]);
        peer->slots[msg->slot] = memory;
    }
    if (!peer->slots[msg->slot])
        return unexpected(peer, "a step in a slot without memory", err);
    if (!job->active || job->active->phase == GF_PHASE_START)
        gf_peer_release(peer, msg->slot, msg->seq);
    return 0;
}

/* The answer to an ARM: READY, MISSED or BUSY. */
static int take_answer(struct gf_job *job, struct gf_peer *peer,
                       const struct gf_live_msg *msg, int fd, struct gf_err *err)
{
    int r = 0;

    if (!peer->armed || msg->req != peer->req) {
        if (fd >= 0)
            close(fd);
        return unexpected(peer, "an answer to nothing that was asked", err);
    }
    peer->armed = false;
    if (msg->type == GF_LIVE_READY)
        r = take_ready(job, peer, msg, fd, err);
    else if (fd >= 0)
        close(fd);
    peer->said_last = *msg;
    peer->answer = msg->type == GF_LIVE_READY    ? GF_ANSWER_READY
                   : msg->type == GF_LIVE_MISSED ? GF_ANSWER_MISSED
                                                 : GF_ANSWER_BUSY;
    return r;
}

static int take_busy(struct gf_job *job, struct gf_peer *peer,
                     const struct gf_live_msg *msg, struct gf_err *err)
{
    if (msg->why == GF_LIVE_WHY_TAKEN && !peer->said)
        return gf_fail(err, EBUSY, "rank %" PRIu32 ": another gatherfs reads it",
                       peer->rank);
    if (msg->req)
        return take_answer(job, peer, msg, -1, err);
    if (peer->selecting < 0)
        return unexpected(peer, "busy with nothing that was asked", err);
    peer->selecting = -1;
    peer->select_why = msg->why ? msg->why : GF_LIVE_WHY_PENDING;
    peer->select_bytes = msg->bytes;
    return 0;
}

/* Takes over fd. */
static int take_message(struct gf_job *job, struct gf_peer *peer,
                        const struct gf_live_msg *msg, int fd, bool *ret_changed,
                        struct gf_err *err)
{
    switch (msg->type) {
    case GF_LIVE_HELLO:
    case GF_LIVE_TABLE:
        *ret_changed = true;
        return take_table(job, peer, msg, fd, err);
    case GF_LIVE_BUSY:
        if (fd >= 0)
            close(fd);
        return take_busy(job, peer, msg, err);
    case GF_LIVE_SELECTED:
        return take_selected(job, peer, msg, fd, err);
    case GF_LIVE_READY:
    case GF_LIVE_MISSED:
        return take_answer(job, peer, msg, fd, err);
    case GF_LIVE_FINAL:
        peer->final = true;
        *ret_changed = true;
        break;
    case GF_LIVE_BYE:
        if (fd >= 0)
            close(fd);
        peer->final = true;
        return gf_fail(err, EPIPE, "rank %" PRIu32 " has ended", peer->rank);
    default:
        break;
    }
    if (fd >= 0)
        close(fd);
    return 0;
}

int gf_peer_pump(struct gf_job *job, struct gf_peer *peer, bool *ret_changed,
                 struct gf_err *err)
{
    for (int i = 0; i < GF_MAX_AT_ONCE; i++) {
        const uint8_t *payload;
        struct gf_live_msg msg;
        size_t len;
        int fd = -1,
            r = gf_live_recv(peer->sock, job->buffer, &msg, &payload, &len, &fd, err);

        if (r == 0)
            return 0;
        if (r == -ENOMSG)
            continue;
        if (r > 0)
            r = take_message(job, peer, &msg, fd, ret_changed, err);
        if (r)
            return r;
    }
    return 0;
}

/* ---------------------------------------------------------------- what it is told */

static int tell(struct gf_peer *peer, struct gf_live_msg *msg, const void *payload,
                size_t len)
{
    msg->incarnation = peer->said->table->incarnation;
    return gf_live_send(peer->sock, msg, payload, len, -1);
}

int gf_peer_select(struct gf_peer *peer, int set, const struct gf_rank *rank)
{
    const struct gf_live_table *table = rank->table;
    size_t len = gf_ceil_div(table->n, 8);
    GF_AUTO_MEM uint8_t *bits = calloc(len + 1, 1);
    struct gf_live_msg msg = { .type = GF_LIVE_SELECT, .set = (uint32_t)set };
    int r;

    if (!bits)
        return -ENOMEM;
    for (uint32_t i = 0; i < table->n; i++)
        if (gf_live_set_has(rank->set, i) &&
            !(table->at[i].flags & GF_LIVE_STATIC) == (set == GF_SET_MOVING))
            bits[i / 8] |= (uint8_t)(1u << i % 8);
    if (!peer->nslots)
        peer->nslots = GF_MAX(1u, GF_MIN((unsigned)table->nslots, (unsigned)NSLOTS));
    msg.slot = peer->nslots;
    r = tell(peer, &msg, bits, len);
    if (!r) {
        peer->selecting = set;
        peer->select_why = 0;
    }
    return r;
}

int gf_peer_arm(struct gf_peer *peer, uint32_t req, uint64_t step)
{
    struct gf_live_msg msg = {
        .type = GF_LIVE_ARM, .req = req, .step = step, .set = GF_SET_MOVING
    };
    int r = tell(peer, &msg, NULL, 0);

    peer->req = req;
    peer->answer = GF_NO_ANSWER;
    peer->armed = !r;
    return r;
}

void gf_peer_cancel(struct gf_peer *peer)
{
    struct gf_live_msg msg = { .type = GF_LIVE_CANCEL, .req = peer->req };

    tell(peer, &msg, NULL, 0);
}

/* What cannot be sent now is not needed later: the publisher's end of the connection frees
 * everything, and one that does not read for so long is as good as gone. */
void gf_peer_release(struct gf_peer *peer, uint32_t slot, uint64_t seq)
{
    struct gf_live_msg msg = { .type = GF_LIVE_RELEASE, .slot = slot, .seq = seq };

    tell(peer, &msg, NULL, 0);
}

void gf_peer_bye(struct gf_peer *peer)
{
    struct gf_live_msg msg = { .type = GF_LIVE_BYE };

    if (peer->final && !peer->bye)
        peer->bye = !tell(peer, &msg, NULL, 0);
}
