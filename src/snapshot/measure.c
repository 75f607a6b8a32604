/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/measure.h"

#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/vec.h"
#include "snapshot/run_int.h"

#define DEEP 8 /* levels of sub-directories that belong to a checkpoint */

/* A numbered step of the run: one checkpoint, or a directory of several (verl). */
struct stage {
    char *path; /* as it is shown ... */
    char *disk; /* ... and on disk: Lightning's steps are files */
    uint64_t number;
    int64_t mtime_ns;
};

struct stages {
    struct GF_VEC(struct stage) at;
};

struct pair {
    uint64_t steps;
    double seconds;
};

/* ---- sizes ---- */

struct total {
    uint64_t bytes;
    int64_t mtime_ns; /* of the newest file */
};

static void add_file(struct total *total, const struct gf_identity *identity)
{
    total->bytes += identity->size;
    total->mtime_ns = GF_MAX(total->mtime_ns, identity->mtime_ns);
}

static char *join(const char *dir, const char *name)
{
    char *path;

    return asprintf(&path, "%s%s%s", dir, *dir && *name ? "/" : "", name) < 0 ? NULL : path;
}

/* All files in `path`, a file itself or a directory with `deep` levels below it. */
static int add_files(struct gf_dir *dir, const char *path, unsigned deep,
                     struct total *total, struct gf_err *err)
{
    struct gf_dir_listing listing = { 0 };
    struct gf_dir_entry entry;
    int r;

    if (*path && !gf_dir_stat(dir, path, &entry) && !entry.is_dir) {
        add_file(total, &entry.identity);
        return 0;
    }
    r = gf_dir_list(dir, path, &listing, err);
    for (size_t i = 0; i < listing.n && !r; i++) {
        GF_AUTO_MEM char *below = NULL;

        if (!listing.at[i].is_dir) {
            add_file(total, &listing.at[i].identity);
        } else if (deep) {
            below = join(path, listing.at[i].name);
            r = below ? add_files(dir, below, deep - 1, total, err) : gf_nomem(err);
        }
    }
    gf_dir_listing_free(&listing);
    return r;
}

/* The one checkpoint that is shown at the root. Of a layout with tags the other tags are not
 * its. */
static int add_root(struct gf_run *run, const struct gf_snapshot *snapshot,
                    struct total *total, struct gf_err *err)
{
    const struct gf_found *found = gf_snapshot_found(snapshot);
    bool tagged = *found->tag && *found->base;
    GF_AUTO_MEM char *path = NULL, *below = NULL;
    const struct gf_step *step;
    int r;

    pthread_mutex_lock(&run->lock);
    step = gf_run_slot(run, "")->step;
    path = join(step->dir, step->file ? step->file : run->file ? run->file : "");
    below = join(step->dir, found->base);
    pthread_mutex_unlock(&run->lock);
    if (!path || !below)
        return gf_nomem(err);
    r = add_files(run->dir, path, tagged ? 0 : DEEP, total, err);
    return !r && tagged ? add_files(run->dir, below, DEEP, total, err) : r;
}

static uint64_t weights_of(struct gf_snapshot *snapshot)
{
    const struct gf_vdir *dir;
    uint64_t bytes = 0;

    if (!gf_snapshot_info(snapshot)->default_view ||
        gf_snapshot_dir(snapshot, NULL, &dir, NULL))
        return 0;
    for (size_t i = 0; i < dir->n; i++)
        bytes += dir->files[i].weights ? dir->files[i].size : 0;
    return bytes;
}

/* ---- steps ---- */

/* Steps of one run: those that `latest` is one of, or the tags of a root. */
static bool is_stage(struct gf_run *run, const struct gf_step *step)
{
    return step->complete && step->has_number && *step->path &&
           (gf_run_at_home(run, step) || (!run->home && step->tag && !*step->dir));
}

