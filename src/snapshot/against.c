/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/against.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/math.h"
#include "base/strmap.h"
#include "base/vec.h"
#include "container/safetensors.h"
#include "snapshot/sweep.h"
#include "source/dir.h"

struct their_file {
    struct gf_source *source;
    struct gf_safetensors *st;
};

struct theirs {
    const struct gf_safetensors_entry *entry;
    struct gf_source *source;
    bool seen; /* the view has it too */
};

struct gf_against {
    char *path;
    const struct gf_limits *limits;
    struct gf_dir *dir;
    struct GF_VEC(struct their_file) files;
    struct GF_VEC(struct theirs) tensors;
    struct gf_strmap by_name; /* -> index into tensors */
};

/* A tensor of the view's file: where its twin is, and the first byte that differs. */
struct pair {
    struct gf_source *source; /* NULL: there is no twin to compare with */
    uint64_t begin;
    atomic_uint_least64_t differs; /* UINT64_MAX: nowhere so far */
};

struct gf_against_file {
    struct gf_against *against;
    struct gf_safetensors *st; /* ours */
    struct pair *pairs;        /* one for each of its entries */
};

/* ---------------------------------------------------------------- their side */

bool gf_is_safetensors(const char *name)
{
    static const char suffix[] = ".safetensors";
    size_t len = strlen(name);

    return len > strlen(suffix) && !strcmp(name + len - strlen(suffix), suffix);
}

static int parse_theirs(const struct gf_against *against, struct their_file *file,
                        struct gf_err *err)
{
    struct gf_source *source = file->source;
    GF_AUTO_MEM uint8_t *header = NULL;
    uint8_t first[8] = { 0 };
    uint64_t len;
    int r = gf_source_read_err(source, first, GF_MIN(sizeof(first), (size_t)source->size),
                               0, err);

    if (!r)
        r = gf_safetensors_header_len(source->name, first, source->size, against->limits,
                                      &len, err);
    if (r)
        return r;
    header = malloc((size_t)len + 1);
    if (!header)
        return gf_nomem(err);
    r = gf_source_read_err(source, header, (size_t)len, sizeof(first), err);
    if (!r)
        r = gf_safetensors_parse(source->name, header, len, source->size, against->limits,
                                 &file->st, err);
    return r;
}

static int add_tensors(struct gf_against *against, const struct their_file *file,
                       struct gf_err *err)
{
    for (size_t i = 0; i < file->st->n; i++) {
        const struct gf_safetensors_entry *entry = &file->st->at[i];
        struct theirs tensor = { .entry = entry, .source = file->source };
        uint64_t old = 0;
        int r = gf_vec_push(&against->tensors, tensor, against->limits->tensors);

        if (r)
            return gf_fail(err, -r, "'%s': too many tensors", against->path);
        r = gf_strmap_put(&against->by_name, entry->name, against->tensors.n - 1, &old);
        if (r == -EEXIST)
            return gf_fail(err, GF_EBAD, "'%s': tensor '%s' is in '%s' and in '%s'",
                           against->path, entry->name,
                           against->tensors.at[old].source->name, file->source->name);
        if (r)
            return gf_nomem(err);
    }
    return 0;
}

static int add_file(struct gf_against *against, const char *name, struct gf_err *err)
{
    struct their_file file = { 0 };
    int r = gf_dir_open(against->dir, name, &file.source, err);

    if (r)
        return r;
    r = parse_theirs(against, &file, err);
    if (!r && gf_vec_push(&against->files, file, against->limits->dir_entries))
        r = gf_nomem(err);
    if (r) {
        gf_safetensors_free(file.st);
        gf_source_free(file.source);
        return r;
    }
    return add_tensors(against, &file, err);
}

int gf_against_open(const char *path, const struct gf_limits *limits,
                    struct gf_against **ret, struct gf_err *err)
{
    GF_AUTO(gf_against) against = calloc(1, sizeof(*against));
    struct gf_dir_listing listing = { 0 };
    int r;

    if (!against || !(against->path = strdup(path)))
        return gf_nomem(err);
    against->limits = limits;
    /* The user named it, so its links (a hub cache has nothing else) may lead anywhere. */
    r = gf_dir_local(path, true, limits, &against->dir, err);
    if (!r)
        r = gf_dir_list(against->dir, "", &listing, err);
    for (size_t i = 0; !r && i < listing.n; i++)
        if (!listing.at[i].is_dir && gf_is_safetensors(listing.at[i].name))
            r = add_file(against, listing.at[i].name, err);
    gf_dir_listing_free(&listing);
    if (r)
        return gf_wrap(err, "'%s'", path);
    if (against->files.n == 0)
        return gf_fail(err, ENOENT, "'%s' has no safetensors file to compare with", path);
    *ret = gf_take(&against);
    return 0;
}

