/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steps.h - the checkpoints of a run: what below SOURCE is one, which of them are finished,
 * and which is the best.
 *
 * Cheap rules only: names, markers, and what each format's probe looks at. What is complete
 * by them may still turn out broken when it is opened. Known conventions:
 *
 *   producer                     step                    finished when
 *   HF Trainer, Axolotl, TRL,    checkpoint-N/           trainer_state.json (written last)
 *   LLaMA-Factory
 *   Accelerate, trlx, diffusers  checkpoint_N/           random_states_0.pkl, where there is
 *                                best_checkpoint/        a state of Accelerate at all
 *   open-instruct                step_N/ epoch_N/        COMPLETED or .checkpoint_complete,
 *                                                        where any sibling has one
 *   torchtitan                   step-N/                 .metadata or an index
 *   verl                         global_step_N/actor/    all ranks' files
 *   DeepSpeed, OpenRLHF          ROOT/<tag>/             all ranks' files; `latest` names one
 *   Lightning                    epoch=E-step=N.ckpt     the file is whole
 *   others                       any directory that a format knows
 */
#ifndef GF_FORMAT_STEPS_H
#define GF_FORMAT_STEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/vec.h"
#include "format/format.h"
#include "source/dir.h"

struct gf_step {
    char *path; /* as it is shown below SOURCE; "" = SOURCE itself */
    char *dir;  /* its layout's directory below SOURCE: path, but of a tag its root */
    char *tag;  /* of layouts with several steps in one directory, else NULL */
    char *file; /* the checkpoint is this file of dir (Lightning), or NULL */
    bool has_number;
    uint64_t number; /* N in the name of the outermost directory that has one */
    size_t head;     /* bytes of path up to the end of that name: "global_step_8" */
    unsigned marks;  /* signs of being finished that it carries: for its siblings' sake */
    const char *format; /* name of its layout, NULL when several fit, and what told it */
    char seen[GF_WHY];
    bool complete;
    char why[GF_WHY]; /* why it is not */
};

/* A directory that was looked into. */
struct gf_watched {
    char *path;
    struct gf_identity identity; /* when it was looked into */
    bool fresh;   /* it had changed a moment before: might once more, unseen */
    bool busy;    /* holds checkpoints or changed lately: see gf_steps_stale() */
    bool settled; /* one finished checkpoint, and it stays that while it is unchanged */
};

struct gf_steps {
    struct GF_VEC(struct gf_step) at;         /* sorted by path */
    struct GF_VEC(struct gf_watched) watched; /* sorted by path */
    size_t cursor;
};

/* Everything below (and including) `dir`, three levels deep at most. What has settled since
 * `before` (may be NULL) is taken from there. */
int gf_steps_find(struct gf_dir *dir, const struct gf_steps *before, struct gf_steps *ret,
                  struct gf_err *err);
void gf_steps_done(struct gf_steps *steps);

/* Is it worth to look again? Directories that hold checkpoints and those that changed lately
 * are asked each time, of the others some at a time, settled ones never. */
bool gf_steps_stale(struct gf_dir *dir, struct gf_steps *steps);

/* The checkpoint at `path`, or NULL. */
struct gf_step *gf_steps_get(const struct gf_steps *steps, const char *path);

/* The name of the best checkpoint, beside `latest`: trlx's best_checkpoint/, or what
 * trainer_state.json in `latest` says. NULL if unknown; free() it. Not checked to be there. */
char *gf_step_best(struct gf_dir *dir, const char *latest);

/* The number in a step's name ("checkpoint-12", "global_step_8", "epoch=1-step=20.ckpt");
 * false if the name is none of the known kinds. */
bool gf_step_number(const char *name, uint64_t *ret);

#endif
