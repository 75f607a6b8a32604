/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_catalog.h"

#define TIED "{\"tie_word_embeddings\": true}"
#define UNTIED "{\"tie_word_embeddings\": false, \"architectures\": [\"LlamaForCausalLM\"]}"

/* What the snapshot would say about two tensors' bytes, and how often it was asked. */
static struct {
    bool answer;
    int fails;
    unsigned asked;
} bytes;

static int same(void *ctx, uint32_t a, uint32_t b, bool *ret, struct gf_err *err)
{
    (void)ctx;
    assert_int_not_equal(a, b);
    bytes.asked++;
    if (bytes.fails)
        return gf_fail(err, EIO, "cannot read");
    *ret = bytes.answer;
    return 0;
}

static int setup(void **state)
{
    memset(&bytes, 0, sizeof(bytes));
    bytes.answer = true;
    *state = t_catalog();
    return 0;
}

static int teardown(void **state)
{
    gf_catalog_free(*state);
    return 0;
}

static int build(const struct gf_catalog *catalog, const char *name, const char *config,
                 struct gf_view **ret)
{
    GF_AUTO(gf_json) json = NULL;
    struct gf_view_spec spec = { .name = name, .catalog = catalog, .same = same };

    if (config)
        GF_OK(gf_json_parse("config.json", config, strlen(config), &gf_limits_default,
                            &json, &t_err));
    spec.config = json;
    return gf_view_build(&spec, ret, &t_err);
}

/* Builds `full` and compares the names that are served. */
static void serves(const struct gf_catalog *catalog, const char *config, bool untie,
                   const char *names)
{
    GF_AUTO(gf_view) view = NULL;

    GF_OK(build(catalog, "full", config, &view));
    assert_string_equal(t_names(view), names);
    assert_int_equal(view->untie, untie);
}

static void one_storage_is_served_under_the_embeddings_name(void **state)
{
    uint32_t wte = t_add(*state, "transformer.wte.weight", GF_F32, SHAPE(8, 4));

    t_alias(*state, "lm_head.weight", wte);
    serves(*state, TIED, false, "transformer.wte.weight ");
    serves(*state, "{}", false, "transformer.wte.weight "); /* the default is tied */
    assert_int_equal(bytes.asked, 0);
}

static void the_head_goes_also_where_it_was_seen_first(void **state)
{
    uint32_t head = t_add(*state, "lm_head.weight", GF_F32, SHAPE(8, 4));

    t_alias(*state, "model.embed_tokens.weight", head);
    serves(*state, TIED, false, "model.embed_tokens.weight ");
}

static void equal_copies_are_served_once(void **state)
{
    t_add(*state, "model.embed_tokens.weight", GF_BF16, SHAPE(8, 4));
    t_add(*state, "lm_head.weight", GF_BF16, SHAPE(8, 4));
    serves(*state, TIED, false, "model.embed_tokens.weight ");
    assert_int_equal(bytes.asked, 1);
}

static void copies_that_differ_are_both_served_untied(void **state)
{
    GF_AUTO(gf_view) view = NULL;

    t_add(*state, "model.embed_tokens.weight", GF_BF16, SHAPE(8, 4));
    t_add(*state, "lm_head.weight", GF_BF16, SHAPE(8, 4));
    bytes.answer = false;
    GF_OK(build(*state, "full", TIED, &view));
    assert_string_equal(t_names(view), "model.embed_tokens.weight lm_head.weight ");
    assert_true(view->untie);
    assert_int_equal(view->notes.n, 1);
    assert_non_null(strstr(view->notes.at[0], "'lm_head.weight' differs"));
}

static void another_shape_or_dtype_is_a_difference(void **state)
{
    t_add(*state, "model.embed_tokens.weight", GF_BF16, SHAPE(8, 4));
    t_add(*state, "lm_head.weight", GF_BF16, SHAPE(9, 4));
    serves(*state, TIED, true, "model.embed_tokens.weight lm_head.weight ");
    assert_int_equal(bytes.asked, 0);
}

static void one_that_differs_keeps_all_of_them(void **state)
{
    uint32_t shared = t_add(*state, "shared.weight", GF_F32, SHAPE(8, 4));

    /* Untied, T5 would not tie the encoder's embedding either. */
    t_alias(*state, "encoder.embed_tokens.weight", shared);
    t_add(*state, "lm_head.weight", GF_F32, SHAPE(8, 4));
    bytes.answer = false;
    serves(*state, TIED, true, "shared.weight encoder.embed_tokens.weight lm_head.weight ");
    bytes.answer = true;
    serves(*state, TIED, false, "shared.weight ");
}

