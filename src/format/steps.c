/* SPDX-License-Identifier: Apache-2.0 */
#include "format/steps.h"

#include <ctype.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/math.h"
#include "base/strmap.h"
#include "format/dcp_dir.h"

#define MAX_DEPTH 3
#define STEPS_MAX ((size_t)1 << 20)
#define SECOND INT64_C(1000000000)
#define FRESH (2 * SECOND) /* file systems count time in ticks */
#define LATELY (3600 * SECOND)
#define STATS_AT_A_TIME 256
#define OURS ".gatherfs-snapshots.json" /* of 'gatherfs snapshot --every', tools/retain.c */

/* Signs that a step's directory is finished. */
enum { MARK_DONE = 1, MARK_STATE = 2 };

/* ---- names ---- */

static bool digits(const char *s, size_t n, uint64_t *ret)
{
    uint64_t value = 0;

    for (size_t i = 0; i < n; i++)
        value = value * 10 + (uint64_t)(s[i] - '0');
    *ret = value;
    return n > 0 && n <= 18;
}

bool gf_step_number(const char *name, uint64_t *ret)
{
    static const char *const prefixes[] = { "checkpoint-", "checkpoint_",  "step-",
                                            "step_",       "epoch_",       "epoch-",
                                            "global_step", "global_step_", "iter_" };
    const char *lightning = strstr(name, "step=");
    size_t len = strlen(name), start = len;

    if (lightning)
        return digits(lightning + 5, strspn(lightning + 5, "0123456789"), ret);
    while (start && isdigit((unsigned char)name[start - 1]))
        start--;
    for (size_t i = 0; i < GF_COUNT(prefixes); i++)
        if (strlen(prefixes[i]) == start && strncmp(name, prefixes[i], start) == 0)
            return digits(name + start, len - start, ret);
    return false;
}

/* Half-written: an export of ours, a save of a Trainer that is renamed when it is whole. */
static bool is_staged(const char *name)
{
    return strstr(name, ".gatherfs-part") || strstr(name, ".gatherfs-old") ||
           strncmp(name, "tmp-checkpoint-", 15) == 0;
}

