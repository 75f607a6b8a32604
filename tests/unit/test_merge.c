/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge: weights of several tiles, where any read must equal the slice of the whole, with any
 * kernel and with a cache that is too small; failures, and origins.
 */
#include "t.h"

#include <errno.h>
#include <math.h>

#include "base/math.h"
#include "t_merge.h"

static uint8_t *whole(struct world *w)
{
    uint8_t *bytes = malloc(w->output.nbytes);

    read_at(w, 0, w->output.nbytes, bytes);
    return bytes;
}

/* Any read, with any kernel, and with an adapter that does not fit the cache. */
static void consistent(struct world *w)
{
    uint64_t size = w->output.nbytes;
    uint8_t *all = whole(w), *got = malloc(size);
    struct gf_resident *small = NULL;

    for (int i = 0; i < 200; i++) {
        uint64_t off = dice(size), len = 1 + dice(i % 4 ? 30 : size - off);

        len = GF_MIN(len, size - off);
        memset(got, 0xee, len);
        read_at(w, off, len, got);
        if (memcmp(got, all + off, len) != 0)
            fail_msg("read of %u bytes at %u differs", (unsigned)len, (unsigned)off);
    }
    setenv("GATHERFS_CPU", "c", 1);
    gf_lowrank_init();
    read_at(w, 0, size, got);
    unsetenv("GATHERFS_CPU");
    gf_lowrank_init();
    assert_memory_equal(got, all, size);
    GF_OK(gf_resident_new(0, &small, &t_err));
    w->gather.resident = small;
    read_at(w, 0, size, got);
    w->gather.resident = w->resident;
    assert_memory_equal(got, all, size);
    assert_int_equal(gf_resident_bytes(small), 0);
    gf_resident_free(small);
    free(all);
    free(got);
}

static void lowrank_reads_are_slices(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add_random(w, GF_BF16, SHAPE(37, 1100));
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(37, 1100));

    m->a = add_random(w, GF_F32, SHAPE(5, 1100));
    m->b = add_random(w, GF_F32, SHAPE(37, 5));
    m->rank = 5;
    m->dtype = GF_BF16;
    serve(w, leaf, 0, 0, 37 * 1100, GF_BF16);
    consistent(w);
}

static void lowrank_of_many_rows_equals_the_formula(void **state)
{
    enum { ROWS = 21, COLS = 530, RANK = 3 };
    struct world *w = *state;
    uint32_t leaf = add_random(w, GF_F32, SHAPE(ROWS, COLS));
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(ROWS, COLS));
    float weight[ROWS * COLS], a[RANK * COLS], b[ROWS * RANK], *got;
    struct gf_tensor const *t;

    m->a = add_random(w, GF_F32, SHAPE(RANK, COLS));
    m->b = add_random(w, GF_F32, SHAPE(ROWS, RANK));
    m->rank = RANK;
    m->scale = 0.3f;
    serve(w, leaf, 0, 0, ROWS * COLS, GF_F32);
    t = gf_catalog_at(w->catalog, leaf);
    assert_int_equal(gf_gather_elements(&w->bound, t, 0, t->numel, weight, NULL), 0);
    t = gf_catalog_at(w->catalog, m->a);
    assert_int_equal(gf_gather_elements(&w->bound, t, 0, t->numel, a, NULL), 0);
    t = gf_catalog_at(w->catalog, m->b);
    assert_int_equal(gf_gather_elements(&w->bound, t, 0, t->numel, b, NULL), 0);
    got = (float *)(void *)whole(w);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j++) {
            float sum = 0;

            for (int k = 0; k < RANK; k++)
                sum = fmaf(b[i * RANK + k], a[k * COLS + j], sum);
            sum *= 0.3f;
            assert_true(weight[i * COLS + j] + sum == got[i * COLS + j]);
        }
    free(got);
}

static void transposed_reads_are_slices(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add_random(w, GF_F32, SHAPE(600, 30));
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(600, 30));

    m->a = add_random(w, GF_F32, SHAPE(4, 600));
    m->b = add_random(w, GF_F32, SHAPE(30, 4));
    m->rank = 4;
    m->transposed = m->round_delta = true;
    m->dtype = GF_F16;
    serve(w, leaf, 0, 0, 600 * 30, GF_F32);
    consistent(w);
}

