/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hf_sharded.h - what torch's HuggingFaceStorageWriter(save_distributed=True) leaves: each
 * rank's pieces in safetensors files, before or beside their consolidation.
 *
 *     dir/ or dir/sharded/
 *       shard-00001-model-00001-of-00002.safetensors     rank 1 (they count from 1), file 1
 *       shard-00001-model-00002-of-00002.safetensors
 *       shard-00002-model-00001-of-00002.safetensors
 *
 * A file's __metadata__ has DCP_SHARDING_INFO: JSON {name: {"saved_offsets": [...]}}, where
 * in its tensor each piece begins. Nothing says how large a tensor is: it ends where its
 * last piece does. So a missing last rank leaves no trace, and only a template (names and
 * shapes of the model) can tell that all is there.
 */
#ifndef GF_FORMAT_HF_SHARDED_H
#define GF_FORMAT_HF_SHARDED_H

#include "format/format.h"

extern const struct gf_format gf_hf_sharded_format;

#endif
