/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan.h - what `gatherfs plan` knows and found: filled by cmd_plan.c, printed by plan_print.c.
 */
#ifndef GF_TOOLS_PLAN_H
#define GF_TOOLS_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/text.h"
#include "snapshot/measure.h"
#include "snapshot/plan.h"

/* Overhead from which on a job is as good as dead. */
#define GF_NEVER_ENDS 1000

/* A number and where it is from: "given", "64 nodes, 16.0 d each", "measured: ...". */
struct gf_figure {
    bool known;
    double value;
    char from[200];
};

struct gf_planned {
    struct gf_figure step, save, snapshot, mtbf, restart; /* seconds */
    struct gf_figure full, weights;                       /* bytes of one checkpoint */
    struct gf_figure bandwidth, reading;                  /* bytes per second */
    uint64_t steps, keep;                                 /* 0: not given */
    bool measured;
    struct gf_measured run; /* path is owned */

    struct gf_plan_in in;
    struct gf_plan plan;
    bool has_blocking; /* live snapshots are planned: ordinary saves to compare with */
    struct gf_plan blocking;
};

void gf_planned_text(const struct gf_planned *p, struct gf_text *out);
void gf_planned_json(const struct gf_planned *p, struct gf_text *out);

#endif
