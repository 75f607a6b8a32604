/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_catalog.h"

#include "view/adapter.h"
#include "view/view.h"

static struct gf_adapter_name split(const char *name)
{
    static struct gf_arena arena;
    struct gf_adapter_name ret;

    assert_int_equal(gf_adapter_split(name, &arena, &ret), 0);
    return ret;
}

static void names_become_those_of_an_adapter_file(void **state)
{
    static const struct {
        const char *name, *want;
    } cases[] = {
        { "base_model.model.h.0.q.lora_A.default.weight",
          "base_model.model.h.0.q.lora_A.weight" },
        { "base_model.model.h.0.q.lora_B.default.bias",
          "base_model.model.h.0.q.lora_B.bias" },
        { "base_model.model.emb.lora_embedding_A.default",
          "base_model.model.emb.lora_embedding_A" },
        { "base_model.model.q.lora_magnitude_vector.default.weight",
          "base_model.model.q.lora_magnitude_vector" },
        { "base_model.model.head.modules_to_save.default.dense.weight",
          "base_model.model.head.dense.weight" },
        { "base_model.model.q.ia3_l.default", "base_model.model.q.ia3_l" },
        { "base_model.vera_A.default", "base_model.vera_A" },
        { "_orig_mod.base_model.model.q.lora_A.default.weight",
          "base_model.model.q.lora_A.weight" },
        { "base_model.model.q.lora_A.weight", "base_model.model.q.lora_A.weight" },
        { "base_model.model.experts.base_layer.lora_A.default.weight",
          "base_model.model.experts.base_layer.lora_A.weight" },
        { "base_model.model.q.oft_R.default.weight", "base_model.model.q.oft_R.weight" },
        { "base_model.model.e.token_adapter.trainable_tokens_delta.default",
          "base_model.model.e.token_adapter.trainable_tokens_delta" },
        { "base_model.model.q.base_layer.bias", "base_model.model.q.base_layer.bias" },
        { "h.0.q.lora_A.default.weight", /* transformers' add_adapter */
          "base_model.model.h.0.q.lora_A.weight" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(split(cases[i].name).file, cases[i].want);
}

static void names_become_those_of_the_base(void **state)
{
    static const struct {
        const char *name, *want;
    } cases[] = {
        { "base_model.model.h.0.q.base_layer.weight", "h.0.q.weight" },
        { "base_model.model.head.original_module.weight", "head.weight" },
        { "base_model.model.e.token_adapter.base_layer.weight", "e.weight" },
        { "base_model.model.experts.base_layer.base_layer.gate_up_proj",
          "experts.gate_up_proj" },
        { "base_model.model.norm.weight", "norm.weight" },
        { "h.0.q.base_layer.weight", "h.0.q.weight" },
        { "base_layer", "base_layer" }, /* the last component names the tensor */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_null(split(cases[i].name).marker);
        assert_string_equal(split(cases[i].name).base, cases[i].want);
    }
    assert_null(split("base_model.model.q.lora_A.default.weight").base);
}

static void a_tuners_tensor_is_taken_apart(void **state)
{
    struct gf_adapter_name name =
        split("base_model.model.experts.base_layer.base_layer.lora_B.mine.bias");

    (void)state;
    assert_string_equal(name.module, "experts");
    assert_string_equal(name.marker, "lora_B");
    assert_string_equal(name.adapter, "mine");
    assert_string_equal(name.rest, "bias");
    assert_int_equal(name.depth, 2);
    assert_true(name.below);
    name = split("base_model.vera_B.default");
    assert_string_equal(name.module, "");
    assert_string_equal(name.adapter, "default");
    name = split("base_model.model.q.lora_magnitude_vector");
    assert_string_equal(name.adapter, "");
    assert_string_equal(name.rest, "");
    name = split("h.0.q.ia3_l");
    assert_string_equal(name.module, "h.0.q");
    assert_false(name.below);
}

static void markers_are_whole_components(void **state)
{
    (void)state;
    assert_true(gf_adapter_is_marker("lora_A", 6));
    assert_true(gf_adapter_is_marker("adamss_A", 8));
    assert_true(gf_adapter_is_marker("waveft_spectrum", 15));
    assert_false(gf_adapter_is_marker("lora_", 5));
    assert_false(gf_adapter_is_marker("lora_A_", 7));
    assert_null(split("model.lora_Ax.weight").marker);
}

static void names_too_deep_for_a_module_are_a_plain_models(void **state)
{
    char deep[2 * 70 + 9];

    (void)state;
    for (size_t i = 0; i < 70; i++)
        memcpy(deep + 2 * i, "a.", 2);
    memcpy(deep + 2 * 70, "lora_A.w", 9);
    assert_null(split(deep).marker);
    assert_string_equal(split(deep).base, deep);
}

static void packed_weights_are_known_by_what_stands_beside_them(void **state)
{
    (void)state;
    assert_true(gf_adapter_is_packing("q.weight.absmax"));
    assert_true(gf_adapter_is_packing("q.weight.quant_state.bitsandbytes__nf4"));
    assert_true(gf_adapter_is_packing("q.SCB"));
    assert_false(gf_adapter_is_packing("q.weight"));
}

static void default_is_chosen_or_the_only_one(void **state)
{
    GF_AUTO(gf_catalog) catalog = t_catalog();
    char name[GF_ADAPTER_NAME];

    (void)state;
    t_add(catalog, "q.weight", GF_F32, SHAPE(1));
    GF_OK(gf_adapter_choose(catalog, "adapter", name, &t_err));
    assert_string_equal(name, "");
    t_add(catalog, "q.lora_A.one.weight", GF_F32, SHAPE(1, 1));
    GF_OK(gf_adapter_choose(catalog, "adapter", name, &t_err));
    assert_string_equal(name, "one");
    t_add(catalog, "q.lora_A.two.weight", GF_F32, SHAPE(1, 1));
    GF_FAILS(gf_adapter_choose(catalog, "full", name, &t_err), ENOENT, "one, two");
    GF_OK(gf_adapter_choose(catalog, "base", name, &t_err));
    GF_OK(gf_adapter_choose(catalog, "full.two", name, &t_err));
    assert_string_equal(name, "two");
    GF_FAILS(gf_adapter_choose(catalog, "full.three", name, &t_err), ENOENT, "full.three");
    t_add(catalog, "q.lora_A.default.weight", GF_F32, SHAPE(1, 1));
    GF_OK(gf_adapter_choose(catalog, "adapter", name, &t_err));
    assert_string_equal(name, "default");
}

static void views_of_one_adapter_are_known_by_name(void **state)
{
    (void)state;
    assert_true(gf_adapter_is_view("adapter", "adapter"));
    assert_true(gf_adapter_is_view("adapter.mine", "adapter"));
    assert_false(gf_adapter_is_view("adapter.", "adapter"));
    assert_false(gf_adapter_is_view("adapters", "adapter"));
}

/* ---- the view ---- */

static struct gf_view *adapter_view(const struct gf_catalog *catalog, const char *config,
                                    uint64_t base_vocab)
{
    GF_AUTO(gf_json) json = NULL;
    struct gf_view_spec spec = { .name = "adapter",
                                 .catalog = catalog,
                                 .base_vocab = base_vocab };
    struct gf_view *view = NULL;

    if (config)
        GF_OK(
            gf_json_parse("c", config, strlen(config), &gf_limits_default, &json, &t_err));
    spec.adapter_config = json;
    GF_OK(gf_view_build(&spec, &view, &t_err));
    return view;
}

static void check_view(const struct gf_catalog *catalog, const char *config, uint64_t vocab,
                       const char *names)
{
    GF_AUTO(gf_view) view = adapter_view(catalog, config, vocab);

    assert_string_equal(t_names(view), names);
}

#define P "base_model.model."

static struct gf_catalog *a_state(void)
{
    struct gf_catalog *c = t_catalog();

    t_add(c, P "embed_tokens.base_layer.weight", GF_F32, SHAPE(8, 4));
    t_add(c, P "embed_tokens.lora_embedding_A.default", GF_F32, SHAPE(2, 8));
    t_add(c, P "embed_tokens.lora_embedding_B.default", GF_F32, SHAPE(4, 2));
    t_add(c, P "q.base_layer.weight", GF_F32, SHAPE(4, 4));
    t_add(c, P "q.base_layer.bias", GF_F32, SHAPE(4));
    t_add(c, P "q.lora_A.default.weight", GF_F32, SHAPE(2, 4));
    t_add(c, P "q.lora_B.default.weight", GF_F32, SHAPE(4, 2));
    t_add(c, P "k.bias", GF_F32, SHAPE(4));
    t_add(c, P "lm_head.weight", GF_F32, SHAPE(8, 4));
    return c;
}

#define EMB P "embed_tokens.lora_embedding_A " P "embed_tokens.lora_embedding_B "
#define Q P "q.lora_A.weight " P "q.lora_B.weight "

static void biases_are_saved_as_the_config_says(void **state)
{
    GF_AUTO(gf_catalog) c = a_state();

    (void)state;
    check_view(c, NULL, 0, EMB Q);
    check_view(c, "{\"peft_type\":\"LORA\",\"r\":2,\"bias\":\"none\"}", 0, EMB Q);
    check_view(c, "{\"peft_type\":\"LORA\",\"r\":2,\"bias\":\"lora_only\"}", 0,
               EMB P "q.base_layer.bias " Q);
    check_view(c, "{\"peft_type\":\"LORA\",\"r\":2,\"bias\":\"all\"}", 0,
               EMB P "q.base_layer.bias " Q P "k.bias ");
}

static void embeddings_are_saved_when_they_are_targets_or_resized(void **state)
{
    GF_AUTO(gf_catalog) c = a_state();

    (void)state;
    check_view(
        c, "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"q\",\"embed_tokens\"]}",
        0, P "embed_tokens.base_layer.weight " EMB Q);
    check_view(c, "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":\".*embed_tokens\"}",
               0, P "embed_tokens.base_layer.weight " EMB Q);
    check_view(c,
               "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"embed_tokens\"],"
               "\"trainable_token_indices\":[1]}",
               0, EMB Q);
    check_view(c, "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"q\"]}", 8, EMB Q);
    check_view(c, "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"q\"]}", 7,
               P "embed_tokens.base_layer.weight " EMB Q P "lm_head.weight ");
}

static void a_config_that_makes_no_sense_does_not_stop_the_adapter(void **state)
{
    GF_AUTO(gf_catalog) c = a_state();
    GF_AUTO(gf_view) view = adapter_view(c, "{\"peft_type\":\"LORA\",\"r\":\"four\"}", 0);

    (void)state;
    assert_string_equal(t_names(view), EMB Q);
    assert_non_null(strstr(view->notes.at[0], "'r' is no number"));
}

static void shared_projections_are_saved_once(void **state)
{
    GF_AUTO(gf_catalog) c = t_catalog();

    (void)state;
    t_add(c, P "q.vera_lambda_b.default", GF_F32, SHAPE(4));
    t_add(c, P "q.vera_A.default", GF_F32, SHAPE(2, 4));
    t_add(c, "base_model.vera_A.default", GF_F32, SHAPE(2, 4));
    check_view(c, "{\"peft_type\":\"VERA\"}", 0, P "q.vera_lambda_b base_model.vera_A ");
    check_view(c, "{\"peft_type\":\"VERA\",\"save_projection\":false}", 0,
               P "q.vera_lambda_b ");
}

/* As an adapter file has them: all of it is the adapter's. */
static void a_file_stays_as_it_is(void **state)
{
    GF_AUTO(gf_catalog) c = t_catalog();

    (void)state;
    t_add(c, P "q.lora_A.weight", GF_F32, SHAPE(2, 4));
    t_add(c, P "q.lora_B.weight", GF_F32, SHAPE(4, 2));
    t_add(c, P "score.weight", GF_F32, SHAPE(2, 4));
    t_add(c, "q.weight", GF_F32, SHAPE(4, 4)); /* of a base model that was joined */
    check_view(c, NULL, 0, Q P "score.weight ");
}

static void torn_adapters_are_refused_by_name(void **state)
{
    const struct {
        struct gf_shape a, b;
        const char *words;
    } cases[] = {
        { SHAPE(0), SHAPE(4, 2), "q.lora_A.default.weight' has shape [0]: a shard" },
        { SHAPE(8), SHAPE(4, 2), "q.lora_A.default.weight' has shape [8]: a shard" },
        { SHAPE(2, 4), SHAPE(4, 1), "shapes that don't multiply" },
    };
    struct gf_view_spec spec = { .name = "adapter" };
    struct gf_view *view;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        GF_AUTO(gf_catalog) c = t_catalog();

        t_add(c, P "q.lora_A.default.weight", GF_F32, cases[i].a);
        t_add(c, P "q.lora_B.default.weight", GF_F32, cases[i].b);
        spec.catalog = c;
        GF_FAILS(gf_view_build(&spec, &view, &t_err), GF_EBAD, cases[i].words);
    }
}

static void a_factor_alone_is_refused(void **state)
{
    static const char *const names[] = { P "q.lora_A.default.weight",
                                         P "q.lora_B.default.weight" };

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        GF_AUTO(gf_catalog) c = t_catalog();
        struct gf_view_spec spec = { .name = "adapter", .catalog = c };
        struct gf_view *view;

        t_add(c, names[i], GF_F32, SHAPE(2, 4));
        GF_FAILS(gf_view_build(&spec, &view, &t_err), GF_EBAD,
                 i ? "is there without 'base_model.model.q.lora_A.weight'"
                   : "is there without 'base_model.model.q.lora_B.weight'");
    }
}

