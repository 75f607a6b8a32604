/* SPDX-License-Identifier: Apache-2.0 */
/*
 * run.h - a SOURCE as a mount shows it: a checkpoint, and the checkpoints below it.
 *
 *     SOURCE                         MOUNT
 *       config.json                    checkpoint-10/   an HF directory each
 *       checkpoint-10/                 checkpoint-20/
 *       checkpoint-20/                 latest -> checkpoint-20
 *       checkpoint-30/ (unfinished)    best -> checkpoint-10
 *
 * The root may be a checkpoint itself (a final model, a DeepSpeed root with its tags below).
 * Snapshots are opened at the first look. Training goes on meanwhile: gf_run_poll() notices
 * new and changed checkpoints, later look-ups get new snapshots, and old ones live until
 * their last handle goes.
 */
#ifndef GF_SNAPSHOT_RUN_H
#define GF_SNAPSHOT_RUN_H

#include "base/auto.h"
#include "base/err.h"
#include "snapshot/options.h"
#include "snapshot/snapshot.h"

struct gf_run;

/* SOURCE: a path to a directory or file. Opens the root's snapshot if the root is a
 * checkpoint, so a SOURCE that cannot be served fails here. With tag= that checkpoint is the
 * root and there is nothing below it. `opt` is borrowed. */
int gf_run_open(const char *source, const struct gf_options *opt, struct gf_run **ret,
                struct gf_err *err);
void gf_run_free(struct gf_run *run);
GF_DEFINE_AUTO(gf_run);

const char *gf_run_source(const struct gf_run *run);

/* What there is more to know of live:JOB (snapshot/live.h), or NULL: SOURCE is on disk. */
struct gf_live *gf_run_live(struct gf_run *run);

enum gf_run_kind {
    GF_RUN_CHECKPOINT,
    GF_RUN_DIR, /* holds checkpoints, is none: verl's global_step_8/ over actor/, critic/ */
    GF_RUN_LINK, /* latest, best */
};

struct gf_run_entry {
    char *path; /* below the root */
    enum gf_run_kind kind;
    char *target;       /* of a link: a path beside it */
    bool complete;      /* of a checkpoint; others: true */
    char why[GF_WHY];   /* why it is hidden, "" if complete */
    const char *format; /* of a checkpoint: its layout (NULL: several fit) ... */
    char seen[GF_WHY];  /* ... and what told it */
    bool has_step;
    uint64_t step; /* by its name */
};

/* What stands right below directory `dir` ("" is the root), sorted by path; of NULL all
 * checkpoints, however deep, and the links. Incomplete checkpoints are in the list (for
 * status), but are not to be shown. *ret: gf_run_entries_free(). */
int gf_run_entries(struct gf_run *run, const char *dir, struct gf_run_entry **ret,
                   size_t *ret_n, struct gf_err *err);
void gf_run_entries_free(struct gf_run_entry *entries, size_t n);

/* What is shown at `path`. -ENOENT without text: nothing. *ret_target (links; may be NULL) is
 * to be freed. */
int gf_run_look(struct gf_run *run, const char *path, enum gf_run_kind *ret,
                char **ret_target, struct gf_err *err);

/* The current snapshot of the root (path "") or of a checkpoint below it; one reference for
 * the caller (gf_snapshot_free). -ENOENT if there is none, or why it cannot be served.
 * Thread-safe, as all the rest. */
int gf_run_snapshot(struct gf_run *run, const char *path, struct gf_snapshot **ret,
                    struct gf_err *err);

/* What export and verify take: the root's snapshot, or the newest checkpoint's of a run whose
 * root holds no weights. *ret_path (to be freed) is "" or its path. */
int gf_run_default(struct gf_run *run, struct gf_snapshot **ret, char **ret_path,
                   struct gf_err *err);

/* Looks for new, changed and vanished checkpoints; true if anything is different since the
 * last call. Cheap: names, sizes and times. For one thread, about once a second. */
bool gf_run_poll(struct gf_run *run);

/* PATH as in a mount, links followed: "model.safetensors", "raw/model.safetensors",
 * "latest/config.json". *ret_snapshot is the caller's reference; the rest lives with it. */
int gf_run_find(struct gf_run *run, const char *path, struct gf_snapshot **ret_snapshot,
                const struct gf_vdir **ret_dir, const struct gf_vfile **ret_file,
                struct gf_err *err);

#endif
