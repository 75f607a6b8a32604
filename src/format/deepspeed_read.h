/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_read.h - one checkpoint while it is read: what the steps of reading hand on.
 */
#ifndef GF_FORMAT_DEEPSPEED_READ_H
#define GF_FORMAT_DEEPSPEED_READ_H

#include "base/arena.h"
#include "base/strmap.h"
#include "format/deepspeed_dir.h"
#include "format/deepspeed_file.h"
#include "format/format.h"

/* The files of one mp_rank: the whole model, or one stage of a pipeline. */
struct gf_ds_stage {
    uint32_t mp;
    bool split;                /* ZeRO-3: every parameter is cut. Else: every group */
    struct gf_ds_files models; /* [0] is a parsed model; ZeRO-3: one file per rank */
    struct gf_ds_files optims; /* one per rank; none: ZeRO-0, or not usable */
    size_t first_param, nparams;
    /* Running sums, see deepspeed_map.h: of the sub-groups if split, else of the ranks'
     * parts, optims.n entries for each group. */
    uint64_t *ends;
    size_t ngroups;
};

/* A trained parameter, by param_shapes. */
struct gf_ds_param {
    const char *name;
    struct gf_shape shape;
    uint64_t numel;
    const struct gf_ds_stage *stage;
    size_t group;
    uint64_t off;        /* in the group (split: in every rank's sub-groups) */
    enum gf_dtype dtype; /* of the masters */
    bool has_master;
    struct gf_ds_file *whole; /* universal: the file with just this one */
    bool seen;                /* the state dict has it */
};

struct gf_ds {
    const struct gf_format_in *in;
    struct gf_found *out;
    struct gf_ds_dir *dir;
    struct gf_arena arena;
    bool pipeline, moe;
    struct gf_ds_stage *stages; /* one, or one per pipeline stage */
    size_t nstages;
    struct gf_ds_files parts; /* layer files, or expert files */
    struct gf_ds_files whole; /* universal: one file per trained parameter */
    struct gf_ds_param *params;
    size_t nparams;
    struct gf_strmap names; /* of params */
    bool live_only;         /* masters not usable, and that is allowed */
};

/* What is recognised and cannot be served: by file names, then by what model files say. */
int gf_ds_refuse_names(const struct gf_ds_dir *dir, struct gf_err *err);
int gf_ds_refuse_model(const struct gf_ds *ds, const struct gf_ds_file *file,
                       struct gf_err *err);

/* Layer or expert files: which there must be; loads them. */
int gf_ds_parts_load(struct gf_ds *ds, struct gf_err *err);

/* Loads optimizer files (or universal ones), lists the trained parameters and finds the
 * place of each master. */
int gf_ds_masters_load(struct gf_ds *ds, struct gf_err *err);

/* Universal checkpoints: the file of each trained parameter. */
int gf_ds_universal_load(struct gf_ds *ds, struct gf_err *err);

/* The file's index among the sources, to which it is added at its first use. */
int gf_ds_source(struct gf_ds *ds, struct gf_ds_file *file, uint32_t *ret,
                 struct gf_err *err);
/* Pieces for the tensor added last: its elements from `start` are the `count` elements of a
 * flat run from `at`; the whole master. */
int gf_ds_add_flat(struct gf_ds *ds, struct gf_ds_file *file, const struct gf_ds_flat *flat,
                   uint64_t at, uint64_t start, uint64_t count, struct gf_err *err);
int gf_ds_add_master(struct gf_ds *ds, const struct gf_ds_param *param, struct gf_err *err);

/* All tensors into ds->out->catalog. */
int gf_ds_fill(struct gf_ds *ds, struct gf_err *err);

#endif
