/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/sweep.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "base/auto.h"
#include "base/math.h"

/* Large enough for disks and few locks, small enough to stay in a processor's cache. */
#define CHUNK ((size_t)2 << 20)
#define MAX_JOBS 16
#define MAX_CPUS ((size_t)1 << 20)

struct sweep {
    const struct gf_vdir *dir;
    const struct gf_vfile *file;
    gf_sweep_fn *fn;
    void *ctx;

    pthread_mutex_t lock; /* for the two below */
    uint64_t next;        /* where the next chunk starts; the file's size after a failure */
    struct gf_err err;
};

int gf_sweep_read(const struct gf_vdir *dir, const struct gf_vfile *file, uint64_t off,
                  size_t len, void *buf, struct gf_scratch *scratch, struct gf_err *err)
{
    struct gf_fault fault = { 0 };
    size_t got = 0;
    int r = gf_snapshot_read(dir, file, off, len, buf, &got, scratch, &fault);

    if (r == -ESTALE && fault.source)
        return gf_fail(err, ESTALE, "'%s' changed while it was read", fault.source);
    if (r && fault.source)
        return gf_fail(err, -r, "'%s': cannot read %zu bytes at %llu: %s", fault.source,
                       fault.len, (unsigned long long)fault.offset, strerror(-r));
    if (r)
        return gf_fail(err, -r, "'%s': cannot read %zu bytes at %llu: %s", file->name, len,
                       (unsigned long long)off, strerror(-r));
    if (got != len)
        return gf_fail(err, EIO, "'%s': read %zu bytes at %llu, wanted %zu", file->name,
                       got, (unsigned long long)off, len);
    return 0;
}

static bool take_chunk(struct sweep *s, uint64_t *ret_off, size_t *ret_len)
{
    uint64_t off;

    pthread_mutex_lock(&s->lock);
    off = s->next;
    *ret_off = off;
    *ret_len = (size_t)GF_MIN((uint64_t)CHUNK, s->file->size - off);
    s->next = off + *ret_len;
    pthread_mutex_unlock(&s->lock);
    return *ret_len > 0;
}

static void give_up(struct sweep *s, const struct gf_err *err)
{
    pthread_mutex_lock(&s->lock);
    if (!s->err.code)
        s->err = *err;
    s->next = s->file->size;
    pthread_mutex_unlock(&s->lock);
}

static void *work(void *arg)
{
    struct sweep *s = arg;
    struct gf_scratch scratch = { 0 };
    struct gf_err err = { 0 };
    uint8_t *buf = malloc((size_t)GF_MIN((uint64_t)CHUNK, s->file->size));
    uint64_t off;
    size_t len;
    int r = buf ? 0 : gf_nomem(&err);

    while (!r && take_chunk(s, &off, &len)) {
        r = gf_sweep_read(s->dir, s->file, off, len, buf, &scratch, &err);
        if (!r)
            r = s->fn(s->ctx, off, buf, len, &err);
    }
    if (r)
        give_up(s, &err);
    free(buf);
    gf_scratch_done(&scratch);
    return NULL;
}

/* Those that this process may use. The kernel wants room for all that the machine could have,
 * which may be more than a cpu_set_t holds. */
static unsigned processors(void)
{
    for (size_t room = CPU_SETSIZE; room <= MAX_CPUS; room *= 4) {
        GF_AUTO_MEM cpu_set_t *set = CPU_ALLOC(room);

        if (set && !sched_getaffinity(0, CPU_ALLOC_SIZE(room), set))
            return (unsigned)GF_MAX(CPU_COUNT_S(CPU_ALLOC_SIZE(room), set), 1);
    }
    return 1;
}

int gf_sweep(const struct gf_vdir *dir, const struct gf_vfile *file, unsigned jobs,
             gf_sweep_fn *fn, void *ctx, struct gf_err *err)
{
    struct sweep s = { .dir = dir, .file = file, .fn = fn, .ctx = ctx };
    pthread_t threads[MAX_JOBS];
    unsigned started = 0;

    if (file->size == 0)
        return 0;
    jobs = GF_MIN(jobs ? jobs : processors(), (unsigned)MAX_JOBS);
    jobs = (unsigned)GF_MIN((uint64_t)jobs, gf_ceil_div(file->size, CHUNK));
    pthread_mutex_init(&s.lock, NULL);
    /* This thread works too; where no more can be started, it does it alone. */
    while (started + 1 < jobs && !pthread_create(&threads[started], NULL, work, &s))
        started++;
    work(&s);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&s.lock);
    if (s.err.code && err)
        *err = s.err;
    return -s.err.code;
}
