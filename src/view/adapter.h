/* SPDX-License-Identifier: Apache-2.0 */
/*
 * adapter.h - the two models in a PEFT state, by name: the adapter, and the base under it.
 *
 *   in training                                         adapter file              base
 *   base_model.model.X.lora_A.default.weight            ...X.lora_A.weight        -
 *   base_model.model.X.lora_embedding_A.default         ...X.lora_embedding_A     -
 *   base_model.model.X.lora_magnitude_vector.default.weight   ...X.lora_magnitude_vector   -
 *   base_model.model.X.modules_to_save.default.weight   ...X.weight               -
 *   base_model.model.X.base_layer.weight                -                         X.weight
 *   base_model.model.X.original_module.weight           -                         X.weight
 *   base_model.model.X.weight                           -                         X.weight
 *
 * A state is of one of two forms: as in training, where adapters have names ('default'), or
 * as in an adapter file, where the name is gone (an adapter-only save of Accelerate, too).
 * In a file's form all that stands below 'base_model.' is the adapter's, X.weight too, and
 * any other name is a base model's that came from elsewhere. A model into which adapters
 * were injected without PeftModel (transformers' add_adapter) has no 'base_model.model.'; its
 * adapter file has.
 *
 * In a trainer's wrapper PEFT's names stand behind another ('policy.base_model.model.X', trlx's
 * 'base_model.base_model.model.X'), which is dropped; a value head beside them is no part of
 * the base.
 *
 * Source: peft 0.21 get_peft_model_state_dict, _remove_adapter_name_from_state_dict_key.
 */
#ifndef GF_VIEW_ADAPTER_H
#define GF_VIEW_ADAPTER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "catalog/catalog.h"

#define GF_ADAPTER_NAME 256
#define GF_MAX_ADAPTERS 64

/* A name taken apart. Strings are the arena's. */
struct gf_adapter_name {
    const char *module;  /* path in the base model, without PEFT's own layers; "" for what
                          * belongs to the tuner as a whole (vera_A) */
    const char *marker;  /* "lora_A", "modules_to_save"; NULL for a tensor of the base */
    const char *adapter; /* its adapter's name; "" where names have none */
    const char *rest;    /* behind the marker and the adapter's name: "weight", "" */
    const char *base;    /* the name in the base model, or NULL */
    const char *file;    /* the name in the adapter file, if it is saved there */
    unsigned depth;      /* how many `base_layer` stand before the marker: wrappers of one
                          * module's parameters are nested, the innermost is the deepest */
    bool below;          /* below 'base_model.' */
    bool aside;          /* of a model or a head beside PEFT's: no part of the base */
};

/* -ENOMEM. Names deeper than any module tree are taken as a plain model's. */
int gf_adapter_split(const char *name, struct gf_arena *arena, struct gf_adapter_name *ret);

/* Is this component of a name one that only PEFT's tuner layers put there? */
bool gf_adapter_is_marker(const char *s, size_t len);

/* The names of the adapters in a state, in the catalog's order; up to GF_MAX_ADAPTERS, each
 * to be freed. None: the state is in an adapter file's form. */
int gf_adapter_names(const struct gf_catalog *catalog, char *ret[static GF_MAX_ADAPTERS],
                     size_t *ret_n, struct gf_err *err);

/* Which adapter view `view` ("adapter", "full.NAME") is about: `default`, else the only one;
 * "" where names have none. -ENOENT: no such one, or several and none is called `default`.
 * To "base" they are all one. */
int gf_adapter_choose(const struct gf_catalog *catalog, const char *view,
                      char ret[static GF_ADAPTER_NAME], struct gf_err *err);

/* Is this a tensor that stands beside a weight which bitsandbytes, GPTQ or AWQ packed? */
bool gf_adapter_is_packing(const char *name);

/* "adapter" and "adapter.NAME" for `what` "adapter". */
bool gf_adapter_is_view(const char *view, const char *what);

#endif