static void known_pairs_are_found_below_any_prefix(void **state)
{
    static const struct {
        const char *embedding, *head;
    } table[] = {
        { "model.embed_tokens.weight", "lm_head.weight" },
        { "transformer.wte.weight", "lm_head.weight" },
        { "gpt_neox.embed_in.weight", "embed_out.weight" },
        { "model.decoder.embed_tokens.weight", "lm_head.weight" },
        { "model.decoder.embed_tokens.weight", "proj_out.weight" },
        { "model.language_model.embed_tokens.weight", "lm_head.weight" },
        { "language_model.model.embed_tokens.weight", "language_model.lm_head.weight" },
        { "model.shared.weight", "model.encoder.embed_tokens.weight" },
        { "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight" },
        { "cls.predictions.bias", "cls.predictions.decoder.bias" },
        { "text_decoder.bert.embeddings.word_embeddings.weight",
          "text_decoder.cls.predictions.decoder.weight" },
        { "roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight" },
        { "backbone.embeddings.weight", "lm_head.weight" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        GF_AUTO(gf_catalog) catalog = t_catalog();
        char want[128];

        t_add(catalog, table[i].head, GF_F32, SHAPE(8, 4));
        t_add(catalog, table[i].embedding, GF_F32, SHAPE(8, 4));
        snprintf(want, sizeof(want), "%s ", table[i].embedding);
        serves(catalog, TIED, false, want);
    }
}

static void names_that_only_look_like_a_pair_are_left_alone(void **state)
{
    t_add(*state, "a.model.embed_tokens.weight", GF_F32, SHAPE(8, 4));
    t_add(*state, "b.lm_head.weight", GF_F32, SHAPE(8, 4));
    t_add(*state, "model.embed_tokens.weight", GF_F32, SHAPE(8, 4));
    t_add(*state, "my_lm_head.weight", GF_F32, SHAPE(8, 4));
    t_add(*state, "my_model.embed_tokens.weight", GF_F32, SHAPE(8, 4));
    serves(*state, TIED, false,
           "a.model.embed_tokens.weight b.lm_head.weight model.embed_tokens.weight "
           "my_lm_head.weight my_model.embed_tokens.weight ");
    assert_int_equal(bytes.asked, 0);
}

static void a_lone_head_stays(void **state)
{
    t_add(*state, "lm_head.weight", GF_F32, SHAPE(8, 4));
    t_add(*state, "model.norm.weight", GF_F32, SHAPE(4));
    serves(*state, TIED, false, "lm_head.weight model.norm.weight ");
}

static void other_aliases_are_served_once_but_buffers_stay(void **state)
{
    uint32_t a = t_add(*state, "class_embed.0.weight", GF_F32, SHAPE(3));
    uint32_t b = t_add(*state, "mask", GF_F32, SHAPE(2));

    t_alias(*state, "class_embed.1.weight", a);
    t_alias(*state, "class_embed.2.weight", 2); /* an alias of an alias */
    t_add_spec(*state, &(struct gf_tensor_spec){ .name = "mask2",
                                                 .shape = SHAPE(2),
                                                 .dtype = GF_F32,
                                                 .live = GF_F32,
                                                 .copy = GF_NONE,
                                                 .alias = b,
                                                 .buffer = true });
    serves(*state, TIED, false, "class_embed.0.weight mask mask2 ");
    serves(*state, "{\"tie_word_embeddings\": false}", false,
           "class_embed.0.weight mask class_embed.1.weight class_embed.2.weight mask2 ");
}

static void untied_or_without_a_config_everything_is_served(void **state)
{
    uint32_t wte = t_add(*state, "model.embed_tokens.weight", GF_F32, SHAPE(8, 4));

    t_alias(*state, "lm_head.weight", wte);
    serves(*state, UNTIED, false, "model.embed_tokens.weight lm_head.weight ");
    serves(*state, NULL, false, "model.embed_tokens.weight lm_head.weight ");
    assert_int_equal(bytes.asked, 0);
}

static void raw_serves_both_names_whatever_config_says(void **state)
{
    GF_AUTO(gf_view) view = NULL;
    uint32_t wte = t_add(*state, "model.embed_tokens.weight", GF_F32, SHAPE(8, 4));

    t_alias(*state, "lm_head.weight", wte);
    GF_OK(build(*state, "raw", TIED, &view));
    assert_int_equal(view->n, 2);
}

static void the_top_of_the_config_decides_before_its_parts(void **state)
{
    static const struct {
        const char *config;
        bool dropped;
    } table[] = {
        { "{\"text_config\": {\"tie_word_embeddings\": true}}", true },
        { "{\"text_config\": {\"tie_word_embeddings\": false}}", false },
        { "{\"llm_config\": {\"tie_word_embeddings\": false}}", false },
        { "{\"text_config\": {}}", true },
        { "{\"tie_word_embeddings\": true, \"text_config\": {\"tie_word_embeddings\": "
          "false}}",
          true },
        { "{\"tie_word_embeddings\": false, \"text_config\": {\"tie_word_embeddings\": "
          "true}}",
          false },
        { "{\"tie_word_embeddings\": null}", true },
    };

    t_add(*state, "model.embed_tokens.weight", GF_F32, SHAPE(8, 4));
    t_add(*state, "lm_head.weight", GF_F32, SHAPE(8, 4));
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        serves(*state, table[i].config, false,
               table[i].dropped ? "model.embed_tokens.weight "
                                : "model.embed_tokens.weight lm_head.weight ");
}

static void an_untied_model_without_its_head_is_refused(void **state)
{
    GF_AUTO(gf_view) view = NULL;

    t_add(*state, "model.embed_tokens.weight", GF_F32, SHAPE(8, 4));
    t_add(*state, "model.layers.0.mlp.up_proj.weight", GF_F32, SHAPE(8, 4));
    t_add(*state, "model.norm.weight", GF_F32, SHAPE(8));
    GF_FAILS(build(*state, "full", UNTIED, &view), GF_EINCOMPLETE,
             "no output head beside 'model.embed_tokens.weight', but config.json says "
             "LlamaForCausalLM");
}

static void only_a_causal_class_needs_a_head(void **state)
{
    static const char *const configs[] = {
        NULL,
        "{\"tie_word_embeddings\": false}",
        "{\"tie_word_embeddings\": false, \"architectures\": [\"LlamaModel\"]}",
        "{\"tie_word_embeddings\": false, \"architectures\": [\"LlamaForCausalLM\"],"
        " \"text_config\": {\"tie_word_embeddings\": true}}",
    };

    t_add(*state, "model.embed_tokens.weight", GF_F32, SHAPE(8, 4));
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++)
        serves(*state, configs[i], false, "model.embed_tokens.weight ");
}

