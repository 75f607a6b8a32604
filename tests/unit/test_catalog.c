/* SPDX-License-Identifier: Apache-2.0 */
/* catalog, check. */
#include "t.h"

#include <stdlib.h>
#include <time.h>

#include "catalog/catalog.h"

static const uint64_t sizes[] = { 1000, 1000, 1000 };
static const char *const names[] = { "r0.pt", "r1.pt", "r2.pt" };

static int setup(void **state)
{
    struct gf_catalog *catalog;

    GF_OK(gf_catalog_new(&gf_limits_default, &catalog, &t_err));
    *state = catalog;
    return 0;
}

static int teardown(void **state)
{
    gf_catalog_free(*state);
    return 0;
}

static int add(struct gf_catalog *catalog, const char *name, uint32_t rank,
               const uint64_t *dims)
{
    struct gf_tensor_spec spec = { .name = name,
                                   .shape = { rank, dims },
                                   .dtype = GF_F32,
                                   .live = GF_F32,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };

    return gf_catalog_add(catalog, &spec, NULL, &t_err);
}

static int check(struct gf_catalog *catalog)
{
    return gf_catalog_check(catalog, sizes, names, 3, &t_err);
}

static void pieces_that_cover_pass_in_any_order(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 2, (uint64_t[]){ 3, 4 }));
    GF_OK(gf_catalog_add_linear(c, 1, 0, 5, 7, &t_err));
    GF_OK(gf_catalog_add_linear(c, 0, 100, 0, 5, &t_err));
    GF_OK(gf_catalog_add_linear(c, 2, 0, 12, 0, &t_err));
    GF_OK(check(c));
    assert_int_equal(gf_catalog_find(c, "w")->npieces, 2);
    assert_int_equal(gf_catalog_piece(c, gf_catalog_find(c, "w")->pieces)->start, 0);
}

static void neighbours_in_one_file_become_one_piece(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 1, (uint64_t[]){ 6 }));
    GF_OK(gf_catalog_add_linear(c, 0, 100, 0, 2, &t_err));
    GF_OK(gf_catalog_add_linear(c, 0, 108, 2, 4, &t_err));
    GF_OK(check(c));
    assert_int_equal(gf_catalog_find(c, "w")->npieces, 1);
}

static void a_hole_is_incomplete_and_named(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 1, (uint64_t[]){ 10 }));
    GF_OK(gf_catalog_add_linear(c, 0, 0, 0, 4, &t_err));
    GF_OK(gf_catalog_add_linear(c, 1, 0, 5, 5, &t_err));
    GF_FAILS(check(c), GF_EINCOMPLETE, "tensor 'w': element 4 of 10");
}

static void a_missing_end_is_incomplete(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 1, (uint64_t[]){ 10 }));
    GF_OK(gf_catalog_add_linear(c, 0, 0, 0, 9, &t_err));
    GF_FAILS(check(c), GF_EINCOMPLETE, "element 9 of 10");
}

static void overlapping_pieces_are_refused(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 1, (uint64_t[]){ 10 }));
    GF_OK(gf_catalog_add_linear(c, 0, 0, 0, 6, &t_err));
    GF_OK(gf_catalog_add_linear(c, 1, 0, 5, 5, &t_err));
    GF_FAILS(check(c), GF_EBAD, "'r0.pt' and 'r1.pt' overlap");
}

static void a_piece_past_its_file_is_refused(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 1, (uint64_t[]){ 10 }));
    GF_OK(gf_catalog_add_linear(c, 0, 961, 0, 10, &t_err));
    GF_FAILS(check(c), GF_EBAD,
             "'r0.pt': tensor 'w': needs 40 bytes at 961, the file has 1000");
}

static void a_piece_past_its_tensor_is_refused(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 1, (uint64_t[]){ 10 }));
    GF_OK(gf_catalog_add_linear(c, 0, 0, 0, 11, &t_err));
    GF_FAILS(check(c), GF_EBAD, "past its 10 elements");
}

static void names_are_unique_and_text(void **state)
{
    struct gf_catalog *c = *state;
    uint64_t dim = 1;

    GF_OK(add(c, "w", 1, &dim));
    GF_FAILS(add(c, "w", 1, &dim), GF_EBAD, "'w' is there twice");
    GF_FAILS(add(c, "", 1, &dim), GF_EBAD, "0 bytes");
    GF_FAILS(add(c, "\xff", 1, &dim), GF_EBAD, "UTF-8");
    GF_FAILS(add(c, "\xed\xa0\x80", 1, &dim), GF_EBAD, "UTF-8"); /* a surrogate */
    GF_FAILS(add(c, "\xc0\x80", 1, &dim), GF_EBAD, "UTF-8");
    GF_FAILS(add(c, "__metadata__", 1, &dim), GF_EBAD, "reserved");
    GF_OK(add(c, "\xc3\xa4", 1, &dim));
}

