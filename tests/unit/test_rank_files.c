/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "format/rank_files.h"
#include "t_torch.h"

struct fixture {
    struct gf_dir *dir;
    struct gf_found found;
};

static int setup(void **state)
{
    static struct fixture fixture;

    fixture = (struct fixture){ .dir = t_dir() };
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    gf_found_done(&f->found);
    gf_dir_free(f->dir);
    return 0;
}

static int read_all(struct fixture *f)
{
    struct gf_format_in in = t_in(f->dir);

    gf_found_done(&f->found);
    return gf_rank_files_format.read(&in, &f->found, &t_err);
}

static const char *path_of(const char *pattern, int rank)
{
    static char path[64];

    snprintf(path, sizeof(path), "%s%d.pt", pattern, rank);
    return path;
}

/* 'w' [5, 2] on two ranks, 'b' [3] whole on both. */
static void add_rank(struct fixture *f, const char *pattern, int rank, int64_t ranks,
                     float first)
{
    int64_t rows = rank == 0 ? 3 : 2;
    struct t_file file;

    t_file_begin(&file);
    t_shard0(&file, "w", first, PW_DIMS(rows, 2), PW_DIMS(5, 2), ranks, rank);
    t_plain(&file, "b", 100, PW_DIMS(3));
    t_file_end(&file, f->dir, path_of(pattern, rank));
}

static void names_of_rank_files_are_told_from_others(void **state)
{
    static const char *const none[] = {
        "optim_world_size_2_rank_0.pt", "extra_state_world_size_2_rank_0.pt",
        "optimizer_0_rank0.bin",        "model_world_size_0_rank_0.pt",
        "model_world_size_2_rank_.pt",  "rank_0.json",
        "pytorch_model_fsdp_rank.bin",  "rng_state_0.pth",
        "rank_99999999999.pt",          "pytorch_model_fsdp.bin",
    };
    struct gf_rank_name is;

    (void)state;
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        if (gf_rank_name_parse(none[i], &is))
            fail_msg("%s", none[i]);
    assert_true(gf_rank_name_parse("model_world_size_16_rank_11.pt", &is));
    assert_int_equal(is.kind, GF_RANK_VERL);
    assert_int_equal(is.world, 16);
    assert_int_equal(is.rank, 11);
    assert_true(gf_rank_name_parse("pytorch_model_fsdp_0_rank3.bin", &is));
    assert_int_equal(is.kind, GF_RANK_ACCELERATE);
    assert_true(gf_rank_name_parse("pytorch_model_fsdp_rank3.bin", &is));
    assert_int_equal(is.kind, GF_RANK_LOCAL);
    assert_true(gf_rank_name_parse("rank_1.pt", &is));
    assert_true(gf_rank_name_parse("model_rank1.pth", &is));
    assert_int_equal(is.kind, GF_RANK_PLAIN);
}

static void parts_of_all_ranks_make_the_tensor(void **state)
{
    struct fixture *f = *state;

    add_rank(f, "model_world_size_2_rank_", 0, 2, 0);
    add_rank(f, "model_world_size_2_rank_", 1, 2, 6);
    GF_OK(read_all(f));
    GF_OK(t_check(&f->found));
    assert_int_equal(f->found.complete, GF_COMPLETE_YES);
    assert_int_equal(gf_catalog_len(f->found.catalog), 2);
    T_ELEMENTS(&f->found, "w", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9);
    T_ELEMENTS(&f->found, "b", 100, 101, 102);
}

static void a_missing_rank_is_named_by_the_world_in_the_names(void **state)
{
    struct fixture *f = *state;

    add_rank(f, "model_world_size_2_rank_", 1, 2, 6);
    GF_FAILS(read_all(f), GF_EINCOMPLETE,
             "missing 'model_world_size_2_rank_0.pt': 1 of 2 rank files");
}

static void a_missing_rank_is_named_by_the_mesh_in_the_pickles(void **state)
{
    struct fixture *f = *state;

    add_rank(f, "rank_", 0, 2, 0);
    GF_FAILS(read_all(f), GF_EINCOMPLETE, "missing 'rank_1.pt': 1 of 2 rank files");
}

static void a_missing_part_is_a_hole_even_when_it_is_allowed(void **state)
{
    struct fixture *f = *state;
    struct gf_format_in in = t_in(f->dir);

    in.allow_incomplete = true;
    add_rank(f, "rank_", 0, 2, 0);
    GF_OK(gf_rank_files_format.read(&in, &f->found, &t_err));
    assert_int_equal(f->found.complete, GF_COMPLETE_NO);
    GF_FAILS(t_check(&f->found), GF_EINCOMPLETE, "'w'");
}

static void replicas_count_once(void **state)
{
    struct fixture *f = *state;

    for (int rank = 0; rank < 4; rank++) {
        struct t_spread s = {
            .mesh = PW_DIMS(2, 2),
            .at = PW_DIMS(rank / 2, rank % 2),
            .placements =
                (struct t_placement[]){ { "Replicate", 0, 0 }, { "Shard", 0, 0 }, { 0 } },
        };
        struct t_file file;

        t_file_begin(&file);
        pw_str(&file.w, "w");
        t_dtensor_value(&file, (float)(rank % 2) * 2, PW_DIMS(2), PW_DIMS(4), &s);
        t_file_end(&file, f->dir, path_of("rank_", rank));
    }
    GF_OK(read_all(f));
    GF_OK(t_check(&f->found));
    T_ELEMENTS(&f->found, "w", 0, 1, 2, 3);
}

