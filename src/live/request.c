/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.c - what the agent asks for, and its answers. All on the service thread but
 * gf_pub_decide(), which is whoever settles a request: begin(), commit() or this thread.
 *
 *     ARM -> ARMED -> COPY (this thread) or COMMIT (commit() itself) -> ANSWER -> IDLE
 *                \------------------ MISSED, BUSY ------------------/
 */
#include "live/publish_int.h"

#include <unistd.h>

#include "base/math.h"

#ifdef GATHERFS_TEST_HOOKS
unsigned gf_test_copy_usec;
#endif

void gf_pub_decide(struct gatherfs_pub *pub, enum gf_live_type answer, enum gf_live_why why)
{
    pub->request.state = GF_PUB_ANSWER;
    pub->request.answer = answer;
    pub->request.why = why;
    __atomic_store_n(&pub->armed, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&pub->copying, 0, __ATOMIC_SEQ_CST);
    pthread_cond_broadcast(&pub->changed);
    gf_pub_notify(pub);
}

void gf_pub_measured(struct gatherfs_pub *pub)
{
    uint64_t took = gf_pub_now() - pub->request.started_ns;
    uint64_t bytes = pub->sets[pub->request.set].bytes;

    gf_pub_count(pub, copy_ns, took);
    if (bytes > (uint64_t)1 << 20) /* less says more about waking up than about copying */
        pub->bytes_per_s = GF_MAX(bytes / (took / 1000 + 1) * 1000000, 1000000);
}

/* Under the lock: an armed request against where training is now. */
static void look(struct gatherfs_pub *pub)
{
    struct gf_pub_request *req = &pub->request;
    uint64_t state = __atomic_load_n(&pub->state, __ATOMIC_SEQ_CST);
    enum gf_live_phase phase = gf_pub_phase(state);
    const struct gf_pub_set *set = &pub->sets[req->set];

    if (req->cancelled)
        gf_pub_decide(pub, GF_LIVE_BUSY, GF_LIVE_WHY_CANCELLED);
    else if (req->step > gf_pub_step(state) && phase != GF_LIVE_FINISHED)
        return;
    else if (req->step != gf_pub_step(state))
        gf_pub_decide(pub, GF_LIVE_MISSED, GF_LIVE_WHY_PASSED);
    else if (phase == GF_LIVE_MUTATING)
        gf_pub_decide(pub, GF_LIVE_MISSED, GF_LIVE_WHY_MUTATING);
    else if ((set->buffers && phase != GF_LIVE_FINISHED) ||
             (pub->verify && !gf_pub_verified(state)))
        gf_pub_decide(pub, GF_LIVE_MISSED, GF_LIVE_WHY_BUFFERS);
    else if (pub->slots[req->slot].faulted >> req->set & 1) {
        __atomic_store_n(&pub->copying, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&pub->state, __ATOMIC_SEQ_CST) != state) {
            gf_pub_decide(pub, GF_LIVE_MISSED, GF_LIVE_WHY_MUTATING);
            return;
        }
        __atomic_store_n(&pub->armed, 0, __ATOMIC_SEQ_CST);
        req->state = GF_PUB_COPY;
        req->part = GF_PUB_ALL;
        req->cursor = (struct gf_pub_cursor){ 0 };
        req->started_ns = gf_pub_now();
        req->commit = __atomic_load_n(&pub->control->status.commits, __ATOMIC_RELAXED);
        gf_pub_count(pub, background, 1);
    }
}

/* ---------------------------------------------------------------- answers */

static void reply(struct gatherfs_pub *pub, struct gf_live_msg msg)
{
    msg.step = gf_pub_step(__atomic_load_n(&pub->state, __ATOMIC_SEQ_CST));
    msg.incarnation = pub->table.incarnation;
    gf_pub_send(pub, &msg, -1);
}