/* Never checkpoints of a model, and sometimes large: not looked into. */
static bool is_skipped(const char *name)
{
    static const char *const names[] = { "logs", "runs", "wandb", "tensorboard",
                                         "completions" };

    for (size_t i = 0; i < GF_COUNT(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return name[0] == '.' || strncmp(name, "optimizer", 9) == 0 || is_staged(name);
}

/* What belongs to the checkpoint in the directory above: its weights, or files for it. */
static bool is_part(const char *name)
{
    static const char *const names[] = { "pytorch_model_fsdp_0", "hf_model", "huggingface",
                                         "hf_config" };

    for (size_t i = 0; i < GF_COUNT(names); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* The name under which a Lightning file is shown: without ".ckpt". 0: it is none. */
static size_t ckpt_len(const char *name)
{
    static const char suffix[] = ".ckpt";
    size_t n = strlen(name), m = sizeof(suffix) - 1;

    return n > m && strcmp(name + n - m, suffix) == 0 ? n - m : 0;
}

/* ---- the search ---- */

struct search {
    struct gf_dir *dir;
    const struct gf_steps *before;
    struct gf_steps *steps;
    int64_t now;
    struct gf_err *err;
};

/* A directory on the way down. */
struct place {
    const char *path, *name;
    const struct place *above; /* NULL: SOURCE */
    struct gf_identity identity;
    unsigned depth;
    const struct gf_json *ours; /* the snapshots of ours in the directory above, or NULL */
    struct gf_step like;        /* what steps in it inherit: number, head, marks */
};

static bool has(const struct gf_dir_listing *listing, const char *name)
{
    return gf_dir_listing_find(listing, name) != NULL;
}

static unsigned marks_of(const struct gf_dir_listing *listing)
{
    unsigned marks =
        has(listing, "COMPLETED") || has(listing, ".checkpoint_complete") ? MARK_DONE : 0;

    for (size_t i = 0; i < listing->n && !(marks & MARK_STATE); i++)
        if (strncmp(listing->at[i].name, "random_states_", 14) == 0)
            marks |= MARK_STATE;
    return marks;
}

static void hide(struct gf_step *step, const char *why)
{
    step->complete = false;
    snprintf(step->why, sizeof(step->why), "%.*s", GF_WHY - 1, why);
}

static char *join(const char *a, const char *b, size_t nb)
{
    char *path;

    return asprintf(&path, "%s%s%.*s", a, *a && nb ? "/" : "", (int)nb, b) < 0 ? NULL
                                                                               : path;
}

/* Which checkpoints in a directory are snapshots of ours, or NULL. */
static struct gf_json *list_of_ours(struct gf_dir *dir, const char *in)
{
    GF_AUTO_MEM char *path = join(in, OURS, strlen(OURS));
    GF_AUTO_MEM char *text = NULL;
    struct gf_json *doc;
    size_t len;

    if (!path || gf_dir_read(dir, path, dir->limits->json_bytes, &text, &len, NULL) ||
        gf_json_parse(path, text, len, dir->limits, &doc, NULL))
        return NULL;
    return doc;
}

/* Those get their name when all of them is on disk. */
static bool is_ours(const struct gf_json *list, uint64_t number)
{
    const struct gf_json *at = gf_json_at(gf_json_get(list, "checkpoints"), 0);
    uint64_t step;

    for (; at; at = gf_json_next(at))
        if (gf_json_u64(gf_json_get(at, "step"), &step) && step == number)
            return true;
    return false;
}

/* Links to them: what is shown has links of these names anyway. */
static bool is_link_of_ours(const char *name)
{
    return strcmp(name, "latest") == 0 || strcmp(name, "best") == 0;
}

/* The producer's own word that a step is finished; the formats' rules come on top. SOURCE
 * itself was named by the user: for it only those hold. */
static void judge(struct gf_step *step, const char *name, const struct gf_json *ours,
                  const struct gf_dir_listing *listing)
{
    uint64_t n;

    step->complete = true;
    if (!*name || step->marks & MARK_STATE || has(listing, "trainer_state.json"))
        return;
    if (strncmp(name, "checkpoint-", 11) == 0 && gf_step_number(name, &n)) {
        if (!is_ours(ours, n))
            hide(step, "no 'trainer_state.json' yet, which a Trainer writes last");
    } else if (has(listing, "optimizer.bin") || has(listing, "scheduler.bin"))
        hide(step, "no 'random_states_0.pkl' yet, which Accelerate writes last");
}

static void step_done(struct gf_step *step)
{
    free(step->path);
    free(step->dir);
    free(step->tag);
    free(step->file);
}

/* A step at dir, or at dir/below of `nbelow` bytes. */
static int push(struct search *s, const struct gf_step *like, const char *dir,
                const char *below, size_t nbelow, const char *tag, const char *file)
{
    struct gf_step step = *like;

    step.path = join(dir, below, nbelow);
    step.dir = strdup(dir);
    step.tag = tag ? strdup(tag) : NULL;
    step.file = file ? strdup(file) : NULL;
    if (!step.path || !step.dir || (tag && !step.tag) || (file && !step.file) ||
        gf_vec_push(&s->steps->at, step, STEPS_MAX)) {
        step_done(&step);
        return gf_nomem(s->err);
    }
    return 0;
}

/* The number of what is called `name`, at dir/name, unless a directory above has one. */
static struct gf_step named(const struct gf_step *above, const char *name, size_t path_len)
{
    struct gf_step step = *above;

    if (!step.has_number && gf_step_number(name, &step.number)) {
        step.has_number = true;
        step.head = path_len;
    }
    return step;
}

/* The tags of a layout that keeps several steps in one directory. A single one is what the
 * directory itself shows. */
static int push_tags(struct search *s, const struct place *at, const struct gf_step *owner,
                     const struct gf_dir_listing *tags)
{
    int r = 0;

    for (size_t i = 0; i < tags->n && tags->n > 1 && !r; i++) {
        const char *tag = tags->at[i].name;
        size_t len = strlen(at->path) + (*at->path != '\0') + strlen(tag);
        struct gf_step step = named(&at->like, tag, len);

        step.complete = true;
        step.format = owner->format;
        snprintf(step.seen, sizeof(step.seen), "a tag beside others");
        r = push(s, &step, at->path, tag, strlen(tag), tag, NULL);
    }
    return r;
}

/* Lightning keeps a file for each step. */
static int push_files(struct search *s, struct gf_dir *sub, const struct place *at,
                      const struct gf_dir_listing *listing)
{
    int r = 0;

    for (size_t i = 0; i < listing->n && !r; i++) {
        const char *name = listing->at[i].name;
        size_t n = listing->at[i].is_dir ? 0 : ckpt_len(name);
        const struct gf_format *format;
        char seen[GF_WHY], shown[NAME_MAX + 1];
        struct gf_step step;

        if (!n || gf_format_detect(sub, name, NULL, &format, seen, NULL))
            continue;
        snprintf(shown, sizeof(shown), "%.*s", (int)n, name);
        if (has(listing, shown))
            n = strlen(name);
        step = named(&at->like, name, strlen(at->path) + (*at->path != '\0') + n);
        step.complete = true;
        step.format = format->name;
        memcpy(step.seen, seen, sizeof(seen));
        r = push(s, &step, at->path, name, n, NULL, name);
    }
    return r;
}

static int look(struct search *s, struct place *at);

/* A link up, to a directory that is being looked into. */
static bool is_above(const struct place *at, const struct gf_dir_entry *entry)
{
    for (; at; at = at->above)
        if (entry->identity.ino && at->identity.ino == entry->identity.ino &&
            at->identity.dev == entry->identity.dev)
            return true;
    return false;
}

/* In a checkpoint of a run only Accelerate's further models (pytorch_model_fsdp_1) are looked
 * into, of others all that may hold checkpoints but for tags. */
static int descend(struct search *s, const struct place *at,
                   const struct gf_dir_listing *listing, const struct gf_dir_listing *tags,
                   bool found, bool models)
{
    GF_AUTO(gf_json) ours = has(listing, OURS) ? list_of_ours(s->dir, at->path) : NULL;
    int r = 0;

    for (size_t i = 0; i < listing->n && !r; i++) {
        const struct gf_dir_entry *e = &listing->at[i];
        GF_AUTO_MEM char *path = NULL;
        struct place below = { .name = e->name,
                               .above = at,
                               .identity = e->identity,
                               .depth = at->depth + 1,
                               .ours = ours,
                               .like = at->like };

        if (!e->is_dir || is_skipped(e->name) || is_above(at, e) || has(tags, e->name) ||
            (found && is_part(e->name)) || (models && !gf_dcp_name_is_model(e->name)) ||
            (ours && is_link_of_ours(e->name)))
            continue;
        below.path = path = join(at->path, e->name, strlen(e->name));
        if (!path)
            return gf_nomem(s->err);
        r = look(s, &below);
    }
    return r;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct gf_step *)a)->path, ((const struct gf_step *)b)->path);
}

static int watched_order(const void *a, const void *b)
{
    return strcmp(((const struct gf_watched *)a)->path,
                  ((const struct gf_watched *)b)->path);
}

static struct gf_watched *watched_at(const struct gf_steps *steps, const char *path,
                                     size_t len)
{
    size_t lo = 0, hi = steps ? steps->watched.n : 0;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        struct gf_watched *w = &steps->watched.at[mid];
        int order = strncmp(path, w->path, len);

        order = order ? order : -(w->path[len] != '\0');
        if (order == 0)
            return w;
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

static bool same(const struct gf_identity *a, const struct gf_identity *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->mtime_ns == b->mtime_ns &&
           a->ctime_ns == b->ctime_ns;
}

/* Before it is listed: what comes later changes the identity. */
static int watch(struct search *s, struct place *at, struct gf_watched *ret)
{
    struct gf_watched w = { .path = strdup(at->path) };
    struct gf_dir_entry entry;
    int64_t changed;

    if (!w.path)
        return gf_nomem(s->err);
    if (!gf_dir_stat(s->dir, at->path, &entry))
        at->identity = w.identity = entry.identity;
    changed = GF_MAX(w.identity.mtime_ns, w.identity.ctime_ns);
    w.fresh = changed > s->now - FRESH;
    w.busy = changed > s->now - LATELY || !*at->path;
    *ret = w;
    return 0;
}

/* Takes over w. */
static int push_watched(struct search *s, struct gf_watched *w)
{
    if (!gf_vec_push(&s->steps->watched, *w, STEPS_MAX))
        return 0;
    free(w->path);
    return gf_nomem(s->err);
}

/* A checkpoint that had settled when it was looked into, and has not changed since. */
static const struct gf_step *settled(const struct search *s, const struct gf_watched *w)
{
    const struct gf_watched *old = watched_at(s->before, w->path, strlen(w->path));

    if (!old || !old->settled || w->fresh || !same(&old->identity, &w->identity))
        return NULL;
    return gf_steps_get(s->before, w->path);
}

static int look_inside(struct search *s, struct place *at, struct gf_watched *w)
{
    GF_AUTO(gf_dir) sub = NULL;
    struct gf_dir_listing listing = { 0 }, tags = { 0 };
    struct gf_dir *dir = s->dir;
    const struct gf_format *format = NULL;
    size_t before = s->steps->at.n;
    struct gf_err several = { 0 };
    struct gf_step step;
    bool found, single;
    int r = *at->path ? gf_dir_sub(s->dir, at->path, &sub, s->err) : 0;

    if (r || gf_dir_list(s->dir, at->path, &listing, NULL))
        return r;
    dir = sub ? sub : dir;
    step = at->like;
    step.marks |= marks_of(&listing);
    at->like.marks = step.has_number ? step.marks : 0;
    r = gf_format_detect(dir, NULL, NULL, &format, step.seen, &several);
    found = r == 0 || r == -EINVAL;
    r = 0;
    if (found) {
        judge(&step, at->name, at->ours, &listing);
        step.format = format ? format->name : NULL;
        if (!format)
            hide(&step, several.text);
        r = push(s, &step, at->path, "", 0, NULL, NULL);
    }
    if (!r && format && format->tags && !format->tags(dir, &tags, NULL))
        r = push_tags(s, at, &step, &tags);
    if (!r && !found)
        r = push_files(s, dir, at, &listing);
    /* SOURCE, and a root with tags, are a run besides. */
    single = found && *at->path && (step.has_number || !tags.n);
    if (!r && at->depth < MAX_DEPTH)
        r = descend(s, at, &listing, &tags, found, single);
    w->settled = single && s->steps->at.n == before + 1;
    gf_dir_listing_free(&listing);
    gf_dir_listing_free(&tags);
    return r;
}

static int look(struct search *s, struct place *at)
{
    const struct gf_step *old;
    struct gf_watched w = { 0 };
    int r;

    at->like = named(&at->like, at->name, strlen(at->path));
    r = watch(s, at, &w);
    if (r)
        return r;
    old = settled(s, &w);
    w.settled = old != NULL;
    r = old ? push(s, old, old->dir, "", 0, NULL, NULL) : look_inside(s, at, &w);
    if (r)
        free(w.path);
    return r ? r : push_watched(s, &w);
}

/* ---- what the steps say of each other ---- */

/* Where a step's siblings are: of `done` markers the whole directory, of states only those of
 * one kind of name. */
static char *family(struct gf_arena *arena, const struct gf_step *step, unsigned mark)
{
    size_t n = step->head;

    if (mark == MARK_STATE)
        while (n && isdigit((unsigned char)step->path[n - 1]))
            n--;
    else
        while (n && step->path[n - 1] != '/')
            n--;
    return gf_arena_strndup(arena, step->path, n);
}

/* Where finished steps carry a marker, steps without one are not finished. */
static int apply_mark(struct search *s, unsigned mark, const char *why)
{
    struct gf_arena arena = { 0 };
    struct gf_strmap families = { 0 };
    uint64_t ignored;
    int r = 0;

    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < s->steps->at.n && !r; i++) {
            struct gf_step *step = &s->steps->at.at[i];
            char *key;

            if (!step->has_number || !*step->path || step->tag || step->file ||
                (pass == 0) != ((step->marks & mark) != 0) || (pass && !families.n))
                continue;
            key = family(&arena, step, mark);
            if (!key || (pass == 0 && gf_strmap_put(&families, key, 0, NULL) == -ENOMEM))
                r = gf_nomem(s->err);
            else if (pass == 1 && step->complete && gf_strmap_get(&families, key, &ignored))
                hide(step, why);
        }
    gf_strmap_done(&families);
    gf_arena_done(&arena);
    return r;
}

/* Directories on the way to a checkpoint get new ones; unfinished ones never settle. */
static void finish_watched(struct gf_steps *steps)
{
    for (size_t i = 0; i < steps->at.n; i++) {
        const char *path = steps->at.at[i].path;

        for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
            struct gf_watched *w = watched_at(steps, path, (size_t)(slash - path));

            if (w)
                w->busy = true;
        }
    }
    for (size_t i = 0; i < steps->watched.n; i++) {
        struct gf_watched *w = &steps->watched.at[i];
        const struct gf_step *step = w->settled ? gf_steps_get(steps, w->path) : NULL;

        w->settled = step && step->complete && !w->fresh;
    }
}