static void columns_become_boxes(void **state)
{
    struct fixture *f = *state;

    for (int rank = 0; rank < 2; rank++) {
        struct t_spread s = { .mesh = PW_DIMS(2),
                              .at = PW_DIMS(rank),
                              .placements =
                                  (struct t_placement[]){ { "Shard", 1, 0 }, { 0 } } };
        struct t_file file;

        t_file_begin(&file);
        pw_str(&file.w, "w");
        t_dtensor_value(&file, (float)rank * 10, PW_DIMS(2, 2), PW_DIMS(2, 4), &s);
        t_file_end(&file, f->dir, path_of("rank_", rank));
    }
    GF_OK(read_all(f));
    GF_OK(t_check(&f->found));
    T_ELEMENTS(&f->found, "w", 0, 1, 10, 11, 2, 3, 12, 13);
}

static void ranks_that_disagree_on_a_tensor_are_refused(void **state)
{
    struct fixture *f = *state;

    for (int rank = 0; rank < 2; rank++) {
        struct t_file file;

        t_file_begin(&file);
        t_plain(&file, "w", 0, PW_DIMS(2 + rank));
        t_file_end(&file, f->dir, path_of("rank_", rank));
    }
    GF_FAILS(read_all(f), GF_EBAD, "tensor 'w' is float32 [2] in 'rank_0.pt'");
}

static void plain_tensors_alone_prove_nothing(void **state)
{
    struct fixture *f = *state;

    for (int rank = 0; rank < 2; rank++) {
        struct t_file file;

        t_file_begin(&file);
        t_plain(&file, "w", 0, PW_DIMS(2));
        t_file_end(&file, f->dir, path_of("rank_", rank));
    }
    GF_OK(read_all(f));
    assert_int_equal(f->found.complete, GF_COMPLETE_UNKNOWN);
}

static void one_rank_alone_is_whole(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    t_plain(&file, "w", 0, PW_DIMS(2));
    t_file_end(&file, f->dir, "model_world_size_1_rank_0.pt");
    GF_OK(read_all(f));
    assert_int_equal(f->found.complete, GF_COMPLETE_YES);
}

static void stale_files_of_a_larger_run_overlap(void **state)
{
    struct fixture *f = *state;

    add_rank(f, "rank_", 0, 2, 0);
    add_rank(f, "rank_", 1, 2, 6);
    for (int rank = 2; rank < 4; rank++) {
        struct t_file file;

        t_file_begin(&file);
        t_shard0(&file, "w", 0, PW_DIMS(rank == 2 ? 1 : 0, 2), PW_DIMS(5, 2), 4, rank);
        t_file_end(&file, f->dir, path_of("rank_", rank));
    }
    GF_OK(read_all(f));
    GF_FAILS(t_check(&f->found), GF_EBAD, "overlap");
}

static void two_worlds_in_one_directory_are_refused(void **state)
{
    struct fixture *f = *state;
    char why[GF_WHY];

    add_rank(f, "model_world_size_2_rank_", 0, 2, 0);
    add_rank(f, "model_world_size_4_rank_", 0, 4, 0);
    GF_FAILS(read_all(f), GF_EBAD, "different numbers of ranks");
    assert_int_equal(gf_rank_files_format.probe(f->dir, NULL, why), GF_RANKS_SURE);
}

static void a_second_model_is_left_out_with_a_warning(void **state)
{
    struct fixture *f = *state;

    for (int model = 0; model < 2; model++) {
        struct t_file file;
        char path[64];

        snprintf(path, sizeof(path), "pytorch_model_fsdp_%d_rank0.bin", model);
        t_file_begin(&file);
        t_shard0(&file, "w", (float)model, PW_DIMS(2), PW_DIMS(2), 1, 0);
        t_file_end(&file, f->dir, path);
    }
    GF_OK(read_all(f));
    assert_int_equal(f->found.warnings.n, 1);
    assert_non_null(strstr(f->found.warnings.at[0], "pytorch_model_fsdp_1_rank0.bin"));
    T_ELEMENTS(&f->found, "w", 0, 1);
}

static void a_directory_without_rank_files_is_not_ours(void **state)
{
    struct fixture *f = *state;
    char why[GF_WHY];

    GF_OK(gf_dir_mem_add(f->dir, "optim_world_size_2_rank_0.pt", "x", 1, &t_err));
    GF_OK(gf_dir_mem_add(f->dir, "optimizer_0_rank0.bin", "x", 1, &t_err));
    assert_int_equal(gf_rank_files_format.probe(f->dir, NULL, why), 0);
    GF_FAILS(read_all(f), ENOENT, "no '*_rank_0.pt'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_rank_files_are_told_from_others),
        cmocka_unit_test_setup_teardown(parts_of_all_ranks_make_the_tensor, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_missing_rank_is_named_by_the_world_in_the_names,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_rank_is_named_by_the_mesh_in_the_pickles,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_part_is_a_hole_even_when_it_is_allowed,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(replicas_count_once, setup, teardown),
        cmocka_unit_test_setup_teardown(columns_become_boxes, setup, teardown),
        cmocka_unit_test_setup_teardown(ranks_that_disagree_on_a_tensor_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(plain_tensors_alone_prove_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(one_rank_alone_is_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(stale_files_of_a_larger_run_overlap, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(two_worlds_in_one_directory_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_second_model_is_left_out_with_a_warning, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_directory_without_rank_files_is_not_ours, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
