/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_catalog.h"

#include "view/view.h"

#define P "base_model.model."
#define LORA(more) "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":6" more "}"

struct merged {
    struct gf_catalog *catalog;
    struct gf_json *config, *model;
    struct gf_view *view;
};

static int same_tensors(void *ctx, uint32_t a, uint32_t b, bool *ret, struct gf_err *err)
{
    (void)ctx;
    (void)a;
    (void)b;
    (void)err;
    *ret = true;
    return 0;
}

static struct gf_json *json(const char *text)
{
    struct gf_json *ret = NULL;

    if (text)
        GF_OK(gf_json_parse("json", text, strlen(text), &gf_limits_default, &ret, &t_err));
    return ret;
}

static int try(struct merged *m, const char *view, const char *config, const char *model)
{
    struct gf_view_spec spec = { .name = view,
                                 .catalog = m->catalog,
                                 .same = same_tensors };

    gf_json_free(m->config);
    gf_json_free(m->model);
    gf_view_free(m->view);
    m->view = NULL;
    m->config = json(config);
    m->model = json(model);
    spec.adapter_config = m->config;
    spec.config = m->model;
    return gf_view_build(&spec, &m->view, &t_err);
}

static const struct gf_merge *merge_of(const struct merged *m, const char *name)
{
    const struct gf_output *out = t_output(m->view, name);

    assert_non_null(out);
    return out->expr.merge;
}

static int start(void **state)
{
    struct merged *m = test_calloc(1, sizeof(*m));

    m->catalog = t_catalog();
    *state = m;
    return 0;
}

static int stop(void **state)
{
    struct merged *m = *state;

    gf_view_free(m->view);
    gf_json_free(m->config);
    gf_json_free(m->model);
    gf_catalog_free(m->catalog);
    test_free(m);
    return 0;
}

static uint32_t f32(struct merged *m, const char *name, struct gf_shape shape)
{
    return t_add(m->catalog, name, GF_F32, shape);
}

/* A linear layer of 4 outputs and 6 inputs with LoRA of rank 2. */
static void add_linear(struct merged *m)
{
    f32(m, P "h.q.base_layer.weight", SHAPE(4, 6));
    f32(m, P "h.q.base_layer.bias", SHAPE(4));
    f32(m, P "h.q.lora_A.default.weight", SHAPE(2, 6));
    f32(m, P "h.q.lora_B.default.weight", SHAPE(4, 2));
    f32(m, P "norm.weight", SHAPE(4));
}

/* ---- LoRA ---- */

static void a_linear_layer_gets_its_low_rank_merge(void **state)
{
    struct merged *m = *state;
    const struct gf_merge *merge;

    add_linear(m);
    GF_OK(try(m, "full", LORA(), NULL));
    assert_string_equal(t_names(m->view), "h.q.weight h.q.bias norm.weight ");
    merge = merge_of(m, "h.q.weight");
    assert_int_equal(merge->kind, GF_MERGE_LOWRANK);
    assert_int_equal(merge->a, 2);
    assert_int_equal(merge->b, 3);
    assert_int_equal(merge->rank, 2);
    assert_true(merge->scale == 3);
    assert_false(merge->transposed || merge->round_delta);
    assert_int_equal(merge->magnitude, GF_NONE);
    assert_int_equal(merge->dtype, GF_F32);
    assert_null(merge->under);
    assert_null(merge_of(m, "h.q.bias"));
    assert_null(merge_of(m, "norm.weight"));
}

