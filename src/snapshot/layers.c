/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/math.h"
#include "base/strmap.h"
#include "format/steps.h"
#include "format/template.h"
#include "view/kind.h"
#include "view/view.h"

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

static int read_layer(const struct gf_format *format, const struct gf_format_in *in,
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

struct names {
    struct gf_arena arena;
    struct gf_strmap map; /* unwrapped name -> index in the catalog */
};

static void names_done(struct names *names)
{
    gf_strmap_done(&names->map);
    gf_arena_done(&names->arena);
}

static char *unwrapped(struct gf_arena *arena, const char *name)
{
    char *buf = gf_arena_alloc(arena, strlen(name) + 1);

    if (buf)
        gf_name_unwrap(name, buf);
    return buf;
}

static int names_of(const struct gf_catalog *catalog, struct names *ret, struct gf_err *err)
{
    for (uint32_t i = 0; i < gf_catalog_len(catalog); i++) {
        const struct gf_tensor *t = gf_catalog_at(catalog, i);
        char *name;

        if (t->hidden)
            continue;
        name = unwrapped(&ret->arena, t->name);
        if (!name || gf_strmap_put(&ret->map, name, i, NULL) == -ENOMEM)
            return gf_nomem(err);
    }
    return 0;
}

/* Of one model: at least one common name, and each of one shape. *ret_lacking counts what
 * `to` does not have. */
static bool same_model(const struct gf_catalog *to, struct names *names,
                       const struct gf_catalog *from, size_t *ret_lacking)
{
    size_t common = 0, lacking = 0;

    for (uint32_t i = 0; i < gf_catalog_len(from); i++) {
        const struct gf_tensor *t = gf_catalog_at(from, i);
        char *name = t->hidden ? NULL : unwrapped(&names->arena, t->name);
        uint64_t index;

        if (!name)
            continue;
        if (!gf_strmap_get(&names->map, name, &index)) {
            lacking++;
            continue;
        }
        if (!gf_shape_equal(gf_catalog_at(to, (uint32_t)index)->shape, t->shape))
            return false;
        common++;
    }
    *ret_lacking = lacking;
    return common > 0;
}

static int adopt_lacking(struct gf_found *to, struct names *names, struct gf_found *from,
                         struct gf_err *err)
{
    uint32_t first = (uint32_t)to->sources.n;
    int r = 0;

    for (uint32_t i = 0; i < gf_catalog_len(from->catalog) && !r; i++) {
        const struct gf_tensor *t = gf_catalog_at(from->catalog, i);
        char *name = t->hidden ? NULL : unwrapped(&names->arena, t->name);
        uint64_t index;

        if (!name || gf_strmap_get(&names->map, name, &index))
            continue;
        r = gf_catalog_adopt(to->catalog, from->catalog, i, first, err);
    }
    while (from->sources.n && !r) {
        uint32_t ignored;

        r = gf_found_add_source(to, from->sources.at[0], &ignored, err);
        memmove(from->sources.at, from->sources.at + 1,
                --from->sources.n * sizeof(*from->sources.at));
    }
    return r;
}

/* Names that the layout said it leaves out, less those that are there now. */
static void forget_supplied(struct gf_found *found)
{
    size_t n = 0;

    for (size_t i = 0; i < found->left_out.n; i++) {
        if (gf_catalog_find(found->catalog, found->left_out.at[i]))
            free(found->left_out.at[i]);
        else
            found->left_out.at[n++] = found->left_out.at[i];
    }
    found->left_out.n = n;
}

/* *ret_same: was it of one model? */
static int join(struct gf_found *to, struct gf_found *from, bool *ret_same,
                struct gf_err *err)
{
    struct names names = { 0 };
    size_t lacking = 0;
    int r = names_of(to->catalog, &names, err);

    if (!r) {
        *ret_same = same_model(to->catalog, &names, from->catalog, &lacking);
        if (*ret_same && lacking)
            r = adopt_lacking(to, &names, from, err);
    }
    names_done(&names);
    if (!r)
        forget_supplied(to);
    return r;
}

/* A weaker layer beside the first: whatever is wrong with it is not this checkpoint's fault. */
static int supplement(const struct gf_format *format, const struct gf_format_in *in,
                      struct gf_found *to, struct gf_err *err)
{
    struct gf_found from = { 0 };
    struct gf_err why = { 0 };
    bool same;
    int r = 0;

    if (read_layer(format, in, &from, &why))
        gf_found_warn(to, "not used beside it: %s", why.text);
    else
        r = join(to, &from, &same, err);
    gf_found_done(&from);
    return r;
}

/* base=: named by the user, so it must be there and fit. */
static int supplement_base(const struct gf_layers_in *in, struct gf_format_in *fin,
                           struct gf_found *to, struct gf_err *err)
{
    GF_AUTO(gf_dir) dir = NULL;
    struct gf_found from = { 0 };
    const struct gf_format *format;
    char why[GF_WHY];
    bool same = false;
    int r = gf_dir_local(in->opt->base, in->opt->follow_links, in->opt->limits, &dir, err);

    if (!r)
        r = gf_format_detect(dir, NULL, NULL, &format, why, err);
    if (!r) {
        fin->dir = dir;
        fin->file = fin->tag = NULL;
        r = read_layer(format, fin, &from, err);
    }
    if (!r)
        r = join(to, &from, &same, err);
    if (!r && !same)
        r = gf_fail(err, EINVAL,
                    "'%s' is no base of this checkpoint: no tensor has the name "
                    "and shape of one here",
                    in->opt->base);
    gf_found_done(&from);
    return r ? gf_wrap(err, "option 'base'") : 0;
}

/* ---- template ---- */

static int read_template(const struct gf_options *opt, struct gf_catalog **ret,
                         struct gf_err *err)
{
    const char *path = opt->config_from ? opt->config_from : opt->base;
    GF_AUTO(gf_dir) dir = NULL;
    int r;

    if (!path)
        return 0;
    r = gf_dir_local(path, opt->follow_links, opt->limits, &dir, err);
    if (!r)
        r = gf_template_read(dir, opt->limits, ret, err);
    if (!r || (r == -ENOENT && dir))
        return 0;
    return gf_wrap(err, "option '%s'", opt->config_from ? "config_from" : "base");
}

/* Names as a whole other than the template's (another naming scheme, heads alone) prove
 * nothing; a few missing ones do. */
static bool mostly_there(const struct gf_catalog *catalog,
                         const struct gf_catalog *template)
{
    struct names names = { 0 };
    size_t there = 0;

    if (!names_of(catalog, &names, NULL))
        for (uint32_t i = 0; i < gf_catalog_len(template); i++) {
            char *name = unwrapped(&names.arena, gf_catalog_at(template, i)->name);
            uint64_t index;

            there += name && gf_strmap_get(&names.map, name, &index);
        }
    names_done(&names);
    return there * 2 > gf_catalog_len(template);
}

static int check_template(struct gf_found *found, const struct gf_catalog *template,
                          bool allow_incomplete, struct gf_err *err)
{
    int r;

    if (!template || gf_state_kind(found->catalog, NULL) != GF_STATE_PLAIN ||
        !mostly_there(found->catalog, template))
        return 0;
    r = gf_template_check(found->catalog, template, err);
    if (r == -GF_EINCOMPLETE && allow_incomplete) {
        found->complete = GF_COMPLETE_NO;
        snprintf(found->why, sizeof(found->why), "%.*s", GF_WHY - 1, err->text);
        return 0;
    }
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
        r = read_layer(format, &fin, ret, err);
    for (int layer = 0; !r && layer < GF_NLAYERS; layer++) {
        const struct gf_format *weaker =
            in->file || in->opt->source_format || layer <= (int)format->layer
                ? NULL
                : gf_format_of_layer(in->dir, NULL, (enum gf_layer)layer);

        if (weaker)
            r = supplement(weaker, &fin, ret, err);
    }
    if (!r && in->opt->base)
        r = supplement_base(in, &fin, ret, err);
    if (!r)
        r = check_template(ret, template, in->opt->allow_incomplete, err);
    if (!r)
        ret->template = gf_take(&template);
    return r;
}