static void show_slot(struct gatherfs_pub *pub, const struct gf_pub_request *req)
{
    const struct gf_pub_slot *slot = &pub->slots[req->slot];
    struct gf_live_slot_status *shown;

    if (!pub->control)
        return;
    shown = &pub->control->slots[req->slot];
    __atomic_store_n(&shown->seq, slot->seq, __ATOMIC_RELAXED);
    __atomic_store_n(&shown->step, req->step, __ATOMIC_RELAXED);
    __atomic_store_n(&shown->set, req->set, __ATOMIC_RELAXED);
    __atomic_store_n(&shown->bytes, pub->sets[req->set].bytes, __ATOMIC_RELAXED);
    __atomic_store_n(&shown->commit, req->commit, __ATOMIC_RELAXED);
    __atomic_store_n(&shown->state, slot->state, __ATOMIC_RELEASE);
}

void gf_pub_answer(struct gatherfs_pub *pub)
{
    struct gf_pub_request *req = &pub->request;
    struct gf_pub_slot *slot = &pub->slots[req->slot];
    struct gf_live_msg msg = { 0 };
    int fd = -1;

    pthread_mutex_lock(&pub->lock);
    if (req->state != GF_PUB_ANSWER) {
        pthread_mutex_unlock(&pub->lock);
        return;
    }
    if (req->answer == GF_LIVE_READY && req->cancelled) {
        req->answer = GF_LIVE_BUSY;
        req->why = GF_LIVE_WHY_CANCELLED;
    }
    slot->seq++; /* even again */
    slot->state = req->answer == GF_LIVE_READY ? GF_LIVE_LEASED : GF_LIVE_FREE;
    if (req->answer == GF_LIVE_READY) {
        fd = slot->sent ? -1 : slot->memory.fd;
        slot->sent = true;
        gf_pub_count(pub, snapshots, pub->stats.snapshots + 1);
    } else if (req->answer == GF_LIVE_MISSED)
        gf_pub_count(pub, missed, pub->stats.missed + 1);
    else
        gf_pub_count(pub, busy, pub->stats.busy + 1);
    show_slot(pub, req);
    msg = (struct gf_live_msg){
        .type = (uint16_t)req->answer,
        .req = req->req,
        .why = req->why,
        .set = req->set,
        .slot = req->slot,
        .seq = slot->seq,
        .incarnation = pub->table.incarnation,
        .step = req->answer == GF_LIVE_READY
                    ? req->step
                    : gf_pub_step(__atomic_load_n(&pub->state, __ATOMIC_SEQ_CST)),
        .bytes = req->answer == GF_LIVE_READY ? pub->sets[req->set].bytes : req->missing,
    };
    req->state = GF_PUB_IDLE;
    pthread_mutex_unlock(&pub->lock);
    gf_pub_send(pub, &msg, fd);
}

/* ---------------------------------------------------------------- work */

static void copy_chunk(struct gatherfs_pub *pub)
{
    struct gf_pub_request *req = &pub->request;
    const struct gf_pub_set *set = &pub->sets[req->set];
    uint8_t *slot = pub->slots[req->slot].memory.map;
    uint64_t moved = 0;
    bool done;

    pub->reading++;
    pthread_mutex_unlock(&pub->lock);
    done = gf_pub_copy(pub, set, req->part, &req->cursor, slot, GF_PUB_CHUNK, &moved);
#ifdef GATHERFS_TEST_HOOKS
    usleep(gf_test_copy_usec);
#endif
    pthread_mutex_lock(&pub->lock);
    pub->reading--;
    pthread_cond_broadcast(&pub->changed);
    gf_pub_count(pub, bytes, pub->stats.bytes + moved);
    if (!done || req->state != GF_PUB_COPY) /* else begin() gave it up meanwhile */
        return;
    gf_pub_measured(pub);
    gf_pub_decide(pub, GF_LIVE_READY, GF_LIVE_WHY_NONE);
}

static void no_memory(struct gatherfs_pub *pub, uint64_t missing)
{
    struct gf_live_msg msg = { .type = GF_LIVE_BUSY,
                               .why = GF_LIVE_WHY_NO_MEMORY,
                               .set = pub->select.set,
                               .bytes = missing };

    pub->select.active = false;
    gf_pub_set_done(&pub->sets[pub->select.set]);
    reply(pub, msg);
}

