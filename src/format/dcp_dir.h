/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_dir.h - where in SOURCE a DCP checkpoint is, and what its directory's names tell of
 * it.
 */
#ifndef GF_FORMAT_DCP_DIR_H
#define GF_FORMAT_DCP_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "source/dir.h"

enum gf_dcp_state {
    GF_DCP_NONE,       /* no DCP checkpoint */
    GF_DCP_DATA_ONLY,  /* *.distcp, but no metadata at all */
    GF_DCP_UNFINISHED, /* `.metadata.tmp`: the save was cut off */
    GF_DCP_RANKS,      /* `__0.metadata`, `__1.metadata` ...: saved without collectives */
    GF_DCP_SAVED,      /* `.metadata` */
};

struct gf_dcp_dir {
    enum gf_dcp_state state;
    const char *base;              /* of a static table: "" or "pytorch_model_fsdp_0" */
    bool rewriting;                /* `.metadata.tmp` beside `.metadata` */
    bool megatron;                 /* `common.pt` beside it */
    struct gf_dir_listing listing; /* of base */
};

/* Looks at the names only. -ENOENT and the like: there is no such directory. */
int gf_dcp_dir_find(struct gf_dir *dir, struct gf_dcp_dir *ret, struct gf_err *err);
void gf_dcp_dir_done(struct gf_dcp_dir *found);

/* N of '__N.metadata' or '__N_3.distcp'. */
bool gf_dcp_name_rank(const char *name, const char *ending, uint64_t *ret);

/* Is this the name of a directory that Accelerate makes for a model,
 * 'pytorch_model_fsdp_1'? */
bool gf_dcp_name_is_model(const char *name);

#endif
