/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "tests/unit/t_deepspeed.h"

/* ds_to_universal copies the model files and writes each master to a file of its own. */
static void save_universal(struct gf_dir *dir, const char *tag, const struct dw_run *run)
{
    struct dw_run models = *run;
    char path[200];

    models.skip_optim = UINT32_MAX;
    dw_save(dir, tag, &models);
    for (size_t i = 0; i < run->n; i++) {
        snprintf(path, sizeof(path), "%s/zero/%s/fp32.pt", tag, run->params[i].name);
        if (run->params[i].role == DW_TRAINED)
            dw_universal(dir, path, &run->params[i], i);
    }
    snprintf(path, sizeof(path), "%s/zero/optimizer_state.pt", tag);
    dw_text(dir, path, "");
}

static void universal_checkpoints_are_one_file_a_master(void **state)
{
    (void)state;
    for (int stage = 1; stage <= 3; stage++) {
        struct dw_run run = RUN(stage, 3);
        struct opened o = { .dir = a_dir() };

        save_universal(o.dir, TAG "_universal", &run);
        dw_text(o.dir, "latest_universal", TAG "_universal");
        GF_OK(read_dir(o.dir, NULL, false, &o.found));
        check_all(&o, &run);
        assert_int_equal(o.found.complete, GF_COMPLETE_YES);
        assert_int_equal(strncmp(o.found.detail, "universal", 9), 0);
        done(&o);
    }
}

static void a_missing_universal_file_is_named(void **state)
{
    static const struct dw_param odd[] = {
        { .name = "../../w", .rank = 1, .dims = { 2 } }
    };
    struct dw_run run = RUN(3, 3), escape = RUN(3, 3);
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_found found = { 0 };
    struct dw_param twice[2] = { model[0], model[8] };

    (void)state;
    run.params = twice;
    run.n = 2;
    run.groups = 1;
    save_universal(dir, "u", &run);
    dw_universal(dir, "u/zero/last/fp32.pt", &model[0], 0);
    GF_FAILS(read_dir(dir, "u", false, &found), GF_EBAD,
             "'u/zero/last/fp32.pt': 35 elements, the parameter has 13");
    twice[1].role = DW_HIDDEN; /* not written any more */
    save_universal(dir, "v", &run);
    GF_FAILS(read_dir(dir, "v", false, &found), GF_EINCOMPLETE,
             "missing 'v/zero/last/fp32.pt'");
    escape.params = odd;
    escape.n = 1;
    escape.skip_optim = UINT32_MAX;
    dw_save(dir, "w", &escape);
    dw_text(dir, "w/zero/x", "");
    GF_FAILS(read_dir(dir, "w", false, &found), GF_EBAD, "cannot be a directory's name");
}

static void experts_come_from_their_own_files(void **state)
{
    static const struct dw_param expert[] = {
        { .name = "moe.experts.0.w", .rank = 1, .dims = { 5 } },
        { .name = "moe.experts.1.w", .rank = 1, .dims = { 5 } },
    };
    struct dw_run run = RUN(2, 3, .experts = (const int64_t[]){ 2, -1 });
    struct opened o = { .dir = a_dir() };
    struct gf_found found = { 0 };

    (void)state;
    dw_save(o.dir, TAG, &run);
    dw_state(o.dir, TAG "/layer_0_expert_1_mp_rank_00_model_states.pt", expert, 2);
    GF_FAILS(read_dir(o.dir, TAG, false, &found), GF_EINCOMPLETE,
             "missing 'global_step4/layer_0_expert_0_mp_rank_00_model_states.pt'");
    dw_state(o.dir, TAG "/layer_0_expert_0_mp_rank_00_model_states.pt", expert, 1);
    dw_state(o.dir, TAG "/layer_0_expert_1_mp_rank_00_model_states.pt", &expert[1], 1);
    GF_OK(read_dir(o.dir, TAG, false, &o.found));
    check_live(&o, find(&o, "moe.experts.0.w"), 0);
    check_live(&o, find(&o, "moe.experts.1.w"), 0);
    check_master(&o, find(&o, "embed"), 0);
    dw_state(o.dir, TAG "/layer_0_expert_2_mp_rank_00_model_states.pt", expert, 1);
    GF_FAILS(read_dir(o.dir, TAG, false, &found), GF_EBAD, "surplus");
    done(&o);
}

static void pipelines_are_read_layer_by_layer(void **state)
{
    static const struct dw_param first[] = { { .name = "0.w", .rank = 1, .dims = { 5 } } };
    static const struct dw_param second[] = {
        { .name = "2.w", .rank = 1, .dims = { 6 } },
        { .name = "12.w", .rank = 1, .dims = { 7 } }
    };
    static const struct dw_param bare[] = { { .name = "w", .rank = 1, .dims = { 5 } } };
    static const struct dw_param bare6[] = { { .name = "w", .rank = 1, .dims = { 6 } } };
    static const struct dw_param bare7[] = { { .name = "w", .rank = 1, .dims = { 7 } } };
    struct dw_run run = RUN(1, 2, .no_module = true, .mp_world = 2);
    struct opened o = { .dir = a_dir() };
    struct gf_found found = { 0 };

    (void)state;
    run.groups = 1;
    run.params = first;
    run.n = 1;
    dw_save(o.dir, TAG, &run);
    dw_state(o.dir, TAG "/layer_00-model_states.pt", bare, 1);
    dw_state(o.dir, TAG "/layer_02-model_states.pt", bare6, 1);
    GF_FAILS(read_dir(o.dir, TAG, false, &found), GF_EINCOMPLETE,
             "missing 'global_step4/mp_rank_01_model_states.pt'");
    run.params = second;
    run.n = 2;
    run.mp = 1;
    dw_save(o.dir, TAG, &run);
    GF_FAILS(read_dir(o.dir, TAG, false, &found), GF_EINCOMPLETE,
             "no file has the weights of '12.w'");
    dw_state(o.dir, TAG "/layer_12-model_states.pt", bare7, 1);
    GF_OK(read_dir(o.dir, TAG, false, &o.found));
    check_master(&o, find(&o, "0.w"), 0);
    check_master(&o, find(&o, "2.w"), 0);
    check_master(&o, find(&o, "12.w"), 1);
    check_live(&o, gf_catalog_at(o.found.catalog, find(&o, "12.w")->copy), 0);
    assert_int_equal(o.found.complete, GF_COMPLETE_YES);
    dw_state(o.dir, TAG "/layer_12-model_01-model_states.pt", bare7, 1);
    GF_FAILS(read_dir(o.dir, TAG, false, &found), ENOTSUP, "tensor parallel of degree 2");
    done(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(universal_checkpoints_are_one_file_a_master),
        cmocka_unit_test(a_missing_universal_file_is_named),
        cmocka_unit_test(experts_come_from_their_own_files),
        cmocka_unit_test(pipelines_are_read_layer_by_layer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
