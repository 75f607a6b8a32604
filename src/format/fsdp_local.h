/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fsdp_local.h - FSDP1's LOCAL_STATE_DICT: each rank's slice of flat parameters.
 *
 *     pytorch_model_fsdp_rank0.bin, pytorch_model_fsdp_rank1.bin, ...
 *
 * A wrapped module's parameters are laid one after another, in the order in which they are
 * registered, and the whole is cut evenly among the ranks:
 *
 *     model.layers.0._flat_param   | q_proj | k_proj | ... | norm |
 *                                  | rank 0      | rank 1         |
 *
 * The files hold no names and shapes of the parameters (use_orig_params=False), or names and
 * one-dimensional slices without shapes (use_orig_params=True). Both come from a template;
 * without one the checkpoint is refused.
 */
#ifndef GF_FORMAT_FSDP_LOCAL_H
#define GF_FORMAT_FSDP_LOCAL_H

#include "format/format.h"

/* How sure the probe is: after ready safetensors, which need no template. */
#define GF_LOCAL_SURE 55

extern const struct gf_format gf_fsdp_local_format;

#endif
