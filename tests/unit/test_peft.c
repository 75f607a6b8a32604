/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <math.h>
#include <time.h>

#include "base/text.h"
#include "view/peft.h"

/* The config behind *ret, which borrows it. */
static struct gf_json *config;

static int parse(const char *text, struct gf_peft **ret)
{
    gf_json_free(config);
    config = NULL;
    GF_OK(gf_json_parse("adapter_config.json", text, strlen(text), &gf_limits_default,
                        &config, &t_err));
    return gf_peft_new(config, ret, &t_err);
}

static struct gf_peft *peft_of(const char *text)
{
    struct gf_peft *peft = NULL;

    GF_OK(parse(text, &peft));
    return peft;
}

static int forget_config(void **state)
{
    (void)state;
    gf_json_free(config);
    config = NULL;
    return 0;
}

static void lora_is_read_with_its_defaults(void **state)
{
    GF_AUTO(gf_peft) peft = peft_of("{\"peft_type\":\"LORA\"}");

    (void)state;
    assert_int_equal(peft->type, GF_PEFT_LORA);
    assert_string_equal(peft->why_not, "");
    assert_int_equal(peft->r, 8);
    assert_true(peft->alpha == 8);
    assert_false(peft->rslora || peft->dora || peft->fan_in_fan_out || peft->tokens);
    assert_int_equal(peft->bias, GF_PEFT_BIAS_NONE);
}

static void the_scale_is_alpha_by_r_or_its_root(void **state)
{
    GF_AUTO(gf_peft) peft = peft_of("{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":16}");
    GF_AUTO(gf_peft) rs = NULL;

    (void)state;
    assert_true(gf_peft_rank_of(peft, "q").scale == 4);
    rs = peft_of("{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":16,\"use_rslora\":true}");
    assert_true(gf_peft_rank_of(rs, "q").scale == 16 / sqrt(3));
}

static void loha_calls_it_alpha(void **state)
{
    GF_AUTO(gf_peft)
    peft = peft_of("{\"peft_type\":\"LOHA\",\"r\":4,\"alpha\":2,\"lora_alpha\":9}");

    (void)state;
    assert_true(gf_peft_rank_of(peft, "q").scale == 0.5);
}

static void the_first_pattern_that_matches_decides(void **state)
{
    static const struct {
        const char *module;
        uint64_t r;
        double scale;
    } cases[] = {
        { "model.layers.0.q_proj", 16, 1 },   { "q_proj", 16, 1 },
        { "model.layers.1.q_proj", 2, 8 },    { "model.layers.11.q_proj", 16, 1 },
        { "model.layers.0.xq_proj", 4, 4 },   { "model.layers.0.q_proj.x", 4, 4 },
        { "model.layers.0.v_proj", 4, 0.25 },
    };
    GF_AUTO(gf_peft)
    peft = peft_of(
        "{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":16,"
        "\"rank_pattern\":{\"layers\\\\.1\\\\.q_proj\":2,\"q_proj\":16,\"q_proj|o\":3},"
        "\"alpha_pattern\":{\"v_proj\":1}}");
    const char *field;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gf_peft_rank rank = gf_peft_rank_of(peft, cases[i].module);

        assert_int_equal(rank.r, cases[i].r);
        assert_true(rank.scale == cases[i].scale);
    }
    assert_null(gf_peft_unused(peft, &field));
}

static void patterns_that_match_nothing_are_named(void **state)
{
    GF_AUTO(gf_peft)
    peft = peft_of("{\"peft_type\":\"LORA\",\"rank_pattern\":{\"q\":2},"
                   "\"alpha_pattern\":{\"nowhere\":1}}");
    const char *field;

    (void)state;
    assert_string_equal(gf_peft_unused(peft, &field), "q");
    assert_string_equal(field, "rank_pattern");
    gf_peft_rank_of(peft, "h.0.q");
    assert_string_equal(gf_peft_unused(peft, &field), "nowhere");
    assert_string_equal(field, "alpha_pattern");
}

static void a_rank_that_is_none_is_no_rank(void **state)
{
    GF_AUTO(gf_peft)
    peft = peft_of("{\"peft_type\":\"LORA\",\"rank_pattern\":"
                   "{\"a\":0,\"b\":-1,\"c\":2.5,\"d\":1e30}}");
    static const char *const modules[] = { "a", "b", "c", "d" };

    (void)state;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(gf_peft_rank_of(peft, modules[i]).r, 0);
}

/* Catastrophic backtracking: each name would take as long as the first. (Without a 'b' in the
 * name PCRE2 knows at once.) */
