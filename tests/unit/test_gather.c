/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gather, box: a file of tensors cut up in every way the catalog knows, and random reads of
 * it that must equal slices of the whole.
 */
#include "t.h"

#include <stdlib.h>

#include "base/math.h"
#include "gather/gather.h"
#include "tensor/convert.h"
#include "tensor/convert_int.h"

enum { ROWS = 12, COLS = 35, DEPTH = 4, N = ROWS * COLS * DEPTH };

static uint64_t seed = 88172645463325252u;

static uint64_t dice(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % n;
}

/* Element i of the tensor: its own number, so that a wrong place names itself. */
static float element(uint64_t i)
{
    return (float)i + 0.5f;
}

struct world {
    struct gf_catalog *catalog;
    struct gf_source *sources[64];
    size_t nsources;
    struct gf_bound bound;
    struct gf_output outputs[8];
    struct gf_view view;
    struct gf_image *image;
    struct gf_gather gather;
    uint8_t *whole; /* what the image must hold */
    size_t size;
};

static uint32_t add_source(struct world *w, const void *bytes, size_t len)
{
    char name[16];

    snprintf(name, sizeof(name), "s%zu", w->nsources);
    GF_OK(gf_source_mem(name, bytes, len, &w->sources[w->nsources], &t_err));
    return (uint32_t)w->nsources++;
}

static uint32_t add_tensor(struct world *w, const char *name, uint8_t twist)
{
    static const uint64_t dims[3] = { ROWS, COLS, DEPTH };
    struct gf_tensor_spec spec = { .name = name,
                                   .shape = { 3, dims },
                                   .dtype = GF_F32,
                                   .live = GF_F32,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE,
                                   .twist = twist };
    uint32_t index = 0;

    GF_OK(gf_catalog_add(w->catalog, &spec, &index, &t_err));
    return index;
}

/* ZeRO's way: flat runs over several files. */
static void cut_flat(struct world *w)
{
    add_tensor(w, "flat", 0);
    for (uint64_t at = 0; at < N;) {
        uint64_t want = 1 + dice(700), n = GF_MIN(want, N - at);
        float part[701] = { -1 };

        for (uint64_t i = 0; i < n; i++)
            part[1 + i] = element(at + i);
        GF_OK(gf_catalog_add_linear(w->catalog, add_source(w, part, (n + 1) * 4), 4, at, n,
                                    &t_err));
        at += n;
    }
}

/* A box [lo, hi) with its own element order: perm says which dimension is innermost. */
static void add_box(struct world *w, const uint64_t *lo, const uint64_t *hi,
                    const int *perm)
{
    uint64_t size[3], stride[3], at = 3, reach = 1;
    float *part;

    for (int d = 0; d < 3; d++)
        size[d] = hi[d] - lo[d];
    for (int k = 2; k >= 0; k--) {
        stride[perm[k]] = reach;
        reach *= size[perm[k]];
    }
    part = calloc(reach + at, sizeof(*part));
    for (uint64_t i = 0; i < size[0]; i++)
        for (uint64_t j = 0; j < size[1]; j++)
            for (uint64_t k = 0; k < size[2]; k++)
                part[at + i * stride[0] + j * stride[1] + k * stride[2]] =
                    element(((lo[0] + i) * COLS + lo[1] + j) * DEPTH + lo[2] + k);
    GF_OK(gf_catalog_add_box(w->catalog, add_source(w, part, (reach + at) * 4), at * 4, lo,
                             size, stride, &t_err));
    free(part);
}

/* DCP's way: a grid of boxes, some of them stored transposed. */
static void cut_boxes(struct world *w)
{
    static const uint64_t edges[3][4] = { { 0, 5, 7, ROWS },
                                          { 0, 1, 20, COLS },
                                          { 0, 3, DEPTH } };
    static const int perms[3][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 0, 2 } };

    add_tensor(w, "boxes", 0);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 2; k++) {
                uint64_t lo[3] = { edges[0][i], edges[1][j], edges[2][k] };
                uint64_t hi[3] = { edges[0][i + 1], edges[1][j + 1], edges[2][k + 1] };

                add_box(w, lo, hi, perms[(i + j + k) % 3]);
            }
}

