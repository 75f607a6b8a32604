/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_dir.h - the files of one tag directory, by their names.
 *
 * Numbers in names are decimal and sorted as numbers; "pp" in a name is the data-parallel
 * rank and has nothing to do with pipelines.
 */
#ifndef GF_FORMAT_DEEPSPEED_DIR_H
#define GF_FORMAT_DEEPSPEED_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "source/dir.h"

enum gf_ds_kind {
    GF_DS_MODEL,  /* mp_rank_MM_model_states.pt */
    GF_DS_MODEL3, /* zero_pp_rank_D_mp_rank_MM_model_states.pt */
    GF_DS_OPTIM,  /* [bf16_|fp16_]zero_pp_rank_D_mp_rank_MM_optim_states.pt */
    GF_DS_LAYER,  /* layer_LL[-model_TT]-model_states.pt; mp is TT */
    GF_DS_EXPERT, /* layer_L_expert_E_mp_rank_MM_model_states.pt, or without the layer */
};

struct gf_ds_name {
    enum gf_ds_kind kind;
    uint32_t mp, layer, expert, dp; /* 0 where the name has none */
    bool bare_expert;               /* an expert file without a layer number */
};

/* false: the name is none of ours. */
bool gf_ds_name_parse(const char *name, struct gf_ds_name *ret);
/* By kind, mp, layer, expert, dp: < 0, 0, > 0. */
int gf_ds_name_order(const struct gf_ds_name *a, const struct gf_ds_name *b);

struct gf_ds_entry {
    struct gf_ds_name is;
    const char *path; /* relative to SOURCE */
};

struct gf_ds_set {
    const struct gf_ds_entry *at;
    size_t n;
};

struct gf_ds_dir {
    struct gf_arena arena;
    const char *prefix;     /* of its files' paths below SOURCE: "" or "global_step4/" */
    struct gf_ds_entry *at; /* sorted by gf_ds_name_order() */
    size_t n;
    bool nvme;      /* offloaded_tensors/ is there */
    bool universal; /* zero/ is there */
};

/* Two files for one rank are GF_EBAD. */
int gf_ds_dir_read(struct gf_dir *dir, const char *path, struct gf_ds_dir **ret,
                   struct gf_err *err);
void gf_ds_dir_free(struct gf_ds_dir *ds); /* NULL is fine */
GF_DEFINE_AUTO(gf_ds_dir);

/* Does a listing hold a DeepSpeed file with weights? The first one's name, or NULL. `any`:
 * an optimizer file will do, so that its directory can be told what it lacks. */
const char *gf_ds_dir_mark(const struct gf_dir_listing *listing, bool any);

struct gf_ds_set gf_ds_dir_kind(const struct gf_ds_dir *ds, enum gf_ds_kind kind);
struct gf_ds_set gf_ds_dir_rank(const struct gf_ds_dir *ds, enum gf_ds_kind kind,
                                uint32_t mp);

/* Are these the files of ranks 0 to world - 1? world 0: unknown, the highest rank there is
 * taken as the last. GF_EINCOMPLETE names the first file missing, GF_EBAD a surplus one. */
int gf_ds_check_ranks(struct gf_ds_set set, uint32_t world, const struct gf_limits *limits,
                      struct gf_err *err);

#endif
