/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_catalog.h"
#include "view/hub.h"
#include "view/view_int.h"

#define MODEL(type, class) "{\"model_type\":\"" type "\",\"architectures\":[\"" class "\"]}"
#define QWEN MODEL("qwen3_moe", "Qwen3MoeModel")

static struct gf_catalog *catalog, *template;

static int setup(void **state)
{
    (void)state;
    catalog = t_catalog();
    template = t_catalog();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gf_catalog_free(catalog);
    gf_catalog_free(template);
    return 0;
}

static int build(const char *config, bool with_template, enum gf_names names,
                 struct gf_view **ret)
{
    GF_AUTO(gf_json) doc = NULL;
    struct gf_view_spec spec = { .name = "full", .catalog = catalog, .names = names };

    GF_OK(gf_json_parse("config.json", config, strlen(config), &gf_limits_default, &doc,
                        &t_err));
    spec.config = doc;
    spec.template = with_template ? template : NULL;
    return gf_view_build(&spec, ret, &t_err);
}

static struct gf_view *view_of(const char *config, bool with_template)
{
    struct gf_view *view = NULL;

    GF_OK(build(config, with_template, GF_NAMES_HUB, &view));
    return view;
}

static int fails(const char *config, bool with_template)
{
    struct gf_view *view = NULL;
    int r = build(config, with_template, GF_NAMES_HUB, &view);

    gf_view_free(view);
    return r;
}

static void add(const char *name)
{
    t_add(catalog, name, GF_BF16, SHAPE(2));
}

/* ---- names, cuts, order ---- */

static void a_view_has_the_hubs_names_and_their_order(void **state)
{
    (void)state;
    t_add(catalog, "norm.weight", GF_F32, SHAPE(4));
    t_add(catalog, "layers.10.mlp.experts.down_proj", GF_BF16, SHAPE(1, 4, 3));
    t_add(catalog, "layers.2.mlp.experts.gate_up_proj", GF_BF16, SHAPE(2, 6, 4));
    t_add(catalog, "embed_tokens.weight", GF_F32, SHAPE(8, 4));

    GF_AUTO(gf_view) view = view_of(QWEN, false);
    const struct gf_output *up = t_output(view, "layers.2.mlp.experts.1.up_proj.weight");

    assert_string_equal(t_names(view), "embed_tokens.weight "
                                       "layers.2.mlp.experts.0.gate_proj.weight "
                                       "layers.2.mlp.experts.1.gate_proj.weight "
                                       "layers.2.mlp.experts.0.up_proj.weight "
                                       "layers.2.mlp.experts.1.up_proj.weight "
                                       "layers.10.mlp.experts.0.down_proj.weight "
                                       "norm.weight ");
    assert_true(gf_shape_equal(up->shape, SHAPE(3, 4)));
    assert_int_equal(up->nbytes, 24);
    assert_int_equal(up->expr.tensor, 2);
    assert_int_equal(up->expr.first, 36);
    /* gate_proj's experts are views of one copy, up_proj's of another */
    assert_int_equal(view->outputs[0].storage, 0);
    assert_int_equal(view->outputs[1].storage, view->outputs[2].storage);
    assert_int_equal(view->outputs[3].storage, view->outputs[4].storage);
    assert_int_not_equal(view->outputs[1].storage, view->outputs[3].storage);
    assert_int_equal(view->nbytes, 16 + 24 + 96 + 128);
    assert_int_equal(view->nparameters, 4 + 12 + 48 + 32);
}

static void names_module_keeps_names_and_order(void **state)
{
    struct gf_view *view = NULL;

    (void)state;
    add("norm.weight");
    t_add(catalog, "layers.2.mlp.experts.gate_up_proj", GF_BF16, SHAPE(2, 6, 4));
    GF_OK(build(QWEN, false, GF_NAMES_MODULE, &view));
    assert_string_equal(t_names(view), "norm.weight layers.2.mlp.experts.gate_up_proj ");
    gf_view_free(view);
}

static void a_state_with_the_hubs_names_is_left_alone(void **state)
{
    (void)state;
    add("norm.weight");
    add("layers.0.mlp.experts.1.up_proj.weight");
    add("layers.0.mlp.experts.0.up_proj.weight");

    GF_AUTO(gf_view) view = view_of(QWEN, false);

    assert_string_equal(t_names(view), "norm.weight layers.0.mlp.experts.1.up_proj.weight "
                                       "layers.0.mlp.experts.0.up_proj.weight ");
}

