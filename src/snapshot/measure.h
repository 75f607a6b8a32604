/* SPDX-License-Identifier: Apache-2.0 */
/*
 * measure.h - a run's own figures: how large its checkpoints are and how fast it trains.
 *
 * Sizes are those of files; the time of a step is taken from the numbers in the names of the
 * checkpoints and the newest modification time in each. Such a time is only as good as the
 * files' times: a copy of a run that did not keep them says nothing.
 */
#ifndef GF_SNAPSHOT_MEASURE_H
#define GF_SNAPSHOT_MEASURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "snapshot/run.h"

struct gf_measured {
    char *path;    /* the checkpoint whose size it is, below SOURCE; "" = SOURCE itself */
    uint64_t full; /* bytes of all files in it: weights, optimizer, the rest; 0: live */
    uint64_t weights; /* bytes of the weight files of its default view; 0: it has none */
    /* Of the run's finished checkpoints, GF_MEASURE_STEPS at most; 0 with fewer than two. */
    size_t nsteps;
    uint64_t first, last; /* their numbers */
    uint64_t every;       /* steps from one to the next: the median */
    double gap;           /* seconds from one to the next: of the same pair */
    double step;          /* seconds per step, saves included: the median of the pairs */
};

#define GF_MEASURE_STEPS 64

int gf_run_measure(struct gf_run *run, struct gf_measured *ret, struct gf_err *err);
void gf_measured_done(struct gf_measured *measured);

#endif
