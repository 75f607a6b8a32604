/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.c - opening a checkpoint (detect, read, check, side files), pins, and reads.
 *
 * Lock: snapshot->lock guards the pin count, and the step of a live job in `info`.
 */
#include "snapshot/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"
#include "format/template.h"
#include "snapshot/base_model.h"
#include "snapshot/join.h"
#include "snapshot/layers.h"
#include "snapshot/live_int.h"
#include "snapshot/snapshot_int.h"

/* Equal for equal names, sizes and times: stable across mounts, new for a new step. */
static uint64_t identity(const struct gf_snapshot *s)
{
    uint64_t h = gf_hash(0, s->found.tag, strlen(s->found.tag));

    for (size_t i = 0; i < s->found.sources.n; i++) {
        const struct gf_source *src = s->found.sources.at[i];

        h = gf_hash(h, src->name, strlen(src->name));
        h = gf_hash(h, &src->size, sizeof(src->size));
        h = gf_hash(h, &src->identity.mtime_ns, sizeof(src->identity.mtime_ns));
    }
    for (size_t i = 0; i < s->side.sources.n; i++) {
        const struct gf_source *src = s->side.sources.at[i];

        h = gf_hash(h, src->name, strlen(src->name));
        h = gf_hash(h, &src->identity.mtime_ns, sizeof(src->identity.mtime_ns));
    }
    return h;
}

static uint32_t common_mode(const struct gf_snapshot *s)
{
    uint32_t mode = 0444;

    for (size_t i = 0; i < s->found.sources.n; i++)
        mode &= s->found.sources.at[i]->mode;
    for (size_t i = 0; i < s->side.sources.n; i++)
        mode &= s->side.sources.at[i]->mode;
    return mode;
}

static void fill_info(struct gf_snapshot *s)
{
    const struct gf_found *f = &s->found;

    s->info = (struct gf_snapshot_info){
        .format = f->format,
        .detail = f->detail,
        .tag = f->tag,
        .why = s->why,
        .has_step = f->has_step,
        .step = f->step,
        .complete = f->complete,
        .mtime_ns = f->mtime_ns,
        .mode = common_mode(s),
        .id = identity(s),
        .why_no_default = s->why_no_default,
        .nsources = f->sources.n,
        .ntensors = gf_catalog_len(f->catalog),
        .npieces = gf_catalog_npieces(f->catalog),
    };
}

/* The base model of a PEFT state, where it is at hand: weights if the state lacks them, and
 * side files. That it is not, or does not fit, concerns only the views that need it. */
static int find_base(struct gf_snapshot *s, struct gf_dir *dir, struct gf_err *err)
{
    struct gf_base_model base = { 0 };
    struct gf_err why = { 0 };
    bool needed = false;
    int r = gf_base_model_find(dir, s->side.adapter_config, s->opt, &base, err);

    if (!r && base.dir && !s->opt->base) {
        r = gf_join_is_needed(&s->found, &needed, err);
        if (!r && needed && gf_layers_join_base(&s->found, base.dir, s->opt, &why)) {
            snprintf(base.why, sizeof(base.why), "%.*s", GF_WHY - 1, why.text);
            gf_found_warn(&s->found, "%s", base.why);
        }
        if (!r && !why.code)
            r = gf_side_supply(&s->side, base.dir, s->opt, err);
        if (!r && !why.code && !s->found.template &&
            gf_template_read(base.dir, s->opt->limits, &s->found.template, NULL))
            s->found.template = NULL;
    }
    s->base_vocab = base.vocab;
    memcpy(s->base_why, base.why, sizeof(s->base_why));
    gf_base_model_done(&base);
    return r;
}

/* The views of one adapter of several. A name with a slash is none of a directory. */
static int name_views(struct gf_snapshot *s, const char *adapter, struct gf_err *err)
{
    static const char *const views[] = { "adapter", "full" };

    for (size_t i = 0; i < GF_COUNT(views) && !strchr(adapter, '/'); i++) {
        char *name;

        if (asprintf(&name, "%s.%s", views[i], adapter) < 0)
            return gf_nomem(err);
        s->named[s->nnamed++] = name;
    }
    return 0;
}

static int find_adapters(struct gf_snapshot *s, struct gf_dir *dir, const char *base,
                         struct gf_err *err)
{
    char *names[GF_MAX_ADAPTERS];
    size_t n = 0;
    int r;

