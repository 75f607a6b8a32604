/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_print.c - a plan as a table for people, and as JSON.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/math.h"
#include "tools/plan.h"

#define ROWS 5

/* A quarter to four times the best, without those that are the same number of steps. */
static size_t compare(const struct gf_planned *p, struct gf_plan_row ret[static ROWS])
{
    static const double factors[ROWS] = { 0.25, 0.5, 1, 2, 4 };
    size_t n = 0;

    for (size_t i = 0; i < ROWS; i++) {
        double want = round((double)p->plan.best.steps * factors[i]);
        uint64_t steps = want < 1 ? 1 : (uint64_t)want;

        if (p->steps)
            steps = GF_MIN(steps, p->steps);
        if (!n || steps > ret[n - 1].steps)
            gf_plan_at(&p->in, steps, &ret[n++]);
    }
    return n;
}

/* How often the measured run itself saves. */
static bool current(const struct gf_planned *p, struct gf_plan_row *ret)
{
    struct gf_plan_in in = p->in;

    if (!p->measured || !p->run.nsteps)
        return false;
    if (p->snapshot.known && p->save.known) { /* it did not take live snapshots */
        in.save = p->save.value;
        in.write = 0;
    }
    gf_plan_at(&in, p->steps ? GF_MIN(p->run.every, p->steps) : p->run.every, ret);
    return true;
}

/* Checkpoints on disk in the end: those kept, or all of a job; 0: not known. */
static uint64_t kept(const struct gf_planned *p)
{
    uint64_t all = p->plan.best.checkpoints;

    return p->keep && all ? GF_MIN(p->keep, all) : p->keep ? p->keep : all;
}

/* The oldest goes only when the newest is whole. */
static uint64_t at_peak(const struct gf_planned *p)
{
    uint64_t n = kept(p), all = p->plan.best.checkpoints;

    return p->keep && !(all && n >= all) ? n + 1 : n;
}

/* ---------------------------------------------------------------- text */

