/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "tests/unit/t_deepspeed.h"

static void missing_rank_files_are_named(void **state)
{
    static const struct {
        uint32_t optim, models;
        const char *words;
    } cases[] = {
        { 1 << 2, 0,
          "missing 'global_step4/bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt': "
          "ranks 0,1,3 of 4 are there" },
        { 1 << 3, 0,
          "missing 'global_step4/bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt': "
          "ranks 0-2 of 4 are there" },
        { 1 << 0, 0,
          "missing 'global_step4/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt'" },
        { 14, 0, "optim_states.pt' and 2 more: rank 0 of 4 is there" },
        { 15, 0, "no optimizer file is there" },
        { 0, 1 << 1,
          "missing 'global_step4/zero_pp_rank_1_mp_rank_00_model_states.pt': "
          "ranks 0,2,3 of 4 are there" },
        { 0, 1 << 3, "missing 'global_step4/zero_pp_rank_3_mp_rank_00_model_states.pt'" },
        { 0, 1 << 0, "missing 'global_step4/zero_pp_rank_0_mp_rank_00_model_states.pt'" },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        struct dw_run run =
            RUN(3, 4, .skip_optim = cases[i].optim, .skip_model = cases[i].models);

        GF_FAILS(save_and_fail(&run, false), GF_EINCOMPLETE, cases[i].words);
        /* No permission replaces bytes that are not there. */
        GF_FAILS(save_and_fail(&run, true), GF_EINCOMPLETE, cases[i].words);
    }
}

static void surplus_and_stale_files_are_named(void **state)
{
    struct dw_run more = RUN(3, 3, .extra_optim = 1);
    struct dw_run less = RUN(3, 3, .partition_count = 2);
    struct dw_run fewer = RUN(2, 3, .partition_count = 5);
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_found found = { 0 };

    (void)state;
    GF_FAILS(save_and_fail(&more, false), GF_EBAD,
             "surplus 'global_step4/bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt'");
    GF_FAILS(save_and_fail(&less, false), GF_EBAD, "surplus");
    GF_FAILS(save_and_fail(&fewer, false), GF_EINCOMPLETE, "ranks 0-2 of 5 are there");
    /* ZeRO-2 and ZeRO-3 in one directory; two files for one rank. */
    dw_save(dir, TAG, &RUN(3, 3));
    dw_save(dir, TAG, &RUN(2, 3));
    GF_FAILS(read_dir(dir, TAG, false, &found), GF_EBAD, "two checkpoints in one");
    dw_save(dir, "twice", &RUN(3, 3));
    dw_save(dir, "twice", &RUN(3, 3, .optim_prefix = ""));
    GF_FAILS(read_dir(dir, "twice", false, &found), GF_EBAD, "are both there");
}

static void what_cannot_be_served_is_refused_with_its_reason(void **state)
{
    static const struct {
        struct dw_run run;
        int code;
        const char *words;
    } cases[] = {
        { { .stage = 2, .mp = 1 }, ENOTSUP, "tensor parallel of degree 2" },
        { { .stage = 3, .mp = 1 }, ENOTSUP, "tensor parallel of degree 2" },
        { { .stage = 1, .mp_world = 4 }, ENOTSUP, "tensor parallel of degree 4" },
        { { .stage = 1, .tp_degree = 2 }, ENOTSUP, "tensor parallel of degree 2" },
        { { .stage = 3, .quantized = true }, ENOTSUP, "quantized" },
        { { .stage = 3, .other_dtype = true },
          ENOTSUP,
          "'cold' is 5 x I8, expected 5 x BF16" },
        { { .stage = 3, .autoep = true }, ENOTSUP, "AutoEP" },
        { { .stage = 3, .lying = 3, .numel_lie = -18 }, ENOTSUP, "NVMe swap files" },
        { { .stage = 3, .lying = 3, .numel_lie = 1 },
          GF_EBAD,
          "group 0 has 19 elements, its parameters need 18" },
        { { .stage = 3, .lying = 3, .numel_lie = -1 }, GF_EBAD, "need 18" },
        { { .stage = 3, .lying = 1, .numel_lie = 1 },
          GF_EBAD,
          "rank_1_mp_rank_00_optim_states.pt': group 0 is 18 x F32, in" },
        { { .stage = 2, .lying = 3, .numel_lie = -1 }, GF_EBAD, "its parameters need 49" },
        { { .stage = 2, .lying = 3, .numel_lie = 3 }, GF_EBAD, "its parameters need 49" },
        { { .stage = 2, .no_module = true }, GF_EINCOMPLETE, "no layer files" },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        struct dw_run run = cases[i].run;

        run.params = model;
        run.n = GF_COUNT(model);
        run.groups = 2;
        run.world = 3;
        GF_FAILS(save_and_fail(&run, false), cases[i].code, cases[i].words);
        assert_non_null(strstr(t_err.text, "'global_step4/"));
    }
}

