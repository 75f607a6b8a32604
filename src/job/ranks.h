/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ranks.h - the ranks of one start of a job: what each of them publishes.
 *
 * Made when all ranks have said who they are, and immutable but for the static memory, which
 * comes when it is first needed. A changed table or a restarted job is another set of ranks;
 * the old one lives until its last step is let go of.
 *
 * Of equal copies of a piece (data parallel replicas) one is chosen; the other ranks copy
 * nothing and hold no memory for it.
 */
#ifndef GF_JOB_RANKS_H
#define GF_JOB_RANKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "live/segment.h"

/* A memfd of a publisher, mapped read-only. Shared by reference. */
struct gf_memory {
    atomic_uint refs;
    const uint8_t *bytes;
    uint64_t size;
    int fd; /* to pass it on */
};

/* Takes over fd, also when it fails. `what` is for errors. */
int gf_memory_map(const char *what, int fd, uint64_t size, struct gf_memory **ret,
                  struct gf_err *err);
struct gf_memory *gf_memory_ref(struct gf_memory *memory);
void gf_memory_free(struct gf_memory *memory); /* drops one reference; NULL is fine */
GF_DEFINE_AUTO(gf_memory);

/* What one rank says: its table, and the memory with its live words. Immutable, shared by
 * reference. */
struct gf_said {
    atomic_uint refs;
    struct gf_live_table *table;
    struct gf_memory *control;
};

struct gf_rank {
    struct gf_said *said;
    const struct gf_live_table *table; /* said->table */
    uint8_t *set;         /* the pieces chosen, as in SELECT; static ones included */
    bool moving, resting; /* has chosen pieces in slots, in the static memory */
    _Atomic(struct gf_memory *) frozen; /* the static memory, once it came */
};

struct gf_ranks {
    atomic_uint refs;
    uint32_t n, world;  /* n < world: some are missing (allow_incomplete) */
    struct gf_rank *at; /* by rank */
};

/* Copies the control memory and parses the copy. `rank` is what it must say it is. Takes
 * over fd, also when it fails. */
int gf_said_read(uint32_t rank, int fd, uint64_t size, const struct gf_limits *limits,
                 struct gf_said **ret, struct gf_err *err);
void gf_said_free(struct gf_said *said); /* drops one reference; NULL is fine */
GF_DEFINE_AUTO(gf_said);

/* Do these ranks (sorted) belong together, and are they all? GF_EINCOMPLETE: some are missing;
 * EINVAL: they are not of one job. `job` is for errors. */
int gf_ranks_agree(const char *job, struct gf_said *const *said, size_t n,
                   struct gf_err *err);

/* Takes references of its own. */
int gf_ranks_new(struct gf_said *const *said, size_t n, struct gf_ranks **ret,
                 struct gf_err *err);
struct gf_ranks *gf_ranks_ref(struct gf_ranks *ranks);
void gf_ranks_free(struct gf_ranks *ranks); /* drops one reference; NULL is fine */
GF_DEFINE_AUTO(gf_ranks);

/* The live words of a rank. */
static inline const struct gf_live_control *gf_rank_control(const struct gf_rank *rank)
{
    return (const struct gf_live_control *)(const void *)rank->said->control->bytes;
}

#endif
