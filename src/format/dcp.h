/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp.h - PyTorch Distributed Checkpoint: `.metadata` and `*.distcp`.
 *
 *     dir/ or dir/pytorch_model_fsdp_0/
 *       .metadata        a pickle: tensors, their chunks, where each chunk is stored
 *       __0_0.distcp     items, one after another: each a torch.save archive of one chunk
 *       __1_0.distcp     ...
 *
 * FSDP1 (ShardedTensor, DTensor), FSDP2, HSDP and tensor parallelism all look the same
 * here: a chunk is a box of its tensor. Only `.metadata` is read when a checkpoint is
 * opened; an item's own header is read and checked at its first use (dcp_item.h).
 *
 * Whole when: `.metadata` is there (torch renames it last, from `.metadata.tmp`), every
 * file that it names has the bytes that it promises, no file is much newer than it, and the
 * chunks cover their tensors (gf_catalog_check).
 */
#ifndef GF_FORMAT_DCP_H
#define GF_FORMAT_DCP_H

#include "format/format.h"

extern const struct gf_format gf_dcp_format;

#endif
