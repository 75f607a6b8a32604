/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_report.c - how a job is doing, from the words that its ranks keep in shared memory.
 */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/math.h"
#include "snapshot/live_int.h"

static const char *phase_text(uint64_t phase)
{
    return phase == GF_LIVE_STABLE     ? "training"
           : phase == GF_LIVE_MUTATING ? "updating"
           : phase == GF_LIVE_FINISHED ? "finished"
                                       : "unknown";
}

static double seconds_since(uint64_t realtime_ns)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return realtime_ns ? (double)now.tv_sec - (double)(realtime_ns / 1000000000) : 0;
}

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

/* The ranks now, or those that were the last. */
static struct gf_ranks *ranks_of(struct gf_live *live)
{
    GF_AUTO(gf_epoch) epoch = NULL;
    struct gf_wait now = { .ms = 0 };
    struct gf_ranks *ranks;

    if (!gf_job_ranks(live->job, false, &now, &ranks, NULL))
        return ranks;
    if (live->chosen)
        return gf_ranks_ref(gf_epoch_ranks(live->chosen));
    return gf_epochs_get(live->epochs, 0, NULL, &now, &epoch, NULL)
               ? NULL
               : gf_ranks_ref(gf_epoch_ranks(epoch));
}

static bool is_there(struct gf_live *live, const struct gf_ranks *ranks)
{
    return gf_job_has(live->job, ranks) && !gf_job_has_ended(live->job);
}

/* ---------------------------------------------------------------- JSON */

static void json_rank(const struct gf_rank *rank, struct gf_text *out)
{
    struct gf_live_status s;

    gf_live_status_load(gf_rank_control(rank), &s);
    gf_text_printf(out,
                   "{\"rank\": %" PRIu32 ", \"pid\": %" PRId32 ", \"step\": %" PRIu64
                   ", \"phase\": \"%s\", \"commits\": %" PRIu64 ", \"step_ms\": %.3f",
                   rank->table->rank, rank->table->pid, s.step, phase_text(s.phase),
                   s.commits, ms(s.step_ns));
    gf_text_printf(out,
                   ", \"snapshots\": %" PRIu64 ", \"missed\": %" PRIu64
                   ", \"busy\": %" PRIu64 ", \"copied_bytes\": %" PRIu64
                   ", \"copy_ms\": %.3f, \"background\": %s",
                   s.snapshots, s.missed, s.busy, s.bytes, ms(s.copy_ns),
                   s.background ? "true" : "false");
    gf_text_printf(
        out,
        ", \"stall_ms\": %.3f, \"stall_max_ms\": %.3f, \"memory_bytes\": %" PRIu64
        ", \"memory_limit\": %" PRIu64 ", \"slots\": %" PRIu32 ", \"slot_bytes\": %" PRIu64
        ", \"static_bytes\": %" PRIu64 ", \"tensors\": %" PRIu32 "}",
        ms(s.stall_ns), ms(s.stall_max_ns), s.memory, s.memory_limit, rank->table->nslots,
        rank->table->slot_bytes, rank->table->static_bytes, rank->table->n);
}

static void json_metrics(const struct gf_rank *rank, struct gf_text *out)
{
    const char *comma = "";

    for (uint32_t i = 0; i < GF_LIVE_METRICS; i++) {
        char name[GF_LIVE_METRIC_NAME + 1];
        uint64_t step;
        double value;

        if (!gf_live_metric_load(gf_rank_control(rank), i, name, &value, &step))
            continue;
        gf_text_add(out, comma);
        gf_text_json(out, name);
        if (value - value == 0)
            gf_text_printf(out, ": {\"value\": %.17g, \"step\": %" PRIu64 "}", value, step);
        else
            gf_text_printf(out, ": {\"value\": null, \"step\": %" PRIu64 "}", step);
        comma = ", ";
    }
}

static void json_report(struct gf_live *live, const struct gf_ranks *ranks,
                        struct gf_text *out)
{
    const struct gf_live_table *first = ranks->at[0].table;
    uint64_t steps[16];
    size_t n = gf_epochs_steps(live->epochs, steps, GF_COUNT(steps));

    gf_text_add(out, "{\"job\": ");
    gf_text_json(out, first->job);
    gf_text_add(out, ", \"directory\": ");
    gf_text_json(out, gf_job_dir(live->job));
    gf_text_add(out, ", \"run\": \"");
    for (size_t i = 0; i < sizeof(first->run_id); i++)
        gf_text_printf(out, "%02x", first->run_id[i]);
    gf_text_printf(out, "\", \"connected\": %s, \"world\": %" PRIu32 ", \"framework\": ",
                   is_there(live, ranks) ? "true" : "false", ranks->world);
    gf_text_json(out, first->framework);
    gf_text_add(out, ", \"held_steps\": [");
    for (size_t i = 0; i < n; i++)
        gf_text_printf(out, "%s%" PRIu64, i ? ", " : "", steps[i]);
    gf_text_add(out, "], \"ranks\": [");
    for (uint32_t i = 0; i < ranks->n; i++) {
        gf_text_add(out, i ? ", " : "");
        json_rank(&ranks->at[i], out);
    }
    gf_text_add(out, "], \"metrics\": {");
    json_metrics(&ranks->at[0], out);
    gf_text_add(out, "}}");
}