static void a_head_of_any_name_counts(void **state)
{
    static const struct {
        const char *name;
        uint64_t rows;
    } heads[] = {
        { "lm_head.weight", 9 }, /* a known name, */
        { "embed_out.weight", 9 },
        { "lm_head.qweight", 2 },           /* what lm_head keeps in place of a weight, */
        { "model.output_layer.weight", 8 }, /* or a matrix of the embedding's shape */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        GF_AUTO(gf_catalog) catalog = t_catalog();
        GF_AUTO(gf_view) view = NULL;

        t_add(catalog, "model.embed_tokens.weight", GF_F32, SHAPE(8, 4));
        t_add(catalog, heads[i].name, GF_F32, SHAPE(heads[i].rows, 4));
        GF_OK(build(catalog, "full", UNTIED, &view));
        assert_int_equal(view->n, 2);
    }
}

static void a_position_embedding_is_no_head(void **state)
{
    GF_AUTO(gf_view) view = NULL;

    t_add(*state, "transformer.wte.weight", GF_F32, SHAPE(8, 4));
    t_add(*state, "transformer.wpe.weight", GF_F32, SHAPE(8, 4));
    GF_FAILS(
        build(*state, "full",
              "{\"tie_word_embeddings\": false, \"architectures\": [\"GPT2LMHeadModel\"]}",
              &view),
        GF_EINCOMPLETE, "'transformer.wte.weight'");
}

static void a_failed_comparison_fails_the_view(void **state)
{
    GF_AUTO(gf_view) view = NULL;

    t_add(*state, "model.embed_tokens.weight", GF_BF16, SHAPE(8, 4));
    t_add(*state, "lm_head.weight", GF_BF16, SHAPE(8, 4));
    bytes.fails = 1;
    GF_FAILS(build(*state, "full", TIED, &view), EIO, "cannot read");
    assert_null(view);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_storage_is_served_under_the_embeddings_name),
        TEST(the_head_goes_also_where_it_was_seen_first),
        TEST(equal_copies_are_served_once),
        TEST(copies_that_differ_are_both_served_untied),
        TEST(another_shape_or_dtype_is_a_difference),
        TEST(one_that_differs_keeps_all_of_them),
        TEST(known_pairs_are_found_below_any_prefix),
        TEST(names_that_only_look_like_a_pair_are_left_alone),
        TEST(a_lone_head_stays),
        TEST(other_aliases_are_served_once_but_buffers_stay),
        TEST(untied_or_without_a_config_everything_is_served),
        TEST(raw_serves_both_names_whatever_config_says),
        TEST(the_top_of_the_config_decides_before_its_parts),
        TEST(an_untied_model_without_its_head_is_refused),
        TEST(only_a_causal_class_needs_a_head),
        TEST(a_head_of_any_name_counts),
        TEST(a_position_embedding_is_no_head),
        TEST(a_failed_comparison_fails_the_view),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
