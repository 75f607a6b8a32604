/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "t_catalog.h"

static int setup(void **state)
{
    *state = t_catalog();
    return 0;
}

static int teardown(void **state)
{
    gf_catalog_free(*state);
    return 0;
}

static struct gf_view *build(const struct gf_catalog *catalog, const char *name,
                             enum gf_dtype_policy policy, enum gf_dtype dtype)
{
    struct gf_view_spec spec = {
        .name = name, .catalog = catalog, .policy = policy, .dtype = dtype
    };
    struct gf_view *view = NULL;

    GF_OK(gf_view_build(&spec, &view, &t_err));
    return view;
}

static int try_build(const struct gf_catalog *catalog, const char *name)
{
    struct gf_view_spec spec = { .name = name, .catalog = catalog };
    struct gf_view *view = NULL;
    int r = gf_view_build(&spec, &view, &t_err);

    gf_view_free(view);
    return r;
}

/* As ZeRO stores them: fp32 masters of a bf16 model, where rank files also hold bf16. */
static void add_master(struct gf_catalog *catalog, const char *name, uint32_t copy)
{
    t_add_spec(catalog, &(struct gf_tensor_spec){ .name = name,
                                                  .shape = SHAPE(2, 3),
                                                  .dtype = GF_F32,
                                                  .live = GF_BF16,
                                                  .copy = copy,
                                                  .alias = GF_NONE });
}

static uint32_t add_hidden(struct gf_catalog *catalog, const char *name)
{
    return t_add_spec(catalog, &(struct gf_tensor_spec){ .name = name,
                                                         .shape = SHAPE(2, 3),
                                                         .dtype = GF_BF16,
                                                         .live = GF_BF16,
                                                         .copy = GF_NONE,
                                                         .alias = GF_NONE,
                                                         .hidden = true });
}

static void full_keeps_the_order_and_drops_wrapper_names(void **state)
{
    t_add(*state, "module.b.weight", GF_F32, SHAPE(4, 2));
    add_hidden(*state, "module.a.weight");
    t_add(*state, "module.a._orig_mod.weight", GF_F32, SHAPE(3));

    GF_AUTO(gf_view) view = build(*state, "full", GF_DTYPE_AUTO, GF_F32);

    assert_string_equal(t_names(view), "b.weight a.weight ");
    assert_string_equal(view->name, "full");
    assert_int_equal(view->outputs[0].expr.tensor, 0);
    assert_int_equal(view->outputs[1].expr.tensor, 2);
    assert_int_equal(view->outputs[0].nbytes, 32);
    assert_int_equal(view->nbytes, 32 + 12);
    assert_int_equal(view->nparameters, 8 + 3);
}

static void raw_serves_everything_as_stored(void **state)
{
    uint32_t copy = add_hidden(*state, "w"), master;

    add_master(*state, "module.w", copy);
    master = 1;
    t_add_spec(*state, &(struct gf_tensor_spec){ .name = "tied",
                                                 .shape = SHAPE(2, 3),
                                                 .dtype = GF_F32,
                                                 .live = GF_BF16,
                                                 .copy = GF_NONE,
                                                 .alias = master });
    t_add(*state, "policy.lora_A.w", GF_F16, SHAPE(1));

    GF_AUTO(gf_view) view = build(*state, "raw", GF_DTYPE_AUTO, GF_F32);
    GF_AUTO(gf_view) cast = build(*state, "raw", GF_DTYPE_FIXED, GF_F16);

    assert_string_equal(t_names(view), "module.w tied policy.lora_A.w ");
    assert_int_equal(view->outputs[0].dtype, GF_F32);
    assert_int_equal(view->outputs[0].expr.tensor, master);
    assert_int_equal(cast->outputs[0].dtype, GF_F16);
}

static void names_that_collide_without_wrappers_are_named(void **state)
{
    t_add(*state, "module.w", GF_F32, SHAPE(1));
    t_add(*state, "_orig_mod.w", GF_F32, SHAPE(1));
    GF_FAILS(try_build(*state, "full"), GF_EBAD,
             "'module.w' and '_orig_mod.w' are both 'w'");
    GF_OK(try_build(*state, "raw"));
}

