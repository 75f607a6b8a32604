/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "snapshot/layers.h"
#include "tests/unit/t_deepspeed.h"
#include "tests/unit/t_run.h"

/* A trained weight and a frozen one that the save left out. */
static const struct dw_param params[] = {
    { .name = "model.embed", .rank = 2, .dims = { 7, 5 } },
    { .name = "model.cold", .role = DW_EXCLUDED, .rank = 2, .dims = { 3, 5 } },
};

static const struct dw_run run = {
    .params = params, .n = 2, .groups = 1, .stage = 3, .world = 2, .none_frozen = true
};

static struct gf_dir *trainers_step(void)
{
    struct gf_dir *dir = a_dir();

    dw_save(dir, "global_step5", &run);
    dw_text(dir, "latest", "global_step5");
    return dir;
}

static size_t st_bytes(char *file, size_t room, const char *header, size_t bytes)
{
    uint64_t len = strlen(header);

    assert_true(8 + len + bytes <= room);
    memset(file, 0, 8 + len + bytes);
    memcpy(file, &len, 8);
    memcpy(file + 8, header, len);
    return 8 + len + bytes;
}

#define EMBED "\"model.embed\":{\"dtype\":\"BF16\",\"shape\":[7,5],\"data_offsets\":[0,70]}"
#define COLD "\"model.cold\":{\"dtype\":\"BF16\",\"shape\":[3,5],\"data_offsets\":[70,100]}"
#define OTHER "\"model.embed\":{\"dtype\":\"BF16\",\"shape\":[5,7],\"data_offsets\":[0,70]}"

static void add_ready(struct gf_dir *dir, const char *path, const char *header,
                      size_t bytes)
{
    char file[1024];

    GF_OK(gf_dir_mem_add(dir, path, file, st_bytes(file, sizeof(file), header, bytes),
                         &t_err));
}

static int read_layers(struct t_run *t, struct gf_dir *dir, struct gf_found *ret)
{
    struct gf_layers_in in = { .dir = dir, .opt = &t->opt };
    char why[GF_WHY];

    *ret = (struct gf_found){ 0 };
    return gf_layers_read(&in, ret, why, &t_err);
}

/* Which file has the first piece of a tensor. */
static const char *source_of(const struct gf_found *found, const char *name)
{
    const struct gf_tensor *tensor = gf_catalog_find(found->catalog, name);

    assert_non_null(tensor);
    return found->sources.at[gf_catalog_piece(found->catalog, tensor->pieces)->source]
        ->name;
}

/* The warning that says so, or NULL. */
static const char *warning(const struct gf_found *found, const char *words)
{
    for (size_t i = 0; i < found->warnings.n; i++)
        if (strstr(found->warnings.at[i], words))
            return found->warnings.at[i];
    return NULL;
}

static void shards_win_and_ready_weights_supply_the_rest(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = trainers_step();
    struct gf_found found;

    GF_OK(read_layers(t, dir, &found));
    assert_int_equal(found.left_out.n, 1);
    assert_null(gf_catalog_find(found.catalog, "model.cold"));
    gf_found_done(&found);

    add_ready(dir, "model.safetensors", "{" EMBED "," COLD "}", 100);
    GF_OK(read_layers(t, dir, &found));
    assert_string_equal(found.format, "deepspeed");
    assert_int_equal(found.left_out.n, 0);
    assert_null(warning(&found, "not used"));
    assert_non_null(strstr(source_of(&found, "model.embed"), "optim_states"));
    assert_string_equal(source_of(&found, "model.cold"), "model.safetensors");
    gf_found_done(&found);
}

static void a_weaker_layer_of_another_model_supplies_nothing(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = trainers_step();
    struct gf_found found;

    add_ready(dir, "model.safetensors", "{" OTHER "," COLD "}", 100);
    GF_OK(read_layers(t, dir, &found));
    assert_int_equal(found.left_out.n, 1);
    assert_null(gf_catalog_find(found.catalog, "model.cold"));
    gf_found_done(&found);
}

