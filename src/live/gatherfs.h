/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gatherfs.h - libgatherfs: lets a training process publish its weights, so that
 * `gatherfs mount live:JOB DIR` shows them as a model directory while it trains.
 *
 *     struct gatherfs_pub_options options = { .struct_size = sizeof options,
 *                                             .job = "run7", .rank = rank, .world = world };
 *     struct gatherfs_pub *pub;
 *     if (gatherfs_pub_open(&options, &pub) < 0)
 *         fputs(gatherfs_error(), stderr);
 *     for each local tensor: gatherfs_pub_add(pub, &desc);
 *     gatherfs_pub_start(pub);
 *     for each step {
 *         forward, backward;
 *         gatherfs_pub_begin(pub);         before the first byte of the weights changes
 *         optimizer step;
 *         gatherfs_pub_commit(pub, step);  after the last one did
 *     }
 *     gatherfs_pub_final(pub, 5000);
 *     gatherfs_pub_close(pub);
 *
 * Nothing is copied, and no memory is used, until somebody reads. Then one consistent copy
 * of the asked-for tensors is taken between commit(S) and the next begin(), by a thread of
 * this library while forward and backward run; begin() waits for what is left of it, never
 * longer than max_stall (then the copy is given up, and training goes on).
 *
 * Rules
 * - The memory of an added tensor stays readable until gatherfs_pub_set_ptr gives another
 *   address, or gatherfs_pub_reset_table or gatherfs_pub_close has returned.
 * - Tensors change only between begin() and commit(); those that are GATHERFS_STATIC never,
 *   those that are GATHERFS_BUFFER may also change in forward.
 * - One thread at a time calls functions on one publisher. begin() and commit() neither
 *   allocate nor take a lock unless a snapshot is being taken.
 * - All ranks of a job use the same job name, world, run id and step numbers. No function
 *   here communicates with other ranks.
 * - After fork() the child's copy of a publisher is dead: every call on it does nothing.
 *
 * Functions return 0 or -errno; gatherfs_error() has the text. Structs begin with
 * struct_size = sizeof *it: later versions add fields at the end, and 0 is their default.
 */
#ifndef GATHERFS_H
#define GATHERFS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GATHERFS_ABI 1

struct gatherfs_pub;

enum gatherfs_background {
    GATHERFS_AUTO = 0,       /* per snapshot: whichever costs training less */
    GATHERFS_BACKGROUND = 1, /* the library's thread copies while forward runs */
    GATHERFS_SYNCHRONOUS = 2 /* commit() copies */
};

struct gatherfs_pub_options {
    size_t struct_size;
    const char *job; /* letters, digits, '.', '_', '-'; at most 63 */
    uint32_t rank, world;
    const char *run_id; /* any text, the same on all ranks of one start of the job, another
                              after a restart. NULL: made from what launchers put into the
                              environment (torchrun, SLURM, MASTER_ADDR and MASTER_PORT) */
    const char *rundir; /* directory of jobs; NULL: $GATHERFS_RUNDIR, else
                              $XDG_RUNTIME_DIR/gatherfs, else /tmp/gatherfs-UID */
    const char *framework; /* "fsdp2"; shown by `gatherfs status`, may be NULL */
    uint64_t step;         /* what the weights are now, before the first commit */
    uint64_t memory_limit; /* bytes for snapshots and static tensors; 0: a safe part of what
                              the node and the cgroup have left */
    double max_stall;      /* seconds that training may wait for one snapshot; 0: 2.0 */
    uint32_t slots;        /* snapshots held at a time, 1..8; 0: 2 */
    uint32_t background;   /* enum gatherfs_background */
    uint32_t verify; /* 1: only the state at gatherfs_pub_start, and commits that followed
                              gatherfs_pub_wanted() == 1, may be snapshots: the caller checks
                              its addresses there */
    uint32_t reserved;
};

/* Which part of the global tensor this is. */
#define GATHERFS_FLAT                                                                      \
    1u /* elements [flat_off, flat_off + flat_count), flattened row-major */
/* neither: the box `local` at `first`; NULL for both: the whole tensor */

#define GATHERFS_STATIC 2u  /* never changes: copied once for all snapshots */
#define GATHERFS_BUFFER 4u  /* changes in forward too: copied inside commit() */
#define GATHERFS_FROZEN 16u /* requires_grad is false (a fact for readers, no promise) */

