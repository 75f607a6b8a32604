/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "format/dtensor.h"
#include "t_torch.h"

#define SHARD(d)                                                                           \
    {                                                                                      \
        "Shard", (d), 0                                                                    \
    }
#define REPLICATE                                                                          \
    {                                                                                      \
        "Replicate", 0, 0                                                                  \
    }
#define END                                                                                \
    {                                                                                      \
        NULL, 0, 0                                                                         \
    }
#define PLACED(...) ((const struct t_placement[]){ __VA_ARGS__, END })

struct result {
    struct gf_pickle *pickle;
    enum gf_torch_is is;
    struct gf_dtensor dt;
    const char *why;
};

static struct result result;

static int parse(struct t_file *f, uint64_t rank)
{
    gf_pickle_free(result.pickle);
    memset(&result, 0, sizeof(result));
    pw_op(&f->w, ".");
    GF_OK(gf_pickle_parse("f", f->w.p, f->w.n, &gf_limits_default, &result.pickle, NULL,
                          NULL, &t_err));
    return gf_dtensor_parse(result.pickle, gf_pickle_root(result.pickle), rank, "f", "t",
                            &result.is, &result.dt, &result.why, &t_err);
}

static int parse_dtensor(const int64_t *local, const int64_t *size,
                         const struct t_spread *s, uint64_t rank)
{
    struct t_file f = { 0 };

    pw_op(&f.w, "\x80\x02");
    t_dtensor_value(&f, 0, local, size, s);
    return parse(&f, rank);
}

static int parse_sharded(const int64_t *offsets, const int64_t *local, const int64_t *said,
                         const int64_t *size)
{
    struct t_file f = { 0 };

    pw_op(&f.w, "\x80\x02");
    t_sharded_value(&f, 0, offsets, local, said, size, 4);
    return parse(&f, 0);
}

static int teardown(void **state)
{
    (void)state;
    gf_pickle_free(result.pickle);
    memset(&result, 0, sizeof(result));
    return 0;
}

/* A one-dimensional case: first and size along dimension 0. */
static void check_rows(const struct t_spread *s, int64_t rows, int64_t first, int64_t size)
{
    GF_OK(parse_dtensor(PW_DIMS(size, 3), PW_DIMS(rows, 3), s, 0));
    assert_int_equal(result.is, GF_TORCH_TENSOR);
    assert_int_equal(result.dt.n, size > 0);
    assert_int_equal(result.dt.shape.dims[0], rows);
    if (size == 0)
        return;
    assert_int_equal(result.dt.boxes[0].first[0], first);
    assert_int_equal(result.dt.boxes[0].first[1], 0);
    assert_int_equal(result.dt.boxes[0].view.shape.dims[0], size);
}

static void chunks_are_rounded_up_and_the_last_ranks_have_less(void **state)
{
    static const int64_t first[] = { 0, 2, 4, 5 }, size[] = { 2, 2, 1, 0 };

    (void)state;
    for (int64_t r = 0; r < 4; r++) {
        struct t_spread s = { .mesh = PW_DIMS(4),
                              .at = PW_DIMS(r),
                              .placements = PLACED(SHARD(0)) };

        check_rows(&s, 5, first[r], size[r]);
        assert_int_equal(result.dt.ranks, 4);
    }
}

static void every_form_of_the_mesh_is_read(void **state)
{
    static const enum t_mesh forms[] = { T_AXES, T_SHAPE, T_TENSOR };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct t_spread s = { .form = forms[i],
                              .mesh = PW_DIMS(2, 3),
                              .at = PW_DIMS(1, 2),
                              .placements = PLACED(SHARD(0), SHARD(0)) };

        check_rows(&s, 12, 10, 2);
        assert_int_equal(result.dt.ranks, 6);
    }
}

static void without_coordinates_the_rank_counts_row_by_row(void **state)
{
    struct t_spread s = { .mesh = PW_DIMS(2, 3),
                          .placements = PLACED(REPLICATE, SHARD(0)) };

    (void)state;
    GF_OK(parse_dtensor(PW_DIMS(2, 3), PW_DIMS(6, 3), &s, 4));
    assert_int_equal(result.dt.boxes[0].first[0], 2); /* (1, 1) */
}

