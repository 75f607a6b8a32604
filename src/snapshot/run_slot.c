/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run_slot.c - the checkpoints of SOURCE, followed while training goes on.
 *
 * A slot is a checkpoint: what format/steps knows of it (names and markers), and its snapshot
 * once somebody looked. Whether a finished-looking step can really be served shows when it is
 * opened. A slot whose files changed is opened anew at the next look; the root keeps its old
 * snapshot until that succeeds. Of the snapshots that nobody holds a few are kept.
 *
 * Locks: run->lock guards the slots. Snapshots are opened without it, by one thread each, for
 * which the others that need the same slot wait (gf_run_again). The poll, which is one thread,
 * searches for steps and opens the root's next snapshot without it, too. Reads never take it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"
#include "snapshot/run_int.h"
#include "snapshot/side.h"

/* Polls between two tries of a root that cannot be opened and looks the same. */
#define ROOT_RETRY 30

#define KEPT 8       /* open snapshots that nobody holds */
#define REFRESHED 64 /* slots that one poll looks at */

/* ---- prints: has anything changed? ---- */

static uint64_t add_print(uint64_t h, const struct gf_dir_entry *e)
{
    h = gf_hash(h, e->name, strlen(e->name) + 1);
    h = gf_hash(h, &e->identity.mtime_ns, sizeof(e->identity.mtime_ns));
    return gf_hash(h, &e->identity.size, sizeof(e->identity.size));
}

/* Names, sizes and times of a directory's files, `deep` levels of sub-directories with it. */
static uint64_t print_files(struct gf_dir *dir, const char *path, unsigned deep, uint64_t h)
{
    struct gf_dir_listing listing = { 0 };

    if (gf_dir_list(dir, path, &listing, NULL))
        return h;
    for (size_t i = 0; i < listing.n; i++) {
        GF_AUTO_MEM char *below = NULL;

        if (!listing.at[i].is_dir) {
            h = add_print(h, &listing.at[i]);
        } else if (deep) {
            if (asprintf(&below, "%s%s%s", path, *path ? "/" : "", listing.at[i].name) < 0)
                below = NULL;
            else
                h = print_files(dir, below, deep - 1, h);
        }
    }
    gf_dir_listing_free(&listing);
    return h;
}

/* What an open snapshot was made of is asked by itself: here it is enough to see new files.
 * What is missing may also come one level further down: once an opening has failed, the print
 * goes there, which is a change and brings one more try. */
static uint64_t print_of(struct gf_run *run, const struct gf_step *step, unsigned deep)
{
    struct gf_dir_entry entry = { .name = step->file };
    GF_AUTO_MEM char *path = NULL;
    uint64_t h = 1;

    if (run->file)
        return 0;
    if (!step->file) {
        h = print_files(run->dir, step->dir, step->tag ? 0 : deep, h);
        return step->tag ? print_files(run->dir, step->path, deep, h) : h;
    }
    if (asprintf(&path, "%s%s%s", step->dir, *step->dir ? "/" : "", step->file) < 0)
        path = NULL;
    if (!path || gf_dir_stat(run->dir, path, &entry))
        return h;
    entry.name = step->file;
    return add_print(h, &entry);
}

/* Checkpoints search the root for their config and tokenizer. */
static uint64_t print_side(struct gf_run *run)
{
    struct gf_dir_listing listing = { 0 };
    uint64_t h = 1;

    if (gf_dir_list(run->dir, "", &listing, NULL))
        return 0;
    for (size_t i = 0; i < listing.n; i++)
        if (!listing.at[i].is_dir && gf_side_is_wanted(listing.at[i].name))
            h = add_print(h, &listing.at[i]);
    gf_dir_listing_free(&listing);
    return h;
}

/* ---- snapshots ---- */

static int open_snapshot(struct gf_run *run, const struct gf_step *step,
                         struct gf_snapshot **ret, struct gf_err *err)
{
    return gf_snapshot_open(run->dir, step->dir, step->file ? step->file : run->file,
                            step->tag, run->opt, ret, err);
}

/* Takes over fresh. Of equal snapshots the old one stays, and with it what the kernel caches. */
static int take_snapshot(struct gf_slot *slot, struct gf_snapshot *fresh)
{
    char *tag = strdup(gf_snapshot_info(fresh)->tag);

    if (!tag) {
        gf_snapshot_free(fresh);
        return -ENOMEM;
    }
    free(slot->tag);
    slot->tag = tag;
    if (slot->snapshot && gf_snapshot_unchanged(slot->snapshot) &&
        gf_snapshot_info(slot->snapshot)->id == gf_snapshot_info(fresh)->id) {
        gf_snapshot_free(fresh);
        return 0;
    }
    gf_snapshot_free(slot->snapshot);
    slot->snapshot = fresh;
    return 0;
}