static void a_conv1d_is_known_by_its_shape_or_by_the_config(void **state)
{
    struct merged *m = *state;

    f32(m, P "h.c.base_layer.weight", SHAPE(6, 4));
    f32(m, P "h.c.lora_A.default.weight", SHAPE(2, 6));
    f32(m, P "h.c.lora_B.default.weight", SHAPE(4, 2));
    f32(m, P "h.s.base_layer.weight", SHAPE(4, 4));
    f32(m, P "h.s.lora_A.default.weight", SHAPE(2, 4));
    f32(m, P "h.s.lora_B.default.weight", SHAPE(4, 2));
    GF_OK(try(m, "full", LORA(), NULL));
    assert_true(merge_of(m, "h.c.weight")->transposed);
    assert_false(merge_of(m, "h.s.weight")->transposed);
    GF_OK(try(m, "full", LORA(",\"fan_in_fan_out\":true"), NULL));
    assert_true(merge_of(m, "h.s.weight")->transposed);
    GF_OK(try(m, "full", LORA(), "{\"model_type\":\"gpt2\"}"));
    assert_true(merge_of(m, "h.s.weight")->transposed);
}

static void an_embeddings_delta_is_rounded_before_it_is_added(void **state)
{
    struct merged *m = *state;

    f32(m, P "e.base_layer.weight", SHAPE(9, 4));
    f32(m, P "e.lora_embedding_A.default", SHAPE(2, 9));
    f32(m, P "e.lora_embedding_B.default", SHAPE(4, 2));
    GF_OK(try(m, "full", LORA(), NULL));
    assert_true(merge_of(m, "e.weight")->transposed);
    assert_true(merge_of(m, "e.weight")->round_delta);
}

static void dora_needs_its_magnitude(void **state)
{
    struct merged *m = *state;
    uint32_t magnitude;

    add_linear(m);
    GF_FAILS(try(m, "full", LORA(",\"use_dora\":true"), NULL), GF_EBAD,
             "is there without its magnitude");
    magnitude = f32(m, P "h.q.lora_magnitude_vector.default.weight", SHAPE(4));
    GF_OK(try(m, "full", LORA(",\"use_dora\":true"), NULL));
    assert_int_equal(merge_of(m, "h.q.weight")->magnitude, magnitude);
}

static void a_magnitude_has_one_value_for_each_output(void **state)
{
    struct merged *m = *state;

    add_linear(m);
    f32(m, P "h.q.lora_magnitude_vector.default.weight", SHAPE(6));
    GF_FAILS(try(m, "full", LORA(",\"use_dora\":true"), NULL), GF_EBAD,
             "the weight has 4 outputs");
}

static void lora_bias_is_added_to_the_bias(void **state)
{
    struct merged *m = *state;
    uint32_t bias;

    add_linear(m);
    bias = f32(m, P "h.q.lora_B.default.bias", SHAPE(4));
    GF_OK(try(m, "full", LORA(",\"lora_bias\":true"), NULL));
    assert_int_equal(merge_of(m, "h.q.bias")->kind, GF_MERGE_BIAS);
    assert_int_equal(merge_of(m, "h.q.bias")->a, bias);
    assert_true(merge_of(m, "h.q.bias")->scale == 3);
}

static void lora_bias_without_a_bias_is_refused(void **state)
{
    struct merged *m = *state;

    f32(m, P "q.base_layer.weight", SHAPE(4, 6));
    f32(m, P "q.lora_A.default.weight", SHAPE(2, 6));
    f32(m, P "q.lora_B.default.weight", SHAPE(4, 2));
    f32(m, P "q.lora_B.default.bias", SHAPE(4));
    GF_FAILS(try(m, "full", LORA(",\"lora_bias\":true"), NULL), GF_EBAD,
             "'q' has no bias in the base model");
}

static void the_merge_is_done_in_the_live_dtype(void **state)
{
    struct merged *m = *state;
    uint64_t dims[] = { 4, 6 };
    struct gf_tensor_spec spec = { .name = P "q.base_layer.weight",
                                   .shape = { 2, dims },
                                   .dtype = GF_F32,
                                   .live = GF_BF16,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };

    t_add_spec(m->catalog, &spec);
    f32(m, P "q.lora_A.default.weight", SHAPE(2, 6));
    f32(m, P "q.lora_B.default.weight", SHAPE(4, 2));
    GF_OK(try(m, "full", LORA(), NULL));
    assert_int_equal(merge_of(m, "q.weight")->dtype, GF_BF16);
    assert_int_equal(t_output(m->view, "q.weight")->dtype, GF_BF16);
}

