/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "base/math.h"
#include "container/safetensors.h"

static struct gf_limits limits;

static int setup(void **state)
{
    (void)state;
    limits = gf_limits_default;
    return 0;
}

/* Parses a header of a file with `data` bytes behind it. */
static int parse_n(const char *header, size_t len, uint64_t data,
                   struct gf_safetensors **ret)
{
    return gf_safetensors_parse("m.safetensors", (const uint8_t *)header, len,
                                8 + len + data, &limits, ret, &t_err);
}

static int parse(const char *header, uint64_t data, struct gf_safetensors **ret)
{
    return parse_n(header, strlen(header), data, ret);
}

#define A(shape, from, to)                                                                 \
    "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

static void entries_come_in_the_order_of_their_data(void **state)
{
    static const char header[] = "{\"b\":" A("[2,3]", "4", "28") ",\"a\":" A(
        "[]", "0", "4") ",\"__metadata__\":{\"format\":\"pt\"}}";
    GF_AUTO(gf_safetensors) st = NULL;

    (void)state;
    GF_OK(parse(header, 28, &st));
    assert_int_equal(st->n, 2);
    assert_int_equal(st->data, 8 + sizeof(header) - 1);
    assert_string_equal(st->at[0].name, "a");
    assert_int_equal(st->at[0].shape.rank, 0);
    assert_string_equal(st->at[1].name, "b");
    assert_int_equal(st->at[1].shape.dims[1], 3);
    assert_int_equal(st->at[1].dtype, GF_F32);
    assert_int_equal(st->at[1].begin, st->data + 4);
    assert_int_equal(st->at[1].end, st->data + 28);
    assert_int_equal(st->nmeta, 1);
    assert_string_equal(st->meta[0][0], "format");
    assert_string_equal(st->meta[0][1], "pt");
}

static void what_the_reference_reader_accepts_is_accepted(void **state)
{
    static const struct {
        const char *header;
        uint64_t data;
        size_t n;
    } cases[] = {
        { "{}", 0, 0 },
        { " \n\t\r{} \n ", 0, 0 },
        { "{\"__metadata__\":null}", 0, 0 },
        { "{\"__metadata__\":{}}", 0, 0 },
        { "{\"a\":" A("[0,5]", "0", "0") "}", 0, 1 },
        { "{\"a\":" A("[1]", "0", "4") ",\"z\":" A("[0]", "4", "4") "}", 4, 2 },
        { "{\"a\":" A("[1]", "0", "4") ",\"z\":" A("[0]", "0", "0") "}", 4, 2 },
        { "{ \"a\" : { \"shape\" : [ 1 ] , \"data_offsets\" : [ 0 , 4 ] , \"dtype\" : "
          "\"F32\" } }",
          4, 1 },
        /* fields that are not known are passed over */
        { "{\"a\":{\"x\":{\"y\":[1.5e3,-2,true,false,null,\"s\",{}]},\"dtype\":\"U8\","
          "\"shape\":[3],\"data_offsets\":[0,3]}}",
          3, 1 },
        /* half bytes, as long as they add up */
        { "{\"a\":{\"dtype\":\"F4\",\"shape\":[12],\"data_offsets\":[0,6]}}", 6, 1 },
        { "{\"\":" A("[1]", "0", "4") "}", 4, 1 },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        GF_AUTO(gf_safetensors) st = NULL;

        GF_OK(parse(cases[i].header, cases[i].data, &st));
        assert_int_equal(st->n, cases[i].n);
    }
}

