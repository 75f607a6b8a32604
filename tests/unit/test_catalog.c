/* SPDX-License-Identifier: Apache-2.0 */
/* catalog, check. */
#include "t.h"

#include <stdlib.h>

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
        T(a_box_outside_its_tensor_is_refused),
        T(a_box_whose_strides_leave_the_file_is_refused),
        T(a_row_shard_is_a_linear_piece),
        T(a_scalar_has_one_element),
        T(tied_tensors_share_pieces_only_with_their_like),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
