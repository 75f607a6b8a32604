/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch_bin.h - ready weights in torch.save files: a directory, or one file.
 *
 *     pytorch_model.bin               one file; wins over an index beside it
 *     pytorch_model.bin.index.json    names of tensors and their files
 *     pytorch_model_fsdp.bin          FSDP's FULL_STATE_DICT, gathered by rank 0
 *     adapter_model.bin               a PEFT adapter, where there are no model weights
 *     *.pt *.pth *.ckpt *.bin         as SOURCE: Lightning and other trainers' files; which
 *                                     mapping in it is the model: torch_state.h
 *
 * Tensors keep the order of the state dict, which is the model's own. Two names for the
 * same memory are tied weights: an alias in the catalog.
 */
#ifndef GF_FORMAT_TORCH_BIN_H
#define GF_FORMAT_TORCH_BIN_H

#include "format/format.h"

/* How sure a probe is. SOURCE ... */
#define GF_BIN_SURE_FILE 80    /* ... is a file that begins as torch.save begins */
#define GF_BIN_SURE_NAME 50    /* ... is a file that is called so, but does not */
#define GF_BIN_SURE_MODEL 40   /* ... holds model weights: after safetensors */
#define GF_BIN_SURE_ADAPTER 30 /* ... holds only an adapter */

extern const struct gf_format gf_torch_bin_format;

#endif
