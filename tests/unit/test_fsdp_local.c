/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "format/fsdp_local.h"
#include "format/module_order.h"
#include "format/template.h"
#include "t_torch.h"

#define SHAPE(...)                                                                         \
    ((struct gf_shape){ sizeof((uint64_t[]){ __VA_ARGS__ }) / sizeof(uint64_t),            \
                        (const uint64_t[]){ __VA_ARGS__ } })

struct fixture {
    struct gf_dir *dir;
    struct gf_catalog *template;
    struct gf_found found;
};

static int setup(void **state)
{
    static struct fixture fixture;

    fixture = (struct fixture){ .dir = t_dir() };
    GF_OK(gf_catalog_new(&gf_limits_default, &fixture.template, &t_err));
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    gf_found_done(&f->found);
    gf_catalog_free(f->template);
    gf_dir_free(f->dir);
    return 0;
}

static int read_all(struct fixture *f, bool allow_incomplete)
{
    struct gf_format_in in = t_in(f->dir);

    in.template = gf_catalog_len(f->template) ? f->template : NULL;
    in.allow_incomplete = allow_incomplete;
    gf_found_done(&f->found);
    return gf_fsdp_local_format.read(&in, &f->found, &t_err);
}

static void expect(struct gf_catalog *catalog, const char *name, struct gf_shape shape)
{
    struct gf_tensor_spec spec = { .name = name,
                                   .shape = shape,
                                   .dtype = GF_F32,
                                   .live = GF_F32,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };

    GF_OK(gf_catalog_add(catalog, &spec, NULL, &t_err));
}

static void add_flat(struct t_file *file, const char *name, int rank, int64_t each)
{
    pw_str(&file->w, name);
    t_sharded_value(file, (float)(rank * each), PW_DIMS(rank * each), PW_DIMS(each),
                    PW_DIMS(each), PW_DIMS(2 * each), 2);
}

static void finish(struct fixture *f, struct t_file *file, int rank)
{
    char path[64];

    snprintf(path, sizeof(path), "pytorch_model_fsdp_rank%d.bin", rank);
    t_file_end(file, f->dir, path);
}

/* The root unit has 4 elements, layer 0 has 10. */
static void add_flat_files(struct fixture *f)
{
    for (int rank = 0; rank < 2; rank++) {
        struct t_file file;

        t_file_begin(&file);
        add_flat(&file, "_flat_param", rank, 2);
        add_flat(&file, "h.0._checkpoint_wrapped_module._flat_param", rank, 5);
        t_plain(&file, "h.0.buf", 50, PW_DIMS(2));
        finish(f, &file, rank);
    }
}

static void expect_flat(struct fixture *f)
{
    expect(f->template, "wte", SHAPE(2, 1));
    expect(f->template, "h.0.w", SHAPE(2, 4));
    expect(f->template, "h.0.b", SHAPE(2));
    expect(f->template, "h.0.buf", SHAPE(2));
    expect(f->template, "ln", SHAPE(2));
}

static void without_a_template_the_option_is_named(void **state)
{
    struct fixture *f = *state;

    add_flat_files(f);
    GF_FAILS(read_all(f, false), ENOTSUP, "config_from=DIR");
}

static void flat_parameters_are_cut_as_the_template_says(void **state)
{
    struct fixture *f = *state;

    add_flat_files(f);
    expect_flat(f);
    GF_OK(read_all(f, false));
    GF_OK(t_check(&f->found));
    T_ELEMENTS(&f->found, "wte", 0, 1);
    T_ELEMENTS(&f->found, "ln", 2, 3);
    T_ELEMENTS(&f->found, "h.0.w", 0, 1, 2, 3, 4, 5, 6, 7);
    T_ELEMENTS(&f->found, "h.0.b", 8, 9);
    T_ELEMENTS(&f->found, "h.0.buf", 50, 51);
    GF_OK(gf_template_check(f->found.catalog, f->template, &t_err));
}

static void a_unit_of_another_size_is_named(void **state)
{
    struct fixture *f = *state;

    add_flat_files(f);
    expect(f->template, "wte", SHAPE(2, 1));
    expect(f->template, "h.0.w", SHAPE(2, 4));
    expect(f->template, "ln", SHAPE(2));
    GF_FAILS(read_all(f, false), GF_EBAD,
             "'h.0._flat_param' has 10 elements, the template's 1 parameters of it have 8");
    expect(f->template, "h.0.b", SHAPE(3));
    GF_FAILS(read_all(f, false), GF_EBAD, "too few for the template's 'h.0.b'");
}

static void an_unknown_order_is_not_guessed(void **state)
{
    struct fixture *f = *state;

    add_flat_files(f);
    expect(f->template, "h.0.b", SHAPE(2)); /* by name, as safetensors are */
    expect(f->template, "h.0.w", SHAPE(2, 4));
    expect(f->template, "ln", SHAPE(2));
    expect(f->template, "wte", SHAPE(2, 1));
    GF_FAILS(read_all(f, false), ENOTSUP, "'h.0.b' and 'h.0.w', in an order");
}

static void add_slices(struct fixture *f, int64_t n0, int64_t n1)
{
    const int64_t n[] = { n0, n1 };

    for (int rank = 0; rank < 2; rank++) {
        struct t_file file;

        t_file_begin(&file);
        t_plain(&file, "w", (float)(rank * n0), PW_DIMS(n[rank]));
        t_plain(&file, "b", (float)(6 + rank), PW_DIMS(1));
        t_plain(&file, "buf", 50, PW_DIMS(2, 2));
        add_flat(&file, "_flat_param", rank, 4);
        finish(f, &file, rank);
    }
}

