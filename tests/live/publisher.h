/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publisher.h - a small job to publish: one rank with a few tensors, in a run directory of its
 * own. Every element of tensor t is `1000 * t + step` after commit(step).
 */
#ifndef GF_TESTS_LIVE_PUBLISHER_H
#define GF_TESTS_LIVE_PUBLISHER_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "live/gatherfs.h"
#include "reader.h"

#define JOB_TENSORS 3 /* "w" [4, 8], "frozen" [1000] static, "mean" [5] buffer */

struct job {
    char base[64], dir[80];
    struct gatherfs_pub_options options;
    struct gatherfs_pub *pub;
    float w[32], frozen[1000], mean[5];
    float *big; /* "big" [big_len], if it is not 0 */
    uint64_t big_len;
};

static inline void job_set(float *at, size_t n, float value)
{
    for (size_t i = 0; i < n; i++)
        at[i] = value;
}

static inline void job_update(struct job *job, uint64_t step)
{
    job_set(job->w, 32, (float)step);
    job_set(job->mean, 5, 2000 + (float)step);
    job_set(job->big, job->big_len, 3000 + (float)step);
}

static inline void job_step(struct job *job, uint64_t step)
{
    gatherfs_pub_begin(job->pub);
    job_update(job, step);
    gatherfs_pub_commit(job->pub, step);
}

static inline int job_add(struct job *job, const char *name, float *data, uint64_t n,
                          uint32_t flags)
{
    struct gatherfs_tensor_desc desc = { .struct_size = sizeof(desc),
                                         .name = name,
                                         .dtype = "float32",
                                         .data = data,
                                         .shape = &n,
                                         .ndim = 1,
                                         .flags = flags };

    return gatherfs_pub_add(job->pub, &desc);
}

static inline int job_open(struct job *job)
{
    snprintf(job->base, sizeof(job->base), "/tmp/gatherfs-test-XXXXXX");
    if (!mkdtemp(job->base))
        return -errno;
    snprintf(job->dir, sizeof(job->dir), "%s/run", job->base);
    job->options.struct_size = sizeof(job->options);
    job->options.job = "run";
    job->options.rundir = job->base;
    job->options.world = job->options.world ? job->options.world : 1;
    return gatherfs_pub_open(&job->options, &job->pub);
}

static inline int job_fill(struct job *job)
{
    static const uint64_t shape[2] = { 4, 8 };
    struct gatherfs_tensor_desc w = { .struct_size = sizeof(w),
                                      .name = "w",
                                      .dtype = "float32",
                                      .data = job->w,
                                      .shape = shape,
                                      .ndim = 2 };
    int r = gatherfs_pub_add(job->pub, &w);

    if (job->big_len)
        job->big = calloc(job->big_len, sizeof(float));
    job_set(job->frozen, 1000, 1000);
    if (r >= 0)
        r = job_add(job, "frozen", job->frozen, 1000, GATHERFS_STATIC | GATHERFS_FROZEN);
    if (r >= 0)
        r = job_add(job, "mean", job->mean, 5, GATHERFS_BUFFER);
    if (r >= 0 && job->big_len)
        r = job_add(job, "big", job->big, job->big_len, 0);
    job_update(job, job->options.step);
    return r < 0 ? r : gatherfs_pub_start(job->pub);
}

/* Opens, fills and starts. */
static inline int job_start(struct job *job)
{
    int r = job_open(job);

    return r ? r : job_fill(job);
}

static inline void job_end(struct job *job)
{
    gatherfs_pub_close(job->pub);
    job->pub = NULL;
    rmdir(job->base);
    free(job->big);
}

/* Is every element of tensor `i` in the slot `value`? */
static inline bool job_holds(const struct reader *reader, uint32_t slot, uint32_t i,
                             float value)
{
    const struct gf_live_tensor *t = &reader->table->at[i];
    const uint8_t *memory =
        t->flags & GF_LIVE_STATIC ? reader->statics : reader->slots[slot];
    const float *at = (const float *)(const void *)(memory + t->data_off);

    for (uint64_t k = 0; k < t->count; k++)
        if (at[k] != value)
            return false;
    return true;
}

#endif
