/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_catalog.h"
#include "view/kind.h"

/* A catalog of these names, a space behind each. */
static struct gf_catalog *catalog_of(const char *names)
{
    struct gf_catalog *catalog = t_catalog();
    char name[128];

    for (const char *p = names; *p; p += strlen(name) + 1) {
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(p, " "), p);
        t_add(catalog, name, GF_F32, SHAPE(2));
    }
    return catalog;
}

static void assert_kind(const char *names, enum gf_state_kind want, const char *sign)
{
    GF_AUTO(gf_catalog) catalog = catalog_of(names);
    const char *found = "left";

    assert_int_equal(gf_state_kind(catalog, &found), want);
    assert_int_equal(gf_state_kind(catalog, NULL), want);
    if (sign)
        assert_string_equal(found, sign);
    else
        assert_null(found);
}

/* Names of the components, a space behind each. */
static const char *components(const char *names, size_t max)
{
    GF_AUTO(gf_catalog) catalog = catalog_of(names);
    static char text[256];
    char *list[16];
    size_t n, len = 0;

    text[0] = '\0';
    GF_OK(gf_state_components(catalog, list, max, &n, &t_err));
    for (size_t i = 0; i < n; i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s ", list[i]);
        free(list[i]);
    }
    return text;
}

static void words_of_trainers_make_a_composite(void **state)
{
    (void)state;
    assert_kind("policy.a value_model.b ", GF_STATE_COMPOSITE, "policy.a");
    assert_kind("module.actor.a b ", GF_STATE_COMPOSITE, "module.actor.a");
    assert_kind("a critic.b ", GF_STATE_COMPOSITE, "critic.b");
    assert_kind("reward.a ", GF_STATE_COMPOSITE, "reward.a");
}

static void a_wrapped_model_is_a_composite_with_its_heads_alone(void **state)
{
    (void)state;
    assert_kind("base_model.a v_head.b ", GF_STATE_COMPOSITE, "v_head.b");
    assert_kind("pretrained_model.a ilql_heads.q.b ", GF_STATE_COMPOSITE, "ilql_heads.q.b");
    assert_kind("base_model.a ", GF_STATE_PLAIN, NULL);
    assert_kind("model.a v_head.b ", GF_STATE_PLAIN, NULL);
}

static void a_classifier_is_one_model(void **state)
{
    (void)state;
    assert_kind("model.a score.weight ", GF_STATE_PLAIN, NULL);
    assert_kind("model.policy.a model.value.b ", GF_STATE_PLAIN, NULL);
    assert_kind("policymaker.a values.b ", GF_STATE_PLAIN, NULL);
}

static void an_adapter_is_recognised_first(void **state)
{
    (void)state;
    assert_kind("v_head.a base_model.model.x.lora_A.weight ", GF_STATE_PEFT,
                "base_model.model.x.lora_A.weight");
    assert_kind("policy.a policy.base_model.model.x.lora_B.default.weight ", GF_STATE_PEFT,
                "policy.base_model.model.x.lora_B.default.weight");
}

static void components_are_first_elements_in_order(void **state)
{
    (void)state;
    assert_string_equal(components("b.x module.a.x b.y _orig_mod.c.z ", 16), "b a c ");
    assert_string_equal(components("a.x b.x c.x ", 2), "a b ");
    assert_string_equal(components("alone a.b ", 16), "a ");
}

static void components_can_be_directories(void **state)
{
    (void)state;
    assert_string_equal(components("a/b.x ok.x /.x .gatherfs.x ", 16), "ok ");
    assert_string_equal(components(".x ok.x ..y ", 16), "ok ");
}

static void words_for_views_are_no_components(void **state)
{
    (void)state;
    assert_string_equal(components("full.x base.x adapter.x raw.x steps.x ok.x ", 16),
                        "ok ");
    assert_true(gf_view_is_reserved("steps"));
    assert_false(gf_view_is_reserved("step"));
}

static void parts_by_their_first_element(void **state)
{
    (void)state;
    assert_int_equal(gf_part_of("policy", 6), GF_PART_MODEL);
    assert_int_equal(gf_part_of("v_head", 6), GF_PART_HEAD);
    assert_int_equal(gf_part_of("base_model", 10), GF_PART_WRAPPED);
    assert_int_equal(gf_part_of("model", 5), GF_PART_NONE);
    assert_true(gf_name_is_head("module.v_head.summary.weight"));
    assert_false(gf_name_is_head("v_head"));
    assert_false(gf_name_is_head("model.v_head.weight"));
    assert_true(gf_component_is_known("v_head") && gf_component_is_known("critic"));
    assert_false(gf_component_is_known("base_model") || gf_component_is_head("critic"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_trainers_make_a_composite),
        cmocka_unit_test(a_wrapped_model_is_a_composite_with_its_heads_alone),
        cmocka_unit_test(a_classifier_is_one_model),
        cmocka_unit_test(an_adapter_is_recognised_first),
        cmocka_unit_test(components_are_first_elements_in_order),
        cmocka_unit_test(components_can_be_directories),
        cmocka_unit_test(words_for_views_are_no_components),
        cmocka_unit_test(parts_by_their_first_element),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
