/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t_job.h - a job in this process: real publishers, one for each rank, of one tensor `w` that
 * is cut over them. After step S every element is S.
 */
#ifndef GF_TESTS_T_JOB_H
#define GF_TESTS_T_JOB_H

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"
#include "job/job.h"
#include "live/channel.h"
#include "live/gatherfs.h"
#include "live/rundir.h"

#define T_RANKS 4
#define T_EACH 64

struct t_job {
    char base[64], dir[96];
    uint32_t world;
    const char *run_id;
    struct gatherfs_pub *pub[T_RANKS];
    float w[T_RANKS][T_EACH];
    uint64_t step;
};

static const struct gf_wait t_wait = { .ms = 3000 }, t_short = { .ms = 100 };

static inline void t_job_fill(struct t_job *t, uint32_t rank)
{
    for (size_t i = 0; i < T_EACH; i++)
        t->w[rank][i] = (float)t->step;
}

static inline void t_job_rank(struct t_job *t, uint32_t rank)
{
    const uint64_t shape[1] = { (uint64_t)T_EACH * t->world };
    struct gatherfs_pub_options options = { .struct_size = sizeof(options),
                                            .job = "job",
                                            .rank = rank,
                                            .world = t->world,
                                            .run_id = t->run_id,
                                            .rundir = t->base,
                                            .step = t->step };
    struct gatherfs_tensor_desc w = { .struct_size = sizeof(w),
                                      .name = "w",
                                      .dtype = "float32",
                                      .data = t->w[rank],
                                      .shape = shape,
                                      .ndim = 1,
                                      .flags = GATHERFS_FLAT,
                                      .flat_off = (uint64_t)T_EACH * rank,
                                      .flat_count = T_EACH };

    t_job_fill(t, rank);
    assert_int_equal(gatherfs_pub_open(&options, &t->pub[rank]), 0);
    assert_true(gatherfs_pub_add(t->pub[rank], &w) >= 0);
    assert_int_equal(gatherfs_pub_start(t->pub[rank]), 0);
}

static inline void t_job_step_rank(struct t_job *t, uint32_t rank, uint64_t step)
{
    gatherfs_pub_begin(t->pub[rank]);
    for (size_t i = 0; i < T_EACH; i++)
        t->w[rank][i] = (float)step;
    gatherfs_pub_commit(t->pub[rank], step);
}

static inline void t_job_step(struct t_job *t)
{
    t->step++;
    for (uint32_t i = 0; i < t->world; i++)
        if (t->pub[i])
            t_job_step_rank(t, i, t->step);
}

static inline void t_job_end(struct t_job *t)
{
    for (uint32_t i = 0; i < T_RANKS; i++) {
        gatherfs_pub_close(t->pub[i]);
        t->pub[i] = NULL;
    }
}

static inline void t_job_start(struct t_job *t, uint32_t world, const char *run_id)
{
    t->world = world;
    t->run_id = run_id;
    for (uint32_t i = 0; i < world; i++)
        t_job_rank(t, i);
}

static inline int t_job_setup(void **state)
{
    struct t_job *t = calloc(1, sizeof(*t));

    if (!t)
        abort(); /* cmocka's assertion is no end of the function to a compiler */
    snprintf(t->base, sizeof(t->base), "/tmp/gatherfs-job.XXXXXX");
    assert_non_null(mkdtemp(t->base));
    snprintf(t->dir, sizeof(t->dir), "%s/job", t->base);
    setenv("GATHERFS_RUNDIR", t->base, 1);
    *state = t;
    return 0;
}

static inline int t_job_teardown(void **state)
{
    struct t_job *t = *state;
    char line[128];

    assert_non_null(t);
    t_job_end(t);
    snprintf(line, sizeof(line), "rm -rf '%s'", t->base);
    assert_int_equal(system(line), 0);
    free(t);
    return 0;
}

/* The elements of rank `i` in a shot are all this one. */
static inline float t_job_value(const struct gf_shot *shot, uint32_t i)
{
    const float *w =
        (const float *)(const void *)(shot->at[i].memory->bytes +
                                      shot->ranks->at[i].table->at[0].data_off);

    for (size_t k = 1; k < T_EACH; k++)
        assert_true(w[k] == w[0]);
    return w[0];
}

#endif