static void auto_dtype_is_the_live_models(void **state)
{
    uint32_t copy = add_hidden(*state, "hidden.a");

    add_master(*state, "a", copy);
    add_master(*state, "b", GF_NONE);
    t_add(*state, "n", GF_I64, SCALAR);

    GF_AUTO(gf_view) view = build(*state, "full", GF_DTYPE_AUTO, GF_F32);
    const struct gf_output *a = t_output(view, "a"), *b = t_output(view, "b");

    /* The live bytes where they are stored, else the master rounded. */
    assert_int_equal(a->expr.tensor, copy);
    assert_int_equal(a->expr.from, GF_BF16);
    assert_int_equal(a->expr.to, GF_BF16);
    assert_int_equal(a->nbytes, 12);
    assert_int_equal(b->expr.tensor, 2);
    assert_int_equal(b->expr.from, GF_F32);
    assert_int_equal(b->expr.to, GF_BF16);
    assert_int_equal(b->dtype, GF_BF16);
    assert_int_equal(t_output(view, "n")->dtype, GF_I64);
    assert_int_equal(t_output(view, "n")->nbytes, 8);
}

static void stored_dtype_is_the_shards(void **state)
{
    add_master(*state, "a", add_hidden(*state, "hidden.a"));

    GF_AUTO(gf_view) view = build(*state, "full", GF_DTYPE_STORED, GF_F16);

    assert_int_equal(view->outputs[0].expr.tensor, 1);
    assert_int_equal(view->outputs[0].dtype, GF_F32);
    assert_int_equal(view->outputs[0].nbytes, 24);
}

static void a_fixed_dtype_comes_from_the_most_precise_bytes(void **state)
{
    static const struct {
        enum gf_dtype want;
        uint32_t tensor;
        enum gf_dtype from;
    } table[] = {
        { GF_F32, 1, GF_F32 },   /* the master itself */
        { GF_BF16, 0, GF_BF16 }, /* the live copy, bit for bit */
        { GF_F16, 1, GF_F32 },   /* rounded once, from the master */
    };
    uint32_t copy = add_hidden(*state, "hidden.a");

    add_master(*state, "a", copy);
    t_add(*state, "i", GF_I32, SHAPE(2));
    t_add(*state, "f8", GF_F8_E4M3, SHAPE(2));
    t_add(*state, "z", GF_C64, SHAPE(2));
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        GF_AUTO(gf_view) view = build(*state, "full", GF_DTYPE_FIXED, table[i].want);

        assert_int_equal(view->outputs[0].expr.tensor, table[i].tensor);
        assert_int_equal(view->outputs[0].expr.from, table[i].from);
        assert_int_equal(view->outputs[0].dtype, table[i].want);
        assert_int_equal(t_output(view, "i")->dtype, GF_I32);
        assert_int_equal(t_output(view, "f8")->dtype, GF_F8_E4M3);
        assert_int_equal(t_output(view, "z")->dtype, GF_C64);
    }
}

static void a_dtype_without_a_conversion_is_refused_by_name(void **state)
{
    t_add_spec(*state, &(struct gf_tensor_spec){ .name = "q",
                                                 .shape = SHAPE(2),
                                                 .dtype = GF_I8,
                                                 .live = GF_F8_E5M2,
                                                 .copy = GF_NONE,
                                                 .alias = GF_NONE });
    GF_FAILS(try_build(*state, "full"), ENOTSUP,
             "tensor 'q': no conversion from I8 to F8_E5M2");
}

static void a_component_is_shown_without_its_name(void **state)
{
    t_add(*state, "module.policy.model.w", GF_F32, SHAPE(1));
    t_add(*state, "module.value_model.model.w", GF_F32, SHAPE(2));
    t_add(*state, "module.policy", GF_F32, SHAPE(3));
    t_add(*state, "module.policy_x.w", GF_F32, SHAPE(4));
    t_add(*state, "module.policy.", GF_F32, SHAPE(5)); /* would be left without a name */

    GF_AUTO(gf_view) policy = build(*state, "policy", GF_DTYPE_AUTO, GF_F32);
    GF_AUTO(gf_view) nested = build(*state, "value_model.model", GF_DTYPE_AUTO, GF_F32);

    assert_string_equal(t_names(policy), "model.w ");
    assert_int_equal(policy->outputs[0].expr.tensor, 0);
    assert_string_equal(t_names(nested), "w ");
}