/* ---------------------------------------------------------------- for people */

static void text_rank(const struct gf_rank *rank, struct gf_text *out)
{
    char memory[GF_SIZE_TEXT], copied[GF_SIZE_TEXT];
    struct gf_live_status s;

    gf_live_status_load(gf_rank_control(rank), &s);
    gf_text_printf(out,
                   "%6" PRIu32 " %10" PRIu64 "  %-9s %9.1f %9" PRIu64 " %7" PRIu64
                   " %6" PRIu64 " %9.1f %9.1f  %-9s %s\n",
                   rank->table->rank, s.step, phase_text(s.phase), ms(s.step_ns),
                   s.snapshots, s.missed, s.busy, ms(s.stall_ns), ms(s.stall_max_ns),
                   gf_size_text(s.memory, memory), gf_size_text(s.bytes, copied));
}

static void text_report(struct gf_live *live, const struct gf_ranks *ranks,
                        struct gf_text *out)
{
    const struct gf_live_table *first = ranks->at[0].table;
    uint64_t steps[16];
    size_t n = gf_epochs_steps(live->epochs, steps, GF_COUNT(steps));

    gf_text_printf(out, "job         %s%s\n", first->job,
                   is_there(live, ranks) ? "" : " (has ended or is restarting)");
    gf_text_printf(out, "directory   %s\n", gf_job_dir(live->job));
    gf_text_printf(out, "ranks       %" PRIu32 " of %" PRIu32 "%s%s, for %.0f s\n",
                   ranks->n, ranks->world, *first->framework ? ", " : "", first->framework,
                   seconds_since(first->start_ns));
    gf_text_add(out, "held        ");
    for (size_t i = 0; i < n; i++)
        gf_text_printf(out, "%sstep %" PRIu64, i ? ", " : "", steps[i]);
    gf_text_printf(out, "%s\n\n%6s %10s  %-9s %9s %9s %7s %6s %9s %9s  %-9s %s\n",
                   n ? "" : "no step", "rank", "step", "phase", "step ms", "snapshots",
                   "missed", "busy", "stall ms", "longest", "memory", "copied");
    for (uint32_t i = 0; i < ranks->n; i++)
        text_rank(&ranks->at[i], out);
}

int gf_live_report(struct gf_live *live, bool json, struct gf_text *out, struct gf_err *err)
{
    GF_AUTO(gf_ranks) ranks = ranks_of(live);

    if (!ranks)
        return gf_fail(err, ENOTCONN, "'%s': its ranks are not there", live->source);
    if (json)
        json_report(live, ranks, out);
    else
        text_report(live, ranks, out);
    return out->failed ? gf_nomem(err) : 0;
}

/* ---------------------------------------------------------------- for schedules */

void gf_live_progress(struct gf_live *live, struct gf_live_progress *ret)
{
    GF_AUTO(gf_ranks) ranks = ranks_of(live);

    *ret = (struct gf_live_progress){ .connected = ranks && is_there(live, ranks),
                                      .finished = gf_job_finishing(live->job) ||
                                                  gf_job_has_ended(live->job) };
    for (uint32_t i = 0; ranks && i < ranks->n; i++) {
        struct gf_live_status s;

        gf_live_status_load(gf_rank_control(&ranks->at[i]), &s);
        ret->step = i ? GF_MIN(ret->step, s.step) : s.step;
        ret->step_ns = GF_MAX(ret->step_ns, s.step_ns);
        ret->copy_ns = GF_MAX(ret->copy_ns, s.copy_ns);
        ret->stall_ns = GF_MAX(ret->stall_ns, s.stall_ns);
    }
}

bool gf_live_metric(struct gf_live *live, const char *name, double *ret, uint64_t *ret_step)
{
    GF_AUTO(gf_ranks) ranks = ranks_of(live);

    for (uint32_t i = 0; ranks && i < ranks->n; i++)
        for (uint32_t k = 0; k < GF_LIVE_METRICS; k++) {
            char found[GF_LIVE_METRIC_NAME + 1];

            if (gf_live_metric_load(gf_rank_control(&ranks->at[i]), k, found, ret,
                                    ret_step) &&
                strcmp(found, name) == 0)
                return true;
        }
    return false;
}
