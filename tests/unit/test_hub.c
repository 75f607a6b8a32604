/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_catalog.h"
#include "view/hub.h"

static struct gf_arena arena;

static int teardown(void **state)
{
    (void)state;
    gf_arena_done(&arena);
    return 0;
}

static struct gf_json *config(const char *text)
{
    struct gf_json *doc = NULL;

    GF_OK(
        gf_json_parse("config.json", text, strlen(text), &gf_limits_default, &doc, &t_err));
    return doc;
}

static struct gf_hub *hub_of(const char *text)
{
    GF_AUTO(gf_json) doc = config(text);
    struct gf_hub *hub = NULL;

    GF_OK(gf_hub_new(doc, &hub, &t_err));
    return hub;
}

/* "name[shape]@first name[shape]@first ..." of one tensor's parts. */
static const char *parts(const struct gf_hub *hub, const char *name, struct gf_shape shape)
{
    static char text[2048];
    struct gf_hub_part *part;
    char dims[GF_SHAPE_TEXT];
    size_t n, len = 0;

    GF_OK(gf_hub_parts(hub, name, shape, &arena, &part, &n, &t_err));
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s%s@%u", i ? " " : "",
                                part[i].name, gf_shape_text(part[i].shape, dims),
                                (unsigned)part[i].first);
    return text;
}

static int fails(const char *text, const char *name, struct gf_shape shape)
{
    GF_AUTO(gf_hub) hub = hub_of(text);
    struct gf_hub_part *part;
    size_t n;

    return gf_hub_parts(hub, name, shape, &arena, &part, &n, &t_err);
}

/* ---- families ---- */

#define MODEL(type, class) "{\"model_type\":\"" type "\",\"architectures\":[\"" class "\"]}"

