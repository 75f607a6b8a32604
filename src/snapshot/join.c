/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/join.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "catalog/names.h"
#include "view/adapter.h"
#include "view/kind.h"
#include "view/view.h"

void gf_name_table_done(struct gf_name_table *names)
{
    gf_strmap_done(&names->map);
    gf_arena_done(&names->arena);
}

char *gf_name_table_unwrap(struct gf_name_table *names, const char *name)
{
    char *buf = gf_arena_alloc(&names->arena, strlen(name) + 1);

    if (buf)
        gf_name_unwrap(name, buf);
    return buf;
}

int gf_name_table_of(const struct gf_catalog *catalog, struct gf_name_table *ret,
                     struct gf_err *err)
{
    for (uint32_t i = 0; i < gf_catalog_len(catalog); i++) {
        const struct gf_tensor *t = gf_catalog_at(catalog, i);
        char *name;

        if (t->hidden)
            continue;
        name = gf_name_table_unwrap(ret, t->name);
        if (!name || gf_strmap_put(&ret->map, name, i, NULL) == -ENOMEM)
            return gf_nomem(err);
    }
    return 0;
}

/* ---- a weaker layer ---- */

/* Of one model: at least one common name, and each of one shape. *ret_lacking counts what
 * `to` does not have. */
static bool same_model(const struct gf_catalog *to, struct gf_name_table *names,
                       const struct gf_catalog *from, const bool *renamed,
                       size_t *ret_lacking)
{
    size_t common = 0, lacking = 0;

    for (uint32_t i = 0; i < gf_catalog_len(from); i++) {
        const struct gf_tensor *t = gf_catalog_at(from, i);
        char *name = t->hidden ? NULL : gf_name_table_unwrap(names, t->name);
        uint64_t index;

        if (!name || renamed[i]) {
            common += name != NULL;
            continue;
        }
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

static int adopt_lacking(struct gf_found *to, struct gf_name_table *names,
                         struct gf_found *from, const bool *renamed, struct gf_err *err)
{
    uint32_t first = (uint32_t)to->sources.n;
    int r = 0;

    for (uint32_t i = 0; i < gf_catalog_len(from->catalog) && !r; i++) {
        const struct gf_tensor *t = gf_catalog_at(from->catalog, i);
        char *name = t->hidden ? NULL : gf_name_table_unwrap(names, t->name);
        uint64_t index;

        if (!name || renamed[i] || gf_strmap_get(&names->map, name, &index))
            continue;
        r = gf_catalog_adopt(to->catalog, from->catalog, i, first, err);
    }
    return r ? r : gf_found_take_sources(to, from, err);
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

int gf_join_layer(struct gf_found *to, struct gf_found *from, const bool *renamed,
                  bool *ret_same, struct gf_err *err)
{
    struct gf_name_table names = { 0 };
    size_t lacking = 0;
    int r = gf_name_table_of(to->catalog, &names, err);

    if (!r) {
        *ret_same = same_model(to->catalog, &names, from->catalog, renamed, &lacking);
        if (*ret_same && lacking)
            r = adopt_lacking(to, &names, from, renamed, err);
    }
    gf_name_table_done(&names);
    if (!r)
        forget_supplied(to);
    return r;
}

/* ---- a base model ---- */

/* A PEFT state's names, taken apart. */
struct peft {
    const struct gf_catalog *catalog;
    struct gf_arena arena;
    struct gf_adapter_name *names;
    struct gf_strmap own;     /* its own tensors of the base, by their names there */
    struct gf_strmap modules; /* ... and the modules that they are parameters of */
    bool file_form, below, packed;
};

static void peft_done(struct peft *p)
{
    gf_strmap_done(&p->own);
    gf_strmap_done(&p->modules);
    gf_arena_done(&p->arena);
}

static int peft_init(const struct gf_catalog *catalog, struct peft *ret, struct gf_err *err)
{
    size_t n = gf_catalog_len(catalog);

    *ret = (struct peft){ .catalog = catalog, .file_form = true };
    ret->names = gf_arena_alloc(&ret->arena, (n + 1) * sizeof(*ret->names));
    if (!ret->names)
        return gf_nomem(err);
    for (uint32_t i = 0; i < n; i++) {
        struct gf_adapter_name *name = &ret->names[i];

        if (gf_adapter_split(gf_catalog_at(catalog, i)->name, &ret->arena, name))
            return gf_nomem(err);
        ret->below |= name->below;
        ret->file_form &= !*name->adapter;
    }
    for (uint32_t i = 0; i < n; i++) {
        const char *base = ret->names[i].base;

        if (!base || ret->names[i].aside || gf_catalog_at(catalog, i)->hidden ||
            (ret->below && !ret->names[i].below) || (ret->file_form && ret->names[i].below))
            continue;
        ret->packed |= gf_adapter_is_packing(base);
        if (gf_strmap_put(&ret->own, base, i, NULL) == -ENOMEM ||
            gf_strmap_put(&ret->modules, ret->names[i].module, i, NULL) == -ENOMEM)
            return gf_nomem(err);
    }
    return 0;
}

int gf_join_is_needed(const struct gf_found *found, bool *ret, struct gf_err *err)
{
    const struct gf_catalog *catalog = found->catalog;
    struct peft p;
    int r = peft_init(catalog, &p, err);
    bool needed = p.packed || p.own.n == 0 || found->left_out.n > 0;

    for (uint32_t i = 0; i < gf_catalog_len(catalog) && !r && !needed; i++) {
        const struct gf_adapter_name *name = &p.names[i];
        uint64_t k;

        needed = name->marker && strcmp(name->marker, "lora_A") == 0 &&
                 !gf_strmap_get(&p.modules, name->module, &k);
    }
    peft_done(&p);
    if (!r)
        *ret = needed;
    return r;
}

/* 'model.layers.0.mlp.experts' -> the length of 'model.layers.0.'; 0: it is in no layer. */
static size_t layer_of(const char *module)
{
    for (const char *p = module; *p; p++)
        if ((p == module || p[-1] == '.') && isdigit((unsigned char)*p)) {
            const char *end = p + strspn(p, "0123456789");

            if (*end == '.')
                return (size_t)(end - module) + 1;
        }
    return 0;
}

/* The factors of a module's LoRA and its weight: do they fit as far as one can tell here? */
static int check_shapes(const struct peft *p, uint32_t factor, const struct gf_tensor *w,
                        const char *base, struct gf_err *err)
{
    const struct gf_tensor *t = gf_catalog_at(p->catalog, factor);
    char st[GF_SHAPE_TEXT], sw[GF_SHAPE_TEXT];
    uint64_t in;

    if (strcmp(p->names[factor].marker, "lora_A") != 0 || t->shape.rank != 2 ||
        w->shape.rank != 2)
        return 0;
    in = t->shape.dims[1];
    if (in == w->shape.dims[0] || in == w->shape.dims[1])
        return 0;
    return gf_fail(err, EINVAL,
                   "'%s' is no base of this adapter: '%s' is %s there, which '%s' %s does "
                   "not fit",
                   base, w->name, gf_shape_text(w->shape, sw), t->name,
                   gf_shape_text(t->shape, st));
}

/* Is this the base of the adapter? Its modules are in it, or at least its layers: names may be
 * those of a hub's files. */
static int check_base(struct peft *p, const struct gf_catalog *from,
                      struct gf_name_table *names, const char *base, struct gf_err *err)
{
    struct gf_strmap layers = { 0 };
    const char *missing = NULL;
    bool fits = false;
    int r = 0;

    for (uint32_t i = 0; i < gf_catalog_len(from) && !r; i++) {
        const char *name = gf_catalog_at(from, i)->name;
        char *layer = gf_arena_strndup(&p->arena, name, layer_of(name));

        if (!layer || gf_strmap_put(&layers, layer, i, NULL) == -ENOMEM)
            r = gf_nomem(err);
    }
    for (uint32_t i = 0; i < gf_catalog_len(p->catalog) && !r; i++) {
        const struct gf_adapter_name *name = &p->names[i];
        const char *weight, *layer;
        uint64_t k;

        if (!name->marker || !*name->module)
            continue;
        weight = gf_arena_printf(&p->arena, "%s.weight", name->module);
        layer = gf_arena_strndup(&p->arena, name->module, layer_of(name->module));
        if (!weight || !layer) {
            r = gf_nomem(err);
        } else if (gf_strmap_get(&names->map, weight, &k)) {
            fits = true;
            r = check_shapes(p, i, gf_catalog_at(from, (uint32_t)k), base, err);
        } else if (!*layer || !gf_strmap_get(&layers, layer, &k)) {
            missing = missing ? missing : weight;
        } else {
            fits = true;
        }
    }
    gf_strmap_done(&layers);
    if (r || fits)
        return r;
    return gf_fail(err, EINVAL, "'%s' is no base of this adapter: it has no '%s'", base,
                   missing ? missing : "module of it");
}

static int adopt_base(struct peft *p, struct gf_found *to, struct gf_found *from,
                      struct gf_err *err)
{
    uint32_t first = (uint32_t)to->sources.n;
    struct gf_name_table taken = { 0 };
    int r = gf_name_table_of(to->catalog, &taken, err);

    for (uint32_t i = 0; i < gf_catalog_len(from->catalog) && !r; i++) {
        const struct gf_tensor *t = gf_catalog_at(from->catalog, i);
        char *name = t->hidden ? NULL : gf_name_table_unwrap(&taken, t->name);
        uint64_t k;

        if (!name || gf_strmap_get(&taken.map, name, &k) ||
            (gf_strmap_get(&p->own, name, &k) && !p->packed))
            continue;
        r = gf_catalog_adopt(to->catalog, from->catalog, i, first, err);
    }
    gf_name_table_done(&taken);
    return r ? r : gf_found_take_sources(to, from, err);
}

/* What the layout said it leaves out is named as in training; the base has its own names. */
static void forget_base(struct gf_found *to, struct gf_name_table *names)
{
    size_t n = 0;

    for (size_t i = 0; i < to->left_out.n; i++) {
        struct gf_adapter_name name;
        uint64_t k;

        if (!gf_adapter_split(to->left_out.at[i], &names->arena, &name) && name.base &&
            gf_strmap_get(&names->map, name.base, &k))
            free(to->left_out.at[i]);
        else
            to->left_out.at[n++] = to->left_out.at[i];
    }
    to->left_out.n = n;
}

int gf_join_base(struct gf_found *to, struct gf_found *from, const char *base,
                 struct gf_err *err)
{
    struct gf_name_table names = { 0 };
    bool needed = false;
    struct peft p;
    int r = peft_init(to->catalog, &p, err);

    if (!r && gf_state_kind(from->catalog, NULL) == GF_STATE_PEFT)
        r = gf_fail(err, EINVAL, "'%s' is no base of this adapter: it holds one itself",
                    base);
    if (!r)
        r = gf_name_table_of(from->catalog, &names, err);
    if (!r)
        r = check_base(&p, from->catalog, &names, base, err);
    if (!r)
        r = gf_join_is_needed(to, &needed, err);
    if (!r && needed)
        r = adopt_base(&p, to, from, err);
    if (!r)
        forget_base(to, &names);
    gf_name_table_done(&names);
    peft_done(&p);
    return r;
}
