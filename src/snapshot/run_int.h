/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_int.h - a run's inside, shared by run.c (opening), run_slot.c (slots and following) and
 * run_tree.c (paths).
 */
#ifndef GF_SNAPSHOT_RUN_INT_H
#define GF_SNAPSHOT_RUN_INT_H

#include <pthread.h>
#include <time.h>

#include "format/steps.h"
#include "snapshot/live.h"
#include "snapshot/run.h"
#include "source/dir.h"

enum gf_slot_state { GF_SLOT_UNTRIED, GF_SLOT_GOOD, GF_SLOT_BAD };

struct gf_slot {
    const struct gf_step *step; /* in run->steps */
    enum gf_slot_state state;
    struct gf_snapshot *snapshot; /* GOOD: may be NULL, then it is opened again when needed;
                                   * UNTRIED: what it was before it changed, or NULL */
    char *tag;                    /* GOOD: which of its tags it shows; else NULL */
    struct gf_err why;            /* BAD: why it cannot be served */
    uint64_t opening;             /* by some thread, without the lock: its number; else 0 */
    uint64_t print;               /* of its files before it was opened */
    unsigned deep;                /* levels of sub-directories that print covers */
    uint64_t used;
};

struct gf_run {
    char *source;
    struct gf_live *live; /* of live:JOB: the rest is not used */
    const struct gf_options *opt;
    struct gf_dir *dir;
    char *file;            /* SOURCE is this file of dir, or NULL */
    bool alone;            /* one checkpoint was picked: nothing is shown below it */
    pthread_mutex_t lock;  /* guards what follows */
    pthread_cond_t opened; /* some slot is not `opening` any more */
    struct gf_slot *want;  /* see gf_run_again(): only while the lock is held */
    bool hasty; /* likewise: of what another thread opens, names and markers are believed */
    struct gf_steps steps; /* replaced by the poll alone, which reads it without the lock */
    struct gf_slot *slots; /* one for each step, in the same order; the root's path is "" */
    struct gf_slot **order; /* unnumbered first, then the newest first */
    size_t n;
    char *home;     /* the directory whose numbered steps `latest` is one of, or NULL */
    uint64_t side;  /* of the names of side files at the root */
    uint64_t clock; /* of uses and openings */
    size_t cursor;  /* of the poll */
    unsigned root_waits;  /* polls since the root could not be opened; the poll's own */
    char *best_of, *best; /* gf_step_best() of that step */
};

int gf_run_slots_new(struct gf_run *run, struct gf_steps *steps, bool *ret_changed,
                     struct gf_err *err);
void gf_run_slots_free(struct gf_run *run);

/* Looks for steps anew. */
int gf_run_update(struct gf_run *run, bool *ret_changed, struct gf_err *err);

/* The rest with run->lock held: */

struct gf_slot *gf_run_slot(struct gf_run *run, const char *path);

/* The slots below directory `dir` are [*ret_first, *ret_end). */
void gf_run_range(struct gf_run *run, const char *dir, size_t *ret_first, size_t *ret_end);

/* Is it one of those that `latest` is chosen from? */
bool gf_run_at_home(const struct gf_run *run, const struct gf_step *step);

/* Can it be served? And with its snapshot open? 0, or why not. -EAGAIN without text: that shows
 * when it is opened, which has become run->want. Whoever finds run->want set gives up and
 * returns anything; what he returns is thrown away. */
int gf_run_known(struct gf_run *run, struct gf_slot *slot, struct gf_err *err);
int gf_run_try(struct gf_run *run, struct gf_slot *slot, struct gf_err *err);

/* Opens run->want, or waits for the thread that does, without the lock, so that a large
 * checkpoint does not keep others from theirs. True: look again from the start, as slots may be
 * others now. False: nothing was wanted, or no memory (then *r). `until` (or NULL) is when, by
 * the monotonic clock, waiting for another thread ends.
 *
 *     lock;
 *     do
 *         r = what looks at slots;
 *     while (gf_run_again(run, NULL, &r, err));
 *     unlock;
 */
bool gf_run_again(struct gf_run *run, const struct timespec *until, int *r,
                  struct gf_err *err);

/* Is it a checkpoint to be shown, as far as is known without opening it? */
bool gf_run_shown(struct gf_run *run, struct gf_slot *slot);

/* The newest numbered step that can be served: its outermost directory, or NULL. */
char *gf_run_latest(struct gf_run *run);
char *gf_run_best(struct gf_run *run);

#endif
