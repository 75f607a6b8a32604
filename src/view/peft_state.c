/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "view/peft_int.h"

int gf_peft_state_init(const struct gf_view_spec *spec, struct gf_view *view,
                       struct gf_items *items, struct gf_peft_state *ret,
                       struct gf_err *err)
{
    size_t n = gf_catalog_len(spec->catalog);
    int r;

    *ret = (struct gf_peft_state){ .spec = spec, .view = view, .items = items };
    r = gf_adapter_choose(spec->catalog, spec->name, ret->adapter, err);
    if (r)
        return r;
    ret->names = gf_arena_alloc(&ret->arena, (n + 1) * sizeof(*ret->names));
    if (!ret->names)
        return gf_nomem(err);
    for (uint32_t i = 0; i < n; i++) {
        const struct gf_tensor *tensor = gf_catalog_at(spec->catalog, i);

        if (gf_adapter_split(tensor->name, &ret->arena, &ret->names[i]))
            return gf_nomem(err);
        ret->below |= ret->names[i].below && !tensor->hidden;
    }
    return 0;
}

void gf_peft_state_done(struct gf_peft_state *s)
{
    gf_arena_done(&s->arena);
    gf_peft_free(s->peft);
    s->peft = NULL;
}

int gf_peft_add(struct gf_peft_state *s, const char *name, uint32_t tensor,
                struct gf_err *err)
{
    const char *copy = gf_arena_strdup(s->view->arena, name);
    int r =
        copy ? gf_items_add(s->items, s->spec->catalog, copy, tensor, err) : gf_nomem(err);

    return r == -EEXIST ? -GF_EBAD : r;
}

/* What a tuner keeps beside its weights: AdaLoRA's X.ranknum.default. */
static bool is_adapters(const char *name, const char *adapter)
{
    const char *dot = strrchr(name, '.');

    return dot && strcmp(dot + 1, adapter) == 0;
}

/* Where a tensor of the base comes from. */
enum origin { NOT_BASE, OWN, JOINED, NORIGINS };

static enum origin origin_of(const struct gf_peft_state *s, uint32_t tensor)
{
    const struct gf_adapter_name *name = &s->names[tensor];

    if (name->marker || name->aside || gf_catalog_at(s->spec->catalog, tensor)->hidden)
        return NOT_BASE;
    if (!*s->adapter)
        return name->below ? NOT_BASE : JOINED;
    if (is_adapters(name->base, s->adapter))
        return NOT_BASE;
    return name->below || !s->below ? OWN : JOINED;
}

/* The second origin's tensors join the first's: the state's own are the trained ones. */
static int add_origin(struct gf_peft_state *s, enum origin origin, size_t nfirst,
                      struct gf_err *err)
{
    int r = 0;

    for (uint32_t i = 0; i < gf_catalog_len(s->spec->catalog) && !r; i++) {
        const char *name = s->names[i].base;
        uint64_t k;

        if (origin_of(s, i) != origin)
            continue;
        if (!gf_strmap_get(&s->items->by_name, name, &k) || k >= nfirst)
            r = gf_peft_add(s, name, i, err);
        else if (origin == OWN)
            gf_item_set(&s->items->at[k], s->spec->catalog, i);
    }
    return r;
}

int gf_peft_base_items(struct gf_peft_state *s, bool whole, struct gf_err *err)
{
    const char *packed[NORIGINS] = { NULL };
    size_t counts[NORIGINS] = { 0 };
    enum origin first, bad;
    int r;

    for (uint32_t i = 0; i < gf_catalog_len(s->spec->catalog); i++) {
        enum origin origin = origin_of(s, i);

        counts[origin]++;
        if (whole && !packed[origin] && origin != NOT_BASE &&
            gf_adapter_is_packing(s->names[i].base))
            packed[origin] = gf_catalog_at(s->spec->catalog, i)->name;
    }
    bad = packed[JOINED] || counts[JOINED] ? JOINED : OWN;
    if (packed[bad])
        return gf_fail(
            err, ENOENT,
            "no view '%s': tensor '%s' is of quantised weights; base=DIR supplies "
            "them as they were",
            s->spec->name, packed[bad]);
    if (counts[JOINED] == 0 && counts[OWN] == 0)
        return gf_fail(err, ENOENT, "no view '%s': the base model is not here: %s",
                       s->spec->name,
                       s->spec->base_why ? s->spec->base_why : "base=DIR supplies it");
    first = packed[OWN] || counts[OWN] < counts[JOINED] ? JOINED : OWN;
    r = add_origin(s, first, 0, err);
    if (!r && !packed[OWN])
        r = add_origin(s, first == OWN ? JOINED : OWN, s->items->n, err);
    return r;
}
