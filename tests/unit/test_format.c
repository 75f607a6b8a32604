/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "format/format.h"
#include "tests/unit/ds_write.h"

static struct gf_dir *a_dir(void)
{
    struct gf_dir *dir = NULL;

    GF_OK(gf_dir_mem("run", &gf_limits_default, &dir, &t_err));
    return dir;
}

static void nothing_known_is_said_with_what_was_looked_for(void **state)
{
    GF_AUTO(gf_dir) dir = a_dir();
    const struct gf_format *format = NULL;
    char why[GF_WHY];

    (void)state;
    dw_text(dir, "config.json", "{}");
    GF_FAILS(gf_format_detect(dir, NULL, NULL, &format, why, &t_err), ENOENT, "'run'");
    assert_non_null(strstr(t_err.text, "*_model_states.pt"));
    GF_FAILS(gf_format_detect(dir, "config.json", NULL, &format, why, &t_err), ENOENT,
             "'run/config.json'");
    assert_null(format);
}

static void a_root_and_a_tag_are_recognised_and_the_reason_is_told(void **state)
{
    static const struct dw_param params[] = { { .name = "w", .rank = 1, .dims = { 4 } } };
    static const struct dw_run run = { .params = params, .n = 1, .stage = 0, .world = 1 };
    GF_AUTO(gf_dir) root = a_dir();
    GF_AUTO(gf_dir) tag = a_dir();
    const struct gf_format *format = NULL;
    char why[GF_WHY];

    (void)state;
    dw_save(root, "global_step4", &run);
    GF_OK(gf_format_detect(root, NULL, NULL, &format, why, &t_err));
    assert_string_equal(format->name, "deepspeed");
    assert_non_null(strstr(why, "model files in 'global_step4'"));
    dw_text(root, "latest", "global_step4");
    GF_OK(gf_format_detect(root, NULL, NULL, &format, why, &t_err));
    assert_non_null(strstr(why, "'latest' names 'global_step4'"));
    dw_save(tag, "", &run);
    GF_OK(gf_format_detect(tag, NULL, NULL, &format, why, &t_err));
    assert_non_null(strstr(why, "'mp_rank_00_model_states.pt'"));
}

static void a_forced_format_is_taken_and_an_unknown_one_lists_the_names(void **state)
{
    GF_AUTO(gf_dir) dir = a_dir();
    const struct gf_format *format = NULL;
    char why[GF_WHY];

    (void)state;
    GF_OK(gf_format_detect(dir, NULL, "deepspeed", &format, why, &t_err));
    assert_string_equal(format->name, "deepspeed");
    GF_FAILS(gf_format_detect(dir, NULL, "zip", &format, why, &t_err), EINVAL,
             "no format 'zip'; there are: ");
}

static void a_lost_latest_is_still_recognised(void **state)
{
    GF_AUTO(gf_dir) dir = a_dir();
    const struct gf_format *format = NULL;
    char why[GF_WHY];

    (void)state;
    dw_text(dir, "latest", "global_step9");
    GF_OK(gf_format_detect(dir, NULL, NULL, &format, why, &t_err));
    assert_string_equal(format->name, "deepspeed");
}

static void sources_and_warnings_belong_to_what_was_found(void **state)
{
    struct gf_found found = { 0 };
    struct gf_source *src = NULL;
    uint32_t index = 9;

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        GF_OK(gf_source_mem("a", "abc", 3, &src, &t_err));
        GF_OK(gf_found_add_source(&found, src, &index, &t_err));
        assert_int_equal(index, i);
    }
    assert_int_equal(gf_found_warn(&found, "left out '%s'", "a\nb"), 0);
    assert_string_equal(found.warnings.at[0], "left out 'a?b'");
    gf_found_done(&found);
    assert_int_equal(found.sources.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_known_is_said_with_what_was_looked_for),
        cmocka_unit_test(a_root_and_a_tag_are_recognised_and_the_reason_is_told),
        cmocka_unit_test(a_forced_format_is_taken_and_an_unknown_one_lists_the_names),
        cmocka_unit_test(a_lost_latest_is_still_recognised),
        cmocka_unit_test(sources_and_warnings_belong_to_what_was_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