static void what_the_reference_reader_refuses_is_refused(void **state)
{
    static const struct {
        const char *header;
        uint64_t data;
        const char *words;
    } cases[] = {
        /* places */
        { "{\"a\":" A("[1]", "4", "8") "}", 8, "the one before ends at 0" },
        { "{\"a\":" A("[1]", "0", "4") ",\"b\":" A("[1]", "8", "12") "}", 12,
          "'b': data at [8, 12)" },
        { "{\"a\":" A("[2]", "0", "8") ",\"b\":" A("[1]", "4", "8") "}", 8,
          "'b': data at [4, 8)" },
        { "{\"a\":" A("[1]", "0", "4") ",\"b\":" A("[1]", "0", "4") "}", 4, "'b'" },
        { "{\"a\":" A("[1]", "4", "0") "}", 4, "[4, 0)" },
        { "{\"a\":" A("[1]", "0", "4") "}", 5, "tensors end at 4, the file has 5" },
        { "{\"a\":" A("[1]", "0", "4") "}", 3,
          "cut short: tensor 'a' ends at 4, the file has 3" },
        { "{}", 1, "tensors end at 0" },
        /* sizes */
        { "{\"a\":" A("[2]", "0", "4") "}", 4, "4 bytes of data, [2] of F32 takes 8" },
        { "{\"a\":" A("[9223372036854775807,3]", "0", "4") "}", 4, "impossible shape" },
        { "{\"a\":" A("[4611686018427387904]", "0", "4") "}", 4, "impossible shape" },
        { "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2,
          "impossible shape" },
        /* numbers */
        { "{\"a\":" A("[1.0]", "0", "4") "}", 4, "found '1.0', wanted a whole number" },
        { "{\"a\":" A("[1e0]", "0", "4") "}", 4, "found '1e0'" },
        { "{\"a\":" A("[-1]", "0", "4") "}", 4, "found '-1'" },
        { "{\"a\":" A("[01]", "0", "4") "}", 4, "found '01'" },
        { "{\"a\":" A("[1]", "-0", "4") "}", 4, "found '-0'" },
        { "{\"a\":" A("[18446744073709551616]", "0", "4") "}", 4, "2^64" },
        { "{\"a\":" A("[\"1\"]", "0", "4") "}", 4, "wanted a whole number" },
        { "{\"a\":" A("[1,]", "0", "4") "}", 4, "wanted a whole number" },
        { "{\"a\":" A("[,1]", "0", "4") "}", 4, "wanted a whole number" },
        { "{\"a\":" A("[1 1]", "0", "4") "}", 4, "wanted ','" },
        /* fields */
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "no data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "no shape" },
        { "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no dtype" },
        { "{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
          "unknown dtype 'F31'" },
        { "{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
          "unknown dtype" },
        { "{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
          "wanted a dtype" },
        { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"
          "}}",
          4, "'dtype' twice" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1,
          "1 data_offsets" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1,
          "more than 2" },
        { "{\"a\":[]}", 0, "wanted '{'" },
        /* names */
        { "{\"a\":" A("[1]", "0", "4") ",\"a\":" A("[1]", "0", "4") "}", 4, "'a' twice" },
        { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' twice" },
        { "{\"__metadata__\":{\"a\":1}}", 0, "wanted a string" },
        { "{\"__metadata__\":[]}", 0, "wanted '{'" },
        /* text */
        { "", 0, "it ends, wanted '{'" },
        { "[]", 0, "wanted '{'" },
        { "{", 0, "it ends" },
        { "{\"a", 0, "a string without end" },
        { "{\"a\\", 0, "a string without end" },
        { "{} x", 0, "wanted its end" },
        { "{}}", 0, "wanted its end" },
        { "{,}", 0, "wanted a key" },
        { "{\"__metadata__\":{},}", 0, "wanted a key" },
        { "{\"__metadata__\" {}}", 0, "wanted ':'" },
        { "{\"__metadata__\":nul}", 0, "wanted '{'" },
        { "{\"__metadata__\":{\"a\":\"\n\"}}", 0, "control character 0x0a" },
        { "{\"__metadata__\":{\"a\":\"\\q\"}}", 0, "escape" },
        { "{\"__metadata__\":{\"a\":\"\\u0000\"}}", 0, "escape" },
        { "{\"__metadata__\":{\"a\":\"\\ud800\"}}", 0, "escape" },
        { "{\"__metadata__\":{\"a\":\"\\udc00\"}}", 0, "escape" },
        { "{\"__metadata__\":{\"a\":\"\\ud800\\u0041\"}}", 0, "escape" },
        { "{\"__metadata__\":{\"a\":\"\\u00g0\"}}", 0, "escape" },
        { "{\"__metadata__\":{\"a\":\"\xff\"}}", 0, "not UTF-8" },
        { "{\"a\":{\"x\":tru}}", 0, "wanted a value" },
        { "{\"a\":{\"x\":[1}}", 0, "wanted ','" },
        { "{\"a\":{\"x\":1.}}", 0, "wanted a value" },
        { "{\"a\":{\"x\":.5}}", 0, "wanted a value" },
        { "{\"a\":{\"x\":1e}}", 0, "wanted a value" },
        { "{\"a\":{\"x\":--1}}", 0, "wanted a value" },
        { "{\"a\":{\"x\":01}}", 0, "wanted ','" },
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        struct gf_safetensors *st = NULL;

        GF_FAILS(parse(cases[i].header, cases[i].data, &st), GF_EBAD, cases[i].words);
        assert_null(st);
    }
}

static void zero_bytes_are_no_padding(void **state)
{
    struct gf_safetensors *st = NULL;

    (void)state;
    GF_FAILS(parse_n("{}\0", 3, 0, &st), GF_EBAD, "wanted its end");
    GF_FAILS(parse_n("\0{}", 3, 0, &st), GF_EBAD, "wanted '{'");
}

static void escapes_are_decoded(void **state)
{
    GF_AUTO(gf_safetensors) st = NULL;

    (void)state;
    GF_OK(parse("{\"__metadata__\":{\"\\\"\\\\\\/\\b\\f\\n\\r\\t\":\"\\u0041\\u00e4\\u20AC"
                "\\ud83d\\ude00\xc3\xa4\"}}",
                0, &st));
    assert_string_equal(st->meta[0][0], "\"\\/\b\f\n\r\t");
    assert_string_equal(st->meta[0][1], "A\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xc3\xa4");
}

static void a_key_that_is_spelt_twice_is_found(void **state)
{
    struct gf_safetensors *st = NULL;

    (void)state;
    GF_FAILS(
        parse("{\"a\":" A("[1]", "0", "4") ",\"\\u0061\":" A("[1]", "4", "8") "}", 8, &st),
        GF_EBAD, "'a' twice");
}

static void offsets_pass_what_a_double_holds(void **state)
{
    static const char header[] = "{\"a\":{\"dtype\":\"U8\",\"shape\":[9007199254740993],"
                                 "\"data_offsets\":[0,9007199254740993]}}";
    GF_AUTO(gf_safetensors) st = NULL;

    (void)state;
    GF_OK(parse(header, 9007199254740993, &st));
    assert_int_equal(st->at[0].end - st->at[0].begin, 9007199254740993);
}

static void the_length_of_the_header_is_checked(void **state)
{
    uint8_t first[8] = { 100 };
    uint64_t len = 0;

    (void)state;
    GF_OK(gf_safetensors_header_len("m", first, 108, &limits, &len, &t_err));
    assert_int_equal(len, 100);
    GF_FAILS(gf_safetensors_header_len("m", first, 107, &limits, &len, &t_err), GF_EBAD,
             "cut short: header of 100 bytes, the file has 107");
    GF_FAILS(gf_safetensors_header_len("m", first, 7, &limits, &len, &t_err), GF_EBAD,
             "cut short: 7 bytes");
    first[7] = 0x80;
    GF_FAILS(gf_safetensors_header_len("m", first, UINT64_MAX, &limits, &len, &t_err),
             GF_EBAD, "at most 100000000");
}

static void the_limits_hold(void **state)
{
    static const char two[] = "{\"a\":" A("[1]", "0", "4") ",\"b\":" A("[1]", "4", "8") "}";
    struct gf_safetensors *st = NULL;
    char deep[400];
    size_t n;

    (void)state;
    limits.tensors = 1;
    GF_FAILS(parse(two, 8, &st), GF_EBAD, "more than 1 tensors");
    limits = gf_limits_default;
    limits.safetensors_header = sizeof(two) - 2;
    GF_FAILS(parse(two, 8, &st), GF_EBAD, "header of");
    limits = gf_limits_default;
    limits.name = 3;
    GF_FAILS(parse("{\"abcd\":" A("[1]", "0", "4") "}", 4, &st), GF_EBAD,
             "a name of 4 bytes");
    limits = gf_limits_default;
    n = (size_t)snprintf(deep, sizeof(deep), "{\"a\":{\"x\":");
    memset(deep + n, '[', 200);
    GF_FAILS(parse_n(deep, n + 200, 0, &st), GF_EBAD, "nested deeper than 100");
    n = (size_t)snprintf(deep, sizeof(deep), "{\"a\":{\"dtype\":\"U8\",\"shape\":[");
    for (size_t i = 0; i < 65; i++)
        n += (size_t)snprintf(deep + n, sizeof(deep) - n, "1,");
    GF_FAILS(parse_n(deep, n, 0, &st), GF_EBAD, "more than 64 numbers");
}

/* Time and memory in proportion: the entries stand in reverse. */
static void a_hundred_thousand_tensors_take_no_time(void **state)
{
    enum { N = 100000 };
    GF_AUTO(gf_safetensors) st = NULL;
    GF_AUTO_MEM char *header = malloc((size_t)N * 100);
    size_t n = 0;

    (void)state;
    for (unsigned i = N; i-- > 0;)
        n += (size_t)snprintf(header + n, 100, "%s\"t.%u\":" A("[1]", "%u", "%u"),
                              i == N - 1 ? "{" : ",", i, 4 * i, 4 * i + 4);
    header[n++] = '}';
    GF_OK(parse_n(header, n, 4 * N, &st));
    assert_int_equal(st->n, N);
    assert_string_equal(st->at[N - 1].name, "t.99999");
    assert_true(st->text.used < (size_t)N * 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup(f, setup)
        T(entries_come_in_the_order_of_their_data),
        T(what_the_reference_reader_accepts_is_accepted),
        T(what_the_reference_reader_refuses_is_refused),
        T(zero_bytes_are_no_padding),
        T(escapes_are_decoded),
        T(a_key_that_is_spelt_twice_is_found),
        T(offsets_pass_what_a_double_holds),
        T(the_length_of_the_header_is_checked),
        T(the_limits_hold),
        T(a_hundred_thousand_tensors_take_no_time),
#undef T
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