static void a_pattern_that_never_ends_is_given_up(void **state)
{
    GF_AUTO(gf_peft)
    peft = peft_of("{\"peft_type\":\"LORA\",\"rank_pattern\":{\"(a|aa|a*)*b\":2}}");
    const char *field = NULL;
    char name[64];

    (void)state;
    assert_int_equal(gf_peft_rank_of(peft, "q").r, 8);
    assert_null(gf_peft_too_slow(peft, &field));
    for (int i = 0; i < 20000; i++) {
        snprintf(name, sizeof(name), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa%dbx", i);
        assert_int_equal(gf_peft_rank_of(peft, name).r, 0);
    }
    assert_string_equal(gf_peft_too_slow(peft, &field), "(a|aa|a*)*b");
    assert_string_equal(field, "rank_pattern");
}

static double seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

/* Each of them ends well within the bound of one match: all together would take minutes. */
static void patterns_share_a_budget(void **state)
{
    struct gf_text text = { 0 };
    GF_AUTO(gf_peft) peft = NULL;
    GF_AUTO_MEM char *config_text = NULL;
    double start = seconds();
    const char *field = NULL;
    char name[80];

    (void)state;
    gf_text_add(&text, "{\"peft_type\":\"LORA\",\"alpha_pattern\":{");
    for (int i = 0; i < 1000; i++)
        gf_text_printf(&text, "%s\".*.*[!?]N?%d\":2", i ? "," : "", i);
    gf_text_add(&text, "}}");
    config_text = gf_text_take(&text, NULL);
    peft = peft_of(config_text);
    for (int i = 0; i < 10000; i++) {
        snprintf(name, sizeof(name), "model.layers.%d.self_attn.q_proj", i);
        gf_peft_rank_of(peft, name);
    }
    assert_non_null(gf_peft_too_slow(peft, &field));
    assert_string_equal(field, "alpha_pattern");
    assert_true(seconds() - start < 5);
}

/* EVA writes one for each module. */
static void as_many_patterns_as_modules_are_fine(void **state)
{
    struct gf_text text = { 0 };
    GF_AUTO(gf_peft) peft = NULL;
    GF_AUTO_MEM char *config_text = NULL;
    const char *field;
    char name[80];

    (void)state;
    gf_text_add(&text, "{\"peft_type\":\"LORA\",\"rank_pattern\":{");
    for (int i = 0; i < 300; i++)
        gf_text_printf(&text, "%s\"model.layers.%d.self_attn.q_proj\":%d", i ? "," : "", i,
                       i + 1);
    gf_text_add(&text, "}}");
    config_text = gf_text_take(&text, NULL);
    peft = peft_of(config_text);
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof(name), "model.layers.%d.self_attn.q_proj", i);
        assert_int_equal(gf_peft_rank_of(peft, name).r, i + 1);
    }
    assert_null(gf_peft_too_slow(peft, &field));
}

static void what_cannot_be_merged_says_why(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        { "{}", "no peft_type" },
        { "{\"peft_type\":7}", "no peft_type" },
        { "{\"peft_type\":\"NOVEL\"}", "peft_type 'NOVEL' is not known here" },
        { "{\"peft_type\":\"OFT\"}", "peft_type OFT is not merged" },
        { "{\"peft_type\":\"ADALORA\"}", "peft_type ADALORA is not merged" },
        { "{\"peft_type\":\"PROMPT_TUNING\"}", "a prompt changes no weights" },
        { "{\"peft_type\":\"LORA\",\"use_qalora\":true}", "use_qalora is set" },
        { "{\"peft_type\":\"LORA\",\"use_bdlora\":{\"nblocks\":2}}", "use_bdlora is set" },
        { "{\"peft_type\":\"LORA\",\"alora_invocation_tokens\":[1]}", "alora" },
        { "{\"peft_type\":\"LORA\",\"use_qalora\":false,\"alora_invocation_tokens\":null}",
          "" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        GF_AUTO(gf_peft) peft = peft_of(cases[i].text);

        assert_non_null(strstr(peft->why_not, cases[i].why));
        assert_int_equal(!*peft->why_not, !*cases[i].why);
    }
}

static void values_that_make_no_sense_are_refused(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        { "{\"peft_type\":\"LORA\",\"r\":0}", "r is 0" },
        { "{\"peft_type\":\"LORA\",\"r\":1.5}", "r is 1.5" },
        { "{\"peft_type\":\"LORA\",\"r\":\"8\"}", "'r' is no number" },
        { "{\"peft_type\":\"LORA\",\"lora_alpha\":[]}", "'lora_alpha' is no number" },
        { "{\"peft_type\":\"LORA\",\"rank_pattern\":{\"q\":\"8\"}}", "'q' is no number" },
        { "{\"peft_type\":\"LORA\",\"rank_pattern\":{\"(\":8}}", "'rank_pattern': '('" },
        { "{\"peft_type\":\"LORA\",\"target_modules\":\"[\"}", "'target_modules': '['" },
    };
    struct gf_peft *peft;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        GF_FAILS(parse(cases[i].text, &peft), GF_EBAD, cases[i].words);
}

