/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>

#include "base/regex.h"

static struct gf_regex *make(const char *pattern)
{
    struct gf_regex *regex = NULL;

    GF_OK(gf_regex_new(pattern, &regex, &t_err));
    return regex;
}

static void matching_is_pythons(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool start, anywhere;
    } want[] = {
        { "(.*\\.)?(q_proj)$", "model.layers.0.self_attn.q_proj", true, true },
        { "(.*\\.)?(q_proj)$", "model.layers.0.self_attn.q_proj_x", false, false },
        { "(.*\\.)?(layers\\.\\d+\\.mlp)$", "model.layers.12.mlp", true, true },
        { "b", "abc", false, true },
        { "(?:x|a)b", "abc", true, true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        GF_AUTO(gf_regex) regex = make(want[i].pattern);

        assert_int_equal(gf_regex_matches_start(regex, want[i].text), want[i].start);
        assert_int_equal(gf_regex_matches(regex, want[i].text), want[i].anywhere);
    }
}

static void what_is_no_pattern_is_refused_by_place(void **state)
{
    struct gf_regex *regex;

    (void)state;
    GF_FAILS(gf_regex_new("a(b", &regex, &t_err), GF_EBAD, "'a(b' at 3");
    GF_FAILS(gf_regex_new("*", &regex, &t_err), GF_EBAD, "at 0");
}

static void a_pattern_that_never_ends_does_not_match(void **state)
{
    GF_AUTO(gf_regex) regex = make("^(a+)+$");

    (void)state;
    assert_false(
        gf_regex_matches(regex, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"));
}

static void replacing_takes_groups_and_counts(void **state)
{
    GF_AUTO(gf_regex) regex = make("(\\w)\\.x");
    char *text;
    size_t n;

    (void)state;
    GF_OK(gf_regex_replace(regex, "a.x b.x", "${1}_", true, &text, &n, &t_err));
    assert_string_equal(text, "a_ b_");
    assert_int_equal(n, 2);
    free(text);
    GF_OK(gf_regex_replace(regex, "a.x b.x", "", false, &text, &n, &t_err));
    assert_string_equal(text, " b.x");
    assert_int_equal(n, 1);
    free(text);
    GF_OK(gf_regex_replace(regex, "none", "", false, &text, &n, &t_err));
    assert_string_equal(text, "none");
    assert_int_equal(n, 0);
    free(text);
}

static void an_answer_longer_than_guessed_is_whole(void **state)
{
    GF_AUTO(gf_regex) regex = make("a");
    char many[201] = { 0 }, *text;

    (void)state;
    memset(many, 'a', 200);
    GF_OK(gf_regex_replace(regex, many, "0123456789", true, &text, NULL, &t_err));
    assert_int_equal(strlen(text), 2000);
    free(text);
}

static void finding_tells_where_groups_are(void **state)
{
    GF_AUTO(gf_regex) regex = make("b(c)?(d)(e)(f)(g)");
    GF_AUTO(gf_regex) empty = make("^");
    struct gf_span at[3];

    (void)state;
    assert_true(gf_regex_find(regex, "abcdefg", at, 3));
    assert_int_equal(at[0].start, 1);
    assert_int_equal(at[0].end, 7);
    assert_int_equal(at[1].start, 2);
    assert_int_equal(at[2].end, 4);
    assert_true(gf_regex_find(regex, "abdefg", at, 3));
    assert_int_equal(at[1].end, 0); /* took no part */
    assert_int_equal(at[2].start, 2);
    assert_false(gf_regex_find(regex, "abc", at, 3));
    assert_true(gf_regex_find(empty, "a", at, 2));
    assert_int_equal(at[0].end, 0);
    assert_int_equal(at[1].end, 0); /* there is no such group */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matching_is_pythons),
        cmocka_unit_test(what_is_no_pattern_is_refused_by_place),
        cmocka_unit_test(a_pattern_that_never_ends_does_not_match),
        cmocka_unit_test(replacing_takes_groups_and_counts),
        cmocka_unit_test(an_answer_longer_than_guessed_is_whole),
        cmocka_unit_test(finding_tells_where_groups_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
