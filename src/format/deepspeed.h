/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed.h - DeepSpeed's own checkpoints: ZeRO 0 to 3, pipeline, MoE, universal.
 *
 *     ROOT/latest                                 one line: the tag saved last
 *     ROOT/<tag>/mp_rank_00_model_states.pt       ZeRO 0-2: `module`, weights as trained
 *     ROOT/<tag>/zero_pp_rank_D_mp_rank_00_model_states.pt    ZeRO-3: each rank's, empty
 *     ROOT/<tag>/[bf16_]zero_pp_rank_D_mp_rank_00_optim_states.pt   1/W of the masters each
 *     ROOT/<tag>/layer_LL-model_states.pt         pipeline: one layer each
 *     ROOT/<tag>/layer_L_expert_E_mp_rank_00_model_states.pt        MoE: one expert each
 *     ROOT/<tag>_universal/zero/<name>/fp32.pt    universal: one master each
 *
 * Read in steps, a file each: deepspeed_tag (which directory), deepspeed_dir (which files
 * are there), deepspeed_refuse (what cannot be served), deepspeed_load (opens and parses
 * files on several threads), deepspeed_file, _model, _optim, _value (what one file holds),
 * deepspeed_parts (layers, experts), deepspeed_map (pure arithmetic from parameters to flat
 * partitions), deepspeed_master, _universal (where each master is), deepspeed_fill, _piece
 * (the catalog). deepspeed_read.h is what the steps hand on. Nothing is kept but the
 * catalog and the sources.
 */
#ifndef GF_FORMAT_DEEPSPEED_H
#define GF_FORMAT_DEEPSPEED_H

#include "format/format.h"

extern const struct gf_format gf_deepspeed_format;

#endif
