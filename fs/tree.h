/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tree.h - the inode table: FUSE node ids <-> what they stand for.
 *
 * A node is one thing of one snapshot: a file, a view's directory, a checkpoint's
 * directory, or a generated entry of .gatherfs/. It holds a reference on its snapshot until
 * the kernel forgets it, so whoever still knows a node id still sees the same training
 * step. A new snapshot brings new nodes; ids are counted up and never used twice, hence one
 * generation number is enough for all of them. (st_ino is something else: a hash that is
 * the same on each mount.)
 *
 *     kernel --LOOKUP--> gf_tree_enter: same place -> same node, nlookup + 1
 *            --FORGET--> gf_tree_forget: nlookup - n; 0 frees the node
 *
 * A file has one node however it was reached (model.safetensors, full/model.safetensors);
 * a directory has one per parent, because the kernel allows no aliases of directories.
 *
 * Thread-safe. A node pointer is good as long as the kernel knows the node, which it does
 * while a request for it is being answered.
 */
#ifndef GF_FS_TREE_H
#define GF_FS_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "snapshot/snapshot.h"

#define GF_ROOT_ID 1 /* FUSE_ROOT_ID */

/* The first four are what a checkpoint shows, the next two what a run has besides. */
enum gf_node_kind {
    GF_NODE_ROOT,       /* SOURCE: its snapshot is looked up anew for each request */
    GF_NODE_CHECKPOINT, /* a checkpoint below SOURCE: snapshot, path */
    GF_NODE_VIEW,       /* a view's directory: snapshot, dir */
    GF_NODE_FILE,       /* snapshot, dir, file */
    GF_NODE_DIR,        /* a directory that only holds checkpoints: path */
    GF_NODE_LINK,       /* latest, best: path */
    GF_NODE_CTL,        /* .gatherfs/ */
    GF_NODE_STATUS,     /* .gatherfs/status.json */
    GF_NODE_STATS,      /* .gatherfs/stats.json */
    GF_NODE_METRICS,    /* .gatherfs/metrics */
    GF_NODE_PROV,       /* .gatherfs/provenance/: snapshot */
    GF_NODE_PROV_VIEW,  /* .gatherfs/provenance/VIEW/: snapshot, dir */
    GF_NODE_PROV_FILE,  /* .gatherfs/provenance/[VIEW/]FILE.json: snapshot, dir, file */
};

struct gf_place {
    enum gf_node_kind kind;
    struct gf_snapshot *snapshot; /* NULL for what belongs to no step */
    const struct gf_vdir *dir;
    const struct gf_vfile *file;
    uint64_t parent; /* node id, of directories only: files have 0 */
    uint64_t ino;    /* st_ino; not part of the identity */
    char *path;      /* in the run, of the kinds that say so above; the node owns it */
};

struct gf_node {
    uint64_t id;
    struct gf_place place;
    uint64_t nlookup; /* the rest belongs to tree.c */
    struct gf_node *next_id, *next_place;
};

struct gf_tree;

int gf_tree_new(struct gf_tree **ret, struct gf_err *err);
void gf_tree_free(struct gf_tree *tree); /* drops all nodes, known to the kernel or not */
GF_DEFINE_AUTO(gf_tree);

bool gf_node_is_dir(enum gf_node_kind kind);

/* The node called `id`, or NULL. The root is always there. */
struct gf_node *gf_tree_get(struct gf_tree *tree, uint64_t id);

/* The node of a place, made if need be, with one more look-up. Takes over the reference in
 * place->snapshot and place->path, also when it fails with -ENOMEM. */
int gf_tree_enter(struct gf_tree *tree, const struct gf_place *place, struct gf_node **ret);

/* The kernel drops n look-ups of a node. Unknown ids are ignored. */
void gf_tree_forget(struct gf_tree *tree, uint64_t id, uint64_t n);

/* How many nodes the kernel knows, the root included. */
size_t gf_tree_count(struct gf_tree *tree);

#endif