static void names_of_both_kinds_are_an_error(void **state)
{
    (void)state;
    t_add(catalog, "layers.0.mlp.experts.gate_up_proj", GF_BF16, SHAPE(2, 6, 4));
    add("layers.1.mlp.experts.0.up_proj.weight");
    GF_FAILS(fails(QWEN, false), GF_EBAD,
             "tensor 'layers.0.mlp.experts.gate_up_proj' has a name as in a module, "
             "'layers.1.mlp.experts.0.up_proj.weight' one as on the hub");
}

static void two_tensors_with_one_name_on_the_hub_are_an_error(void **state)
{
    (void)state;
    add("lm_head.weight");
    add("embed_out.weight");
    add("gpt_neox.embed_in.weight");
    GF_FAILS(fails("{\"model_type\":\"gpt_neox\",\"tie_word_embeddings\":false,"
                   "\"architectures\":[\"GPTNeoXForCausalLM\"]}",
                   false),
             GF_EBAD,
             "'embed_out.weight' and 'lm_head.weight' are both 'embed_out.weight'");
}

static void a_tensor_that_cannot_be_cut_is_an_error(void **state)
{
    (void)state;
    t_add(catalog, "layers.0.mlp.experts.gate_up_proj", GF_BF16, SHAPE(2, 5, 4));
    GF_FAILS(fails(QWEN, false), GF_EBAD,
             "'layers.0.mlp.experts.gate_up_proj' is [2, 5, 4]");
}

static void one_tensor_that_is_stored_otherwise_leaves_all_names_alone(void **state)
{
    (void)state;
    add("norm1.weight");
    add("layers.0.self_attn.q_proj.weight");
    add("embeddings.LayerNorm.weight"); /* would be 'emb_ln.weight' */

    GF_AUTO(gf_view) view = view_of(MODEL("nomic_bert", "NomicBertModel"), false);

    assert_string_equal(t_names(view), "norm1.weight layers.0.self_attn.q_proj.weight "
                                       "embeddings.LayerNorm.weight ");
    assert_int_equal(view->notes.n, 1);
    assert_non_null(strstr(view->notes.at[0], "names are the module's: tensor "
                                              "'layers.0.self_attn.q_proj.weight'"));
}

/* ---- what moves along ---- */

static void a_merge_moves_along_with_the_run(void **state)
{
    struct gf_merge merge = { .kind = GF_MERGE_EXPERTS };
    struct gf_view view = { .arena = &(struct gf_arena){ 0 } };
    struct gf_items items = { 0 };
    GF_AUTO(gf_json) doc = NULL;
    struct gf_view_spec spec = { .name = "full", .catalog = catalog };
    uint32_t fused = t_add(catalog, "layers.0.mlp.experts.gate_up_proj", GF_BF16,
                           SHAPE(2, 6, 4)),
             plain = t_add(catalog, "norm.weight", GF_BF16, SHAPE(4)),
             tied = t_add(catalog, "tied.weight", GF_BF16, SHAPE(4));

    (void)state;
    GF_OK(
        gf_json_parse("config.json", QWEN, strlen(QWEN), &gf_limits_default, &doc, &t_err));
    spec.config = doc;
    GF_OK(
        gf_items_add(&items, catalog, "layers.0.mlp.experts.gate_up_proj", fused, &t_err));
    items.at[0].merge = &merge;
    items.at[0].like = plain;
    GF_OK(gf_items_add(&items, catalog, "norm.weight", plain, &t_err));
    GF_OK(gf_items_add(&items, catalog, "tied.weight", tied, &t_err));
    items.at[2].dropped = true;

    GF_OK(gf_items_to_hub(&spec, &view, &items, &t_err));

    assert_int_equal(items.n, 5); /* what is dropped does not come along */
    assert_string_equal(items.at[3].name, "layers.0.mlp.experts.1.up_proj.weight");
    assert_int_equal(items.at[3].first, 36);
    assert_int_equal(items.at[3].merge_first, 36);
    assert_ptr_equal(items.at[3].merge, &merge);
    assert_int_equal(items.at[3].like, plain);
    assert_null(items.at[4].merge);
    gf_items_done(&items);
    gf_arena_done(view.arena);
}

