/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish_int.h - the publisher from the inside; the contract is gatherfs.h, the protocol
 * segment.h.
 *
 *   publish.c   open, start, final, close      service.c  the thread: sockets and wake-ups
 *   step.c      begin, commit: what training   request.c  what the agent asks for, its answers
 *               pays for                       slots.c    slots and static memory: make, fault
 *   tensors.c   add, set_ptr, reset_table                 in, fill, drop
 *   place.c     run directory, socket, files   copy.c     copies some bytes of a set
 *   fork.c      dead in forked children        budget.c   how much memory may be taken
 *
 * THREADS.  The trainer's (one at a time) and the service thread. Two words connect them
 * without a lock. The trainer writes `state` (step, phase), then reads a flag of the service;
 * the service writes its flag, then reads `state`; all sequentially consistent, so at least
 * one of them sees the other and settles it under `lock`:
 *
 *     begin():   state = MUTATING     if (copying) wait until it is not, or give it up
 *     service:   copying = 1          if (state is MUTATING) take it back, MISSED
 *     commit(S): state = S, STABLE    if (armed) look: is it for S?
 *     service:   armed = 1            if (state is at or past S) look: copy now, or MISSED
 *
 * Weights change only between begin() and commit(); a snapshot counts only if `copying` was
 * never withdrawn while it was made. begin() withdraws it after max_stall, without waiting
 * for the copier: what that still copies is thrown away.
 *
 * `reading` counts who reads tensor memory or writes slot memory outside the lock: to take
 * either away, wait until it is 0. The lock is held for moments only, never
 * while sending, copying or faulting in.
 */
#ifndef GF_LIVE_PUBLISH_INT_H
#define GF_LIVE_PUBLISH_INT_H

#include <pthread.h>
#include <sys/types.h>
#include <time.h>

#include "base/arena.h"
#include "base/vec.h"
#include "live/gatherfs.h"
#include "live/segment.h"

#define GF_PUB_CHUNK ((uint64_t)4 << 20) /* bytes between two looks at the world */
#define GF_PUB_MAX_STEP (UINT64_MAX >> 3)

/* The word that trainer and service thread agree by. */
static inline uint64_t gf_pub_state(uint64_t step, bool verified, enum gf_live_phase phase)
{
    return step << 3 | (uint64_t)verified << 2 | (uint64_t)phase;
}
static inline uint64_t gf_pub_step(uint64_t state)
{
    return state >> 3;
}
static inline bool gf_pub_verified(uint64_t state)
{
    return state >> 2 & 1;
}
static inline enum gf_live_phase gf_pub_phase(uint64_t state)
{
    return (enum gf_live_phase)(state & 3);
}

struct gf_pub_run {
    uint64_t at, end; /* bytes of a slot or the static memory, whole pages */
};

/* A set of tensors that the agent selected. */
struct gf_pub_set {
    uint8_t *bitmap; /* NULL: not selected */
    bool ready;      /* SELECTED was sent */
    bool filled;     /* its static tensors are there */
    struct gf_pub_runs {
        struct gf_pub_run *at;
        size_t n;
        uint64_t pages; /* of all runs, in bytes */
    } slot, statics;
    uint64_t bytes; /* of its tensors, static ones excluded */
    bool buffers;
};

struct gf_pub_memory {
    int fd;
    uint8_t *map;
    uint64_t size;
};

struct gf_pub_slot {
    struct gf_pub_memory memory;
    enum gf_live_slot_state state;
    uint64_t seq;
    uint32_t faulted; /* bit s: what set s needs was faulted in */
    bool sent;        /* the agent has the descriptor */
};

/* Where a copy of a set is: tensor and byte in it. */
struct gf_pub_cursor {
    uint32_t tensor;
    uint64_t offset;
};

enum gf_pub_request_state {
    GF_PUB_IDLE,
    GF_PUB_ARMED,  /* for a later step, or the slot isn't faulted in */
    GF_PUB_COPY,   /* the service thread copies */
    GF_PUB_COMMIT, /* commit() copies */
    GF_PUB_ANSWER, /* decided: `answer` and `why` are to be sent */
};

enum gf_pub_part { GF_PUB_ALL, GF_PUB_BUFFERS, GF_PUB_REST }; /* static ones never */

