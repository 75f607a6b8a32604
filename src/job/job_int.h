/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job_int.h - the inside of a job: its thread, the connections and the request at hand.
 *
 *     job.c    the thread, and what callers ask it
 *     find.c   which publishers and ranks there are
 *     peer.c   one publisher's connection: what it says, what it is told
 *     take.c   one step of all ranks (step agreement), and static memory
 *     guest.c  further gatherfs processes that ask us; host.c: we are one of those
 *
 * Callers queue requests on their own stacks and wait. The thread looks at all of them each
 * round, but ranks are armed for one step at a time: that of job->active.
 * Peers belong to the thread alone. job->lock guards the rest.
 */
#ifndef GF_JOB_JOB_INT_H
#define GF_JOB_JOB_INT_H

#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "base/vec.h"
#include "job/job.h"

#define GF_AGENT_SOCK "agent.sock"

#define GF_SET_MOVING 0 /* set ids: what training changes, ... */
#define GF_SET_FROZEN 1 /* ... and what it does not */

enum gf_answer { GF_NO_ANSWER, GF_ANSWER_READY, GF_ANSWER_MISSED, GF_ANSWER_BUSY };

/* One publisher. */
struct gf_peer {
    uint64_t serial;
    uint32_t rank;
    int sock;
    struct gf_said *said; /* NULL until HELLO */
    struct gf_memory *slots[GF_LIVE_MAX_SLOTS];
    unsigned sets;       /* bits: SELECTED */
    int selecting;       /* the set whose SELECTED is waited for, or -1 */
    uint32_t select_why; /* BUSY to the last SELECT, or 0 */
    uint64_t select_bytes;
    unsigned nslots; /* asked for in SELECT */
    bool armed;      /* an ARM has no answer yet */
    uint32_t req;
    enum gf_answer answer;        /* to ARM number `req` */
    struct gf_live_msg said_last; /* that answer */
    bool final, bye;  /* it has said that training is over; we have said good-bye */
    int64_t since_ms; /* connected */
};

enum gf_request_kind { GF_REQUEST_RANKS, GF_REQUEST_TAKE, GF_REQUEST_FROZEN };
enum gf_request_phase { GF_PHASE_START, GF_PHASE_ARMED, GF_PHASE_CLEARING };

/* Another gatherfs process, and the steps it reads. */
struct gf_guest_shot {
    uint32_t req;
    struct gf_shot *shot;
};

struct gf_guest {
    int sock;
    struct gf_ranks *told; /* the ranks that it knows */
    uint64_t version;      /* of the job, when it was told */
    struct GF_VEC(struct gf_guest_shot) shots;
};

/* A side file that we wrote. */
struct gf_side {
    char *name;
    dev_t dev;
    ino_t ino;
    struct timespec written;
};

struct gf_request {
    enum gf_request_kind kind;
    struct gf_ranks *ranks; /* TAKE, FROZEN: of these */
    uint32_t rank;          /* FROZEN: index in them */
    bool partial;           /* RANKS */
    bool has_want;          /* TAKE: exactly step `want` */
    uint64_t want;
    int64_t start_ms, end_ms;
    unsigned ms;
    bool gave_up;           /* nobody waits for it any more */
    bool guests;            /* on the heap, of a guest ... */
    struct gf_guest *guest; /* ... unless it has gone */
    uint32_t guest_req;
    /* the thread's: */
    enum gf_request_phase phase;
    unsigned tries;
    uint64_t step;     /* armed */
    uint64_t least;    /* what a MISSED told: some rank is there already */
    bool later;        /* a rank has buffers: only steps to come */
    int64_t again_ms;  /* the next try */
    bool sent;         /* to our host */
    uint32_t host_req; /* by this number */
    uint32_t parts;    /* ranks' parts that came */
    bool crowded;      /* a rank had no free slot at the last try ... */
    unsigned yields;   /* ... so often readers were asked for theirs */
    /* the result: */
    bool done;     /* the thread's: there is one */
    bool answered; /* the thread has let go of it */
    int r;
    struct gf_err err;
    struct gf_shot *shot;
    struct gf_ranks *found;
    struct gf_request *next;
};

struct gf_job {
    atomic_uint refs;
    char *name, *dir;
    const struct gf_limits *limits;
    pthread_t thread;
    int wake; /* eventfd */

    /* the thread's alone */
    struct GF_VEC(struct gf_peer *) peers; /* by rank */
    uint64_t serials;
    uint32_t reqs;
    int64_t scan_ms;    /* the next look at the directory */
    int64_t taken_ms;   /* since when somebody else has a publisher that we want; 0: not */
    int64_t refused_ms; /* since when nobody listens at any socket that is there; 0: not */
    struct gf_err why;  /* why there are no ranks */
    uint8_t *buffer;    /* GF_LIVE_MSG_MAX bytes */
    struct gf_request *active; /* the TAKE that ranks are armed for, or NULL */
    int64_t deaf_ms;           /* until then no guests are let in: it has just failed */
    struct GF_VEC(struct pollfd) fds;
    int listen; /* agent.sock, or -1 */
    ino_t listen_ino;
    struct GF_VEC(struct gf_guest *) guests;
    int64_t guest_ms; /* the next look for an agent */
    int host;         /* the agent, if that is another process; or -1 */
    uint64_t host_serial;
    uint32_t host_version;
    struct GF_VEC(struct gf_said *) host_said;