static void cut_twisted(struct world *w)
{
    float part[N];

    for (uint64_t i = 0; i < N; i++)
        part[i] = -element(i);
    add_tensor(w, "neg", GF_TWIST_NEG);
    GF_OK(gf_catalog_add_linear(w->catalog, add_source(w, part, sizeof(part)), 0, 0, N,
                                &t_err));
}

static void add_output(struct world *w, uint32_t tensor, enum gf_dtype to)
{
    struct gf_output *o = &w->outputs[w->view.n];
    uint64_t at = w->size;

    GF_OK(gf_expr_gather(w->catalog, 0, tensor, to, &o->expr, &t_err));
    o->name = gf_catalog_at(w->catalog, tensor)->name;
    o->dtype = to;
    o->nbytes = N * gf_dtype_size(to);
    GF_OK(gf_image_add_bytes(w->image, "<gap>", 5, &t_err));
    GF_OK(gf_image_add_tensor(w->image, (uint32_t)w->view.n++, o->nbytes, &t_err));
    w->size += 5 + o->nbytes;
    w->whole = realloc(w->whole, w->size);
    memcpy(w->whole + at, "<gap>", 5);
    for (uint64_t i = 0; i < N; i++) {
        float f = element(i);
        uint32_t u;
        uint16_t h;

        memcpy(&u, &f, 4);
        h = gf_bf16_of_f32(u);
        if (to == GF_F32)
            memcpy(w->whole + at + 5 + i * 4, &f, 4);
        else
            memcpy(w->whole + at + 5 + i * 2, &h, 2);
    }
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    uint64_t sizes[64];
    const char *names[64];
    uint32_t side;

    gf_convert_init();
    GF_OK(gf_catalog_new(&gf_limits_default, &w->catalog, &t_err));
    cut_flat(w);
    cut_boxes(w);
    cut_twisted(w);
    for (size_t i = 0; i < w->nsources; i++) {
        sizes[i] = w->sources[i]->size;
        names[i] = w->sources[i]->name;
    }
    GF_OK(gf_catalog_check(w->catalog, sizes, names, w->nsources, &t_err));
    GF_OK(gf_image_new("model.safetensors", &w->image, &t_err));
    for (uint32_t t = 0; t < 3; t++) {
        add_output(w, t, GF_F32);
        add_output(w, t, GF_BF16);
    }
    side = add_source(w, "xxside file", 11);
    GF_OK(gf_image_add_source(w->image, side, 2, 9, &t_err));
    w->whole = realloc(w->whole, w->size + 9);
    memcpy(w->whole + w->size, "side file", 9);
    w->size += 9;
    GF_OK(gf_image_seal(w->image, &t_err));
    w->bound = (struct gf_bound){ w->catalog, w->sources, w->nsources };
    w->view.outputs = w->outputs;
    w->gather = (struct gf_gather){ .view = &w->view,
                                    .bound = &w->bound,
                                    .nbound = 1,
                                    .side = w->sources,
                                    .nside = w->nsources };
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    gf_image_free(w->image);
    gf_catalog_free(w->catalog);
    for (size_t i = 0; i < w->nsources; i++)
        gf_source_free(w->sources[i]);
    free(w->whole);
    free(w);
    return 0;
}

static void the_whole_is_right(void **state)
{
    struct world *w = *state;
    struct gf_scratch scratch = { 0 };
    uint8_t *got = malloc(w->size);

    assert_int_equal(gf_image_size(w->image), w->size);
    assert_int_equal(gf_gather_read(&w->gather, w->image, 0, w->size, got, &scratch, NULL),
                     0);
    for (size_t i = 0; i < w->size; i++)
        if (got[i] != w->whole[i])
            fail_msg("byte %zu of %zu differs", i, w->size);
    free(got);
    gf_scratch_done(&scratch);
}

