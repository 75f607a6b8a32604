/* SPDX-License-Identifier: Apache-2.0 */
/* err, vec, arena, strmap, text, bytes, math: the ground everything stands on. */
#include "t.h"

#include <stdlib.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/math.h"
#include "base/strmap.h"
#include "base/text.h"
#include "base/vec.h"

static void a_message_is_one_printable_line(void **state)
{
    struct gf_err err;

    (void)state;
    assert_int_equal(gf_fail(&err, EINVAL, "bad name '%s'", "a\nb\x1b"), -EINVAL);
    assert_string_equal(err.text, "bad name 'a?b?'");
    gf_fail(&err, EINVAL, "'%s'", "\xc3\xa4");
    assert_string_equal(err.text, "'\xc3\xa4'");
    gf_fail(&err, EINVAL, "'%s'", "a\xff");
    assert_string_equal(err.text, "'a?'");
}

static void context_goes_in_front(void **state)
{
    struct gf_err err;

    (void)state;
    gf_fail(&err, ENOENT, "'%s': not there", "x.pt");
    assert_int_equal(gf_wrap(&err, "reading '%s'", "tag"), -ENOENT);
    assert_string_equal(err.text, "reading 'tag': 'x.pt': not there");
}

static void a_long_message_is_cut_not_overrun(void **state)
{
    char big[2000];
    struct gf_err err;

    (void)state;
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    gf_fail(&err, EIO, "%s", big);
    gf_wrap(&err, "%s", big);
    assert_true(strlen(err.text) < sizeof(err.text));
}

static void exit_codes_tell_checkpoint_problems_from_the_rest(void **state)
{
    (void)state;
    assert_int_equal(gf_err_exit(GF_EBAD), 1);
    assert_int_equal(gf_err_exit(GF_EINCOMPLETE), 1);
    assert_int_equal(gf_err_exit(EINVAL), 2);
    assert_int_equal(gf_err_exit(ENOENT), 2);
}

static void a_vector_stops_at_its_ceiling(void **state)
{
    struct GF_VEC(int) v = { 0 };

    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(gf_vec_push(&v, i, 100), 0);
    assert_int_equal(gf_vec_push(&v, 100, 100), -E2BIG);
    assert_int_equal(v.n, 100);
    assert_int_equal(v.at[99], 99);
    gf_vec_free(&v);
}

static void an_arena_gives_zeroed_aligned_memory_up_to_its_ceiling(void **state)
{
    struct gf_arena arena = { .ceiling = 100000 };
    size_t got = 0;
    char *p;

    (void)state;
    while ((p = gf_arena_alloc(&arena, 1000))) {
        assert_int_equal((uintptr_t)p % 16, 0);
        for (int i = 0; i < 1000; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, 1000);
        got += 1000;
    }
    assert_in_range(got, 90000, 100000);
    gf_arena_done(&arena);
    assert_string_equal(gf_arena_printf(&arena, "%d", 7), "7");
    gf_arena_done(&arena);
}

static void a_map_finds_what_was_put(void **state)
{
    struct gf_arena arena = { 0 };
    struct gf_strmap map = { 0 };
    uint64_t value, old = 0;

    (void)state;
    assert_false(gf_strmap_get(&map, "none", &value));
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(
            gf_strmap_put(&map, gf_arena_printf(&arena, "k%u", (unsigned)i), i, NULL), 0);
    for (uint64_t i = 0; i < 5000; i++) {
        assert_true(
            gf_strmap_get(&map, gf_arena_printf(&arena, "k%u", (unsigned)i), &value));
        assert_int_equal(value, i);
    }
    assert_false(gf_strmap_get(&map, "k5000", &value));
    assert_int_equal(gf_strmap_put(&map, "k42", 1, &old), -EEXIST);
    assert_int_equal(old, 42);
    gf_strmap_done(&map);
    gf_arena_done(&arena);
}

