/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "snapshot/against.h"
#include "snapshot/sweep.h"
#include "tensor/convert.h"

#define SAID 10                  /* problems that are named; the others are counted */
#define STEP ((uint64_t)1 << 18) /* elements of two tensors that are compared at a time */

struct verify {
    struct gf_snapshot *snapshot;
    const struct gf_vdir *dir;
    const struct gf_verify *how;
    struct gf_verify_result *ret;
    struct gf_against *against;   /* NULL without --against */
    struct gf_against_file *file; /* of the file that is being swept */
    uint64_t equal;               /* tensors that the other directory has too */
};

__attribute__((format(printf, 3, 4))) static void
say(struct verify *v, enum gf_verify_kind kind, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    if (kind == GF_VERIFY_PROBLEM && ++v->ret->problems > SAID)
        return;
    if (kind == GF_VERIFY_UNKNOWN)
        v->ret->unknown++;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    v->how->say(v->how->ctx, kind, text);
}

static void say_problem(void *ctx, const char *text)
{
    say(ctx, GF_VERIFY_PROBLEM, "%s", text);
}

/* A failure that tells something about the checkpoint is a finding; others end the check.
 */
static int found_or_failed(struct verify *v, const struct gf_err *err)
{
    if (gf_err_exit(err->code) != 1)
        return -err->code;
    say(v, GF_VERIFY_PROBLEM, "%s", err->text);
    return 0;
}

/* ---------------------------------------------------------------- every byte */

static int check_chunk(void *ctx, uint64_t off, const uint8_t *buf, size_t len,
                       struct gf_err *err)
{
    struct verify *v = ctx;
    int r = v->file ? gf_against_chunk(v->file, off, buf, len, err) : 0;

    v->how->progress(v->how->ctx, len);
    return r;
}

static int check_file(struct verify *v, const struct gf_vfile *file, struct gf_err *err)
{
    GF_AUTO(gf_against_file) compared = NULL;
    int r = 0;

    if (v->against && gf_is_safetensors(file->name))
        r = gf_against_begin(v->against, v->dir, file, &compared, err);
    v->file = compared;
    if (!r)
        r = gf_sweep(v->dir, file, v->how->jobs, check_chunk, v, err);
    v->file = NULL;
    if (r)
        return found_or_failed(v, err);
    v->ret->files++;
    v->ret->bytes += file->size;
    if (compared)
        gf_against_end(compared, say_problem, v, &v->equal);
    return 0;
}

static int check_files(struct verify *v, struct gf_err *err)
{
    int r = 0;

    for (size_t i = 0; !r && i < v->dir->n; i++)
        if (v->dir->files[i].weights)
            r = check_file(v, &v->dir->files[i], err);
    if (r)
        return r;
    v->ret->tensors = v->dir->view->n;
    say(v, GF_VERIFY_GOOD,
        "read %" PRIu64 " tensors, %" PRIu64 " bytes in %" PRIu64 " file%s",
        v->ret->tensors, v->ret->bytes, v->ret->files, v->ret->files == 1 ? "" : "s");
    return 0;
}

/* ---------------------------------------------------------------- left-out tensors */

/* `count` elements as the live model had them; `raw` is room for them as stored. */
static int read_live(const struct gf_bound *bound, const struct gf_tensor *tensor,
                     uint64_t first, uint64_t count, uint8_t *raw, uint8_t *live,
                     struct gf_err *err)
{
    gf_convert_fn *convert = gf_convert_get(tensor->dtype, tensor->live);
    struct gf_fault fault = { 0 };
    int r = gf_gather_elements(bound, tensor, first, count, convert ? raw : live, &fault);

    if (r)
        return gf_fail(err, -r, "'%s': cannot read tensor '%s': %s",
                       fault.source ? fault.source : "", tensor->name, strerror(-r));
    if (convert)
        convert(live, raw, (size_t)count);
    return 0;
}

