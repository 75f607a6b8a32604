/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub_items.c - a view's tensors under their names on the hub.
 *
 * Is it the module's state at all? Files that save_pretrained wrote have the hub's names
 * already and stay as they are. The base model's files decide it where they are known:
 * whichever names leave the fewest tensors without a namesake there. Else the names tell
 * (gf_hub_kind); if they tell both, that is an error.
 *
 * All or nothing: if one tensor cannot be served as the hub has it, all keep the module's
 * names, which transformers loads as well.
 */
#include "view/hub.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "view/view_int.h"

/* ---- order ---- */

/* Digits as numbers of any length. */
static int cmp_digits(const char *a, size_t na, const char *b, size_t nb)
{
    for (; na > 1 && *a == '0'; a++)
        na--;
    for (; nb > 1 && *b == '0'; b++)
        nb--;
    if (na != nb)
        return na < nb ? -1 : 1;
    return memcmp(a, b, na);
}

static size_t trailing_digits(const char *s, size_t n)
{
    size_t digits = 0;

    while (digits < n && isdigit((unsigned char)s[n - 1 - digits]))
        digits++;
    return digits;
}

/* Numbers before words; words by their text, then by the number at their end. */
static int cmp_component(const char *a, size_t na, const char *b, size_t nb)
{
    size_t da = trailing_digits(a, na), db = trailing_digits(b, nb), ta = na - da,
           tb = nb - db;
    bool number_a = na && da == na, number_b = nb && db == nb;
    int c;

    if (number_a != number_b)
        return number_a ? -1 : 1;
    c = memcmp(a, b, ta < tb ? ta : tb);
    if (!c && ta != tb)
        c = ta < tb ? -1 : 1;
    if (c || (!da && !db))
        return c;
    if (!da || !db)
        return da ? 1 : -1;
    return cmp_digits(a + ta, da, b + tb, db);
}

int gf_name_natural_cmp(const char *a, const char *b)
{
    for (;;) {
        size_t na = strcspn(a, "."), nb = strcspn(b, ".");
        int c = cmp_component(a, na, b, nb);

        if (c)
            return c;
        if (!a[na] || !b[nb])
            return a[na] ? 1 : b[nb] ? -1 : 0;
        a += na + 1;
        b += nb + 1;
    }
}

static int by_natural_name(const void *a, const void *b)
{
    const struct gf_item *const *x = a, *const *y = b;
    int c = gf_name_natural_cmp((*x)->name, (*y)->name);

    return c ? c : (*x > *y) - (*x < *y);
}

/* ---- conversion ---- */

/* The items as `hub` saves them, in a new list. */
static int convert(const struct gf_view_spec *spec, const struct gf_hub *hub,
                   const struct gf_items *items, struct gf_arena *arena,
                   struct gf_items *ret, struct gf_err *err)
{
    GF_AUTO_MEM const struct gf_item **sorted = calloc(items->n + 1, sizeof(*sorted));
    uint32_t nstorages = 0;
    size_t n = 0;
    int r = 0;

    if (!sorted)
        return gf_nomem(err);
    for (size_t i = 0; i < items->n; i++)
        if (!items->at[i].dropped)
            sorted[n++] = &items->at[i];
    qsort(sorted, n, sizeof(*sorted), by_natural_name);
    for (size_t i = 0; i < n && !r; i++) {
        const struct gf_item *from = sorted[i];
        struct gf_hub_part *parts;
        size_t nparts = 0;

        r = gf_hub_save(hub, from->name, from->shape, arena, &parts, &nparts, err);
        for (size_t k = 0; k < nparts && !r; k++) {
            r = gf_items_add(ret, spec->catalog, parts[k].name, from->tensor, err);
            if (r)
                continue;
            struct gf_item *to = &ret->at[ret->n - 1];

            *to = *from;
            to->name = parts[k].name;
            to->shape = parts[k].shape;
            to->first += parts[k].first;
            to->merge_first += parts[k].first;
            to->storage = nparts > 1 ? nstorages + parts[k].storage + 1 : from->storage;
        }
        if (!r && nparts > 1)
            nstorages += parts[nparts - 1].storage + 1;
    }
    return r == -EEXIST ? -GF_EBAD : r;
}

/* ---- is it the module's state? ---- */

/* *ret: do the items have the hub's names? */
static int look_at_names(const struct gf_hub *hub, const struct gf_items *items, bool *ret,
                         struct gf_err *err)
{
    const char *first[4] = { NULL }; /* by enum gf_name_kind */
    struct gf_arena arena = { 0 };
    int r = 0;

