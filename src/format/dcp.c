/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp.c - a DCP directory: which metadata, which group of tensors, which files.
 *
 *   find the directory     dcp_dir       names only
 *   read its metadata      dcp_metadata  one pickle, or one per rank
 *   choose the model       dcp_group
 *   open its files         dcp_fill      sizes and times against the metadata
 *   fill the catalog       dcp_fill      one box per chunk
 */
#include "format/dcp.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "format/dcp_int.h"
#include "format/dcp_object.h"
#include "format/steps.h"

static void dcp_done(struct gf_dcp *d)
{
    gf_dcp_dir_done(&d->dir);
    gf_dcp_table_free(d->table);
    free(d->items);
    free(d->first);
    free(d->next);
    free(d->source);
}

/* --- metadata ------------------------------------------------------------------------- */

static int refuse_state(const struct gf_dcp *d, struct gf_err *err)
{
    const char *base = d->dir.base, *slash = *base ? "/" : "";

    switch (d->dir.state) {
    case GF_DCP_SAVED:
    case GF_DCP_RANKS:
        break;
    case GF_DCP_UNFINISHED:
        return gf_fail(err, GF_EINCOMPLETE,
                       "'%s%s.metadata.tmp' was never renamed to '.metadata': the save was "
                       "cut off, or is still going on",
                       base, slash);
    case GF_DCP_DATA_ONLY:
        return gf_fail(err, GF_EINCOMPLETE,
                       "'%s%s.metadata' is missing: the save was cut off, or it is on the "
                       "node of rank 0",
                       base, slash);
    case GF_DCP_NONE:
        return gf_fail(err, ENOENT, "'%s': no '.metadata' of a DCP checkpoint",
                       d->in->dir->name);
    }
    if (d->dir.megatron)
        return gf_fail(
            err, ENOTSUP,
            "'%s%scommon.pt' beside '.metadata': a Megatron-core checkpoint, whose "
            "names and shapes are not the model's; convert it with Megatron",
            base, slash);
    if (d->dir.rewriting && !d->in->allow_incomplete)
        return gf_fail(
            err, GF_EINCOMPLETE,
            "'%s%s.metadata.tmp' beside '.metadata': it is being saved again, and "
            "its files may be of another step (option allow_incomplete)",
            base, slash);
    return 0;
}

/* The pickle of 10^6 items takes hundreds of MB, so nothing else is held meanwhile. */
static int parse(struct gf_dcp *d, const char *path, struct gf_pickle **ret,
                 size_t *ret_len, struct gf_err *err)
{
    GF_AUTO_MEM char *bytes = NULL;
    int r =
        gf_dir_read(d->in->dir, path, d->in->limits->pickle_bytes, &bytes, ret_len, err);

    return r ? r
             : gf_pickle_parse(path, (uint8_t *)bytes, *ret_len, d->in->limits, ret, NULL,
                               NULL, err);
}

static int add_metadata(struct gf_dcp *d, const struct gf_dir_entry *entry,
                        struct gf_err *err)
{
    GF_AUTO(gf_pickle) pickle = NULL;
    GF_AUTO_MEM char *path = NULL;
    size_t len = 0;
    int r = gf_dcp_path_below(d, entry->name, &path, err);

    if (!r)
        r = parse(d, path, &pickle, &len, err);
    if (!r)
        r = gf_dcp_table_add(d->table, path, pickle, len, err);
    d->saved_ns = GF_MAX(d->saved_ns, entry->identity.mtime_ns);
    return r;
}

static int read_metadata(struct gf_dcp *d, struct gf_err *err)
{
    bool ranks = d->dir.state == GF_DCP_RANKS;
    int r = gf_dcp_table_new(d->in->limits, &d->table, err);

    for (size_t i = 0; i < d->dir.listing.n && !r; i++) {
        const struct gf_dir_entry *entry = &d->dir.listing.at[i];
        uint64_t rank;

        if (ranks ? gf_dcp_name_rank(entry->name, ".metadata", &rank)
                  : strcmp(entry->name, ".metadata") == 0)
            r = add_metadata(d, entry, err);
    }
    if (!r)
        gf_dcp_table_finish(d->table);
    return r;
}

