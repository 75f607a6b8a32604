/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a publisher: open, start, final, close. */
#include "live/publish_int.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/math.h"
#include "live/channel.h"

static _Thread_local struct gf_err last_err;

struct gf_err *gf_pub_err(void)
{
    return &last_err;
}

const char *gatherfs_error(void)
{
    return last_err.text;
}

const char *gatherfs_version(void)
{
    return GATHERFS_VERSION;
}

uint32_t gatherfs_abi(void)
{
    return GATHERFS_ABI;
}

static uint64_t read_clock(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t gf_pub_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t gf_pub_clock(void)
{
    return read_clock(CLOCK_REALTIME);
}

int gf_pub_take_struct(void *to, size_t size, const void *from, struct gf_err *err)
{
    size_t theirs;

    if (!from)
        return gf_fail(err, EINVAL, "a struct is missing");
    memcpy(&theirs, from, sizeof(theirs));
    if (theirs < sizeof(theirs) || theirs > 4096)
        return gf_fail(err, EINVAL, "struct_size is %zu", theirs);
    for (size_t i = size; i < theirs; i++)
        if (((const uint8_t *)from)[i])
            return gf_fail(err, ENOTSUP,
                           "the caller uses a newer gatherfs.h than this libgatherfs %s",
                           GATHERFS_VERSION);
    memset(to, 0, size);
    memcpy(to, from, GF_MIN(size, theirs));
    return 0;
}

void gf_pub_notify(struct gatherfs_pub *pub)
{
    uint64_t one = 1;

    /* Full means that it is awake anyway. */
    if (write(pub->event, &one, sizeof(one)) < 0)
        return;
}

/* ---------------------------------------------------------------- open, close */

static int check_options(const struct gatherfs_pub_options *o, struct gf_err *err)
{
    if (!o->job)
        return gf_fail(err, EINVAL, "options name no job");
    if (o->world < 1 || o->world > GF_LIVE_MAX_WORLD || o->rank >= o->world)
        return gf_fail(err, EINVAL, "rank %u of %u", o->rank, o->world);
    if (o->slots > GF_LIVE_MAX_SLOTS)
        return gf_fail(err, EINVAL, "%u slots, at most %d", o->slots, GF_LIVE_MAX_SLOTS);
    if (o->background > GATHERFS_SYNCHRONOUS)
        return gf_fail(err, EINVAL, "background %u is not known", o->background);
    if (!(o->max_stall >= 0 && o->max_stall <= 86400))
        return gf_fail(err, EINVAL, "max_stall of %g seconds", o->max_stall);
    if (o->step > GF_PUB_MAX_STEP)
        return gf_fail(err, EINVAL, "step %llu is too large", (unsigned long long)o->step);
    return 0;
}

static void init_locks(struct gatherfs_pub *pub)
{
    pthread_condattr_t monotonic;

    pthread_mutex_init(&pub->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pub->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static void release(struct gatherfs_pub *pub)
{
    gf_pub_place_close(pub);
    gf_pub_tensors_done(pub);
    gf_pub_memory_done(&pub->control_memory);
    if (pub->event >= 0)
        close(pub->event);
    pthread_cond_destroy(&pub->changed);
    pthread_mutex_destroy(&pub->lock);
    free(pub->buffer);
    free(pub->dir);
    free(pub);
}

int gatherfs_pub_open(const struct gatherfs_pub_options *options, struct gatherfs_pub **ret)
{
    struct gf_err *err = gf_pub_err();
    struct gatherfs_pub_options o;
    struct gatherfs_pub *pub;

    if (gf_pub_take_struct(&o, sizeof(o), options, err) || check_options(&o, err))
        return -err->code;
    pub = aligned_alloc(64, gf_align(sizeof(*pub), 64));
    if (!pub)
        return gf_nomem(err);
    *pub = (struct gatherfs_pub){
        .state = gf_pub_state(o.step, true, GF_LIVE_STABLE),
        .max_stall_ns = (uint64_t)((o.max_stall > 0 ? o.max_stall : 2.0) * 1e9),
        .memory_limit = o.memory_limit,
        .background = o.background,
        .verify = o.verify,
        .bytes_per_s = (uint64_t)4 << 30, /* until the first copy was measured */
        .table = { .rank = o.rank, .world = o.world, .nslots = o.slots ? o.slots : 2 },
        .control_memory.fd = -1,
        .statics.fd = -1,
        .dirfd = -1,
        .listener = -1,
        .agent = -1,
        .event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        .buffer = malloc(GF_LIVE_MSG_MAX),
    };
    for (uint32_t i = 0; i < GF_LIVE_MAX_SLOTS; i++)
        pub->slots[i].memory.fd = -1;
    init_locks(pub);
    gf_pub_register(pub);
    snprintf(pub->table.job, sizeof(pub->table.job), "%s", o.job);
    snprintf(pub->table.framework, sizeof(pub->table.framework), "%s",
             o.framework ? o.framework : "");
    gf_pub_run_id(o.job, o.world, o.run_id, pub->table.run_id);
    if (!pub->buffer || pub->event < 0)
        gf_fail(err, ENOMEM, "out of memory or descriptors");
    else if (gf_pub_place_open(pub, o.rundir, o.job, err) == 0) {
        int r;

        /* Under the lock, so that a forked child knows of the socket. */
        pthread_mutex_lock(&pub->lock);
        r = gf_pub_listen(pub, err);
        if (r && pub->listener >= 0) {
            close(pub->listener); /* the name there is not ours to remove */
            pub->listener = -1;
        }
        pthread_mutex_unlock(&pub->lock);
        flock(pub->dirfd, LOCK_UN);
        if (r == 0) {
            *ret = pub;
            return 0;
        }
    }
    gf_pub_unregister(pub);
    release(pub);
    return -err->code;
}

void gatherfs_pub_close(struct gatherfs_pub *pub)
{
    if (!pub || pub->dead)
        return;
    if (pub->running) {
        pthread_mutex_lock(&pub->lock);
        pub->stop = true;
        pthread_mutex_unlock(&pub->lock);
        gf_pub_notify(pub);
        pthread_join(pub->thread, NULL);
    }
    gf_pub_unregister(pub);
    release(pub);
}

/* ---------------------------------------------------------------- start, final */

static int run_thread(struct gatherfs_pub *pub, struct gf_err *err)
{
    sigset_t all, before;
    int code;

    if (pub->running)
        return 0;
    /* The trainer's signals are the trainer's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    code = pthread_create(&pub->thread, NULL, gf_pub_service, pub);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pub->running = code == 0;
    return code ? gf_fail(err, code, "starting a thread: %s", strerror(code)) : 0;
}

/* Makes the control memory of the table. Under the lock. */
static int make_control(struct gatherfs_pub *pub, struct gf_err *err)
{
    struct gf_pub_memory *memory = &pub->control_memory;
    struct gf_live_status *status;
    uint64_t now = gf_pub_clock();
    void *map;

    pub->table.pid = getpid();
    pub->table.start_ns = pub->table.start_ns ? pub->table.start_ns : now;
    pub->table.incarnation = GF_MAX(pub->table.incarnation + 1, now);
    if (gf_live_table_place(&pub->table, err) ||
        gf_live_table_size(&pub->table, &pub->control_bytes, err) ||
        gf_live_memory_new("gatherfs-control", pub->control_bytes, &memory->fd, &map, err))
        return -err->code;
    memory->map = map;
    memory->size = pub->control_bytes;
    pub->control = map;
    gf_live_table_write(&pub->table, pub->control_bytes, map);
    status = &pub->control->status;
    *status = pub->stats;
    status->step = gf_pub_step(pub->state);
    status->phase = gf_pub_phase(pub->state);
    status->commits = pub->commits;
    status->step_ns = pub->step_ns;
    status->memory_limit = pub->memory_limit;
    memcpy(pub->control->metrics, pub->metrics, sizeof(pub->metrics));
    return 0;
}

int gatherfs_pub_start(struct gatherfs_pub *pub)
{
    struct gf_err *err = gf_pub_err();
    int r;

    if (pub->dead)
        return 0;
    if (pub->started)
        return gf_fail(err, EALREADY, "job '%s' was started before", pub->table.job);
    pthread_mutex_lock(&pub->lock);
    r = make_control(pub, err);
    if (r == 0) {
        uint64_t state = pub->state;

        /* The addresses of a new table are those of now. */
        __atomic_store_n(&pub->state,
                         gf_pub_state(gf_pub_step(state), true, gf_pub_phase(state)),
                         __ATOMIC_SEQ_CST);
        pub->started = true;
        pub->table_new = pub->running;
    }
    pthread_mutex_unlock(&pub->lock);
    if (r || (r = run_thread(pub, err)))
        return r;
    gf_pub_notify(pub);
    return 0;
}

int gatherfs_pub_final(struct gatherfs_pub *pub, uint32_t timeout_ms)
{
    uint64_t until = gf_pub_now() + (uint64_t)timeout_ms * 1000000;
    struct timespec deadline = { .tv_sec = (time_t)(until / 1000000000),
                                 .tv_nsec = (long)(until % 1000000000) };
    int r = 0;

    if (!pub || pub->dead || !pub->started)
        return 0;
    pthread_mutex_lock(&pub->lock);
    __atomic_store_n(&pub->state,
                     gf_pub_state(gf_pub_step(pub->state),
                                  gf_pub_verified(pub->state) || pub->checked,
                                  GF_LIVE_FINISHED),
                     __ATOMIC_SEQ_CST);
    __atomic_store_n(&pub->control->status.phase, GF_LIVE_FINISHED, __ATOMIC_RELAXED);
    pub->checked = false;
    pub->final = true;
    pub->final_told = pub->final_seen = pub->bye = false;
    gf_pub_notify(pub);
    while (r == 0 && (!pub->final_seen || (pub->agent >= 0 && !pub->bye)))
        r = pthread_cond_timedwait(&pub->changed, &pub->lock, &deadline);
    if (pub->final_seen && (pub->agent < 0 || pub->bye))
        r = 0;
    pthread_mutex_unlock(&pub->lock);
    return r ? gf_fail(gf_pub_err(), r, "no reader took the last state in %u ms",
                       timeout_ms)
             : 0;
}

/* ---------------------------------------------------------------- numbers */

int gatherfs_pub_metric(struct gatherfs_pub *pub, const char *name, double value)
{
    struct gf_err *err = gf_pub_err();
    struct gf_live_metric *metric = NULL;
    size_t len = strlen(name);
    uint64_t bits, seq;

    if (pub->dead)
        return 0;
    if (len == 0 || len > GF_LIVE_METRIC_NAME)
        return gf_fail(err, EINVAL, "metric '%s': wanted 1 to %d bytes", name,
                       GF_LIVE_METRIC_NAME);
    if (!pub->control)
        return gf_fail(err, EINVAL, "metric '%s' before start", name);
    for (uint32_t i = 0; i < GF_LIVE_METRICS && !metric; i++)
        if (!pub->control->metrics[i].name[0] ||
            strcmp(pub->control->metrics[i].name, name) == 0)
            metric = &pub->control->metrics[i];
    if (!metric)
        return gf_fail(err, ENOSPC, "metric '%s' is more than the %d there is room for",
                       name, GF_LIVE_METRICS);
    memcpy(&bits, &value, sizeof(bits));
    seq = metric->seq;
    __atomic_store_n(&metric->seq, seq + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(metric->name, name, len);
    __atomic_store_n(&metric->value, bits, __ATOMIC_RELAXED);
    __atomic_store_n(&metric->step, gf_pub_step(pub->state), __ATOMIC_RELAXED);
    __atomic_store_n(&metric->seq, seq + 2, __ATOMIC_RELEASE);
    return 0;
}

int gatherfs_pub_stats(struct gatherfs_pub *pub, struct gatherfs_pub_stats *ret)
{
    struct gf_err *err = gf_pub_err();
    struct gatherfs_pub_stats stats = { 0 };

    if (!ret || ret->struct_size < sizeof(ret->struct_size))
        return gf_fail(err, EINVAL, "struct_size of the statistics is missing");
    if (pub->dead)
        return 0;
    pthread_mutex_lock(&pub->lock);
    stats = (struct gatherfs_pub_stats){
        .struct_size = ret->struct_size,
        .step = gf_pub_step(pub->state),
        .commits = pub->commits,
        .snapshots = pub->stats.snapshots,
        .missed = pub->stats.missed,
        .busy = pub->stats.busy,
        .bytes = pub->stats.bytes,
        .stall_ns = pub->stats.stall_ns,
        .stall_max_ns = pub->stats.stall_max_ns,
        .copy_ns = pub->stats.copy_ns,
        .memory = pub->stats.memory,
        .agent = pub->agent >= 0,
        .tensors = pub->table.n,
    };
    pthread_mutex_unlock(&pub->lock);
    memcpy(ret, &stats, GF_MIN(sizeof(stats), stats.struct_size));
    return 0;
}