static void dimensions_are_cut_each_on_its_own(void **state)
{
    struct t_spread s = { .mesh = PW_DIMS(2, 2),
                          .at = PW_DIMS(1, 1),
                          .placements = PLACED(SHARD(0), SHARD(1)) };

    (void)state;
    GF_OK(parse_dtensor(PW_DIMS(2, 1), PW_DIMS(4, 3), &s, 0));
    assert_int_equal(result.dt.boxes[0].first[0], 2);
    assert_int_equal(result.dt.boxes[0].first[1], 2);
}

/* What torch 2.13 itself wrote for 10 rows on dp 2 x tp 2: [0,3) [5,8) [3,5) [8,10). */
static void a_strided_shard_is_cut_after_those_on_its_right(void **state)
{
    static const int64_t first[] = { 0, 5, 3, 8 }, size[] = { 3, 3, 2, 2 };

    (void)state;
    for (int64_t r = 0; r < 4; r++) {
        struct t_spread s = { .mesh = PW_DIMS(2, 2),
                              .at = PW_DIMS(r / 2, r % 2),
                              .placements = PLACED({ "_StridedShard", 0, 2 }, SHARD(0)) };

        check_rows(&s, 10, first[r], size[r]);
    }
}

static void an_order_of_shards_that_is_told_counts(void **state)
{
    struct t_spread s = { .mesh = PW_DIMS(2, 2),
                          .at = PW_DIMS(0, 1),
                          .placements = PLACED(SHARD(0), SHARD(0)) };

    (void)state;
    check_rows(&s, 8, 2, 2);
    s.order = PW_DIMS(1, 0);
    check_rows(&s, 8, 4, 2);
    s.order = PW_DIMS(1, 1);
    GF_OK(parse_dtensor(PW_DIMS(2, 3), PW_DIMS(8, 3), &s, 0));
    assert_int_equal(result.is, GF_TORCH_UNSUPPORTED);
}

static void a_stride_that_no_mesh_dimension_explains_is_not_guessed(void **state)
{
    struct t_spread s = { .mesh = PW_DIMS(2, 2),
                          .at = PW_DIMS(0, 0),
                          .placements = PLACED({ "_StridedShard", 0, 3 }, SHARD(0)) };

    (void)state;
    GF_OK(parse_dtensor(PW_DIMS(2, 3), PW_DIMS(8, 3), &s, 0));
    assert_int_equal(result.is, GF_TORCH_UNSUPPORTED);
    assert_non_null(strstr(result.why, "order of shards"));
}

static void terms_of_a_sum_are_not_served(void **state)
{
    struct t_spread s = { .mesh = PW_DIMS(2),
                          .at = PW_DIMS(0),
                          .placements = PLACED({ "Partial", 0, 0 }) };

    (void)state;
    GF_OK(parse_dtensor(PW_DIMS(8, 3), PW_DIMS(8, 3), &s, 0));
    assert_int_equal(result.is, GF_TORCH_UNSUPPORTED);
    assert_non_null(strstr(result.why, "Partial"));
}

static void a_part_of_another_shape_than_the_mesh_says_is_refused(void **state)
{
    struct t_spread s = { .mesh = PW_DIMS(2),
                          .at = PW_DIMS(1),
                          .placements = PLACED(SHARD(0)) };

    (void)state;
    GF_FAILS(parse_dtensor(PW_DIMS(3, 3), PW_DIMS(4, 3), &s, 0), GF_EBAD,
             "this rank's part is [3, 3], by its device mesh it is [2, 3]");
}