struct gf_pub_request {
    enum gf_pub_request_state state;
    uint32_t req, set, slot;
    uint64_t step;
    struct gf_pub_cursor cursor;
    enum gf_pub_part part; /* that the service thread copies */
    uint64_t started_ns;   /* of the copy */
    uint64_t commit;       /* number of the commit that it shows */
    enum gf_live_type answer;
    enum gf_live_why why;
    uint64_t missing; /* bytes, for GF_LIVE_WHY_NO_MEMORY */
    bool cancelled;
};

/* A side file that we wrote: only while it is still that one it is ours to remove. */
struct gf_pub_file {
    char *name;
    dev_t dev;
    ino_t ino;
    struct timespec written;
};

/* A SELECT that waits for its memory. */
struct gf_pub_select {
    bool active;
    uint32_t set, slots;
};

struct gatherfs_pub {
    _Alignas(64) uint64_t state; /* gf_pub_state(); the trainer writes */
    uint32_t copying, armed;     /* the service writes; begin() may withdraw copying */
    uint32_t attached;           /* an agent is connected */
    bool dead;                   /* this is a forked child's copy */
    /* the trainer's own */
    struct gf_live_control *control; /* changed under the lock */
    uint64_t commits, step_ns, last_commit_ns;
    bool checked; /* wanted() said yes since the last commit */
    bool started; /* between start and reset_table or close */
    struct GF_VEC(struct gf_pub_file) files;

    /* set at open */
    char *dir; /* BASE/JOB */
    uint64_t max_stall_ns, memory_limit;
    uint32_t background;
    bool verify;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* copying, reading, attached, final_seen, table_gone */

    /* under the lock; the table itself also while `reading` */
    struct gf_arena arena; /* the table's names and sizes */
    struct gf_live_table table;
    size_t room;
    const uint8_t **data; /* addresses of its tensors */
    struct gf_pub_memory control_memory;
    uint64_t control_bytes;
    struct gf_live_status stats; /* what the service counts; the rest is in `control` */
    struct gf_live_metric metrics[GF_LIVE_METRICS]; /* kept over reset_table */
    struct gf_pub_request request;
    struct gf_pub_slot slots[GF_LIVE_MAX_SLOTS];
    uint64_t bytes_per_s; /* of copies so far */
    uint32_t reading;     /* threads that do, see above */
    bool stop, table_gone, table_new, final, final_told, final_seen, bye;

    /* the service thread's own; commit() reads the set of a request, while `reading` */
    struct gf_pub_set sets[GF_LIVE_MAX_SETS];
    struct gf_pub_select select;
    struct gf_pub_memory statics;
    uint8_t *static_done; /* bitmap of the tensors that are there */
    uint32_t static_for;  /* the set that is being copied there, plus 1 */
    struct gf_pub_cursor static_at;
    bool static_sent;
    struct gf_pub_fault {
        const struct gf_pub_memory *memory; /* NULL: nothing is being faulted in */
        const struct gf_pub_runs *runs;
        size_t run;
        uint64_t at; /* in that run */
    } fault;
    uint8_t *buffer;  /* GF_LIVE_MSG_MAX bytes */
    uint64_t deaf_ns; /* until then nobody is let in: it has just failed */

    /* descriptors, for the forked child too: changed under the lock */
    int dirfd, listener, agent, event;
    pthread_t thread;
    bool running;              /* the thread */
    struct gatherfs_pub *next; /* fork.c */
};

/* ---------------------------------------------------------------- publish.c */
struct gf_err *gf_pub_err(void); /* of this thread; gatherfs_error() shows it */
uint64_t gf_pub_now(void);       /* CLOCK_MONOTONIC, ns */
uint64_t gf_pub_clock(void);     /* CLOCK_REALTIME, ns */
/* Copies a caller's struct that may be older or newer than ours: what it lacks is 0, what
 * we do not know must be 0. */
int gf_pub_take_struct(void *to, size_t size, const void *from, struct gf_err *err);
void gf_pub_notify(struct gatherfs_pub *pub); /* wakes the service thread */

