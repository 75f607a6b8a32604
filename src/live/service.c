/* SPDX-License-Identifier: Apache-2.0 */
/*
 * service.c - the publisher's thread: waits for an agent, for its messages, and for the
 * trainer's nudges, and does what waits in pieces, so that it soon looks up again.
 */
#include "live/publish_int.h"

#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/math.h"
#include "live/channel.h"

#define DEAF_NS 1000000000 /* after a connection could not be accepted */

void gf_pub_drop_agent(struct gatherfs_pub *pub)
{
    pthread_mutex_lock(&pub->lock);
    while (pub->reading)
        pthread_cond_wait(&pub->changed, &pub->lock);
    if (pub->agent >= 0)
        close(pub->agent);
    pub->agent = -1;
    __atomic_store_n(&pub->attached, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&pub->armed, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&pub->copying, 0, __ATOMIC_SEQ_CST);
    pub->request.state = GF_PUB_IDLE;
    pub->select.active = false;
    pthread_cond_broadcast(&pub->changed);
    pthread_mutex_unlock(&pub->lock);
    gf_pub_drop_memory(pub);
}

void gf_pub_send(struct gatherfs_pub *pub, struct gf_live_msg *msg, int fd)
{
    if (pub->agent >= 0 && gf_live_send(pub->agent, msg, NULL, 0, fd))
        gf_pub_drop_agent(pub);
}

static void send_table(struct gatherfs_pub *pub, enum gf_live_type type)
{
    struct gf_live_msg msg = { .type = (uint16_t)type,
                               .incarnation = pub->table.incarnation,
                               .step = gf_pub_step(
                                   __atomic_load_n(&pub->state, __ATOMIC_SEQ_CST)),
                               .bytes = pub->control_bytes };

    gf_pub_send(pub, &msg, pub->control_memory.fd);
}

static void send_final(struct gatherfs_pub *pub)
{
    struct gf_live_msg msg = { .type = GF_LIVE_FINAL,
                               .incarnation = pub->table.incarnation,
                               .step = gf_pub_step(
                                   __atomic_load_n(&pub->state, __ATOMIC_SEQ_CST)) };

    gf_pub_send(pub, &msg, -1);
}