    if (gf_state_kind(s->found.catalog, NULL) != GF_STATE_PEFT)
        return 0;
    r = gf_adapter_names(s->found.catalog, names, &n, err);
    for (size_t i = 0; i < n; i++) {
        if (!r)
            r = gf_side_adapter(&s->side, dir, base, &s->found, names[i], s->opt, err);
        if (!r && n > 1 && strcmp(names[i], "default") != 0)
            r = name_views(s, names[i], err);
        free(names[i]);
    }
    return r ? r : find_base(s, dir, err);
}

/* What goes around the tensors that were found: side files, views. */
static int dress(struct gf_snapshot *s, struct gf_dir *dir, const char *base,
                 struct gf_err *err)
{
    int r = gf_side_find(dir, base, &s->found, s->opt, &s->side, err);

    if (!r)
        r = find_adapters(s, dir, base, err);
    if (r)
        return r;
    s->bound =
        (struct gf_bound){ s->found.catalog, s->found.sources.at, s->found.sources.n };
    fill_info(s);
    r = gf_snapshot_choose_kind(s, err);
    if (!r)
        r = gf_snapshot_choose_default(s, err);
    return r ? r : gf_snapshot_choose_listed(s, err);
}

static int fill(struct gf_snapshot *s, struct gf_dir *dir, const char *base,
                const char *file, const char *tag, struct gf_err *err)
{
    GF_AUTO(gf_dir) sub = NULL;
    struct gf_layers_in in = {
        .file = file,
        .tag = tag,
        .opt = s->opt,
    };
    int r = *base ? gf_dir_sub(dir, base, &sub, err) : 0;

    in.dir = sub ? sub : dir;
    if (!r)
        r = gf_layers_read(&in, &s->found, s->why, err);
    return r ? r : dress(s, dir, base, err);
}

static int new_snapshot(const struct gf_options *opt, struct gf_snapshot **ret,
                        struct gf_err *err)
{
    GF_AUTO(gf_snapshot) s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return gf_nomem(err);
    atomic_init(&s->refs, 1);
    pthread_mutex_init(&s->lock, NULL);
    s->opt = opt;
    r = gf_resident_new(opt->cache, &s->resident, err);
    if (!r)
        *ret = gf_take(&s);
    return r;
}

int gf_snapshot_open(struct gf_dir *dir, const char *base, const char *file,
                     const char *tag, const struct gf_options *opt,
                     struct gf_snapshot **ret, struct gf_err *err)
{
    GF_AUTO(gf_snapshot) s = NULL;
    struct gf_err local = { 0 };
    int r = new_snapshot(opt, &s, err);

    if (!r)
        r = fill(s, dir, base, file, tag, err ? err : &local);
    if (!r)
        *ret = gf_take(&s);
    return r;
}

/* ---- live jobs ---- */

/* The step is known once the epoch is bound. */
static void learn_step(struct gf_snapshot *s)
{
    uint64_t step;

    if (!gf_epoch_step(s->epoch, &step))
        return;
    pthread_mutex_lock(&s->lock);
    if (!s->info.has_step)
        s->info.step = step;
    s->info.has_step = true;
    pthread_mutex_unlock(&s->lock);
}

int gf_snapshot_open_live(struct gf_dir *side, struct gf_found *found,
                          struct gf_epoch *epoch, const struct gf_options *opt,
                          struct gf_snapshot **ret, struct gf_err *err)
{
    GF_AUTO(gf_snapshot) s = NULL;
    struct gf_err local = { 0 };
    int r = new_snapshot(opt, &s, err);

    if (r) {
        gf_found_done(found);
        return r;
    }
    s->found = *found;
    *found = (struct gf_found){ 0 };
    s->epoch = gf_epoch_ref(epoch);
    snprintf(s->why, sizeof(s->why), "the ranks of a running job");
    r = gf_layers_finish(opt, &s->found, err ? err : &local);
    if (!r)
        r = dress(s, side, "", err ? err : &local);
    if (r)
        return r;
    learn_step(s);
    *ret = gf_take(&s);
    return 0;
}