    struct GF_VEC(struct gf_side) sides; /* of keep.c's caller */

    pthread_mutex_t need_lock; /* taken before all others; guards: */
    void (*make_room)(void *ctx);
    void *need_ctx;

    pthread_mutex_t lock;
    pthread_cond_t answered;
    bool stop, keep, bye;
    struct gf_request *queue;
    struct gf_ranks *ranks; /* the last that were complete, or NULL */
    bool alive;             /* ... and they are all connected */
    bool finishing;
    bool ended; /* they said good-bye, and no others have come */
    uint64_t version;
    struct GF_VEC(struct gf_lease) given_back; /* to be told to the publishers */
    struct GF_VEC(struct gf_shot *) shots;     /* that there are; without references */
};

/* ---- find.c: of the thread ---- */

#define GF_MAX_PEERS 65536
#define GF_MAX_AT_ONCE 16 /* messages of one connection, then the others have their turn */
#define GF_MAX_ASKED 8    /* unanswered requests of one guest */

/* Connects to what is new in the directory. */
void gf_job_scan(struct gf_job *job);
void gf_job_drop(struct gf_job *job, size_t i); /* peer i */
/* Fails q when there is nothing to wait for: all were killed, and nobody has a step. */
int gf_job_dead(const struct gf_job *job, struct gf_request *q);
/* Looks which ranks there are. With `partial`, some of them will do. */
void gf_job_group(struct gf_job *job, bool partial);
/* The peer of ranks->at[i], or NULL when it has gone. */
struct gf_peer *gf_job_peer(struct gf_job *job, const struct gf_ranks *ranks, uint32_t i);

/* Of the thread, but takes the lock: `ranks` (taken over; NULL: as they were) and how they
 * are. */
void gf_job_set_ranks(struct gf_job *job, struct gf_ranks *ranks, bool alive,
                      bool finishing);

/* ---- job.c ---- */

/* The queue, for the thread: NULL gives the first. Only the thread takes requests out. */
struct gf_request *gf_job_next(struct gf_job *job, const struct gf_request *request);
/* A shot without memory yet. */
int gf_shot_new(struct gf_job *job, struct gf_ranks *ranks, uint64_t step,
                struct gf_shot **ret, struct gf_err *err);
/* The newest that somebody reads, with a reference; or NULL. */
struct gf_shot *gf_shot_newest(struct gf_job *job, const struct gf_ranks *ranks);

/* ---- guest.c: of the thread ---- */

void gf_guests_listen(struct gf_job *job);
void gf_guests_accept(struct gf_job *job);
void gf_guests_pump(struct gf_job *job, size_t i);
void gf_guests_update(struct gf_job *job); /* the ranks may be others */
void gf_guests_free(struct gf_job *job);
/* Asks this one, or with NULL all of them, for slots that they do not read. */
void gf_guests_yield(struct gf_job *job, struct gf_guest *guest);
/* Sends the result, and frees the request. */
void gf_guest_answer(struct gf_request *request);

/* ---- host.c: of the thread ---- */

bool gf_host_connect(struct gf_job *job);
void gf_host_pump(struct gf_job *job);
void gf_host_close(struct gf_job *job);
void gf_host_run(struct gf_job *job, struct gf_request *request);
void gf_host_abort(struct gf_job *job, struct gf_request *request);
void gf_host_release(struct gf_job *job, uint64_t req);

/* ---- peer.c: of the thread ---- */

void gf_peer_free(struct gf_peer *peer);
/* What came. Nonzero: the connection is over (-EPIPE: it has gone; GF_EBAD and others: it is
 * dropped; -EBUSY: another agent has it). *ret_changed: its tensors are others. */
int gf_peer_pump(struct gf_job *job, struct gf_peer *peer, bool *ret_changed,
                 struct gf_err *err);
int gf_peer_select(struct gf_peer *peer, int set, const struct gf_rank *rank);
int gf_peer_arm(struct gf_peer *peer, uint32_t req, uint64_t step);
void gf_peer_cancel(struct gf_peer *peer);
void gf_peer_release(struct gf_peer *peer, uint32_t slot, uint64_t seq);
void gf_peer_bye(struct gf_peer *peer);

/* ---- take.c: of the thread ---- */

/* Goes on with the request as far as it can; sets ->done in the end. job->lock is not held. */
void gf_take_run(struct gf_job *job, struct gf_request *request);
void gf_frozen_run(struct gf_job *job, struct gf_request *request);
/* Sets job->active. A TAKE of a step that is far away is armed (training may be fast), but only
 * as long as nobody asks for a nearer one. */
void gf_take_choose(struct gf_job *job);
/* Readers of this process give back the slots that they do not read. */
void gf_job_yield(struct gf_job *job);
/* It will not be answered: publishers are told. */
void gf_take_abort(struct gf_job *job, struct gf_request *request);

#endif
