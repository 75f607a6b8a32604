/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torture.c - processes that train as fast as they can, and a reader that takes snapshot
 * after snapshot: every element of every tensor of every rank must be the number of one step.
 *
 *     torture torn RANKS MODE SNAPSHOTS FLOATS   MODE: background; sync or auto, with a buffer
 *     torture control                            begin() does not wait: must be seen to tear
 *     torture stall                              begin() is bounded though the copy is not done
 *     torture kill-trainer ROUNDS                at random moments; the last snapshot survives
 *     torture kill-reader ROUNDS MODE            training goes on, the next reader is served
 *     torture forks                              a trainer that starts data loaders all the time
 *     torture stopped                            SIGSTOPped readers and trainers stop nobody
 *     torture cost                               begin() + commit() without a reader, printed
 *
 * Compiled with GATHERFS_TEST_HOOKS. Everything is over within a time limit, children die
 * with their parent.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "base/math.h"
#include "live/publish_int.h"
#include "publisher.h"

#define MAX_RANKS 4
#define DIE(...)                                                                           \
    do {                                                                                   \
        fprintf(stderr, "torture: " __VA_ARGS__);                                          \
        fputc('\n', stderr);                                                               \
        clean_up();                                                                        \
        exit(1);                                                                           \
    } while (0)

static struct job job;
static pid_t trainers[MAX_RANKS];
static uint32_t nranks = 1;
static pid_t owner;
static pthread_barrier_t *reduction; /* ranks meet once a step, as gradients make them */
static bool with_buffer, with_forks;

static void clean_up(void)
{
    char command[128];

    if (getpid() != owner)
        return;
    for (uint32_t i = 0; i < MAX_RANKS; i++)
        if (trainers[i] > 0) {
            kill(trainers[i], SIGKILL);
            waitpid(trainers[i], NULL, 0);
            trainers[i] = 0;
        }
    snprintf(command, sizeof(command), "rm -rf %s", job.base);
    if (job.base[0] && system(command))
        fprintf(stderr, "torture: cannot remove %s\n", job.base);
}

static char remove_all[128]; /* a command */

static void on_alarm(int sig)
{
    static const char text[] = "torture: time is over\n";

    (void)sig;
    if (getpid() != owner || write(2, text, sizeof(text) - 1) < 0)
        _exit(1);
    for (uint32_t i = 0; i < MAX_RANKS; i++)
        if (trainers[i] > 0)
            kill(trainers[i], SIGKILL);
    execl("/bin/sh", "sh", "-c", remove_all, (char *)NULL);
    _exit(1);
}