static void names_of_a_module_become_the_hubs(void **state)
{
    static const struct {
        const char *config, *module, *hub;
    } want[] = {
        /* one family after another: what save_pretrained of transformers 5.18 writes */
        { MODEL("gpt_neox", "GPTNeoXForCausalLM"), "lm_head.weight", "embed_out.weight" },
        { MODEL("mixtral", "MixtralForCausalLM"), "model.layers.3.mlp.gate.weight",
          "model.layers.3.block_sparse_moe.gate.weight" },
        { MODEL("minimax_m2", "MiniMaxM2ForCausalLM"),
          "model.layers.0.mlp.e_score_correction_bias",
          "model.layers.0.block_sparse_moe.e_score_correction_bias" },
        { MODEL("granitemoe", "GraniteMoeForCausalLM"),
          "model.layers.0.block_sparse_moe.experts.gate_up_proj",
          "model.layers.0.block_sparse_moe.input_linear.weight" },
        { MODEL("phimoe", "PhimoeForCausalLM"), "model.layers.0.mlp.router.weight",
          "model.layers.0.block_sparse_moe.gate.weight" },
        { MODEL("ernie4_5_moe", "Ernie4_5_MoeForCausalLM"),
          "model.layers.1.mlp.gate.moe_statics.e_score_correction_bias",
          "model.layers.1.mlp.moe_statics.e_score_correction_bias" },
        { MODEL("vit", "ViTForImageClassification"), "vit.layers.0.attention.q_proj.bias",
          "vit.encoder.layer.0.attention.attention.query.bias" },
        /* a capturing group, and a pattern that is anchored on one side only */
        { MODEL("d_fine", "DFineForObjectDetection"),
          "model.decoder.layers.1.mlp.layers.0.weight",
          "model.decoder.layers.1.fc1.weight" },
        /* the conversions of a model inside: LlavaModel's, then those of llava */
        { MODEL("llava", "LlavaForConditionalGeneration"),
          "model.language_model.layers.0.mlp.up_proj.weight",
          "language_model.model.layers.0.mlp.up_proj.weight" },
        { MODEL("llava", "LlavaForConditionalGeneration"), "lm_head.weight",
          "language_model.lm_head.weight" },
        { MODEL("qwen2_vl", "Qwen2VLForConditionalGeneration"),
          "model.language_model.norm.weight", "model.norm.weight" },
        { MODEL("qwen2_vl", "Qwen2VLForConditionalGeneration"),
          "model.visual.merger.ln_q.bias", "visual.merger.ln_q.bias" },
        { MODEL("qwen2_vl", "FSDPQwen2VLForConditionalGeneration"), "model.visual.x",
          "visual.x" },
        /* what no rule is about */
        { MODEL("mixtral", "MixtralForCausalLM"), "model.embed_tokens.weight",
          "model.embed_tokens.weight" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        GF_AUTO(gf_hub) hub = hub_of(want[i].config);
        char text[256];

        snprintf(text, sizeof(text), "%s[7]@0", want[i].hub);
        assert_string_equal(parts(hub, want[i].module, SHAPE(7)), text);
    }
}

static void models_inside_bring_their_own_by_their_config(void **state)
{
    GF_AUTO(gf_hub)
    hub = hub_of("{\"model_type\":\"llava\",\"architectures\":"
                 "[\"LlavaForConditionalGeneration\"],"
                 "\"text_config\":{\"model_type\":\"mixtral\"}}");

    (void)state;
    assert_string_equal(
        parts(hub, "model.language_model.layers.0.mlp.experts.down_proj", SHAPE(2, 3, 5)),
        "language_model.model.layers.0.block_sparse_moe.experts.0.w2.weight[3, 5]@0 "
        "language_model.model.layers.0.block_sparse_moe.experts.1.w2.weight[3, 5]@15");
    /* mixtral's '.mlp.' is not the vision tower's */
    assert_string_equal(parts(hub, "model.vision_tower.layers.0.mlp.fc1.bias", SHAPE(2)),
                        "vision_tower.layers.0.mlp.fc1.bias[2]@0");
}

static void models_without_conversions_have_no_hub(void **state)
{
    static const char *const without[] = {
        MODEL("llama", "LlamaForCausalLM"),
        MODEL("qwen3_5_text", "Qwen3_5ForCausalLM"), /* a change of prefix only */
        "{\"architectures\":[\"MixtralForCausalLM\"]}",
        "{\"model_type\":7,\"architectures\":\"MixtralForCausalLM\"}",
        "{}",
    };
    struct gf_hub *hub = (struct gf_hub *)&arena;

    (void)state;
    for (size_t i = 0; i < sizeof(without) / sizeof(without[0]); i++)
        assert_null(hub_of(without[i]));
    GF_OK(gf_hub_new(NULL, &hub, &t_err));
    assert_null(hub);
    assert_string_equal(parts(NULL, "a.b", SHAPE(2, 3)), "a.b[2, 3]@0");
}

static void a_model_type_without_class_has_its_conversions(void **state)
{
    GF_AUTO(gf_hub) hub = hub_of("{\"model_type\":\"mixtral\"}");

    (void)state;
    assert_string_equal(parts(hub, "layers.0.mlp.gate.weight", SHAPE(1)),
                        "layers.0.block_sparse_moe.gate.weight[1]@0");
}

/* ---- cutting ---- */

static void experts_are_runs_of_the_fused_tensor(void **state)
{
    GF_AUTO(gf_hub) hub = hub_of(MODEL("qwen3_moe", "Qwen3MoeForCausalLM"));
    GF_AUTO(gf_hub) other = hub_of(MODEL("mixtral", "MixtralForCausalLM"));

    (void)state;
    assert_string_equal(
        parts(hub, "model.layers.1.mlp.experts.gate_up_proj", SHAPE(2, 6, 4)),
        "model.layers.1.mlp.experts.0.gate_proj.weight[3, 4]@0 "
        "model.layers.1.mlp.experts.1.gate_proj.weight[3, 4]@24 "
        "model.layers.1.mlp.experts.0.up_proj.weight[3, 4]@12 "
        "model.layers.1.mlp.experts.1.up_proj.weight[3, 4]@36");
    assert_string_equal(parts(hub, "model.layers.1.mlp.experts.down_proj", SHAPE(2, 4, 3)),
                        "model.layers.1.mlp.experts.0.down_proj.weight[4, 3]@0 "
                        "model.layers.1.mlp.experts.1.down_proj.weight[4, 3]@12");
    assert_string_equal(
        parts(other, "model.layers.0.mlp.experts.gate_up_proj", SHAPE(1, 2, 2)),
        /* squeezed: torch drops the rows' dimension too where there is but one */
        "model.layers.0.block_sparse_moe.experts.0.w1.weight[2]@0 "
        "model.layers.0.block_sparse_moe.experts.0.w3.weight[2]@2");
}

static void chunks_are_runs_along_the_first_dimension(void **state)
{
    GF_AUTO(gf_hub) hub = hub_of(MODEL("olmo_hybrid", "OlmoHybridForCausalLM"));

    (void)state;
    assert_string_equal(
        parts(hub, "model.layers.0.linear_attn.conv1d.weight", SHAPE(6, 1, 2)),
        "model.layers.0.linear_attn.q_conv1d.weight[2, 1, 2]@0 "
        "model.layers.0.linear_attn.k_conv1d.weight[2, 1, 2]@4 "
        "model.layers.0.linear_attn.v_conv1d.weight[2, 1, 2]@8");
    /* torch.chunk: the last one is what is left */
    assert_string_equal(parts(hub, "l.linear_attn.conv1d.weight", SHAPE(8, 1)),
                        "l.linear_attn.q_conv1d.weight[3, 1]@0 "
                        "l.linear_attn.k_conv1d.weight[3, 1]@3 "
                        "l.linear_attn.v_conv1d.weight[2, 1]@6");
}

static void config_says_how_many_shards_there_are(void **state)
{
#define NGRAM "{\"model_type\":\"qwen4_exp_text\",\"split_ngram_parts\":"
    GF_AUTO(gf_hub) hub = hub_of(NGRAM "2}");
    GF_AUTO(gf_json) without = config("{\"model_type\":\"qwen4_exp_text\"}");
    struct gf_hub *none = NULL;

    (void)state;
    assert_string_equal(parts(hub, "ngram_embedding.weight", SHAPE(4, 3)),
                        "ngram_embedding.shard_0.weight[2, 3]@0 "
                        "ngram_embedding.shard_1.weight[2, 3]@6");
    GF_FAILS(gf_hub_new(without, &none, &t_err), GF_EBAD, "split_ngram_parts");
    GF_FAILS(fails(NGRAM "0}", "ngram_embedding.weight", SHAPE(4, 3)), GF_EBAD, "rows");
    GF_FAILS(fails(NGRAM "4000000000}", "ngram_embedding.weight", SHAPE(4, 3)), GF_EBAD,
             "no such number of parts");
}

static void shapes_that_cannot_be_cut_are_named(void **state)
{
    static const char *const model = MODEL("qwen2_moe", "Qwen2MoeForCausalLM");
    static const char *const fused = "model.layers.0.mlp.experts.gate_up_proj";

    (void)state;
    GF_FAILS(
        fails(model, fused, SHAPE(2, 5, 4)), GF_EBAD,
        "'model.layers.0.mlp.experts.gate_up_proj' is [2, 5, 4]: no such number of rows");
    GF_FAILS(fails(model, fused, SHAPE(2, 0, 4)), GF_EBAD, "rows");
    GF_FAILS(fails(model, fused, SHAPE(24)), GF_EBAD, "too few dimensions");
    GF_FAILS(fails(model, fused, SCALAR), GF_EBAD, "too few dimensions");
    GF_FAILS(fails(model, fused, SHAPE(0, 6, 4)), GF_EBAD, "experts");
    GF_FAILS(fails(model, fused, SHAPE(UINT64_C(1) << 40, 2, 0)), GF_EBAD, "experts");
    GF_FAILS(fails(model, fused, SHAPE(100, UINT64_C(1) << 62, 4)), GF_EBAD, "elements");
    GF_FAILS(fails(model, "model.layers.0.mlp.experts.down_proj", SCALAR), GF_EBAD,
             "too few dimensions");
}

static void what_is_no_run_of_the_tensor_is_refused(void **state)
{
    (void)state;
    GF_FAILS(fails(MODEL("nomic_bert", "NomicBertModel"),
                   "layers.0.self_attn.q_proj.weight", SHAPE(4, 4)),
             ENOTSUP, "attn.Wqkv");
    GF_FAILS(fails(MODEL("kimi_k25", "Kimi_K25ForConditionalGeneration"),
                   "model.vision_tower.layers.0.attn.q_proj.weight", SHAPE(4, 4)),
             ENOTSUP, "kimi_k25");
}

/* ---- names that are the hub's already ---- */

static void names_of_the_hub_stay(void **state)
{
    static const struct {
        const char *config, *name;
    } stay[] = {
        { MODEL("mixtral", "MixtralForCausalLM"),
          "model.layers.0.block_sparse_moe.experts.7.w1.weight" },
        { MODEL("qwen3_moe", "Qwen3MoeForCausalLM"),
          "model.layers.0.mlp.experts.11.down_proj.weight" },
        { MODEL("gpt_neox", "GPTNeoXForCausalLM"), "embed_out.weight" },
        /* a rule that would apply to its own result */
        { MODEL("llava", "LlavaModel"), "language_model.model.norm.weight" },
        { MODEL("llava", "LlavaForConditionalGeneration"),
          "language_model.model.norm.weight" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(stay) / sizeof(stay[0]); i++) {
        GF_AUTO(gf_hub) hub = hub_of(stay[i].config);
        char text[256];

        snprintf(text, sizeof(text), "%s[2]@0", stay[i].name);
        assert_string_equal(parts(hub, stay[i].name, SHAPE(2)), text);
    }
}

static void the_kind_of_a_name_is_told_by_going_there_and_back(void **state)
{
    static const struct {
        const char *config, *name;
        enum gf_name_kind kind;
    } want[] = {
        { MODEL("qwen3_moe", "Qwen3MoeForCausalLM"), "model.layers.0.mlp.experts.down_proj",
          GF_NAME_MODULE },
        { MODEL("qwen3_moe", "Qwen3MoeForCausalLM"),
          "model.layers.0.mlp.experts.1.down_proj.weight", GF_NAME_HUB },
        { MODEL("qwen3_moe", "Qwen3MoeForCausalLM"), "model.norm.weight", GF_NAME_SAME },
        { MODEL("gpt_neox", "GPTNeoXForCausalLM"), "lm_head.weight", GF_NAME_MODULE },
        { MODEL("gpt_neox", "GPTNeoXForCausalLM"), "embed_out.weight", GF_NAME_MAYBE_HUB },
        { MODEL("llava", "LlavaModel"), "language_model.model.norm.weight", GF_NAME_HUB },
        { MODEL("axk1", "AXK1ForCausalLM"), "model.layers.1.mlp.post_mlp_layernorm.weight",
          GF_NAME_MODULE },
        /* matched by a rule that is meant for the compressor's norm */
        { MODEL("deepseek_v4", "DeepseekV4ForCausalLM"), "model.norm.weight",
          GF_NAME_MAYBE_HUB },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        GF_AUTO(gf_hub) hub = hub_of(want[i].config);
        enum gf_name_kind kind;

        GF_OK(gf_hub_kind(hub, want[i].name, &arena, &kind, &t_err));
        if (kind != want[i].kind)
            fail_msg("'%s' is %d, wanted %d", want[i].name, (int)kind, (int)want[i].kind);
    }
}

/* ---- which conversions loading used ---- */

static struct gf_hub *hub_for(const char *text, const char *const *names)
{
    GF_AUTO(gf_catalog) files = t_catalog();
    GF_AUTO(gf_json) doc = config(text);
    struct gf_hub *hub = NULL;

    for (; *names; names++)
        t_add(files, *names, GF_F32, SHAPE(1));
    GF_OK(gf_hub_new_for(doc, files, &hub, &t_err));
    return hub;
}

static void files_tell_which_conversions_are_reverted(void **state)
{
    static const char *const llava = MODEL("llava", "LlavaForConditionalGeneration");
    static const char *const old[] = { "language_model.model.norm.weight",
                                       "vision_tower.vision_model.post_layernorm.bias",
                                       NULL };
    static const char *const new[] = { "model.language_model.norm.weight", NULL };
    static const char *const bert[] = { "bert.LayerNorm.gamma", NULL };
    GF_AUTO(gf_hub) from_old = hub_for(llava, old);
    GF_AUTO(gf_hub) from_bert = hub_for(MODEL("bert", "BertModel"), bert);

    (void)state;
    assert_string_equal(parts(from_old, "model.language_model.norm.weight", SHAPE(1)),
                        "language_model.model.norm.weight[1]@0");
    /* the prefix that only the file can tell */
    assert_string_equal(parts(from_old, "model.vision_tower.post_layernorm.bias", SHAPE(1)),
                        "vision_tower.vision_model.post_layernorm.bias[1]@0");
    /* no tensor of the file had used this one */
    assert_string_equal(parts(from_old, "lm_head.weight", SHAPE(1)), "lm_head.weight[1]@0");
    assert_null(hub_for(llava, new));
    assert_string_equal(parts(from_bert, "bert.LayerNorm.weight", SHAPE(1)),
                        "bert.LayerNorm.gamma[1]@0");
}

/* ---- order ---- */

static void natural_order_is_dot_natural_keys(void **state)
{
    static const char *const ascending[] = {
        "1.a", "2.a",   "10.a",      "lm_head.weight", "m.0.x",        "m.2.x",    "m.10.x",
        "m.a", "m.a.b", "m.shard.x", "m.shard_2.x",    "m.shard_11.x", "m.shardx", "n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(ascending) / sizeof(ascending[0]); i++)
        for (size_t k = 0; k < sizeof(ascending) / sizeof(ascending[0]); k++) {
            int c = gf_name_natural_cmp(ascending[i], ascending[k]);

            if ((c > 0) - (c < 0) != (i > k) - (i < k))
                fail_msg("'%s' and '%s': %d", ascending[i], ascending[k], c);
        }
    assert_int_equal(gf_name_natural_cmp("m.01.x", "m.1.x"), 0);
    assert_true(
        gf_name_natural_cmp("m.99999999999999999999999", "m.100000000000000000000000") < 0);
    assert_true(gf_name_natural_cmp("a..b", "a.b") < 0);
    assert_true(gf_name_natural_cmp("", "a") < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(names_of_a_module_become_the_hubs, teardown),
        cmocka_unit_test_teardown(models_inside_bring_their_own_by_their_config, teardown),
        cmocka_unit_test_teardown(models_without_conversions_have_no_hub, teardown),
        cmocka_unit_test_teardown(a_model_type_without_class_has_its_conversions, teardown),
        cmocka_unit_test_teardown(experts_are_runs_of_the_fused_tensor, teardown),
        cmocka_unit_test_teardown(chunks_are_runs_along_the_first_dimension, teardown),
        cmocka_unit_test_teardown(config_says_how_many_shards_there_are, teardown),
        cmocka_unit_test_teardown(shapes_that_cannot_be_cut_are_named, teardown),
        cmocka_unit_test_teardown(what_is_no_run_of_the_tensor_is_refused, teardown),
        cmocka_unit_test_teardown(names_of_the_hub_stay, teardown),
        cmocka_unit_test_teardown(the_kind_of_a_name_is_told_by_going_there_and_back,
                                  teardown),
        cmocka_unit_test_teardown(files_tell_which_conversions_are_reverted, teardown),
        cmocka_unit_test_teardown(natural_order_is_dot_natural_keys, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
