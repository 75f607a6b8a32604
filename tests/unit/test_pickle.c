/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "base/math.h"
#include "container/pickle.h"

static struct gf_limits limits;

static int setup(void **state)
{
    (void)state;
    limits = gf_limits_default;
    return 0;
}

/* A pickle from a string literal; its last NUL is not part of it. */
#define PARSE(literal, ret)                                                                \
    gf_pickle_parse("p", (const uint8_t *)(literal), sizeof(literal) - 1, &limits, (ret),  \
                    NULL, NULL, &t_err)

#define REFUSED(literal, words)                                                            \
    do {                                                                                   \
        struct gf_pickle *none = NULL;                                                     \
        GF_FAILS(PARSE(literal, &none), GF_EBAD, words);                                   \
        assert_null(none);                                                                 \
    } while (0)

static void numbers_of_every_opcode(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        int64_t want;
    } cases[] = {
#define N(literal, want) { literal, sizeof(literal) - 1, want }
        N("K\x07.", 7),
        N("K\xff.", 255),
        N("M\x00\x01.", 256),
        N("J\xff\xff\xff\xff.", -1),
        N("J\x00\x00\x00\x80.", INT32_MIN),
        N("\x8a\x00.", 0),
        N("\x8a\x01\xff.", -1),
        N("\x8a\x05\x00\x00\x00\x00\x01.", (int64_t)1 << 32),
        N("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f.", INT64_MAX),
        N("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\x7f\x00.", INT64_MAX),
        N("\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80.", INT64_MIN),
        N("\x8b\x02\x00\x00\x00\xfe\xff.", -2),
        N("I-12\n.", -12),
        N("I9223372036854775807\n.", INT64_MAX),
        N("L-9223372036854775808L\n.", INT64_MIN),
        N("I01\n.", 1),
        N("\x88.", 1),
        N("\x89.", 0),
#undef N
    };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        GF_AUTO(gf_pickle) p = NULL;
        int64_t got;

        GF_OK(gf_pickle_parse("p", (const uint8_t *)cases[i].bytes, cases[i].len, &limits,
                              &p, NULL, NULL, &t_err));
        assert_true(gf_pv_int(gf_pickle_root(p), &got));
        assert_int_equal(got, cases[i].want);
    }
}

static void numbers_past_64_bits_are_big(void **state)
{
    GF_AUTO(gf_pickle) a = NULL;
    GF_AUTO(gf_pickle) b = NULL;
    GF_AUTO(gf_pickle) c = NULL;
    int64_t i;

    (void)state;
    GF_OK(PARSE("\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00.", &a));
    assert_int_equal(gf_pv_kind(gf_pickle_root(a)), GF_PV_BIG);
    assert_false(gf_pv_int(gf_pickle_root(a), &i));
    GF_OK(PARSE("I9223372036854775808\n.", &b));
    assert_int_equal(gf_pv_kind(gf_pickle_root(b)), GF_PV_BIG);
    GF_OK(PARSE("L99999999999999999999999L\n.", &c));
    assert_int_equal(gf_pv_kind(gf_pickle_root(c)), GF_PV_BIG);
}

static void floats_and_booleans_and_none(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    const struct gf_pv *v;
    double d;
    bool b;

    (void)state;
    GF_OK(PARSE("(G\x3f\xf8\0\0\0\0\0\0\x88\x89Nt.", &p));
    v = gf_pickle_root(p);
    assert_int_equal(gf_pv_len(v), 4);
    assert_true(gf_pv_float(gf_pv_item(v, 0), &d) && d > 1.4 && d < 1.6);
    assert_true(gf_pv_bool(gf_pv_item(v, 1), &b) && b);
    assert_true(gf_pv_bool(gf_pv_item(v, 2), &b) && !b);
    assert_true(gf_pv_is_none(gf_pv_item(v, 3)));
    assert_null(gf_pv_item(v, 4));
}

static void strings_of_every_opcode(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    const struct gf_pv *v;

    (void)state;
    GF_OK(PARSE("(\x8c\x02"
                "abX\x02\0\0\0"
                "ab\x8d\x02\0\0\0\0\0\0\0"
                "abU\x02"
                "abT\x02\0\0\0"
                "abC\x02"
                "abB\x02\0\0\0"
                "ab\x8e\x02\0\0\0\0\0\0\0"
                "ab\x96\x02\0\0\0\0\0\0\0"
                "abt.",
                &p));
    v = gf_pickle_root(p);
    assert_int_equal(gf_pv_len(v), 9);
    for (size_t i = 0; i < 9; i++) {
        assert_int_equal(gf_pv_kind(gf_pv_item(v, i)), i < 3 ? GF_PV_STR : GF_PV_BYTES);
        assert_string_equal(gf_pv_str(gf_pv_item(v, i)), "ab");
    }
}

