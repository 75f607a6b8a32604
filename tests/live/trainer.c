/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trainer.c - a training job that can be checked: after step S every element is S.
 *
 *     trainer JOB RANK WORLD [key=value ...]
 *
 *     layout=rows|columns|flat|replica   how tensors are cut over the ranks (rows)
 *     rows=N columns=N layers=N          sizes of the matrices (64, 32, 3)
 *     step_ms=N                          pause between updates (2)
 *     steps=N                            then final() and the end; 0: until killed (0)
 *     first=N                            the step before the first update (0)
 *     frozen=1  tied=1  buffer=1         add a static tensor, a tied one, a buffer
 *     config=TEXT                        config.json
 *     run=TEXT                           run id: another one is another start of the job
 *     slots=N                            snapshots held at a time (2)
 *     metric=1                           publish `loss` (1000 - step)
 *     final_ms=N                         how long the end waits for readers (3000)
 *
 * Prints "ready" when it can be found. A "stop" (or the end) on stdin ends it like steps=.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "live/gatherfs.h"

struct tensor {
    uint64_t n;
    float *data;
};

static int nargs;
static char **args;

static const char *text(const char *key, const char *otherwise)
{
    size_t len = strlen(key);

    for (int i = 4; i < nargs; i++)
        if (!strncmp(args[i], key, len) && args[i][len] == '=')
            return args[i] + len + 1;
    return otherwise;
}

static uint64_t number(const char *key, uint64_t otherwise)
{
    const char *s = text(key, NULL);

    return s ? strtoull(s, NULL, 10) : otherwise;
}

static void must(int r, const char *what)
{
    if (r >= 0)
        return;
    fprintf(stderr, "trainer: %s: %s\n", what, gatherfs_error());
    exit(1);
}

static void fill(struct tensor *t, uint64_t value)
{
    for (uint64_t i = 0; i < t->n; i++)
        t->data[i] = (float)value;
}

static struct tensor allocate(uint64_t n, uint64_t value)
{
    struct tensor t = { n, malloc((n ? n : 1) * sizeof(float)) };

    if (!t.data)
        exit(1);
    fill(&t, value);
    return t;
}

/* This rank's part of a matrix. */
static struct tensor add(struct gatherfs_pub *pub, const char *name, uint32_t flags,
                         uint32_t rank, uint32_t world, uint64_t value)
{
    uint64_t shape[2] = { number("rows", 64), number("columns", 32) };
    uint64_t local[2] = { shape[0], shape[1] }, first[2] = { 0, 0 };
    const char *layout = text("layout", "rows");
    struct gatherfs_tensor_desc desc = { .struct_size = sizeof(desc),
                                         .name = name,
                                         .dtype = "float32",
                                         .shape = shape,
                                         .ndim = 2,
                                         .flags = flags };
    uint64_t numel = shape[0] * shape[1], n = numel;
    struct tensor t;

    if (!strcmp(layout, "replica")) {
        desc.replica = rank;
        desc.replicas = world;
    } else if (!strcmp(layout, "flat")) {
        uint64_t each = (numel + world - 1) / world, from = each * rank;

        from = from < numel ? from : numel;
        n = numel - from < each ? numel - from : each;
        desc.flags |= GATHERFS_FLAT;
        desc.flat_off = from;
        desc.flat_count = n;
    } else {
        int d = !strcmp(layout, "columns");
        uint64_t each = (shape[d] + world - 1) / world;

        first[d] = each * rank < shape[d] ? each * rank : shape[d];
        local[d] = shape[d] - first[d] < each ? shape[d] - first[d] : each;
        n = local[0] * local[1];
        desc.local = local;
        desc.first = first;
    }
    t = allocate(n, value);
    desc.data = t.data;
    must(gatherfs_pub_add(pub, &desc), name);
    return t;
}

static int told_to_stop(uint64_t ms)
{
    struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
    char line[16];

    return poll(&in, 1, (int)ms) > 0 && read(STDIN_FILENO, line, sizeof(line)) >= 0;
}

int main(int argc, char **argv)
{
    struct gatherfs_pub_options options = { .struct_size = sizeof(options) };
    uint64_t layers, step, end, step_ms;
    struct gatherfs_pub *pub;
    struct tensor *tensors;
    uint32_t rank, world;
    char name[64];

    if (argc < 4)
        return 2;
    nargs = argc;
    args = argv;
    rank = (uint32_t)strtoul(argv[2], NULL, 10);
    world = (uint32_t)strtoul(argv[3], NULL, 10);
    layers = number("layers", 3);
    step = number("first", 0);
    end = number("steps", 0);
    step_ms = number("step_ms", 2);
    options.job = argv[1];
    options.rank = rank;
    options.world = world;
    options.run_id = text("run", "one");
    options.step = step;
    options.slots = (uint32_t)number("slots", 2);
    options.framework = "test";
    must(gatherfs_pub_open(&options, &pub), "open");
    tensors = calloc(layers + 3, sizeof(*tensors));
    if (!tensors)
        return 1;
    for (uint64_t i = 0; i < layers; i++) {
        snprintf(name, sizeof(name), "model.layers.%llu.weight", (unsigned long long)i);
        tensors[i] = add(pub, name, 0, rank, world, step);
    }
    if (number("tied", 0))
        must(gatherfs_pub_alias(pub, "lm_head.weight", 0), "alias");
    if (number("buffer", 0))
        tensors[layers] =
            add(pub, "model.running.mean", GATHERFS_BUFFER, rank, world, step);
    if (number("frozen", 0))
        add(pub, "model.frozen.weight", GATHERFS_STATIC | GATHERFS_FROZEN, rank, world, 7);
    if (text("config", NULL))
        must(gatherfs_pub_file(pub, "config.json", text("config", ""),
                               strlen(text("config", ""))),
             "file");
    must(gatherfs_pub_start(pub), "start");
    puts("ready");
    fflush(stdout);
    while (!told_to_stop(step_ms) && (!end || step < end)) {
        must(gatherfs_pub_begin(pub), "begin");
        step++;
        for (uint64_t i = 0; i <= layers; i++)
            fill(&tensors[i], step);
        must(gatherfs_pub_commit(pub, step), "commit");
        if (number("metric", 0))
            gatherfs_pub_metric(pub, "loss", 1000.0 - (double)step);
    }
    gatherfs_pub_final(pub, (uint32_t)number("final_ms", 3000));
    gatherfs_pub_close(pub);
    return 0;
}
