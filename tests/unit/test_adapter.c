/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "view/adapter.h"

static void names_become_those_of_an_adapter_file(void **state)
{
    static const struct {
        const char *name, *want; /* NULL: not part of it */
    } cases[] = {
        { "base_model.model.h.0.q.lora_A.default.weight",
          "base_model.model.h.0.q.lora_A.weight" },
        { "base_model.model.h.0.q.lora_B.default.bias",
          "base_model.model.h.0.q.lora_B.bias" },
        { "base_model.model.emb.lora_embedding_A.default",
          "base_model.model.emb.lora_embedding_A" },
        { "base_model.model.q.lora_magnitude_vector.default.weight",
          "base_model.model.q.lora_magnitude_vector" },
        { "base_model.model.head.modules_to_save.default.weight",
          "base_model.model.head.weight" },
        { "base_model.model.q.ia3_l.default", "base_model.model.q.ia3_l" },
        { "base_model.vera_A.default", "base_model.vera_A" },
        { "_orig_mod.base_model.model.q.lora_A.default.weight",
          "base_model.model.q.lora_A.weight" },
        { "base_model.model.q.lora_A.weight",
          "base_model.model.q.lora_A.weight" }, /* a file's */
        { "base_model.model.q.lora_A.other.weight", NULL },
        { "base_model.model.q.base_layer.weight", NULL },
        { "base_model.model.head.original_module.weight", NULL },
        { "base_model.model.norm.weight", NULL },
    };
    char buf[128];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool got = gf_adapter_name(cases[i].name, "default", buf);

        assert_int_equal(got, cases[i].want != NULL);
        if (got)
            assert_string_equal(buf, cases[i].want);
    }
}

static void names_become_those_of_the_base(void **state)
{
    static const struct {
        const char *name, *want;
    } cases[] = {
        { "base_model.model.h.0.q.base_layer.weight", "h.0.q.weight" },
        { "base_model.model.head.original_module.weight", "head.weight" },
        { "base_model.model.norm.weight", "norm.weight" },
        { "h.0.q.base_layer.weight", "h.0.q.weight" },
        { "base_model.model.q.lora_A.default.weight", NULL },
        { "base_model.model.head.modules_to_save.default.weight", NULL },
    };
    char buf[128];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool got = gf_adapter_base_name(cases[i].name, buf);

        assert_int_equal(got, cases[i].want != NULL);
        if (got)
            assert_string_equal(buf, cases[i].want);
    }
}

static void ungathered_factors_are_recognised(void **state)
{
    uint64_t none[1] = { 0 }, flat[1] = { 60 }, whole[2] = { 3, 20 };

    (void)state;
    assert_true(
        gf_adapter_is_torn("q.lora_A.default.weight", (struct gf_shape){ 1, none }));
    assert_true(
        gf_adapter_is_torn("q.lora_B.default.weight", (struct gf_shape){ 1, flat }));
    assert_false(
        gf_adapter_is_torn("q.lora_B.default.weight", (struct gf_shape){ 2, whole }));
    assert_false(gf_adapter_is_torn("q.lora_B.default.bias", (struct gf_shape){ 1, flat }));
    assert_false(gf_adapter_is_torn("norm.weight", (struct gf_shape){ 1, flat }));
}

static void add(struct gf_catalog *catalog, const char *name)
{
    uint64_t dim = 1;
    struct gf_tensor_spec spec = { .name = name,
                                   .shape = { 1, &dim },
                                   .dtype = GF_F32,
                                   .live = GF_F32,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };

    GF_OK(gf_catalog_add(catalog, &spec, NULL, &t_err));
}

static void default_is_chosen_or_the_only_one(void **state)
{
    struct gf_catalog *catalog;
    char name[256];

    (void)state;
    GF_OK(gf_catalog_new(&gf_limits_default, &catalog, &t_err));
    add(catalog, "q.lora_A.one.weight");
    GF_OK(gf_adapter_choose(catalog, name, &t_err));
    assert_string_equal(name, "one");
    add(catalog, "q.lora_A.two.weight");
    GF_FAILS(gf_adapter_choose(catalog, name, &t_err), ENOENT, "several adapters");
    add(catalog, "q.lora_A.default.weight");
    GF_OK(gf_adapter_choose(catalog, name, &t_err));
    assert_string_equal(name, "default");
    gf_catalog_free(catalog);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_become_those_of_an_adapter_file),
        cmocka_unit_test(names_become_those_of_the_base),
        cmocka_unit_test(ungathered_factors_are_recognised),
        cmocka_unit_test(default_is_chosen_or_the_only_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