static void shapes_that_disagree_are_refused(void **state)
{
    static const struct dw_param params[] = {
        { .name = "w", .rank = 2, .dims = { 3, 4 } }
    };
    static const struct dw_param turned[] = {
        { .name = "w", .rank = 2, .dims = { 4, 3 } }
    };
    struct dw_run run = RUN(2, 3);

    (void)state;
    run.params = params;
    run.module = turned;
    run.n = 1;
    run.groups = 1;
    GF_FAILS(save_and_fail(&run, false), GF_EBAD,
             "'w' is [4, 3] in 'module', and [3, 4] by its shapes");
    run.groups = 2;
    run.one_list = true;
    GF_FAILS(save_and_fail(&run, false), GF_EBAD, "2 groups, 'param_shapes' has 1");
}

static void a_broken_file_is_named_and_the_first_one_wins(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        GF_AUTO(gf_dir) dir = a_dir();
        struct gf_found found = { 0 };

        dw_save(dir, TAG, &RUN(3, 12));
        for (int r = 3; r < 12; r += 2) {
            char path[100];

            snprintf(path, sizeof(path),
                     TAG "/bf16_zero_pp_rank_%d_mp_rank_00_optim_states.pt", r);
            dw_text(dir, path, r == 3 ? "" : "garbage");
        }
        GF_FAILS(read_dir(dir, TAG, false, &found), GF_EBAD,
                 "'global_step4/bf16_zero_pp_rank_3_mp_rank_00_optim_states.pt'");
    }
}

static void a_broken_model_file_of_any_rank_is_noticed(void **state)
{
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_found found = { 0 };
    static const struct dw_param params[] = { { .name = "w", .rank = 1, .dims = { 9 } } };
    struct dw_run run = RUN(3, 3);

    (void)state;
    run.params = params; /* nothing frozen: only rank 0's is needed */
    run.n = 1;
    dw_save(dir, TAG, &run);
    dw_text(dir, TAG "/zero_pp_rank_2_mp_rank_00_model_states.pt", "PK");
    GF_FAILS(read_dir(dir, TAG, false, &found), GF_EBAD, "zero_pp_rank_2");
}

static void files_in_anothers_place_are_refused(void **state)
{
    static const char optim[] = TAG "/bf16_zero_pp_rank_%d_mp_rank_00_optim_states.pt";
    static const char from[] = "other/bf16_zero_pp_rank_%d_mp_rank_00_optim_states.pt";
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_found found = { 0 };

    (void)state;
    dw_save(dir, TAG, &RUN(3, 3));
    dw_save(dir, "other", &RUN(3, 3));
    for (int r = 1; r <= 2; r++) {
        char source[100], to[100];

        snprintf(source, sizeof(source), from, r);
        snprintf(to, sizeof(to), optim, 3 - r);
        copy_file(dir, source, to);
    }
    GF_FAILS(read_dir(dir, TAG, false, &found), GF_EBAD,
             "rank_1_mp_rank_00_optim_states.pt' was saved as "
             "'bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt'");
    /* No doubt about completeness, so no permission helps. */
    GF_FAILS(read_dir(dir, TAG, true, &found), GF_EBAD, "was saved as");
    copy_file(dir, "other/zero_pp_rank_1_mp_rank_00_model_states.pt",
              "other/zero_pp_rank_2_mp_rank_00_model_states.pt");
    GF_FAILS(read_dir(dir, "other", false, &found), GF_EBAD,
             "'other/zero_pp_rank_2_mp_rank_00_model_states.pt' was saved as");
}

