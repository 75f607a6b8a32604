/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "base/math.h"
#include "dcp_writer.h"
#include "format/dcp_group.h"
#include "format/dcp_metadata.h"

static struct gf_dcp_group group(const char *path, size_t tensors, size_t weights)
{
    const char *dot = strrchr(path, '.');
    struct gf_dcp_group g = { .path = path,
                              .last = dot ? dot + 1 : path,
                              .depth = *path != '\0',
                              .tensors = tensors,
                              .weights = weights };

    for (; *path; path++)
        g.depth += *path == '.';
    return g;
}

static void the_path_decides_and_not_the_size(void **state)
{
    static const struct {
        const char *paths[3]; /* the first is the model */
        size_t tensors[3];
    } cases[] = {
        { { "model", "stuff" }, { 10, 1000 } },
        { { "app.model", "app.stuff" }, { 10, 1000 } },
        { { "model", "app.model" }, { 10, 1000 } },
        { { "state_dict", "" }, { 10, 1000 } },
        { { "model", "module", "state_dict" }, { 1, 2, 3 } },
        { { "", "ema" }, { 10, 1000 } },
        { { "policy", "ref" }, { 10, 10 } },
        { { "actor", "critic" }, { 10, 20 } },
        /* Nothing known: the one with more tensors, then the first by name. */
        { { "big", "a" }, { 20, 10 } },
        { { "a", "b" }, { 10, 10 } },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        struct gf_dcp_group groups[3], turned[3];
        size_t n = 0;

        while (n < 3 && cases[i].paths[n]) {
            groups[n] = group(cases[i].paths[n], cases[i].tensors[n], cases[i].tensors[n]);
            n++;
        }
        for (size_t k = 0; k < n; k++)
            turned[k] = groups[n - 1 - k];
        if (gf_dcp_group_choose(groups, n) != 0 || gf_dcp_group_choose(turned, n) != n - 1)
            fail_msg("case %zu: '%s' was not chosen", i, cases[i].paths[0]);
    }
}

static void counters_at_the_top_are_no_model(void **state)
{
    struct gf_dcp_group groups[] = { group("", 3, 0), group("anything", 5, 5) };

    (void)state;
    assert_int_equal(gf_dcp_group_choose(groups, 2), 1);
    assert_false(gf_dcp_group_is_model(&groups[0]));
    /* They are served if there is nothing else. */
    assert_int_equal(gf_dcp_group_choose(groups, 1), 0);
    assert_true(gf_dcp_group_choose(groups, 0) == SIZE_MAX);
}

static void names_of_a_template_decide_first(void **state)
{
    struct gf_dcp_group groups[] = { group("model", 5, 5), group("value_model", 5, 5) };

    (void)state;
    groups[1].expected = 5;
    assert_int_equal(gf_dcp_group_choose(groups, 2), 1);
}

static void states_of_other_things_are_known_by_their_elements(void **state)
{
    static const char *const other[] = { "optimizer",    "optim",     "optimizer_0",
                                         "lr_scheduler", "scheduler", "dataloader",
                                         "train_state",  "rng",       "rng_states" };
    static const char *const models[] = { "model", "module", "app", "schedulers_model",
                                          "ema" };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(other); i++)
        assert_true(gf_dcp_group_is_other(other[i]));
    for (size_t i = 0; i < GF_COUNT(models); i++)
        assert_false(gf_dcp_group_is_other(models[i]));
}

/* --- how paths are found in the metadata ---------------------------------------------- */

static struct gf_dcp_table *table_of(const struct dw_tensor *tensors, size_t n)
{
    struct gf_dcp_table *table = NULL;
    GF_AUTO(gf_pickle) pickle = NULL;
    static struct pw w;

    dw_metadata(&w, tensors, n, NULL);
    GF_OK(gf_pickle_parse("m", w.p, w.n, &gf_limits_default, &pickle, NULL, NULL, &t_err));
    GF_OK(gf_dcp_table_new(&gf_limits_default, &table, &t_err));
    GF_OK(gf_dcp_table_add(table, "m", pickle, w.n, &t_err));
    gf_dcp_table_finish(table);
    return table;
}

static struct dw_tensor one(const char *fqn, const char *a, const char *b, const char *c)
{
    return (struct dw_tensor){
        fqn,
        { a, b, c },
        "float32",
        DW_DIMS(2),
        { { DW_DIMS(0), DW_DIMS(2), "__0_0.distcp", { 0, 900 }, NULL, false } }
    };
}

static void the_last_element_is_the_name_dots_and_all(void **state)
{
    struct dw_tensor t[] = {
        one("app.model.a.b", "app", "model", "a.b"),
        one("app.optim.state.a.b", "app", "optim", "state.a.b"),
        one("app.model.c", "app", "model", "c"),
    };
    GF_AUTO(gf_dcp_table) table = table_of(t, 3);

    (void)state;
    assert_int_equal(table->tensors.n, 2);
    assert_string_equal(table->tensors.at[0].name, "a.b");
    assert_string_equal(table->tensors.at[1].name, "c");
    assert_int_equal(table->groups.n, 1);
    assert_string_equal(table->groups.at[0].path, "app.model");
    assert_string_equal(table->groups.at[0].last, "model");
    assert_int_equal(table->skipped, 1);
}

static void equal_keys_of_different_paths_are_different_groups(void **state)
{
    struct dw_tensor t[] = { one("a.b.c", "a.b", "c", NULL), one("a.b.d", "a", "b", "d") };
    GF_AUTO(gf_dcp_table) table = table_of(t, 2);

    (void)state;
    assert_int_equal(table->groups.n, 2);
    assert_string_equal(table->groups.at[0].path, "a.b");
    assert_string_equal(table->groups.at[1].path, "a.b");
}

static void flat_keys_are_names_unless_they_are_the_optimizers(void **state)
{
    struct dw_tensor t[] = { one("layers.0.w", NULL, NULL, NULL),
                             one("optimizer.state.w", NULL, NULL, NULL),
                             one("optimizer_head", NULL, NULL, NULL),
                             one("rng_state", "rng_state", NULL, NULL),
                             one("optim_head.weight", "optim_head.weight", NULL, NULL) };
    GF_AUTO(gf_dcp_table) table = table_of(t, 5);

    (void)state;
    assert_int_equal(table->tensors.n, 2);
    /* What planner_data names comes first, in its order. */
    assert_string_equal(table->tensors.at[0].name, "optim_head.weight");
    assert_string_equal(table->tensors.at[1].name, "layers.0.w");
    assert_int_equal(table->skipped, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_path_decides_and_not_the_size),
        cmocka_unit_test(counters_at_the_top_are_no_model),
        cmocka_unit_test(names_of_a_template_decide_first),
        cmocka_unit_test(states_of_other_things_are_known_by_their_elements),
        cmocka_unit_test(the_last_element_is_the_name_dots_and_all),
        cmocka_unit_test(equal_keys_of_different_paths_are_different_groups),
        cmocka_unit_test(flat_keys_are_names_unless_they_are_the_optimizers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
