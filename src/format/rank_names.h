/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rank_names.h - files of which each rank has one, by their names.
 *
 *     pytorch_model_fsdp_rank0.bin            Accelerate, LOCAL_STATE_DICT
 *     pytorch_model_fsdp_0_rank0.bin          Accelerate, use_dcp=False; the second number
 *                                             is the model, where there are several
 *     model_world_size_8_rank_0.pt            verl
 *     rank_0.pt model_rank_0.pt rank0.bin     by hand
 *
 * Files that differ in nothing but the rank are one set.
 */
#ifndef GF_FORMAT_RANK_NAMES_H
#define GF_FORMAT_RANK_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "source/dir.h"

enum gf_rank_kind {
    GF_RANK_LOCAL, /* pytorch_model_fsdp_rank0.bin */
    GF_RANK_ACCELERATE,
    GF_RANK_VERL,
    GF_RANK_PLAIN,
};

struct gf_rank_name {
    enum gf_rank_kind kind;
    size_t stem; /* bytes of the name in front of the rank */
    uint32_t rank;
    uint32_t world; /* verl: said by the name; else 0 */
};

/* false: the name is none of these, or a trainer's own file. */
bool gf_rank_name_parse(const char *name, struct gf_rank_name *ret);

struct gf_rank_set {
    enum gf_rank_kind kind;
    uint32_t world; /* 0: the names do not say */
    char **paths;   /* sorted by rank */
    uint32_t *ranks;
    size_t n;
    char *left_out; /* a file of another set (a second model), or NULL */
};

/* The set of `dir` (LOCAL ones, or the others): the most certain kind; of one kind the first
 * by name. -ENOENT quietly if there is none. Two verl worlds are GF_EBAD. */
int gf_rank_set_find(struct gf_dir *dir, bool local, struct gf_rank_set **ret,
                     struct gf_err *err);
void gf_rank_set_free(struct gf_rank_set *set); /* NULL is fine */
GF_DEFINE_AUTO(gf_rank_set);

/* Are the files of ranks 0 to world - 1 there? GF_EINCOMPLETE names the first missing. */
int gf_rank_set_check(const struct gf_rank_set *set, uint64_t world, struct gf_err *err);

#endif