static int add_stages(struct gf_run *run, struct stages *stages, struct gf_err *err)
{
    int r = 0;

    pthread_mutex_lock(&run->lock);
    for (size_t i = 0; i < run->n && !r; i++) {
        const struct gf_step *step = run->order[i]->step;
        struct stage stage = { .number = step->number };

        if (stages->at.n >= GF_MEASURE_STEPS || !is_stage(run, step) ||
            (stages->at.n && stages->at.at[stages->at.n - 1].number == step->number))
            continue;
        stage.path = strndup(step->path, step->head);
        stage.disk =
            step->file ? join(step->dir, step->file) : strndup(step->path, step->head);
        if (!stage.path || !stage.disk ||
            gf_vec_push(&stages->at, stage, GF_MEASURE_STEPS)) {
            free(stage.path);
            free(stage.disk);
            r = gf_nomem(err);
        }
    }
    pthread_mutex_unlock(&run->lock);
    return r;
}

static void stages_done(struct stages *stages)
{
    for (size_t i = 0; i < stages->at.n; i++) {
        free(stages->at.at[i].path);
        free(stages->at.at[i].disk);
    }
    gf_vec_free(&stages->at);
}

static int slower(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    double s = x->seconds / (double)x->steps, t = y->seconds / (double)y->steps;

    return s < t ? -1 : s > t;
}

/* Newest first. A pair that runs backwards in time was copied or saved anew. */
static void set_rate(const struct stages *stages, struct gf_measured *m)
{
    struct pair pairs[GF_MEASURE_STEPS];
    const struct stage *s = stages->at.at;
    size_t n = 0;

    for (size_t i = 0; i + 1 < stages->at.n; i++)
        if (s[i + 1].mtime_ns && s[i].mtime_ns > s[i + 1].mtime_ns)
            pairs[n++] = (struct pair){ s[i].number - s[i + 1].number,
                                        (double)(s[i].mtime_ns - s[i + 1].mtime_ns) / 1e9 };
    if (!n)
        return;
    qsort(pairs, n, sizeof(pairs[0]), slower);
    m->nsteps = stages->at.n;
    m->last = s[0].number;
    m->first = s[stages->at.n - 1].number;
    m->every = pairs[(n - 1) / 2].steps;
    m->gap = pairs[(n - 1) / 2].seconds;
    m->step = m->gap / (double)m->every;
}

/* ---- all of it ---- */

static int measure_stages(struct gf_run *run, struct stages *stages, struct gf_measured *m,
                          struct gf_err *err)
{
    GF_AUTO(gf_snapshot) snapshot = NULL;

    for (size_t i = 0; i < stages->at.n; i++) {
        struct total total = { 0 };
        int r = add_files(run->dir, stages->at.at[i].disk, DEEP, &total, i ? NULL : err);

        if (r && !i)
            return r;
        if (r) /* an old one that has just been rotated away */
            continue;
        stages->at.at[i].mtime_ns = total.mtime_ns;
        if (!i)
            m->full = total.bytes;
    }
    set_rate(stages, m);
    if (!gf_run_snapshot(run, stages->at.at[0].path, &snapshot, NULL))
        m->weights = weights_of(snapshot);
    m->path = strdup(stages->at.at[0].path);
    return m->path ? 0 : gf_nomem(err);
}

static int measure_one(struct gf_run *run, struct gf_measured *m, struct gf_err *err)
{
    GF_AUTO(gf_snapshot) snapshot = NULL;
    struct total total = { 0 };
    int r = gf_run_default(run, &snapshot, &m->path, err);

    if (!r && *m->path)
        r = add_files(run->dir, m->path, DEEP, &total, err);
    else if (!r && !run->live)
        r = add_root(run, snapshot, &total, err);
    if (r)
        return r;
    m->full = total.bytes;
    m->weights = weights_of(snapshot);
    return 0;
}

int gf_run_measure(struct gf_run *run, struct gf_measured *ret, struct gf_err *err)
{
    struct gf_measured m = { 0 };
    struct stages stages = { 0 };
    int r = add_stages(run, &stages, err);

    if (!r)
        r = stages.at.n ? measure_stages(run, &stages, &m, err) : measure_one(run, &m, err);
    stages_done(&stages);
    if (r) {
        gf_measured_done(&m);
        return r;
    }
    *ret = m;
    return 0;
}

void gf_measured_done(struct gf_measured *measured)
{
    free(measured->path);
    *measured = (struct gf_measured){ 0 };
}
