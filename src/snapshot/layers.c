/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "format/steps.h"
#include "format/template.h"
#include "snapshot/join.h"
#include "snapshot/heads.h"
#include "snapshot/renamed.h"
#include "view/kind.h"

static int check_catalog(const struct gf_found *found, struct gf_err *err)
{
    GF_AUTO_MEM uint64_t *sizes = calloc(found->sources.n + 1, sizeof(*sizes));
    GF_AUTO_MEM const char **names = calloc(found->sources.n + 1, sizeof(*names));

    if (!sizes || !names)
        return gf_nomem(err);
    for (size_t i = 0; i < found->sources.n; i++) {
        sizes[i] = found->sources.at[i]->size;
        names[i] = found->sources.at[i]->name;
    }
    return gf_catalog_check(found->catalog, sizes, names, found->sources.n, err);
}

/* For formats whose files do not say it. */
static void read_step_in_name(const char *path, struct gf_found *found)
{
    const char *end = path + strlen(path), *start;
    char name[64];

    while (end > path && end[-1] == '/')
        end--;
    for (start = end; start > path && start[-1] != '/';)
        start--;
    snprintf(name, sizeof(name), "%.*s", (int)GF_MIN(end - start, 63), start);
    found->has_step = gf_step_number(name, &found->step);
}

int gf_layer_read(const struct gf_format *format, const struct gf_format_in *in,
                  struct gf_found *ret, struct gf_err *err)
{
    int r = format->read(in, ret, err);

    if (r)
        return r;
    if (!ret->has_step)
        read_step_in_name(in->dir->name, ret);
    return check_catalog(ret, err);
}

/* ---- supplying what is lacking ---- */

/* A weaker layer beside the first: whatever is wrong with it is not this checkpoint's fault. */
static int supplement(const struct gf_format *format, const struct gf_format_in *in,
                      struct gf_found *to, struct gf_err *err)
{
    GF_AUTO_MEM bool *renamed = NULL;
    struct gf_found from = { 0 };
    struct gf_err why = { 0 };
    bool same;
    int r = 0;

    if (gf_layer_read(format, in, &from, &why)) {
        gf_found_warn(to, "not used beside it: %s", why.text);
    } else {
        r = gf_renamed_mark(from.catalog, in->dir, to->catalog, in->limits, &renamed, err);
        if (!r)
            r = gf_join_layer(to, &from, renamed, &same, err);
    }
    gf_found_done(&from);
    return r;
}

/* *ret_same: is it of this model? A PEFT state's base is, or it is an error. */
static int join_base(struct gf_found *to, struct gf_found *from, struct gf_dir *dir,
                     const struct gf_limits *limits, bool *ret_same, struct gf_err *err)
{
    GF_AUTO_MEM bool *renamed = NULL;
    int r;

    *ret_same = true;
    if (gf_state_kind(to->catalog, NULL) == GF_STATE_PEFT)
        return gf_join_base(to, from, dir->name, err);
    r = gf_renamed_mark(from->catalog, dir, to->catalog, limits, &renamed, err);
    return r ? r : gf_join_layer(to, from, renamed, ret_same, err);
}

int gf_layers_join_base(struct gf_found *to, struct gf_dir *dir,
                        const struct gf_options *opt, struct gf_err *err)
{
    struct gf_format_in in = { .dir = dir,
                               .limits = opt->limits,
                               .allow_incomplete = opt->allow_incomplete,
                               .threads = opt->threads ? opt->threads : 8 };
    const struct gf_format *format;
    struct gf_found from = { 0 };
    char why[GF_WHY];
    bool same = false;
    int r = gf_format_detect(dir, NULL, NULL, &format, why, err);

    if (!r)
        r = gf_layer_read(format, &in, &from, err);
    if (!r)
        r = join_base(to, &from, dir, opt->limits, &same, err);
    if (!r && !same)
        r = gf_fail(err, EINVAL,
                    "'%s' is no base of this checkpoint: no tensor has the name "
                    "and shape of one here",
                    dir->name);
    gf_found_done(&from);
    return r;
}

/* base=: named by the user, so it must be there and fit. */
static int supplement_base(const struct gf_options *opt, struct gf_found *to,
                           struct gf_err *err)
{
    GF_AUTO(gf_dir) dir = NULL;
    int r = gf_dir_local(opt->base, opt->follow_links, opt->limits, &dir, err);

    if (!r)
        r = gf_layers_join_base(to, dir, opt, err);
    return r ? gf_wrap(err, "option 'base'") : 0;
}

/* ---- template ---- */

