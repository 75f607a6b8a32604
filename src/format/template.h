/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template.h - which tensors a model has: names, shapes, dtypes and order, from a directory
 * with its weights (config_from=, a base model).
 *
 * The order is the model's own if that is known: torch files keep it, for safetensors it
 * follows from config.json's model_type (module_order.h). If it is not known, names are in
 * the order of their bytes, and that is how one tells.
 */
#ifndef GF_FORMAT_TEMPLATE_H
#define GF_FORMAT_TEMPLATE_H

#include <stdbool.h>

#include "base/err.h"
#include "base/limits.h"
#include "catalog/catalog.h"
#include "source/dir.h"

/* Safetensors first, else .bin. -ENOENT, without text, if it has no weights. The catalog has
 * no pieces. Adapters are no templates. */
int gf_template_read(struct gf_dir *dir, const struct gf_limits *limits,
                     struct gf_catalog **ret, struct gf_err *err);

/* Is the order the model's own? */
bool gf_template_is_ordered(const struct gf_catalog *template);

/* Does the catalog have all tensors of the template, in their shapes? Surplus ones are no
 * fault, nor is the absence of tied ones. GF_EINCOMPLETE counts and names what is missing,
 * GF_EBAD names a wrong shape. Names are compared without the wrappers of training
 * frameworks (catalog/names.h). */
int gf_template_check(const struct gf_catalog *catalog, const struct gf_catalog *template,
                      struct gf_err *err);
/* The same, but for the tensors of the template that known[] marks: they are there. */
int gf_template_check_rest(const struct gf_catalog *catalog,
                           const struct gf_catalog *template, const bool *known,
                           struct gf_err *err);

#endif
