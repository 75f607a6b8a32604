/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.c - the agent's side of agent.sock: further gatherfs processes of this node.
 *
 * Publishers speak with one agent. Others are its guests: they are told the ranks, and ask it
 * for steps; the memory is passed on to them, so that they read it themselves. The messages
 * are those of live/segment.h with fields of another meaning:
 *
 *     agent                                              guest
 *       HELLO slot=rank seq=ranks req=version bytes +control -->   for each rank; why=1: the
 *                                                            publishers have gone
 *       MISSED req=version                             -->   there are no ranks now
 *       <-- ARM req step why=1 if exactly that one, bytes=ms
 *       READY req seq=index step [+slot memory]        -->   for each rank
 *         or BUSY req bytes=errno + text               -->
 *       <-- CANCEL req
 *       <-- RELEASE seq=req                                  that step is not read any more
 *       RELEASE                                        -->   steps that are not read are needed
 *       <-- SELECT set=1 slot=1 req seq=index bytes=ms
 *       SELECTED set=1 req seq=index +static memory    -->   or BUSY as above
 *
 * A guest that goes gives back all it had. All of it belongs to the job's thread.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/math.h"
#include "job/job_int.h"
#include "live/channel.h"
#include "live/rundir.h"

#define MAX_GUESTS 64
#define MAX_WAIT_MS 3600000u
#define DEAF_MS 1000 /* after a connection could not be accepted */

/* ---------------------------------------------------------------- the socket */

static void stop_listening(struct gf_job *job)
{
    if (job->listen >= 0)
        close(job->listen);
    job->listen = -1;
}

static int listen_in(int dir, ino_t *ret_ino)
{
    struct sockaddr_un address;
    struct stat st;
    int sock;

    gf_live_address(dir, GF_AGENT_SOCK, &address);
    unlinkat(dir, GF_AGENT_SOCK, 0); /* of an agent that is gone: the publishers are ours */
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (sock >= 0 && !bind(sock, (struct sockaddr *)&address, sizeof(address)) &&
        !listen(sock, MAX_GUESTS) && !fstatat(dir, GF_AGENT_SOCK, &st, 0)) {
        *ret_ino = st.st_ino;
        return sock;
    }
    if (sock >= 0)
        close(sock);
    return -1;
}

/* Without it there are no guests, and that is all. */
void gf_guests_listen(struct gf_job *job)
{
    struct stat st;
    int dir;

    if (gf_live_dir_open(job->dir, false, &dir, NULL))
        return;
    /* A restarted job may have another directory of the same name. */
    if (job->listen >= 0 && (fstatat(dir, GF_AGENT_SOCK, &st, AT_SYMLINK_NOFOLLOW) ||
                             st.st_ino != job->listen_ino))
        stop_listening(job);
    if (job->listen < 0 && !flock(dir, LOCK_EX | LOCK_NB))
        job->listen = listen_in(dir, &job->listen_ino);
    close(dir);
}

/* ---------------------------------------------------------------- guests */

static void guest_free(struct gf_guest *guest)
{
    for (size_t i = 0; i < guest->shots.n; i++)
        gf_shot_free(guest->shots.at[i].shot);
    gf_vec_free(&guest->shots);
    gf_ranks_free(guest->told);
    close(guest->sock);
    free(guest);
}

static void drop_guest(struct gf_job *job, size_t i)
{
    struct gf_guest *guest = job->guests.at[i];

    pthread_mutex_lock(&job->lock);
    for (struct gf_request *q = job->queue; q; q = q->next)
        if (q->guest == guest) {
            q->guest = NULL;
            q->gave_up = true;
        }
    pthread_mutex_unlock(&job->lock);
    job->guests.n--;
    memmove(job->guests.at + i, job->guests.at + i + 1,
            (job->guests.n - i) * sizeof(*job->guests.at));
    guest_free(guest);
}

/* What cannot be sent ends the connection at the next look: its other end is closed. */
static void tell(struct gf_guest *guest, struct gf_live_msg *msg, const char *text, int fd)
{
    if (gf_live_send(guest->sock, msg, text, text ? strlen(text) : 0, fd))
        shutdown(guest->sock, SHUT_RDWR);
}