static void dora_reads_are_slices(void **state)
{
    (void)state;
    for (int transposed = 0; transposed < 2; transposed++) {
        void *s = NULL;
        struct world *w;
        struct gf_merge *m;
        uint32_t leaf;

        setup(&s);
        w = s;
        leaf = add_random(w, GF_BF16, SHAPE(300, 530));
        m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(300, 530));
        m->a = add_random(w, GF_F32, transposed ? SHAPE(4, 300) : SHAPE(4, 530));
        m->b = add_random(w, GF_F32, transposed ? SHAPE(530, 4) : SHAPE(300, 4));
        m->magnitude = add_random(w, GF_F32, transposed ? SHAPE(530) : SHAPE(300));
        m->rank = 4;
        m->transposed = transposed;
        m->dtype = GF_BF16;
        serve(w, leaf, 0, 0, 300 * 530, GF_BF16);
        consistent(w);
        teardown(&s);
    }
}

static const struct gf_source_ops *plain_ops;
static int nreads;

static int counted_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    nreads++;
    return plain_ops->read_at(src, buf, len, off);
}

/* The norms of columns need all of W: they are taken once, not once for each run of it. */
static void norms_of_columns_are_taken_once_a_read_without_a_cache(void **state)
{
    struct gf_source_ops counted = { .kind = "counted", .read_at = counted_read };
    struct world *w = *state;
    uint32_t leaf = add_random(w, GF_F32, SHAPE(512, 2048));
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(512, 2048));
    uint8_t *got = malloc(512 * 2048 * 4);
    struct gf_resident *small = NULL, *usual = w->resident;

    m->a = add_random(w, GF_F32, SHAPE(1, 512));
    m->b = add_random(w, GF_F32, SHAPE(2048, 1));
    m->magnitude = add_random(w, GF_F32, SHAPE(2048));
    m->rank = 1;
    m->transposed = true;
    serve(w, leaf, 0, 0, 512 * 2048, GF_F32);
    plain_ops = w->sources[0]->ops;
    w->sources[0]->ops = &counted;
    GF_OK(gf_resident_new(0, &small, &t_err));
    w->gather.resident = small;
    read_at(w, 0, 512 * 2048 * 4, got);
    w->sources[0]->ops = plain_ops;
    w->gather.resident = usual;
    assert_int_equal(gf_resident_bytes(small), 0);
    assert_in_range(nreads, 256 / 8, 256 / 8 + 4); /* 8 rows at once, then two runs or so */
    gf_resident_free(small);
    free(got);
}

static void expert_reads_are_slices(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add_random(w, GF_BF16, SHAPE(5, 11, 600));
    struct gf_merge *m = merge(w, 0, GF_MERGE_EXPERTS, SHAPE(5, 11, 600));

    m->a = add_random(w, GF_F32, SHAPE(10, 600));
    m->b = add_random(w, GF_F32, SHAPE(11, 10));
    m->rank = 2;
    m->experts = 5;
    m->swapped = m->round_delta = true;
    m->dtype = GF_BF16;
    serve(w, leaf, 100, 100, 5 * 11 * 600 - 100, GF_BF16);
    consistent(w);
}

static void hadamard_reads_are_slices(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add_random(w, GF_F32, SHAPE(19, 700));
    struct gf_merge *m = merge(w, 0, GF_MERGE_HADAMARD, SHAPE(19, 700));

    m->a = add_random(w, GF_F32, SHAPE(19, 3));
    m->b = add_random(w, GF_F32, SHAPE(3, 700));
    m->c = add_random(w, GF_F32, SHAPE(19, 3));
    m->d = add_random(w, GF_F32, SHAPE(3, 700));
    m->rank = 3;
    serve(w, leaf, 0, 0, 19 * 700, GF_F32);
    consistent(w);
}

static void kronecker_reads_are_slices(void **state)
{
    static const uint64_t widths[] = { 1, 100, 550 };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(widths); i++) {
        uint64_t width = widths[i], n = 1100 / width;
        void *s = NULL;
        struct world *w;
        struct gf_merge *m;
        uint32_t leaf;

        setup(&s);
        w = s;
        leaf = add_random(w, GF_F32, SHAPE(24, 1100));
        m = merge(w, 0, GF_MERGE_KRONECKER, SHAPE(24, 1100));
        m->a = add_random(w, GF_F32, SHAPE(4, 2));
        m->b = add_random(w, GF_F32, SHAPE(2, n));
        m->c = add_random(w, GF_F32, SHAPE(6, 2));
        m->d = add_random(w, GF_F32, SHAPE(2, width));
        m->rank = 2;
        serve(w, leaf, 0, 0, 24 * 1100, GF_F32);
        consistent(w);
        teardown(&s);
    }
}

