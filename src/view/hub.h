/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub.h - names as on the Hugging Face hub for names as in a transformers-5 module.
 *
 * Since transformers 5 a module's names can differ from those in its files: experts are one
 * tensor in the module and many in the files, and whole families renamed their modules.
 * save_pretrained reverts that by model_type; so does this. A module tensor is one or more
 * contiguous runs of itself, each a hub tensor:
 *
 *   model.layers.0.mlp.experts.gate_up_proj [E, 2I, H]
 *     -> model.layers.0.mlp.experts.{e}.gate_proj.weight  rows [0, I) of expert e
 *        model.layers.0.mlp.experts.{e}.up_proj.weight    rows [I, 2I) of expert e
 *
 * Source: transformers 5.18 conversion_mapping.py, core_model_loading.py
 * (revert_weight_conversion).
 */
#ifndef GF_VIEW_HUB_H
#define GF_VIEW_HUB_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/json.h"
#include "tensor/shape.h"

struct gf_hub; /* the conversions of one model type; read-only, thread-safe */

/* A run of a module tensor that is a tensor on the hub. */
struct gf_hub_part {
    const char *name;
    uint64_t first; /* flattened element of the module tensor where it starts */
    struct gf_shape shape;
};

/* The conversions for config.json's model_type and architectures; *ret NULL where names on
 * the hub are the module's (also for config NULL). */
int gf_hub_new(const struct gf_json *config, struct gf_hub **ret, struct gf_err *err);
void gf_hub_free(struct gf_hub *hub);
GF_DEFINE_AUTO(gf_hub);

/* The hub tensors of module tensor `name`: *ret_n of them in file order, in the arena. One
 * part that is the whole tensor under its own name if no conversion applies (names that
 * are the hub's already, too). GF_EBAD: a shape that cannot be cut as the family does. */
int gf_hub_parts(const struct gf_hub *hub, const char *name, struct gf_shape shape,
                 struct gf_arena *arena, struct gf_hub_part **ret, size_t *ret_n,
                 struct gf_err *err);

/* Ascending in transformers' dot_natural_key: components that are numbers by value. That is
 * the order of a state dict once conversions applied. */
int gf_name_natural_cmp(const char *a, const char *b);

#endif
