/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/math.h"
#include "snapshot/live.h"

static const char *complete_text(enum gf_complete complete)
{
    return complete == GF_COMPLETE_YES  ? "yes"
           : complete == GF_COMPLETE_NO ? "no"
                                        : "unknown";
}

/* "key": "text", with a comma in front unless it is the first. */
static void member(struct gf_text *out, const char *key)
{
    char last = out->len ? out->s[out->len - 1] : '{';

    gf_text_add(out, last == '{' || last == '[' ? "" : ", ");
    gf_text_json(out, key);
    gf_text_add(out, ": ");
}

static void item(struct gf_text *out)
{
    char last = out->len ? out->s[out->len - 1] : '[';

    gf_text_add(out, last == '{' || last == '[' ? "" : ", ");
}

static void member_str(struct gf_text *out, const char *key, const char *value)
{
    member(out, key);
    if (value)
        gf_text_json(out, value);
    else
        gf_text_add(out, "null");
}

static void member_u64(struct gf_text *out, const char *key, uint64_t value)
{
    member(out, key);
    gf_text_printf(out, "%" PRIu64, value);
}

static void member_bool(struct gf_text *out, const char *key, bool value)
{
    member(out, key);
    gf_text_add(out, value ? "true" : "false");
}

static void time_text(int64_t ns, char buf[32])
{
    time_t s = (time_t)(ns / 1000000000);
    struct tm tm;

    gmtime_r(&s, &tm);
    strftime(buf, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

/* The dtypes that a view serves, the most bytes first: "BF16" or "BF16 + F32". */
static void dtypes_of(const struct gf_view *view, char *buf, size_t size)
{
    uint64_t bytes[GF_NDTYPES] = { 0 };
    size_t at = 0;

    for (size_t i = 0; i < view->n; i++)
        bytes[view->outputs[i].dtype] += view->outputs[i].nbytes + 1;
    buf[0] = '\0';
    for (;;) {
        unsigned best = 0;

        for (unsigned d = 1; d < GF_NDTYPES; d++)
            if (bytes[d] > bytes[best])
                best = d;
        if (!bytes[best] || at + 24 > size)
            return;
        at += (size_t)snprintf(buf + at, size - at, "%s%s", at ? " + " : "",
                               gf_dtype_info((enum gf_dtype)best)->safetensors);
        bytes[best] = 0;
    }
}

static void json_shape(struct gf_text *out, struct gf_shape shape)
{
    gf_text_add(out, "[");
    for (uint32_t i = 0; i < shape.rank; i++)
        gf_text_printf(out, "%s%" PRIu64, i ? ", " : "", shape.dims[i]);
    gf_text_add(out, "]");
}

/* ---- JSON ---- */

static void json_source(struct gf_text *out, struct gf_run *run, struct gf_snapshot *s)
{
    const struct gf_snapshot_info *info = gf_snapshot_info(s);
    char when[32];

    time_text(info->mtime_ns, when);
    member_str(out, "source", gf_run_source(run));
    member_str(out, "format", info->format);
    member_str(out, "detail", info->detail);
    member_str(out, "why", info->why);
    member_str(out, "tag", *info->tag ? info->tag : NULL);
    member(out, "step");
    if (info->has_step)
        gf_text_printf(out, "%" PRIu64, info->step);
    else
        gf_text_add(out, "null");
    member_str(out, "complete", complete_text(info->complete));
    member_str(out, "complete_why", gf_snapshot_found(s)->why);
    member_str(out, "modified", when);
    member_u64(out, "tensors", info->ntensors);
    member_u64(out, "pieces", info->npieces);
    member_u64(out, "source_files", info->nsources);
    member_str(out, "default_view", info->default_view);
    if (!info->default_view)
        member_str(out, "default_view_why", info->why_no_default);
}

static void json_warnings(struct gf_text *out, struct gf_snapshot *s)
{
    const struct gf_found *found = gf_snapshot_found(s);

    member(out, "warnings");
    gf_text_add(out, "[");
    for (size_t i = 0; i < found->warnings.n; i++) {
        item(out);
        gf_text_json(out, found->warnings.at[i]);
    }
    gf_text_add(out, "]");
}

static void json_files(struct gf_text *out, const struct gf_vdir *dir)
{
    member(out, "files");
    gf_text_add(out, "[");
    for (size_t i = 0; i < dir->n; i++) {
        item(out);
        gf_text_add(out, "{");
        member_str(out, "name", dir->files[i].name);
        member_u64(out, "size", dir->files[i].size);
        gf_text_add(out, "}");
    }
    gf_text_add(out, "]");
}

static void json_outputs(struct gf_text *out, const struct gf_vdir *dir)
{
    const struct gf_catalog *catalog = dir->gather.bound[0].catalog;

    member(out, "tensors");
    gf_text_add(out, "[");
    for (size_t i = 0; i < dir->view->n; i++) {
        const struct gf_output *o = &dir->view->outputs[i];
        const struct gf_tensor *t = gf_catalog_at(catalog, o->expr.tensor);

        item(out);
        gf_text_add(out, "{");
        member_str(out, "name", o->name);
        member_str(out, "dtype", gf_dtype_info(o->dtype)->safetensors);
        member(out, "shape");
        json_shape(out, o->shape);
        member_u64(out, "bytes", o->nbytes);
        member_str(out, "stored_name", t->name);
        member_str(out, "stored_dtype", gf_dtype_info(t->dtype)->safetensors);
        member_u64(out, "pieces", t->npieces);
        gf_text_add(out, "}");
    }
    gf_text_add(out, "]");
}

static int json_views(struct gf_text *out, struct gf_snapshot *s, bool tensors,
                      struct gf_err *err)
{
    struct gf_view_state *views;
    size_t n;
    int r = gf_snapshot_views(s, &views, &n, err);

    if (r)
        return r;
    member(out, "views");
    gf_text_add(out, "[");
    for (size_t i = 0; i < n; i++) {
        const struct gf_vdir *dir;
        char dtypes[128];

        item(out);
        gf_text_add(out, "{");
        member_str(out, "name", views[i].name);
        member_bool(out, "default", views[i].is_default);
        member_bool(out, "listed", views[i].listed);
        if (gf_snapshot_dir(s, views[i].name, &dir, NULL)) {
            member_str(out, "why_not", views[i].why_not);
        } else {
            dtypes_of(dir->view, dtypes, sizeof(dtypes));
            member_str(out, "dtype", dtypes);
            member_u64(out, "bytes", dir->view->nbytes);
            member_u64(out, "tensor_count", dir->view->n);
            member_str(out, "warning", dir->warning);
            json_files(out, dir);
            member(out, "notes");
            gf_text_add(out, "[");
            for (size_t k = 0; k < dir->view->notes.n; k++) {
                item(out);
                gf_text_json(out, dir->view->notes.at[k]);
            }
            gf_text_add(out, "]");
            if (tensors && (views[i].is_default || n == 1))
                json_outputs(out, dir);
        }
        gf_text_add(out, "}");
    }
    gf_text_add(out, "]");
    free(views);
    return 0;
}

static void json_checkpoint(struct gf_text *out, const struct gf_run_entry *entry)
{
    member_str(out, "format", entry->format);
    member_str(out, "because", entry->seen);
    member(out, "step");
    if (entry->has_step)
        gf_text_printf(out, "%" PRIu64, entry->step);
    else
        gf_text_add(out, "null");
    member_bool(out, "complete", entry->complete);
    if (!entry->complete)
        member_str(out, "why", entry->why);
}

static int json_checkpoints(struct gf_text *out, struct gf_run *run, struct gf_err *err)
{
    struct gf_run_entry *entries;
    size_t n;
    int r = gf_run_entries(run, NULL, &entries, &n, err);

    if (r)
        return r;
    member(out, "checkpoints");
    gf_text_add(out, "[");
    for (size_t i = 0; i < n; i++) {
        item(out);
        gf_text_add(out, "{");
        member_str(out, "name", entries[i].path);
        if (entries[i].kind == GF_RUN_LINK)
            member_str(out, "link", entries[i].target);
        else
            json_checkpoint(out, &entries[i]);
        gf_text_add(out, "}");
    }
    gf_text_add(out, "]");
    gf_run_entries_free(entries, n);
    return 0;
}

/* A run whose root holds no weights. */
static void json_run(struct gf_text *out, struct gf_run *run)
{
    member_str(out, "source", gf_run_source(run));
    member_str(out, "format", "run");
    member_str(out, "default_view", NULL);
}

static int json_inspect(struct gf_run *run, struct gf_snapshot *s, bool tensors,
                        struct gf_text *out, struct gf_err *err)
{
    int r;

    gf_text_add(out, "{");
    if (s) {
        json_source(out, run, s);
        json_warnings(out, s);
    } else {
        json_run(out, run);
    }
    r = s ? json_views(out, s, tensors, err) : 0;
    if (!r)
        r = json_checkpoints(out, run, err);
    gf_text_add(out, "}\n");
    return r;
}

int gf_report_status(struct gf_run *run, struct gf_text *out, struct gf_err *err)
{
    GF_AUTO(gf_snapshot) s = NULL;
    struct gf_text text = { 0 };
    int r;

    gf_text_add(&text, "{");
    if (gf_run_snapshot(run, "", &s, NULL)) {
        json_run(&text, run);
    } else {
        json_source(&text, run, s);
        json_warnings(&text, s);
    }
    if (gf_run_live(run)) {
        member(&text, "live");
        if (gf_live_report(gf_run_live(run), true, &text, NULL))
            gf_text_add(&text, "null");
    }
    r = json_checkpoints(&text, run, err);
    if (!r && !text.failed)
        gf_text_addn(out, text.s + 1, text.len - 1);
    out->failed |= text.failed;
    gf_text_done(&text);
    return r;
}

/* ---- for people ---- */

static void row(struct gf_text *out, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void row(struct gf_text *out, const char *key, const char *fmt, ...)
{
    char value[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(value, sizeof(value), fmt, ap);
    va_end(ap);
    gf_text_printf(out, "%-11s %s\n", key, value);
}

static void text_view(struct gf_text *out, struct gf_snapshot *s,
                      const struct gf_view_state *v)
{
    const struct gf_vdir *dir;
    char dtypes[128], size[GF_SIZE_TEXT];

    if (gf_snapshot_dir(s, v->name, &dir, NULL)) {
        row(out, v->name, "cannot be built: %s", v->why_not);
        return;
    }
    dtypes_of(dir->view, dtypes, sizeof(dtypes));
    row(out, v->name, "%zu tensors, %s, %s%s", dir->view->n, dtypes,
        gf_size_text(dir->view->nbytes, size),
        v->is_default ? " (default)"
        : v->listed   ? ""
                      : " (not listed)");
    for (size_t i = 0; i < dir->view->notes.n; i++)
        row(out, "", "%s", dir->view->notes.at[i]);
    if (dir->warning && !v->is_default && !v->listed) /* the others' stand at the top */
        row(out, "", "warning: %s", dir->warning);
}

static int text_views(struct gf_text *out, struct gf_snapshot *s, struct gf_err *err)
{
    struct gf_view_state *views;
    size_t n;
    int r = gf_snapshot_views(s, &views, &n, err);

    if (r)
        return r;
    gf_text_add(out, "\nviews\n");
    for (size_t i = 0; i < n; i++)
        text_view(out, s, &views[i]);
    free(views);
    return 0;
}

static void text_files(struct gf_text *out, const struct gf_vdir *dir)
{
    gf_text_printf(out, "\nfiles of the default view\n");
    for (size_t i = 0; i < dir->n; i++)
        gf_text_printf(out, "%14" PRIu64 "  %s\n", dir->files[i].size, dir->files[i].name);
}

static void text_tensors(struct gf_text *out, const struct gf_vdir *dir)
{
    const struct gf_catalog *catalog = dir->gather.bound[0].catalog;

    gf_text_printf(out, "\ntensors\n");
    for (size_t i = 0; i < dir->view->n; i++) {
        const struct gf_output *o = &dir->view->outputs[i];
        const struct gf_tensor *t = gf_catalog_at(catalog, o->expr.tensor);
        char shape[GF_SHAPE_TEXT];

        gf_text_printf(out, "%-8s %-20s %s", gf_dtype_info(o->dtype)->safetensors,
                       gf_shape_text(o->shape, shape), o->name);
        gf_text_printf(out, "  (%" PRIu32 " piece%s of %s)\n", t->npieces,
                       t->npieces == 1 ? "" : "s", gf_dtype_info(t->dtype)->safetensors);
    }
}

static int text_checkpoints(struct gf_text *out, struct gf_run *run, struct gf_err *err)
{
    struct gf_run_entry *entries;
    size_t n;
    int r = gf_run_entries(run, NULL, &entries, &n, err);

    if (r)
        return r;
    if (n)
        gf_text_add(out, "\ncheckpoints\n");
    for (size_t i = 0; i < n; i++) {
        if (entries[i].kind == GF_RUN_LINK)
            gf_text_printf(out, "%s -> %s\n", entries[i].path, entries[i].target);
        else if (entries[i].complete)
            gf_text_printf(out, "%s: %s, %s\n", entries[i].path, entries[i].format,
                           entries[i].seen);
        else
            gf_text_printf(out, "%s: hidden: %s\n", entries[i].path, entries[i].why);
    }
    gf_run_entries_free(entries, n);
    return 0;
}

static int text_checkpoint(struct gf_run *run, struct gf_snapshot *s, bool tensors,
                           struct gf_text *out, struct gf_err *err)
{
    const struct gf_snapshot_info *info = gf_snapshot_info(s);
    const struct gf_found *found = gf_snapshot_found(s);
    const struct gf_vdir *dir = NULL;
    char when[32], step[32] = "unknown";
    int r;

    time_text(info->mtime_ns, when);
    if (info->has_step)
        snprintf(step, sizeof(step), "%" PRIu64, info->step);
    row(out, "source", "%s", gf_run_source(run));
    row(out, "format", "%s: %s", info->format, info->detail);
    row(out, "because", "%s", info->why);
    if (*info->tag)
        row(out, "tag", "%s", info->tag);
    row(out, "step", "%s, saved %s", step, when);
    row(out, "complete", "%s: %s", complete_text(info->complete), found->why);
    row(out, "holds", "%zu tensors in %zu pieces of %zu files", info->ntensors,
        info->npieces, info->nsources);
    for (size_t i = 0; i < found->warnings.n; i++)
        row(out, "warning", "%s", found->warnings.at[i]);
    if (info->default_view && !gf_snapshot_dir(s, NULL, &dir, NULL) &&
        !gf_vdir_find(dir, "config.json") && !gf_vdir_find(dir, "adapter_config.json"))
        row(out, "config",
            "none found, and from_pretrained() needs one: --config-from DIR");
    if (!info->default_view)
        row(out, "root", "no weights at the root: %s", info->why_no_default);
    r = text_views(out, s, err);
    if (!r && info->default_view)
        r = gf_snapshot_dir(s, NULL, &dir, err);
    if (!r && dir) {
        text_files(out, dir);
        if (tensors)
            text_tensors(out, dir);
    }
    return r;
}

static int text_inspect(struct gf_run *run, struct gf_snapshot *s, bool tensors,
                        struct gf_text *out, struct gf_err *err)
{
    int r = 0;

    if (s) {
        r = text_checkpoint(run, s, tensors, out, err);
    } else {
        row(out, "source", "%s", gf_run_source(run));
        row(out, "format", "a run: checkpoints below, no weights at the root");
    }
    return r ? r : text_checkpoints(out, run, err);
}

int gf_report_inspect(struct gf_run *run, bool json, bool tensors, struct gf_text *out,
                      struct gf_err *err)
{
    GF_AUTO(gf_snapshot) s = NULL;
    int r = gf_run_snapshot(run, "", &s, err);

    if (r == -ENOMEM)
        return r;
    r = json ? json_inspect(run, s, tensors, out, err)
             : text_inspect(run, s, tensors, out, err);
    return r ? r : out->failed ? gf_nomem(err) : 0;
}

/* ---- provenance ---- */

static int add_origin(void *ctx, const struct gf_origin *o)
{
    struct gf_text *out = ctx;

    item(out);
    gf_text_add(out, "\n  {");
    member_u64(out, "offset", o->off);
    member_u64(out, "length", o->len);
    if (o->scattered)
        member_bool(out, "scattered", true);
    if (o->operand)
        member_bool(out, "operand", true);
    if (o->output)
        member_str(out, "tensor", o->output);
    member_str(out, "source", o->source ? o->source->name : NULL);
    if (o->source) {
        member_u64(out, "source_offset", o->source_off);
        member_u64(out, "source_length", o->source_len);
    }
    if (o->output && o->from != o->to) {
        member_str(out, "from", gf_dtype_info(o->from)->safetensors);
        member_str(out, "to", gf_dtype_info(o->to)->safetensors);
    }
    gf_text_add(out, "}");
    return 0;
}

int gf_report_provenance(const struct gf_vdir *dir, const struct gf_vfile *file,
                         struct gf_text *out, struct gf_err *err)
{
    gf_text_add(out, "{");
    member_str(out, "file", file->name);
    member_str(out, "view", dir->name);
    member_u64(out, "size", file->size);
    member(out, "ranges");
    gf_text_add(out, "[");
    gf_gather_origins(&dir->gather, file->image, add_origin, out);
    gf_text_add(out, "]}\n");
    return out->failed ? gf_nomem(err) : 0;
}