static int is_equal(const struct gf_bound *bound, const struct gf_tensor *a,
                    const struct gf_tensor *b, bool *ret, struct gf_err *err)
{
    GF_AUTO_MEM uint8_t *raw = malloc(STEP * 16), *x = malloc(STEP * 16),
                        *y = malloc(STEP * 16);
    int r = raw && x && y ? 0 : gf_nomem(err);
    bool equal = true;

    for (uint64_t first = 0; !r && equal && first < a->numel; first += STEP) {
        uint64_t count = GF_MIN(STEP, a->numel - first), len = 0;

        gf_dtype_nbytes(a->live, count, &len);
        r = read_live(bound, a, first, count, raw, x, err);
        if (!r)
            r = read_live(bound, b, first, count, raw, y, err);
        if (!r)
            equal = !memcmp(x, y, (size_t)len);
    }
    if (!r)
        *ret = equal;
    return r;
}

/* What the view leaves out as tied must be what it serves in its place. */
static int check_tie(struct verify *v, const struct gf_bound *bound,
                     const struct gf_tie *tie, struct gf_err *err)
{
    const struct gf_tensor *dropped = gf_catalog_at(bound->catalog, tie->dropped);
    const struct gf_tensor *kept = gf_catalog_at(bound->catalog, tie->kept);
    bool equal = false;
    int r;

    if (dropped->alias == tie->kept || kept->alias == tie->dropped)
        return 0; /* one storage */
    r = is_equal(bound, dropped, kept, &equal, err);
    if (r)
        return found_or_failed(v, err);
    if (equal)
        say(v, GF_VERIFY_GOOD, "tied: '%s' equals '%s' in full", dropped->name, kept->name);
    else
        say(v, GF_VERIFY_PROBLEM, "tensor '%s' is left out, but no served tensor equals it",
            dropped->name);
    return 0;
}

static int check_tied(struct verify *v, struct gf_err *err)
{
    const struct gf_view *view = v->dir->view;
    int r = 0;

    for (size_t i = 0; i < view->ties.n && !r; i++)
        r = check_tie(v, &v->dir->gather.bound[0], &view->ties.at[i], err);
    return r;
}

/* ---------------------------------------------------------------- the rest */

static int check_other(struct verify *v, struct gf_err *err)
{
    struct gf_text side = { 0 };
    int r;

    if (!v->against)
        return 0;
    gf_against_surplus(v->against, say_problem, v);
    say(v, GF_VERIFY_GOOD, "%" PRIu64 " tensors equal those in '%s'", v->equal,
        v->how->against);
    r = gf_against_side(v->against, v->dir, &side, err);
    if (!r && side.len)
        say(v, GF_VERIFY_NOTE, "other files: %s", side.s);
    gf_text_done(&side);
    return r;
}

static void check_state(struct verify *v)
{
    const struct gf_found *found = gf_snapshot_found(v->snapshot);

    if (!gf_snapshot_unchanged(v->snapshot))
        say(v, GF_VERIFY_PROBLEM, "the checkpoint's files changed while they were read");
    else
        say(v, GF_VERIFY_GOOD, "%zu source files are unchanged", found->sources.n);
    if (found->complete == GF_COMPLETE_NO)
        say(v, GF_VERIFY_PROBLEM, "incomplete: %s", found->why);
    else if (found->complete == GF_COMPLETE_UNKNOWN)
        say(v, GF_VERIFY_UNKNOWN, "cannot tell whether it is complete: %s", found->why);
    else
        say(v, GF_VERIFY_GOOD, "complete: %s", found->why);
    if (v->ret->problems > SAID)
        v->how->say(v->how->ctx, GF_VERIFY_NOTE, "further problems are counted, not shown");
}

int gf_verify(struct gf_snapshot *snapshot, const struct gf_vdir *dir,
              const struct gf_verify *how, struct gf_verify_result *ret, struct gf_err *err)
{
    struct verify v = { .snapshot = snapshot, .dir = dir, .how = how, .ret = ret };
    GF_AUTO(gf_against) against = NULL;
    int r = 0;

    *ret = (struct gf_verify_result){ 0 };
    if (how->against)
        r = gf_against_open(how->against, &gf_limits_default, &against, err);
    v.against = against;
    if (!r)
        r = check_files(&v, err);
    if (!r)
        r = check_tied(&v, err);
    if (!r)
        r = check_other(&v, err);
    if (!r)
        check_state(&v);
    return r;
}