static void on_connection(struct gatherfs_pub *pub)
{
    struct gf_live_msg busy = { .type = GF_LIVE_BUSY, .why = GF_LIVE_WHY_TAKEN };
    bool taken = pub->agent >= 0, final;
    int sock;

    /* Under the lock, so that no forked child inherits a descriptor unknown to it. */
    pthread_mutex_lock(&pub->lock);
    sock = accept4(pub->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (sock < 0)
        pub->deaf_ns = gf_pub_now() + DEAF_NS;
    if (sock >= 0 && (taken || gf_live_peer_check(sock, geteuid(), NULL))) {
        if (taken)
            gf_live_send(sock, &busy, NULL, 0, -1);
        close(sock);
        sock = -1;
    }
    if (sock >= 0) {
        pub->agent = sock;
        pub->bye = false;
        __atomic_store_n(&pub->attached, 1, __ATOMIC_RELAXED);
        gf_pub_count(pub, heartbeat_ns, gf_pub_clock());
    }
    final = pub->final_told;
    pthread_mutex_unlock(&pub->lock);
    if (sock < 0)
        return;
    send_table(pub, GF_LIVE_HELLO);
    if (final)
        send_final(pub);
}

static void on_agent(struct gatherfs_pub *pub)
{
    /* A few at a time: an agent that floods must not keep us from copying. */
    for (int i = 0; i < 16 && pub->agent >= 0; i++) {
        struct gf_live_msg msg;
        const uint8_t *payload;
        size_t len;
        int r = gf_live_recv(pub->agent, pub->buffer, &msg, &payload, &len, NULL, NULL);

        if (r == 0)
            return;
        if (r == 1)
            gf_pub_on_message(pub, &msg, payload, len);
        else if (r != -ENOMSG)
            gf_pub_drop_agent(pub);
    }
}

/* The trainer withdraws the table: everything that speaks of it ends. */
static void let_table_go(struct gatherfs_pub *pub)
{
    struct gf_live_msg busy = { .type = GF_LIVE_BUSY,
                                .why = GF_LIVE_WHY_NO_TABLE,
                                .set = pub->select.set,
                                .incarnation = pub->table.incarnation };

    pthread_mutex_lock(&pub->lock);
    if (pub->request.state != GF_PUB_IDLE)
        gf_pub_decide(pub, GF_LIVE_BUSY, GF_LIVE_WHY_NO_TABLE);
    pthread_mutex_unlock(&pub->lock);
    gf_pub_answer(pub);
    if (pub->select.active)
        gf_pub_send(pub, &busy, -1);
    pub->select.active = false;
    gf_pub_drop_memory(pub);
    pthread_mutex_lock(&pub->lock);
    pub->table_gone = false;
    pthread_cond_broadcast(&pub->changed);
    pthread_mutex_unlock(&pub->lock);
}

/* What the trainer asked for; false: to end. */
static bool on_trainer(struct gatherfs_pub *pub)
{
    bool stop, gone, new, final;
    uint64_t nudges;

    if (read(pub->event, &nudges, sizeof(nudges)) < 0)
        nudges = 0; /* nobody nudged: look all the same */
    pthread_mutex_lock(&pub->lock);
    stop = pub->stop;
    gone = pub->table_gone;
    new = pub->table_new && !gone;
    final = pub->final && !pub->final_told;
    if (new)
        pub->table_new = false;
    if (final)
        pub->final_told = true;
    pthread_mutex_unlock(&pub->lock);

    if (gone)
        let_table_go(pub);
    if (new)
        send_table(pub, GF_LIVE_TABLE);
    if (final) {
        gf_pub_work(pub); /* what is armed for a later step is missed now */
        gf_pub_answer(pub);
        send_final(pub);
        pthread_mutex_lock(&pub->lock);
        pub->final_seen = true;
        pthread_cond_broadcast(&pub->changed);
        pthread_mutex_unlock(&pub->lock);
    }
    return !stop;
}

static void beat(struct gatherfs_pub *pub, uint64_t *last)
{
    uint64_t now = gf_pub_now();

    if (pub->agent < 0 || now - *last < 1000000000)
        return;
    *last = now;
    pthread_mutex_lock(&pub->lock);
    gf_pub_count(pub, heartbeat_ns, gf_pub_clock());
    pthread_mutex_unlock(&pub->lock);
}

void *gf_pub_service(void *arg)
{
    struct gf_live_msg bye = { .type = GF_LIVE_BYE };
    struct gatherfs_pub *pub = arg;
    uint64_t last_beat = 0;
    bool go_on = true;

    pthread_setname_np(pthread_self(), "gatherfs");
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 5); /* training goes first */
    while (go_on) {
        bool busy = gf_pub_work(pub), listening, deaf = gf_pub_now() < pub->deaf_ns;
        struct pollfd fds[3] = { { .fd = pub->event, .events = POLLIN } };

        gf_pub_answer(pub);
        pthread_mutex_lock(&pub->lock);
        listening = pub->started;
        pthread_mutex_unlock(&pub->lock);
        fds[1] = (struct pollfd){ .fd = listening && !deaf ? pub->listener : -1,
                                  .events = POLLIN };
        fds[2] = (struct pollfd){ .fd = pub->agent, .events = POLLIN };
        if (poll(fds, GF_COUNT(fds), busy ? 0 : pub->agent >= 0 || deaf ? 1000 : -1) < 0)
            continue;
        if (fds[2].revents)
            on_agent(pub);
        if (fds[1].revents)
            on_connection(pub);
        if (fds[0].revents)
            go_on = on_trainer(pub);
        beat(pub, &last_beat);
    }
    gf_pub_send(pub, &bye, -1);
    gf_pub_drop_agent(pub);
    return NULL;
}