static void vector_reads_are_slices(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add_random(w, GF_F16, SHAPE(21, 1030));
    struct gf_merge *m = merge(w, 0, GF_MERGE_VECTOR, SHAPE(21, 1030));

    m->a = add_random(w, GF_F32, SHAPE(6, 1200));
    m->b = add_random(w, GF_F32, SHAPE(30, 6));
    m->c = add_random(w, GF_F32, SHAPE(6));
    m->d = add_random(w, GF_F32, SHAPE(21));
    m->rank = 6;
    m->dtype = GF_F16;
    serve(w, leaf, 0, 0, 21 * 1030, GF_F16);
    consistent(w);
}

static void rows_over_lowrank_reads_are_slices(void **state)
{
    static const uint64_t rows[] = { 20, 0, 7 };
    struct world *w = *state;
    uint32_t leaf = add_random(w, GF_BF16, SHAPE(21, 700));
    struct gf_merge *m = merge(w, 0, GF_MERGE_ROWS, SHAPE(21, 700));
    struct gf_merge *below = merge(w, 1, GF_MERGE_LOWRANK, SHAPE(21, 700));

    below->a = add_random(w, GF_F32, SHAPE(2, 700));
    below->b = add_random(w, GF_F32, SHAPE(21, 2));
    below->rank = 2;
    m->a = add_random(w, GF_F32, SHAPE(3, 700));
    m->rows = rows;
    m->nrows = 3;
    m->under = below;
    m->dtype = below->dtype = GF_BF16;
    serve(w, leaf, 0, 0, 21 * 700, GF_BF16);
    consistent(w);
}

/* ---- around it ---- */

static int broken_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    (void)src, (void)buf, (void)len, (void)off;
    return -EIO;
}

static void an_operand_that_cannot_be_read_fails_the_read_and_is_named(void **state)
{
    static const struct gf_source_ops broken = { .kind = "broken", .read_at = broken_read };
    struct gf_source bad = { .ops = &broken, .name = (char[]){ "adapter.pt" }, .size = 12 };
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 3), w23);
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(2, 3));
    struct gf_fault fault = { 0 };
    struct gf_source *good;
    uint8_t buf[24];

    m->a = add(w, GF_F32, SHAPE(1, 3), VALUES(1, 2, 3));
    m->b = add(w, GF_F32, SHAPE(2, 1), VALUES(1, 2));
    m->rank = 1;
    serve(w, leaf, 0, 0, 6, GF_F32);
    good = w->sources[2];
    w->sources[2] = &bad;
    assert_int_equal(gf_gather_read(&w->gather, w->image, 1, 24, buf, &w->scratch, &fault),
                     -EIO);
    assert_string_equal(fault.source, "adapter.pt");
    w->sources[2] = good;
    expect(w, VALUES(2, 4, 6, 6, 9, 12)); /* and nothing wrong was kept */
}

struct sum {
    uint64_t covered, operands;
    int noperands;
};

static int sum_origin(void *ctx, const struct gf_origin *o)
{
    struct sum *sum = ctx;

    if (!o->operand) {
        sum->covered += o->len;
        return 0;
    }
    assert_int_equal(o->off, 1);
    assert_int_equal(o->len, 24);
    sum->operands += o->source_len;
    sum->noperands++;
    return 0;
}

static void origins_list_the_weight_and_every_operand(void **state)
{
    struct world *w = *state;
    uint32_t leaf = add(w, GF_F32, SHAPE(2, 3), w23);
    struct gf_merge *m = merge(w, 0, GF_MERGE_LOWRANK, SHAPE(2, 3));
    struct sum sum = { 0 };

    m->a = add(w, GF_BF16, SHAPE(1, 3), VALUES(1, 2, 3));
    m->b = add(w, GF_F32, SHAPE(2, 1), VALUES(1, 2));
    m->rank = 1;
    serve(w, leaf, 0, 0, 6, GF_F32);
    assert_int_equal(gf_gather_origins(&w->gather, w->image, sum_origin, &sum), 0);
    assert_int_equal(sum.covered, 25);
    assert_int_equal(sum.operands, 6 + 8);
    assert_int_equal(sum.noperands, 4);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(lowrank_reads_are_slices),
        TEST(lowrank_of_many_rows_equals_the_formula),
        TEST(transposed_reads_are_slices),
        TEST(dora_reads_are_slices),
        TEST(norms_of_columns_are_taken_once_a_read_without_a_cache),
        TEST(expert_reads_are_slices),
        TEST(hadamard_reads_are_slices),
        TEST(kronecker_reads_are_slices),
        TEST(vector_reads_are_slices),
        TEST(rows_over_lowrank_reads_are_slices),
        TEST(an_operand_that_cannot_be_read_fails_the_read_and_is_named),
        TEST(origins_list_the_weight_and_every_operand),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
