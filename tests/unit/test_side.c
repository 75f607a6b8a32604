/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include "base/math.h"
#include "snapshot/side.h"
#include "tests/unit/t_run.h"

/* The names that are found for the checkpoint at `layout` in `source`, as one text; a file
 * that says something says it behind its name. */
static void expect_of(struct t_run *t, const char *source, const char *layout,
                      const struct gf_found *found, const char *want)
{
    struct gf_side side;
    char text[1024] = "";
    struct gf_dir *dir;
    size_t at = 0;

    GF_OK(gf_dir_local(t_run_path(t, source), false, &gf_limits_default, &dir, &t_err));
    GF_OK(gf_side_find(dir, layout, found, &t->opt, &side, &t_err));
    for (size_t i = 0; i < side.files.n; i++) {
        const struct gf_source *src = side.sources.at[side.files.at[i].source];
        char said[64] = "";

        assert_int_equal(gf_source_read((struct gf_source *)(uintptr_t)src, said,
                                        GF_MIN(src->size, sizeof(said) - 1), 0),
                         0);
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s%s%s", at ? " " : "",
                               side.files.at[i].name, *said ? "=" : "", said);
    }
    gf_side_done(&side);
    gf_dir_free(dir);
    assert_string_equal(text, want);
}

static void expect(struct t_run *t, const char *source, const char *layout,
                   const char *want)
{
    struct gf_found found = { 0 };

    expect_of(t, source, layout, &found, want);
}

static void the_nearest_file_wins(void **state)
{
    struct t_run *t = *state;

    t_run_text(t, "config.json", "{\"a\":1}");
    t_run_text(t, "tokenizer.json", "root");
    t_run_text(t, "preprocessor_config.json", "root");
    t_run_text(t, "step-1/tokenizer.json", "step");
    t_run_text(t, "step-1/huggingface/tokenizer.json", "below");
    t_run_text(t, "step-1/huggingface/generation_config.json", "below");
    t_run_text(t, "step-1/model.safetensors", "");
    t_run_text(t, "step-1/optimizer.bin", "");
    expect(t, "", "step-1",
           "config.json={\"a\":1} generation_config.json=below "
           "preprocessor_config.json=root tokenizer.json=step");
    expect(t, "", "",
           "config.json={\"a\":1} preprocessor_config.json=root tokenizer.json=root");
}

static void a_tokenizer_is_of_one_directory(void **state)
{
    struct t_run *t = *state;

    t_run_text(t, "tokenizer.json", "root");
    t_run_text(t, "vocab.json", "root");
    t_run_text(t, "chat_template.jinja", "root");
    t_run_text(t, "step-1/chat_template.jinja", "step");
    t_run_text(t, "step-1/model.safetensors", "");
    expect(t, "", "step-1", "chat_template.jinja=step tokenizer.json=root vocab.json=root");
    t_run_text(t, "step-1/tokenizer.model", "step");
    expect(t, "", "step-1", "chat_template.jinja=step tokenizer.model=step");
}

static void all_directories_up_to_source_are_searched(void **state)
{
    struct t_run *t = *state;
    struct gf_found tag = { .base = "global_step5" };

    t_run_text(t, "run/config.json", "{}");
    t_run_text(t, "run/a/processor_config.json", "");
    t_run_text(t, "run/a/step-1/tokenizer.json", "");
    t_run_text(t, "run/a/step-1/global_step5/chat_template.jinja", "");
    t_run_text(t, "generation_config.json", "");
    expect_of(t, "run", "a/step-1", &tag,
              "chat_template.jinja config.json={} processor_config.json tokenizer.json");
}

static void a_step_as_source_has_its_runs_files(void **state)
{
    struct t_run *t = *state;
    struct gf_found tag = { .parent_side = true };

    t_run_text(t, "tokenizer.model", "");
    t_run_text(t, "run/config.json", "{}");
    t_run_text(t, "run/checkpoint-1/vocab.txt", "");
    t_run_text(t, "run/checkpoint-1/global_step5/x", "");
    t_run_text(t, "run/checkpoints/checkpoint_0/merges.txt", "");
    t_run_text(t, "run/other/merges.txt", "");
    expect(t, "run/checkpoint-1", "", "config.json={} vocab.txt");
    expect_of(t, "run/checkpoint-1/global_step5", "", &tag, "config.json={} vocab.txt");
    expect(t, "run/checkpoints/checkpoint_0", "", "config.json={} merges.txt");
    expect(t, "run/other", "", "merges.txt");
    expect(t, "run", "", "config.json={}");
}