int gf_steps_find(struct gf_dir *dir, const struct gf_steps *before, struct gf_steps *ret,
                  struct gf_err *err)
{
    struct gf_steps steps = { 0 };
    struct search s = { .dir = dir, .before = before, .steps = &steps, .err = err };
    struct place top = { .path = "", .name = "" };
    struct timespec now;
    int r;

    clock_gettime(CLOCK_REALTIME, &now);
    s.now = now.tv_sec * SECOND + now.tv_nsec;
    r = look(&s, &top);
    if (!r && steps.at.n)
        qsort(steps.at.at, steps.at.n, sizeof(*steps.at.at), by_path);
    if (!r)
        r = apply_mark(&s, MARK_DONE,
                       "no 'COMPLETED' or '.checkpoint_complete', which other "
                       "steps have");
    if (!r)
        r = apply_mark(&s, MARK_STATE,
                       "no 'random_states_0.pkl' yet, which other steps have");
    if (r) {
        gf_steps_done(&steps);
        return r;
    }
    qsort(steps.watched.at, steps.watched.n, sizeof(*steps.watched.at), watched_order);
    finish_watched(&steps);
    *ret = steps;
    return 0;
}

void gf_steps_done(struct gf_steps *steps)
{
    for (size_t i = 0; i < steps->at.n; i++)
        step_done(&steps->at.at[i]);
    gf_vec_free(&steps->at);
    for (size_t i = 0; i < steps->watched.n; i++)
        free(steps->watched.at[i].path);
    gf_vec_free(&steps->watched);
    *steps = (struct gf_steps){ 0 };
}

