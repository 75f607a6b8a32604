/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "format/deepspeed_dir.h"
#include "format/deepspeed_tag.h"
#include "tests/unit/t_deepspeed.h"

static void names_are_taken_apart(void **state)
{
    static const struct {
        const char *name;
        struct gf_ds_name is;
    } good[] = {
        { "mp_rank_00_model_states.pt", { .kind = GF_DS_MODEL } },
        { "mp_rank_123_model_states.pt", { .kind = GF_DS_MODEL, .mp = 123 } },
        { "zero_pp_rank_10_mp_rank_02_model_states.pt",
          { .kind = GF_DS_MODEL3, .dp = 10, .mp = 2 } },
        { "bf16_zero_pp_rank_7_mp_rank_00_optim_states.pt",
          { .kind = GF_DS_OPTIM, .dp = 7 } },
        { "fp16_zero_pp_rank_7_mp_rank_00_optim_states.pt",
          { .kind = GF_DS_OPTIM, .dp = 7 } },
        { "zero_pp_rank_7_mp_rank_00optim_states.pt", { .kind = GF_DS_OPTIM, .dp = 7 } },
        { "layer_03-model_states.pt", { .kind = GF_DS_LAYER, .layer = 3 } },
        { "layer_03-model_01-model_states.pt",
          { .kind = GF_DS_LAYER, .layer = 3, .mp = 1 } },
        { "layer_2_expert_11_mp_rank_00_model_states.pt",
          { .kind = GF_DS_EXPERT, .layer = 2, .expert = 11 } },
        { "expert_11_mp_rank_00_model_states.pt",
          { .kind = GF_DS_EXPERT, .expert = 11, .bare_expert = true } },
    };
    static const char *const bad[] = {
        "",
        "latest",
        "mp_rank__model_states.pt",
        "mp_rank_00_model_states.pt.tmp",
        "xmp_rank_00_model_states.pt",
        "zero_pp_rank_-1_mp_rank_00_model_states.pt",
        "zero_pp_rank_9999999999_mp_rank_00_model_states.pt",
        "expp_rank_0_mp_rank_00_optim_states.pt",
        "layer_-model_states.pt",
    };
    struct gf_ds_name is;

    (void)state;
    for (size_t i = 0; i < GF_COUNT(good); i++) {
        assert_true(gf_ds_name_parse(good[i].name, &is));
        assert_int_equal(is.kind, good[i].is.kind);
        assert_int_equal(is.mp, good[i].is.mp);
        assert_int_equal(is.dp, good[i].is.dp);
        assert_int_equal(is.layer, good[i].is.layer);
        assert_int_equal(is.expert, good[i].is.expert);
        assert_int_equal(is.bare_expert, good[i].is.bare_expert);
    }
    for (size_t i = 0; i < GF_COUNT(bad); i++)
        assert_false(gf_ds_name_parse(bad[i], &is));
}

static void tags_are_found(void **state)
{
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_dir_listing tags = { 0 };
    struct gf_found found = { 0 };

    (void)state;
    GF_FAILS(read_dir(dir, NULL, false, &found), ENOENT, "no DeepSpeed checkpoint");
    dw_save(dir, TAG, &RUN(3, 3));
    GF_OK(read_dir(dir, NULL, false, &found)); /* the only one */
    assert_string_equal(found.tag, TAG);
    gf_found_done(&found);
    dw_save(dir, "best", &RUN(2, 3, .step = 3));
    dw_text(dir, "logs/x", "");
    GF_FAILS(read_dir(dir, NULL, false, &found), EINVAL,
             "several tags: 'best', 'global_step4'; choose one with tag=");
    dw_text(dir, "latest", " best \n");
    GF_OK(read_dir(dir, NULL, false, &found));
    assert_string_equal(found.tag, "best");
    assert_int_equal(found.step, 3);
    gf_found_done(&found);
    GF_OK(read_dir(dir, "4", false, &found)); /* step= */
    assert_string_equal(found.base, TAG);
    gf_found_done(&found);
    GF_FAILS(read_dir(dir, "step9", false, &found), ENOENT,
             "there are: 'best', 'global_step4'");
    GF_FAILS(read_dir(dir, "../run", false, &found), ENOENT, "no tag '../run'");

    GF_OK(gf_deepspeed_format.tags(dir, &tags, &t_err));
    assert_int_equal(tags.n, 2);
    assert_string_equal(tags.at[0].name, "best");
    assert_string_equal(tags.at[1].name, TAG);
    gf_dir_listing_free(&tags);
}