static void a_damaged_weaker_layer_is_only_a_warning(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = trainers_step();
    struct gf_found found;

    add_ready(dir, "model.safetensors", "{" EMBED "," COLD "}", 99);
    GF_OK(read_layers(t, dir, &found));
    assert_int_equal(found.left_out.n, 1);
    assert_non_null(warning(&found, "not used beside it: "));
    assert_non_null(strstr(warning(&found, "not used beside it: "), "model.safetensors"));
    gf_found_done(&found);
}

static void layouts_of_equal_rank_are_an_error_naming_both(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = trainers_step();
    struct gf_found found;

    GF_OK(gf_dir_mem_add(dir, "pytorch_model_fsdp_0/.metadata", "\x80\x02}.", 4, &t_err));
    GF_FAILS(read_layers(t, dir, &found), EINVAL, "could be 'dcp'");
    assert_non_null(strstr(t_err.text, "or 'deepspeed'"));
    gf_found_done(&found);
    t->opt.source_format = strdup("deepspeed");
    GF_OK(read_layers(t, dir, &found));
    gf_found_done(&found);
}

/* A base model on disk. */
static void base(struct t_run *t, const char *header, size_t bytes)
{
    char file[1024];

    t_run_write(t, "base/model.safetensors", file,
                st_bytes(file, sizeof(file), header, bytes));
}

static void a_base_supplies_what_was_left_out(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = trainers_step();
    struct gf_found found;

    t->opt.base = strdup(t_run_path(t, "base"));
    GF_FAILS(read_layers(t, dir, &found), ENOENT, "option 'base'");
    gf_found_done(&found);

    base(t, "{" EMBED "," COLD "}", 100);
    GF_OK(read_layers(t, dir, &found));
    assert_int_equal(found.left_out.n, 0);
    assert_non_null(strstr(source_of(&found, "model.embed"), "optim_states"));
    gf_found_done(&found);
}

static void a_base_that_does_not_fit_is_refused(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = trainers_step();
    struct gf_found found;

    t->opt.base = strdup(t_run_path(t, "base"));
    base(t, "{" OTHER "}", 70);
    GF_FAILS(read_layers(t, dir, &found), EINVAL, "is no base of this checkpoint");
    gf_found_done(&found);
    base(t, "{" EMBED "}", 1);
    GF_FAILS(read_layers(t, dir, &found), GF_EBAD, "option 'base'");
    gf_found_done(&found);
}

/* ---- a base under an adapter ---- */

#define P "base_model.model."
#define F(n, shape, at)                                                                    \
    "\"" n "\":{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[" at "]}"
#define LORA                                                                               \
    F(P "h.0.q.lora_A.weight", "1,2", "0,8") "," F(P "h.0.q.lora_B.weight", "3,1", "8,20")

static struct gf_dir *adapter_dir(void)
{
    struct gf_dir *dir = a_dir();

    add_ready(dir, "adapter_model.safetensors", "{" LORA "}", 20);
    return dir;
}

static void an_adapter_alone_gets_the_whole_base(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = adapter_dir();
    struct gf_found found;

    GF_OK(read_layers(t, dir, &found));
    assert_int_equal(gf_catalog_len(found.catalog), 2);
    gf_found_done(&found);
    t->opt.base = strdup(t_run_path(t, "base"));
    base(t, "{" F("h.0.q.weight", "3,2", "0,24") "," F("e", "1", "24,28") "}", 28);
    GF_OK(read_layers(t, dir, &found));
    assert_int_equal(gf_catalog_len(found.catalog), 4);
    assert_non_null(strstr(source_of(&found, "h.0.q.weight"), "model.safetensors"));
    gf_found_done(&found);
}

static void a_base_may_have_the_names_of_the_hub(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = adapter_dir();
    struct gf_found found;

    t->opt.base = strdup(t_run_path(t, "base"));
    base(t, "{" F("h.0.other.weight", "3,2", "0,24") "}", 24); /* at least the layer */
    GF_OK(read_layers(t, dir, &found));
    assert_int_equal(gf_catalog_len(found.catalog), 3);
    gf_found_done(&found);
}

