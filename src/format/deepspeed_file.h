/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_file.h - what one file of a DeepSpeed checkpoint holds, as plain numbers.
 *
 * A file is opened, its pickle walked once, and freed; names, shapes and offsets stay in
 * the file's arena. Nothing here knows about other files, so files are parsed in parallel.
 * Counts, names and shapes come from the pickle and are checked while they are copied.
 */
#ifndef GF_FORMAT_DEEPSPEED_FILE_H
#define GF_FORMAT_DEEPSPEED_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/limits.h"
#include "format/deepspeed_dir.h"
#include "format/torch_open.h"
#include "source/dir.h"
#include "source/source.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

/* An entry of a state dict: a tensor, whole or an empty placeholder. */
struct gf_ds_tensor {
    const char *name;
    bool odd;            /* no tensor: nothing but the name is known */
    const char *storage; /* key within the file: equal key and start = the same memory */
    uint64_t start;      /* element of the storage */
    uint64_t offset;     /* byte of the file */
    uint64_t numel;
    struct gf_shape shape;
    const uint64_t *strides;
    enum gf_dtype dtype;
    uint8_t twist;
};

struct gf_ds_state {
    struct gf_ds_tensor *at;
    size_t n;
};

/* A one-dimensional run of elements. */
struct gf_ds_flat {
    uint64_t offset; /* byte of the file */
    uint64_t numel;
    enum gf_dtype dtype;
};

struct gf_ds_shape {
    const char *name;
    struct gf_shape shape;
    uint64_t numel;
};

struct gf_ds_shapes {
    struct gf_ds_shape *at;
    size_t n;
};

struct gf_ds_groups {
    struct gf_ds_shapes *at;
    size_t n;
};

struct gf_ds_pair {
    const char *alias, *name;
};

/* *_model_states.pt */
struct gf_ds_model {
    bool no_module;  /* a pipeline stage: the weights are in layer files */
    bool has_shapes; /* param_shapes is there: the optimizer was ZeRO's */
    bool has_frozen; /* the frozen_* keys are known to this version (0.9.1) */
    bool no_frozen;  /* ... and None: ZeRO 0-1, or left out on request */
    bool quantized;  /* zero_quantized_nontrainable_weights */
    bool bf16;       /* ds_config says so: optimizer files are called bf16_... */
    bool autoep;     /* AutoEP layers are there */
    bool has_step;
    uint64_t step;
    uint64_t mp_world, pp_degree, tp_degree; /* 0: not said */
    struct gf_ds_state module;
    struct gf_ds_groups shapes; /* trained parameters in flat order */
    struct gf_ds_shapes frozen;
    struct gf_ds_flat *fragments; /* ZeRO-3: this rank's part of each frozen parameter */
    struct gf_ds_pair *shared;
    size_t nshared;
    const char **buffers;
    size_t nbuffers;
    bool has_buffers;  /* buffer_names is there */
    uint64_t *experts; /* per MoE layer; NULL: not said */
    size_t nexperts;
};

/* Where param_slice_mappings says that a parameter lies in this rank's part of a group. */
struct gf_ds_claim {
    const char *name;
    uint64_t start, count;
};

struct gf_ds_optim_group {
    struct gf_ds_flat flat;
    uint64_t parts;       /* partition_count; 0: not said */
    const uint64_t *gaps; /* param_alignment_paddings; NULL: none */
    size_t ngaps;
    struct gf_ds_claim *claims;
    size_t nclaims;
};

/* *_optim_states.pt */
struct gf_ds_optim {
    bool split;     /* ZeRO-3 (fp32_flat_groups) */
    bool has_stage; /* BF16_Optimizer has none */
    uint64_t stage;
    bool has_updates; /* the optimizer within says how often it has stepped */
    uint64_t updates;
    struct gf_ds_optim_group *at;
    size_t n;
    struct gf_ds_groups shapes; /* before 0.6.0 param_shapes was here */
};

enum gf_ds_want {
    GF_DS_WANT_MODEL,  /* a whole gf_ds_model */
    GF_DS_WANT_RANK,   /* of another rank's: the step, and the frozen fragments that the
                        * first rank's model lists */
    GF_DS_WANT_STATE,  /* a bare state dict: layers, experts */
    GF_DS_WANT_OPTIM,  /* a gf_ds_optim */
    GF_DS_WANT_MASTER, /* universal fp32.pt */
};

struct gf_ds_file {
    const char *path; /* borrowed */
    enum gf_ds_want want;
    bool split;               /* a ZeRO-3 model file */
    struct gf_source *source; /* owned until `index` is set */
    uint32_t index;           /* in gf_found.sources, GF_NONE before */
    int64_t mtime_ns;
    struct gf_arena arena; /* owns everything below */
    struct gf_ds_model model;
    struct gf_ds_optim optim;
    struct gf_ds_state state;
    struct gf_ds_flat flat;
};

struct gf_ds_files {
    struct gf_ds_file *at;
    size_t n;
};

int gf_ds_files_new(size_t n, struct gf_ds_files *ret, struct gf_err *err);
/* The files of `set`, not yet read. */
int gf_ds_files_of(struct gf_ds_set set, enum gf_ds_want want, struct gf_ds_files *ret,
                   struct gf_err *err);
void gf_ds_files_done(struct gf_ds_files *files);

/* Opens and parses what file->want says. `rank0`: for GF_DS_WANT_RANK. */
int gf_ds_file_read(struct gf_ds_file *file, struct gf_dir *dir,
                    const struct gf_limits *limits, const struct gf_ds_model *rank0,
                    struct gf_err *err);

#endif
