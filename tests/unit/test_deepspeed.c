/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "tests/unit/t_deepspeed.h"

static void each_stage_and_world_gathers_every_element(void **state)
{
    (void)state;
    for (int stage = 0; stage <= 3; stage++)
        for (uint32_t world = 1; world <= 12; world += world < 5 ? 1 : 7) {
            struct dw_run run = RUN(stage, world, .claims = DW_CLAIMS_RIGHT);
            struct opened o = save_and_read(&run, false);

            check_all(&o, &run);
            assert_int_equal(o.found.complete, GF_COMPLETE_YES);
            assert_true(o.found.has_step);
            assert_int_equal(o.found.step, 4);
            assert_string_equal(o.found.tag, TAG);
            assert_string_equal(o.found.base, TAG);
            assert_false(o.found.parent_side);
            assert_int_equal(o.found.warnings.n, 0);
            done(&o);
        }
}

static void tensors_come_in_the_order_of_the_state_dict(void **state)
{
    struct dw_run run = RUN(3, 3);
    struct opened o = save_and_read(&run, false);

    (void)state;
    assert_int_equal(gf_catalog_len(o.found.catalog), GF_COUNT(model));
    for (uint32_t i = 0; i < GF_COUNT(model); i++)
        assert_string_equal(gf_catalog_at(o.found.catalog, i)->name, model[i].name);
    assert_string_equal(o.found.sources.at[0]->name,
                        TAG "/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt");
    done(&o);
}

static void it_says_what_it_is(void **state)
{
    static const struct {
        struct dw_run run;
        const char *detail;
    } cases[] = {
        { { .stage = 3, .world = 4 }, "ZeRO stage 3, 4 ranks, bf16" },
        { { .stage = 2, .world = 1 }, "ZeRO stage 2, 1 rank, bf16" },
        { { .stage = 1, .world = 2, .bf16_optimizer = true },
          "ZeRO stage 1 (BF16_Optimizer), 2 ranks, bf16" },
        { { .stage = 0, .world = 1 }, "ZeRO stage 0, bf16" },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        struct dw_run run = cases[i].run;
        struct opened o;

        run.params = model;
        run.n = GF_COUNT(model);
        run.groups = 2;
        o = save_and_read(&run, false);
        assert_string_equal(o.found.detail, cases[i].detail);
        assert_string_equal(o.found.format, "deepspeed");
        assert_int_equal(o.found.step, 4); /* from the tag: the files do not say */
        done(&o);
    }
}

static void padding_and_gaps_between_parameters_are_skipped(void **state)
{
    (void)state;
    for (uint32_t world = 1; world <= 5; world++) {
        struct dw_run runs[] = {
            RUN(1, world, .bf16_optimizer = true),
            RUN(2, world, .gaps = true, .claims = DW_CLAIMS_RIGHT),
        };

        for (size_t i = 0; i < GF_COUNT(runs); i++) {
            struct opened o = save_and_read(&runs[i], false);

            check_all(&o, &runs[i]);
            done(&o);
        }
    }
}

static void sub_groups_may_be_one_long_vector(void **state)
{
    struct dw_run run = RUN(3, 3, .one_list = true);
    struct opened o;
    /* The groups' order is the order of one_list only if no parameter of group 0 comes
     * behind one of group 1. */
    static const struct dw_param params[] = {
        { .name = "a", .rank = 1, .dims = { 10 } },
        { .name = "b", .rank = 1, .dims = { 7 } },
        { .name = "c", .rank = 1, .dims = { 9 }, .group = 1 },
    };

    (void)state;
    run.params = params;
    run.n = 3;
    o = save_and_read(&run, false);
    check_all(&o, &run);
    done(&o);
}

static void old_versions_are_read(void **state)
{
    struct dw_run old = RUN(2, 3, .no_shared = true, .no_frozen_keys = true,
                            .old_shapes = true, .optim_prefix = "");
    struct opened o = save_and_read(&old, false);

    (void)state;
    check_all(&o, &old); /* `head` is tied by its storage */
    done(&o);
}

static void round_robin_slices_are_not_believed(void **state)
{
    struct dw_run run = RUN(2, 3, .claims = DW_CLAIMS_WRONG, .round_robin = true);
    struct opened o = save_and_read(&run, false);

    (void)state;
    check_all(&o, &run);
    done(&o);
    run.round_robin = false;
    GF_FAILS(save_and_fail(&run, false), GF_EBAD, "'param_slice_mappings' has");
}

