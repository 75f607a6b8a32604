/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights.h - the weight files of a view as images: which files, which bytes.
 *
 * shard.c      which output goes into which file (huggingface_hub's
 *              split_torch_state_dict_into_shards, on the view's order)
 * safetensors_out.c  one file: header as the safetensors writer emits it, then the tensors
 * torchbin_out.c     one file: the zip and pickle of torch.save around the tensors
 * index_out.c  model.safetensors.index.json as save_pretrained writes it
 */
#ifndef GF_IMAGE_WEIGHTS_H
#define GF_IMAGE_WEIGHTS_H

#include "image/image.h"
#include "view/view.h"

/* Shard of each output: ret[i] < *ret_n; shards are in the order of their file names. */
int gf_shard_plan(const struct gf_view *view, uint64_t max_shard_size, uint32_t **ret,
                  uint32_t *ret_n, struct gf_err *err);

/* "model.safetensors" or "model-00002-of-00003.safetensors" (i from 0), free() it. */
char *gf_shard_name(const char *stem, const char *suffix, uint32_t i, uint32_t n);

/* The safetensors file of the outputs listed (indices into view->outputs, any order). */
int gf_image_safetensors(const char *name, const struct gf_view *view,
                         const uint32_t *outputs, size_t n, struct gf_image **ret,
                         struct gf_err *err);

/* The torch.save file of the same: loads with torch.load, CRCs are 0. */
int gf_image_torchbin(const char *name, const struct gf_view *view, const uint32_t *outputs,
                      size_t n, struct gf_image **ret, struct gf_err *err);

/* A kind of weight file. */
struct gf_file_format {
    const char *suffix;
    int (*image)(const char *name, const struct gf_view *view, const uint32_t *outputs,
                 size_t n, struct gf_image **ret, struct gf_err *err);
};
extern const struct gf_file_format gf_file_safetensors, gf_file_torchbin;

/* The index of all outputs over the shards. */
int gf_image_index(const char *name, const struct gf_view *view, const uint32_t *shard,
                   uint32_t nshards, const char *stem, const char *suffix,
                   struct gf_image **ret, struct gf_err *err);

/* All weight files of a view: one file, or shards and index. *ret: array to free(), each
 * image to gf_image_free(). stem: "model", "pytorch_model" or "adapter_model". */
int gf_images_of_view(const struct gf_view *view, const struct gf_file_format *format,
                      const char *stem, uint64_t max_shard_size, struct gf_image ***ret,
                      size_t *ret_n, struct gf_err *err);

#endif
