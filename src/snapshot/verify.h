/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.h - is everything that a view promises really there?
 *
 * Reads every byte of every weight file of a view once; looks whether the sources are still
 * what they were; proves that a tensor which is left out because it is tied equals, in
 * full, one that is served (the mount compares samples). With `against`, every tensor is
 * held against the safetensors files of that directory, however those are sharded.
 */
#ifndef GF_SNAPSHOT_VERIFY_H
#define GF_SNAPSHOT_VERIFY_H

#include <stdint.h>

#include "base/err.h"
#include "snapshot/snapshot.h"

enum gf_verify_kind {
    GF_VERIFY_GOOD,    /* what was checked */
    GF_VERIFY_NOTE,    /* of interest, not wrong: a side file that differs */
    GF_VERIFY_PROBLEM, /* the checkpoint or the other directory is not as it should be */
    GF_VERIFY_UNKNOWN, /* could not be checked */
};

struct gf_verify {
    const char *against;                         /* a directory, or NULL */
    unsigned jobs;                               /* threads; 0: one for each processor */
    void (*progress)(void *ctx, uint64_t bytes); /* from any thread */
    void (*say)(void *ctx, enum gf_verify_kind kind,
                const char *text); /* from the caller's */
    void *ctx;
};

struct gf_verify_result {
    uint64_t files, tensors, bytes; /* weights that were read */
    uint64_t problems, unknown;
};

/* Fails only where the check itself cannot go on; problems are counted in *ret. */
int gf_verify(struct gf_snapshot *snapshot, const struct gf_vdir *dir,
              const struct gf_verify *how, struct gf_verify_result *ret,
              struct gf_err *err);

#endif
