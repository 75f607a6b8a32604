/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub.h - names as on the Hugging Face hub for names as in a transformers-5 module.
 *
 * Since transformers 5 a module's names can differ from those in its files: experts are one
 * tensor in the module and many in the files, and whole families renamed their modules.
 * save_pretrained reverts that by the classes and model types in the model; so does this. A
 * module tensor is one or more contiguous runs of itself, each a hub tensor:
 *
 *   model.layers.0.mlp.experts.gate_up_proj [E, 2I, H]
 *     -> model.layers.0.mlp.experts.{e}.gate_proj.weight  rows [0, I) of expert e
 *        model.layers.0.mlp.experts.{e}.up_proj.weight    rows [I, 2I) of expert e
 *
 * Which conversions are reverted: those that loading the model's files had used, if these
 * files are known (a base model); else all but those that change prefixes, as for a model
 * that was made from its config.
 *
 * Source: transformers 5.18 conversion_mapping.py, core_model_loading.py
 * (get_model_conversion_mapping, revert_weight_conversion).
 */
#ifndef GF_VIEW_HUB_H
#define GF_VIEW_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/json.h"
#include "catalog/catalog.h"
#include "tensor/shape.h"

struct gf_hub; /* the conversions of one model; read-only, thread-safe */

/* A run of a module tensor that is a tensor on the hub. */
struct gf_hub_part {
    const char *name;
    uint64_t first; /* flattened element of the module tensor where it starts */
    struct gf_shape shape;
    uint32_t storage; /* parts with the same number share one when they are saved */
};

/* The conversions for config.json's model_type and architectures; *ret NULL where names on
 * the hub are the module's (also for config NULL). */
int gf_hub_new(const struct gf_json *config, struct gf_hub **ret, struct gf_err *err);

/* As gf_hub_new, but those that loading a model from these tensors uses; *ret NULL if that
 * takes none. */
int gf_hub_new_for(const struct gf_json *config, const struct gf_catalog *files,
                   struct gf_hub **ret, struct gf_err *err);
void gf_hub_free(struct gf_hub *hub);
GF_DEFINE_AUTO(gf_hub);

/* The hub tensors of module tensor `name`: *ret_n of them in file order, in the arena. One
 * part that is the whole tensor under its own name if no conversion applies (names that
 * are the hub's already, too; hub NULL). GF_EBAD: a shape that cannot be cut as the family
 * does. -ENOTSUP: the hub's tensor is no run of this one. */
int gf_hub_parts(const struct gf_hub *hub, const char *name, struct gf_shape shape,
                 struct gf_arena *arena, struct gf_hub_part **ret, size_t *ret_n,
                 struct gf_err *err);

/* The same for a name that is known to be the module's. */
int gf_hub_save(const struct gf_hub *hub, const char *name, struct gf_shape shape,
                struct gf_arena *arena, struct gf_hub_part **ret, size_t *ret_n,
                struct gf_err *err);

/* The module's name of a tensor of the model's files, as loading renames it, in the arena.
 * Several tensors have the same one where they are cut out of one. */
int gf_hub_module_name(const struct gf_hub *hub, const char *name, struct gf_arena *arena,
                       const char **ret, struct gf_err *err);

/* What a name alone tells: nothing; it is the module's and another on the hub; the other way
 * round; the other way round, or a module's that a conversion meant for another matches. */
enum gf_name_kind { GF_NAME_SAME, GF_NAME_MODULE, GF_NAME_HUB, GF_NAME_MAYBE_HUB };
int gf_hub_kind(const struct gf_hub *hub, const char *name, struct gf_arena *arena,
                enum gf_name_kind *ret, struct gf_err *err);

/* Ascending in transformers' dot_natural_key: components that are numbers by value. That is
 * the order of a state dict once conversions applied. */
int gf_name_natural_cmp(const char *a, const char *b);

#endif
