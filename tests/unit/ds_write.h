/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ds_write.h - DeepSpeed checkpoints in memory, laid out by the rules by which DeepSpeed
 * writes them (not by those by which we read them), with a place for every lie.
 *
 * Elements tell where they belong: element e of parameter i is dw_master(i, e) as a master
 * and dw_live(i, e) as trained.
 */
#ifndef GF_TESTS_DS_WRITE_H
#define GF_TESTS_DS_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "source/dir.h"

enum dw_role { DW_TRAINED, DW_FROZEN, DW_BUFFER, DW_TIED, DW_EXCLUDED, DW_HIDDEN };

struct dw_param {
    const char *name;
    enum dw_role role; /* EXCLUDED: frozen, only its placeholder is there. HIDDEN: trained,
                          not in `module` */
    size_t rank;
    uint64_t dims[4];
    size_t group;   /* of the optimizer, or sub-group */
    size_t tied_to; /* TIED: index of the parameter that holds the data */
};

enum dw_claims { DW_CLAIMS_NONE, DW_CLAIMS_RIGHT, DW_CLAIMS_WRONG };

struct dw_run {
    const struct dw_param *params;
    size_t n, groups;
    int stage;
    uint32_t world;
    bool bf16_optimizer; /* no zero_stage, padding kept */
    bool gaps;           /* parameters aligned to 8 elements */
    bool one_list;       /* ZeRO-3: one param_shapes dict for all sub-groups */
    bool no_shared;      /* before 0.9.2 */
    bool no_frozen_keys; /* before 0.9.1 */
    bool none_frozen;    /* exclude_frozen_parameters */
    bool old_shapes;     /* before 0.6.0: param_shapes in the optimizer files */
    bool quantized, autoep, round_robin, other_dtype;
    enum dw_claims claims;
    uint32_t skip_optim, skip_model; /* bit r: not written */
    uint32_t partition_count;        /* 0: the truth */
    uint32_t extra_optim;            /* more rank files */
    int64_t numel_lie;               /* added to the first flat group of ... */
    uint32_t lying;                  /* ... the first so many ranks */
    uint64_t step;                   /* 0: none */
    int64_t mp_world, tp_degree;
    const int64_t *experts;        /* num_experts, ends with -1 */
    int mp;                        /* mp_rank in names */
    bool no_module;                /* a pipeline stage */
    const struct dw_param *module; /* what `module` has instead of params; NULL: those */
    bool extra_state;              /* `module` has an entry that is no tensor */
    const char *odd;               /* ... and this one's, though it is a parameter */
    const char *optim_prefix;      /* NULL: "bf16_" */
    const char *archive;           /* name within the files; NULL: the file's own */
    uint32_t updates;              /* how often the optimizer has stepped; 0: not said */
    bool elastic;                  /* ... in a bare list of states */
    uint32_t stale_model, stale_optim; /* bit r: file of an earlier step */
};

float dw_master(size_t i, uint64_t e);
uint16_t dw_live(size_t i, uint64_t e);
uint64_t dw_numel(const struct dw_param *param);

/* Writes <tag>/... (tag "": files at the top), not `latest`. */
void dw_save(struct gf_dir *dir, const char *tag, const struct dw_run *run);
/* A bare state dict of params, live. */
void dw_state(struct gf_dir *dir, const char *path, const struct dw_param *params,
              size_t n);
/* universal: {'param': master} */
void dw_universal(struct gf_dir *dir, const char *path, const struct dw_param *param,
                  size_t i);
void dw_text(struct gf_dir *dir, const char *path, const char *text);

#endif
