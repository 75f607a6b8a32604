/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_plan.c - how often to save: takes what it needs from options, or from a run and a mount.
 */
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "base/math.h"
#include "tools/cmd.h"
#include "tools/plan.h"

#define MOST ((uint64_t)1 << 53) /* steps, bytes: whole numbers in JSON */

/* A mount reads little when somebody only looked around: not worth a figure. */
#define READ_ENOUGH (1 << 20)

static void set(struct gf_figure *figure, double value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void set(struct gf_figure *figure, double value, const char *fmt, ...)
{
    va_list ap;

    figure->known = true;
    figure->value = value;
    va_start(ap, fmt);
    vsnprintf(figure->from, sizeof(figure->from), fmt, ap);
    va_end(ap);
}

/* ---------------------------------------------------------------- options */

static int get_time(const struct gf_args *args, const char *key, struct gf_figure *ret,
                    struct gf_err *err)
{
    const char *text = gf_args_flag(args, key);
    double value;

    if (!text)
        return 0;
    if (gf_parse_time(text, &value))
        return gf_fail(err, EINVAL, "--%s: '%s' is not a time such as 0.8s, 12m or 36h",
                       key, text);
    set(ret, value, "given");
    return 0;
}

/* "120GB"; of a rate also "2GB/s". */
static int get_size(const struct gf_args *args, const char *key, bool rate,
                    struct gf_figure *ret, struct gf_err *err)
{
    const char *text = gf_args_flag(args, key), *slash;
    char size[64];
    uint64_t value;

    if (!text)
        return 0;
    slash = rate ? strstr(text, "/s") : NULL;
    snprintf(size, sizeof(size), "%.*s",
             slash && !slash[2] ? (int)GF_MIN(slash - text, 63) : 63, text);
    if (gf_parse_size(size, &value))
        return gf_fail(err, EINVAL, "--%s: '%s' is not a %s such as %s", key, text,
                       rate ? "rate" : "size", rate ? "2GB/s" : "120GB");
    set(ret, (double)value, "given");
    return 0;
}

static int get_number(const struct gf_args *args, const char *key, uint64_t *ret,
                      struct gf_err *err)
{
    const char *text = gf_args_flag(args, key);
    char what[32];

    snprintf(what, sizeof(what), "--%s", key);
    return text ? gf_parse_number(what, text, 1, MOST, ret, err) : 0;
}

/* Two ways to say one thing. */
static int only_one(const struct gf_args *args, const char *a, const char *b,
                    struct gf_err *err)
{
    if (gf_args_flag(args, a) && gf_args_flag(args, b))
        return gf_fail(err, EINVAL, "--%s and --%s exclude each other", a, b);
    return 0;
}

static int get_mtbf(const struct gf_args *args, struct gf_planned *p, struct gf_err *err)
{
    struct gf_figure node = { 0 };
    char each[GF_TIME_TEXT];
    uint64_t nodes = 0;
    int r = get_time(args, "mtbf", &p->mtbf, err);

    if (!r)
        r = get_time(args, "node-mtbf", &node, err);
    if (!r)
        r = get_number(args, "nodes", &nodes, err);
    if (!r)
        r = only_one(args, "mtbf", "node-mtbf", err);
    if (r)
        return r;
    if (p->mtbf.known && nodes)
        return gf_fail(err, EINVAL,
                       "--mtbf is that of the whole job: use --node-mtbf "
                       "with --nodes");
    if (node.known && nodes)
        set(&p->mtbf, node.value / (double)nodes, "%llu nodes, one failure in %s each",
            (unsigned long long)nodes, gf_time_text(node.value, each));
    return 0;
}

static int get_options(const struct gf_args *args, struct gf_planned *p, struct gf_err *err)
{
    int r = get_time(args, "step-time", &p->step, err);

    if (!r)
        r = get_time(args, "save-time", &p->save, err);
    if (!r)
        r = get_time(args, "snapshot-time", &p->snapshot, err);
    if (!r)
        r = get_size(args, "size", false, &p->full, err);
    if (!r)
        r = get_size(args, "bandwidth", true, &p->bandwidth, err);
    if (!r)
        r = only_one(args, "save-time", "bandwidth", err);
    if (!r)
        r = get_mtbf(args, p, err);
    if (!r)
        r = get_time(args, "restart-time", &p->restart, err);
    if (!r)
        r = get_number(args, "keep", &p->keep, err);
    if (!r)
        r = get_number(args, "steps", &p->steps, err);
    return r ? r : only_one(args, "steps", "duration", err);
}

/* ---------------------------------------------------------------- a mount's own figures */

static bool is_weights(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot && (!strcmp(dot, ".safetensors") || !strcmp(dot, ".bin"));
}

/* The weight files right in this directory. */
static uint64_t weights_in(const char *parent, const char *name)
{
    GF_AUTO_MEM char *path = NULL;
    const struct dirent *entry;
    uint64_t bytes = 0;
    struct stat st;
    DIR *dir;

    if (asprintf(&path, "%s/%s", parent, name) < 0)
        path = NULL;
    dir = path ? opendir(path) : NULL;
    if (!dir)
        return 0;
    while ((entry = readdir(dir)))
        if (is_weights(entry->d_name) && !fstatat(dirfd(dir), entry->d_name, &st, 0) &&
            S_ISREG(st.st_mode))
            bytes += (uint64_t)st.st_size;
    closedir(dir);
    return bytes;
}

static int get_stats(const char *mountpoint, struct gf_planned *p, struct gf_err *err)
{
    GF_AUTO(gf_json) doc = NULL;
    struct gf_text text = { 0 };
    uint64_t bytes = 0;
    double seconds = 0;
    char read[GF_SIZE_TEXT], took[GF_TIME_TEXT];
    int r = gf_read_ctl(mountpoint, "stats.json", &text, err);

    if (!r)
        r = gf_json_parse("stats.json", text.s ? text.s : "", text.len, &gf_limits_default,
                          &doc, err);
    gf_text_done(&text);
    if (r)
        return r;
    if (gf_json_u64(gf_json_get(doc, "bytes"), &bytes) && bytes >= READ_ENOUGH &&
        gf_json_f64(gf_json_get(doc, "read_s"), &seconds) && seconds > 0)
        set(&p->reading, (double)bytes / seconds,
            "measured: one reader of the mount, %s in %s", gf_size_text(bytes, read),
            gf_time_text(seconds, took));
    return 0;
}

/* Where the bytes of a mount come from; *ret is NULL if it is none. */
static int mounted_source(const char *path, char **ret, struct gf_err *err)
{
    GF_AUTO(gf_json) doc = NULL;
    struct gf_text text = { 0 };
    struct gf_err why = { 0 };
    const char *source;
    int r = gf_read_ctl(path, "status.json", &text, &why);

    if (r == -ENOENT || r == -ENOTDIR) {
        *ret = NULL;
        return 0;
    }
    if (r)
        gf_fail(err, -r, "%s", why.text);
    else
        r = gf_json_parse("status.json", text.s ? text.s : "", text.len, &gf_limits_default,
                          &doc, err);
    gf_text_done(&text);
    if (r)
        return r;
    source = gf_json_str(gf_json_get(doc, "source"));
    if (!source)
        return gf_fail(err, GF_EBAD, "'%s': its status.json names no source", path);
    *ret = strdup(source);
    return *ret ? 0 : gf_nomem(err);
}

/* ---------------------------------------------------------------- a run's own figures */

static void take_measured(struct gf_planned *p)
{
    const struct gf_measured *m = &p->run;
    const char *name = *m->path ? m->path : "the checkpoint";

    if (!p->full.known && m->full)
        set(&p->full, (double)m->full, "measured: files of %.150s", name);
    if (m->weights)
        set(&p->weights, (double)m->weights, "measured: default view of %.150s", name);
}

static int measure(const struct gf_args *args, struct gf_planned *p, struct gf_err *err)
{
    GF_AUTO(gf_run) run = NULL;
    GF_AUTO_MEM char *source = NULL;
    const char *word = args->word[0];
    uint64_t served;
    int r = mounted_source(word, &source, err);

    if (!r)
        r = gf_run_open(source ? source : word, &args->opt, &run, err);
    if (!r)
        r = gf_run_measure(run, &p->run, err);
    if (r)
        return r;
    p->measured = true;
    take_measured(p);
    if (!source)
        return 0;
    served = weights_in(word, "");
    if (!served)
        served = weights_in(word, "latest");
    if (served)
        set(&p->weights, (double)served, "measured: as mounted");
    return get_stats(word, p, err);
}

/* ---------------------------------------------------------------- what follows from them */

/* What is not given, as far as the rest tells. */
static void complete(struct gf_planned *p)
{
    const struct gf_measured *m = &p->run;
    char size[GF_SIZE_TEXT], rate[GF_SIZE_TEXT];
    double saves;

    if (!p->save.known && p->full.known && p->bandwidth.known)
        set(&p->save, p->full.value / p->bandwidth.value, "%s at %s/s",
            gf_size_text((uint64_t)p->full.value, size),
            gf_size_text((uint64_t)p->bandwidth.value, rate));
    if (!p->step.known && p->measured && m->nsteps) {
        /* The run stood still for its saves: if that leaves nothing, they were others. */
        saves = p->save.known && p->save.value < m->gap ? p->save.value : 0;
        set(&p->step, (m->gap - saves) / (double)m->every,
            "measured: times of %zu checkpoints, steps %llu to %llu%s", m->nsteps,
            (unsigned long long)m->first, (unsigned long long)m->last,
            saves > 0 ? ", less a save each" : "");
    }
    if (!p->restart.known && p->reading.known && p->weights.known)
        set(&p->restart, p->weights.value / p->reading.value,
            "reading the weights once, as fast as the mount was");
    else if (!p->restart.known)
        set(&p->restart, 0, "not given, taken as 0");
}

static int check_inputs(const struct gf_args *args, const struct gf_planned *p,
                        struct gf_err *err)
{
    bool source = args->nwords > 0;
    struct gf_text missing = { 0 };
    int r = 0;

    if (!p->step.known)
        gf_text_printf(&missing, ", --step-time%s",
                       source ? " (SOURCE has no two numbered checkpoints)" : "");
    if (!p->save.known && !p->snapshot.known)
        gf_text_printf(&missing, ", --save-time (or --snapshot-time, or --bandwidth%s)",
                       p->full.known ? "" : " and --size");
    if (!p->mtbf.known && gf_args_flag(args, "node-mtbf"))
        gf_text_add(&missing, ", --nodes");
    else if (!p->mtbf.known && gf_args_flag(args, "nodes"))
        gf_text_add(&missing, ", --node-mtbf");
    else if (!p->mtbf.known)
        gf_text_add(&missing, ", --mtbf (or --node-mtbf and --nodes)");
    if (missing.failed)
        r = gf_nomem(err);
    else if (missing.len)
        r = gf_fail(err, EINVAL,
                    "missing: %s; for example: gatherfs plan%s --step-time 0.8s "
                    "--save-time 90s --mtbf 12h",
                    missing.s + 2, source ? " SOURCE" : "");
    gf_text_done(&missing);
    return r;
}

/* --duration: what the steps alone would take. */
static int get_duration(const struct gf_args *args, struct gf_planned *p,
                        struct gf_err *err)
{
    struct gf_figure duration = { 0 };
    int r = get_time(args, "duration", &duration, err);

    if (r || !duration.known)
        return r;
    if (!(duration.value > 0 && duration.value / p->step.value < (double)MOST))
        return gf_fail(err, EINVAL,
                       "--duration: %g s is not a length of a job with steps "
                       "of %g s",
                       duration.value, p->step.value);
    p->steps = (uint64_t)ceil(duration.value / p->step.value);
    return 0;
}

static int no_progress(const struct gf_plan_in *in, struct gf_err *err)
{
    char a[GF_TIME_TEXT], b[GF_TIME_TEXT], c[GF_TIME_TEXT], d[GF_TIME_TEXT];

    return gf_fail(err, GF_EINCOMPLETE,
                   "no interval makes progress: with a failure every %s, a step of %s, a "
                   "save of %s and a restart of %s hardly ever end without one",
                   gf_time_text(in->mtbf, a), gf_time_text(in->step, b),
                   gf_time_text(in->save, c), gf_time_text(in->restart, d));
}

static int make_plan(struct gf_planned *p, struct gf_err *err)
{
    struct gf_plan_in saves;
    int r;

    p->in = (struct gf_plan_in){
        .step = p->step.value,
        .save = p->snapshot.known ? p->snapshot.value : p->save.value,
        .write = p->snapshot.known && p->save.known ? p->save.value : 0,
        .mtbf = p->mtbf.value,
        .restart = p->restart.value,
        .steps = p->steps,
    };
    r = gf_plan_interval(&p->in, &p->plan, err);
    if (r == -ERANGE || (!r && p->plan.best.overhead >= GF_NEVER_ENDS))
        return no_progress(&p->in, err);
    if (r || !p->snapshot.known || !p->save.known)
        return r;
    saves = p->in;
    saves.save = p->save.value;
    saves.write = 0;
    p->has_blocking = !gf_plan_interval(&saves, &p->blocking, NULL);
    return 0;
}

static int plan(struct gf_args *args, struct gf_planned *p, struct gf_err *err)
{
    int r = get_options(args, p, err);

    if (!r && args->nwords)
        r = measure(args, p, err);
    if (r)
        return r;
    complete(p);
    r = check_inputs(args, p, err);
    if (!r)
        r = get_duration(args, p, err);
    return r ? r : make_plan(p, err);
}

static int run(struct gf_args *args, struct gf_err *err)
{
    struct gf_planned p = { 0 };
    struct gf_text text = { 0 };
    int r = plan(args, &p, err);

    if (!r && gf_args_flag(args, "json"))
        gf_planned_json(&p, &text);
    else if (!r)
        gf_planned_text(&p, &text);
    if (!r && text.failed)
        r = gf_nomem(err);
    if (!r && (r = gf_write_all(STDOUT_FILENO, text.s, text.len)))
        gf_fail(err, -r, "cannot write the output: %s", strerror(-r));
    gf_text_done(&text);
    gf_measured_done(&p.run);
    return r;
}

const struct gf_cmd gf_cmd_plan = {
    .name = "plan",
    .words = "[SOURCE|MOUNTPOINT]",
    .summary = "how often to save: the interval that costs least",
    .max_words = 1,
    .shared = true,
    .flags = { { "step-time", 0, "TIME", "of one training step" },
               { "save-time", 0, "TIME", "training stands still for one save" },
               { "snapshot-time", 0, "TIME", "... for one live snapshot, written later" },
               { "size", 0, "SIZE", "of one checkpoint, all of its files" },
               { "bandwidth", 0, "SIZE/s", "of writing: gives the save time" },
               { "mtbf", 0, "TIME", "between two failures of the whole job" },
               { "node-mtbf", 0, "TIME", "... of one node, with --nodes" },
               { "nodes", 0, "N", "of the job" },
               { "restart-time", 0, "TIME", "from a failure to the next step" },
               { "keep", 0, "N", "checkpoints that are kept" },
               { "steps", 0, "N", "of the whole job" },
               { "duration", 0, "TIME", "... or how long its steps take" },
               { "json", 0, NULL, "one JSON object instead of text" } },
    .details =
        "Times: 250ms, 0.8s, 12m, 36h, 30d. Sizes: 120GB, 1.5TB, 64GiB.\n"
        "A SOURCE supplies the size and, if it is a run, the step time; a mount also how\n"
        "fast it was read.\n"
        "\n"
        "Examples:\n"
        "  gatherfs plan --step-time 0.8s --save-time 90s --mtbf 12h\n"
        "  gatherfs plan /data/run --bandwidth 2GB/s --node-mtbf 60d --nodes 64 "
        "--keep 3\n",
    .run = run,
};