int gf_snapshot_enter(struct gf_snapshot *s, pid_t reader, bool (*gave_up)(void *ctx),
                      void *ctx, struct gf_err *err)
{
    struct gf_wait wait = { .ms = (s->opt->timeout ? s->opt->timeout : GF_LIVE_TIMEOUT) *
                                  1000,
                            .gave_up = gave_up,
                            .ctx = ctx };
    int r = s->epoch ? gf_epoch_open(s->epoch, reader, &wait, err) : 0;

    if (s->epoch && !r)
        learn_step(s);
    return r;
}

void gf_snapshot_leave(struct gf_snapshot *s, pid_t reader)
{
    if (s->epoch)
        gf_epoch_close(s->epoch, reader);
}

struct gf_snapshot *gf_snapshot_ref(struct gf_snapshot *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

bool gf_snapshot_is_shared(const struct gf_snapshot *s)
{
    return atomic_load(&s->refs) > 1;
}

void gf_snapshot_free(struct gf_snapshot *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    while (s->built) {
        struct gf_built *next = s->built->next;

        gf_built_free(s->built);
        s->built = next;
    }
    for (size_t i = 0; i < s->ncomponents; i++)
        free(s->components[i]);
    for (size_t i = 0; i < s->nnamed; i++)
        free(s->named[i]);
    gf_resident_free(s->resident);
    gf_vec_free(&s->listed);
    gf_side_done(&s->side);
    gf_found_done(&s->found);
    gf_epoch_free(s->epoch);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const struct gf_snapshot_info *gf_snapshot_info(const struct gf_snapshot *s)
{
    return &s->info;
}

const struct gf_catalog *gf_snapshot_catalog(const struct gf_snapshot *s)
{
    return s->found.catalog;
}

const struct gf_found *gf_snapshot_found(const struct gf_snapshot *s)
{
    return &s->found;
}

bool gf_snapshot_unchanged(struct gf_snapshot *s)
{
    bool same = true;

    /* All of them: a check also lets go of files that are gone. */
    for (size_t i = 0; i < s->found.sources.n; i++)
        same &= gf_source_check(s->found.sources.at[i]) == 0;
    for (size_t i = 0; i < s->side.sources.n; i++)
        same &= gf_source_check(s->side.sources.at[i]) == 0;
    return same;
}

static void unpin_first(struct gf_snapshot *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gf_source_unpin(i < s->found.sources.n
                            ? s->found.sources.at[i]
                            : s->side.sources.at[i - s->found.sources.n]);
}

int gf_snapshot_pin(struct gf_snapshot *s, struct gf_err *err)
{
    size_t n = s->found.sources.n + s->side.sources.n;
    int r = 0;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < n && s->pins == 0 && !r; i++) {
        struct gf_source *src = i < s->found.sources.n
                                    ? s->found.sources.at[i]
                                    : s->side.sources.at[i - s->found.sources.n];

        r = gf_source_pin(src);
        if (r) {
            gf_fail(err, -r, "'%s': %s", src->name,
                    r == -ESTALE ? "changed since it was first read" : strerror(-r));
            unpin_first(s, i);
        }
    }
    if (!r)
        s->pins++;
    pthread_mutex_unlock(&s->lock);
    return r;
}

void gf_snapshot_unpin(struct gf_snapshot *s)
{
    pthread_mutex_lock(&s->lock);
    if (--s->pins == 0)
        unpin_first(s, s->found.sources.n + s->side.sources.n);
    pthread_mutex_unlock(&s->lock);
}

int gf_snapshot_read(const struct gf_vdir *dir, const struct gf_vfile *file, uint64_t off,
                     size_t len, void *buf, size_t *ret_len, struct gf_scratch *scratch,
                     struct gf_fault *fault)
{
    size_t n = off < file->size ? GF_MIN(len, file->size - off) : 0;
    int r = n ? gf_gather_read(&dir->gather, file->image, off, n, buf, scratch, fault) : 0;

    if (!r)
        *ret_len = n;
    return r;
}

int gf_snapshot_iov(const struct gf_vdir *dir, const struct gf_vfile *file, uint64_t off,
                    size_t len, struct gf_scratch *scratch, struct iovec *iov, int max,
                    int *ret_n, struct gf_fault *fault)
{
    size_t n = off < file->size ? GF_MIN(len, file->size - off) : 0;

    if (n)
        return gf_gather_iov(&dir->gather, file->image, off, n, scratch, iov, max, ret_n,
                             fault);
    *ret_n = 0;
    return 0;
}
