/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf_dir.h - ready safetensors: a model directory, or one file.
 *
 *     model.safetensors                   one file; wins over an index beside it, as in
 *                                         transformers
 *     model.safetensors.index.json        names of tensors and their files
 *     model-00001-of-00003.safetensors ...
 *     adapter_model.safetensors           a PEFT adapter, where there are no model weights
 *
 * Order of tensors, on which the cut into shards depends: a safetensors file is sorted by
 * dtype and name, so the model's own order is lost. It is known for the usual model types
 * (config.json; module_order.h). Else one file gives the order of its data, and several an
 * order that makes the same shards again when it is cut at the same size (shard_order.h).
 *
 * Ready weights are complete by themselves: all files are there and whole, the index names
 * what is in them.
 */
#ifndef GF_FORMAT_HF_DIR_H
#define GF_FORMAT_HF_DIR_H

#include "container/safetensors.h"
#include "format/format.h"

/* How sure a probe is. SOURCE ... */
#define GF_HF_SURE_FILE 90    /* ... is a *.safetensors file itself */
#define GF_HF_SURE_MODEL 60   /* ... holds model weights: after all training shards */
#define GF_HF_SURE_ADAPTER 35 /* ... holds only an adapter: after .bin weights, too */

extern const struct gf_format gf_hf_dir_format;

/* Is the order of a catalog that was read from this directory the model's own? */
bool gf_hf_dir_is_ordered(struct gf_dir *dir, const struct gf_limits *limits,
                          const struct gf_catalog *catalog);

/* The header of a safetensors file; *ret: gf_safetensors_free(). */
int gf_hf_header_read(struct gf_source *src, const struct gf_limits *limits,
                      struct gf_safetensors **ret, struct gf_err *err);

#endif
