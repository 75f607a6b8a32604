/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t_catalog.h - small catalogs and views for the tests of view/ and image/.
 *
 * The catalogs are never checked, so they need no pieces.
 */
#ifndef GF_TESTS_T_CATALOG_H
#define GF_TESTS_T_CATALOG_H

#include "catalog/catalog.h"
#include "view/view.h"

#define SHAPE(...)                                                                         \
    ((struct gf_shape){ sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t),            \
                        (const uint64_t[]){ __VA_ARGS__ } })
#define SCALAR ((struct gf_shape){ 0, NULL })

static inline struct gf_catalog *t_catalog(void)
{
    struct gf_catalog *catalog = NULL;

    GF_OK(gf_catalog_new(&gf_limits_default, &catalog, &t_err));
    return catalog;
}

static inline uint32_t t_add_spec(struct gf_catalog *catalog,
                                  const struct gf_tensor_spec *spec)
{
    uint32_t index = GF_NONE;

    GF_OK(gf_catalog_add(catalog, spec, &index, &t_err));
    return index;
}

static inline uint32_t t_add(struct gf_catalog *catalog, const char *name,
                             enum gf_dtype dtype, struct gf_shape shape)
{
    return t_add_spec(catalog, &(struct gf_tensor_spec){ .name = name,
                                                         .shape = shape,
                                                         .dtype = dtype,
                                                         .live = dtype,
                                                         .copy = GF_NONE,
                                                         .alias = GF_NONE });
}

/* Shares the storage of `of`. */
static inline uint32_t t_alias(struct gf_catalog *catalog, const char *name, uint32_t of)
{
    const struct gf_tensor *t = gf_catalog_at(catalog, of);

    return t_add_spec(catalog, &(struct gf_tensor_spec){ .name = name,
                                                         .shape = t->shape,
                                                         .dtype = t->dtype,
                                                         .live = t->live,
                                                         .copy = GF_NONE,
                                                         .alias = of });
}

static inline struct gf_view *t_view(const struct gf_catalog *catalog)
{
    struct gf_view_spec spec = { .name = "raw", .catalog = catalog };
    struct gf_view *view = NULL;

    GF_OK(gf_view_build(&spec, &view, &t_err));
    return view;
}

static inline const struct gf_output *t_output(const struct gf_view *view, const char *name)
{
    for (size_t i = 0; i < view->n; i++)
        if (strcmp(view->outputs[i].name, name) == 0)
            return &view->outputs[i];
    return NULL;
}

/* The names of all outputs, in order, with a space behind each. */
static inline const char *t_names(const struct gf_view *view)
{
    static char text[4096];
    size_t n = 0;

    text[0] = '\0';
    for (size_t i = 0; i < view->n; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s ", view->outputs[i].name);
    return text;
}

#endif