/* One status word, here and for readers; under the lock. */
#define gf_pub_count(pub, field, value)                                                    \
    do {                                                                                   \
        (pub)->stats.field = (value);                                                      \
        if ((pub)->control)                                                                \
            __atomic_store_n(&(pub)->control->status.field, (pub)->stats.field,            \
                             __ATOMIC_RELAXED);                                            \
    } while (0)

/* ---------------------------------------------------------------- tensors.c */
void gf_pub_tensors_done(struct gatherfs_pub *pub);

/* ---------------------------------------------------------------- place.c */
int gf_pub_place_open(struct gatherfs_pub *pub, const char *rundir, const char *job,
                      struct gf_err *err);
int gf_pub_listen(struct gatherfs_pub *pub, struct gf_err *err);
void gf_pub_place_close(struct gatherfs_pub *pub);
void gf_pub_run_id(const char *job, uint32_t world, const char *run_id, uint8_t ret[16]);

/* ---------------------------------------------------------------- copy.c */
/* Copies up to `budget` bytes of that part of a set from the cursor on into `slot`, adds to
 * *moved; true when there is nothing left. The caller has set `reading`. */
bool gf_pub_copy(const struct gatherfs_pub *pub, const struct gf_pub_set *set,
                 enum gf_pub_part part, struct gf_pub_cursor *cursor, uint8_t *slot,
                 uint64_t budget, uint64_t *moved);
/* The same for the static tensors of a set that `done` lacks; marks them. */
bool gf_pub_copy_static(const struct gatherfs_pub *pub, const struct gf_pub_set *set,
                        struct gf_pub_cursor *cursor, uint8_t *statics, uint8_t *done,
                        uint64_t budget, uint64_t *moved);

/* ---------------------------------------------------------------- slots.c */
/* Under the lock: a set from the agent's bitmap. */
int gf_pub_set_new(struct gatherfs_pub *pub, uint32_t id, const uint8_t *bitmap,
                   struct gf_err *err);
void gf_pub_set_done(struct gf_pub_set *set);
/* Some work to have a slot ready for a set: 1 done, 0 call again, -ENOMEM (*missing). */
int gf_pub_fault_slot(struct gatherfs_pub *pub, uint32_t slot, uint32_t set,
                      uint64_t *missing);
/* Some work to have a set's static tensors copied: as above. */
int gf_pub_fill_static(struct gatherfs_pub *pub, uint32_t set, uint64_t *missing);
/* Gives up slots (whoever has mapped them keeps them), sets and static memory. Nobody reads
 * or writes them meanwhile; takes the lock. */
void gf_pub_drop_memory(struct gatherfs_pub *pub);
void gf_pub_memory_done(struct gf_pub_memory *memory);

/* ---------------------------------------------------------------- budget.c */
/* What this process may still take: the least of the node's available memory and what the
 * cgroups (v1 and v2) it is in have left. `root` is put before /proc and /sys, for tests. */
uint64_t gf_budget_available(const char *root);

/* ---------------------------------------------------------------- service.c, request.c */
void *gf_pub_service(void *pub);
/* The request's outcome is known; under the lock. The service thread sends it. */
void gf_pub_decide(struct gatherfs_pub *pub, enum gf_live_type answer,
                   enum gf_live_why why);
/* The request's copy is complete: how fast was it? Under the lock. */
void gf_pub_measured(struct gatherfs_pub *pub);
void gf_pub_on_message(struct gatherfs_pub *pub, const struct gf_live_msg *msg,
                       const uint8_t *payload, size_t len);
/* Does a piece of what waits; true if more does. */
bool gf_pub_work(struct gatherfs_pub *pub);
void gf_pub_answer(struct gatherfs_pub *pub); /* sends a decided answer, if there is one */
/* To the agent, if there is one; one that does not read is dropped. */
void gf_pub_send(struct gatherfs_pub *pub, struct gf_live_msg *msg, int fd);
void gf_pub_drop_agent(struct gatherfs_pub *pub);

/* ---------------------------------------------------------------- fork.c */
void gf_pub_register(struct gatherfs_pub *pub);
void gf_pub_unregister(struct gatherfs_pub *pub);

/* Compiled into tests only. */
#ifdef GATHERFS_TEST_HOOKS
extern bool gf_test_no_wait;       /* begin() does not wait for the copy: must tear */
extern unsigned gf_test_copy_usec; /* the copier sleeps so long after each chunk */
#endif

#endif