static void work_on_select(struct gatherfs_pub *pub)
{
    uint32_t id = pub->select.set, ready = 0, next = GF_LIVE_MAX_SLOTS;
    struct gf_pub_set *set = &pub->sets[id];
    struct gf_live_msg msg = { .type = GF_LIVE_SELECTED, .set = id };
    bool send_static = set->statics.pages && !pub->static_sent;
    uint64_t missing = 0;
    int r;

    r = gf_pub_fill_static(pub, id, &missing);
    if (r < 0)
        no_memory(pub, missing);
    if (r <= 0)
        return;
    for (uint32_t i = pub->table.nslots; i-- > 0;) {
        const struct gf_pub_slot *slot = &pub->slots[i];

        if (slot->faulted >> id & 1 || slot->state != GF_LIVE_FREE)
            ready++;
        else
            next = i;
    }
    if (ready < GF_MIN(pub->select.slots, pub->table.nslots) && next < GF_LIVE_MAX_SLOTS) {
        /* One slot is enough to go on with. */
        if (gf_pub_fault_slot(pub, next, id, &missing) >= 0)
            return;
        if (ready == 0) {
            no_memory(pub, missing);
            return;
        }
    }
    pub->select.active = false;
    set->ready = true;
    msg.bytes = set->bytes;
    msg.incarnation = pub->table.incarnation;
    msg.step = gf_pub_step(__atomic_load_n(&pub->state, __ATOMIC_SEQ_CST));
    pub->static_sent |= send_static;
    gf_pub_send(pub, &msg, send_static ? pub->statics.fd : -1);
}

bool gf_pub_work(struct gatherfs_pub *pub)
{
    struct gf_pub_request *req = &pub->request;
    bool busy = false;
    uint64_t missing = 0;
    int r;

    pthread_mutex_lock(&pub->lock);
    if (req->state == GF_PUB_COPY && req->cancelled)
        gf_pub_decide(pub, GF_LIVE_BUSY, GF_LIVE_WHY_CANCELLED);
    else if (req->state == GF_PUB_COPY) {
        copy_chunk(pub);
        busy = true;
    } else if (req->state == GF_PUB_ARMED &&
               !(pub->slots[req->slot].faulted >> req->set & 1)) {
        pthread_mutex_unlock(&pub->lock);
        r = gf_pub_fault_slot(pub, req->slot, req->set, &missing);
        pthread_mutex_lock(&pub->lock);
        req->missing = missing;
        if (req->state == GF_PUB_ARMED && r < 0)
            gf_pub_decide(pub, GF_LIVE_BUSY, GF_LIVE_WHY_NO_MEMORY);
        else if (req->state == GF_PUB_ARMED)
            look(pub);
        busy = true;
    } else if (req->state == GF_PUB_ARMED)
        look(pub); /* final() or CANCEL may have come */
    pthread_mutex_unlock(&pub->lock);
    if (!busy && pub->select.active) {
        work_on_select(pub);
        busy = true;
    }
    return busy;
}

/* ---------------------------------------------------------------- requests */

/* A set or a request for tensors that are no longer (or not yet) there. */
static bool stale(const struct gatherfs_pub *pub, const struct gf_live_msg *msg)
{
    return !pub->started || msg->incarnation != pub->table.incarnation;
}

static void on_select(struct gatherfs_pub *pub, const struct gf_live_msg *msg,
                      const uint8_t *bitmap, size_t len)
{
    struct gf_live_msg busy = { .type = GF_LIVE_BUSY, .set = msg->set };
    bool bad = false;
    int r = 0;

    pthread_mutex_lock(&pub->lock);
    if (stale(pub, msg))
        busy.why = GF_LIVE_WHY_NO_TABLE;
    else if (pub->select.active ||
             (pub->request.state != GF_PUB_IDLE && pub->request.set == msg->set))
        busy.why = GF_LIVE_WHY_PENDING;
    else if (gf_live_set_check(bitmap, len, pub->table.n, NULL))
        bad = true;
    else
        r = gf_pub_set_new(pub, msg->set, bitmap, NULL);
    if (r)
        busy.why = GF_LIVE_WHY_NO_MEMORY;
    pthread_mutex_unlock(&pub->lock);
    if (bad)
        gf_pub_drop_agent(pub);
    else if (busy.why)
        reply(pub, busy);
    else
        pub->select = (struct gf_pub_select){ true, msg->set, msg->slot };
}