static void options_come_first_and_the_base_last(void **state)
{
    struct t_run *t = *state;

    t_run_text(t, "run/tokenizer.json", "run");
    t_run_text(t, "run/config.json", "{\"run\":1}");
    t_run_text(t, "tok/tokenizer.json", "tok");
    t_run_text(t, "tok/config.json", "{\"tok\":1}");
    t_run_text(t, "cfg/config.json", "{\"cfg\":1}");
    t_run_text(t, "base/config.json", "{\"base\":1}");
    t_run_text(t, "base/generation_config.json", "{}");
    t->opt.tokenizer = strdup(t_run_path(t, "tok"));
    t->opt.base = strdup(t_run_path(t, "base"));
    expect(t, "run", "",
           "config.json={\"run\":1} generation_config.json={} tokenizer.json=tok");
    t->opt.config_from = strdup(t_run_path(t, "cfg"));
    t->opt.generation_config = strdup("{\"g\":1}");
    expect(t, "run", "",
           "config.json={\"cfg\":1} generation_config.json={\"g\":1} tokenizer.json=tok");
}

static void code_is_a_models_only_beside_its_config(void **state)
{
    struct t_run *t = *state;

    t_run_text(t, "train.py", "");
    t_run_text(t, "run/step-1/model.safetensors", "");
    expect(t, "", "run/step-1", "");
    t_run_text(t, "run/config.json", "{}");
    t_run_text(t, "run/modeling_x.py", "");
    t_run_text(t, "run/zero_to_fp32.py", "");
    expect(t, "", "run/step-1", "config.json={} modeling_x.py");
}

static void a_config_that_is_none_is_an_error(void **state)
{
    struct t_run *t = *state;
    struct gf_found found = { 0 };
    struct gf_side side;
    struct gf_dir *dir;

    t_run_text(t, "config.json", "[1]");
    GF_OK(gf_dir_local(t->top, false, &gf_limits_default, &dir, &t_err));
    GF_FAILS(gf_side_find(dir, "", &found, &t->opt, &side, &t_err), GF_EBAD,
             "'config.json': not a JSON object");
    t_run_text(t, "config.json", "{");
    assert_int_equal(gf_side_find(dir, "", &found, &t->opt, &side, &t_err), -GF_EBAD);
    t->opt.config_from = strdup("/nonexistent/x");
    GF_FAILS(gf_side_find(dir, "", &found, &t->opt, &side, &t_err), ENOENT,
             "option 'config_from'");
    gf_dir_free(dir);
}

static void names_of_trainers_are_not_wanted(void **state)
{
    static const char *const wanted[] = { "config.json",   "tokenizer.json", "x.tiktoken",
                                          "modeling_x.py", "README.md",      "vocab.txt" };
    static const char *const others[] = {
        "optimizer.bin", "trainer_state.json",  "training_args.bin", "model.safetensors",
        "latest",        "random_states_0.pkl", "zero_to_fp32.py",   "adapter_model.bin",
        "data.pt",       "scheduler.pt",        "rng_state_0.pth",   "COMPLETED"
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(wanted); i++)
        assert_true(gf_side_is_wanted(wanted[i]));
    for (size_t i = 0; i < GF_COUNT(others); i++)
        assert_false(gf_side_is_wanted(others[i]));
}

#define T(f) cmocka_unit_test_setup_teardown(f, t_run_setup, t_run_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_nearest_file_wins),
        T(a_tokenizer_is_of_one_directory),
        T(all_directories_up_to_source_are_searched),
        T(a_step_as_source_has_its_runs_files),
        T(options_come_first_and_the_base_last),
        T(code_is_a_models_only_beside_its_config),
        T(a_config_that_is_none_is_an_error),
        T(names_of_trainers_are_not_wanted),
    };

    return cmocka_run_group_tests_name("side", tests, NULL, NULL);
}
