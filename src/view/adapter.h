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
 * Source: peft 0.21 get_peft_model_state_dict; names that have lost their adapter name
 * already (an adapter file, an adapter-only FSDP save) stay as they are. Names are without
 * the wrappers of training frameworks.
 */
#ifndef GF_VIEW_ADAPTER_H
#define GF_VIEW_ADAPTER_H

#include <stdbool.h>

#include "base/err.h"
#include "catalog/catalog.h"

/* The adapter that is served: `default`, else the only one; "" where names have none. Into
 * ret[256]. -ENOENT: there are several, and none is called `default`. */
int gf_adapter_choose(const struct gf_catalog *catalog, char ret[static 256],
                      struct gf_err *err);

/* The name in the adapter file into buf (strlen(name) + 1 bytes); false: not part of it. */
bool gf_adapter_name(const char *name, const char *adapter, char *buf);

/* The name in the base model into buf; false: not part of it. */
bool gf_adapter_base_name(const char *name, char *buf);

/* Is this a low-rank factor that was saved as an ungathered shard: empty, or flattened? */
bool gf_adapter_is_torn(const char *name, struct gf_shape shape);

#endif
