/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>

#include "base/json.h"

static struct gf_json *parse(const char *text)
{
    struct gf_json *doc = NULL;

    GF_OK(gf_json_parse("x.json", text, strlen(text), &gf_limits_default, &doc, &t_err));
    return doc;
}

static void values_are_read_by_type(void **state)
{
    struct gf_json *doc =
        parse("{\"a\": 3, \"b\": \"x\", \"c\": [1, true], \"d\": 1.5, \"e\": -1}");
    uint64_t n = 0;

    (void)state;
    assert_true(gf_json_u64(gf_json_get(doc, "a"), &n));
    assert_int_equal(n, 3);
    assert_false(gf_json_u64(gf_json_get(doc, "b"), &n));
    assert_false(gf_json_u64(gf_json_get(doc, "d"), &n));
    assert_false(gf_json_u64(gf_json_get(doc, "e"), &n));
    assert_string_equal(gf_json_str(gf_json_get(doc, "b")), "x");
    assert_null(gf_json_str(gf_json_get(doc, "a")));
    assert_int_equal(gf_json_len(gf_json_get(doc, "c")), 2);
    assert_true(gf_json_bool(gf_json_at(gf_json_get(doc, "c"), 1), false));
    assert_null(gf_json_get(doc, "A"));
    gf_json_free(doc);
}

static void bad_text_is_refused_with_the_place(void **state)
{
    struct gf_json *doc = NULL;
    char deep[300];
    size_t i;

    (void)state;
    GF_FAILS(gf_json_parse("x.json", "{\"a\": }", 7, &gf_limits_default, &doc, &t_err),
             GF_EBAD, "'x.json': not JSON");
    GF_FAILS(gf_json_parse("x.json", "{} x", 4, &gf_limits_default, &doc, &t_err), GF_EBAD,
             "byte 3");
    GF_FAILS(gf_json_parse("x.json", "", 0, &gf_limits_default, &doc, &t_err), GF_EBAD,
             "x.json");
    for (i = 0; i < 150; i++)
        deep[i] = '[';
    for (; i < 300; i++)
        deep[i] = ']';
    GF_FAILS(gf_json_parse("x.json", deep, 300, &gf_limits_default, &doc, &t_err), GF_EBAD,
             "nested deeper");
    assert_null(doc);
}

static void what_python_writes_for_no_number_is_no_whole_number(void **state)
{
    struct gf_json *doc =
        parse("{\"a\": [NaN, -Infinity, Infinity], \"NaN\": \"Infinity\"}");
    uint64_t n;

    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_false(gf_json_u64(gf_json_at(gf_json_get(doc, "a"), i), &n));
    assert_string_equal(gf_json_str(gf_json_get(doc, "NaN")), "Infinity");
    gf_json_free(doc);
}

static void check_edit(const char *text, const char *key, const char *value,
                       const char *want)
{
    char *out = NULL;
    size_t len = 0;

    GF_OK(gf_json_edit(text, strlen(text), key, value, &out, &len, &t_err));
    assert_string_equal(out, want);
    assert_int_equal(len, strlen(want));
    free(out);
}

static void an_edit_leaves_all_other_bytes_alone(void **state)
{
    (void)state;
    check_edit(
        "{\n  \"a\": 1e-05,\n  \"dtype\": \"float32\",\n  \"b\": {\"dtype\": 1}\n}\n",
        "dtype", "\"bfloat16\"",
        "{\n  \"a\": 1e-05,\n  \"dtype\": \"bfloat16\",\n  \"b\": {\"dtype\": 1}\n}\n");
    check_edit("{\"a\":{\"k\":[1,\"}\"]},\"k\":[1,{\"x\":2}],\"z\":0}", "k", "null",
               "{\"a\":{\"k\":[1,\"}\"]},\"k\":null,\"z\":0}");
    check_edit("{\n  \"a\": 1\n}\n", "b", "true", "{\n  \"a\": 1,\n  \"b\": true\n}\n");
    check_edit("{\"a\":1}", "b", "2", "{\"a\":1,\"b\": 2}");
    check_edit("{}", "b", "2", "{\"b\": 2}");
    check_edit("{ }\n", "b", "2", "{\"b\": 2 }\n");
}

static void a_member_is_removed_with_its_comma(void **state)
{
    (void)state;
    check_edit("{\"a\": 1, \"b\": 2, \"c\": 3}", "b", NULL, "{\"a\": 1, \"c\": 3}");
    check_edit("{\"a\": 1, \"b\": 2}", "b", NULL, "{\"a\": 1}");
    check_edit("{\"b\": 2}", "b", NULL, "{}");
    check_edit("{\"a\": 1}", "b", NULL, "{\"a\": 1}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_read_by_type),
        cmocka_unit_test(bad_text_is_refused_with_the_place),
        cmocka_unit_test(what_python_writes_for_no_number_is_no_whole_number),
        cmocka_unit_test(an_edit_leaves_all_other_bytes_alone),
        cmocka_unit_test(a_member_is_removed_with_its_comma),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