static void slices_are_joined_in_the_order_of_ranks(void **state)
{
    struct fixture *f = *state;

    add_slices(f, 5, 1);
    expect(f->template, "b", SHAPE(2));
    expect(f->template, "w", SHAPE(3, 2));
    GF_OK(read_all(f, false));
    GF_OK(t_check(&f->found));
    T_ELEMENTS(&f->found, "w", 0, 1, 2, 3, 4, 5);
    T_ELEMENTS(&f->found, "b", 6, 7);
    T_ELEMENTS(&f->found, "buf", 50, 51);
    assert_null(gf_catalog_find(f->found.catalog, "_flat_param"));
}

static void an_empty_slice_is_one_too(void **state)
{
    struct fixture *f = *state;

    add_slices(f, 6, 0);
    expect(f->template, "b", SHAPE(2));
    expect(f->template, "w", SHAPE(3, 2));
    GF_OK(read_all(f, false));
    GF_OK(t_check(&f->found));
    T_ELEMENTS(&f->found, "w", 0, 1, 2, 3, 4, 5);
}

static void slices_of_another_size_are_refused(void **state)
{
    struct fixture *f = *state;

    add_slices(f, 5, 2);
    expect(f->template, "b", SHAPE(2));
    expect(f->template, "w", SHAPE(3, 2));
    GF_FAILS(read_all(f, false), GF_EBAD,
             "tensor 'w': the ranks' slices have 7 elements, the template has 6");
}

static void slices_that_the_template_lacks_have_no_shape(void **state)
{
    struct fixture *f = *state;

    add_slices(f, 5, 1);
    expect(f->template, "w", SHAPE(3, 2));
    GF_FAILS(read_all(f, false), GF_EINCOMPLETE, "the first is 'b'");
    GF_OK(read_all(f, true));
    assert_null(gf_catalog_find(f->found.catalog, "b"));
    assert_int_equal(f->found.warnings.n, 1);
}

static void a_missing_rank_is_never_allowed(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    add_flat(&file, "_flat_param", 0, 1);
    finish(f, &file, 0);
    expect(f->template, "w", SHAPE(2));
    GF_FAILS(read_all(f, true), GF_EINCOMPLETE, "missing 'pytorch_model_fsdp_rank1.bin'");
}

static void a_template_names_what_is_missing_or_wrong(void **state)
{
    struct fixture *f = *state;
    struct gf_catalog *have = NULL;

    GF_OK(gf_catalog_new(&gf_limits_default, &have, &t_err));
    expect(have, "module._orig_mod.a", SHAPE(2));
    expect(have, "extra", SHAPE(2));
    expect(f->template, "a", SHAPE(2));
    GF_OK(gf_template_check(have, f->template, &t_err));
    expect(f->template, "b", SHAPE(2));
    GF_FAILS(gf_template_check(have, f->template, &t_err), GF_EINCOMPLETE,
             "1 of the model's 2 tensors are missing, the first is 'b'");
    expect(have, "b", SHAPE(3));
    GF_FAILS(gf_template_check(have, f->template, &t_err), GF_EBAD,
             "tensor 'b' is [3], the model's is [2]");
    gf_catalog_free(have);
}

static void a_family_of_models_has_its_own_order(void **state)
{
    static const char *const names[] = {
        "model.embed_tokens.weight",
        "model.layers.2.self_attn.q_proj.weight",
        "model.layers.2.self_attn.q_proj.bias",
        "model.layers.2.self_attn.o_proj.weight",
        "model.layers.2.mlp.gate_proj.weight",
        "model.layers.2.input_layernorm.weight",
        "model.layers.10.self_attn.q_proj.weight",
        "model.norm.weight",
        "lm_head.weight",
    };
    const struct gf_module_order *order = gf_module_order_find("qwen2");

    (void)state;
    assert_non_null(order);
    assert_null(gf_module_order_find("unheard_of"));
    assert_null(gf_module_order_find(NULL));
    for (size_t i = 0; i + 1 < sizeof(names) / sizeof(names[0]); i++) {
        assert_true(gf_module_order_knows(order, names[i]));
        if (gf_module_order_compare(order, names[i], names[i + 1]) >= 0)
            fail_msg("%s", names[i + 1]);
        assert_true(gf_module_order_compare(order, names[i + 1], names[i]) > 0);
    }
    assert_int_equal(gf_module_order_compare(order, names[0], names[0]), 0);
    assert_false(gf_module_order_knows(order, "model.layers.0.mlp.experts.0.w1.weight"));
    assert_false(gf_module_order_knows(order, ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_a_template_the_option_is_named, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(flat_parameters_are_cut_as_the_template_says, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_unit_of_another_size_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(an_unknown_order_is_not_guessed, setup, teardown),
        cmocka_unit_test_setup_teardown(slices_are_joined_in_the_order_of_ranks, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_empty_slice_is_one_too, setup, teardown),
        cmocka_unit_test_setup_teardown(slices_of_another_size_are_refused, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(slices_that_the_template_lacks_have_no_shape, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_missing_rank_is_never_allowed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_template_names_what_is_missing_or_wrong, setup,
                                        teardown),
        cmocka_unit_test(a_family_of_models_has_its_own_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
