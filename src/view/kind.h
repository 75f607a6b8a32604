/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kind.h - what sort of state a checkpoint holds, by its tensors' names alone.
 *
 *   PLAIN      one model
 *   PEFT       a base model with adapters in it, or adapters alone
 *   COMPOSITE  several models, or a model and heads of its trainer, side by side:
 *              policy.*, value_model.*; base_model.* with v_head.*
 *
 * PEFT names are recognised first: 'base_model.model.' starts both.
 */
#ifndef GF_VIEW_KIND_H
#define GF_VIEW_KIND_H

#include "catalog/catalog.h"

enum gf_state_kind { GF_STATE_PLAIN, GF_STATE_PEFT, GF_STATE_COMPOSITE };

/* *ret_sign (may be NULL): the tensor's name that decided, as stored; NULL for PLAIN. */
enum gf_state_kind gf_state_kind(const struct gf_catalog *catalog, const char **ret_sign);

/* What the first element of a name says of it. */
enum gf_part {
    GF_PART_NONE,
    GF_PART_MODEL,   /* 'policy': one of several models */
    GF_PART_WRAPPED, /* 'base_model': a model in a trainer's wrapper, or in PEFT's */
    GF_PART_HEAD,    /* 'v_head': what a trainer put beside a model */
};
enum gf_part gf_part_of(const char *s, size_t len);

/* Does the tensor belong to a head that a trainer put beside the model ('v_head.*')? Without
 * wrappers. */
bool gf_name_is_head(const char *name);

/* The first element alone: 'v_head'; or that, or a word for one of several models. */
bool gf_component_is_head(const char *name);
bool gf_component_is_known(const char *name);

/* Names of views that are not components: 'full', 'base', 'adapter', 'raw', 'steps'. */
bool gf_view_is_reserved(const char *name);

/* The models of a composite: distinct first elements of its names without wrappers, in the
 * catalog's order, but for reserved ones and what cannot be a directory's name. Up to `max` of
 * them, each to be freed; *ret_n of them were stored. */
int gf_state_components(const struct gf_catalog *catalog, char **ret, size_t max,
                        size_t *ret_n, struct gf_err *err);

#endif
