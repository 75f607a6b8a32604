/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "image/config_out.h"
#include "t_catalog.h"

/* Patches `text` for a view of one tensor of this dtype and compares the result. */
static void becomes(const char *text, enum gf_dtype dtype, bool untie, const char *want)
{
    struct gf_output output = { .name = "w", .dtype = dtype };
    struct gf_view view = { .outputs = &output, .n = 1, .untie = untie };
    GF_AUTO(gf_json) config = NULL;
    GF_AUTO_MEM char *got = NULL;
    size_t len = 0;

    GF_OK(gf_json_parse("config.json", text, strlen(text), &gf_limits_default, &config,
                        &t_err));
    GF_OK(gf_config_patch(text, strlen(text), config, &view, &got, &len, &t_err));
    assert_int_equal(len, strlen(got));
    assert_string_equal(got, want);
}

static void a_config_that_fits_keeps_every_byte(void **state)
{
    static const char *const texts[] = {
        "{\n  \"dtype\": \"bfloat16\",\n  \"x\" :1e-5 ,\"tie_word_embeddings\":true}\n\n",
        "{\"torch_dtype\":\"bfloat16\",\"architectures\":[\"PhiForCausalLM\"]}",
        "{ \"architectures\": [ \"FDSPModel\", \"SFalcon\" ], \"dtype\": \"bfloat16\" }",
        "{\"architectures\": null, \"dtype\": \"bfloat16\"}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        becomes(texts[i], GF_BF16, false, texts[i]);
}

static void the_dtype_becomes_what_is_served(void **state)
{
    (void)state;
    becomes("{\n  \"dtype\": \"float32\",\n  \"vocab_size\": 7\n}\n", GF_BF16, false,
            "{\n  \"dtype\": \"bfloat16\",\n  \"vocab_size\": 7\n}\n");
    becomes("{\"torch_dtype\": null}", GF_F16, false, "{\"torch_dtype\": \"float16\"}");
    becomes("{\"dtype\": \"float16\", \"torch_dtype\": \"float32\"}", GF_F16, false,
            "{\"dtype\": \"float16\", \"torch_dtype\": \"float16\"}");
    /* Only at the top: a part's own dtype is overridden by whoever loads it. */
    becomes("{\"text_config\": {\"dtype\": \"float32\"}, \"dtype\": \"float32\"}", GF_F64,
            false, "{\"text_config\": {\"dtype\": \"float32\"}, \"dtype\": \"float64\"}");
}

static void a_missing_dtype_is_added(void **state)
{
    (void)state;
    becomes("{\n  \"vocab_size\": 7\n}\n", GF_F32, false,
            "{\n  \"vocab_size\": 7,\n  \"dtype\": \"float32\"\n}\n");
}

static void without_a_float_parameter_the_dtype_stays(void **state)
{
    (void)state;
    becomes("{\"dtype\": \"float32\"}", GF_I64, false, "{\"dtype\": \"float32\"}");
}

static void differing_ties_are_untied(void **state)
{
    (void)state;
    becomes("{\"dtype\": \"float32\", \"tie_word_embeddings\": true}", GF_F32, true,
            "{\"dtype\": \"float32\", \"tie_word_embeddings\": false}");
    becomes("{\n  \"dtype\": \"float32\"\n}", GF_F32, true,
            "{\n  \"dtype\": \"float32\",\n  \"tie_word_embeddings\": false\n}");
    becomes("{\"tie_word_embeddings\":false,\"dtype\":\"float32\"}", GF_F32, true,
            "{\"tie_word_embeddings\":false,\"dtype\":\"float32\"}");
}

static void a_wrapped_class_gets_its_own_name(void **state)
{
    (void)state;
    becomes("{\n  \"architectures\": [\n    \"FSDPPhiForCausalLM\"\n  ],\n"
            "  \"dtype\": \"float32\"\n}\n",
            GF_F32, false,
            "{\n  \"architectures\": [\n    \"PhiForCausalLM\"\n  ],\n"
            "  \"dtype\": \"float32\"\n}\n");
    becomes(
        "{\"architectures\": [\"A\", \"FSDPFSDPB\"], \"dtype\": \"float32\"}", GF_F32,
        false,
        "{\"architectures\": [\n    \"A\",\n    \"FSDPB\"\n  ], \"dtype\": \"float32\"}");
    becomes("{\"architectures\": [\"FSDPA\", 1], \"dtype\": \"float32\"}", GF_F32, false,
            "{\"architectures\": [\"FSDPA\", 1], \"dtype\": \"float32\"}");
}

/* axolotl takes off "FSDP" as a set of letters. */
static void a_class_that_lost_letters_gets_them_back(void **state)
{
    static const struct {
        const char *type, *found, *want;
    } cases[] = {
        { "phi", "hiForCausalLM", "PhiForCausalLM" },
        { "phi3", "FSDPPhi3ForCausalLM", "Phi3ForCausalLM" },
        { "deepseek_v3", "eepseekV3Model", "DeepseekV3Model" },
        { "fsmt", "MTModel", "FSMTModel" },
        { "xlm-roberta", "XLMRobertaModel", "XLMRobertaModel" },
        { "phi", "PhilModel", "PhilModel" },
        { "phi", "LlamaModel", "LlamaModel" },
        { "phi", "", "" },
        { "d", "eModel", "eModel" },
        { "", "hiForCausalLM", "hiForCausalLM" },
        { "--", "hiForCausalLM", "hiForCausalLM" },
    };
    char text[256], want[256];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool same = strcmp(cases[i].found, cases[i].want) == 0;

        snprintf(text, sizeof(text),
                 "{\"model_type\": \"%s\", \"architectures\": [\"%s\"], \"dtype\": "
                 "\"float32\"}",
                 cases[i].type, cases[i].found);
        snprintf(want, sizeof(want),
                 "{\"model_type\": \"%s\", \"architectures\": [\n    \"%s\"\n  ], "
                 "\"dtype\": \"float32\"}",
                 cases[i].type, cases[i].want);
        becomes(text, GF_F32, false, same ? text : want);
    }
}

static void what_is_no_object_is_an_error(void **state)
{
    struct gf_output output = { .name = "w", .dtype = GF_F32 };
    struct gf_view view = { .outputs = &output, .n = 1 };
    GF_AUTO(gf_json) config = NULL;
    char *got = NULL;
    size_t len = 0;

    (void)state;
    GF_OK(gf_json_parse("config.json", "[]", 2, &gf_limits_default, &config, &t_err));
    GF_FAILS(gf_config_patch("[]", 2, config, &view, &got, &len, &t_err), GF_EBAD,
             "no object");
    assert_null(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_config_that_fits_keeps_every_byte),
        cmocka_unit_test(the_dtype_becomes_what_is_served),
        cmocka_unit_test(a_missing_dtype_is_added),
        cmocka_unit_test(without_a_float_parameter_the_dtype_stays),
        cmocka_unit_test(differing_ties_are_untied),
        cmocka_unit_test(a_wrapped_class_gets_its_own_name),
        cmocka_unit_test(a_class_that_lost_letters_gets_them_back),
        cmocka_unit_test(what_is_no_object_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
