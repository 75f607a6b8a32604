/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/plan.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"

#define DAY 86400.0
#define MOST_STEPS ((uint64_t)1 << 53) /* whole numbers that a double can hold */

/* ---- the model ---- */

/* x in (0, 1) with 1 - x = e^-(x + c). The difference falls from 1 - e^-c to -e^-(1 + c)
 * without a turn, so halving finds the one root; 60 halvings are all a double's bits. */
static double best_share(double c)
{
    double lo = 0, hi = 1;

    for (int i = 0; i < 60; i++) {
        double x = (lo + hi) / 2;

        if (-expm1(-(x + c)) > x)
            lo = x;
        else
            hi = x;
    }
    return (lo + hi) / 2;
}

static double young(const struct gf_plan_in *in)
{
    return sqrt(2 * in->save * in->mtbf);
}

static double daly(const struct gf_plan_in *in)
{
    double half = in->save / (2 * in->mtbf);

    if (half >= 1)
        return in->mtbf;
    return young(in) * (1 + sqrt(half) / 3 + half / 9) - in->save;
}

/* What a failure within [0, a M) has lost on average, as a part of M. */
static double lost_share(double a)
{
    return a < 1e-5 ? a / 2 * (1 - a / 6) : 1 - a / expm1(a);
}

/* The expected time until a restart succeeds: R and all that fail before. */
static double restarting(const struct gf_plan_in *in)
{
    return in->mtbf * expm1(in->restart / in->mtbf);
}

/* The expected time of an interval with `compute` seconds of work. */
static double expected(const struct gf_plan_in *in, double compute)
{
    return expm1((compute + in->save) / in->mtbf) * (in->mtbf + restarting(in) + in->write);
}

static void add_job(const struct gf_plan_in *in, struct gf_plan_row *row)
{
    uint64_t full = in->steps / row->steps, rest = in->steps % row->steps;

    row->checkpoints = full + (rest > 0);
    row->total = (double)full * expected(in, row->compute);
    if (rest)
        row->total += expected(in, (double)rest * in->step);
    row->failures = row->total / in->mtbf;
}

void gf_plan_at(const struct gf_plan_in *in, uint64_t steps, struct gf_plan_row *ret)
{
    double compute = (double)steps * in->step, a = (compute + in->save) / in->mtbf;
    /* Failures that lose work, per second; those within restarts lose none. */
    double rate = 1 / (in->mtbf + restarting(in) + in->write);
    struct gf_plan_row row = { .steps = steps, .compute = compute };

    row.lost_each = in->mtbf * lost_share(a) + in->write;
    row.lost_day = DAY * rate * row.lost_each;
    row.restart_day = DAY * rate * restarting(in);
    row.saving = in->save / compute;
    row.failing = expm1(a) * (row.lost_each + restarting(in)) / compute;
    row.overhead = row.saving + row.failing;
    if (in->steps)
        add_job(in, &row);
    *ret = row;
}

/* ---- the best number of steps ---- */

static uint64_t whole_steps(const struct gf_plan_in *in, double compute)
{
    double steps = compute / in->step;

    return steps < (double)MOST_STEPS ? (uint64_t)steps : MOST_STEPS;
}

static void try_steps(const struct gf_plan_in *in, uint64_t steps, uint64_t least,
                      struct gf_plan_row *best)
{
    struct gf_plan_row row;

    steps = GF_MAX(steps, least);
    if (in->steps)
        steps = GF_MIN(steps, in->steps);
    gf_plan_at(in, steps, &row);
    if (!best->steps ||
        (in->steps ? row.total < best->total : row.overhead < best->overhead))
        *best = row;
}

static int check(const char *what, double value, bool may_be_zero, struct gf_err *err)
{
    if (isfinite(value) && (value > 0 || (may_be_zero && value == 0)))
        return 0;
    return gf_fail(err, EINVAL, "%s: %g s is not a time%s", what, value,
                   may_be_zero ? "" : " above 0");
}

int gf_plan_interval(const struct gf_plan_in *in, struct gf_plan *ret, struct gf_err *err)
{
    struct gf_plan plan = { 0 };
    uint64_t steps, least, parts;
    int r = check("step time", in->step, false, err);

    if (!r)
        r = check("save time", in->save, false, err);
    if (!r)
        r = check("write time", in->write, true, err);
    if (!r)
        r = check("mtbf", in->mtbf, false, err);
    if (!r)
        r = check("restart time", in->restart, true, err);
    if (r)
        return r;
    plan.young = young(in);
    plan.daly = daly(in);
    plan.exact = in->mtbf * best_share(in->save / in->mtbf);
    plan.by_write = in->write > plan.exact;

    steps = whole_steps(in, GF_MAX(plan.exact, in->write));
    least = GF_MAX(1, (uint64_t)ceil(GF_MIN(in->write / in->step, (double)MOST_STEPS)));
    try_steps(in, steps, least, &plan.best);
    try_steps(in, steps + 1, least, &plan.best);
    if (in->steps && steps) {
        /* Equal parts cost less than whole intervals and a rest. */
        parts = GF_MAX(1, in->steps / steps);
        try_steps(in, gf_ceil_div(in->steps, parts), least, &plan.best);
        try_steps(in, gf_ceil_div(in->steps, parts + 1), least, &plan.best);
    }
    if (!isfinite(plan.best.overhead))
        return gf_fail(err, ERANGE,
                       "a failure every %g s leaves no room for a step of %g s, a save of "
                       "%g s and a restart of %g s",
                       in->mtbf, in->step, in->save, in->restart);
    *ret = plan;
    return 0;
}

/* ---- times as text ---- */

int gf_parse_time(const char *text, double *ret)
{
    static const struct {
        const char *suffix;
        double unit;
    } units[] = { { "", 1 },     { "ms", 1e-3 }, { "s", 1 },    { "m", 60 },
                  { "min", 60 }, { "h", 3600 },  { "d", 86400 } };
    size_t digits =
        strspn(text, "0123456789."); /* not what strtod takes besides: 0x, inf */
    char *end;
    double n;

    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    n = strtod(text, &end);
    if (end != text + digits)
        return -EINVAL;
    for (size_t i = 0; i < GF_COUNT(units); i++)
        if (strcmp(end, units[i].suffix) == 0) {
            if (!isfinite(n * units[i].unit))
                return -EINVAL;
            *ret = n * units[i].unit;
            return 0;
        }
    return -EINVAL;
}

const char *gf_time_text(double s, char buf[GF_TIME_TEXT])
{
    static const struct {
        double from, unit;
        const char *name;
    } units[] = { { 2 * DAY, DAY, "d" },
                  { 7200, 3600, "h" },
                  { 120, 60, "min" },
                  { 1, 1, "s" },
                  { 0, 1e-3, "ms" } };
    size_t i = 0;

    while (i + 1 < GF_COUNT(units) && !(s >= units[i].from))
        i++;
    if (s == 0)
        snprintf(buf, GF_TIME_TEXT, "0 s");
    else if (s < 1e15)
        snprintf(buf, GF_TIME_TEXT, "%.1f %s", s / units[i].unit, units[i].name);
    else
        snprintf(buf, GF_TIME_TEXT, "never");
    return buf;
}