static void line(struct gf_text *out, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void line(struct gf_text *out, const char *key, const char *fmt, ...)
{
    char value[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(value, sizeof(value), fmt, ap);
    va_end(ap);
    gf_text_printf(out, "%-14s %s\n", key, value);
}

static void time_line(struct gf_text *out, const char *key, const struct gf_figure *figure)
{
    char value[GF_TIME_TEXT];

    if (figure->known)
        line(out, key, "%-12s %s", gf_time_text(figure->value, value), figure->from);
}

static void size_line(struct gf_text *out, const char *key, const struct gf_figure *figure,
                      const char *per)
{
    char value[GF_SIZE_TEXT + 4];

    if (!figure->known)
        return;
    gf_size_text((uint64_t)figure->value, value);
    snprintf(value + strlen(value), 4, "%s", per);
    line(out, key, "%-12s %s", value, figure->from);
}

static const char *percent(double part, char buf[GF_TIME_TEXT])
{
    if (part < GF_NEVER_ENDS)
        snprintf(buf, GF_TIME_TEXT, "%.*f %%",
                 part < 0.01  ? 3
                 : part < 0.1 ? 2
                              : 1,
                 part * 100);
    else
        snprintf(buf, GF_TIME_TEXT, "never ends");
    return buf;
}

static void inputs_text(const struct gf_planned *p, struct gf_text *out)
{
    time_line(out, "step time", &p->step);
    time_line(out, "save time", &p->save);
    time_line(out, "snapshot time", &p->snapshot);
    time_line(out, "mtbf", &p->mtbf);
    time_line(out, "restart time", &p->restart);
    size_line(out, "checkpoint", &p->full, "");
    size_line(out, "weights", &p->weights, "");
    size_line(out, "mount reads", &p->reading, "/s");
}

static void best_text(const struct gf_planned *p, struct gf_text *out)
{
    const struct gf_plan_row *best = &p->plan.best;
    char a[GF_TIME_TEXT], b[GF_TIME_TEXT], c[GF_TIME_TEXT];

    line(out, p->snapshot.known ? "snapshot every" : "save every",
         "%" PRIu64 " step%s, %s of training%s", best->steps, best->steps == 1 ? "" : "s",
         gf_time_text(best->compute, a),
         p->plan.by_write ? " (the one before has to be written first)" : "");
    line(out, "overhead", "%s of the training time: %s %s, %s failures",
         percent(best->overhead, a), percent(best->saving, b),
         p->snapshot.known ? "snapshots" : "saves", percent(best->failing, c));
    line(out, "lost work", "%s per failure, %s per day, and %s per day of restarts",
         gf_time_text(best->lost_each, a), gf_time_text(best->lost_day, b),
         gf_time_text(best->restart_day, c));
    line(out, "formulas", "exact %s, Daly %s, Young %s", gf_time_text(p->plan.exact, a),
         gf_time_text(p->plan.daly, b), gf_time_text(p->plan.young, c));
}

static void job_text(const struct gf_planned *p, struct gf_text *out)
{
    const struct gf_plan_row *best = &p->plan.best;
    char a[GF_TIME_TEXT], b[GF_TIME_TEXT];

    if (p->steps)
        line(out, "whole job",
             "%s expected, %s without saves and failures: %" PRIu64 " steps, %" PRIu64
             " checkpoints, %.1f failures",
             gf_time_text(best->total, a), gf_time_text((double)p->steps * p->in.step, b),
             p->steps, best->checkpoints, best->failures);
}

static void disk_text(const char *key, const struct gf_planned *p,
                      const struct gf_figure *each, struct gf_text *out)
{
    char a[GF_SIZE_TEXT], b[GF_SIZE_TEXT], c[GF_SIZE_TEXT];
    uint64_t one = (uint64_t)each->value, n = kept(p), peak = at_peak(p);

    if (!each->known)
        return;
    if (!n)
        line(out, key, "%s per checkpoint", gf_size_text(one, a));
    else if (peak == n)
        line(out, key, "%s for %" PRIu64 " of %s each",
             gf_size_text((uint64_t)((double)n * each->value), a), n, gf_size_text(one, b));
    else
        line(out, key, "%s for %" PRIu64 " of %s each, %s while one is written",
             gf_size_text((uint64_t)((double)n * each->value), a), n, gf_size_text(one, b),
             gf_size_text((uint64_t)((double)peak * each->value), c));
}

static void row_text(const struct gf_planned *p, const struct gf_plan_row *row,
                     const char *mark, struct gf_text *out)
{
    char a[GF_TIME_TEXT], b[GF_TIME_TEXT], c[GF_TIME_TEXT], d[GF_TIME_TEXT];

    gf_text_printf(out, "%12" PRIu64 " %12s %12s %16s", row->steps,
                   gf_time_text(row->compute, a), percent(row->overhead, b),
                   gf_time_text(row->lost_each, c));
    if (p->steps)
        gf_text_printf(out, " %12s", gf_time_text(row->total, d));
    gf_text_printf(out, "%s%s\n", *mark ? "  " : "", mark);
}

static void rows_text(const struct gf_planned *p, struct gf_text *out)
{
    struct gf_plan_row rows[ROWS], now;
    size_t n = compare(p, rows);

    gf_text_printf(out, "\n%12s %12s %12s %16s%s\n", "every steps", "time", "overhead",
                   "lost per failure", p->steps ? "    whole job" : "");
    for (size_t i = 0; i < n; i++)
        row_text(p, &rows[i], rows[i].steps == p->plan.best.steps ? "best" : "", out);
    if (p->has_blocking)
        row_text(p, &p->blocking.best, "best without live snapshots", out);
    if (current(p, &now))
        row_text(p, &now, "as this run does", out);
}

void gf_planned_text(const struct gf_planned *p, struct gf_text *out)
{
    inputs_text(p, out);
    gf_text_add(out, "\n");
    best_text(p, out);
    job_text(p, out);
    disk_text("disk", p, &p->full, out);
    disk_text("  weights only", p, &p->weights, out);
    rows_text(p, out);
}

/* ---------------------------------------------------------------- JSON */

static void number(struct gf_text *out, const char *key, double value)
{
    gf_text_printf(out, "\"%s\": ", key);
    if (isfinite(value))
        gf_text_printf(out, "%.17g", value);
    else
        gf_text_add(out, "null");
}

static void figure_json(struct gf_text *out, const char *comma, const char *key,
                        const struct gf_figure *figure)
{
    gf_text_printf(out, "%s\"%s\": ", comma, key);
    if (!figure->known) {
        gf_text_add(out, "null");
        return;
    }
    gf_text_add(out, "{");
    number(out, "value", figure->value);
    gf_text_add(out, ", \"from\": ");
    gf_text_json(out, figure->from);
    gf_text_add(out, "}");
}

static void row_json(struct gf_text *out, const struct gf_planned *p,
                     const struct gf_plan_row *row)
{
    gf_text_printf(out, "{\"steps\": %" PRIu64 ", ", row->steps);
    number(out, "seconds", row->compute);
    gf_text_add(out, ", ");
    number(out, "overhead", row->overhead);
    gf_text_add(out, ", ");
    number(out, "overhead_saves", row->saving);
    gf_text_add(out, ", ");
    number(out, "overhead_failures", row->failing);
    gf_text_add(out, ", ");
    number(out, "lost_per_failure_s", row->lost_each);
    gf_text_add(out, ", ");
    number(out, "lost_per_day_s", row->lost_day);
    gf_text_add(out, ", ");
    number(out, "restarts_per_day_s", row->restart_day);
    if (p->steps) {
        gf_text_add(out, ", ");
        number(out, "total_s", row->total);
        gf_text_add(out, ", ");
        number(out, "failures", row->failures);
        gf_text_printf(out, ", \"checkpoints\": %" PRIu64, row->checkpoints);
    }
    gf_text_add(out, "}");
}

static void disk_json(struct gf_text *out, const char *key, const struct gf_planned *p,
                      const struct gf_figure *each)
{
    uint64_t n = kept(p);

    gf_text_printf(out, "\"%s\": ", key);
    if (!each->known) {
        gf_text_add(out, "null");
        return;
    }
    gf_text_printf(out, "{\"each\": %.0f, ", each->value);
    if (n)
        gf_text_printf(out, "\"count\": %" PRIu64 ", \"total\": %.0f, \"peak\": %.0f}", n,
                       (double)n * each->value, (double)at_peak(p) * each->value);
    else
        gf_text_add(out, "\"count\": null, \"total\": null, \"peak\": null}");
}

static void inputs_json(const struct gf_planned *p, struct gf_text *out)
{
    gf_text_add(out, "\"inputs\": {");
    figure_json(out, "", "step_time_s", &p->step);
    figure_json(out, ", ", "save_time_s", &p->save);
    figure_json(out, ", ", "snapshot_time_s", &p->snapshot);
    figure_json(out, ", ", "mtbf_s", &p->mtbf);
    figure_json(out, ", ", "restart_time_s", &p->restart);
    figure_json(out, ", ", "checkpoint_bytes", &p->full);
    figure_json(out, ", ", "weights_bytes", &p->weights);
    figure_json(out, ", ", "bandwidth", &p->bandwidth);
    figure_json(out, ", ", "mount_read_bandwidth", &p->reading);
    gf_text_add(out, ", \"steps\": ");
    if (p->steps)
        gf_text_printf(out, "%" PRIu64 "}", p->steps);
    else
        gf_text_add(out, "null}");
}

void gf_planned_json(const struct gf_planned *p, struct gf_text *out)
{
    struct gf_plan_row rows[ROWS], now;
    size_t n = compare(p, rows);

    gf_text_add(out, "{");
    inputs_json(p, out);
    gf_text_add(out, ", \"best\": ");
    row_json(out, p, &p->plan.best);
    gf_text_printf(out, ", \"limited_by_write\": %s, \"formulas\": {",
                   p->plan.by_write ? "true" : "false");
    number(out, "exact_s", p->plan.exact);
    gf_text_add(out, ", ");
    number(out, "daly_s", p->plan.daly);
    gf_text_add(out, ", ");
    number(out, "young_s", p->plan.young);
    gf_text_add(out, "}, \"disk\": {");
    disk_json(out, "full", p, &p->full);
    gf_text_add(out, ", ");
    disk_json(out, "weights", p, &p->weights);
    gf_text_add(out, "}, \"compare\": [");
    for (size_t i = 0; i < n; i++) {
        gf_text_add(out, i ? ", " : "");
        row_json(out, p, &rows[i]);
    }
    gf_text_add(out, "], \"without_snapshots\": ");
    if (p->has_blocking)
        row_json(out, p, &p->blocking.best);
    else
        gf_text_add(out, "null");
    gf_text_add(out, ", \"as_measured\": ");
    if (current(p, &now))
        row_json(out, p, &now);
    else
        gf_text_add(out, "null");
    gf_text_add(out, "}\n");
}
