/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot.c - opening a checkpoint (detect, read, check, side files), pins, and reads.
 *
 * Lock: snapshot->lock guards the pin count.
 */
#include "snapshot/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"
#include "snapshot/layers.h"
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
    if (r)
        return r;
    s->bound =
        (struct gf_bound){ s->found.catalog, s->found.sources.at, s->found.sources.n };
    s->kind = gf_state_kind(s->found.catalog, NULL);
    if (s->kind == GF_STATE_COMPOSITE)
        r = gf_state_components(s->found.catalog, s->components, GF_MAX_COMPONENTS,
                                &s->ncomponents, err);
    if (r)
        return r;
    r = gf_side_find(dir, base, &s->found, s->opt, &s->side, err);
    if (r)
        return r;
    fill_info(s);
    r = gf_snapshot_choose_default(s, err);
    return r ? r : gf_snapshot_choose_listed(s, err);
}

int gf_snapshot_open(struct gf_dir *dir, const char *base, const char *file,
                     const char *tag, const struct gf_options *opt,
                     struct gf_snapshot **ret, struct gf_err *err)
{
    GF_AUTO(gf_snapshot) s = calloc(1, sizeof(*s));
    struct gf_err local = { 0 };
    int r;

    if (!s)
        return gf_nomem(err);
    atomic_init(&s->refs, 1);
    pthread_mutex_init(&s->lock, NULL);
    s->opt = opt;
    r = fill(s, dir, base, file, tag, err ? err : &local);
    if (r)
        return r;
    *ret = gf_take(&s);
    return 0;
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
    gf_vec_free(&s->listed);
    gf_side_done(&s->side);
    gf_found_done(&s->found);
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
