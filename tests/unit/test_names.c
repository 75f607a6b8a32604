/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_catalog.h"
#include "catalog/names.h"
#include "view/kind.h"

static void wrappers_are_dropped_wherever_they_stand(void **state)
{
    static const struct {
        const char *stored, *want;
    } table[] = {
        { "model.layers.0.mlp.weight", "model.layers.0.mlp.weight" },
        { "module.model.w", "model.w" },
        { "module.module.model.w", "model.w" },
        { "_orig_mod.model.w", "model.w" },
        { "module._orig_mod.module.w", "w" },
        { "_fsdp_wrapped_module.layers.0._fsdp_wrapped_module.w", "layers.0.w" },
        { "a._checkpoint_wrapped_module.b._orig_mod.c", "a.b.c" },
        /* Only whole components, only leading 'module's, never the last component. */
        { "encoder.module.w", "encoder.module.w" },
        { "modules.w", "modules.w" },
        { "x_orig_mod.w", "x_orig_mod.w" },
        { "module", "module" },
        { "module.module", "module" },
        { "a._orig_mod", "a._orig_mod" },
        { "", "" },
        { "a..b.", "a..b." },
    };
    char buf[128];

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        gf_name_unwrap(table[i].stored, buf);
        assert_string_equal(buf, table[i].want);
    }
}

static void a_name_is_below_what_it_begins_with(void **state)
{
    static const struct {
        const char *name, *prefix;
        bool want;
    } table[] = {
        { "policy.model.w", "policy", true },
        { "policy.model.w", "policy.model", true },
        { "module.policy._orig_mod.model.w", "policy.model", true },
        { "policy.model.w", "policy.model.w", false }, /* is it */
        { "policy.", "policy", false },
        { "policy", "policy", false },
        { "policy2.w", "policy", false },
        { "pol.w", "policy", false },
        { "policy.model.w", "model", false },
        { "policy.modelx.w", "policy.model", false },
        { "policy.w", "", false },
        { "policy.w", "policy.", false },
        { "module.w", "module", false }, /* a wrapper */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (gf_name_is_below(table[i].name, table[i].prefix) != table[i].want)
            fail_msg("'%s' below '%s'", table[i].name, table[i].prefix);
}

static enum gf_state_kind kind_of(const char *const *names, const char **ret_sign)
{
    GF_AUTO(gf_catalog) catalog = t_catalog();
    enum gf_state_kind kind;

    for (; *names; names++)
        t_add(catalog, *names, GF_F32, SHAPE(2));
    kind = gf_state_kind(catalog, ret_sign);
    if (ret_sign && *ret_sign)
        *ret_sign = strstr(*ret_sign, "lora") ? "lora" : "other";
    return kind;
}

#define KIND(...) kind_of((const char *const[]){ __VA_ARGS__, NULL }, NULL)

static void one_model_is_plain_also_with_a_score_or_value_head(void **state)
{
    (void)state;
    assert_int_equal(KIND("model.embed_tokens.weight", "lm_head.weight"), GF_STATE_PLAIN);
    assert_int_equal(KIND("model.embed_tokens.weight", "score.weight"), GF_STATE_PLAIN);
    assert_int_equal(KIND("model.layers.0.policy.weight", "lm_head.weight"),
                     GF_STATE_PLAIN);
    assert_int_equal(KIND("model.w", "v_head.summary.weight"), GF_STATE_PLAIN);
    assert_int_equal(KIND("base_model.w"), GF_STATE_PLAIN);
}

static void tuner_layers_make_a_peft_state_before_anything_else(void **state)
{
    const char *sign = NULL;

    (void)state;
    assert_int_equal(KIND("base_model.model.q.base_layer.weight"), GF_STATE_PEFT);
    assert_int_equal(KIND("module.base_model.model.score.modules_to_save.default.weight"),
                     GF_STATE_PEFT);
    assert_int_equal(
        kind_of((const char *const[]){ "policy.w", "policy.q.lora_A.default.weight", NULL },
                &sign),
        GF_STATE_PEFT);
    assert_string_equal(sign, "lora");
    assert_int_equal(KIND("model.lora_Adapter.weight"), GF_STATE_PLAIN);
}

static void known_first_elements_make_a_composite(void **state)
{
    (void)state;
    assert_int_equal(KIND("policy.model.w", "value_model.model.w"), GF_STATE_COMPOSITE);
    assert_int_equal(KIND("_orig_mod.actor.w"), GF_STATE_COMPOSITE);
    assert_int_equal(KIND("v_head.0.weight", "base_model.model.w"), GF_STATE_COMPOSITE);
    assert_int_equal(KIND("score.weight", "critic.model.w"), GF_STATE_COMPOSITE);
}

static void hidden_tensors_do_not_decide(void **state)
{
    GF_AUTO(gf_catalog) catalog = t_catalog();

    (void)state;
    t_add(catalog, "model.w", GF_F32, SHAPE(2));
    t_add_spec(catalog, &(struct gf_tensor_spec){ .name = "policy.lora_A.w",
                                                  .shape = SHAPE(2),
                                                  .dtype = GF_BF16,
                                                  .live = GF_BF16,
                                                  .copy = GF_NONE,
                                                  .alias = GF_NONE,
                                                  .hidden = true });
    assert_int_equal(gf_state_kind(catalog, NULL), GF_STATE_PLAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrappers_are_dropped_wherever_they_stand),
        cmocka_unit_test(a_name_is_below_what_it_begins_with),
        cmocka_unit_test(one_model_is_plain_also_with_a_score_or_value_head),
        cmocka_unit_test(tuner_layers_make_a_peft_state_before_anything_else),
        cmocka_unit_test(known_first_elements_make_a_composite),
        cmocka_unit_test(hidden_tensors_do_not_decide),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