/* ---- what replaces weights ---- */

static void modules_to_save_stand_in_the_bases_place(void **state)
{
    struct merged *m = *state;
    uint32_t saved;

    f32(m, P "head.original_module.weight", SHAPE(3, 4));
    saved = f32(m, P "head.modules_to_save.default.weight", SHAPE(3, 4));
    add_linear(m);
    GF_OK(try(m, "full", LORA(), NULL));
    assert_string_equal(t_names(m->view), "head.weight h.q.weight h.q.bias norm.weight ");
    assert_int_equal(t_output(m->view, "head.weight")->expr.tensor, saved);
}

/* base= joined a base model to an adapter file. */
static void an_adapter_file_replaces_what_it_has_whole(void **state)
{
    struct merged *m = *state;
    uint32_t head = f32(m, P "head.weight", SHAPE(3, 4));
    uint32_t bias = f32(m, P "q.base_layer.bias", SHAPE(4));

    f32(m, P "q.lora_A.weight", SHAPE(2, 6));
    f32(m, P "q.lora_B.weight", SHAPE(4, 2));
    t_add(m->catalog, "q.weight", GF_BF16, SHAPE(4, 6));
    t_add(m->catalog, "q.bias", GF_BF16, SHAPE(4));
    t_add(m->catalog, "head.weight", GF_BF16, SHAPE(3, 4));
    GF_OK(try(m, "full", LORA(), NULL));
    assert_string_equal(t_names(m->view), "q.weight q.bias head.weight ");
    assert_int_equal(t_output(m->view, "head.weight")->expr.tensor, head);
    assert_int_equal(t_output(m->view, "head.weight")->dtype, GF_BF16);
    assert_int_equal(t_output(m->view, "q.bias")->expr.tensor, bias);
    GF_OK(try(m, "base", LORA(), NULL));
    assert_true(t_output(m->view, "head.weight")->expr.tensor != head);
}

static void trained_tokens_replace_rows(void **state)
{
    struct merged *m = *state;
    const struct gf_merge *merge;

    f32(m, P "e.token_adapter.base_layer.weight", SHAPE(9, 4));
    f32(m, P "e.token_adapter.trainable_tokens_delta.default", SHAPE(2, 4));
    GF_OK(try(m, "full", LORA(",\"trainable_token_indices\":[8,1]"), NULL));
    merge = merge_of(m, "e.weight");
    assert_int_equal(merge->kind, GF_MERGE_ROWS);
    assert_int_equal(merge->nrows, 2);
    assert_int_equal(merge->rows[0], 8);
    assert_int_equal(merge->rows[1], 1);
    GF_FAILS(try(m, "full", LORA(",\"trainable_token_indices\":[9,1]"), NULL), GF_EBAD,
             "none of the 9 rows");
    GF_FAILS(try(m, "full", LORA(",\"trainable_token_indices\":[1]"), NULL), GF_EBAD,
             "lists 1 tokens");
}

/* ---- experts ---- */

#define EXPERTS P "m.experts."
#define PARAMETERS                                                                         \
    LORA(",\"target_parameters\":[\"experts.down_proj\",\"experts.gate_up_proj\"]")

/* 3 experts of 5 inner and 4 outer features: the wrappers are nested. */
static void add_experts(struct merged *m)
{
    f32(m, EXPERTS "base_layer.base_layer.gate_up_proj", SHAPE(3, 10, 4));
    f32(m, EXPERTS "base_layer.base_layer.down_proj", SHAPE(3, 4, 5));
    f32(m, EXPERTS "base_layer.lora_A.default.weight", SHAPE(6, 4));
    f32(m, EXPERTS "base_layer.lora_B.default.weight", SHAPE(10, 6));
    f32(m, EXPERTS "lora_A.default.weight", SHAPE(6, 5));
    f32(m, EXPERTS "lora_B.default.weight", SHAPE(4, 6));
}