static void views_that_are_not_there_say_why(void **state)
{
    t_add(*state, "policy.w", GF_F32, SHAPE(1));
    GF_FAILS(try_build(*state, "full"), ENOENT,
             "'policy.w' belongs to one of several models");
    GF_FAILS(try_build(*state, "value"), ENOENT, "no tensor's name starts with 'value.'");
    GF_FAILS(try_build(*state, "adapter"), ENOENT, "no view 'adapter'");
    t_add(*state, "q.lora_A.default.weight", GF_F32, SHAPE(1));
    GF_FAILS(try_build(*state, "full"), ENOENT, "there is no adapter_config.json");
}

static void an_empty_view_is_refused(void **state)
{
    GF_FAILS(try_build(*state, "full"), GF_EBAD, "no tensors");
    add_hidden(*state, "w");
    GF_FAILS(try_build(*state, "raw"), GF_EBAD, "no tensors");
}

static void a_view_never_passes_the_largest_offset(void **state)
{
    static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        t_add(*state, names[i], GF_U8, SHAPE((uint64_t)1 << 60));
    GF_OK(try_build(*state, "full"));
    t_add(*state, "h", GF_U8, SHAPE((uint64_t)1 << 60));
    GF_FAILS(try_build(*state, "full"), EOVERFLOW, "tensor 'h' as U8");
}

static void parameters_are_counted_without_buffers(void **state)
{
    t_add_spec(*state, &(struct gf_tensor_spec){ .name = "bias",
                                                 .shape = SHAPE(7),
                                                 .dtype = GF_F64,
                                                 .live = GF_F64,
                                                 .copy = GF_NONE,
                                                 .alias = GF_NONE,
                                                 .buffer = true });
    t_add(*state, "packed", GF_F4, SHAPE(2, 8));
    t_add(*state, "w", GF_BF16, SHAPE(3));

    GF_AUTO(gf_view) view = build(*state, "full", GF_DTYPE_AUTO, GF_F32);

    assert_true(view->outputs[0].buffer);
    assert_int_equal(view->nparameters, 8 + 3); /* torch packs two F4 in one element */
    assert_int_equal(view->nbytes, 56 + 8 + 6);
}

static void the_configs_dtype_is_the_first_float_parameters(void **state)
{
    enum gf_dtype dtype = GF_BOOL;

    t_add(*state, "n", GF_I64, SHAPE(1));
    t_add(*state, "z", GF_C64, SHAPE(1));
    t_add_spec(*state, &(struct gf_tensor_spec){ .name = "buffer",
                                                 .shape = SHAPE(7),
                                                 .dtype = GF_F64,
                                                 .live = GF_F64,
                                                 .copy = GF_NONE,
                                                 .alias = GF_NONE,
                                                 .buffer = true });

    GF_AUTO(gf_view) none = build(*state, "full", GF_DTYPE_AUTO, GF_F32);

    assert_false(gf_view_dtype(none, &dtype));
    t_add(*state, "w", GF_F8_E4M3, SHAPE(1));
    t_add(*state, "v", GF_BF16, SHAPE(1));

    GF_AUTO(gf_view) view = build(*state, "full", GF_DTYPE_AUTO, GF_F32);

    assert_true(gf_view_dtype(view, &dtype));
    assert_int_equal(dtype, GF_F8_E4M3);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(full_keeps_the_order_and_drops_wrapper_names),
        TEST(raw_serves_everything_as_stored),
        TEST(names_that_collide_without_wrappers_are_named),
        TEST(auto_dtype_is_the_live_models),
        TEST(stored_dtype_is_the_shards),
        TEST(a_fixed_dtype_comes_from_the_most_precise_bytes),
        TEST(a_dtype_without_a_conversion_is_refused_by_name),
        TEST(a_component_is_shown_without_its_name),
        TEST(views_that_are_not_there_say_why),
        TEST(an_empty_view_is_refused),
        TEST(a_view_never_passes_the_largest_offset),
        TEST(parameters_are_counted_without_buffers),
        TEST(the_configs_dtype_is_the_first_float_parameters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
