/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_int.h - the inside of a live run, shared by live.c and live_report.c; and what
 * snapshot.c has for it.
 */
#ifndef GF_SNAPSHOT_LIVE_INT_H
#define GF_SNAPSHOT_LIVE_INT_H

#include <pthread.h>

#include "base/vec.h"
#include "job/epoch.h"
#include "snapshot/live.h"

#define GF_LIVE_TIMEOUT 30 /* seconds, unless timeout= says something else */

struct gf_live_step {
    struct gf_epoch *epoch;
    struct gf_snapshot *snapshot;
};

struct gf_live {
    const struct gf_options *opt;
    char *source; /* "live:JOB" */
    struct gf_job *job;
    struct gf_epochs *epochs;
    struct gf_epoch *chosen; /* step=: for everybody */
    uint64_t version;        /* the rest but the list is the poll's or the opening's own */
    bool polled, said_bye, kept_side;
    pthread_mutex_t lock;
    struct GF_VEC(struct gf_live_step) steps; /* each with references */
    struct gf_dir *side;                      /* copies of the job's side files */
};

/* A snapshot of an epoch (one reference is taken) from what its ranks publish. Takes over
 * what is in found, also when it fails. */
int gf_snapshot_open_live(struct gf_dir *side, struct gf_found *found,
                          struct gf_epoch *epoch, const struct gf_options *opt,
                          struct gf_snapshot **ret, struct gf_err *err);

#endif