static void impossible_shapes_are_refused(void **state)
{
    struct gf_catalog *c = *state;
    uint64_t huge[] = { UINT64_MAX / 4, 8 }, deep[GF_MAX_RANK + 1] = { 0 };

    GF_FAILS(add(c, "w", 2, huge), GF_EBAD, "impossible shape");
    GF_FAILS(add(c, "v", GF_MAX_RANK + 1, deep), GF_EBAD, "dimensions");
}

static void the_limit_on_tensors_holds(void **state)
{
    struct gf_limits limits = gf_limits_default;
    struct gf_catalog *c;
    uint64_t dim = 1;

    (void)state;
    limits.tensors = 1;
    limits.pieces = 1;
    limits.name = 3;
    GF_OK(gf_catalog_new(&limits, &c, &t_err));
    GF_FAILS(add(c, "long", 1, &dim), GF_EBAD, "1 to 3 are allowed");
    dim = 5;
    GF_OK(add(c, "a", 1, &dim));
    GF_OK(gf_catalog_add_linear(c, 0, 0, 0, 1, &t_err));
    GF_FAILS(gf_catalog_add_linear(c, 1, 0, 1, 1, &t_err), GF_EBAD, "pieces");
    GF_FAILS(add(c, "b", 1, &dim), GF_EBAD, "more than 1 tensors");
    gf_catalog_free(c);
}

/* [4, 6] as a 2 x 2 grid of boxes. */
static int grid(struct gf_catalog *c, int leave_out, uint64_t shift)
{
    for (int i = 0; i < 4; i++) {
        uint64_t first[2] = { i / 2 ? 2 : 0, i % 2 ? 3 - shift : 0 };
        uint64_t size[2] = { 2, 3 }, stride[2] = { 3, 1 };
        int r = i == leave_out ? 0
                               : gf_catalog_add_box(c, (uint32_t)i % 3, 100, first, size,
                                                    stride, &t_err);

        if (r)
            return r;
    }
    return 0;
}

static void boxes_that_tile_pass(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 2, (uint64_t[]){ 4, 6 }));
    GF_OK(grid(c, -1, 0));
    assert_true(gf_catalog_find(c, "w")->boxed);
    GF_OK(check(c));
}

static void a_missing_box_is_incomplete(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 2, (uint64_t[]){ 4, 6 }));
    GF_OK(grid(c, 2, 0));
    GF_FAILS(check(c), GF_EINCOMPLETE, "6 of 24 elements");
}

static void overlapping_boxes_are_refused(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "w", 2, (uint64_t[]){ 4, 6 }));
    GF_OK(grid(c, -1, 1));
    GF_FAILS(check(c), GF_EBAD, "overlap");
}

/* A row that is cut in two is two runs beside the boxes of the other rows. */
static void runs_and_boxes_tile_together(void **state)
{
    static const struct {
        uint64_t first[2], size[2];
    } parts[] = { { { 0, 0 }, { 2, 3 } },
                  { { 0, 3 }, { 2, 2 } },
                  { { 2, 0 }, { 1, 3 } },
                  { { 2, 3 }, { 1, 2 } } };
    struct gf_catalog *c = *state;

    for (size_t twice = 0; twice < 2; twice++) {
        GF_OK(add(c, twice ? "bad" : "good", 2, (uint64_t[]){ 3, 5 }));
        for (size_t i = 0; i < 4; i++) {
            size_t k = i == twice ? 0 : i;

            GF_OK(gf_catalog_add_box(c, (uint32_t)i % 3, 0, parts[k].first, parts[k].size,
                                     (uint64_t[]){ parts[k].size[1], 1 }, &t_err));
        }
        if (twice) {
            GF_FAILS(check(c), GF_EBAD, "tensor 'bad': pieces in 'r0.pt' and");
            return;
        }
        GF_OK(check(c));
        assert_int_equal(gf_catalog_piece(c, 3)->box, GF_NONE);
    }
}

/* Some way to cut a box into boxes, and one of them wrong now and then. */
struct cuts {
    uint64_t first[64][3], size[64][3];
    size_t n;
};

