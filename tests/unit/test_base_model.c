/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/t.h"

#include <stdlib.h>

#include "snapshot/base_model.h"
#include "tests/unit/t_run.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

static struct gf_base_model find(struct t_run *t, const char *config)
{
    GF_AUTO(gf_json) json = NULL;
    GF_AUTO(gf_dir) source = NULL;
    struct gf_base_model base = { 0 };

    if (config)
        GF_OK(
            gf_json_parse("c", config, strlen(config), &gf_limits_default, &json, &t_err));
    GF_OK(gf_dir_local(t_run_path(t, "run"), false, &gf_limits_default, &source, &t_err));
    GF_OK(gf_base_model_find(source, json, &t->opt, &base, &t_err));
    /* What was found below SOURCE does not outlive it. */
    if (base.dir && strstr(base.dir->name, "/run")) {
        gf_dir_free(base.dir);
        base.dir = NULL;
        snprintf(base.why, sizeof(base.why), "below SOURCE");
    }
    return base;
}

static void says(struct t_run *t, const char *config, const char *words)
{
    struct gf_base_model base = find(t, config);

    assert_null(base.dir);
    if (!strstr(base.why, words))
        fail_msg("'%s' does not say '%s'", base.why, words);
    gf_base_model_done(&base);
}

static void finds(struct t_run *t, const char *config, const char *end, uint64_t vocab)
{
    struct gf_base_model base = find(t, config);

    assert_non_null(base.dir);
    assert_non_null(strstr(base.dir->name, end));
    assert_int_equal(base.vocab, vocab);
    gf_base_model_done(&base);
}

static int setup(void **state)
{
    int r = t_run_setup(state);

    t_run_text(*state, "run/here", "");
    setenv("HF_HUB_CACHE", t_run_path(*state, "hub"), 1);
    return r;
}

static void names_of_repositories_are_the_hubs(void **state)
{
    static const struct {
        const char *name;
        bool valid;
    } cases[] = {
        { "gpt2", true },         { "org/name", true }, { "a.b-c_d/E.9", true },
        { "_x/_y", true },        { "", false },        { "/gpt2", false },
        { "gpt2/", false },       { "a/b/c", false },   { "a//b", false },
        { "..", false },          { "org/..", false },  { "a..b", false },
        { "a--b", false },        { "-a", false },      { "a/-b", false },
        { "a-", false },          { ".a", false },      { "a b", false },
        { "a\nb", false },        { "a\\b", false },    { "\xc3\xa4", false },
        { "models--x/y", false },
    };
    char longest[98];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (gf_base_model_is_repo(cases[i].name) != cases[i].valid)
            fail_msg("'%s'", cases[i].name);
    memset(longest, 'x', 97);
    longest[97] = '\0';
    assert_false(gf_base_model_is_repo(longest));
    longest[96] = '\0';
    assert_true(gf_base_model_is_repo(longest));
}

static void without_a_name_only_the_user_can_say(void **state)
{
    says(*state, NULL, "base=DIR supplies it");
    says(*state, "{}", "base=DIR supplies it");
    says(*state, "{\"base_model_name_or_path\":null}", "base=DIR supplies it");
    says(*state, "{\"base_model_name_or_path\":7}", "base=DIR supplies it");
}

static void an_absolute_path_is_named_but_not_followed(void **state)
{
    says(*state, "{\"base_model_name_or_path\":\"/\"}", "base=/ supplies it");
}

static void a_relative_path_is_one_below_the_source(void **state)
{
    struct t_run *t = *state;

    t_run_text(t, "run/models/base/config.json", "{}");
    t_run_text(t, "outside/config.json", "{}");
    says(t, "{\"base_model_name_or_path\":\"models/base\"}", "below SOURCE");
    says(t, "{\"base_model_name_or_path\":\"./models/base\"}", "below SOURCE");
    says(t, "{\"base_model_name_or_path\":\"../outside\"}",
         "nor in the Hugging Face cache");
    says(t, "{\"base_model_name_or_path\":\"here\"}", "nor in the Hugging Face cache");
    t_run_shell(t, "ln -s ../outside run/link");
    says(t, "{\"base_model_name_or_path\":\"link\"}", "nor in the Hugging Face cache");
}

static void the_caches_snapshot_of_a_revision_is_found(void **state)
{
    struct t_run *t = *state;
    const char *main_branch = "{\"base_model_name_or_path\":\"org/base\"}";

    says(t, main_branch, "nor in the Hugging Face cache");
    t_run_text(t, "hub/models--org--base/refs/main", COMMIT "\n");
    says(t, main_branch, "nor in the Hugging Face cache"); /* it was never downloaded */
    t_run_text(t, "hub/models--org--base/snapshots/" COMMIT "/config.json",
               "{\"text_config\":{\"vocab_size\":67}}");
    finds(t, main_branch, "/snapshots/" COMMIT, 67);
    finds(t, "{\"base_model_name_or_path\":\"org/base\",\"revision\":\"" COMMIT "\"}",
          COMMIT, 67);
    says(t, "{\"base_model_name_or_path\":\"org/base\",\"revision\":\"v2\"}", "'org/base'");
    says(t, "{\"base_model_name_or_path\":\"org/base\",\"revision\":\"../refs/main\"}",
         "'org/base'");
    t_run_text(t, "hub/models--org--base/refs/pr/1", COMMIT);
    finds(t, "{\"base_model_name_or_path\":\"org/base\",\"revision\":\"pr/1\"}", COMMIT,
          67);
    t_run_text(t, "hub/models--org--base/refs/main", "../../../run");
    says(t, main_branch, "'org/base'");
}

static void the_option_wins_and_must_be_there(void **state)
{
    struct t_run *t = *state;
    struct gf_base_model base;

    t->opt.base = strdup(t_run_path(t, "mine"));
    GF_FAILS(gf_base_model_find(NULL, NULL, &t->opt, &base, &t_err), ENOENT,
             "option 'base'");
    t_run_text(t, "mine/config.json", "{\"vocab_size\":9}");
    finds(t, "{\"base_model_name_or_path\":\"org/base\"}", "/mine", 9);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, t_run_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(names_of_repositories_are_the_hubs),
        T(without_a_name_only_the_user_can_say),
        T(an_absolute_path_is_named_but_not_followed),
        T(a_relative_path_is_one_below_the_source),
        T(the_caches_snapshot_of_a_revision_is_found),
        T(the_option_wins_and_must_be_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