static void the_base_of_another_adapter_is_refused(void **state)
{
    static const struct {
        const char *header;
        size_t bytes;
        const char *words;
    } cases[] = {
        { "{" F("g.0.q.weight", "3,2", "0,24") "}", 24, "it has no 'h.0.q.weight'" },
        { "{" F("h.1.q.weight", "3,2", "0,24") "}", 24, "it has no 'h.0.q.weight'" },
        { "{" F("h.0.q.weight", "3,4", "0,48") "}", 48, "'h.0.q.weight' is [3, 4] there" },
        { "{" F("h.0.q.lora_A.weight", "1,2", "0,8") "}", 8, "it holds one itself" },
    };
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = adapter_dir();

    t->opt.base = strdup(t_run_path(t, "base"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gf_found found;

        base(t, cases[i].header, cases[i].bytes);
        GF_FAILS(read_layers(t, dir, &found), EINVAL, cases[i].words);
        gf_found_done(&found);
    }
}

/* Names as in the module must not be mixed with those of a hub's files. */
static void a_state_with_its_own_base_takes_none(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_found found;

    add_ready(dir, "model.safetensors",
              "{" F(P "h.0.q.base_layer.weight", "3,2", "0,24") "," F(
                  P "h.0.q.lora_A.default.weight", "1,2",
                  "24,32") "," F(P "h.0.q.lora_B.default.weight", "3,1", "32,44") "}",
              44);
    t->opt.base = strdup(t_run_path(t, "base"));
    base(t, "{" F("h.0.q.weight", "3,2", "0,24") "," F("h.0.k", "1", "24,28") "}", 28);
    GF_OK(read_layers(t, dir, &found));
    assert_int_equal(gf_catalog_len(found.catalog), 3);
    gf_found_done(&found);
}

/* ---- a template ---- */

#define T4(n, at) "\"" n "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[" at "]}"

static void a_template_reveals_what_is_missing(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_found found;

    add_ready(dir, "model.safetensors", "{" T4("a", "0,4") "," T4("b", "4,8") "}", 8);
    GF_OK(read_layers(t, dir, &found)); /* whole, as far as it knows */
    gf_found_done(&found);

    t->opt.config_from = strdup(t_run_path(t, "base"));
    base(t, "{" T4("a", "0,4") "," T4("b", "4,8") "," T4("c", "8,12") "}", 12);
    GF_FAILS(read_layers(t, dir, &found), GF_EINCOMPLETE, "'c'");
    gf_found_done(&found);
    t->opt.allow_incomplete = true;
    GF_OK(read_layers(t, dir, &found));
    assert_int_equal(found.complete, GF_COMPLETE_NO);
    assert_non_null(strstr(found.why, "'c'"));
    gf_found_done(&found);

    /* A directory without weights says nothing about names. */
    t->opt.allow_incomplete = false;
    t_run_shell(t, "rm base/model.safetensors");
    t_run_text(t, "base/config.json", "{}");
    GF_OK(read_layers(t, dir, &found));
    gf_found_done(&found);
}

static void a_template_of_another_naming_proves_nothing(void **state)
{
    struct t_run *t = *state;
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_found found;

    add_ready(dir, "model.safetensors", "{" T4("a", "0,4") "}", 4);
    t->opt.config_from = strdup(t_run_path(t, "base"));
    base(t, "{" T4("x", "0,4") "," T4("y", "4,8") "," T4("a", "8,12") "}", 12);
    GF_OK(read_layers(t, dir, &found));
    gf_found_done(&found);
}

#define T(f) cmocka_unit_test_setup_teardown(f, t_run_setup, t_run_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(shards_win_and_ready_weights_supply_the_rest),
        T(a_weaker_layer_of_another_model_supplies_nothing),
        T(a_damaged_weaker_layer_is_only_a_warning),
        T(layouts_of_equal_rank_are_an_error_naming_both),
        T(a_base_supplies_what_was_left_out),
        T(a_base_that_does_not_fit_is_refused),
        T(an_adapter_alone_gets_the_whole_base),
        T(a_base_may_have_the_names_of_the_hub),
        T(the_base_of_another_adapter_is_refused),
        T(a_state_with_its_own_base_takes_none),
        T(a_template_reveals_what_is_missing),
        T(a_template_of_another_naming_proves_nothing),
    };

    return cmocka_run_group_tests_name("layers", tests, NULL, NULL);
}
