/* SPDX-License-Identifier: Apache-2.0 */
#include "format/parallel.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/math.h"

#define MOST_THREADS 64

struct queue {
    int (*work)(void *ctx, size_t i, struct gf_err *err);
    void *ctx;
    atomic_size_t next;
    atomic_size_t failed; /* the lowest index known to fail; n: none */
    pthread_mutex_t lock; /* guards err */
    struct gf_err err;    /* of index `failed` */
};

static void note(struct queue *q, size_t i, const struct gf_err *err)
{
    pthread_mutex_lock(&q->lock);
    if (i < atomic_load(&q->failed)) {
        q->err = *err;
        atomic_store(&q->failed, i);
    }
    pthread_mutex_unlock(&q->lock);
}

static void *work(void *arg)
{
    struct queue *q = arg;
    size_t i;

    /* What is behind a failed one need not be done; what is in front of it must be, so that
     * the report does not depend on timing. */
    while ((i = atomic_fetch_add(&q->next, 1)) < atomic_load(&q->failed)) {
        struct gf_err err = { 0 };

        if (q->work(q->ctx, i, &err))
            note(q, i, &err);
    }
    return NULL;
}

int gf_parallel(size_t n, unsigned threads,
                int (*one)(void *ctx, size_t i, struct gf_err *err), void *ctx,
                struct gf_err *err)
{
    struct queue q = { .work = one, .ctx = ctx };
    size_t want = GF_MIN(GF_MIN(n, (size_t)threads), (size_t)MOST_THREADS), started = 0;
    pthread_t ids[MOST_THREADS];

    atomic_init(&q.next, 0);
    atomic_init(&q.failed, n);
    pthread_mutex_init(&q.lock, NULL);
    while (started + 1 < want && pthread_create(&ids[started], NULL, work, &q) == 0)
        started++;
    work(&q);
    while (started)
        pthread_join(ids[--started], NULL);
    pthread_mutex_destroy(&q.lock);
    if (atomic_load(&q.failed) == n)
        return 0;
    if (err)
        *err = q.err;
    return -q.err.code;
}
