/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_catalog.h"
#include "view/fit.h"

static struct gf_json *config_of(const char *text)
{
    struct gf_json *config = NULL;

    GF_OK(gf_json_parse("config.json", text, strlen(text), &gf_limits_default, &config,
                        &t_err));
    return config;
}

#define LLAMA                                                                              \
    "{\"model_type\":\"llama\",\"vocab_size\":8,\"hidden_size\":4,"                        \
    "\"tie_word_embeddings\":false,\"architectures\":[\"LlamaForCausalLM\"]}"

/* What `names` (a space behind each) is of that config; 2-D tensors are [8, 4]. */
static enum gf_fit fit_of(const char *names, const char *config,
                          const struct gf_catalog *template, char why[GF_FIT_WHY])
{
    GF_AUTO(gf_catalog) catalog = t_catalog();
    GF_AUTO(gf_json) json = config ? config_of(config) : NULL;
    char name[128];

    for (const char *p = names; *p; p += strlen(name) + 1) {
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(p, " "), p);
        t_add(catalog, name, GF_F32, SHAPE(8, 4));
    }
    GF_AUTO(gf_view) view = t_view(catalog);

    return gf_fit_view(view, json, template, why);
}

static void assert_fit(const char *names, const char *config, enum gf_fit want)
{
    char why[GF_FIT_WHY] = "left";

    assert_int_equal(fit_of(names, config, NULL, why), want);
    assert_int_equal(*why != '\0', want == GF_FIT_NO);
}

static void the_embedding_is_where_the_family_has_it(void **state)
{
    static const struct {
        const char *type, *at;
    } families[] = {
        { "llama", "model.embed_tokens" },
        { "qwen3_moe", "model.embed_tokens" },
        { "zamba2", "model.embed_tokens" },
        { "gpt2", "transformer.wte" },
        { "falcon", "transformer.word_embeddings" },
        { "gpt_neox", "gpt_neox.embed_in" },
        { "opt", "model.decoder.embed_tokens" },
        { "t5", "shared" },
        { "bert", "bert.embeddings.word_embeddings" },
        { "xlm-roberta", "roberta.embeddings.word_embeddings" },
    };
    char names[128], other[128], config[128];

    (void)state;
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        snprintf(names, sizeof(names), "%s.weight ", families[i].at);
        snprintf(other, sizeof(other), "policy.%s.weight ", families[i].at);
        snprintf(config, sizeof(config), "{\"model_type\":\"%s\"}", families[i].type);
        assert_fit(names, config, GF_FIT_YES);
        assert_fit(other, config, GF_FIT_NO);
    }
}

static void the_base_model_may_stand_alone(void **state)
{
    (void)state;
    assert_fit("embed_tokens.weight layers.0.w ", LLAMA, GF_FIT_YES);
    assert_fit("transformer.embed_tokens.weight ", LLAMA, GF_FIT_YES);
    assert_fit("model.model.embed_tokens.weight ", LLAMA, GF_FIT_NO);
    assert_fit("embed_tokens ", LLAMA, GF_FIT_NO);
    assert_fit("model.embed_tokens.weight_scale ", LLAMA, GF_FIT_NO);
}

static void a_misfit_says_what_was_looked_for_and_how_to_get_it(void **state)
{
    char why[GF_FIT_WHY];

    (void)state;
    assert_int_equal(fit_of("x.y.model.embed_tokens.weight ", LLAMA, NULL, why), GF_FIT_NO);
    assert_non_null(strstr(why, "no 'model.embed_tokens.weight'"));
    assert_non_null(strstr(why, "'llama'"));
    assert_non_null(strstr(why, "'x.y.model.embed_tokens.weight' is there: --prefix x.y)"));
    assert_int_equal(fit_of("v_head.weight ", LLAMA, NULL, why), GF_FIT_NO);
    assert_null(strstr(why, "--prefix"));
}

static void an_embedding_of_another_shape_is_no_fit(void **state)
{
    char why[GF_FIT_WHY];

    (void)state;
    assert_int_equal(fit_of("model.embed_tokens.weight ",
                            "{\"model_type\":\"llama\",\"vocab_size\":9,\"hidden_size\":4}",
                            NULL, why),
                     GF_FIT_NO);
    assert_non_null(strstr(why, "is [8, 4], config.json's is [9, 4]"));
    assert_fit("model.embed_tokens.weight ", "{\"model_type\":\"llama\",\"vocab_size\":8}",
               GF_FIT_YES);
    assert_fit("transformer.wte.weight ",
               "{\"model_type\":\"gpt2\",\"vocab_size\":8,\"n_embd\":4}", GF_FIT_YES);
    /* OPT's embedding may be narrower than its layers. */
    assert_fit("model.decoder.embed_tokens.weight ",
               "{\"model_type\":\"opt\",\"vocab_size\":8,\"hidden_size\":64,"
               "\"word_embed_proj_dim\":4}",
               GF_FIT_YES);
}

static void a_tied_head_alone_is_enough(void **state)
{
    (void)state;
    assert_fit("lm_head.weight ", "{\"model_type\":\"llama\"}", GF_FIT_YES);
    assert_fit("lm_head.weight ", LLAMA, GF_FIT_NO);
}