static void wrappers_of_parameters_are_taken_apart(void **state)
{
    struct merged *m = *state;
    const struct gf_merge *up, *down;

    add_experts(m);
    GF_OK(try(m, "full", PARAMETERS, NULL));
    up = merge_of(m, "m.experts.gate_up_proj");
    down = merge_of(m, "m.experts.down_proj");
    assert_int_equal(up->kind, GF_MERGE_EXPERTS);
    assert_int_equal(up->a, 2);
    assert_int_equal(down->a, 4);
    assert_int_equal(up->experts, 3);
    assert_int_equal(up->rank, 2);
    assert_true(up->swapped && up->round_delta);
}

static void the_innermost_wrapper_is_the_first_parameters(void **state)
{
    struct merged *m = *state;

    f32(m, EXPERTS "base_layer.base_layer.first", SHAPE(3, 4, 4));
    f32(m, EXPERTS "base_layer.base_layer.second", SHAPE(3, 4, 4));
    f32(m, EXPERTS "lora_A.default.weight", SHAPE(6, 4));
    f32(m, EXPERTS "lora_B.default.weight", SHAPE(4, 6));
    f32(m, EXPERTS "base_layer.lora_A.default.weight", SHAPE(6, 4));
    f32(m, EXPERTS "base_layer.lora_B.default.weight", SHAPE(4, 6));
    GF_OK(try(m, "full",
              LORA(",\"target_parameters\":[\"experts.second\",\"experts.first\"]"), NULL));
    assert_int_equal(merge_of(m, "m.experts.first")->a, 4);
    assert_int_equal(merge_of(m, "m.experts.second")->a, 2);
}

static void experts_of_some_models_are_stored_in_out(void **state)
{
    struct merged *m = *state;

    f32(m, EXPERTS "base_layer.up", SHAPE(3, 4, 4));
    f32(m, EXPERTS "lora_A.default.weight", SHAPE(6, 4));
    f32(m, EXPERTS "lora_B.default.weight", SHAPE(4, 6));
    GF_OK(try(m, "full", LORA(",\"target_parameters\":[\"experts.up\"]"), NULL));
    assert_true(merge_of(m, "m.experts.up")->swapped);
    GF_OK(try(m, "full", LORA(",\"target_parameters\":[\"experts.up\"]"),
              "{\"model_type\":\"gpt_oss\"}"));
    assert_false(merge_of(m, "m.experts.up")->swapped);
}

/* A base model as its files have it: the module's tensor is one for each expert there. */
static void a_merge_reaches_the_experts_of_the_hubs_files(void **state)
{
    struct merged *m = *state;
    const char *module = P "model.layers.0.mlp.experts.";
    static const char *const params[] = { "gate_proj", "up_proj", "down_proj" };
    char name[128];

    snprintf(name, sizeof(name), "%sbase_layer.lora_A.weight", module);
    f32(m, name, SHAPE(4, 4));
    snprintf(name, sizeof(name), "%sbase_layer.lora_B.weight", module);
    f32(m, name, SHAPE(10, 4));
    snprintf(name, sizeof(name), "%slora_A.weight", module);
    f32(m, name, SHAPE(4, 5));
    snprintf(name, sizeof(name), "%slora_B.weight", module);
    f32(m, name, SHAPE(4, 4));
    for (int e = 0; e < 2; e++)
        for (size_t i = 0; i < 3; i++) {
            snprintf(name, sizeof(name), "model.layers.0.mlp.experts.%d.%s.weight", e,
                     params[i]);
            f32(m, name, i == 2 ? SHAPE(4, 5) : SHAPE(5, 4));
        }
    GF_OK(try(m, "full", PARAMETERS, "{\"model_type\":\"qwen2_moe\"}"));
    assert_int_equal(
        t_output(m->view, "model.layers.0.mlp.experts.1.up_proj.weight")->expr.merge_first,
        (1 * 10 + 5) * 4);
    assert_int_equal(merge_of(m, "model.layers.0.mlp.experts.1.up_proj.weight")->a, 0);
    assert_int_equal(merge_of(m, "model.layers.0.mlp.experts.0.down_proj.weight")->a, 2);
}