struct gf_step *gf_steps_get(const struct gf_steps *steps, const char *path)
{
    const struct gf_step key = { .path = (char *)(uintptr_t)path };

    return steps->at.n
               ? bsearch(&key, steps->at.at, steps->at.n, sizeof(*steps->at.at), by_path)
               : NULL;
}

/* ---- later ---- */

static bool is_stale(struct gf_dir *dir, const struct gf_watched *w)
{
    struct gf_dir_entry entry;

    return w->fresh || gf_dir_stat(dir, w->path, &entry) ||
           !same(&entry.identity, &w->identity);
}

bool gf_steps_stale(struct gf_dir *dir, struct gf_steps *steps)
{
    size_t n = steps->watched.n, left = STATS_AT_A_TIME;

    for (size_t i = 0; i < n; i++)
        if (steps->watched.at[i].busy && !steps->watched.at[i].settled &&
            is_stale(dir, &steps->watched.at[i]))
            return true;
    for (size_t i = 0; i < n && left; i++) {
        const struct gf_watched *w = &steps->watched.at[steps->cursor++ % n];

        if (w->busy || w->settled)
            continue;
        left--;
        if (is_stale(dir, w))
            return true;
    }
    return false;
}

/* trainer_state.json's best_model_checkpoint: a path as it was at run time, so only its last
 * component counts. */
