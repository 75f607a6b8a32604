/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_tree.c - a run's checkpoints as paths: directories between, links, look-ups.
 */
#include "snapshot/run.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/math.h"
#include "snapshot/run_int.h"

/* Checkpoints that a listing opens to see whether they are whole, newest first, and how long it
 * goes on. Of the older ones in a long run names and markers decide, until somebody looks into
 * them. */
#define EAGER 64
#define EAGER_SECONDS 2

/* With view= a checkpoint has no sub-directories; a run still has its checkpoints. */
static bool has_entries(struct gf_run *run)
{
    return !run->alone && !(run->opt->view && gf_run_slot(run, ""));
}

char *gf_run_latest(struct gf_run *run)
{
    for (size_t i = 0; i < run->n; i++) {
        struct gf_slot *slot = run->order[i];

        if (gf_run_at_home(run, slot->step) && gf_run_shown(run, slot) &&
            !gf_run_known(run, slot, NULL))
            return strndup(slot->step->path, slot->step->head);
        if (run->want)
            break;
    }
    return NULL;
}

char *gf_run_best(struct gf_run *run)
{
    GF_AUTO_MEM char *latest = gf_run_latest(run);
    struct gf_slot *slot;

    if (!latest)
        return NULL;
    if (!run->best_of || strcmp(run->best_of, latest) != 0) {
        free(run->best_of);
        free(run->best);
        run->best = gf_step_best(run->dir, latest);
        run->best_of = gf_take(&latest);
    }
    slot = run->best ? gf_run_slot(run, run->best) : NULL;
    return slot && !gf_run_known(run, slot, NULL) ? strdup(run->best) : NULL;
}

static bool leads_to_one(struct gf_run *run, const char *dir)
{
    size_t first, end;

    gf_run_range(run, dir, &first, &end);
    for (size_t i = first; i < end; i++)
        if (gf_run_shown(run, &run->slots[i]))
            return true;
    return false;
}

/* What a link of this name leads to, unless something real has the name. */
static char *link_target(struct gf_run *run, const char *name)
{
    bool latest = strcmp(name, "latest") == 0;

    if ((!latest && strcmp(name, "best") != 0) || !has_entries(run) ||
        gf_run_slot(run, name) || leads_to_one(run, name))
        return NULL;
    return latest ? gf_run_latest(run) : gf_run_best(run);
}

/* ---- listing ---- */

struct list {
    struct GF_VEC(struct gf_run_entry) at;
};

/* Takes over target. */
static int add(struct list *list, const char *path, size_t len, enum gf_run_kind kind,
               char *target, struct gf_err *err)
{
    struct gf_run_entry entry = {
        .path = strndup(path, len), .kind = kind, .target = target, .complete = true
    };

    if (!entry.path || gf_vec_push(&list->at, entry, SIZE_MAX)) {
        free(entry.path);
        free(target);
        return gf_nomem(err);
    }
    return 0;
}

static int add_links(struct gf_run *run, struct list *list, struct gf_err *err)
{
    static const char *const names[] = { "best", "latest" };
    int r = 0;

    for (size_t i = 0; i < GF_COUNT(names) && !r; i++) {
        char *target = link_target(run, names[i]);

        if (target)
            r = add(list, names[i], strlen(names[i]), GF_RUN_LINK, target, err);
    }
    return r;
}

static int add_slot(struct gf_run *run, struct list *list, struct gf_slot *slot,
                    struct gf_err *err)
{
    const struct gf_step *step = slot->step;
    bool shown = gf_run_shown(run, slot);
    struct gf_run_entry *entry;
    int r;

    /* A tag that the directory above shows is neither listed nor hidden. */
    if (!shown && step->complete && slot->state != GF_SLOT_BAD)
        return 0;
    r = add(list, step->path, strlen(step->path), GF_RUN_CHECKPOINT, NULL, err);
    if (r)
        return r;
    entry = &list->at.at[list->at.n - 1];
    entry->complete = shown;
    entry->format = step->format;
    memcpy(entry->seen, step->seen, sizeof(entry->seen));
    entry->has_step = step->has_number;
    entry->step = step->number;
    if (!shown)
        snprintf(entry->why, sizeof(entry->why), "%.*s", GF_WHY - 1,
                 step->complete ? slot->why.text : step->why);
    return 0;
}

/* A directory of checkpoints, when its first one comes. */
static int add_dir(struct gf_run *run, struct list *list, const char *path, size_t len,
                   struct gf_err *err)
{
    const struct gf_run_entry *last = list->at.n ? &list->at.at[list->at.n - 1] : NULL;
    GF_AUTO_MEM char *dir = strndup(path, len);

    if (!dir)
        return gf_nomem(err);
    if ((last && strcmp(last->path, dir) == 0) || gf_run_slot(run, dir) ||
        !leads_to_one(run, dir))
        return 0;
    return add(list, dir, len, GF_RUN_DIR, NULL, err);
}

