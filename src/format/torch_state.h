/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch_state.h - the model's state dict in one torch.save file, as plain numbers.
 *
 * A file is opened, the mapping that is the state dict is chosen, its tensors are written
 * down and the pickle is freed. Tensors are whole, or parts of distributed ones (dtensor.h).
 * Nothing here knows other files, so files may be read in parallel.
 *
 * Which mapping is it? Those with string keys whose values are mostly tensors count, down to
 * four levels. Paths that speak of an optimizer, scheduler, random numbers or averaged
 * weights (EMA) do not. Of the rest the first of
 *
 *     state_dict  model  module  model_state_dict  net  network  model_state
 *
 * by its own key is taken, else the one with the most bytes, be it the root.
 */
#ifndef GF_FORMAT_TORCH_STATE_H
#define GF_FORMAT_TORCH_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/limits.h"
#include "format/format.h"
#include "source/dir.h"
#include "source/source.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

/* A box of the tensor, at `strides` from byte `offset` of the file on. */
struct gf_state_part {
    const uint64_t *first; /* rank entries each; shape.rank */
    const uint64_t *size, *strides;
    uint64_t offset;
};

struct gf_state_tensor {
    const char *name;
    struct gf_shape shape; /* of the whole tensor; F4 counts half bytes */
    uint64_t numel;
    enum gf_dtype dtype;
    uint8_t twist;
    bool spread;         /* one of a distributed tensor's files; else whole */
    uint64_t ranks;      /* it is spread over so many; 1 for whole ones */
    const char *storage; /* of whole ones: equal key and start = the same memory */
    uint64_t start;
    struct gf_state_part *parts; /* of whole ones: one, or none if it is empty */
    size_t nparts;
};

/* A tensor that cannot be served. */
struct gf_state_odd {
    const char *name, *why;
};

struct gf_state {
    const char *path; /* borrowed */
    struct gf_source *source;
    struct gf_arena arena; /* owns everything below */
    struct gf_state_tensor *at;
    size_t n;
    struct gf_state_odd *odd;
    size_t nodd;
    size_t others;     /* entries that are no tensors */
    const char *other; /* the first of them */
    const char *where; /* path of the mapping in the file: "model", "" for the root */
    const char *rival; /* another mapping that could be a model's, or NULL */
    bool lightning;    /* written by Lightning */
    bool has_step;
    uint64_t step;
};

/* Reads `path`, the file of this rank. *ret is zeroed by the caller and is to be given to
 * gf_state_done() also after a failure. -ENOENT if the file is not there. */
int gf_state_read(struct gf_dir *dir, const char *path, uint64_t rank,
                  const struct gf_limits *limits, struct gf_state *ret, struct gf_err *err);
void gf_state_done(struct gf_state *state);

/* Tensors that cannot be served: refused by name, or left out with a warning. Also warns of
 * entries that are no tensors, and of a rival mapping. */
int gf_state_judge(const struct gf_state *state, bool allow_incomplete,
                   struct gf_found *out, struct gf_err *err);

/* Adds a whole tensor. `alias`: an entry with the same memory, or GF_NONE. */
int gf_state_add(struct gf_found *out, const struct gf_state_tensor *tensor,
                 uint32_t source, uint32_t alias, struct gf_err *err);

/* Is this the name of a file that trainers leave beside the weights: optimizer.bin,
 * scheduler.pt, random_states_0.pkl, training_args.bin, rng_state.pth, ...? */
bool gf_state_is_side_file(const char *name);

#endif