static void refuse(struct gf_guest *guest, uint32_t req, const struct gf_err *err)
{
    struct gf_live_msg msg = { .type = GF_LIVE_BUSY,
                               .req = req,
                               .bytes = (uint64_t)err->code };

    tell(guest, &msg, err->text, -1);
}

static void tell_ranks(struct gf_job *job, struct gf_guest *guest)
{
    uint32_t version = (uint32_t)job->version + 1;
    struct gf_live_msg none = { .type = GF_LIVE_MISSED, .req = version };

    gf_ranks_free(guest->told);
    guest->told = NULL;
    guest->version = job->version;
    if (!job->ranks) {
        tell(guest, &none, NULL, -1);
        return;
    }
    guest->told = gf_ranks_ref(job->ranks);
    for (uint32_t i = 0; i < job->ranks->n; i++) {
        const struct gf_said *said = job->ranks->at[i].said;
        struct gf_live_msg msg = { .type = GF_LIVE_HELLO,
                                   .slot = said->table->rank,
                                   .seq = job->ranks->n,
                                   .req = version,
                                   .why = !job->alive,
                                   .bytes = said->control->size };

        tell(guest, &msg, NULL, said->control->fd);
    }
}

void gf_guests_accept(struct gf_job *job)
{
    struct gf_guest *guest;
    struct stat st;
    int sock = accept4(job->listen, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (sock < 0) {
        job->deaf_ms = gf_now_ms() + DEAF_MS;
        return;
    }
    guest = calloc(1, sizeof(*guest));
    if (!guest || stat(job->dir, &st) || gf_live_peer_check(sock, st.st_uid, NULL) ||
        gf_vec_push(&job->guests, guest, MAX_GUESTS)) {
        free(guest);
        close(sock);
        return;
    }
    guest->sock = sock;
    tell_ranks(job, guest);
}

void gf_guests_update(struct gf_job *job)
{
    for (size_t i = 0; i < job->guests.n; i++)
        if (job->guests.at[i]->version != job->version)
            tell_ranks(job, job->guests.at[i]);
}

void gf_guests_yield(struct gf_job *job, struct gf_guest *guest)
{
    struct gf_live_msg msg = { .type = GF_LIVE_RELEASE };

    for (size_t i = 0; i < job->guests.n; i++)
        if (!guest || job->guests.at[i] == guest)
            tell(job->guests.at[i], &msg, NULL, -1);
}

static void unlink_socket(struct gf_job *job)
{
    struct stat st;
    int dir;

    if (gf_live_dir_open(job->dir, false, &dir, NULL))
        return;
    if (!fstatat(dir, GF_AGENT_SOCK, &st, AT_SYMLINK_NOFOLLOW) &&
        st.st_ino == job->listen_ino)
        unlinkat(dir, GF_AGENT_SOCK, 0);
    close(dir);
    rmdir(job->dir); /* if the job has gone and this was the last of it */
}

void gf_guests_free(struct gf_job *job)
{
    gf_job_side_drop(job); /* for guests; and before their directory */
    while (job->guests.n)
        drop_guest(job, job->guests.n - 1);
    gf_vec_free(&job->guests);
    if (job->listen < 0)
        return;
    stop_listening(job);
    unlink_socket(job);
}

/* ---------------------------------------------------------------- what they ask */

static bool asks_too_much(struct gf_job *job, const struct gf_guest *guest)
{
    size_t n = 0;

    pthread_mutex_lock(&job->lock);
    for (const struct gf_request *q = job->queue; q; q = q->next)
        n += q->guest == guest && !q->gave_up;
    pthread_mutex_unlock(&job->lock);
    return n >= GF_MAX_ASKED;
}

static void ask(struct gf_job *job, struct gf_guest *guest, const struct gf_live_msg *msg)
{
    struct gf_request *q, **end;
    bool frozen = msg->type == GF_LIVE_SELECT;
    struct gf_err err;

    if (asks_too_much(job, guest)) {
        gf_fail(&err, EBUSY, "job '%s': more than %d requests of one reader at once",
                job->name, GF_MAX_ASKED);
        refuse(guest, msg->req, &err);
        return;
    }
    q = calloc(1, sizeof(*q));
    if (!q || !guest->told || (frozen && msg->seq >= guest->told->n)) {
        free(q);
        gf_fail(&err, ESTALE, "job '%s': its ranks are others now", job->name);
        refuse(guest, msg->req, &err);
        return;
    }
    *q = (struct gf_request){ .kind = frozen ? GF_REQUEST_FROZEN : GF_REQUEST_TAKE,
                              .ranks = gf_ranks_ref(guest->told),
                              .rank = (uint32_t)msg->seq,
                              .has_want = msg->why,
                              .want = msg->step,
                              .guest = guest,
                              .guests = true,
                              .guest_req = msg->req };
    q->ms = (unsigned)GF_MIN(msg->bytes, MAX_WAIT_MS);
    q->start_ms = gf_now_ms();
    q->end_ms = q->start_ms + q->ms;
    pthread_mutex_lock(&job->lock);
    for (end = &job->queue; *end;)
        end = &(*end)->next;
    *end = q;
    pthread_mutex_unlock(&job->lock);
}

static void cancel(struct gf_job *job, struct gf_guest *guest, uint32_t req)
{
    pthread_mutex_lock(&job->lock);
    for (struct gf_request *q = job->queue; q; q = q->next)
        if (q->guest == guest && q->guest_req == req)
            q->gave_up = true;
    pthread_mutex_unlock(&job->lock);
}

static void release(struct gf_guest *guest, uint64_t req)
{
    for (size_t i = 0; i < guest->shots.n; i++)
        if (guest->shots.at[i].req == req) {
            gf_shot_free(guest->shots.at[i].shot);
            guest->shots.at[i] = guest->shots.at[--guest->shots.n];
            return;
        }
}

static bool pump(struct gf_job *job, struct gf_guest *guest)
{
    for (int i = 0; i < GF_MAX_AT_ONCE; i++) {
        const uint8_t *payload;
        struct gf_live_msg msg;
        size_t len;
        int r = gf_live_recv(guest->sock, job->buffer, &msg, &payload, &len, NULL, NULL);

        if (r == 0)
            return true;
        if (r < 0 && r != -ENOMSG)
            return false;
        if (r > 0 && (msg.type == GF_LIVE_ARM || msg.type == GF_LIVE_SELECT))
            ask(job, guest, &msg);
        else if (r > 0 && msg.type == GF_LIVE_CANCEL)
            cancel(job, guest, msg.req);
        else if (r > 0 && msg.type == GF_LIVE_RELEASE)
            release(guest, msg.seq);
    }
    return true;
}

void gf_guests_pump(struct gf_job *job, size_t i)
{
    if (!pump(job, job->guests.at[i]))
        drop_guest(job, i);
}

/* ---------------------------------------------------------------- answers */

static void send_shot(struct gf_guest *guest, struct gf_request *q)
{
    struct gf_guest_shot held = { q->guest_req, q->shot };
    struct gf_err err;

    if (gf_vec_push(&guest->shots, held, 1024)) {
        gf_nomem(&err);
        refuse(guest, q->guest_req, &err);
        return;
    }
    for (uint32_t i = 0; i < q->ranks->n; i++) {
        struct gf_live_msg msg = {
            .type = GF_LIVE_READY, .req = q->guest_req, .step = q->shot->step, .seq = i
        };

        tell(guest, &msg, NULL, q->shot->at[i].memory ? q->shot->at[i].memory->fd : -1);
    }
    q->shot = NULL;
}

static void send_frozen(struct gf_guest *guest, struct gf_request *q)
{
    struct gf_live_msg msg = {
        .type = GF_LIVE_SELECTED, .set = GF_SET_FROZEN, .req = q->guest_req, .seq = q->rank
    };

    tell(guest, &msg, NULL, q->ranks->at[q->rank].frozen->fd);
}

void gf_guest_answer(struct gf_request *q)
{
    if (q->guest && q->r)
        refuse(q->guest, q->guest_req, &q->err);
    else if (q->guest && q->kind == GF_REQUEST_TAKE)
        send_shot(q->guest, q);
    else if (q->guest)
        send_frozen(q->guest, q);
    gf_shot_free(q->shot);
    gf_ranks_free(q->ranks);
    free(q);
}