/* One weight under its own name and as a part of the module's: the offsets are not the same. */
static void a_weight_is_not_reached_in_two_ways(void **state)
{
    struct merged *m = *state;
    const char *module = P "model.layers.0.mlp.experts.";
    static const char *const params[] = { "gate_proj", "up_proj" };
    char name[128];

    snprintf(name, sizeof(name), "%slora_A.weight", module);
    f32(m, name, SHAPE(4, 4));
    snprintf(name, sizeof(name), "%slora_B.weight", module);
    f32(m, name, SHAPE(10, 4));
    snprintf(name, sizeof(name), "%s1.up_proj.lora_A.weight", module);
    f32(m, name, SHAPE(2, 4));
    snprintf(name, sizeof(name), "%s1.up_proj.lora_B.weight", module);
    f32(m, name, SHAPE(5, 2));
    for (int e = 0; e < 2; e++)
        for (size_t i = 0; i < 2; i++) {
            snprintf(name, sizeof(name), "model.layers.0.mlp.experts.%d.%s.weight", e,
                     params[i]);
            f32(m, name, SHAPE(5, 4));
        }
    GF_FAILS(try(m, "full", LORA(",\"target_parameters\":[\"experts.gate_up_proj\"]"),
                 "{\"model_type\":\"qwen2_moe\"}"),
             GF_EBAD, "are both merged into 'model.layers.0.mlp.experts.1.up_proj.weight'");
}

/* ---- other tuners ---- */

static void ia3_scales_outputs_or_inputs(void **state)
{
    struct merged *m = *state;

    f32(m, P "k.base_layer.weight", SHAPE(4, 6));
    f32(m, P "k.base_layer.bias", SHAPE(4));
    f32(m, P "k.ia3_l.default", SHAPE(4, 1));
    f32(m, P "d.base_layer.weight", SHAPE(4, 6));
    f32(m, P "d.base_layer.bias", SHAPE(4));
    f32(m, P "d.ia3_l.default", SHAPE(1, 6));
    GF_OK(try(m, "full", "{\"peft_type\":\"IA3\"}", NULL));
    assert_int_equal(merge_of(m, "k.weight")->kind, GF_MERGE_SCALE);
    assert_int_equal(merge_of(m, "k.bias")->kind, GF_MERGE_SCALE);
    assert_int_equal(merge_of(m, "d.weight")->a, 5);
    assert_null(merge_of(m, "d.bias"));
}

static void loha_takes_four_factors(void **state)
{
    struct merged *m = *state;
    const char *config = "{\"peft_type\":\"LOHA\",\"r\":2,\"alpha\":1}";

    f32(m, P "q.base_layer.weight", SHAPE(4, 6));
    f32(m, P "q.hada_w1_a.default", SHAPE(4, 2));
    f32(m, P "q.hada_w1_b.default", SHAPE(2, 6));
    f32(m, P "q.hada_w2_a.default", SHAPE(4, 2));
    GF_FAILS(try(m, "full", config, NULL), GF_EBAD, "without its partners");
    f32(m, P "q.hada_w2_b.default", SHAPE(2, 6));
    GF_OK(try(m, "full", config, NULL));
    assert_int_equal(merge_of(m, "q.weight")->kind, GF_MERGE_HADAMARD);
    assert_int_equal(merge_of(m, "q.weight")->d, 4);
    assert_true(merge_of(m, "q.weight")->scale == 0.5f);
}

static void lokr_takes_whole_factors_or_products(void **state)
{
    struct merged *m = *state;

    f32(m, P "q.base_layer.weight", SHAPE(4, 6));
    f32(m, P "q.lokr_w1.default", SHAPE(2, 3));
    f32(m, P "q.lokr_w2_a.default", SHAPE(2, 2));
    f32(m, P "q.lokr_w2_b.default", SHAPE(2, 2));
    GF_OK(try(m, "full", "{\"peft_type\":\"LOKR\",\"r\":2}", NULL));
    assert_int_equal(merge_of(m, "q.weight")->kind, GF_MERGE_KRONECKER);
    assert_int_equal(merge_of(m, "q.weight")->b, GF_NONE);
    assert_int_equal(merge_of(m, "q.weight")->c, 2);
    assert_int_equal(merge_of(m, "q.weight")->d, 3);
}