/* The directory that the template is from: -ENOENT, without text, if no option names one. */
static int open_template(const struct gf_options *opt, struct gf_dir **ret,
                         struct gf_err *err)
{
    const char *path = opt->config_from ? opt->config_from : opt->base;

    return path ? gf_dir_local(path, opt->follow_links, opt->limits, ret, err) : -ENOENT;
}

static int read_template(const struct gf_options *opt, struct gf_catalog **ret,
                         struct gf_err *err)
{
    GF_AUTO(gf_dir) dir = NULL;
    int r;

    if (!opt->config_from && !opt->base)
        return 0;
    r = open_template(opt, &dir, err);
    if (!r)
        r = gf_template_read(dir, opt->limits, ret, err);
    if (!r || (r == -ENOENT && dir))
        return 0;
    return gf_wrap(err, "option '%s'", opt->config_from ? "config_from" : "base");
}

/* Names as a whole other than the template's (another naming scheme, heads alone) prove
 * nothing; a few missing ones do. */
static bool mostly_there(const struct gf_catalog *catalog,
                         const struct gf_catalog *template, const bool *renamed)
{
    struct gf_name_table names = { 0 };
    size_t there = 0;

    if (!gf_name_table_of(catalog, &names, NULL))
        for (uint32_t i = 0; i < gf_catalog_len(template); i++) {
            char *name = gf_name_table_unwrap(&names, gf_catalog_at(template, i)->name);
            uint64_t index;

            there += renamed[i] || (name && gf_strmap_get(&names.map, name, &index));
        }
    gf_name_table_done(&names);
    return there * 2 > gf_catalog_len(template);
}

static int check_template(struct gf_found *found, const struct gf_catalog *template,
                          const struct gf_options *opt, struct gf_err *err)
{
    GF_AUTO_MEM bool *renamed = NULL;
    GF_AUTO(gf_dir) dir = NULL;
    int r;

    if (!template || gf_state_kind(found->catalog, NULL) != GF_STATE_PLAIN)
        return 0;
    r = open_template(opt, &dir, err);
    if (!r)
        r = gf_renamed_mark(template, dir, found->catalog, opt->limits, &renamed, err);
    if (r || !mostly_there(found->catalog, template, renamed))
        return r;
    r = gf_template_check_rest(found->catalog, template, renamed, err);
    if (r == -GF_EINCOMPLETE && opt->allow_incomplete) {
        found->complete = GF_COMPLETE_NO;
        snprintf(found->why, sizeof(found->why), "%.*s", GF_WHY - 1, err->text);
        return 0;
    }
    return r;
}

/* base= supplies what is lacking; then the template has its say, and stays with what was
 * found. */
static int join_options(const struct gf_options *opt, struct gf_catalog **template,
                        struct gf_found *found, struct gf_err *err)
{
    int r = opt->base ? supplement_base(opt, found, err) : 0;

    if (!r)
        r = check_template(found, *template, opt, err);
    if (!r)
        found->template = gf_take(template);
    return r;
}

int gf_layers_read(const struct gf_layers_in *in, struct gf_found *ret,
                   char why[static GF_WHY], struct gf_err *err)
{
    GF_AUTO(gf_catalog) template = NULL;
    const struct gf_format *format = NULL;
    struct gf_format_in fin = {
        .dir = in->dir,
        .file = in->file,
        .tag = in->tag,
        .limits = in->opt->limits,
        .allow_incomplete = in->opt->allow_incomplete,
        .threads = in->opt->threads ? in->opt->threads : 8,
    };
    int r = gf_format_detect(in->dir, in->file, in->opt->source_format, &format, why, err);

    if (!r)
        r = read_template(in->opt, &template, err);
    fin.template = template;
    if (!r)
        r = gf_layer_read(format, &fin, ret, err);
    if (!r && !in->file && !in->opt->source_format)
        r = gf_heads_join(&fin, ret, err);
    for (int layer = 0; !r && layer < GF_NLAYERS; layer++) {
        const struct gf_format *weaker =
            in->file || in->opt->source_format || layer <= (int)format->layer
                ? NULL
                : gf_format_of_layer(in->dir, NULL, (enum gf_layer)layer);

        if (weaker)
            r = supplement(weaker, &fin, ret, err);
    }
    return r ? r : join_options(in->opt, &template, ret, err);
}

int gf_layers_finish(const struct gf_options *opt, struct gf_found *found,
                     struct gf_err *err)
{
    GF_AUTO(gf_catalog) template = NULL;
    int r = check_catalog(found, err);

    if (!r)
        r = read_template(opt, &template, err);
    return r ? r : join_options(opt, &template, found, err);
}