static char *trainers_best(struct gf_dir *dir, const char *latest)
{
    GF_AUTO_MEM char *path = join(latest, "trainer_state.json", 18);
    GF_AUTO_MEM char *text = NULL;
    GF_AUTO(gf_json) state = NULL;
    char *best;
    size_t len;

    if (!path || gf_dir_read(dir, path, dir->limits->json_bytes, &text, &len, NULL) ||
        gf_json_parse(path, text, len, dir->limits, &state, NULL) ||
        !gf_json_str(gf_json_get(state, "best_model_checkpoint")))
        return NULL;
    best = strdup(gf_json_str(gf_json_get(state, "best_model_checkpoint")));
    for (len = best ? strlen(best) : 0; len && best[len - 1] == '/'; len--)
        best[len - 1] = '\0';
    return best;
}

/* The snapshot of ours in `beside` that its link "best" leads to. */
static char *best_of_ours(struct gf_dir *dir, const char *beside)
{
    GF_AUTO(gf_json) ours = list_of_ours(dir, beside);
    GF_AUTO_MEM char *link = ours ? join(beside, "best", 4) : NULL;
    const struct gf_json *at = gf_json_at(gf_json_get(ours, "checkpoints"), 0);
    struct gf_dir_entry best, entry;

    if (!link || gf_dir_stat(dir, link, &best) || !best.identity.ino)
        return NULL;
    for (; at; at = gf_json_next(at)) {
        GF_AUTO_MEM char *path = NULL;
        char name[32];
        uint64_t step;

        if (!gf_json_u64(gf_json_get(at, "step"), &step))
            continue;
        snprintf(name, sizeof(name), "checkpoint-%" PRIu64, step);
        path = join(beside, name, strlen(name));
        if (path && !gf_dir_stat(dir, path, &entry) &&
            entry.identity.ino == best.identity.ino &&
            entry.identity.dev == best.identity.dev)
            return gf_take(&path);
    }
    return NULL;
}

char *gf_step_best(struct gf_dir *dir, const char *latest)
{
    const char *slash = strrchr(latest, '/');
    GF_AUTO_MEM char *beside = strndup(latest, slash ? (size_t)(slash - latest) : 0);
    GF_AUTO_MEM char *trlx = beside ? join(beside, "best_checkpoint", 15) : NULL;
    GF_AUTO_MEM char *best = NULL;
    struct gf_dir_entry entry;

    if (!trlx)
        return NULL;
    if (!gf_dir_stat(dir, trlx, &entry) && entry.is_dir)
        return gf_take(&trlx);
    best = best_of_ours(dir, beside);
    if (best)
        return gf_take(&best);
    best = trainers_best(dir, latest);
    slash = best ? strrchr(best, '/') : NULL;
    slash = slash ? slash + 1 : best;
    return slash && *slash ? join(beside, slash, strlen(slash)) : NULL;
}