static void vera_needs_the_projections(void **state)
{
    struct merged *m = *state;

    f32(m, P "q.base_layer.weight", SHAPE(4, 6));
    f32(m, P "q.vera_lambda_b.default", SHAPE(4));
    f32(m, P "q.vera_lambda_d.default", SHAPE(2));
    GF_FAILS(try(m, "full", "{\"peft_type\":\"VERA\",\"r\":2}", NULL), ENOENT,
             "vera_A and vera_B were not saved");
    f32(m, "base_model.vera_A.default", SHAPE(2, 8));
    f32(m, "base_model.vera_B.default", SHAPE(5, 2));
    GF_OK(try(m, "full", "{\"peft_type\":\"VERA\",\"r\":2}", NULL));
    assert_int_equal(merge_of(m, "q.weight")->kind, GF_MERGE_VECTOR);
    assert_int_equal(merge_of(m, "q.weight")->c, 2);
    assert_int_equal(merge_of(m, "q.weight")->d, 1);
    assert_string_equal(t_names(m->view), "q.weight ");
}

/* ---- tied embeddings ---- */

#define TIED "{\"model_type\":\"llama\",\"tie_word_embeddings\":true}"

static void both_names_of_a_tied_matrix_are_merged_into_it(void **state)
{
    struct merged *m = *state;
    uint32_t embedding = f32(m, P "model.embed_tokens.base_layer.weight", SHAPE(9, 4));
    const struct gf_merge *merge;

    f32(m, P "model.embed_tokens.lora_embedding_A.default", SHAPE(2, 9));
    f32(m, P "model.embed_tokens.lora_embedding_B.default", SHAPE(4, 2));
    t_alias(m->catalog, P "lm_head.base_layer.weight", embedding);
    f32(m, P "lm_head.lora_A.default.weight", SHAPE(2, 4));
    f32(m, P "lm_head.lora_B.default.weight", SHAPE(9, 2));
    GF_OK(try(m, "full", LORA(), TIED));
    assert_string_equal(t_names(m->view), "model.embed_tokens.weight ");
    merge = merge_of(m, "model.embed_tokens.weight");
    assert_int_equal(merge->a, 4);
    assert_int_equal(merge->under->a, 1);
    assert_null(merge->under->under);
}

static void a_tied_head_that_is_not_stored_is_merged_into_the_embedding(void **state)
{
    struct merged *m = *state;
    const struct gf_merge *merge;

    f32(m, P "lm_head.lora_A.weight", SHAPE(2, 4)); /* as an adapter file is sorted */
    f32(m, P "lm_head.lora_B.weight", SHAPE(9, 2));
    f32(m, P "model.embed_tokens.lora_embedding_A", SHAPE(2, 9));
    f32(m, P "model.embed_tokens.lora_embedding_B", SHAPE(4, 2));
    f32(m, "model.embed_tokens.weight", SHAPE(9, 4));
    GF_OK(try(m, "full", LORA(), TIED));
    merge = merge_of(m, "model.embed_tokens.weight");
    assert_int_equal(merge->a, 0);
    assert_int_equal(merge->under->a, 2);
    GF_FAILS(
        try(m, "full", LORA(), "{\"model_type\":\"llama\",\"tie_word_embeddings\":false}"),
        GF_EBAD, "there is no 'lm_head.weight' in the base model");
}

/* ---- what does not fit ---- */