static int list_slots(struct gf_run *run, const char *dir, struct list *list,
                      struct gf_err *err)
{
    size_t first, end, front = dir && *dir ? strlen(dir) + 1 : 0;
    int r = 0;

    gf_run_range(run, dir ? dir : "", &first, &end);
    for (size_t i = first; i < end && !r; i++) {
        const char *path = run->slots[i].step->path, *slash = strchr(path + front, '/');

        r = dir && slash ? add_dir(run, list, path, (size_t)(slash - path), err)
                         : add_slot(run, list, &run->slots[i], err);
    }
    return r || (dir && *dir) ? r : add_links(run, list, err);
}

/* What looks finished is opened, to show only what can be served. */
static void try_newest(struct gf_run *run)
{
    for (size_t i = 0; i < GF_MIN(run->n, (size_t)EAGER) && !run->want; i++)
        if (run->order[i]->state == GF_SLOT_UNTRIED && gf_run_shown(run, run->order[i]))
            gf_run_known(run, run->order[i], NULL);
}

static bool is_over(const struct timespec *end)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > end->tv_sec ||
           (now.tv_sec == end->tv_sec && now.tv_nsec >= end->tv_nsec);
}

static int entry_order(const void *a, const void *b)
{
    return strcmp(((const struct gf_run_entry *)a)->path,
                  ((const struct gf_run_entry *)b)->path);
}

int gf_run_entries(struct gf_run *run, const char *dir, struct gf_run_entry **ret,
                   size_t *ret_n, struct gf_err *err)
{
    struct list list = { 0 };
    struct timespec end;
    bool eager = true;
    int r;

    if (run->live)
        return gf_live_entries(run->live, dir, ret, ret_n, err);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += EAGER_SECONDS;
    pthread_mutex_lock(&run->lock);
    do {
        gf_run_entries_free(list.at.at, list.at.n);
        list = (struct list){ 0 };
        r = 0;
        if (!has_entries(run))
            break;
        if ((eager = eager && !is_over(&end)))
            try_newest(run);
        run->hasty = !eager;
        if (!run->want)
            r = list_slots(run, dir, &list, err);
        run->hasty = false;
    } while (gf_run_again(run, eager ? &end : NULL, &r, err));
    pthread_mutex_unlock(&run->lock);
    if (r) {
        gf_run_entries_free(list.at.at, list.at.n);
        return r;
    }
    if (list.at.n)
        qsort(list.at.at, list.at.n, sizeof(*list.at.at), entry_order);
    *ret = list.at.at;
    *ret_n = list.at.n;
    return 0;
}

void gf_run_entries_free(struct gf_run_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(entries[i].path);
        free(entries[i].target);
    }
    free(entries);
}

/* ---- look-ups ---- */

static int look(struct gf_run *run, const char *path, enum gf_run_kind *ret,
                char **ret_target, struct gf_err *err)
{
    struct gf_slot *slot = has_entries(run) ? gf_run_slot(run, path) : NULL;
    char *target;
    int r;

    if (slot) {
        r = gf_run_shown(run, slot) ? gf_run_known(run, slot, err) : -ENOENT;
        *ret = GF_RUN_CHECKPOINT;
        return r ? -ENOENT : 0;
    }
    target = link_target(run, path);
    if (target) {
        *ret = GF_RUN_LINK;
        *ret_target = target;
        return 0;
    }
    *ret = GF_RUN_DIR;
    return has_entries(run) && leads_to_one(run, path) ? 0 : -ENOENT;
}

int gf_run_look(struct gf_run *run, const char *path, enum gf_run_kind *ret,
                char **ret_target, struct gf_err *err)
{
    GF_AUTO_MEM char *target = NULL;
    int r;

    if (run->live)
        return gf_live_look(run->live, path, ret);
    pthread_mutex_lock(&run->lock);
    do {
        free(gf_take(&target));
        r = look(run, path, ret, &target, err);
    } while (gf_run_again(run, NULL, &r, err));
    pthread_mutex_unlock(&run->lock);
    if (!r && target && ret_target)
        *ret_target = gf_take(&target);
    return r;
}

/* The one checkpoint in a step's directory; of several the user has to name one. */
static int only_below(struct gf_run *run, const char *dir, struct gf_slot **ret,
                      struct gf_err *err)
{
    struct gf_slot *found = NULL;
    size_t first, end;

    gf_run_range(run, dir, &first, &end);
    for (size_t i = first; i < end; i++) {
        struct gf_slot *slot = &run->slots[i];

        if (!gf_run_shown(run, slot))
            continue;
        if (found)
            return gf_fail(err, EINVAL,
                           "'%s/%s': holds '%s' and '%s': choose one with step=",
                           run->source, dir, found->step->path, slot->step->path);
        found = slot;
    }
    *ret = found;
    return found ? 0
                 : gf_fail(err, ENOENT, "'%s/%s': no checkpoint in it", run->source, dir);
}