static void excluded_weights_are_left_out_and_said(void **state)
{
    static const struct dw_param params[] = {
        { .name = "base", .role = DW_EXCLUDED, .rank = 1, .dims = { 4 } },
        { .name = "lora", .rank = 1, .dims = { 6 } },
        { .name = "base2", .role = DW_EXCLUDED, .rank = 1, .dims = { 4 } },
    };
    struct dw_run run = RUN(3, 3, .none_frozen = true);
    struct opened o;

    (void)state;
    run.params = params;
    run.n = 3;
    o = save_and_read(&run, false);
    check_all(&o, &run);
    assert_int_equal(o.found.complete, GF_COMPLETE_YES);
    assert_int_equal(o.found.warnings.n, 1);
    assert_non_null(strstr(o.found.warnings.at[0], "2 parameters"));
    assert_non_null(strstr(o.found.warnings.at[0], "'base'"));
    assert_int_equal(o.found.left_out.n, 2);
    assert_string_equal(o.found.left_out.at[0], "base");
    assert_string_equal(o.found.left_out.at[1], "base2");
    done(&o);
    /* Before 0.9.1 nobody asked for that: the weights are lost. */
    run.none_frozen = false;
    run.no_frozen_keys = true;
    GF_FAILS(save_and_fail(&run, false), GF_EINCOMPLETE, "no bytes for 2 parameters");
    o = save_and_read(&run, true);
    assert_int_equal(o.found.complete, GF_COMPLETE_NO);
    assert_int_equal(o.found.left_out.n, 0); /* they may be tied to what was trained */
    check_all(&o, &run);
    done(&o);
}

static void a_trained_parameter_outside_of_the_state_dict_is_served(void **state)
{
    static const struct dw_param params[] = {
        { .name = "seen", .rank = 1, .dims = { 6 } },
        { .name = "unseen", .role = DW_HIDDEN, .rank = 1, .dims = { 5 } },
    };
    struct dw_run run = RUN(3, 3);
    struct opened o;

    (void)state;
    run.params = params;
    run.n = 2;
    o = save_and_read(&run, false);
    check_master(&o, find(&o, "unseen"), 1);
    assert_non_null(strstr(o.found.warnings.at[0], "'unseen'"));
    done(&o);
}

static void below_zero3_the_model_file_may_do(void **state)
{
    (void)state;
    for (uint32_t skip = 1; skip < 8; skip++) {
        struct dw_run run = RUN(2, 3, .skip_optim = skip), as = RUN(0, 3);
        struct opened o;

        GF_FAILS(save_and_fail(&run, false), GF_EINCOMPLETE,
                 "missing 'global_step4/bf16_zero");
        o = save_and_read(&run, true);
        assert_int_equal(o.found.complete, GF_COMPLETE_NO);
        assert_non_null(strstr(o.found.why, "missing"));
        assert_int_equal(o.found.warnings.n, 1);
        assert_int_equal(o.found.sources.n, 1);
        for (size_t i = 0; i < as.n; i++)
            check_live(&o, find(&o, model[i].name),
                       model[i].role == DW_TIED ? model[i].tied_to : i);
        done(&o);
    }
}

static void optimizer_files_without_shapes_are_not_needed(void **state)
{
    struct opened o = { .dir = a_dir() };
    struct dw_run zero0 = RUN(0, 1);

    (void)state;
    dw_save(o.dir, TAG, &RUN(2, 3));
    dw_save(o.dir, "other", &zero0);
    copy_file(o.dir, "other/mp_rank_00_model_states.pt", TAG "/mp_rank_00_model_states.pt");
    GF_OK(read_dir(o.dir, TAG, false, &o.found));
    check_all(&o, &zero0);
    done(&o);
}

static void entries_that_are_no_tensors_are_left_out_and_said(void **state)
{
    struct dw_run run = RUN(2, 2, .extra_state = true);
    struct opened o = save_and_read(&run, false);

    (void)state;
    check_all(&o, &run);
    assert_non_null(strstr(o.found.warnings.at[0], "'block._extra_state'"));
    done(&o);
}

static void files_saved_through_memory_or_renamed_by_hand_are_read(void **state)
{
    static const char *const archives[] = { "archive", "zero_pp_rank_1_of_mine", "" };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(archives); i++) {
        struct dw_run run = RUN(3, 3, .archive = archives[i]);
        struct opened o = save_and_read(&run, false);

        check_all(&o, &run);
        done(&o);
    }
}

static void ranks_that_step_together_are_read(void **state)
{
    (void)state;
    for (int stage = 1; stage <= 3; stage++) {
        struct dw_run run = RUN(stage, 3, .updates = 7, .step = 9, .elastic = stage == 2);
        struct opened o = save_and_read(&run, false);

        check_all(&o, &run);
        assert_int_equal(o.found.step, 9);
        done(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_stage_and_world_gathers_every_element),
        cmocka_unit_test(tensors_come_in_the_order_of_the_state_dict),
        cmocka_unit_test(it_says_what_it_is),
        cmocka_unit_test(padding_and_gaps_between_parameters_are_skipped),
        cmocka_unit_test(sub_groups_may_be_one_long_vector),
        cmocka_unit_test(old_versions_are_read),
        cmocka_unit_test(round_robin_slices_are_not_believed),
        cmocka_unit_test(excluded_weights_are_left_out_and_said),
        cmocka_unit_test(a_trained_parameter_outside_of_the_state_dict_is_served),
        cmocka_unit_test(below_zero3_the_model_file_may_do),
        cmocka_unit_test(optimizer_files_without_shapes_are_not_needed),
        cmocka_unit_test(entries_that_are_no_tensors_are_left_out_and_said),
        cmocka_unit_test(files_saved_through_memory_or_renamed_by_hand_are_read),
        cmocka_unit_test(ranks_that_step_together_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