static void any_read_equals_the_slice(void **state)
{
    struct world *w = *state;
    struct gf_scratch scratch = { 0 };
    uint8_t *got = malloc(w->size);

    for (int i = 0; i < 3000; i++) {
        uint64_t off = dice(w->size), len = dice(i % 3 ? 300 : w->size - off + 1);

        len = GF_MIN(len, w->size - off);
        memset(got, 0xee, len);
        assert_int_equal(
            gf_gather_read(&w->gather, w->image, off, len, got, &scratch, NULL), 0);
        if (memcmp(got, w->whole + off, len) != 0)
            fail_msg("read of %u bytes at %u differs", (unsigned)len, (unsigned)off);
    }
    free(got);
    gf_scratch_done(&scratch);
}

static void pointers_give_the_same_bytes(void **state)
{
    struct world *w = *state;
    struct gf_scratch scratch = { 0 };

    for (int i = 0; i < 2000; i++) {
        uint64_t off = dice(w->size), want = dice(20000), at = off;
        uint64_t len = GF_MIN(want, w->size - off);
        int max = 1 + (int)dice(40), n = 0;
        struct iovec iov[40];

        assert_int_equal(
            gf_gather_iov(&w->gather, w->image, off, len, &scratch, iov, max, &n, NULL), 0);
        assert_in_range(n, 0, max);
        for (int k = 0; k < n; k++) {
            assert_memory_equal(iov[k].iov_base, w->whole + at, iov[k].iov_len);
            at += iov[k].iov_len;
        }
        assert_int_equal(at, off + len);
    }
    gf_scratch_done(&scratch);
}

static void reads_past_the_end_are_refused(void **state)
{
    struct world *w = *state;
    struct gf_scratch scratch = { 0 };
    uint8_t b[2];

    assert_int_equal(
        gf_gather_read(&w->gather, w->image, w->size - 1, 2, b, &scratch, NULL), -EINVAL);
    assert_int_equal(gf_gather_read(&w->gather, w->image, UINT64_MAX, 2, b, &scratch, NULL),
                     -EINVAL);
}

static int broken_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    (void)src, (void)buf, (void)len, (void)off;
    return -EIO;
}

static void a_failing_source_fails_the_read_and_is_named(void **state)
{
    static const struct gf_source_ops broken = { .kind = "broken", .read_at = broken_read };
    struct world *w = *state;
    struct gf_source bad = { .ops = &broken, .name = (char[]){ "bad.pt" } },
                     *good = w->sources[0];
    struct gf_scratch scratch = { 0 };
    struct gf_fault fault = { 0 };
    uint8_t b[64];

    bad.size = good->size;
    w->sources[0] = &bad;
    assert_int_equal(gf_gather_read(&w->gather, w->image, 3, 64, b, &scratch, &fault),
                     -EIO);
    assert_string_equal(fault.source, "bad.pt");
    w->sources[0] = good;
    gf_scratch_done(&scratch);
}

static int sum_origin(void *ctx, const struct gf_origin *o)
{
    *(uint64_t *)ctx += o->len;
    return 0;
}

static void origins_account_for_every_byte(void **state)
{
    struct world *w = *state;
    uint64_t sum = 0;

    assert_int_equal(gf_gather_origins(&w->gather, w->image, sum_origin, &sum), 0);
    assert_int_equal(sum, w->size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_whole_is_right),
        cmocka_unit_test(any_read_equals_the_slice),
        cmocka_unit_test(pointers_give_the_same_bytes),
        cmocka_unit_test(reads_past_the_end_are_refused),
        cmocka_unit_test(a_failing_source_fails_the_read_and_is_named),
        cmocka_unit_test(origins_account_for_every_byte),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
