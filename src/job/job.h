/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.h - a running job as its readers see it: its ranks, and training steps of them.
 *
 *     gf_job_open()     finds the job's directory; one thread talks to its publishers
 *     gf_job_ranks()    all ranks, once they are there and agree on what job they are
 *     gf_job_take()     one training step of all ranks: a shot
 *     gf_shot_free()    gives its memory back to the publishers
 *
 * Connections come and go: the thread looks for new sockets all the time, so a restarted
 * job is found by itself, as another set of ranks. A shot outlives its publishers: the
 * memory is ours as long as we map it.
 *
 * Publishers speak with one gatherfs process of the node, the first. Further ones get ranks and
 * steps from that one, through agent.sock in the job's directory.
 *
 * All functions may be called from any thread. Those that wait take a struct gf_wait, and no
 * wait is longer than it says.
 */
#ifndef GF_JOB_JOB_H
#define GF_JOB_JOB_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "job/ranks.h"

struct gf_job;

/* How long somebody waits, and whether he still does. */
struct gf_wait {
    unsigned ms;
    bool (*gave_up)(void *ctx); /* may be NULL */
    void *ctx;
};

/* One training step: for each rank the slot that its publisher leases to us. */
struct gf_lease {
    struct gf_memory *memory; /* NULL: the rank has nothing in slots */
    uint32_t slot;
    uint64_t seq, peer, incarnation; /* peer 0: no lease */
};

struct gf_shot {
    atomic_uint refs;
    struct gf_job *job;
    struct gf_ranks *ranks;
    uint64_t step;
    struct gf_lease *at; /* ranks->n of them */
};

/* `name` is a job's name or its run directory (with a '/'). ENOENT: no such job here. */
int gf_job_open(const char *name, const struct gf_limits *limits, struct gf_job **ret,
                struct gf_err *err);
void gf_job_free(struct gf_job *job); /* shots of it may live on; NULL is fine */
GF_DEFINE_AUTO(gf_job);

const char *gf_job_name(const struct gf_job *job);
const char *gf_job_dir(const struct gf_job *job); /* its run directory */

/* The ranks that are connected now, waiting for those that are missing. With `partial` some
 * may be missing in the end. One reference for the caller. */
int gf_job_ranks(struct gf_job *job, bool partial, const struct gf_wait *wait,
                 struct gf_ranks **ret, struct gf_err *err);

/* Are these still the job's? False when a rank has gone or tells other tensors. */
bool gf_job_has(struct gf_job *job, const struct gf_ranks *ranks);

/* Are all ranks of some start of it connected? */
bool gf_job_is_whole(struct gf_job *job);

/* Grows whenever ranks come, go, or change their tensors. */
uint64_t gf_job_version(struct gf_job *job);

/* The newest step: all ranks at the same one. Where there is no memory for one more, the newest
 * that somebody reads. `*want` (may be NULL): exactly that one, which must not be over. ESTALE: these are not the job's ranks any more; ETIMEDOUT names the rank
 * that was waited for. */
int gf_job_take(struct gf_job *job, struct gf_ranks *ranks, const uint64_t *want,
                const struct gf_wait *wait, struct gf_shot **ret, struct gf_err *err);
struct gf_shot *gf_shot_ref(struct gf_shot *shot);
void gf_shot_free(struct gf_shot *shot); /* drops one reference; NULL is fine */
GF_DEFINE_AUTO(gf_shot);

/* Gets the memory of what never changes, ranks->at[i].frozen. */
int gf_job_frozen(struct gf_job *job, struct gf_ranks *ranks, uint32_t i,
                  const struct gf_wait *wait, struct gf_err *err);

/* Somebody needs a slot, here or in another process: make_room() gives back what nobody reads.
 * It is called by the job's thread; NULL: no more, from the return on. */
void gf_job_on_need(struct gf_job *job, void (*make_room)(void *ctx), void *ctx);

/* From now on the trainer waits at its end until gf_job_bye(), within its own limits. */
void gf_job_keep(struct gf_job *job);
/* Training is over, and the publishers wait for us. */
bool gf_job_finishing(struct gf_job *job);
void gf_job_bye(struct gf_job *job);
/* It went that way, and no other has come since. */
bool gf_job_has_ended(struct gf_job *job);

/* Puts a copy in place of a side file of the publishers, which remove theirs when they end.
 * Copies go with the job, or with gf_job_side_drop(). Callers take turns. */
int gf_job_side_keep(struct gf_job *job, const char *name, const void *bytes, size_t len,
                     struct gf_err *err);
void gf_job_side_drop(struct gf_job *job);

int64_t gf_now_ms(void); /* monotonic */

/* Waits on a monotonic condition, but not for long: then look whether somebody gave up. */
#define GF_TICK_MS 50
void gf_tick_wait(pthread_cond_t *cond, pthread_mutex_t *lock);

#endif