static void text_escapes_like_the_json_writers_it_copies(void **state)
{
    struct gf_text text = { 0 };
    char *s;

    (void)state;
    gf_text_json(&text, "a\"\\\n\x01/\xc3\xa4");
    gf_text_add(&text, " ");
    gf_text_json_ascii(&text, "\xc3\xa4\xf0\x9f\x98\x80\x7f");
    s = gf_text_take(&text, NULL);
    assert_string_equal(
        s, "\"a\\\"\\\\\\n\\u0001/\xc3\xa4\" \"\\u00e4\\ud83d\\ude00\\u007f\"");
    free(s);
}

static void a_suffix_may_be_all_of_it(void **state)
{
    (void)state;
    assert_true(gf_ends_with("a.bias", ".bias") && gf_ends_with("x", "x"));
    assert_true(gf_ends_with("x", ""));
    assert_false(gf_ends_with("bias", ".bias") || gf_ends_with("", "x"));
    assert_false(gf_ends_with("a.bias_", ".bias"));
}

static void what_is_not_utf8_becomes_a_sign_that_is(void **state)
{
    static const struct {
        const char *bytes, *text, *ascii;
    } rows[] = {
        { "a\xff"
          "b",
          "\"a\xef\xbf\xbd"
          "b\"",
          "\"a\\ufffdb\"" },
        { "\xc3", "\"\xef\xbf\xbd\"", "\"\\ufffd\"" },
        { "\xc3\"", "\"\xef\xbf\xbd\\\"\"", "\"\\ufffd\\\"\"" },
        { "\xc0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\"", "\"\\ufffd\\ufffd\"" },
        { "\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"",
          "\"\\ufffd\\ufffd\\ufffd\"" },
        { "\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"",
          "\"\\ufffd\\ufffd\\ufffd\\ufffd\"" },
        { "\xf4\x8f\xbf\xbf", "\"\xf4\x8f\xbf\xbf\"", "\"\\udbff\\udfff\"" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gf_text text = { 0 }, ascii = { 0 };

        gf_text_json(&text, rows[i].bytes);
        gf_text_json_ascii(&ascii, rows[i].bytes);
        assert_string_equal(text.s, rows[i].text);
        assert_string_equal(ascii.s, rows[i].ascii);
        gf_text_done(&text);
        gf_text_done(&ascii);
    }
}

static void a_cursor_never_leaves_its_bytes(void **state)
{
    static const uint8_t data[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    struct gf_bytes b = gf_bytes_of(data, sizeof(data));
    uint64_t u64 = 0;
    uint32_t u32 = 7;
    uint8_t u8;

    (void)state;
    assert_true(gf_bytes_u64le(&b, &u64));
    assert_true(u64 == 0x0807060504030201u);
    assert_false(gf_bytes_u32le(&b, &u32));
    assert_int_equal(u32, 7);
    assert_true(gf_bytes_u8(&b, &u8));
    assert_int_equal(u8, 9);
    assert_false(gf_bytes_skip(&b, 1));
}

static void arithmetic_on_file_numbers_does_not_wrap(void **state)
{
    uint64_t r = 5;

    (void)state;
    assert_true(gf_add(UINT64_MAX, 1, &r));
    assert_true(gf_mul(UINT64_MAX / 2, 3, &r));
    assert_int_equal(r, 5);
    assert_true(gf_inside(10, 0, 10));
    assert_false(gf_inside(10, 1, 10));
    assert_false(gf_inside(UINT64_MAX, 2, UINT64_MAX));
    assert_int_equal(gf_ceil_div(7, 3), 3);
    assert_int_equal(gf_align(65, 64), 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_one_printable_line),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(a_long_message_is_cut_not_overrun),
        cmocka_unit_test(exit_codes_tell_checkpoint_problems_from_the_rest),
        cmocka_unit_test(a_vector_stops_at_its_ceiling),
        cmocka_unit_test(an_arena_gives_zeroed_aligned_memory_up_to_its_ceiling),
        cmocka_unit_test(a_map_finds_what_was_put),
        cmocka_unit_test(text_escapes_like_the_json_writers_it_copies),
        cmocka_unit_test(a_suffix_may_be_all_of_it),
        cmocka_unit_test(what_is_not_utf8_becomes_a_sign_that_is),
        cmocka_unit_test(a_cursor_never_leaves_its_bytes),
        cmocka_unit_test(arithmetic_on_file_numbers_does_not_wrap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