struct gatherfs_tensor_desc {
    size_t struct_size;
    const char *name;      /* as the module names it */
    const char *dtype;     /* as torch names it: "bfloat16" */
    const void *data;      /* may be NULL where this rank has no element of it */
    const uint64_t *shape; /* of the whole tensor: ndim sizes */
    const uint64_t *local; /* of this rank's box; NULL: shape */
    const uint64_t *first; /* where the box begins; NULL: 0 */
    const int64_t *stride; /* of the box in memory, in elements, >= 0; NULL: contiguous */
    uint64_t flat_off, flat_count; /* GATHERFS_FLAT */
    uint32_t ndim;                 /* at most 8 */
    uint32_t flags;
    uint32_t replica, replicas; /* equal copies of this piece in the job: this is copy
                                   `replica` of `replicas`; 0 of 0 is 0 of 1 */
    int32_t device;             /* 0: host memory; others are refused by this version */
    uint32_t reserved;
};

struct gatherfs_pub_stats {
    size_t struct_size;
    uint64_t step, commits;
    uint64_t snapshots, missed, busy; /* answers to readers */
    uint64_t bytes;                   /* copied in all */
    uint64_t stall_ns, stall_max_ns;  /* that begin() and commit() waited: sum, longest */
    uint64_t copy_ns;                 /* of the last snapshot */
    uint64_t memory;                  /* bytes held now */
    uint32_t agent;                   /* 1: a reader is connected */
    uint32_t tensors;
};

/* "0.1.0", and the ABI this library was built as. */
const char *gatherfs_version(void);
uint32_t gatherfs_abi(void);

/* Why the last call of this thread failed. */
const char *gatherfs_error(void);

int gatherfs_pub_open(const struct gatherfs_pub_options *options,
                      struct gatherfs_pub **ret);

/* Adds a tensor piece; several may carry one name. Strings and arrays are copied. Returns its
 * id (0, 1, 2 ...) or -errno. Only before start, and between reset_table and start. */
int gatherfs_pub_add(struct gatherfs_pub *pub, const struct gatherfs_tensor_desc *desc);
/* A second name of tensor `id` (tied weights). Returns its own id. */
int gatherfs_pub_alias(struct gatherfs_pub *pub, const char *name, uint32_t id);

/* Freezes the table and publishes it. -EADDRINUSE: another process is this rank of this job. */
int gatherfs_pub_start(struct gatherfs_pub *pub);

int gatherfs_pub_begin(struct gatherfs_pub *pub);
int gatherfs_pub_commit(struct gatherfs_pub *pub, uint64_t step);

/* 1: a reader is connected, so the coming commit may become a snapshot: with options.verify,
 * check addresses now (set_ptr, or reset_table). */
int gatherfs_pub_wanted(struct gatherfs_pub *pub);

/* Tensor `id` lives at another address from now on. Call it between begin() and commit(). */
int gatherfs_pub_set_ptr(struct gatherfs_pub *pub, uint32_t id, const void *data);
/* Withdraws all tensors: add them anew, then start. Readers keep the snapshots they have. */
int gatherfs_pub_reset_table(struct gatherfs_pub *pub);

/* Puts a small file beside the weights: NAME in BASE/JOB/model (config.json, tokenizer). */
int gatherfs_pub_file(struct gatherfs_pub *pub, const char *name, const void *data,
                      size_t size);
/* A number that describes the current step ("eval_loss"); at most 32 names of 39 bytes. */
int gatherfs_pub_metric(struct gatherfs_pub *pub, const char *name, double value);

/* Training is over: waits until a connected reader has taken the last state, at most
 * timeout_ms. 0 also without any reader; -ETIMEDOUT. */
int gatherfs_pub_final(struct gatherfs_pub *pub, uint32_t timeout_ms);
/* Withdraws the job's rank. Snapshots that readers hold stay theirs. NULL is fine. */
void gatherfs_pub_close(struct gatherfs_pub *pub);

int gatherfs_pub_stats(struct gatherfs_pub *pub, struct gatherfs_pub_stats *ret);

#ifdef __cplusplus
}
#endif

#endif
