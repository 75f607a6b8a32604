/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_choose.c - which views a checkpoint has: what sort of state it is, which view is at
 * the root, which ones are listed, and what is to be said of them.
 *
 * Runs while a snapshot is opened, by one thread; gf_snapshot_views() later, by any.
 */
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "snapshot/snapshot_int.h"

/* ---- what sort of state ---- */

static void drop_components(struct gf_snapshot *s)
{
    while (s->ncomponents)
        free(s->components[--s->ncomponents]);
}

/* A head, or a model that has no adapter in it: what stands beside PEFT's. */
static bool is_beside_peft(struct gf_snapshot *s, const char *name)
{
    static const char front[] = "base_model.";
    const struct gf_built *b;

    if (!gf_component_is_known(name) || gf_snapshot_built(s, name, &b, NULL))
        return false;
    for (size_t i = 0; i < b->view->n; i++)
        if (strncmp(b->view->outputs[i].name, front, sizeof(front) - 1) == 0)
            return false;
    return true;
}

static bool is_head(struct gf_snapshot *s, const char *name)
{
    (void)s;
    return gf_component_is_head(name);
}

/* Keeps the components that `wanted` wants. */
static void keep_components(struct gf_snapshot *s,
                            bool (*wanted)(struct gf_snapshot *s, const char *name))
{
    size_t n = 0;

    for (size_t i = 0; i < s->ncomponents; i++) {
        if (wanted(s, s->components[i]))
            s->components[n++] = s->components[i];
        else
            free(s->components[i]);
    }
    s->ncomponents = n;
}

/* Do the names, taken together, not fit config.json? */
static int is_misfit(const struct gf_snapshot *s, bool *ret, struct gf_err *err)
{
    struct gf_view_spec spec = { .name = "full", .catalog = s->found.catalog };
    GF_AUTO(gf_view) view = NULL;
    char why[GF_FIT_WHY];
    int r = gf_view_build(&spec, &view, err);

    if (!r)
        *ret = gf_fit_view(view, s->side.config, s->found.template, why) == GF_FIT_NO;
    return r;
}

static bool any_fits(struct gf_snapshot *s)
{
    for (size_t i = 0; i < s->ncomponents; i++) {
        const struct gf_built *b;

        if (!gf_snapshot_built(s, s->components[i], &b, NULL) && b->fits)
            return true;
    }
    return false;
}

int gf_snapshot_choose_kind(struct gf_snapshot *s, struct gf_err *err)
{
    bool misfit = false;
    int r;

    s->kind = gf_state_kind(s->found.catalog, NULL);
    r = gf_state_components(s->found.catalog, s->components, GF_MAX_COMPONENTS,
                            &s->ncomponents, err);
    if (r || s->kind == GF_STATE_COMPOSITE)
        return r;
    if (s->kind == GF_STATE_PLAIN && s->side.config) {
        r = is_misfit(s, &misfit, err);
        if (r == -ENOMEM)
            return r;
        /* As a whole it would load as random weights, a part of it would not. */
        if (!r && misfit && any_fits(s)) {
            s->kind = GF_STATE_COMPOSITE;
            return 0;
        }
    }
    if (s->kind == GF_STATE_PEFT)
        keep_components(s, is_beside_peft);
    else if (gf_fit_generates(s->side.config))
        keep_components(s, is_head);
    else
        drop_components(s);
    return 0;
}

/* ---- the view at the root ---- */

/* A composite's default: the one model that config.json describes best. */
static int choose_component(struct gf_snapshot *s, struct gf_err *err)
{
    enum gf_fit best = GF_FIT_UNKNOWN;
    size_t n = 0;

    for (size_t i = 0; i < s->ncomponents; i++) {
        const struct gf_built *b;

        if (gf_snapshot_built(s, s->components[i], &b, NULL) || !b->fits || b->fit < best)
            continue;
        n = b->fit > best ? 1 : n + 1;
        best = b->fit;
        s->info.default_view = b->dir.name;
    }
    if (n == 1)
        return 0;
    s->info.default_view = NULL;
    return gf_fail(err, ENOENT, "%s",
                   n                ? "several of the models in it fit config.json"
                   : s->side.config ? "several models, and config.json fits none of them"
                                    : "several models, and no config.json tells which one "
                                      "it describes");
}

/* The view at the root: the option's, else `full`, else the fitting component. That there is
 * none is not an error yet (the root is then without weights); that it cannot be built is. */
int gf_snapshot_choose_default(struct gf_snapshot *s, struct gf_err *err)
{
    const char *chosen = s->opt->view ? s->opt->view : s->opt->prefix;
    const char *name = chosen ? chosen : s->kind == GF_STATE_PEFT ? "adapter" : "full";
    const struct gf_vdir *dir;
    int r;

    if (s->kind == GF_STATE_COMPOSITE && !chosen) {
        if (!choose_component(s, err))
            return 0;
        snprintf(s->why_no_default, sizeof(s->why_no_default), "%s", err->text);
        return 0;
    }
    r = gf_snapshot_dir(s, name, &dir, err);
    if (!r) {
        s->info.default_view = dir->name;
        return 0;
    }
    if (r != -ENOENT || chosen)
        return r;
    snprintf(s->why_no_default, sizeof(s->why_no_default), "%s", err->text);
    return 0;
}