static void a_bad_latest_is_refused(void **state)
{
    static const struct {
        const char *text;
        int code;
        const char *words;
    } cases[] = {
        { "global_step9", GF_EINCOMPLETE,
          "'latest' names 'global_step9', which is not there" },
        { "../" TAG, GF_EBAD, "not inside the directory" },
        { "/" TAG, GF_EBAD, "not inside the directory" },
        { "", GF_EBAD, "a tag of 0 bytes" },
        { "a\nb", GF_EBAD, "not one line" },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        GF_AUTO(gf_dir) dir = a_dir();
        struct gf_found found = { 0 };

        dw_save(dir, TAG, &RUN(3, 3));
        dw_text(dir, "latest", cases[i].text);
        GF_FAILS(read_dir(dir, NULL, false, &found), cases[i].code, cases[i].words);
    }
}

static void a_tag_directory_is_a_source(void **state)
{
    struct opened o = { .dir = a_dir() };
    struct gf_dir_listing tags = { 0 };
    struct dw_run run = RUN(3, 3);

    (void)state;
    dw_save(o.dir, "", &run);
    GF_OK(read_dir(o.dir, NULL, false, &o.found));
    check_all(&o, &run);
    assert_string_equal(o.found.base, "");
    assert_true(o.found.parent_side);
    assert_string_equal(o.found.sources.at[0]->name,
                        "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt");
    GF_OK(gf_deepspeed_format.tags(o.dir, &tags, &t_err));
    assert_int_equal(tags.n, 0);
    gf_dir_listing_free(&tags);
    done(&o);
}

static void a_tag_without_model_files_is_found_to_say_what_is_missing(void **state)
{
    static const char missing[] = "missing 'global_step4/mp_rank_00_model_states.pt'";
    GF_AUTO(gf_dir) dir = a_dir();
    GF_AUTO(gf_dir) tag = a_dir();
    struct dw_run run = RUN(2, 3, .skip_model = 1);
    struct gf_dir_listing tags = { 0 };
    struct gf_found found = { 0 };
    char why[GF_WHY];

    (void)state;
    dw_save(dir, TAG, &run);
    dw_text(dir, "latest", TAG);
    assert_int_equal(gf_deepspeed_format.probe(dir, NULL, why), GF_DS_SURE_LOST);
    GF_FAILS(read_dir(dir, NULL, false, &found), GF_EINCOMPLETE, missing);
    GF_FAILS(read_dir(dir, TAG, false, &found), GF_EINCOMPLETE, missing);
    GF_FAILS(read_dir(dir, "4", true, &found), GF_EINCOMPLETE, missing);
    GF_OK(gf_deepspeed_format.tags(dir, &tags, &t_err)); /* it is no choice */
    assert_int_equal(tags.n, 0);
    gf_dir_listing_free(&tags);

    dw_save(tag, "", &run);
    assert_int_equal(gf_deepspeed_format.probe(tag, NULL, why), GF_DS_SURE_LOST);
    GF_FAILS(read_dir(tag, NULL, false, &found), GF_EINCOMPLETE,
             "missing 'mp_rank_00_model_states.pt'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_taken_apart),
        cmocka_unit_test(tags_are_found),
        cmocka_unit_test(a_bad_latest_is_refused),
        cmocka_unit_test(a_tag_directory_is_a_source),
        cmocka_unit_test(a_tag_without_model_files_is_found_to_say_what_is_missing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