void gf_against_free(struct gf_against *against)
{
    if (!against)
        return;
    gf_strmap_done(&against->by_name);
    for (size_t i = 0; i < against->files.n; i++) {
        gf_safetensors_free(against->files.at[i].st);
        gf_source_free(against->files.at[i].source);
    }
    gf_vec_free(&against->files);
    gf_vec_free(&against->tensors);
    gf_dir_free(against->dir);
    free(against->path);
    free(against);
}

/* ---------------------------------------------------------------- one file of ours */

static int parse_ours(const struct gf_against *against, const struct gf_vdir *dir,
                      const struct gf_vfile *file, struct gf_safetensors **ret,
                      struct gf_err *err)
{
    struct gf_scratch scratch = { 0 };
    GF_AUTO_MEM uint8_t *header = NULL;
    uint8_t first[8];
    uint64_t len;
    int r = gf_sweep_read(dir, file, 0, sizeof(first), first, &scratch, err);

    if (!r)
        r = gf_safetensors_header_len(file->name, first, file->size, against->limits, &len,
                                      err);
    if (!r && !(header = malloc((size_t)len + 1)))
        r = gf_nomem(err);
    if (!r)
        r = gf_sweep_read(dir, file, sizeof(first), (size_t)len, header, &scratch, err);
    if (!r)
        r = gf_safetensors_parse(file->name, header, len, file->size, against->limits, ret,
                                 err);
    gf_scratch_done(&scratch);
    return r;
}

/* The twin of one of our tensors, or NULL. */
static struct theirs *find_twin(const struct gf_against *against, const char *name)
{
    uint64_t index;

    return gf_strmap_get(&against->by_name, name, &index) ? &against->tensors.at[index]
                                                          : NULL;
}

static bool comparable(const struct gf_safetensors_entry *a,
                       const struct gf_safetensors_entry *b)
{
    return a->dtype == b->dtype && gf_shape_equal(a->shape, b->shape);
}

int gf_against_begin(struct gf_against *against, const struct gf_vdir *dir,
                     const struct gf_vfile *file, struct gf_against_file **ret,
                     struct gf_err *err)
{
    GF_AUTO(gf_against_file) ours = calloc(1, sizeof(*ours));
    int r;

    if (!ours)
        return gf_nomem(err);
    ours->against = against;
    r = parse_ours(against, dir, file, &ours->st, err);
    if (r)
        return r;
    ours->pairs = calloc(ours->st->n + 1, sizeof(*ours->pairs));
    if (!ours->pairs)
        return gf_nomem(err);
    for (size_t i = 0; i < ours->st->n; i++) {
        struct theirs *twin = find_twin(against, ours->st->at[i].name);

        ours->pairs[i].differs = UINT64_MAX;
        if (!twin)
            continue;
        twin->seen = true;
        if (comparable(&ours->st->at[i], twin->entry)) {
            ours->pairs[i].source = twin->source;
            ours->pairs[i].begin = twin->entry->begin;
        }
    }
    *ret = gf_take(&ours);
    return 0;
}

void gf_against_file_free(struct gf_against_file *file)
{
    if (!file)
        return;
    gf_safetensors_free(file->st);
    free(file->pairs);
    free(file);
}

