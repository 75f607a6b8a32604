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

/* The models of a composite: distinct first elements of its names without wrappers, in the
 * catalog's order. Up to `max` of them, each to be freed; *ret_n of them were stored. */
int gf_state_components(const struct gf_catalog *catalog, char **ret, size_t max,
                        size_t *ret_n, struct gf_err *err);

#endif