static void initialisations_off_the_base_are_known(void **state)
{
    static const struct {
        const char *text;
        bool changes;
    } cases[] = {
        { "{\"peft_type\":\"LORA\",\"init_lora_weights\":true}", false },
        { "{\"peft_type\":\"LORA\",\"init_lora_weights\":\"gaussian\"}", false },
        { "{\"peft_type\":\"LORA\",\"init_lora_weights\":\"pissa_niter_16\"}", true },
        { "{\"peft_type\":\"LORA\",\"init_lora_weights\":\"olora\"}", true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        GF_AUTO(gf_peft) peft = peft_of(cases[i].text);

        assert_int_equal(peft->changes_base, cases[i].changes);
    }
}

static void parameters_are_targeted_by_the_end_of_their_names(void **state)
{
    GF_AUTO(gf_peft)
    peft = peft_of("{\"peft_type\":\"LORA\",\"target_parameters\":"
                   "[\"mlp.experts.down_proj\",3,\"bias\"]}");
    size_t at = 0;

    (void)state;
    assert_true(gf_peft_has_parameters(peft));
    assert_string_equal(gf_peft_parameter(peft, "model.layers.0.mlp.experts", &at),
                        "down_proj");
    assert_string_equal(gf_peft_parameter(peft, "model.layers.0.mlp.experts", &at), "bias");
    assert_null(gf_peft_parameter(peft, "model.layers.0.mlp.experts", &at));
    at = 0;
    assert_string_equal(gf_peft_parameter(peft, "mlp.experts", &at), "down_proj");
    at = 0;
    assert_string_equal(gf_peft_parameter(peft, "model.xmlp.experts", &at), "bias");
    at = 0;
    assert_string_equal(gf_peft_parameter(peft, "experts", &at), "bias");
}

static void tokens_are_a_list_or_one_for_each_module(void **state)
{
    GF_AUTO(gf_peft) list = NULL;
    GF_AUTO(gf_peft) map = NULL;
    GF_AUTO(gf_peft) own = NULL;

    (void)state;
    list = peft_of("{\"peft_type\":\"LORA\",\"trainable_token_indices\":[1,5]}");
    assert_true(list->tokens);
    assert_int_equal(gf_json_len(gf_peft_tokens_of(list, "model.embed_tokens")), 2);
    map = peft_of("{\"peft_type\":\"LORA\",\"trainable_token_indices\":"
                  "{\"embed_tokens\":[1],\"lm_head\":[2,3,4]}}");
    assert_int_equal(gf_json_len(gf_peft_tokens_of(map, "model.embed_tokens")), 1);
    assert_int_equal(gf_json_len(gf_peft_tokens_of(map, "lm_head")), 3);
    assert_null(gf_peft_tokens_of(map, "model.other"));
    own = peft_of("{\"peft_type\":\"TRAINABLE_TOKENS\",\"token_indices\":[7]}");
    assert_int_equal(gf_json_len(gf_peft_tokens_of(own, "model.embed_tokens")), 1);
}

static void embeddings_are_targets_by_name_or_pattern(void **state)
{
    static const struct {
        const char *text, *module;
        bool targets;
    } cases[] = {
        { "{\"target_modules\":[\"q\",\"embed_tokens\"]}", "q", true },
        { "{\"target_modules\":[\"q\",\"model.embed_tokens\"]}", "q", false },
        { "{\"target_modules\":[\"wte\"]}", "wte", false },
        { "{\"target_modules\":\"all-linear\"}", "lm_head", false },
        { "{\"target_modules\":\".*(q|lm_head)\"}", "lm_head", true },
        { "{\"target_modules\":\".*(q|lm_head)\"}", "h.q", false },
        { "{\"target_modules\":\"lm\"}", "lm_head", false },
        { "{\"target_modules\":[\"lm_head\"],\"trainable_token_indices\":[1]}", "q",
          false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        GF_AUTO(gf_peft) peft = peft_of(cases[i].text);

        assert_int_equal(gf_peft_targets_embedding(peft, cases[i].module),
                         cases[i].targets);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lora_is_read_with_its_defaults),
        cmocka_unit_test(the_scale_is_alpha_by_r_or_its_root),
        cmocka_unit_test(loha_calls_it_alpha),
        cmocka_unit_test(the_first_pattern_that_matches_decides),
        cmocka_unit_test(patterns_that_match_nothing_are_named),
        cmocka_unit_test(a_rank_that_is_none_is_no_rank),
        cmocka_unit_test(a_pattern_that_never_ends_is_given_up),
        cmocka_unit_test(patterns_share_a_budget),
        cmocka_unit_test(as_many_patterns_as_modules_are_fine),
        cmocka_unit_test(what_cannot_be_merged_says_why),
        cmocka_unit_test(values_that_make_no_sense_are_refused),
        cmocka_unit_test(initialisations_off_the_base_are_known),
        cmocka_unit_test(parameters_are_targeted_by_the_end_of_their_names),
        cmocka_unit_test(tokens_are_a_list_or_one_for_each_module),
        cmocka_unit_test(embeddings_are_targets_by_name_or_pattern),
    };

    return cmocka_run_group_tests(tests, NULL, forget_config);
}
