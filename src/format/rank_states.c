/* SPDX-License-Identifier: Apache-2.0 */
/* rank_states.c - the files of all ranks, read side by side. */
#include <stdlib.h>

#include "base/math.h"
#include "format/parallel.h"
#include "format/rank_files.h"

struct job {
    const struct gf_format_in *in;
    const struct gf_rank_set *set;
    struct gf_state *at;
};

static int read_one(void *ctx, size_t i, struct gf_err *err)
{
    const struct job *job = ctx;

    return gf_state_read(job->in->dir, job->set->paths[i], job->set->ranks[i],
                         job->in->limits, &job->at[i], err);
}

static uint64_t count_world(const struct gf_rank_set *set, const struct gf_state *at)
{
    uint64_t world = (uint64_t)set->ranks[set->n - 1] + 1;

    if (set->world)
        return set->world;
    for (size_t f = 0; f < set->n; f++)
        for (size_t i = 0; i < at[f].n; i++)
            world = GF_MAX(world, at[f].at[i].ranks);
    return world;
}

int gf_rank_states_read(const struct gf_format_in *in, const struct gf_rank_set *set,
                        struct gf_rank_states *ret, struct gf_err *err)
{
    struct job job = { in, set, calloc(set->n, sizeof(*job.at)) };
    int r;

    if (!job.at)
        return gf_nomem(err);
    *ret = (struct gf_rank_states){ .at = job.at, .n = set->n };
    r = gf_parallel(set->n, in->threads, read_one, &job, err);
    if (!r)
        ret->world = count_world(set, job.at);
    return r;
}

void gf_rank_states_done(struct gf_rank_states *states)
{
    for (size_t i = 0; i < states->n; i++)
        gf_state_done(&states->at[i]);
    free(states->at);
    *states = (struct gf_rank_states){ 0 };
}

int gf_rank_states_hand_over(const struct gf_format_in *in, struct gf_rank_states *states,
                             struct gf_found *out, struct gf_err *err)
{
    int r = 0;

    for (size_t f = 0; f < states->n && !r; f++) {
        struct gf_state *file = &states->at[f];
        uint32_t index;

        /* What one rank has to say of its entries, the others only repeat. */
        if (f == 0 || file->nodd)
            r = gf_state_judge(file, in->allow_incomplete, out, err);
        out->mtime_ns = GF_MAX(out->mtime_ns, file->source->identity.mtime_ns);
        if (!r)
            r = gf_found_add_source(out, gf_take(&file->source), &index, err);
    }
    if (!r) {
        out->has_step = states->at[0].has_step;
        out->step = states->at[0].step;
    }
    return r;
}