static void cut(struct cuts *cuts, const uint64_t *first, const uint64_t *size)
{
    unsigned d = (unsigned)rand() % 3;
    uint64_t at, f[3], s[3];

    if (size[d] < 2 || cuts->n > 40 || rand() % 8 == 0) {
        memcpy(cuts->first[cuts->n], first, sizeof(f));
        memcpy(cuts->size[cuts->n++], size, sizeof(s));
        return;
    }
    at = 1 + (uint64_t)rand() % (size[d] - 1);
    memcpy(f, first, sizeof(f));
    memcpy(s, size, sizeof(s));
    s[d] = at;
    cut(cuts, f, s);
    f[d] += at;
    s[d] = size[d] - at;
    cut(cuts, f, s);
}

static void the_proof_agrees_with_counting(void **state)
{
    static const uint64_t zeros[3];
    unsigned refused = 0;

    (void)state;
    srand(5);
    for (unsigned round = 0; round < 3000; round++) {
        uint64_t dims[3] = { 1 + (uint64_t)rand() % 5, 1 + (uint64_t)rand() % 6,
                             1 + (uint64_t)rand() % 5 };
        unsigned char times[150] = { 0 };
        bool right = true;
        struct gf_catalog *c;
        struct cuts cuts = { 0 };

        cut(&cuts, zeros, dims);
        if (round % 2) {
            size_t i = (size_t)rand() % cuts.n, d = (size_t)rand() % 3;

            if (rand() % 2 && cuts.first[i][d]) {
                cuts.first[i][d]--; /* moved */
            } else if (cuts.size[i][d] > 1) {
                cuts.first[i][d]++; /* smaller */
                cuts.size[i][d]--;
            }
        }
        GF_OK(gf_catalog_new(&gf_limits_default, &c, &t_err));
        GF_OK(add(c, "w", 3, dims));
        for (size_t i = 0; i < cuts.n; i++) {
            const uint64_t *f = cuts.first[i], *s = cuts.size[i];

            /* In separate places of the file: neighbours must not become one. */
            GF_OK(gf_catalog_add_box(c, (uint32_t)i % 3, 8 * i, f, s,
                                     (uint64_t[]){ s[1] * s[2], s[2], 1 }, &t_err));
            for (uint64_t x = f[0]; x < f[0] + s[0]; x++)
                for (uint64_t y = f[1]; y < f[1] + s[1]; y++)
                    for (uint64_t z = f[2]; z < f[2] + s[2]; z++)
                        times[(x * dims[1] + y) * dims[2] + z]++;
        }
        for (size_t i = 0; i < dims[0] * dims[1] * dims[2]; i++)
            right &= times[i] == 1;
        if ((check(c) == 0) != right)
            fail_msg("round %u: %s", round, right ? t_err.text : "was not noticed");
        refused += !right;
        gf_catalog_free(c);
    }
    assert_in_range(refused, 500, 1500);
}

/* Strips along the rows in one half, along the columns in the other: in each dimension most of
 * them meet most others. `shift` moves one. */
static void add_strips(struct gf_catalog *c, uint64_t n, uint64_t shift)
{
    uint64_t half = n / 2;

    GF_OK(add(c, "w", 3, (uint64_t[]){ n, n, 2 }));
    for (uint64_t k = 0; k < 2; k++) {
        for (uint64_t i = 0; i < n; i++)
            GF_OK(gf_catalog_add_box(c, 0, 0, (uint64_t[]){ i, 0, k },
                                     (uint64_t[]){ 1, half, 1 }, (uint64_t[]){ 1, 1, 1 },
                                     &t_err));
        for (uint64_t j = half; j < n; j++)
            GF_OK(gf_catalog_add_box(
                c, 1, 0, (uint64_t[]){ 0, j - (j == n - 1 ? shift : 0), k },
                (uint64_t[]){ n, 1, 1 }, (uint64_t[]){ 1, 1, 1 }, &t_err));
    }
}

static void a_hundred_thousand_boxes_take_no_time(void **state)
{
    static const uint64_t large[] = { UINT64_MAX, UINT64_MAX };
    static const char *const kinds[] = { "rows", "columns" };
    clock_t start = clock();

    for (uint64_t shift = 0; shift < 3; shift++) {
        struct gf_catalog *c;

        GF_OK(gf_catalog_new(&gf_limits_default, &c, &t_err));
        add_strips(c, 33334, shift == 2 ? 16667 : shift);
        assert_int_equal(gf_catalog_npieces(c), 3 * 33334);
        if (shift == 0)
            GF_OK(gf_catalog_check(c, large, kinds, 2, &t_err));
        else
            GF_FAILS(gf_catalog_check(c, large, kinds, 2, &t_err), GF_EBAD,
                     shift == 1 ? "'columns' and 'columns' overlap"
                                : "'rows' and 'columns' overlap");
        gf_catalog_free(c);
    }
    assert_true(clock() - start < 6 * CLOCKS_PER_SEC);
    (void)state;
}

