/* SPDX-License-Identifier: Apache-2.0 */
/*
 * module_order.h - in which order a transformers model registers its parameters.
 *
 * Pure. save_pretrained() cuts shards in this order and FSDP lays the parameters of a module
 * one after another in it, but safetensors files do not keep it. Known for families whose
 * modules are always in one order (checked with transformers 5.18; llama's since 4.31).
 */
#ifndef GF_FORMAT_MODULE_ORDER_H
#define GF_FORMAT_MODULE_ORDER_H

#include <stdbool.h>

struct gf_module_order;

/* By config.json's model_type; NULL if it is not known (or model_type is NULL). */
const struct gf_module_order *gf_module_order_find(const char *model_type);

/* Does the order know all components of this name? */
bool gf_module_order_knows(const struct gf_module_order *order, const char *name);

/* <0, 0, >0, for names that it knows. */
int gf_module_order_compare(const struct gf_module_order *order, const char *a,
                            const char *b);

#endif