static void files_of_another_step_are_refused(void **state)
{
    static const struct {
        struct dw_run run;
        const char *words;
    } cases[] = {
        { { .stage = 3, .step = 4, .stale_model = 2 },
          "zero_pp_rank_1_mp_rank_00_model_states.pt' is of step 3, "
          "'global_step4/zero_pp_rank_0_mp_rank_00_model_states.pt' of step 4" },
        { { .stage = 3, .updates = 4, .stale_optim = 4 },
          "rank_2_mp_rank_00_optim_states.pt': the optimizer has made 3 steps, in "
          "'global_step4/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt' 4" },
        { { .stage = 2, .updates = 4, .stale_optim = 2 }, "has made 3 steps" },
        { { .stage = 2, .updates = 4, .stale_optim = 2, .elastic = true },
          "has made 3 steps" },
        { { .stage = 1, .updates = 4, .stale_optim = 1 }, "has made 4 steps" },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        struct dw_run run = cases[i].run;

        run.params = model;
        run.n = GF_COUNT(model);
        run.groups = 2;
        run.world = 3;
        GF_FAILS(save_and_fail(&run, false), GF_EBAD, cases[i].words);
    }
}

static void a_weight_that_is_no_tensor_is_refused(void **state)
{
    static const struct {
        const char *name, *words;
    } cases[] = {
        { "embed", "parameter 'embed' is no tensor" },
        { "cold", "parameter 'cold' is no tensor" },
        { "head", "parameter 'head' is no tensor" },
        { "mask", "buffer 'mask' is no tensor" },
    };

    (void)state;
    for (int stage = 1; stage <= 3; stage++)
        for (size_t i = 0; i < GF_COUNT(cases); i++) {
            struct dw_run run = RUN(stage, 3, .odd = cases[i].name);

            GF_FAILS(save_and_fail(&run, false), GF_EBAD, cases[i].words);
        }
}

static void what_is_past_a_limit_is_refused(void **state)
{
    static const struct {
        struct gf_limits limits; /* 0: the default */
        const char *words;
    } cases[] = {
        { { .name = 3 }, "has 5 bytes, 3 are allowed" },
        { { .tensors = 9 }, "more than 9 names" },
        { { .pieces = 5 }, "more than 5 pieces" },
        { { .ranks = 2 }, "'partition_count' is 3, 1 to 2 ranks are allowed" },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        struct gf_limits limits = gf_limits_default;
        GF_AUTO(gf_dir) dir = a_dir();
        struct gf_format_in in = { .dir = dir, .tag = TAG, .limits = &limits };
        struct gf_found found = { 0 };

        dw_save(dir, TAG, &RUN(3, 3));
        if (cases[i].limits.name)
            limits.name = cases[i].limits.name;
        if (cases[i].limits.tensors)
            limits.tensors = cases[i].limits.tensors;
        if (cases[i].limits.pieces)
            limits.pieces = cases[i].limits.pieces;
        if (cases[i].limits.ranks)
            limits.ranks = cases[i].limits.ranks;
        GF_FAILS(gf_deepspeed_format.read(&in, &found, &t_err), GF_EBAD, cases[i].words);
        gf_found_done(&found);
    }
}

static void the_number_of_rank_files_is_limited(void **state)
{
    struct gf_limits limits = gf_limits_default;
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_format_in in = { .dir = dir, .tag = TAG, .limits = &limits };
    struct gf_found found = { 0 };
    struct dw_run run = RUN(3, 3, .partition_count = 2);

    (void)state;
    dw_save(dir, TAG, &run); /* three files, of which each says that there are two */
    limits.ranks = 2;
    GF_FAILS(gf_deepspeed_format.read(&in, &found, &t_err), GF_EBAD,
             "one of 3 rank files, 2 are allowed");
    gf_found_done(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_rank_files_are_named),
        cmocka_unit_test(surplus_and_stale_files_are_named),
        cmocka_unit_test(what_cannot_be_served_is_refused_with_its_reason),
        cmocka_unit_test(shapes_that_disagree_are_refused),
        cmocka_unit_test(a_broken_file_is_named_and_the_first_one_wins),
        cmocka_unit_test(a_broken_model_file_of_any_rank_is_noticed),
        cmocka_unit_test(files_in_anothers_place_are_refused),
        cmocka_unit_test(files_of_another_step_are_refused),
        cmocka_unit_test(a_weight_that_is_no_tensor_is_refused),
        cmocka_unit_test(what_is_past_a_limit_is_refused),
        cmocka_unit_test(the_number_of_rank_files_is_limited),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