/* ---- the views that are listed ---- */

static int list_view(struct gf_snapshot *s, const char *name, struct gf_err *err)
{
    const struct gf_vdir *dir;

    if (!gf_snapshot_dir(s, name, &dir, NULL) && gf_vec_push(&s->listed, dir->name, 4096))
        return gf_nomem(err);
    return 0;
}

/* The views of a PEFT state, and of each adapter by its name if there are several. */
static const char *const peft_views[] = { "adapter", "full", "base" };

static int list_peft(struct gf_snapshot *s, struct gf_err *err)
{
    int r = 0;

    for (size_t i = 0; i < GF_COUNT(peft_views) && !r; i++)
        r = list_view(s, peft_views[i], err);
    for (size_t i = 0; i < s->nnamed && !r; i++)
        r = list_view(s, s->named[i], err);
    return r;
}

/* By default: what can be built of a PEFT state, a composite's models, a trainer's heads. */
static int list_components(struct gf_snapshot *s, struct gf_err *err)
{
    int r = s->kind == GF_STATE_PEFT ? list_peft(s, err) : 0;

    for (size_t i = 0; i < s->ncomponents && !r; i++)
        r = list_view(s, s->components[i], err);
    return r;
}

/* Views that `ls` shows: those of views=, or the default ones. */
static int list_views(struct gf_snapshot *s, struct gf_err *err)
{
    GF_AUTO_MEM char *list = s->opt->views ? strdup(s->opt->views) : NULL;
    char *rest = list, *name;

    if (s->opt->view || (s->opt->views && strcmp(s->opt->views, "none") == 0))
        return 0;
    if (!s->opt->views)
        return list_components(s, err);
    if (!list)
        return gf_nomem(err);
    while ((name = strsep(&rest, ", +:"))) {
        const struct gf_vdir *dir;
        int r = *name ? gf_snapshot_dir(s, name, &dir, err) : -ENOENT;

        if (!*name)
            continue;
        if (r)
            return gf_wrap(err, "option 'views'");
        if (gf_vec_push(&s->listed, dir->name, 4096))
            return gf_nomem(err);
    }
    return 0;
}

static int warn(struct gf_snapshot *s, const char *name, struct gf_err *err)
{
    const struct gf_vdir *dir;
    int r = gf_snapshot_dir(s, name, &dir, err);

    if (!r && dir->warning && gf_found_warn(&s->found, "view '%s': %s", name, dir->warning))
        return gf_nomem(err);
    return r;
}

int gf_snapshot_choose_listed(struct gf_snapshot *s, struct gf_err *err)
{
    const char *root = s->info.default_view;
    int r = list_views(s, err);

    if (!r && root)
        r = warn(s, root, err);
    for (size_t i = 0; i < s->listed.n && !r; i++)
        if (!root || strcmp(s->listed.at[i], root) != 0)
            r = warn(s, s->listed.at[i], err);
    return r;
}

const char *const *gf_snapshot_listed(const struct gf_snapshot *s, size_t *ret_n)
{
    *ret_n = s->listed.n;
    return s->listed.at;
}

int gf_snapshot_views(struct gf_snapshot *s, struct gf_view_state **ret, size_t *ret_n,
                      struct gf_err *err)
{
    static const char *const whole[] = { "adapter", "base", "full", "raw" };
    const size_t first = s->kind == GF_STATE_PEFT ? 0 : 2;
    const size_t n = s->ncomponents + s->nnamed + GF_COUNT(whole) - first;
    struct gf_view_state *views = calloc(n, sizeof(*views));

    if (!views)
        return gf_nomem(err);
    for (size_t i = 0; i < n; i++) {
        const size_t k = i - s->ncomponents;
        const char *name = i < s->ncomponents ? s->components[i]
                           : k < s->nnamed    ? s->named[k]
                                              : whole[first + k - s->nnamed];
        const struct gf_vdir *dir;
        struct gf_err why = { 0 };

        views[i].name = name;
        if (gf_snapshot_dir(s, name, &dir, &why))
            snprintf(views[i].why_not, sizeof(views[i].why_not), "%.*s", GF_WHY - 1,
                     why.text);
        views[i].is_default =
            s->info.default_view && strcmp(name, s->info.default_view) == 0;
        for (size_t l = 0; l < s->listed.n; l++)
            views[i].listed |= strcmp(name, s->listed.at[l]) == 0;
    }
    *ret = views;
    *ret_n = n;
    return 0;
}
