/* SPDX-License-Identifier: Apache-2.0 */
/*
 * epoch.h - which step of a live job each reader sees.
 *
 *     epoch    one training step as readers know it: first promised (names and sizes are known
 *              from the ranks' tables), bound to a shot when its weights are first needed,
 *              over when its slots were given back (reads give ESTALE)
 *     lease    a process and the epoch it has opened files of
 *
 * A process stays with its epoch as long as it has a file of it open, and `idle` longer: so
 * all files of one cp -r are of one step. Others join the newest epoch while it is in use
 * and younger than `max`; then they get a new one. An epoch older than `hard` loses its slots
 * when somebody needs them, whoever still reads it. The newest one keeps its slots, as it is
 * all there is when the trainer dies; unless somebody, of any process, needs them for another
 * step and nobody reads it any more.
 *
 * Thread-safe. Reads take no lock.
 */
#ifndef GF_JOB_EPOCH_H
#define GF_JOB_EPOCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/auto.h"
#include "base/err.h"
#include "job/job.h"
#include "source/slot.h"

struct gf_epochs;
struct gf_epoch;

struct gf_lease_times {
    int64_t idle, max, hard; /* ms */
};
extern const struct gf_lease_times gf_lease_times_default;

/* `job` is borrowed. `partial`: ranks may be missing. `wait_ms`: for whatever a read waits. */
int gf_epochs_new(struct gf_job *job, const struct gf_lease_times *times, bool partial,
                  unsigned wait_ms, struct gf_epochs **ret, struct gf_err *err);
void gf_epochs_free(struct gf_epochs *epochs); /* after the last epoch; NULL is fine */
GF_DEFINE_AUTO(gf_epochs);

/* What process `reader` (0: nobody in particular) sees now; one reference for the caller.
 * `want` (may be NULL): an epoch of exactly that step, nobody else's. */
int gf_epochs_get(struct gf_epochs *epochs, pid_t reader, const uint64_t *want,
                  const struct gf_wait *wait, struct gf_epoch **ret, struct gf_err *err);

/* A bound epoch of that step, or NULL. */
struct gf_epoch *gf_epochs_at(struct gf_epochs *epochs, uint64_t step);
/* The steps that there are; at most `max`. */
size_t gf_epochs_steps(struct gf_epochs *epochs, uint64_t *steps, size_t max);

/* The next gf_epochs_get() of a process without a lease gives a new epoch, and those that are
 * not open may go at once. */
void gf_epochs_refresh(struct gf_epochs *epochs);

/* Drops what nobody needs any more. Call it about once a second. */
void gf_epochs_tick(struct gf_epochs *epochs);

struct gf_epoch *gf_epoch_ref(struct gf_epoch *epoch);
void gf_epoch_free(struct gf_epoch *epoch); /* drops one reference; NULL is fine */
GF_DEFINE_AUTO(gf_epoch);

struct gf_ranks *gf_epoch_ranks(const struct gf_epoch *epoch);   /* borrowed */
uint64_t gf_epoch_id(const struct gf_epoch *epoch);              /* counted up */
bool gf_epoch_step(const struct gf_epoch *epoch, uint64_t *ret); /* false: not bound yet */
bool gf_epoch_is_over(const struct gf_epoch *epoch);

/* Makes sure that it has a step. If there can be none, the newest there was will do; but
 * never for one that was asked for by its number. */
int gf_epoch_bind(struct gf_epoch *epoch, const struct gf_wait *wait, struct gf_err *err);

/* A file of it was opened by `reader`: bound, and leased until the last close. */
int gf_epoch_open(struct gf_epoch *epoch, pid_t reader, const struct gf_wait *wait,
                  struct gf_err *err);
void gf_epoch_close(struct gf_epoch *epoch, pid_t reader);

/* Of sources whose ctx is an epoch. Part 2 * i is the slot of its i-th rank, 2 * i + 1 that
 * rank's static memory. */
extern const struct gf_slot_guard gf_epoch_guard;

#endif
