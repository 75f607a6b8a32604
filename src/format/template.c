/* SPDX-License-Identifier: Apache-2.0 */
#include "format/template.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/strmap.h"
#include "catalog/names.h"
#include "format/format.h"
#include "format/hf_dir.h"
#include "format/torch_bin.h"

static int by_name(const void *a, const void *b)
{
    const struct gf_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* A catalog of these tensors, in their order. */
static int copy(const struct gf_tensor *const *tensors, size_t n,
                const struct gf_limits *limits, struct gf_catalog **ret, struct gf_err *err)
{
    GF_AUTO(gf_catalog) catalog = NULL;
    int r = gf_catalog_new(limits, &catalog, err);

    for (size_t i = 0; i < n && !r; i++) {
        const struct gf_tensor *t = tensors[i];
        struct gf_tensor_spec spec = { .name = t->name,
                                       .shape = t->shape,
                                       .dtype = t->dtype,
                                       .live = t->live,
                                       .copy = GF_NONE,
                                       .alias = t->alias };

        r = gf_catalog_add(catalog, &spec, NULL, err);
    }
    if (!r)
        *ret = gf_take(&catalog);
    return r;
}

static int read_found(const struct gf_format *format, struct gf_dir *dir,
                      const struct gf_limits *limits, struct gf_catalog **ret,
                      struct gf_err *err)
{
    struct gf_format_in in = { .dir = dir, .limits = limits, .threads = 1 };
    GF_AUTO_MEM const struct gf_tensor **tensors = NULL;
    struct gf_found found = { 0 };
    size_t n = 0;
    int r = format->read(&in, &found, err);

    if (!r) {
        n = gf_catalog_len(found.catalog);
        tensors = calloc(n + 1, sizeof(struct gf_tensor *));
        if (!tensors)
            r = gf_nomem(err);
    }
    for (uint32_t i = 0; i < n && !r; i++)
        tensors[i] = gf_catalog_at(found.catalog, i);
    if (!r && format == &gf_hf_dir_format &&
        !gf_hf_dir_is_ordered(dir, limits, found.catalog))
        qsort(tensors, n, sizeof(struct gf_tensor *), by_name);
    if (!r)
        r = copy(tensors, n, limits, ret, err);
    gf_found_done(&found);
    return r;
}

int gf_template_read(struct gf_dir *dir, const struct gf_limits *limits,
                     struct gf_catalog **ret, struct gf_err *err)
{
    char why[GF_WHY];
    int r = -ENOENT;

    if (gf_hf_dir_format.probe(dir, NULL, why) >= GF_HF_SURE_MODEL)
        r = read_found(&gf_hf_dir_format, dir, limits, ret, err);
    else if (gf_torch_bin_format.probe(dir, NULL, why) >= GF_BIN_SURE_MODEL)
        r = read_found(&gf_torch_bin_format, dir, limits, ret, err);
    else
        return -ENOENT;
    return r ? gf_wrap(err, "template '%s'", dir->name) : 0;
}

bool gf_template_is_ordered(const struct gf_catalog *template)
{
    for (uint32_t i = 1; i < gf_catalog_len(template); i++)
        if (strcmp(gf_catalog_at(template, i - 1)->name, gf_catalog_at(template, i)->name) >
            0)
            return true;
    return gf_catalog_len(template) < 2;
}

/* Clean names of the catalog -> index. */
static int index_names(const struct gf_catalog *catalog, struct gf_arena *arena,
                       struct gf_strmap *map, struct gf_err *err)
{
    for (uint32_t i = 0; i < gf_catalog_len(catalog); i++) {
        const struct gf_tensor *t = gf_catalog_at(catalog, i);
        char *clean = gf_arena_strdup(arena, t->name);

        if (!clean)
            return gf_nomem(err);
        gf_name_unwrap(t->name, clean);
        if (!t->hidden && gf_strmap_put(map, clean, i, NULL) == -ENOMEM)
            return gf_nomem(err);
    }
    return 0;
}

int gf_template_check(const struct gf_catalog *catalog, const struct gf_catalog *template,
                      struct gf_err *err)
{
    return gf_template_check_rest(catalog, template, NULL, err);
}

int gf_template_check_rest(const struct gf_catalog *catalog,
                           const struct gf_catalog *template, const bool *known,
                           struct gf_err *err)
{
    char found[GF_SHAPE_TEXT], wanted[GF_SHAPE_TEXT];
    const char *missing = NULL;
    struct gf_strmap map = { 0 };
    struct gf_arena arena = { 0 };
    size_t nmissing = 0, n = 0;
    int r = index_names(catalog, &arena, &map, err);

    for (uint32_t i = 0; i < gf_catalog_len(template) && !r; i++) {
        const struct gf_tensor *want = gf_catalog_at(template, i), *have;
        char *clean = gf_arena_strdup(&arena, want->name);
        uint64_t at;

        if (!clean) {
            r = gf_nomem(err);
            break;
        }
        gf_name_unwrap(want->name, clean);
        if (want->alias != GF_NONE || (known && known[i]))
            continue;
        n++;
        if (!gf_strmap_get(&map, clean, &at)) {
            missing = nmissing++ ? missing : want->name;
            continue;
        }
        have = gf_catalog_at(catalog, (uint32_t)at);
        if (!gf_shape_equal(have->shape, want->shape))
            r = gf_fail(err, GF_EBAD, "tensor '%s' is %s, the model's is %s", have->name,
                        gf_shape_text(have->shape, found),
                        gf_shape_text(want->shape, wanted));
    }
    if (!r && nmissing)
        r = gf_fail(err, GF_EINCOMPLETE,
                    "%zu of the model's %zu tensors are missing, the first is '%s'",
                    nmissing, n, missing);
    gf_strmap_done(&map);
    gf_arena_done(&arena);
    return r;
}
