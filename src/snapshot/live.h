/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live.h - a running job as a SOURCE: live:JOB.
 *
 * A run of one checkpoint that is another one for each reader (job/epoch.h): a snapshot is
 * made for each epoch, from the ranks' tables, and gets its step when it is first entered.
 * Everything behind it (catalog, views, images, reads) is that of a checkpoint on disk.
 *
 * run.c and run_tree.c come here for a live run; nobody else does.
 */
#ifndef GF_SNAPSHOT_LIVE_H
#define GF_SNAPSHOT_LIVE_H

#include "base/auto.h"
#include "base/err.h"
#include "base/text.h"
#include "snapshot/options.h"
#include "snapshot/run.h"
#include "snapshot/snapshot.h"

struct gf_live;

/* The job's name or directory behind "live:", or NULL if that is no such SOURCE. */
const char *gf_live_name(const char *source);

/* Waits until all ranks are there; what cannot be served fails here. `opt` is borrowed. */
int gf_live_open(const char *name, const struct gf_options *opt, struct gf_live **ret,
                 struct gf_err *err);
void gf_live_free(struct gf_live *live); /* after its last snapshot; NULL is fine */
GF_DEFINE_AUTO(gf_live);

/* Whose step the calling thread means from now on: the process of thread `pid` (0: nobody's
 * in particular). */
void gf_live_asked_by(pid_t pid);
pid_t gf_live_asker(void);

/* These are gf_run_snapshot(), _entries(), _look() and _poll(). */
int gf_live_snapshot(struct gf_live *live, const char *path, struct gf_snapshot **ret,
                     struct gf_err *err);
int gf_live_entries(struct gf_live *live, const char *dir, struct gf_run_entry **ret,
                    size_t *ret_n, struct gf_err *err);
int gf_live_look(struct gf_live *live, const char *path, enum gf_run_kind *ret);
bool gf_live_poll(struct gf_live *live);

/* The next look of a process without files open brings a new step. */
void gf_live_refresh(struct gf_live *live);

/* From now on everybody gets exactly this step; NULL: each his own again. ENOENT: it is over.
 * For one thread. */
int gf_live_choose(struct gf_live *live, const uint64_t *step, struct gf_err *err);

/* Ranks, steps, stalls, memory: as one JSON object, or as text for people. */
int gf_live_report(struct gf_live *live, bool json, struct gf_text *out,
                   struct gf_err *err);

/* Where the job is: for schedules. */
struct gf_live_progress {
    bool connected, finished; /* its ranks are there; training is over */
    uint64_t step;            /* that all ranks have reached */
    uint64_t step_ns;         /* time of a step; of copying a snapshot; stalls in all */
    uint64_t copy_ns, stall_ns;
};
void gf_live_progress(struct gf_live *live, struct gf_live_progress *ret);

/* What a rank published with pub.metric(), and at which step; false: nothing of that name. */
bool gf_live_metric(struct gf_live *live, const char *name, double *ret,
                    uint64_t *ret_step);

#endif