/* One rank's rows, saved as if they were all of it. */
static void a_share_of_an_adapter_is_refused(void **state)
{
    const char *config = "{\"peft_type\":\"LORA\",\"r\":4}";
    GF_AUTO(gf_json) json = NULL;
    struct gf_view *view;

    (void)state;
    GF_OK(gf_json_parse("c", config, strlen(config), &gf_limits_default, &json, &t_err));
    for (uint64_t rank = 2; rank <= 4; rank += 2) {
        GF_AUTO(gf_catalog) c = t_catalog();
        struct gf_view_spec spec = { .name = "adapter",
                                     .catalog = c,
                                     .adapter_config = json };

        t_add(c, P "q.base_layer.weight", GF_F32, SHAPE(6, 8));
        t_add(c, P "q.lora_A.default.weight", GF_F32, SHAPE(rank, 8));
        t_add(c, P "q.lora_B.default.weight", GF_F32, SHAPE(rank == 2 ? 6 : 3, rank));
        GF_FAILS(gf_view_build(&spec, &view, &t_err), GF_EBAD,
                 rank == 2 ? "lora_A.default.weight' has shape [2, 8], adapter_config.json "
                             "says rank 4"
                           : "lora_B.default.weight' has shape [3, 4], its weight");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_become_those_of_an_adapter_file),
        cmocka_unit_test(names_become_those_of_the_base),
        cmocka_unit_test(a_tuners_tensor_is_taken_apart),
        cmocka_unit_test(markers_are_whole_components),
        cmocka_unit_test(names_too_deep_for_a_module_are_a_plain_models),
        cmocka_unit_test(packed_weights_are_known_by_what_stands_beside_them),
        cmocka_unit_test(default_is_chosen_or_the_only_one),
        cmocka_unit_test(views_of_one_adapter_are_known_by_name),
        cmocka_unit_test(biases_are_saved_as_the_config_says),
        cmocka_unit_test(embeddings_are_saved_when_they_are_targets_or_resized),
        cmocka_unit_test(a_config_that_makes_no_sense_does_not_stop_the_adapter),
        cmocka_unit_test(shared_projections_are_saved_once),
        cmocka_unit_test(a_file_stays_as_it_is),
        cmocka_unit_test(torn_adapters_are_refused_by_name),
        cmocka_unit_test(a_factor_alone_is_refused),
        cmocka_unit_test(a_share_of_an_adapter_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