/* --- the model ------------------------------------------------------------------------ */

static int refuse_no_model(const struct gf_dcp *d, struct gf_err *err)
{
    const struct gf_dcp_table *t = d->table;

    if (t->skipped)
        return gf_fail(
            err, ENOENT,
            "'%s': no model in it: its %zu tensors are the state of an optimizer "
            "or the like ('%s')",
            d->in->dir->name, t->skipped, t->skipped_as);
    return gf_fail(err, ENOENT, "'%s': no tensors in it", d->in->dir->name);
}

static int warn_others(struct gf_dcp *d, size_t chosen)
{
    const struct gf_dcp_group *groups = d->table->groups.at;
    struct gf_text names = { 0 };
    size_t n = 0;
    int r = 0;

    for (size_t i = 0; i < d->table->groups.n; i++)
        if (i != chosen && gf_dcp_group_is_model(&groups[i]) && n++ < 5)
            gf_text_printf(&names, "%s'%s' (%zu tensors)", n > 1 ? ", " : "",
                           groups[i].path, groups[i].tensors);
    if (n)
        r = gf_found_warn(d->out, "serves '%s'; not served: %s%s", groups[chosen].path,
                          names.s, n > 5 ? " ..." : "");
    gf_text_done(&names);
    return r;
}

static int choose(struct gf_dcp *d, struct gf_err *err)
{
    struct gf_dcp_table *t = d->table;
    size_t chosen;

    if (!t->groups.n && t->objects.n) {
        d->object = gf_dcp_object_choose(t);
        return 0;
    }
    for (size_t i = 0; i < t->tensors.n && d->in->template; i++)
        if (gf_catalog_find(d->in->template, t->tensors.at[i].name))
            t->groups.at[t->tensors.at[i].group].expected++;
    chosen = gf_dcp_group_choose(t->groups.at, t->groups.n);
    if (chosen == SIZE_MAX)
        return refuse_no_model(d, err);
    d->group = (uint32_t)chosen;
    return warn_others(d, chosen) ? gf_nomem(err) : 0;
}

/* --- what inspect says ---------------------------------------------------------------- */

static int warn_more_models(struct gf_dcp *d, struct gf_err *err)
{
    struct gf_dir_listing top = { 0 };
    int r = *d->dir.base ? gf_dir_list(d->in->dir, "", &top, err) : 0;

    for (size_t i = 0; i < top.n && !r; i++)
        if (top.at[i].is_dir && gf_dcp_name_is_model(top.at[i].name) &&
            strcmp(top.at[i].name, d->dir.base) != 0 &&
            gf_found_warn(d->out,
                          "'%s' holds a further model: give that directory as SOURCE",
                          top.at[i].name))
            r = gf_nomem(err);
    gf_dir_listing_free(&top);
    return r;
}

/* The step in the directory's name, or in its parent's if it is a model's directory in it.
 */
static void read_name(struct gf_dcp *d)
{
    GF_AUTO_MEM char *path = strdup(d->in->dir->name);
    bool model = false;

    for (size_t levels = 0; path && levels < 2; levels++) {
        size_t len = strlen(path);
        char *slash;

        while (len > 1 && path[len - 1] == '/')
            path[--len] = '\0';
        slash = strrchr(path, '/');
        d->out->has_step = gf_step_number(slash ? slash + 1 : path, &d->out->step);
        model = model || gf_dcp_name_is_model(slash ? slash + 1 : path);
        if (d->out->has_step || !model || !slash)
            break;
        *slash = '\0';
    }
    d->out->parent_side = d->out->has_step || model;
}