/* The first of our tensors that ends behind `off`. */
static size_t first_at(const struct gf_safetensors *st, uint64_t off)
{
    size_t low = 0, high = st->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (st->at[middle].end > off)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void note_difference(struct pair *pair, uint64_t at)
{
    uint_least64_t old = pair->differs;

    while (at < old && !atomic_compare_exchange_weak(&pair->differs, &old, at))
        ;
}

int gf_against_chunk(struct gf_against_file *file, uint64_t off, const uint8_t *buf,
                     size_t len, struct gf_err *err)
{
    GF_AUTO_MEM uint8_t *twin = malloc(len);

    if (!twin)
        return gf_nomem(err);
    for (size_t i = first_at(file->st, off); i < file->st->n; i++) {
        const struct gf_safetensors_entry *entry = &file->st->at[i];
        struct pair *pair = &file->pairs[i];
        uint64_t begin = GF_MAX(entry->begin, off), end = GF_MIN(entry->end, off + len);
        const uint8_t *mine = buf + (begin - off);
        int r;

        if (begin >= off + len)
            break;
        if (!pair->source || begin >= end)
            continue;
        r = gf_source_read_err(pair->source, twin, (size_t)(end - begin),
                               pair->begin + (begin - entry->begin), err);
        if (r)
            return gf_wrap(err, "'%s'", file->against->path);
        if (!memcmp(mine, twin, (size_t)(end - begin)))
            continue;
        for (uint64_t k = 0; k < end - begin; k++)
            if (mine[k] != twin[k]) {
                note_difference(pair, begin - entry->begin + k);
                break;
            }
    }
    return 0;
}

/* "F32 [2, 3]" */
static void describe(const struct gf_safetensors_entry *entry, char *buf, size_t len)
{
    char shape[GF_SHAPE_TEXT];

    snprintf(buf, len, "%s %s", gf_dtype_info(entry->dtype)->safetensors,
             gf_shape_text(entry->shape, shape));
}

void gf_against_end(struct gf_against_file *file, gf_against_fn *report, void *ctx,
                    uint64_t *ret_equal)
{
    const char *path = file->against->path;

    for (size_t i = 0; i < file->st->n; i++) {
        const struct gf_safetensors_entry *entry = &file->st->at[i];
        const struct theirs *twin = find_twin(file->against, entry->name);
        char text[1024], ours[GF_SHAPE_TEXT + 32], theirs[GF_SHAPE_TEXT + 32];

        if (!twin) {
            snprintf(text, sizeof(text), "tensor '%s' is not in '%s'", entry->name, path);
        } else if (!comparable(entry, twin->entry)) {
            describe(entry, ours, sizeof(ours));
            describe(twin->entry, theirs, sizeof(theirs));
            snprintf(text, sizeof(text), "tensor '%s' is %s, in '%s' it is %s", entry->name,
                     ours, path, theirs);
        } else if (file->pairs[i].differs != UINT64_MAX) {
            snprintf(text, sizeof(text),
                     "tensor '%s' differs from '%s' at its byte %" PRIu64, entry->name,
                     path, (uint64_t)file->pairs[i].differs);
        } else {
            ++*ret_equal;
            continue;
        }
        report(ctx, text);
    }
}

void gf_against_surplus(const struct gf_against *against, gf_against_fn *report, void *ctx)
{
    for (size_t i = 0; i < against->tensors.n; i++) {
        const struct theirs *tensor = &against->tensors.at[i];
        char text[1024];

        if (tensor->seen)
            continue;
        snprintf(text, sizeof(text), "tensor '%s' is only in '%s'", tensor->entry->name,
                 against->path);
        report(ctx, text);
    }
}

/* ---------------------------------------------------------------- other files */

static int is_equal(const struct gf_vdir *dir, const struct gf_vfile *file,
                    struct gf_source *theirs, bool *ret, struct gf_err *err)
{
    struct gf_scratch scratch = { 0 };
    GF_AUTO_MEM uint8_t *a = malloc((size_t)file->size + 1),
                        *b = malloc((size_t)file->size + 1);
    int r = a && b ? 0 : gf_nomem(err);

    if (!r)
        r = gf_sweep_read(dir, file, 0, (size_t)file->size, a, &scratch, err);
    if (!r)
        r = gf_source_read_err(theirs, b, (size_t)file->size, 0, err);
    if (!r)
        *ret = !memcmp(a, b, (size_t)file->size);
    gf_scratch_done(&scratch);
    return r;
}

int gf_against_side(struct gf_against *against, const struct gf_vdir *dir,
                    struct gf_text *text, struct gf_err *err)
{
    for (size_t i = 0; i < dir->n; i++) {
        const struct gf_vfile *file = &dir->files[i];
        GF_AUTO(gf_source) theirs = NULL;
        const char *how;
        bool equal = false;
        int r;

        if (gf_is_safetensors(file->name))
            continue;
        r = gf_dir_open(against->dir, file->name, &theirs, err);
        if (r && r != -ENOENT)
            return r;
        if (theirs && theirs->size == file->size)
            if ((r = is_equal(dir, file, theirs, &equal, err)))
                return r;
        how = !theirs ? "not there" : equal ? "equal" : "different";
        gf_text_printf(text, "%s%s %s", text->len ? ", " : "", file->name, how);
    }
    return text->failed ? gf_nomem(err) : 0;
}