static void a_view_without_its_base_says_so(void **state)
{
    struct merged *m = *state;
    struct gf_view_spec spec = { .name = "full",
                                 .catalog = m->catalog,
                                 .base_why = "base=/models/x supplies it" };
    GF_AUTO(gf_json) config = json(LORA());
    struct gf_view *view;

    f32(m, P "q.lora_A.weight", SHAPE(2, 6));
    f32(m, P "q.lora_B.weight", SHAPE(4, 2));
    GF_FAILS(try(m, "full", NULL, NULL), ENOENT, "config_from=DIR");
    GF_FAILS(try(m, "full", LORA(), NULL), ENOENT, "the base model is not here");
    GF_FAILS(try(m, "base", LORA(), NULL), ENOENT, "the base model is not here");
    spec.adapter_config = config;
    GF_FAILS(gf_view_build(&spec, &view, &t_err), ENOENT, "base=/models/x supplies it");
    GF_OK(try(m, "adapter", LORA(), NULL));
}

static void kinds_that_cannot_be_merged_are_named(void **state)
{
    struct merged *m = *state;

    add_linear(m);
    GF_FAILS(try(m, "full", "{\"peft_type\":\"OFT\"}", NULL), ENOENT, "OFT is not merged");
    GF_OK(try(m, "adapter", "{\"peft_type\":\"OFT\"}", NULL));
    GF_FAILS(try(m, "full", LORA(",\"use_qalora\":true"), NULL), ENOENT, "use_qalora");
}

static void misfits_are_named(void **state)
{
    static const struct {
        const char *config, *words;
    } cases[] = {
        { LORA(",\"rank_pattern\":{\"zz\":2}"), "'rank_pattern': 'zz' matches no module" },
        { LORA(",\"alpha_pattern\":{\"zz\":2}"),
          "'alpha_pattern': 'zz' matches no module" },
        { LORA(",\"rank_pattern\":{\"q\":1}"), "has rank 2, adapter_config.json says 1" },
        { LORA(",\"rank_pattern\":{\"q\":0}"), "has rank 2, adapter_config.json says 0" },
    };
    struct merged *m = *state;

    add_linear(m);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        GF_FAILS(try(m, "full", cases[i].config, NULL), GF_EBAD, cases[i].words);
}

static void shapes_that_do_not_multiply_are_named(void **state)
{
    struct merged *m = *state;

    f32(m, P "q.base_layer.weight", SHAPE(4, 7));
    f32(m, P "q.lora_A.default.weight", SHAPE(2, 6));
    f32(m, P "q.lora_B.default.weight", SHAPE(4, 2));
    GF_FAILS(try(m, "full", LORA(), NULL), GF_EBAD,
             "shapes that don't multiply to 'q.weight' [4, 7]");
}

static void convolutions_are_left_alone(void **state)
{
    struct merged *m = *state;

    f32(m, P "q.base_layer.weight", SHAPE(4, 6, 3, 3));
    f32(m, P "q.lora_A.default.weight", SHAPE(2, 6, 3, 3));
    f32(m, P "q.lora_B.default.weight", SHAPE(4, 2, 1, 1));
    GF_FAILS(try(m, "full", LORA(), NULL), ENOENT, "convolutions are not merged");
    GF_OK(try(m, "adapter", LORA(), NULL));
}

static void an_adapter_for_a_module_that_is_not_there_is_refused(void **state)
{
    struct merged *m = *state;

    add_linear(m);
    f32(m, P "v.lora_A.default.weight", SHAPE(2, 6));
    f32(m, P "v.lora_B.default.weight", SHAPE(4, 2));
    GF_FAILS(try(m, "full", LORA(), NULL), GF_EBAD,
             "'base_model.model.v.lora_A.default.weight': there is no 'v.weight'");
}

static void quantised_weights_are_not_merged(void **state)
{
    struct merged *m = *state;

    t_add(m->catalog, P "q.base_layer.weight", GF_U8, SHAPE(12, 1));
    f32(m, P "q.base_layer.weight.absmax", SHAPE(1));
    f32(m, P "q.lora_A.default.weight", SHAPE(2, 6));
    f32(m, P "q.lora_B.default.weight", SHAPE(4, 2));
    GF_FAILS(try(m, "full", LORA(), NULL), ENOENT,
             "'base_model.model.q.base_layer.weight.absmax' is of quantised weights");
    t_add(m->catalog, "q.weight", GF_BF16, SHAPE(4, 6)); /* base= has it as it was */
    GF_OK(try(m, "full", LORA(), NULL));
    assert_string_equal(t_names(m->view), "q.weight ");
}