    for (size_t i = 0; i < items->n && !r; i++) {
        enum gf_name_kind kind = GF_NAME_SAME;

        if (!items->at[i].dropped)
            r = gf_hub_kind(hub, items->at[i].name, &arena, &kind, err);
        if (!first[kind])
            first[kind] = items->at[i].name;
        gf_arena_done(&arena);
    }
    if (!r && first[GF_NAME_MODULE] && first[GF_NAME_HUB])
        r = gf_fail(err, GF_EBAD,
                    "tensor '%s' has a name as in a module, '%s' one as on the hub "
                    "(names=module serves them as they are)",
                    first[GF_NAME_MODULE], first[GF_NAME_HUB]);
    if (!r)
        *ret = !first[GF_NAME_MODULE] && (first[GF_NAME_HUB] || first[GF_NAME_MAYBE_HUB]);
    return r;
}

/* How many items the template does not have. */
static size_t misses(const struct gf_items *items, const struct gf_catalog *template)
{
    size_t n = 0;

    for (size_t i = 0; i < items->n; i++)
        n += !items->at[i].dropped && !gf_catalog_find(template, items->at[i].name);
    return n;
}

/* A tensor that was cut has the size that the template has. */
static int check_cuts(const struct gf_view_spec *spec, const struct gf_items *items,
                      struct gf_err *err)
{
    char found[GF_SHAPE_TEXT], wanted[GF_SHAPE_TEXT];

    for (size_t i = 0; i < items->n; i++) {
        const struct gf_item *item = &items->at[i];
        const struct gf_tensor *want = gf_catalog_find(spec->template, item->name);
        const struct gf_tensor *whole = gf_catalog_at(spec->catalog, item->tensor);

        if (want && !gf_shape_equal(item->shape, whole->shape) &&
            !gf_shape_equal(item->shape, want->shape))
            return gf_fail(err, GF_EBAD,
                           "tensor '%s' of '%s' is %s, the base model's is %s", item->name,
                           whole->name, gf_shape_text(item->shape, found),
                           gf_shape_text(want->shape, wanted));
    }
    return 0;
}

/* The conversions that the base model's files want: *ret_fits if they leave fewer names that
 * are not there than the module's names do. */
static int try_template(const struct gf_view_spec *spec, const struct gf_items *items,
                        struct gf_arena *arena, struct gf_items *ret, bool *ret_fits,
                        struct gf_err *err)
{
    GF_AUTO(gf_hub) hub = NULL;
    int r = gf_hub_new_for(spec->config, spec->template, &hub, err);

    *ret_fits = false;
    if (r || !hub)
        return r;
    r = convert(spec, hub, items, arena, ret, err);
    if (!r && misses(ret, spec->template) < misses(items, spec->template)) {
        *ret_fits = true;
        return check_cuts(spec, ret, err);
    }
    gf_items_done(ret);
    return r;
}

/* *ret_changed: the items have other names now, which are in *ret. */
static int to_hub(const struct gf_view_spec *spec, const struct gf_items *items,
                  struct gf_arena *arena, struct gf_items *ret, bool *ret_changed,
                  struct gf_err *err)
{
    GF_AUTO(gf_hub) hub = NULL;
    bool is_hubs = false;
    int r = gf_hub_new(spec->config, &hub, err);

    *ret_changed = false;
    if (!r && hub)
        r = look_at_names(hub, items, &is_hubs, err);
    if (r || is_hubs)
        return r;
    if (spec->template) {
        if (misses(items, spec->template) == 0)
            return 0;
        r = try_template(spec, items, arena, ret, ret_changed, err);
        if (r || *ret_changed || misses(items, spec->template) * 2 < items->n)
            return r;
    }
    *ret_changed = hub != NULL;
    return hub ? convert(spec, hub, items, arena, ret, err) : 0;
}

int gf_items_to_hub(const struct gf_view_spec *spec, struct gf_view *view,
                    struct gf_items *items, struct gf_err *err)
{
    struct gf_items named = { 0 };
    struct gf_err why = { 0 };
    bool changed = false;
    int r = to_hub(spec, items, view->arena, &named, &changed, &why);

    if (!r && changed) {
        gf_items_done(items);
        *items = named;
        return 0;
    }
    gf_items_done(&named);
    if (r == -ENOTSUP)
        return gf_view_note(view, err, "names are the module's: %s", why.text);
    return r ? gf_fail(err, -r, "%s", why.text) : 0;
}