static uint32_t find_slot(const struct gatherfs_pub *pub, uint32_t set)
{
    uint32_t found = GF_LIVE_MAX_SLOTS;

    for (uint32_t i = pub->table.nslots; i-- > 0;)
        if (pub->slots[i].state == GF_LIVE_FREE &&
            (found == GF_LIVE_MAX_SLOTS || pub->slots[i].faulted >> set & 1))
            found = i;
    return found;
}

static void on_arm(struct gatherfs_pub *pub, const struct gf_live_msg *msg)
{
    struct gf_live_msg busy = { .type = GF_LIVE_BUSY, .req = msg->req, .set = msg->set };
    uint32_t slot = GF_LIVE_MAX_SLOTS;

    pthread_mutex_lock(&pub->lock);
    if (pub->request.state != GF_PUB_IDLE)
        busy.why = GF_LIVE_WHY_PENDING;
    else if (stale(pub, msg))
        busy.why = GF_LIVE_WHY_NO_TABLE;
    else if (!pub->sets[msg->set].ready)
        busy.why = GF_LIVE_WHY_NO_SET;
    else if ((slot = find_slot(pub, msg->set)) == GF_LIVE_MAX_SLOTS)
        busy.why = GF_LIVE_WHY_NO_SLOT;
    if (busy.why)
        gf_pub_count(pub, busy, pub->stats.busy + 1);
    else {
        pub->request = (struct gf_pub_request){ .state = GF_PUB_ARMED,
                                                .req = msg->req,
                                                .set = msg->set,
                                                .slot = slot,
                                                .step = msg->step };
        pub->slots[slot].state = GF_LIVE_FILLING;
        pub->slots[slot].seq++;
        show_slot(pub, &pub->request);
        __atomic_store_n(&pub->armed, 1, __ATOMIC_SEQ_CST);
        look(pub);
    }
    pthread_mutex_unlock(&pub->lock);
    if (busy.why)
        reply(pub, busy);
}

static void on_release(struct gatherfs_pub *pub, const struct gf_live_msg *msg)
{
    struct gf_pub_slot *slot = &pub->slots[msg->slot];

    pthread_mutex_lock(&pub->lock);
    if (!stale(pub, msg) && slot->state == GF_LIVE_LEASED && slot->seq == msg->seq) {
        slot->state = GF_LIVE_FREE;
        __atomic_store_n(&pub->control->slots[msg->slot].state, GF_LIVE_FREE,
                         __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&pub->lock);
}

void gf_pub_on_message(struct gatherfs_pub *pub, const struct gf_live_msg *msg,
                       const uint8_t *payload, size_t len)
{
    switch ((enum gf_live_type)msg->type) {
    case GF_LIVE_SELECT:
        on_select(pub, msg, payload, len);
        break;
    case GF_LIVE_ARM:
        on_arm(pub, msg);
        break;
    case GF_LIVE_CANCEL:
        pthread_mutex_lock(&pub->lock);
        if (pub->request.state != GF_PUB_IDLE && pub->request.req == msg->req)
            pub->request.cancelled = true;
        pthread_mutex_unlock(&pub->lock);
        break;
    case GF_LIVE_RELEASE:
        on_release(pub, msg);
        break;
    case GF_LIVE_BYE:
        pthread_mutex_lock(&pub->lock);
        pub->bye = true;
        pthread_cond_broadcast(&pub->changed);
        pthread_mutex_unlock(&pub->lock);
        break;
    default: /* a publisher's message: this peer is no agent */
        gf_pub_drop_agent(pub);
    }
}