static void weights_of_other_dtypes_are_not_merged(void **state)
{
    struct merged *m = *state;

    t_add(m->catalog, P "q.base_layer.weight", GF_I8, SHAPE(4, 6));
    f32(m, P "q.lora_A.default.weight", SHAPE(2, 6));
    f32(m, P "q.lora_B.default.weight", SHAPE(4, 2));
    GF_FAILS(try(m, "full", LORA(), NULL), ENOENT, "it is I8");
}

static void an_adapter_off_another_base_is_not_merged(void **state)
{
    struct merged *m = *state;

    f32(m, P "q.lora_A.weight", SHAPE(2, 6));
    f32(m, P "q.lora_B.weight", SHAPE(4, 2));
    f32(m, "q.weight", SHAPE(4, 6));
    GF_FAILS(try(m, "full", LORA(",\"init_lora_weights\":\"pissa\""), NULL), ENOENT,
             "training changed the base model");
    GF_OK(try(m, "full", LORA(), NULL));
}

static void each_of_several_adapters_has_its_views(void **state)
{
    struct merged *m = *state;

    add_linear(m);
    f32(m, P "h.q.lora_A.other.weight", SHAPE(2, 6));
    f32(m, P "h.q.lora_B.other.weight", SHAPE(4, 2));
    GF_OK(try(m, "full", LORA(), NULL));
    assert_int_equal(merge_of(m, "h.q.weight")->a, 2);
    GF_OK(try(m, "full.other", LORA(), NULL));
    assert_int_equal(merge_of(m, "h.q.weight")->a, 5);
    GF_OK(try(m, "adapter.other", LORA(), NULL));
    assert_int_equal(m->view->n, 2);
    GF_FAILS(try(m, "full.third", LORA(), NULL), ENOENT, "default, other");
}

#define T(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_linear_layer_gets_its_low_rank_merge),
        T(a_conv1d_is_known_by_its_shape_or_by_the_config),
        T(an_embeddings_delta_is_rounded_before_it_is_added),
        T(dora_needs_its_magnitude),
        T(a_magnitude_has_one_value_for_each_output),
        T(lora_bias_is_added_to_the_bias),
        T(lora_bias_without_a_bias_is_refused),
        T(the_merge_is_done_in_the_live_dtype),
        T(modules_to_save_stand_in_the_bases_place),
        T(an_adapter_file_replaces_what_it_has_whole),
        T(trained_tokens_replace_rows),
        T(wrappers_of_parameters_are_taken_apart),
        T(the_innermost_wrapper_is_the_first_parameters),
        T(experts_of_some_models_are_stored_in_out),
        T(a_weight_is_not_reached_in_two_ways),
        T(a_merge_reaches_the_experts_of_the_hubs_files),
        T(ia3_scales_outputs_or_inputs),
        T(loha_takes_four_factors),
        T(lokr_takes_whole_factors_or_products),
        T(vera_needs_the_projections),
        T(both_names_of_a_tied_matrix_are_merged_into_it),
        T(a_tied_head_that_is_not_stored_is_merged_into_the_embedding),
        T(a_view_without_its_base_says_so),
        T(kinds_that_cannot_be_merged_are_named),
        T(misfits_are_named),
        T(shapes_that_do_not_multiply_are_named),
        T(convolutions_are_left_alone),
        T(an_adapter_for_a_module_that_is_not_there_is_refused),
        T(quantised_weights_are_not_merged),
        T(weights_of_other_dtypes_are_not_merged),
        T(an_adapter_off_another_base_is_not_merged),
        T(each_of_several_adapters_has_its_views),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