static void a_division_past_checking_is_refused(void **state)
{
    uint64_t dims[25], first[25] = { 0 }, ones[25];
    struct gf_catalog *c = *state;

    for (size_t d = 0; d < 25; d++) {
        dims[d] = 2;
        ones[d] = 1;
    }
    GF_OK(add(c, "w", 25, dims));
    GF_OK(gf_catalog_add_box(c, 0, 0, first, dims, ones, &t_err));
    GF_OK(gf_catalog_add_box(c, 0, 0, first, ones, ones, &t_err));
    GF_FAILS(check(c), GF_EBAD, "2 pieces that divide 25 dimensions");
}

static void a_box_outside_its_tensor_is_refused(void **state)
{
    struct gf_catalog *c = *state;
    uint64_t first[2] = { 3, 0 }, size[2] = { 2, 6 }, stride[2] = { 6, 1 };

    GF_OK(add(c, "w", 2, (uint64_t[]){ 4, 6 }));
    GF_FAILS(gf_catalog_add_box(c, 0, 0, first, size, stride, &t_err), GF_EBAD,
             "[3, 5) of dimension 0");
}

static void a_box_whose_strides_leave_the_file_is_refused(void **state)
{
    struct gf_catalog *c = *state;
    uint64_t first[2] = { 0, 0 }, size[2] = { 4, 6 }, stride[2] = { 1, 80 };

    GF_OK(add(c, "w", 2, (uint64_t[]){ 4, 6 }));
    GF_OK(gf_catalog_add_box(c, 0, 0, first, size, stride, &t_err));
    GF_FAILS(check(c), GF_EBAD, "needs 1616 bytes");
}

static void a_row_shard_is_a_linear_piece(void **state)
{
    struct gf_catalog *c = *state;
    uint64_t first[2] = { 2, 0 }, size[2] = { 2, 6 }, stride[2] = { 6, 1 };

    GF_OK(add(c, "w", 2, (uint64_t[]){ 4, 6 }));
    GF_OK(gf_catalog_add_box(c, 0, 0, first, size, stride, &t_err));
    assert_false(gf_catalog_find(c, "w")->boxed);
    assert_int_equal(gf_catalog_piece(c, 0)->start, 12);
    assert_int_equal(gf_catalog_piece(c, 0)->count, 12);
}

static void a_scalar_has_one_element(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "s", 0, NULL));
    GF_OK(gf_catalog_add_strided(c, 0, 0, NULL, &t_err));
    GF_OK(add(c, "none", 1, (uint64_t[]){ 0 }));
    GF_OK(check(c));
    assert_int_equal(gf_catalog_find(c, "s")->npieces, 1);
}

static void tied_tensors_share_pieces_only_with_their_like(void **state)
{
    struct gf_catalog *c = *state;

    GF_OK(add(c, "a", 1, (uint64_t[]){ 4 }));
    GF_OK(gf_catalog_add_linear(c, 0, 0, 0, 4, &t_err));
    GF_OK(add(c, "b", 1, (uint64_t[]){ 4 }));
    GF_OK(gf_catalog_share(c, 0, &t_err));
    GF_OK(add(c, "d", 1, (uint64_t[]){ 5 }));
    GF_FAILS(gf_catalog_share(c, 0, &t_err), GF_EBAD, "'d' is tied to 'a'");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(pieces_that_cover_pass_in_any_order),
        T(neighbours_in_one_file_become_one_piece),
        T(a_hole_is_incomplete_and_named),
        T(a_missing_end_is_incomplete),
        T(overlapping_pieces_are_refused),
        T(a_piece_past_its_file_is_refused),
        T(a_piece_past_its_tensor_is_refused),
        T(names_are_unique_and_text),
        T(impossible_shapes_are_refused),
        T(the_limit_on_tensors_holds),
        T(boxes_that_tile_pass),
        T(a_missing_box_is_incomplete),
        T(overlapping_boxes_are_refused),
        T(runs_and_boxes_tile_together),
        T(the_proof_agrees_with_counting),
        T(a_hundred_thousand_boxes_take_no_time),
        T(a_division_past_checking_is_refused),
        T(a_box_outside_its_tensor_is_refused),
        T(a_box_whose_strides_leave_the_file_is_refused),
        T(a_row_shard_is_a_linear_piece),
        T(a_scalar_has_one_element),
        T(tied_tensors_share_pieces_only_with_their_like),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