static void impossible_meshes_are_refused(void **state)
{
    struct t_spread s = { .mesh = PW_DIMS(0),
                          .at = PW_DIMS(0),
                          .placements = PLACED(SHARD(0)) };

    (void)state;
    GF_FAILS(parse_dtensor(PW_DIMS(4), PW_DIMS(4), &s, 0), GF_EBAD,
             "impossible device mesh");
    s.mesh = PW_DIMS(INT64_MAX, INT64_MAX);
    GF_FAILS(parse_dtensor(PW_DIMS(4), PW_DIMS(4), &s, 0), GF_EBAD,
             "impossible device mesh");
    s.mesh = PW_DIMS(2);
    s.at = PW_DIMS(2);
    GF_FAILS(parse_dtensor(PW_DIMS(2), PW_DIMS(4), &s, 0), GF_EBAD, "coordinate 2");
    s.at = PW_DIMS(0, 0);
    GF_FAILS(parse_dtensor(PW_DIMS(2), PW_DIMS(4), &s, 0), GF_EBAD, "coordinates");
    s.at = PW_DIMS(0);
    s.placements = PLACED(SHARD(1));
    GF_FAILS(parse_dtensor(PW_DIMS(2), PW_DIMS(4), &s, 0), GF_EBAD, "placement");
    s.placements = PLACED(SHARD(0), SHARD(0));
    GF_FAILS(parse_dtensor(PW_DIMS(2), PW_DIMS(4), &s, 0), GF_EBAD, "2 placements");
}

static void shards_say_their_places_themselves(void **state)
{
    (void)state;
    GF_OK(parse_sharded(PW_DIMS(4, 0), PW_DIMS(2, 3), PW_DIMS(2, 3), PW_DIMS(6, 3)));
    assert_int_equal(result.is, GF_TORCH_TENSOR);
    assert_int_equal(result.dt.ranks, 4);
    assert_int_equal(result.dt.n, 1);
    assert_int_equal(result.dt.boxes[0].first[0], 4);
    assert_int_equal(result.dt.boxes[0].view.numel, 6);
}

static void shards_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    GF_FAILS(parse_sharded(PW_DIMS(5), PW_DIMS(2), PW_DIMS(2), PW_DIMS(6)), GF_EBAD,
             "starts at 5 and has 2 of 6");
    GF_FAILS(parse_sharded(PW_DIMS(INT64_MAX), PW_DIMS(2), PW_DIMS(2), PW_DIMS(6)), GF_EBAD,
             "starts at");
    GF_FAILS(parse_sharded(PW_DIMS(0), PW_DIMS(2), PW_DIMS(3), PW_DIMS(6)), GF_EBAD,
             "a shard is [2], its metadata says [3]");
    GF_FAILS(parse_sharded(PW_DIMS(0, 0), PW_DIMS(2), PW_DIMS(2), PW_DIMS(6)), GF_EBAD,
             "malformed shard");
}

static void other_values_are_not_ours(void **state)
{
    struct t_file f = { 0 };

    (void)state;
    pw_op(&f.w, "\x80\x02");
    t_values(&f, 0, PW_DIMS(2, 3));
    GF_OK(parse(&f, 0));
    assert_int_equal(result.is, GF_TORCH_OTHER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_are_rounded_up_and_the_last_ranks_have_less),
        cmocka_unit_test(every_form_of_the_mesh_is_read),
        cmocka_unit_test(without_coordinates_the_rank_counts_row_by_row),
        cmocka_unit_test(dimensions_are_cut_each_on_its_own),
        cmocka_unit_test(a_strided_shard_is_cut_after_those_on_its_right),
        cmocka_unit_test(an_order_of_shards_that_is_told_counts),
        cmocka_unit_test(a_stride_that_no_mesh_dimension_explains_is_not_guessed),
        cmocka_unit_test(terms_of_a_sum_are_not_served),
        cmocka_unit_test(a_part_of_another_shape_than_the_mesh_says_is_refused),
        cmocka_unit_test(impossible_meshes_are_refused),
        cmocka_unit_test(shards_say_their_places_themselves),
        cmocka_unit_test(shards_that_do_not_fit_are_refused),
        cmocka_unit_test(other_values_are_not_ours),
    };

    return cmocka_run_group_tests(tests, NULL, teardown);
}
