/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.h - how often to save: the interval at which saving and lost work together cost least.
 *
 * The model. A job computes for t seconds, stands still for C while a checkpoint is taken, and
 * so on. Failures come at random, M seconds apart on average (exponentially distributed), also
 * during saves and restarts. A failure costs what was computed since the last checkpoint, and a
 * restart of R seconds, which may fail itself. Then the expected time per interval is
 *
 *     E(t) = M e^(R/M) (e^((t+C)/M) - 1)                                    (Daly 2006, eq. 20)
 *
 * and E(t)/t is least where (1 - t/M) = e^(-(t+C)/M), which is solved numerically: right for
 * any C. The two well-known approximations are given for comparison:
 *
 *     sqrt(2 C M)                                                   Young, CACM 17(9), 1974
 *     sqrt(2 C M) (1 + (C/2M)^(1/2) / 3 + (C/2M) / 9) - C, for C < 2M, else M
 *                                                      Daly, FGCS 22(3), 2006, eq. 37
 *
 * A live snapshot stops the job for a short C, but is safe only when it has been written, W
 * seconds later. A failure then costs W more, and the next one cannot begin earlier: t >= W. In
 * E(t) M e^(R/M) becomes M e^(R/M) + W, which leaves the optimum where it is.
 *
 * Pure functions, any thread.
 */
#ifndef GF_SNAPSHOT_PLAN_H
#define GF_SNAPSHOT_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Times in seconds. */
struct gf_plan_in {
    double step;    /* of one training step */
    double save;    /* C: the job stands still for it */
    double write;   /* W: until a live snapshot is safe; 0 if `save` covers it */
    double mtbf;    /* M: between two failures of the whole job */
    double restart; /* R: from a failure to the first step after it */
    uint64_t steps; /* of the whole job; 0: not known, long */
};

/* What it costs to save every `steps` steps. Infinite where a job never gets anywhere. */
struct gf_plan_row {
    uint64_t steps;
    double compute;         /* t, in seconds */
    double saving, failing; /* time lost, as a part of the useful time ... */
    double overhead;        /* ... and their sum */
    double lost_each;       /* expected lost work per failure */
    double lost_day;        /* and per day */
    double restart_day;     /* spent in restarts, per day */
    double total;           /* expected time of the whole job; 0: its steps aren't known */
    double failures;        /* expected in that time */
    uint64_t checkpoints;   /* of the whole job, the last one at its end */
};

struct gf_plan {
    double young, daly, exact; /* t by each formula, in seconds, before it becomes steps */
    bool by_write;             /* the next snapshot has to wait for this one's end */
    struct gf_plan_row best;
};

/* The best interval in whole steps. A job of known length has its steps divided evenly. EINVAL
 * names an input that makes no sense, ERANGE is a job that never gets anywhere. */
int gf_plan_interval(const struct gf_plan_in *in, struct gf_plan *ret, struct gf_err *err);

/* The costs of saving every `steps` steps (not 0). */
void gf_plan_at(const struct gf_plan_in *in, uint64_t steps, struct gf_plan_row *ret);

/* "0.8s", "250ms", "12m", "36h", "30d"; a bare number is seconds. */
int gf_parse_time(const char *text, double *ret);

/* "12.0 min" into buf, for people. */
#define GF_TIME_TEXT 32
const char *gf_time_text(double seconds, char buf[GF_TIME_TEXT]);

#endif