/* Why a run has no newest step. */
static int no_latest(struct gf_run *run, struct gf_err *err)
{
    for (size_t i = 0; i < run->n; i++) {
        struct gf_slot *slot = run->order[i];

        if (!gf_run_at_home(run, slot->step) || !gf_run_known(run, slot, err))
            continue;
        return run->want ? -EAGAIN
                         : gf_wrap(err, "'%s': no finished checkpoint", run->source);
    }
    return gf_fail(err, EINVAL,
                   "'%s': no single newest step in it: choose a checkpoint with step=, "
                   "such as '%s'",
                   run->source, run->slots[0].step->path);
}

static int default_slot(struct gf_run *run, struct gf_slot **ret, struct gf_err *err)
{
    struct gf_slot *slot = gf_run_slot(run, "");
    GF_AUTO_MEM char *path = slot ? NULL : gf_run_latest(run);
    int r = 0;

    if (path) {
        slot = gf_run_slot(run, path);
        r = slot ? 0 : only_below(run, path, &slot, err);
    } else if (!slot && !run->want) {
        r = run->n ? no_latest(run, err)
                   : gf_fail(err, ENOENT, "'%s': no checkpoint in it", run->source);
    }
    if (r || run->want)
        return r;
    *ret = slot;
    return gf_run_try(run, slot, err);
}

int gf_run_default(struct gf_run *run, struct gf_snapshot **ret, char **ret_path,
                   struct gf_err *err)
{
    struct gf_slot *slot = NULL;
    char *path;
    int r;

    if (run->live) {
        path = strdup("");
        r = path ? gf_live_snapshot(run->live, "", ret, err) : gf_nomem(err);
        if (r)
            free(path);
        else
            *ret_path = path;
        return r;
    }
    pthread_mutex_lock(&run->lock);
    do
        r = default_slot(run, &slot, err);
    while (gf_run_again(run, NULL, &r, err));
    if (!r) {
        path = strdup(slot->step->path);
        if (path) {
            *ret = gf_snapshot_ref(slot->snapshot);
            *ret_path = path;
        } else {
            r = gf_nomem(err);
        }
    }
    pthread_mutex_unlock(&run->lock);
    return r;
}

/* A file or VIEW/FILE of one checkpoint; -ENOENT without text if it is not there. */
static int find_in(struct gf_snapshot *snapshot, const char *path,
                   const struct gf_vdir **ret_dir, const struct gf_vfile **ret_file)
{
    const char *slash = strchr(path, '/');
    GF_AUTO_MEM char *view = slash ? strndup(path, (size_t)(slash - path)) : NULL;
    const struct gf_vdir *dir;
    const struct gf_vfile *file;
    int r;

    if (slash && !view)
        return -ENOMEM;
    /* PATH as a whole first: the default view may have a directory in it. */
    r = gf_snapshot_dir(snapshot, NULL, &dir, NULL);
    file = r ? NULL : gf_vdir_find(dir, path);
    if (!file && !(r = gf_snapshot_dir(snapshot, view, &dir, NULL)))
        file = gf_vdir_find(dir, slash ? slash + 1 : path);
    if (r)
        return r;
    if (!file)
        return -ENOENT;
    *ret_dir = dir;
    *ret_file = file;
    return 0;
}

/* PATH with a link at its start replaced by where it leads; free() it. */
static char *follow(struct gf_run *run, const char *path)
{
    GF_AUTO_MEM char *name = strndup(path, strcspn(path, "/"));
    GF_AUTO_MEM char *target = NULL;
    enum gf_run_kind kind;
    char *full;

    if (!name || gf_run_look(run, name, &kind, &target, NULL) || kind != GF_RUN_LINK)
        return strdup(path);
    return asprintf(&full, "%s%s", target, path + strlen(name)) < 0 ? NULL : full;
}

int gf_run_find(struct gf_run *run, const char *path, struct gf_snapshot **ret_snapshot,
                const struct gf_vdir **ret_dir, const struct gf_vfile **ret_file,
                struct gf_err *err)
{
    GF_AUTO_MEM char *full = NULL;
    size_t end;

    while (*path == '/' || (path[0] == '.' && path[1] == '/'))
        path++;
    full = follow(run, path);
    if (!full)
        return gf_nomem(err);
    /* The longest front that is a checkpoint has the rest in it. */
    for (end = strlen(full);;) {
        GF_AUTO(gf_snapshot) snapshot = NULL;
        GF_AUTO_MEM char *front = strndup(full, end);
        enum gf_run_kind kind;

        if (!front)
            return gf_nomem(err);
        if ((!end ||
             (!gf_run_look(run, front, &kind, NULL, NULL) && kind == GF_RUN_CHECKPOINT)) &&
            !gf_run_snapshot(run, front, &snapshot, NULL) &&
            !find_in(snapshot, full + end + (end > 0 && full[end] == '/'), ret_dir,
                     ret_file)) {
            *ret_snapshot = gf_take(&snapshot);
            return 0;
        }
        if (!end)
            break;
        while (end && full[end - 1] != '/')
            end--;
        end -= end > 0;
    }
    return gf_fail(err, ENOENT, "'%s': no file '%s' in it", run->source, path);
}