static void what_is_no_text_is_bytes(void **state)
{
    static const char *const cases[] = {
        "\x8c\x03\xed\xa0\x80.",     /* a lone surrogate */
        "\x8c\x03\x61\xff\x62.",     /* no UTF-8 */
        "\x8c\x02\xc0\x81.",         /* overlong */
        "\x8c\x03\xe0\x81\x81.",     /* overlong */
        "\x8c\x01\xc3.",             /* ends within a character */
        "\x8c\x02\xc3\x61.",         /* no continuation */
        "\x8c\x04\xf4\x90\x80\x80.", /* past 10FFFF */
    };
    static const char nul[] = "\x8c\x03"
                              "a\0b.";
    GF_AUTO(gf_pickle) p = NULL;
    size_t len;

    (void)state;
    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        GF_AUTO(gf_pickle) q = NULL;

        GF_OK(gf_pickle_parse("p", (const uint8_t *)cases[i], strlen(cases[i]), &limits, &q,
                              NULL, NULL, &t_err));
        assert_int_equal(gf_pv_kind(gf_pickle_root(q)), GF_PV_BYTES);
        assert_null(gf_pv_str(gf_pickle_root(q)));
    }
    GF_OK(PARSE(nul, &p));
    assert_null(gf_pv_str(gf_pickle_root(p)));
    assert_memory_equal(gf_pv_bytes(gf_pickle_root(p), &len), "a\0b", 3);
    assert_int_equal(len, 3);
}