static void drop_snapshot(struct gf_slot *slot)
{
    gf_snapshot_free(slot->snapshot);
    slot->snapshot = NULL;
}

/* Snapshots that nobody holds are dropped, but for the last few: a catalog may be large. */
static void trim(struct gf_run *run)
{
    size_t idle;

    do {
        struct gf_slot *oldest = NULL;

        idle = 0;
        for (size_t i = 0; i < run->n; i++) {
            struct gf_slot *slot = &run->slots[i];

            if (!slot->snapshot || !*slot->step->path ||
                gf_snapshot_is_shared(slot->snapshot))
                continue;
            idle++;
            if (!oldest || slot->used < oldest->used)
                oldest = slot;
        }
        if (idle > KEPT)
            drop_snapshot(oldest);
    } while (idle > KEPT + 1);
}

int gf_run_known(struct gf_run *run, struct gf_slot *slot, struct gf_err *err)
{
    if (!slot->step->complete)
        return gf_fail(err, GF_EINCOMPLETE, "'%s': %s", slot->step->path, slot->step->why);
    if (slot->state == GF_SLOT_BAD)
        return gf_fail(err, slot->why.code, "%s", slot->why.text);
    if (slot->state == GF_SLOT_GOOD || (slot->opening && run->hasty))
        return 0;
    run->want = slot;
    return -EAGAIN;
}

int gf_run_try(struct gf_run *run, struct gf_slot *slot, struct gf_err *err)
{
    int r = gf_run_known(run, slot, err);

    if (r)
        return r;
    slot->used = ++run->clock;
    if (slot->snapshot)
        return 0;
    run->want = slot;
    return -EAGAIN;
}

static void set_bad(struct gf_slot *slot, const struct gf_err *why)
{
    drop_snapshot(slot);
    slot->state = GF_SLOT_BAD;
    slot->deep = 1;
    slot->why = *why;
}

/* The step as long as the lock is not held: the poll may replace all of them. */
static int copy_step(const struct gf_step *step, struct gf_step *ret)
{
    *ret = (struct gf_step){ .path = strdup(step->path),
                             .dir = strdup(step->dir),
                             .tag = step->tag ? strdup(step->tag) : NULL,
                             .file = step->file ? strdup(step->file) : NULL };
    return ret->path && ret->dir && (!step->tag || ret->tag) && (!step->file || ret->file)
               ? 0
               : -ENOMEM;
}

static void free_step(struct gf_step *step)
{
    free(step->path);
    free(step->dir);
    free(step->tag);
    free(step->file);
}

/* What an opening came to, unless the slot is another one meanwhile. */
static int settle(struct gf_run *run, const char *path, uint64_t number, uint64_t print,
                  struct gf_snapshot *fresh, const struct gf_err *why)
{
    struct gf_slot *slot = gf_run_slot(run, path);

    if (!slot || slot->opening != number) {
        gf_snapshot_free(fresh);
        return 0;
    }
    slot->opening = 0;
    slot->print = print;
    if (!fresh) {
        if (why->code != ENOMEM)
            set_bad(slot, why);
        return why->code == ENOMEM ? -ENOMEM : 0;
    }
    if (take_snapshot(slot, fresh))
        return -ENOMEM;
    slot->state = GF_SLOT_GOOD;
    slot->deep = 0;
    slot->used = ++run->clock;
    trim(run);
    return 0;
}

/* Opens the slot's snapshot. Lets go of the lock. */
static int open_slot(struct gf_run *run, struct gf_slot *slot)
{
    struct gf_snapshot *fresh = NULL;
    uint64_t number = ++run->clock, print;
    unsigned deep = slot->deep;
    struct gf_err why = { 0 };
    struct gf_step step;
    int r = copy_step(slot->step, &step);

    if (!r) {
        slot->opening = number;
        pthread_mutex_unlock(&run->lock);
        print = print_of(run, &step, deep);
        r = open_snapshot(run, &step, &fresh, &why);
        if (r && !why.code)
            gf_fail(&why, -r, "'%s': %s", step.path, strerror(-r));
        pthread_mutex_lock(&run->lock);
        r = settle(run, step.path, number, print, fresh, &why);
        pthread_cond_broadcast(&run->opened);
    }
    free_step(&step);
    return r;
}

bool gf_run_again(struct gf_run *run, const struct timespec *until, int *r,
                  struct gf_err *err)
{
    struct gf_slot *slot = gf_take(&run->want);

    if (!slot)
        return false;
    if (slot->opening && until)
        pthread_cond_timedwait(&run->opened, &run->lock, until);
    else if (slot->opening)
        pthread_cond_wait(&run->opened, &run->lock);
    else if (open_slot(run, slot)) {
        *r = gf_nomem(err);
        return false;
    }
    if (err)
        *err = (struct gf_err){ 0 };
    return true;
}