static void a_run_of_a_run_starts_where_both_say(void **state)
{
    struct gf_view view = { .arena = &(struct gf_arena){ 0 } };
    struct gf_items items = { 0 };
    GF_AUTO(gf_json) doc = NULL;
    struct gf_view_spec spec = { .name = "full", .catalog = catalog };
    uint32_t whole = t_add(catalog, "all", GF_BF16, SHAPE(100));

    (void)state;
    GF_OK(
        gf_json_parse("config.json", QWEN, strlen(QWEN), &gf_limits_default, &doc, &t_err));
    spec.config = doc;
    GF_OK(gf_items_add(&items, catalog, "layers.0.mlp.experts.down_proj", whole, &t_err));
    items.at[0].shape = SHAPE(2, 3, 5);
    items.at[0].first = 40;
    GF_OK(gf_items_to_hub(&spec, &view, &items, &t_err));
    assert_int_equal(items.at[1].first, 55);
    gf_items_done(&items);
    gf_arena_done(view.arena);
}

/* ---- the base model's names ---- */

static void a_template_with_the_modules_names_keeps_them(void **state)
{
    (void)state;
    add("gpt_neox.norm.weight");
    add("lm_head.weight");
    t_add(template, "gpt_neox.norm.weight", GF_BF16, SHAPE(2));
    t_add(template, "lm_head.weight", GF_BF16, SHAPE(2));

    GF_AUTO(gf_view) view = view_of(MODEL("gpt_neox", "GPTNeoXForCausalLM"), true);

    assert_string_equal(t_names(view), "gpt_neox.norm.weight lm_head.weight ");
}

static void a_template_with_the_hubs_names_gives_exactly_these(void **state)
{
    (void)state;
    add("model.vision_tower.post_layernorm.bias");
    add("model.language_model.norm.weight");
    t_add(template, "language_model.model.norm.weight", GF_BF16, SHAPE(2));
    t_add(template, "vision_tower.vision_model.post_layernorm.bias", GF_BF16, SHAPE(2));

    GF_AUTO(gf_view) view = view_of(MODEL("llava", "LlavaForConditionalGeneration"), true);
    GF_AUTO(gf_view)
    without = view_of(MODEL("llava", "LlavaForConditionalGeneration"), false);

    assert_string_equal(t_names(view), "language_model.model.norm.weight "
                                       "vision_tower.vision_model.post_layernorm.bias ");
    assert_string_equal(t_names(without), "language_model.model.norm.weight "
                                          "vision_tower.post_layernorm.bias ");
}

static void a_template_of_another_model_decides_nothing(void **state)
{
    (void)state;
    t_add(catalog, "layers.0.mlp.experts.down_proj", GF_BF16, SHAPE(1, 6, 4));
    add("norm.weight");
    t_add(template, "h.0.mlp.c_fc.weight", GF_BF16, SHAPE(2));

    GF_AUTO(gf_view) view = view_of(QWEN, true);

    assert_string_equal(t_names(view),
                        "layers.0.mlp.experts.0.down_proj.weight norm.weight ");
}

static void a_cut_that_has_not_the_templates_size_is_an_error(void **state)
{
    (void)state;
    t_add(catalog, "layers.0.mlp.experts.down_proj", GF_BF16, SHAPE(2, 6, 4));
    t_add(template, "layers.0.mlp.experts.0.down_proj.weight", GF_BF16, SHAPE(6, 2));
    t_add(template, "layers.0.mlp.experts.1.down_proj.weight", GF_BF16, SHAPE(6, 2));
    GF_FAILS(
        fails(QWEN, true), GF_EBAD,
        "'layers.0.mlp.experts.0.down_proj.weight' of 'layers.0.mlp.experts.down_proj' "
        "is [6, 4], the base model's is [6, 2]");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_view_has_the_hubs_names_and_their_order),
        TEST(names_module_keeps_names_and_order),
        TEST(a_state_with_the_hubs_names_is_left_alone),
        TEST(names_of_both_kinds_are_an_error),
        TEST(two_tensors_with_one_name_on_the_hub_are_an_error),
        TEST(a_tensor_that_cannot_be_cut_is_an_error),
        TEST(one_tensor_that_is_stored_otherwise_leaves_all_names_alone),
        TEST(a_merge_moves_along_with_the_run),
        TEST(a_run_of_a_run_starts_where_both_say),
        TEST(a_template_with_the_modules_names_keeps_them),
        TEST(a_template_with_the_hubs_names_gives_exactly_these),
        TEST(a_template_of_another_model_decides_nothing),
        TEST(a_cut_that_has_not_the_templates_size_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
