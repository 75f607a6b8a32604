/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.h - from names to places: what `ls` shows and what a look-up finds.
 *
 *     MOUNT/                     the root checkpoint's default view
 *       model.safetensors ...      its files
 *       VIEW/                      listed views; any other view is reachable, not listed
 *       checkpoint-10/             further checkpoints, each like the root
 *       global_step_8/actor/       directories of checkpoints
 *       latest -> checkpoint-10    links
 *       .gatherfs/                 not listed: status.json stats.json metrics
 *         provenance/FILE.json       of the default view, and VIEW/FILE.json
 *
 * With view= there are no sub-directories (but a root without weights shows its
 * checkpoints).
 */
#ifndef GF_FS_WALK_H
#define GF_FS_WALK_H

#include "base/vec.h"
#include "fs/tree.h"
#include "snapshot/run.h"

struct gf_listed {
    char *name;
    uint64_t ino;
    bool is_dir, is_link;
};

struct gf_listing {
    struct GF_VEC(struct gf_listed) entries;
};

/* What `name` is in directory `dir`. *ret holds a reference on its snapshot, for
 * gf_tree_enter(). -ENOENT without text: not there. */
int gf_walk(struct gf_run *run, const struct gf_options *opt, const struct gf_node *dir,
            const char *name, struct gf_place *ret, struct gf_err *err);

/* What `ls` shows, without "." and "..". *ret: gf_listing_done(). */
int gf_walk_list(struct gf_run *run, const struct gf_options *opt,
                 const struct gf_node *dir, struct gf_listing *ret, struct gf_err *err);
void gf_listing_done(struct gf_listing *listing);

/* The directory whose files a node shows: a view's own, else the snapshot's default view.
 * NULL if the snapshot has none. */
const struct gf_vdir *gf_walk_vdir(const struct gf_place *place);

#endif