bool gf_run_shown(struct gf_run *run, struct gf_slot *slot)
{
    const struct gf_step *step = slot->step;
    struct gf_slot *owner;

    if (!step->complete || slot->state == GF_SLOT_BAD)
        return false;
    if (!step->tag || !*step->path)
        return true;
    /* Of a layout with tags, the directory itself shows one of them. */
    owner = gf_run_slot(run, step->dir);
    return !owner || gf_run_known(run, owner, NULL) || !owner->tag ||
           strcmp(owner->tag, step->tag) != 0;
}

/* ---- slots ---- */

struct gf_slot *gf_run_slot(struct gf_run *run, const char *path)
{
    const struct gf_step *step = gf_steps_get(&run->steps, path);

    return step ? &run->slots[step - run->steps.at.at] : NULL;
}

/* The first slot whose path is not below `path`. */
static size_t lower_bound(const struct gf_run *run, const char *path)
{
    size_t lo = 0, hi = run->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (strcmp(run->slots[mid].step->path, path) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void gf_run_range(struct gf_run *run, const char *dir, size_t *ret_first, size_t *ret_end)
{
    GF_AUTO_MEM char *front = NULL;
    size_t len = strlen(dir) + 1, n;

    *ret_first = run->n && !*run->slots[0].step->path;
    *ret_end = run->n;
    if (!*dir)
        return;
    *ret_end = *ret_first;
    if (asprintf(&front, "%s/", dir) < 0) {
        front = NULL;
        return;
    }
    /* All that is below is together: nothing else begins with DIR/. */
    n = lower_bound(run, front);
    *ret_first = n;
    front[len - 1] = '/' + 1;
    *ret_end = lower_bound(run, front);
}

static void free_slots(struct gf_slot *slots, struct gf_slot **order, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        /* The kernel may know its nodes for long: files that are gone are let go of now. */
        if (slots[i].snapshot)
            gf_snapshot_unchanged(slots[i].snapshot);
        gf_snapshot_free(slots[i].snapshot);
        free(slots[i].tag);
    }
    free(slots);
    free(order);
}

void gf_run_slots_free(struct gf_run *run)
{
    free_slots(run->slots, run->order, run->n);
    gf_steps_done(&run->steps);
    free(run->home);
    free(run->best_of);
    free(run->best);
}

static int newest_first(const void *a, const void *b)
{
    const struct gf_step *x = (*(struct gf_slot *const *)a)->step;
    const struct gf_step *y = (*(struct gf_slot *const *)b)->step;

    if (x->has_number != y->has_number)
        return x->has_number ? 1 : -1;
    if (x->has_number && x->number != y->number)
        return x->number < y->number ? 1 : -1;
    return strcmp(x->path, y->path);
}

/* The directory that step's numbered name is in, as a length of its path. */
static size_t home_len(const struct gf_step *step)
{
    size_t n = step->head;

    while (n && step->path[n - 1] != '/')
        n--;
    return n ? n - 1 : 0;
}

bool gf_run_at_home(const struct gf_run *run, const struct gf_step *step)
{
    size_t n = home_len(step);

    return run->home && step->has_number && *step->path && !step->tag &&
           strlen(run->home) == n && strncmp(run->home, step->path, n) == 0;
}

static unsigned depth_of(const struct gf_step *step)
{
    unsigned depth = 0;

    for (size_t i = 0; i < step->head; i++)
        depth += step->path[i] == '/';
    return depth;
}

/* Several runs below SOURCE have no common `latest`. */
static char *find_home(const struct gf_steps *steps)
{
    const struct gf_step *first = NULL;
    bool several = false;

    for (size_t i = 0; i < steps->at.n; i++) {
        const struct gf_step *step = &steps->at.at[i];

        if (!step->has_number || !*step->path || step->tag)
            continue;
        if (!first || depth_of(step) < depth_of(first)) {
            first = step;
            several = false;
        } else if (depth_of(step) == depth_of(first)) {
            several |= home_len(step) != home_len(first) ||
                       strncmp(step->path, first->path, home_len(first)) != 0;
        }
    }
    return first && !several ? strndup(first->path, home_len(first)) : NULL;
}

static bool equal(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* What was known of it, if it is still the same. */
static bool inherit(struct gf_slot *slot, struct gf_slot *old, bool side_changed)
{
    const struct gf_step *a = slot->step, *b = old->step;

    if (!a->complete || a->complete != b->complete || !equal(a->tag, b->tag) ||
        !equal(a->file, b->file) || strcmp(a->dir, b->dir) != 0)
        return a->complete == b->complete;
    *slot = *old;
    slot->step = a;
    old->snapshot = NULL;
    old->tag = NULL;
    if (side_changed && *a->path) {
        slot->opening = 0; /* what is being opened may have the old ones */
        if (slot->state == GF_SLOT_GOOD)
            slot->state = GF_SLOT_UNTRIED;
    }
    return true;
}

/* Takes over steps. */
int gf_run_slots_new(struct gf_run *run, struct gf_steps *steps, bool *ret_changed,
                     struct gf_err *err)
{
    size_t n = steps->at.n, kept = 0;
    struct gf_slot *slots = calloc(n + 1, sizeof(*slots));
    struct gf_slot **order = calloc(n + 1, sizeof(struct gf_slot *));
    uint64_t side = print_side(run);
    bool changed = false;

    if (!slots || !order) {
        free(slots);
        free(order);
        gf_steps_done(steps);
        return gf_nomem(err);
    }
    pthread_mutex_lock(&run->lock);
    for (size_t i = 0; i < n; i++) {
        struct gf_slot *old = gf_run_slot(run, steps->at.at[i].path);

        slots[i].step = &steps->at.at[i];
        order[i] = &slots[i];
        kept += old != NULL;
        changed |= !old || !inherit(&slots[i], old, side != run->side);
    }
    changed |= kept != run->n;
    qsort(order, n, sizeof(struct gf_slot *), newest_first);
    gf_run_slots_free(run);
    run->steps = *steps;
    run->slots = slots;
    run->order = order;
    run->n = n;
    run->home = find_home(&run->steps);
    run->side = side;
    run->best_of = run->best = NULL;
    pthread_mutex_unlock(&run->lock);
    *ret_changed = changed;
    return 0;
}

/* ---- what is there, and what changed ---- */

int gf_run_update(struct gf_run *run, bool *ret_changed, struct gf_err *err)
{
    struct gf_steps steps;
    int r = gf_steps_find(run->dir, &run->steps, &steps, err);

    return r ? r : gf_run_slots_new(run, &steps, ret_changed, err);
}

static bool is_changed(struct gf_run *run, struct gf_slot *slot)
{
    return print_of(run, slot->step, slot->deep) != slot->print ||
           (slot->snapshot && !gf_snapshot_unchanged(slot->snapshot));
}

/* Looks again at what was looked at; true if a later look-up will see something else. */
static bool refresh(struct gf_run *run, struct gf_slot *slot)
{
    bool open = slot->state == GF_SLOT_GOOD && slot->snapshot;

    if ((!open && slot->state != GF_SLOT_BAD) || !is_changed(run, slot))
        return false;
    slot->state = GF_SLOT_UNTRIED;
    return true;
}

/* Some at a time: one that changes unseen meanwhile gives errors, never wrong bytes. */
static bool refresh_some(struct gf_run *run)
{
    bool changed = false;
    size_t left = REFRESHED;

    for (size_t i = 0; i < run->n && left; i++) {
        struct gf_slot *slot = &run->slots[run->cursor++ % run->n];

        if (slot->state == GF_SLOT_UNTRIED || !*slot->step->path)
            continue;
        left--;
        changed |= refresh(run, slot);
    }
    return changed;
}

/* The root's next snapshot. It stays as it is as long as there is none. */
static bool refresh_root(struct gf_run *run)
{
    struct gf_slot *root = gf_run_slot(run, "");
    struct gf_snapshot *fresh = NULL;
    struct gf_err why = { 0 };
    bool changed = false;

    /* Only this thread changes a root that has a snapshot. */
    pthread_mutex_lock(&run->lock);
    if (root && !root->snapshot)
        changed = refresh(run, root);
    root = root && root->snapshot && is_changed(run, root) ? root : NULL;
    pthread_mutex_unlock(&run->lock);
    /* One that could not be opened is tried again when its files look different, or after a
     * while: parsing it each second would never rest. */
    if (!root || (root->deep && print_of(run, root->step, root->deep) == root->print &&
                  ++run->root_waits % ROOT_RETRY))
        return changed;
    root->print = print_of(run, root->step, root->deep);
    root->deep = open_snapshot(run, root->step, &fresh, &why) != 0;
    if (root->deep)
        return false;
    pthread_mutex_lock(&run->lock);
    changed = gf_snapshot_info(root->snapshot)->id != gf_snapshot_info(fresh)->id;
    changed &= take_snapshot(root, fresh) == 0;
    pthread_mutex_unlock(&run->lock);
    return changed;
}

bool gf_run_poll(struct gf_run *run)
{
    bool changed = false;

    if (run->live)
        return gf_live_poll(run->live);
    if (!run->alone && gf_steps_stale(run->dir, &run->steps))
        gf_run_update(run, &changed, NULL);
    changed |= refresh_root(run);
    pthread_mutex_lock(&run->lock);
    changed |= refresh_some(run);
    trim(run);
    pthread_mutex_unlock(&run->lock);
    return changed;
}