static size_t count_ranks(const struct gf_dcp *d)
{
    uint64_t rank, highest = 0;

    for (size_t f = 0; f < d->table->files.n; f++)
        if (gf_dcp_name_rank(d->table->files.at[f].path, ".distcp", &rank))
            highest = GF_MAX(highest, rank + 1);
    return highest ? highest : d->out->sources.n;
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

static void describe(struct gf_dcp *d)
{
    struct gf_found *out = d->out;
    size_t ranks = count_ranks(d);

    out->format = gf_dcp_format.name;
    out->mtime_ns = GF_MAX(out->mtime_ns, d->saved_ns);
    snprintf(out->base, sizeof(out->base), "%s", d->dir.base);
    snprintf(out->detail, sizeof(out->detail),
             "DCP, %zu rank%s, %zu tensor%s in %zu item%s", ranks, plural(ranks),
             d->ntensors, plural(d->ntensors), d->nitems, plural(d->nitems));
    if (d->newer || d->dir.rewriting) {
        out->complete = GF_COMPLETE_UNKNOWN;
        snprintf(out->why, sizeof(out->why), "%s%s%s: the files may be of different steps",
                 d->newer ? "'" : "'.metadata.tmp' is there", d->newer ? d->newer : "",
                 d->newer ? "' is newer than '.metadata'" : "");
        return;
    }
    out->complete = GF_COMPLETE_YES;
    if (d->dir.state == GF_DCP_RANKS)
        snprintf(out->why, sizeof(out->why),
                 "the metadata of %zu ranks cover each tensor, and their files are whole",
                 d->table->npickles);
    else
        snprintf(out->why, sizeof(out->why),
                 "'.metadata', written last, is there, and no byte of its data is missing "
                 "(%zu file%s)",
                 out->sources.n, plural(out->sources.n));
}

/* --- the format ----------------------------------------------------------------------- */

static bool starts_as_pickle(struct gf_dir *dir, const char *base)
{
    GF_AUTO(gf_source) src = NULL;
    char path[64];
    uint8_t head[2];

    snprintf(path, sizeof(path), "%s%s.metadata", base, *base ? "/" : "");
    return !gf_dir_open(dir, path, &src, NULL) &&
           !gf_source_read(src, head, sizeof(head), 0) && head[0] == 0x80 && head[1] <= 5;
}

static int dcp_probe(struct gf_dir *dir, const char *file, char why[static GF_WHY])
{
    static const struct {
        int score;
        const char *why;
    } states[] = {
        [GF_DCP_NONE] = { 0, "no '.metadata'" },
        [GF_DCP_DATA_ONLY] = { 50, "'*.distcp' files, but no '.metadata'" },
        [GF_DCP_UNFINISHED] = { 60, "'.metadata.tmp', never renamed" },
        [GF_DCP_RANKS] = { 95, "'__0.metadata' and the like" },
        [GF_DCP_SAVED] = { 95, "'.metadata'" },
    };
    struct gf_dcp_dir found;
    int score = 0;

    if (file || gf_dcp_dir_find(dir, &found, NULL)) {
        snprintf(why, GF_WHY, "%s", file ? "a single file" : "no directory");
        return 0;
    }
    score = states[found.state].score;
    snprintf(why, GF_WHY, "%s%s%s", states[found.state].why, *found.base ? " in " : "",
             found.base);
    if (found.state == GF_DCP_SAVED && !starts_as_pickle(dir, found.base)) {
        snprintf(why, GF_WHY, "'.metadata' is no pickle");
        score = 0;
    }
    gf_dcp_dir_done(&found);
    return score;
}

static int read_all(struct gf_dcp *d, struct gf_err *err)
{
    int r = gf_dcp_dir_find(d->in->dir, &d->dir, err);

    if (!r)
        r = refuse_state(d, err);
    if (!r)
        r = read_metadata(d, err);
    if (!r)
        r = choose(d, err);
    if (!r)
        r = gf_dcp_fill(d, err);
    if (!r)
        r = warn_more_models(d, err);
    if (!r) {
        read_name(d);
        describe(d);
    }
    return r;
}

static int dcp_read(const struct gf_format_in *in, struct gf_found *out, struct gf_err *err)
{
    struct gf_dcp d = { .in = in, .out = out };
    int r = in->tag
                ? gf_fail(err, EINVAL, "tag '%s': a DCP checkpoint has no tags", in->tag)
                : read_all(&d, err);

    dcp_done(&d);
#ifdef __GLIBC__
    /* The pickle's memory lies below what stays, so that free() alone does not return it. */
    malloc_trim(0);
#endif
    return r;
}

const struct gf_format gf_dcp_format = {
    .name = "dcp",
    .layer = GF_LAYER_SHARDS,
    .probe = dcp_probe,
    .read = dcp_read,
};
