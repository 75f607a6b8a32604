/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heads.h - heads that a trainer saved in a file of their own, beside a model or an adapter.
 *
 *   value_head.safetensors, value_head.bin   LLaMA-Factory: 'v_head.*'
 *   pytorch_model.bin                        trlx, where it trains an adapter: beside
 *                                            adapter_model.bin it holds the heads alone
 *
 * Source: llamafactory train/callbacks.py fix_valuehead_checkpoint; trlx 0.7 modeling_base.py
 * save_pretrained.
 */
#ifndef GF_SNAPSHOT_HEADS_H
#define GF_SNAPSHOT_HEADS_H

#include "base/err.h"
#include "format/format.h"

/* Adds to what was found in the directory `in` the heads that stand there in other files. Where
 * only heads were found, and an adapter is there, that comes first; a model in .bin comes
 * before an adapter in safetensors. */
int gf_heads_join(const struct gf_format_in *in, struct gf_found *found,
                  struct gf_err *err);

#endif