static void text_is_all_of_utf8(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;

    (void)state;
    GF_OK(PARSE("\x8c\x0a\x61\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80.", &p));
    assert_string_equal(gf_pv_str(gf_pickle_root(p)),
                        "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
}

static void a_state_dict_is_a_dict_in_order(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    const struct gf_pv *v;
    int64_t i;

    (void)state;
    /* OrderedDict(a=1, b=2, a=3), with a state */
    GF_OK(PARSE("\x80\x02"
                "ccollections\nOrderedDict\nq\0)Rq\x01(U\x01"
                "aK\x01U\x01"
                "bK\x02U\x01"
                "aK\x03u}U\x09_metadataNsb.",
                &p));
    v = gf_pickle_root(p);
    assert_true(gf_pv_is_dict(v));
    assert_false(gf_pv_is_list(v));
    assert_int_equal(gf_pv_pairs(v), 3);
    assert_string_equal(gf_pv_str(gf_pv_key(v, 1)), "b");
    assert_true(gf_pv_int(gf_pv_value(v, 1), &i) && i == 2);
    assert_true(gf_pv_int(gf_pv_get(v, "a"), &i) && i == 3);
    assert_null(gf_pv_get(v, "c"));
    assert_true(gf_pv_is_call(v, "collections", "OrderedDict"));
    assert_int_equal(gf_pv_pairs(gf_pv_state(v)), 1);
}

static void an_empty_ordered_dict_is_a_dict(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;

    (void)state;
    GF_OK(PARSE("ccollections\nOrderedDict\n)R.", &p));
    assert_true(gf_pv_is_dict(gf_pickle_root(p)));
    assert_int_equal(gf_pv_pairs(gf_pickle_root(p)), 0);
    assert_null(gf_pv_key(gf_pickle_root(p), 0));
}

static void an_ordered_dict_of_python_2_takes_its_pairs_as_argument(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    const struct gf_pv *v;
    int64_t i;

    (void)state;
    GF_OK(PARSE("ccollections\nOrderedDict\n(](](U\x01xK\x05"
                "e](U\x01yK\x06"
                "eetR.",
                &p));
    v = gf_pickle_root(p);
    assert_int_equal(gf_pv_pairs(v), 2);
    assert_true(gf_pv_int(gf_pv_get(v, "y"), &i) && i == 6);
}

static void containers_of_every_opcode(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    const struct gf_pv *v;

    (void)state;
    GF_OK(
        PARSE("(K\x01\x85K\x01K\x02\x86K\x01K\x02K\x03\x87)(K\x01K\x02K\x03K\x04t" /* 0-4 */
              "](K\x01K\x02"
              "eK\x03"
              "a(K\x01l"                       /* 5, 6 */
              "}K\x01K\x02s(K\x01K\x02"        /* 7 */
              "d\x8f(K\x01\x90(K\x01K\x02\x91" /* 8, 9, 10 */
              "t.",
              &p));
    v = gf_pickle_root(p);
    static const size_t len[] = { 1, 2, 3, 0, 4, 3, 1 };
    for (size_t i = 0; i < GF_COUNT(len); i++)
        assert_int_equal(gf_pv_len(gf_pv_item(v, i)), len[i]);
    assert_int_equal(gf_pv_pairs(gf_pv_item(v, 7)), 1);
    assert_int_equal(gf_pv_pairs(gf_pv_item(v, 8)), 1);
    assert_int_equal(gf_pv_kind(gf_pv_item(v, 9)), GF_PV_SET);
    assert_int_equal(gf_pv_len(gf_pv_item(v, 9)), 1);
    assert_int_equal(gf_pv_len(gf_pv_item(v, 10)), 2);
    assert_int_equal(gf_pv_len(v), 11);
}

static void long_lists_keep_all_their_items(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    uint8_t bytes[2 * 3000 + 3], *at = bytes;

    (void)state;
    *at++ = ']';
    for (unsigned i = 0; i < 2000; i++) {
        *at++ = 'K';
        *at++ = (uint8_t)i;
        *at++ = 'a';
    }
    *at++ = '.';
    GF_OK(
        gf_pickle_parse("p", bytes, (size_t)(at - bytes), &limits, &p, NULL, NULL, &t_err));
    assert_int_equal(gf_pv_len(gf_pickle_root(p)), 2000);
    for (unsigned i = 0; i < 2000; i++) {
        int64_t got;

        assert_true(gf_pv_int(gf_pv_item(gf_pickle_root(p), i), &got));
        assert_int_equal(got, i % 256);
    }
}

static void unknown_classes_are_inert_calls(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    const struct gf_pv *v, *call;

    (void)state;
    /* REDUCE, NEWOBJ, NEWOBJ_EX, STACK_GLOBAL, INST, OBJ */
    GF_OK(PARSE("(cos\nsystem\nU\x04rm *\x85R"
                "cos\nsystem\n)\x81"
                "cos\nsystem\n)}\x92"
                "\x8c\x02os\x8c\x06system\x93)R"
                "(K\x01ios\nsystem\n"
                "(cos\nsystem\nK\x01o"
                "t.",
                &p));
    v = gf_pickle_root(p);
    assert_int_equal(gf_pv_len(v), 6);
    for (size_t i = 0; i < 6; i++) {
        call = gf_pv_item(v, i);
        assert_true(gf_pv_is_call(call, "os", "system"));
        assert_true(gf_pv_is_call(call, NULL, "system"));
        assert_false(gf_pv_is_call(call, "so", "system"));
        assert_int_equal(gf_pv_len(gf_pv_args(call)), i == 0 || i > 3);
        assert_false(gf_pv_is_dict(call));
    }
    assert_string_equal(gf_pv_global_module(gf_pv_func(call)), "os");
}

static void calls_keep_their_state_items_and_list(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    const struct gf_pv *v;

    (void)state;
    GF_OK(PARSE("cm\nC\n)\x81(K\x01K\x02"
                "e(K\x01K\x02uK\x07"
                "bK\x08"
                "b.",
                &p));
    v = gf_pickle_root(p);
    assert_int_equal(gf_pv_len(v), 2);
    assert_int_equal(gf_pv_pairs(v), 1);
    assert_int_equal(gf_pv_kind(gf_pv_state(v)), GF_PV_INT);
}

static void names_of_python_2_modules_are_the_same(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;

    (void)state;
    GF_OK(PARSE("c__builtin__\nset\n.", &p));
    assert_true(gf_pv_is_global(gf_pickle_root(p), "builtins", "set"));
    assert_true(gf_pv_is_global(gf_pickle_root(p), "__builtin__", "set"));
    assert_false(gf_pv_is_global(gf_pickle_root(p), "builtins", "list"));
}

static void persistent_ids_are_listed_in_order(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    int64_t i;

    (void)state;
    GF_OK(PARSE("K\x01QK\x02Q\x86.", &p));
    assert_int_equal(gf_pickle_persids(p), 2);
    assert_true(gf_pv_int(gf_pv_persid(gf_pickle_persid(p, 1)), &i) && i == 2);
    assert_ptr_equal(gf_pickle_persid(p, 0), gf_pv_item(gf_pickle_root(p), 0));
    assert_null(gf_pickle_persid(p, 2));
}

static void the_memo_shares_values_and_allows_cycles(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    const struct gf_pv *v;

    (void)state;
    GF_OK(PARSE("]\x94(h\0U\x01xq\x05h\x05r\x07\0\0\0j\x07\0\0\0e.", &p));
    v = gf_pickle_root(p);
    assert_int_equal(gf_pv_len(v), 4);
    assert_ptr_equal(gf_pv_item(v, 0), v);
    assert_ptr_equal(gf_pv_item(v, 1), gf_pv_item(v, 3));
}

static void marks_are_popped_like_values(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    int64_t i;

    (void)state;
    GF_OK(PARSE("K\x01(0(K\x02K\x03"
                "1K\x04"
                "02\x86.",
                &p));
    assert_int_equal(gf_pv_len(gf_pickle_root(p)), 2);
    assert_true(gf_pv_int(gf_pv_item(gf_pickle_root(p), 1), &i) && i == 1);
}

static void the_end_is_told(void **state)
{
    static const uint8_t two[] = { 'N', '.', 'K', 1, '.' };
    GF_AUTO(gf_pickle) p = NULL;
    size_t used = 0;

    (void)state;
    GF_OK(gf_pickle_parse("p", two, sizeof(two), &limits, &p, &used, NULL, &t_err));
    assert_int_equal(used, 2);
}

static void every_cut_is_short_and_said_so(void **state)
{
    static const char whole[] = "\x80\x04\x95\x10\0\0\0\0\0\0\0cm\nC\n(\x8c\x02xyM\x01\x02"
                                "G\0\0\0\0\0\0\0\0\x8a\x01\x01I5\ntR.";

    (void)state;
    for (size_t n = 0; n < sizeof(whole) - 1; n++) {
        struct gf_pickle *p = NULL;
        bool cut = false;

        GF_FAILS(gf_pickle_parse("p", (const uint8_t *)whole, n, &limits, &p, NULL, &cut,
                                 &t_err),
                 GF_EBAD, "cut short");
        assert_true(cut);
    }
}

static void malformed_streams_are_refused(void **state)
{
    (void)state;
    REFUSED(".", "stack of 0 values");
    REFUSED("K\x01(.", "stack of 0 values");
    REFUSED("0.", "stack of 0 values");
    REFUSED("t.", "no mark");
    REFUSED("1.", "no mark");
    REFUSED("2.", "nothing on the stack");
    REFUSED("q\0.", "nothing on the stack");
    REFUSED("h\0.", "memo entry 0 was never made");
    REFUSED("NK\x01R(\x85.", "stack of 0 values");
    REFUSED("K\x01(K\x02"
            "e.",
            "holds none");
    REFUSED("(K\x02"
            "e.",
            "no container");
    REFUSED("}(K\x01u.", "key without a value");
    REFUSED("(K\x01"
            "d.",
            "key without a value");
    REFUSED("K\x01K\x02\x93.", "class name that is no text");
    REFUSED("c\xff\nx\n.", "class name that is no text");
    REFUSED("(o.", "without its class");
    REFUSED("Nb.", "no object under it");
    REFUSED("Ix\n.", "character 0x78");
    REFUSED("I-\n.", "without digits");
    REFUSED("I\n.", "without digits");
    REFUSED("\x80\x06.", "protocol 6");
    REFUSED("\xff.", "unknown opcode 0xff");
    REFUSED("Nr\xff\xff\xff\xff.", "memo entry 4294967295");
}

static void what_is_left_out_is_named(void **state)
{
    (void)state;
    REFUSED("S'x'\n.", "opcode 'S' of protocol 0");
    REFUSED("\x82\x01.", "extension registry");
    REFUSED("\x97.", "out-of-band");
}

static void lengths_do_not_allocate(void **state)
{
    (void)state;
    REFUSED("X\xff\xff\xff\xff.", "cut short");
    REFUSED("\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "cut short");
    REFUSED("\x8b\xff\xff\xff\xff.", "cut short");
}

static void the_limits_hold(void **state)
{
    (void)state;
    limits.pickle_nodes = 2;
    REFUSED("(]]]t.", "more than 2 values");
    REFUSED("NNN.", "more than 2 values on the stack");
    REFUSED("(((.", "more than 2 marks");
    limits = gf_limits_default;
    limits.pickle_arena = 64;
    REFUSED("\x8c\x40"
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.",
            "more than 64 bytes");
    limits.pickle_bytes = 3;
    REFUSED("NN0.", "pickle of 4 bytes, at most 3");
}

static void sizes_are_sequences_of_counts(void **state)
{
    GF_AUTO(gf_pickle) p = NULL;
    const struct gf_pv *v;
    uint64_t dims[GF_MAX_RANK];
    uint32_t n = 99;

    (void)state;
    GF_OK(PARSE("(K\x02K\x03\x86"              /* 0: (2, 3) */
                "ctorch\nSize\nK\x05\x85\x85R" /* 1: torch.Size([5]) */
                ")"                            /* 2: () */
                "](K\x04"
                "e"                     /* 3: [4] */
                "J\xff\xff\xff\xff\x85" /* 4: (-1,) */
                "U\x01x\x85"            /* 5: ('x',) */
                "K\x01t.",              /* 6: no sequence */
                &p));
    v = gf_pickle_root(p);
    assert_true(gf_pv_size(gf_pv_item(v, 0), dims, &n) && n == 2 && dims[1] == 3);
    assert_true(gf_pv_size(gf_pv_item(v, 1), dims, &n) && n == 1 && dims[0] == 5);
    assert_true(gf_pv_size(gf_pv_item(v, 2), dims, &n) && n == 0);
    assert_true(gf_pv_size(gf_pv_item(v, 3), dims, &n) && n == 1 && dims[0] == 4);
    for (size_t i = 4; i < 7; i++)
        assert_false(gf_pv_size(gf_pv_item(v, i), dims, &n));
    assert_false(gf_pv_size(NULL, dims, &n));
}

static void accessors_take_anything(void **state)
{
    int64_t i;
    double d;
    size_t n;
    bool b;

    (void)state;
    assert_int_equal(gf_pv_kind(NULL), GF_PV_NONE);
    assert_true(gf_pv_is_none(NULL));
    assert_false(gf_pv_int(NULL, &i) || gf_pv_bool(NULL, &b) || gf_pv_float(NULL, &d));
    assert_null(gf_pv_str(NULL));
    assert_null(gf_pv_bytes(NULL, &n));
    assert_false(gf_pv_is_list(NULL) || gf_pv_is_dict(NULL));
    assert_null(gf_pv_get(NULL, "x"));
    assert_null(gf_pv_func(NULL));
    assert_null(gf_pv_persid(NULL));
    assert_false(gf_pv_is_call(NULL, "m", "C"));
}

/* 2^60 paths through 60 lists: the machine never walks them. */
static void a_bomb_of_shared_values_is_small(void **state)
{
    uint8_t bytes[60 * 8 + 3], *at = bytes;
    GF_AUTO(gf_pickle) p = NULL;

    (void)state;
    *at++ = 'N';
    for (unsigned i = 0; i < 60; i++) {
        *at++ = '2';
        *at++ = 0x86;
    }
    *at++ = '.';
    limits.pickle_arena = 60 * 64;
    GF_OK(
        gf_pickle_parse("p", bytes, (size_t)(at - bytes), &limits, &p, NULL, NULL, &t_err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup(f, setup)
        T(numbers_of_every_opcode),
        T(numbers_past_64_bits_are_big),
        T(floats_and_booleans_and_none),
        T(strings_of_every_opcode),
        T(what_is_no_text_is_bytes),
        T(text_is_all_of_utf8),
        T(a_state_dict_is_a_dict_in_order),
        T(an_empty_ordered_dict_is_a_dict),
        T(an_ordered_dict_of_python_2_takes_its_pairs_as_argument),
        T(containers_of_every_opcode),
        T(long_lists_keep_all_their_items),
        T(unknown_classes_are_inert_calls),
        T(calls_keep_their_state_items_and_list),
        T(names_of_python_2_modules_are_the_same),
        T(persistent_ids_are_listed_in_order),
        T(the_memo_shares_values_and_allows_cycles),
        T(marks_are_popped_like_values),
        T(the_end_is_told),
        T(every_cut_is_short_and_said_so),
        T(malformed_streams_are_refused),
        T(what_is_left_out_is_named),
        T(lengths_do_not_allocate),
        T(the_limits_hold),
        T(sizes_are_sequences_of_counts),
        T(accessors_take_anything),
        T(a_bomb_of_shared_values_is_small),
#undef T
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