static void prepare(void)
{
    owner = getpid();
    signal(SIGALRM, on_alarm);
    alarm(150);
    snprintf(job.base, sizeof(job.base), "/tmp/gatherfs-torture-XXXXXX");
    if (!mkdtemp(job.base))
        DIE("cannot make %s", job.base);
    snprintf(remove_all, sizeof(remove_all), "rm -rf %s; exit 1", job.base);
    snprintf(job.dir, sizeof(job.dir), "%s/run", job.base);
    job.options = (struct gatherfs_pub_options){ .struct_size = sizeof(job.options),
                                                 .job = "run",
                                                 .rundir = job.base,
                                                 .world = nranks };
    reduction = mmap(NULL, sizeof(*reduction), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (nranks > 1) {
        pthread_barrierattr_t shared;

        pthread_barrierattr_init(&shared);
        pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
        pthread_barrier_init(reduction, &shared, nranks);
    }
}

/* One rank: never ends. `usec` of forward and backward in each step. */
static void train(uint32_t rank, unsigned usec)
{
    uint64_t step = 0;
    float *tensors[3];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    job.options.rank = rank;
    if (gatherfs_pub_open(&job.options, &job.pub))
        DIE("%s", gatherfs_error());
    for (size_t i = 0; i < 3; i++) {
        char name[8];

        tensors[i] = calloc(job.big_len, sizeof(float));
        snprintf(name, sizeof(name), "t%zu", i);
        if (!tensors[i] || job_add(&job, name, tensors[i], job.big_len,
                                   i == 2 && with_buffer ? GATHERFS_BUFFER : 0) < 0)
            DIE("%s", gatherfs_error());
    }
    if (gatherfs_pub_start(job.pub))
        DIE("%s", gatherfs_error());
    for (;;) {
        gatherfs_pub_begin(job.pub);
        step++;
        for (size_t i = 0; i < 3; i++)
            job_set(tensors[i], job.big_len, (float)(step % (1 << 20)));
        gatherfs_pub_commit(job.pub, step);
        if (with_buffer)
            job_set(tensors[2], job.big_len, -1); /* forward writes buffers */
        if (usec)
            usleep(usec);
        if (with_forks && step % 4 == 0) {
            pid_t loader = fork();

            if (loader == 0) {
                gatherfs_pub_begin(job.pub);
                gatherfs_pub_commit(job.pub, step + 1000000);
                _exit(0);
            }
            waitpid(loader, NULL, 0);
        }
        if (nranks > 1)
            pthread_barrier_wait(reduction);
    }
}

static void start_rank(uint32_t rank, unsigned usec)
{
    pid_t pid = fork();

    if (pid < 0)
        DIE("cannot fork");
    if (pid == 0) {
        train(rank, usec);
        _exit(0);
    }
    trainers[rank] = pid;
}

static void stop_rank(uint32_t rank, int sig)
{
    kill(trainers[rank], sig);
    waitpid(trainers[rank], NULL, 0);
    trainers[rank] = 0;
}

/* Tensors of a leased slot that are not of one step. */
static uint32_t torn(const struct reader *r, uint32_t slot, uint64_t step)
{
    uint32_t bad = 0;

    for (uint32_t i = 0; i < r->table->n; i++)
        bad += !job_holds(r, slot, i, (float)(step % (1 << 20)));
    return bad;
}

static void connect_all(struct reader *readers)
{
    for (uint32_t i = 0; i < nranks; i++)
        if (reader_open(&readers[i], job.dir, i, 20000) || reader_ready(&readers[i], 2))
            DIE("rank %u: no reader: %s", i, readers[i].err.text);
}

/* Step agreement without collectives, as in segment.h: arm max + k at all ranks, k = 0, 1, 2,
 * 4 ... until all are READY; *tries counts. false: not after many. */
static bool snapshot_all(struct reader *readers, uint64_t *ret_step, uint32_t *tries)
{
    uint64_t ahead = 0;

    for (*tries = 1; *tries < 200; ++*tries) {
        uint64_t step = 0;
        uint32_t ready = 0;

        for (uint32_t i = 0; i < nranks; i++)
            step = GF_MAX(step, reader_step(&readers[i]));
        step += ahead;
        for (uint32_t i = 0; i < nranks; i++)
            if (reader_arm(&readers[i], 0, step))
                DIE("rank %u is gone", i);
        for (uint32_t i = 0; i < nranks; i++) {
            int type = reader_wait(&readers[i], 20000);

            if (type <= 0)
                DIE("rank %u: no answer for step %llu (%d)", i, (unsigned long long)step,
                    type);
            ready += type == GF_LIVE_READY;
        }
        if (ready == nranks) {
            *ret_step = step;
            return true;
        }
        for (uint32_t i = 0; i < nranks; i++)
            if (readers[i].msg.type == GF_LIVE_READY)
                reader_release(&readers[i], readers[i].msg.slot, readers[i].msg.seq);
        ahead = ahead ? GF_MIN(2 * ahead, 64) : 1;
    }
    return false;
}

/* ---------------------------------------------------------------- torn reads */

struct result {
    uint64_t snapshots, torn, tries[4];
};

static void take_many(uint64_t want, struct result *ret)
{
    struct reader readers[MAX_RANKS];

    *ret = (struct result){ 0 };
    connect_all(readers);
    while (ret->snapshots < want) {
        uint32_t tries;
        uint64_t step;

        if (!snapshot_all(readers, &step, &tries))
            DIE("no agreement after %u tries", tries);
        ret->tries[GF_MIN(tries - 1, 3)]++;
        ret->snapshots++;
        for (uint32_t i = 0; i < nranks; i++) {
            ret->torn += torn(&readers[i], readers[i].msg.slot, step);
            reader_release(&readers[i], readers[i].msg.slot, readers[i].msg.seq);
        }
    }
    for (uint32_t i = 0; i < nranks; i++)
        reader_close(&readers[i]);
}

static void run_torn(uint32_t ranks, uint32_t mode, uint64_t snapshots, uint64_t floats)
{
    struct result result;

    nranks = ranks;
    prepare();
    job.big_len = floats;
    job.options.background = mode;
    with_buffer = mode != GATHERFS_BACKGROUND;
    for (uint32_t i = 0; i < ranks; i++)
        start_rank(i, 0);
    take_many(snapshots, &result);
    printf(
        "# %u ranks, %llu floats, mode %u: %llu snapshots, %llu torn; agreed at try 1, 2, "
        "3, later: %llu %llu %llu %llu\n",
        ranks, (unsigned long long)floats, mode, (unsigned long long)result.snapshots,
        (unsigned long long)result.torn, (unsigned long long)result.tries[0],
        (unsigned long long)result.tries[1], (unsigned long long)result.tries[2],
        (unsigned long long)result.tries[3]);
    if (result.torn)
        DIE("torn");
}

static void run_control(void)
{
    struct result result;

    prepare();
    job.big_len = 1 << 20; /* a tensor is a chunk: the copier sleeps behind each */
    job.options.background = GATHERFS_BACKGROUND;
    gf_test_no_wait = true;
    gf_test_copy_usec = 500;
    start_rank(0, 0);
    take_many(100, &result);
    printf("# begin() without waiting: %llu of %llu tensors torn\n",
           (unsigned long long)result.torn, (unsigned long long)result.snapshots * 3);
    if (result.torn < result.snapshots / 2)
        DIE("too few were torn: this test might not notice");
}

/* ---------------------------------------------------------------- stalls */

static void run_stall(void)
{
    struct reader r;
    struct gf_live_status status;

    prepare();
    job.big_len = 4 << 20; /* 3 x 16 MiB: 12 chunks of 50 ms */
    job.options.background = GATHERFS_BACKGROUND;
    job.options.max_stall = 0.1;
    gf_test_copy_usec = 50000;
    start_rank(0, 1000);
    if (reader_open(&r, job.dir, 0, 20000) || reader_ready(&r, 1))
        DIE("no reader: %s", r.err.text);
    for (int i = 0; i < 5; i++) {
        int type;

        do {
            reader_arm(&r, 0, reader_step(&r) + 1);
            type = reader_wait(&r, 20000);
        } while (type == GF_LIVE_MISSED);
        if (type != GF_LIVE_BUSY || r.msg.why != GF_LIVE_WHY_STALLED)
            DIE("message %d (%s), expected BUSY", type, gf_live_why_text(r.msg.why));
    }
    gf_live_status_load(r.control, &status);
    printf("# max_stall 100 ms: longest wait %.1f ms\n", (double)status.stall_max_ns / 1e6);
    if (status.stall_max_ns < 100000000 || status.stall_max_ns > 400000000)
        DIE("waited %llu ns", (unsigned long long)status.stall_max_ns);
    reader_close(&r);
}

/* ---------------------------------------------------------------- death */

static void run_kill_trainer(int rounds)
{
    unsigned survived = 0;

    prepare();
    job.big_len = 1 << 19;
    job.options.background = GATHERFS_BACKGROUND;
    gf_test_copy_usec = 300; /* so that it is often hit while it copies */
    for (int i = 0; i < rounds; i++) {
        struct reader r;
        uint64_t step;
        uint32_t slot;
        int e;

        start_rank(0, 200);
        if (i % 4 == 0) { /* while the slots are being faulted in */
            if (reader_open(&r, job.dir, 0, 20000) || reader_select(&r, 0, 2, NULL))
                DIE("round %d: no reader: %s", i, r.err.text);
            usleep((useconds_t)(i * 61 % 3000));
            stop_rank(0, SIGKILL);
            do
                e = reader_wait(&r, 5000);
            while (e > 0);
            if (e != -EPIPE)
                DIE("round %d: the end of the trainer was not noticed (%d)", i, e);
            reader_close(&r);
            continue;
        }
        if (reader_open(&r, job.dir, 0, 20000) || reader_ready(&r, 2) ||
            reader_snapshot(&r, 1, 20000))
            DIE("round %d: no snapshot: %s", i, r.err.text);
        slot = r.msg.slot;
        step = r.msg.step;
        reader_arm(&r, 0, reader_step(&r) + 1);
        usleep((useconds_t)(i * 137 % 6000));
        stop_rank(0, SIGKILL);
        do
            e = reader_wait(&r, 5000);
        while (e > 0);
        if (e != -EPIPE)
            DIE("round %d: the end of the trainer was not noticed (%d)", i, e);
        if (torn(&r, slot, step))
            DIE("round %d: the last snapshot did not survive", i);
        survived++;
        reader_close(&r);
    }
    printf("# trainer killed %d times; %u last snapshots survived\n", rounds, survived);
}

static void run_kill_reader(int rounds, uint32_t mode)
{
    struct result result;
    struct gf_live_status status;
    struct reader r;
    uint64_t step;

    prepare();
    job.big_len = 1 << 19;
    job.options.background = mode;
    gf_test_copy_usec = 300;
    start_rank(0, 200);
    for (int i = 0; i < rounds; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                take_many(1000000, &result);
        }
        usleep((useconds_t)(i * 2311 % 40000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    take_many(300, &result);
    if (result.torn)
        DIE("%llu torn after the readers' deaths", (unsigned long long)result.torn);
    if (reader_open(&r, job.dir, 0, 20000))
        DIE("no reader");
    step = reader_step(&r);
    usleep(100000);
    if (reader_step(&r) == step)
        DIE("training stands still");
    gf_live_status_load(r.control, &status);
    if (status.memory)
        DIE("%llu bytes were left", (unsigned long long)status.memory);
    reader_close(&r);
    printf("# mode %u: %d readers killed, then %llu good snapshots\n", mode, rounds,
           (unsigned long long)result.snapshots);
}

static void run_forks(void)
{
    struct result result;

    prepare();
    job.big_len = 1 << 16;
    with_forks = true;
    start_rank(0, 0);
    take_many(1000, &result);
    printf("# forks all the time: %llu snapshots, %llu torn\n",
           (unsigned long long)result.snapshots, (unsigned long long)result.torn);
    if (result.torn)
        DIE("torn");
}

static void run_stopped(void)
{
    struct reader r, second;
    struct gf_live_status status;
    uint64_t step;
    pid_t pid;

    prepare();
    job.big_len = 1 << 16;
    start_rank(0, 200);
    /* A reader that is stopped with a request and both slots: training goes on, others are
     * told so, and when it is gone they are served. */
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (reader_open(&r, job.dir, 0, 20000) || reader_ready(&r, 2) ||
            reader_snapshot(&r, 1, 20000) || reader_snapshot(&r, 1, 20000))
            _exit(1);
        reader_arm(&r, 0, reader_step(&r) + 1);
        raise(SIGSTOP);
        _exit(0);
    }
    if (waitpid(pid, &(int){ 0 }, WUNTRACED) != pid)
        DIE("no stopped reader");
    if (reader_open(&second, job.dir, 0, 100) != -EBUSY)
        DIE("a second reader was let in");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    if (reader_open(&r, job.dir, 0, 20000) || reader_ready(&r, 1))
        DIE("no reader after the stopped one: %s", r.err.text);
    gf_live_status_load(r.control, &status);
    step = status.step;

    /* A trainer that is stopped: no answer, no wait here; then it goes on. */
    kill(trainers[0], SIGSTOP);
    waitpid(trainers[0], NULL, WUNTRACED);
    while (reader_wait(&r, 0) > 0)
        continue;
    reader_arm(&r, 0, reader_step(&r) + 5);
    if (reader_wait(&r, 300) != 0)
        DIE("a stopped trainer answered %u", r.msg.type);
    reader_cancel(&r);
    kill(trainers[0], SIGCONT);
    if (reader_wait(&r, 20000) <= 0)
        DIE("no answer after SIGCONT");
    if (r.msg.type == GF_LIVE_READY)
        reader_release(&r, r.msg.slot, r.msg.seq);
    if (reader_snapshot(&r, 1, 20000) || torn(&r, r.msg.slot, r.msg.step))
        DIE("no good snapshot after SIGCONT");
    printf("# stopped peers: step %llu then %llu\n", (unsigned long long)step,
           (unsigned long long)reader_step(&r));
    reader_close(&r);
}

/* ---------------------------------------------------------------- cost */

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void run_cost(void)
{
    enum { N = 200000 };
    uint64_t *took = calloc(N, sizeof(*took)), sum = 0;
    struct reader r;

    prepare();
    if (!took || gatherfs_pub_open(&job.options, &job.pub) || job_fill(&job))
        DIE("%s", gatherfs_error());
    for (int attached = 0; attached < 2; attached++) {
        if (attached && (reader_open(&r, job.dir, 0, 20000) || reader_ready(&r, 1)))
            DIE("no reader");
        sum = 0;
        for (uint64_t i = 0; i < N; i++) {
            uint64_t start = gf_pub_now();

            gatherfs_pub_begin(job.pub);
            gatherfs_pub_commit(job.pub, i + 1);
            took[i] = gf_pub_now() - start;
            sum += took[i];
        }
        qsort(took, N, sizeof(*took), by_size);
        printf("# begin + commit, %s: mean %.3f us, median %.3f, p99 %.3f, p99.9 %.3f, max "
               "%.1f\n",
               attached ? "reader connected, nothing armed" : "no reader",
               (double)sum / N / 1e3, (double)took[N / 2] / 1e3,
               (double)took[N / 100 * 99] / 1e3, (double)took[N / 1000 * 999] / 1e3,
               (double)took[N - 1] / 1e3);
        if (took[N / 2] > 5000)
            DIE("begin + commit took %llu ns", (unsigned long long)took[N / 2]);
    }
    reader_close(&r);
    gatherfs_pub_close(job.pub);
    free(took);
}

static uint32_t mode_of(const char *name)
{
    return name[0] == 'b'   ? GATHERFS_BACKGROUND
           : name[0] == 's' ? GATHERFS_SYNCHRONOUS
                            : GATHERFS_AUTO;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(what, "torn") == 0 && argc == 6) {
        uint32_t ranks = (uint32_t)strtoul(argv[2], NULL, 10);

        run_torn(GF_MIN(GF_MAX(ranks, 1), MAX_RANKS), mode_of(argv[3]),
                 strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
    } else if (strcmp(what, "control") == 0)
        run_control();
    else if (strcmp(what, "stall") == 0)
        run_stall();
    else if (strcmp(what, "kill-trainer") == 0 && argc == 3)
        run_kill_trainer((int)strtol(argv[2], NULL, 10));
    else if (strcmp(what, "kill-reader") == 0 && argc == 4)
        run_kill_reader((int)strtol(argv[2], NULL, 10), mode_of(argv[3]));
    else if (strcmp(what, "forks") == 0)
        run_forks();
    else if (strcmp(what, "stopped") == 0)
        run_stopped();
    else if (strcmp(what, "cost") == 0)
        run_cost();
    else {
        fprintf(stderr, "torture: see the head of torture.c\n");
        return 2;
    }
    clean_up();
    return 0;
}
