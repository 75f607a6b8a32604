/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rank_files.h - one torch.save file per rank with its parts of distributed tensors:
 * Accelerate with use_dcp=False, verl, or by hand.
 *
 * A tensor's boxes are collected from all files; boxes that several ranks hold (replicas)
 * count once. Tensors that are not distributed must look alike on every rank and are taken
 * from the first. That the boxes cover their tensors is proved by gf_catalog_check(); here
 * the missing file is named, where names or pickles say how many there are.
 */
#ifndef GF_FORMAT_RANK_FILES_H
#define GF_FORMAT_RANK_FILES_H

#include "format/format.h"
#include "format/rank_names.h"
#include "format/torch_state.h"

/* How sure a probe is, by the kind of name. */
#define GF_RANKS_SURE 85
#define GF_RANKS_SURE_PLAIN 45 /* rank_0.pt may be anything: after ready safetensors */

extern const struct gf_format gf_rank_files_format;

/* All files of a set, read in parallel. */
struct gf_rank_states {
    struct gf_state *at; /* by place in the set */
    size_t n;
    uint64_t world; /* as the set's names or else the tensors say; at least the last rank */
};

int gf_rank_states_read(const struct gf_format_in *in, const struct gf_rank_set *set,
                        struct gf_rank_states *ret, struct gf_err *err);
void gf_rank_states_done(struct gf_rank_states *states);

/* Moves the files' sources to `out`, source i is file i's; judges the files (see
 * gf_state_judge) and sets the step's time. */
int gf_rank_states_hand_over(const struct gf_format_in *in, struct gf_rank_states *states,
                             struct gf_found *out, struct gf_err *err);

#endif