static void another_head_makes_it_a_part(void **state)
{
    static const char scorer[] = "{\"model_type\":\"llama\",\"architectures\":["
                                 "\"LlamaForSequenceClassification\"]}";

    (void)state;
    assert_fit("model.embed_tokens.weight score.weight ", LLAMA, GF_FIT_PART);
    assert_fit("model.embed_tokens.weight v_head.0.weight ", LLAMA, GF_FIT_PART);
    assert_fit("model.embed_tokens.weight score.weight ", scorer, GF_FIT_YES);
    assert_fit("model.embed_tokens.weight lm_head.weight ", scorer, GF_FIT_PART);
    assert_fit("model.embed_tokens.weight ", scorer, GF_FIT_PART);
    assert_fit("model.embed_tokens.weight score.weight ",
               "{\"model_type\":\"llama\",\"architectures\":[\"CriticModel\"]}",
               GF_FIT_YES);
}

static void of_unknown_model_types_a_likelihood_is_all(void **state)
{
    static const char *const shapes[] = {
        "{\"model_type\":\"house\",\"vocab_size\":8,\"hidden_size\":4}",
        "{\"vocab_size\":8,\"hidden_size\":4}",
        "{\"model_type\":\"vlm\",\"text_config\":{\"vocab_size\":8,\"hidden_size\":4}}",
        "{\"model_type\":\"llama llama\",\"vocab_size\":8,\"d_model\":4}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        assert_fit("policy.anything ", shapes[i], GF_FIT_LIKELY);
    assert_fit("x ", "{\"model_type\":\"house\",\"vocab_size\":8,\"hidden_size\":5}",
               GF_FIT_UNKNOWN);
    assert_fit("x ", "{\"model_type\":\"\"}", GF_FIT_UNKNOWN);
    assert_fit("x ", "{\"model_type\":7,\"vocab_size\":-1,\"architectures\":\"A\"}",
               GF_FIT_UNKNOWN);
    assert_fit("x ", NULL, GF_FIT_UNKNOWN);
}

static void the_template_decides_of_unknown_model_types(void **state)
{
    GF_AUTO(gf_catalog) template = t_catalog();
    static const char house[] = "{\"model_type\":\"house\"}";
    char why[GF_FIT_WHY];

    (void)state;
    t_add(template, "core.a", GF_F32, SHAPE(8, 4));
    t_add(template, "core.b", GF_F32, SHAPE(8, 4));
    t_add(template, "top", GF_F32, SHAPE(8, 4));
    assert_int_equal(fit_of("core.a core.b top ", house, template, why), GF_FIT_YES);
    assert_int_equal(fit_of("a b ", house, template, why), GF_FIT_YES);
    assert_int_equal(fit_of("house.core.a house.core.b house.top ", house, template, why),
                     GF_FIT_YES);
    assert_int_equal(fit_of("z.y.core.a z.y.core.b z.y.top ", house, template, why),
                     GF_FIT_NO);
    assert_non_null(strstr(why, "behind 'z.y.'"));
    assert_int_equal(fit_of("core.a p q ", house, template, why), GF_FIT_UNKNOWN);
    assert_string_equal(why, "");
}

static void a_template_of_other_shapes_says_nothing(void **state)
{
    GF_AUTO(gf_catalog) template = t_catalog();
    GF_AUTO(gf_catalog) empty = t_catalog();
    char why[GF_FIT_WHY];

    (void)state;
    t_add(template, "core.a", GF_F32, SHAPE(8, 5));
    assert_int_equal(fit_of("core.a ", NULL, template, why), GF_FIT_UNKNOWN);
    assert_int_equal(fit_of("z.core.a ", NULL, template, why), GF_FIT_UNKNOWN);
    assert_int_equal(fit_of("a ", NULL, empty, why), GF_FIT_UNKNOWN);
}

static void classes_that_write_text(void **state)
{
    static const struct {
        const char *config;
        bool want;
    } cases[] = {
        { LLAMA, true },
        { "{\"architectures\":[\"GPT2LMHeadModel\"]}", true },
        { "{\"architectures\":[\"T5ForConditionalGeneration\"]}", true },
        { "{\"architectures\":[\"XForCausalLM\"],\"auto_map\":{}}", false },
        { "{\"architectures\":[\"InternLM2ForRewardModel\"]}", false },
        { "{\"architectures\":[\"LlamaForSequenceClassification\"]}", false },
        { "{\"architectures\":null,\"model_type\":\"qwen2\"}", true },
        { "{\"model_type\":\"internlm2\"}", false },
        { "{}", false },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        GF_AUTO(gf_json) config = config_of(cases[i].config);

        assert_int_equal(gf_fit_generates(config), cases[i].want);
    }
    assert_false(gf_fit_generates(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_embedding_is_where_the_family_has_it),
        cmocka_unit_test(the_base_model_may_stand_alone),
        cmocka_unit_test(a_misfit_says_what_was_looked_for_and_how_to_get_it),
        cmocka_unit_test(an_embedding_of_another_shape_is_no_fit),
        cmocka_unit_test(a_tied_head_alone_is_enough),
        cmocka_unit_test(another_head_makes_it_a_part),
        cmocka_unit_test(of_unknown_model_types_a_likelihood_is_all),
        cmocka_unit_test(the_template_decides_of_unknown_model_types),
        cmocka_unit_test(a_template_of_other_shapes_says_nothing),
        cmocka_unit_test(classes_that_write_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
