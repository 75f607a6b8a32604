/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "pickle_writer.h"

#include "base/math.h"
#include "container/torch_file.h"

struct fixture {
    struct pw w;
    struct gf_pickle *pickle;
    enum gf_torch_is is;
    struct gf_torch_view view;
    const char *why;
};

static int setup(void **state)
{
    *state = calloc(1, sizeof(struct fixture));
    return 0;
}

static int teardown(void **state)
{
    gf_pickle_free(((struct fixture *)*state)->pickle);
    free(*state);
    return 0;
}

/* Ends the pickle, parses it and asks what its root is. The writer starts anew. */
static int look(struct fixture *f)
{
    pw_op(&f->w, ".");
    gf_pickle_free(f->pickle);
    f->pickle = NULL;
    f->view = (struct gf_torch_view){ 0 };
    GF_OK(gf_pickle_parse("x.pt", f->w.p, f->w.n, &gf_limits_default, &f->pickle, NULL,
                          NULL, &t_err));
    f->w.n = 0;
    return gf_torch_tensor(f->pickle, gf_pickle_root(f->pickle), "x.pt", "h.weight", &f->is,
                           &f->view, &f->why, &t_err);
}

static void a_tensor_is_a_view_of_its_storage(void **state)
{
    struct fixture *f = *state;

    pw_tensor(&f->w, "FloatStorage", "7", 100, 10, PW_DIMS(3, 4), PW_DIMS(20, 2));
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_TENSOR);
    assert_string_equal(f->view.storage.key, "7");
    assert_int_equal(f->view.storage.nbytes, 400);
    assert_false(f->view.storage.untyped);
    assert_int_equal(f->view.dtype, GF_F32);
    assert_int_equal(f->view.shape.rank, 2);
    assert_int_equal(f->view.shape.dims[1], 4);
    assert_int_equal(f->view.strides[0], 20);
    assert_int_equal(f->view.offset, 10);
    assert_int_equal(f->view.numel, 12);
    assert_int_equal(f->view.twist, 0);
}

static void scalars_and_empty_tensors_are_tensors(void **state)
{
    struct fixture *f = *state;

    pw_tensor(&f->w, "LongStorage", "0", 1, 0, PW_DIMS(), PW_DIMS());
    GF_OK(look(f));
    assert_int_equal(f->view.numel, 1);
    /* ZeRO-3's placeholder */
    pw_tensor(&f->w, "HalfStorage", "0", 0, 0, PW_DIMS(0), PW_DIMS(1));
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_TENSOR);
    assert_int_equal(f->view.numel, 0);
}

static void every_storage_class_has_its_dtype(void **state)
{
    static const struct {
        const char *class;
        enum gf_dtype dtype;
        uint64_t size;
    } cases[] = {
        { "DoubleStorage", GF_F64, 8 },       { "FloatStorage", GF_F32, 4 },
        { "HalfStorage", GF_F16, 2 },         { "BFloat16Storage", GF_BF16, 2 },
        { "LongStorage", GF_I64, 8 },         { "IntStorage", GF_I32, 4 },
        { "ShortStorage", GF_I16, 2 },        { "CharStorage", GF_I8, 1 },
        { "ByteStorage", GF_U8, 1 },          { "BoolStorage", GF_BOOL, 1 },
        { "ComplexFloatStorage", GF_C64, 8 }, { "UntypedStorage", GF_U8, 1 },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        pw_tensor(&f->w, cases[i].class, "0", 6, 0, PW_DIMS(6), PW_DIMS(1));
        GF_OK(look(f));
        assert_int_equal(f->is, GF_TORCH_TENSOR);
        assert_int_equal(f->view.dtype, cases[i].dtype);
        assert_int_equal(f->view.storage.nbytes, 6 * cases[i].size);
    }
}

static void rebuild_v3(struct fixture *f, const char *dtype, int64_t bytes, int64_t n)
{
    pw_begin(&f->w, "_rebuild_tensor_v3");
    pw_storage(&f->w, "UntypedStorage", "0", "cpu", bytes);
    pw_int(&f->w, 0);
    pw_ints(&f->w, PW_DIMS(n));
    pw_ints(&f->w, PW_DIMS(1));
    pw_op(&f->w, "\x89}");
    pw_global(&f->w, "torch", dtype);
    pw_op(&f->w, "tR");
}

static void newer_dtypes_come_with_the_constructor(void **state)
{
    struct fixture *f = *state;

    rebuild_v3(f, "uint32", 40, 10);
    GF_OK(look(f));
    assert_int_equal(f->view.dtype, GF_U32);
    rebuild_v3(f, "uint32", 40, 11);
    GF_FAILS(look(f), GF_EBAD, "past storage '0' of 10 elements");
    rebuild_v3(f, "float4_e2m1fn_x2", 6, 6);
    GF_OK(look(f));
    assert_int_equal(f->view.dtype, GF_F4);
    assert_int_equal(f->view.numel, 6);
    assert_int_equal(gf_torch_itemsize(GF_F4), 1);
    rebuild_v3(f, "complex32", 40, 10);
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_UNSUPPORTED);
    assert_string_equal(f->why, "tensor of a dtype that safetensors lacks");
}

static void wrappers_are_taken_off(void **state)
{
    static const char *const wrappers[] = { "_rebuild_parameter",
                                            "_rebuild_parameter_with_state",
                                            "_rebuild_device_tensor_from_cpu_tensor" };
    struct fixture *f = *state;

    for (size_t i = 0; i < GF_COUNT(wrappers); i++) {
        pw_begin(&f->w, wrappers[i]);
        pw_tensor(&f->w, "FloatStorage", "3", 4, 0, PW_DIMS(4), PW_DIMS(1));
        pw_op(&f->w, "\x88}tR");
        GF_OK(look(f));
        assert_int_equal(f->is, GF_TORCH_TENSOR);
        assert_string_equal(f->view.storage.key, "3");
    }
}

/* torch._tensor._rebuild_from_type_v2(_rebuild_tensor_v2, type, arguments, state) */
static void from_type(struct fixture *f, const char *module, const char *type)
{
    pw_global(&f->w, "torch._tensor", "_rebuild_from_type_v2");
    pw_op(&f->w, "(");
    pw_global(&f->w, "torch._utils", "_rebuild_tensor");
    pw_global(&f->w, module, type);
    pw_op(&f->w, "(");
    pw_storage(&f->w, "FloatStorage", "0", "cpu", 4);
    pw_int(&f->w, 1);
    pw_ints(&f->w, PW_DIMS(3));
    pw_ints(&f->w, PW_DIMS(1));
    pw_op(&f->w, "t}tR");
}

static void attributes_do_not_hide_a_tensor_but_subclasses_do(void **state)
{
    struct fixture *f = *state;

    from_type(f, "torch", "Tensor");
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_TENSOR);
    assert_int_equal(f->view.offset, 1);
    from_type(f, "torch.nn.parameter", "Buffer");
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_TENSOR);
    from_type(f, "my.quant", "Tensor");
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_UNSUPPORTED);
    assert_string_equal(f->why, "tensor of a subclass");
}

static void wrappers_do_not_nest_for_ever(void **state)
{
    struct fixture *f = *state;

    /* a parameter of itself: args = [p], p = _rebuild_parameter(*args) */
    pw_op(&f->w, "]q\1");
    pw_op(&f->w, "0");
    pw_global(&f->w, "torch._utils", "_rebuild_parameter");
    pw_op(&f->w, "h\1Rq\2h\1h\2a0");
    GF_FAILS(look(f), GF_EBAD, "wrapped more than 8 times");
}

static void what_cannot_be_served_says_why(void **state)
{
    static const struct {
        const char *func, *why;
    } cases[] = {
        { "_rebuild_qtensor", "quantized tensor" },
        { "_rebuild_sparse_tensor", "sparse tensor" },
        { "_rebuild_nested_tensor", "nested tensor" },
        { "_rebuild_meta_tensor_no_storage", "meta tensor, which has no data" },
        { "_rebuild_wrapper_subclass", "tensor of a wrapper subclass" },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        pw_begin(&f->w, cases[i].func);
        pw_op(&f->w, "tR");
        GF_OK(look(f));
        assert_int_equal(f->is, GF_TORCH_UNSUPPORTED);
        assert_string_equal(f->why, cases[i].why);
    }
    pw_tensor(&f->w, "ComplexDoubleStorage", "0", 1, 0, PW_DIMS(1), PW_DIMS(1));
    GF_OK(look(f));
    assert_string_equal(f->why, "complex128 tensor");
    pw_tensor(&f->w, "NewStorage", "0", 1, 0, PW_DIMS(1), PW_DIMS(1));
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_UNSUPPORTED);
    assert_string_equal(f->why, "tensor on an unknown class of storage");
    pw_begin(&f->w, "_rebuild_tensor");
    pw_storage(&f->w, "FloatStorage", "0", "meta", 4);
    pw_op(&f->w, "tR");
    GF_OK(look(f));
    assert_string_equal(f->why, "meta tensor, which has no data");
    pw_begin(&f->w, "_rebuild_parameter");
    pw_global(&f->w, "mine", "make");
    pw_op(&f->w, ")RtR");
    GF_OK(look(f));
    assert_string_equal(f->why, "tensor made by an unknown constructor");
}

static void other_values_are_no_tensors(void **state)
{
    struct fixture *f = *state;

    pw_op(&f->w, "N");
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_OTHER);
    pw_global(&f->w, "mine", "_rebuild_tensor_v2");
    pw_op(&f->w, ")R");
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_OTHER);
    pw_begin(&f->w, "_something_else");
    pw_op(&f->w, "tR");
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_OTHER);
}

static void with_flag(struct fixture *f, const char *class, const char *flag,
                      const char *on)
{
    pw_begin(&f->w, "_rebuild_tensor_v2");
    pw_storage(&f->w, class, "0", "cpu", 4);
    pw_int(&f->w, 0);
    pw_ints(&f->w, PW_DIMS(4));
    pw_ints(&f->w, PW_DIMS(1));
    pw_op(&f->w, "\x89}}");
    pw_str(&f->w, flag);
    pw_op(&f->w, on);
    pw_op(&f->w, "stR");
}

static void conjugated_and_negated_data_is_never_served_as_it_is(void **state)
{
    struct fixture *f = *state;

    with_flag(f, "ComplexFloatStorage", "conj", "\x88");
    GF_OK(look(f));
    assert_int_equal(f->view.twist, 1);
    with_flag(f, "FloatStorage", "neg", "\x88");
    GF_OK(look(f));
    assert_int_equal(f->view.twist, 2);
    with_flag(f, "FloatStorage", "neg", "\x89");
    GF_OK(look(f));
    assert_int_equal(f->view.twist, 0);
    with_flag(f, "FloatStorage", "conj", "\x88");
    GF_FAILS(look(f), GF_EBAD, "float32 is conjugated");
    with_flag(f, "LongStorage", "neg", "\x88");
    GF_FAILS(look(f), GF_EBAD, "int64");
    with_flag(f, "FloatStorage", "neg", "N");
    GF_FAILS(look(f), GF_EBAD, "malformed flag 'neg'");
    with_flag(f, "FloatStorage", "inverted", "\x88");
    GF_OK(look(f));
    assert_int_equal(f->is, GF_TORCH_UNSUPPORTED);
}

static void views_that_leave_their_storage_are_refused(void **state)
{
    struct fixture *f = *state;

    pw_tensor(&f->w, "FloatStorage", "0", 12, 0, PW_DIMS(3, 4), PW_DIMS(4, 1));
    GF_OK(look(f));
    pw_tensor(&f->w, "FloatStorage", "0", 11, 0, PW_DIMS(3, 4), PW_DIMS(4, 1));
    GF_FAILS(look(f), GF_EBAD, "'x.pt': tensor 'h.weight': reaches past storage '0' of 11");
    pw_tensor(&f->w, "FloatStorage", "0", 12, 1, PW_DIMS(3, 4), PW_DIMS(4, 1));
    GF_FAILS(look(f), GF_EBAD, "the last at 12");
    pw_tensor(&f->w, "FloatStorage", "0", 0, 0, PW_DIMS(), PW_DIMS());
    GF_FAILS(look(f), GF_EBAD, "reaches past");
    /* a stride of 0 is an expand */
    pw_tensor(&f->w, "FloatStorage", "0", 1, 0, PW_DIMS(1000), PW_DIMS(0));
    GF_OK(look(f));
    assert_int_equal(f->view.numel, 1000);
}

static void impossible_numbers_are_refused(void **state)
{
    struct fixture *f = *state;

    pw_tensor(&f->w, "FloatStorage", "0", 4, 0, PW_DIMS((int64_t)1 << 62, 4),
              PW_DIMS(0, 0));
    GF_FAILS(look(f), GF_EBAD, "impossible size");
    pw_tensor(&f->w, "FloatStorage", "0", 4, 0, PW_DIMS((int64_t)1 << 40, 4),
              PW_DIMS((int64_t)1 << 40, 1));
    GF_FAILS(look(f), GF_EBAD, "the last past");
    pw_tensor(&f->w, "FloatStorage", "0", 4, INT64_MAX, PW_DIMS(4), PW_DIMS(1));
    GF_FAILS(look(f), GF_EBAD, "reaches past");
    pw_tensor(&f->w, "DoubleStorage", "0", INT64_MAX, 0, PW_DIMS(4), PW_DIMS(1));
    GF_FAILS(look(f), GF_EBAD, "impossible size of 9223372036854775807 DoubleStorages");
    pw_tensor(&f->w, "FloatStorage", "0", -5, 0, PW_DIMS(4), PW_DIMS(1));
    GF_FAILS(look(f), GF_EBAD, "malformed storage id '0'");
    pw_tensor(&f->w, "FloatStorage", "0", 4, -5, PW_DIMS(4), PW_DIMS(1));
    GF_FAILS(look(f), GF_EBAD, "malformed offset");
    pw_tensor(&f->w, "FloatStorage", "0", 4, 0, PW_DIMS(4), PW_DIMS(1, 1));
    GF_FAILS(look(f), GF_EBAD, "1 dimensions but 2 strides");
    pw_tensor(&f->w, "FloatStorage", "0", 4, 0, PW_DIMS(4, -2), PW_DIMS(1, 1));
    GF_FAILS(look(f), GF_EBAD, "malformed size");
    pw_begin(&f->w, "_rebuild_tensor_v2");
    pw_op(&f->w, "NtR");
    GF_FAILS(look(f), GF_EBAD, "has no id");
}

static void a_legacy_id_may_name_a_part_of_its_storage(void **state)
{
    struct fixture *f = *state;

    for (int64_t n = 4; n < 6; n++) {
        pw_begin(&f->w, "_rebuild_tensor");
        pw_op(&f->w, "(");
        pw_str(&f->w, "storage");
        pw_global(&f->w, "torch.cuda", "FloatStorage");
        pw_op(&f->w, "U\x02k1U\x06"
                     "cuda:0");
        pw_int(&f->w, 100);
        pw_op(&f->w, "U\x02k2"); /* the view's key, offset and size */
        pw_int(&f->w, 50);
        pw_int(&f->w, 5);
        pw_op(&f->w, "\x87tQ");
        pw_int(&f->w, 1);
        pw_ints(&f->w, PW_DIMS(n));
        pw_ints(&f->w, PW_DIMS(1));
        pw_op(&f->w, "tR");
        if (n == 5) {
            GF_FAILS(look(f), GF_EBAD, "past storage 'k1' of 5 elements");
        } else {
            GF_OK(look(f));
            assert_int_equal(f->view.offset, 51);
            assert_int_equal(f->view.storage.numel, 100);
        }
    }
}

static void dtypes_are_globals_of_torch(void **state)
{
    struct fixture *f = *state;
    enum gf_dtype dtype;

    pw_global(&f->w, "torch", "bfloat16");
    GF_OK(look(f));
    assert_true(gf_torch_dtype(gf_pickle_root(f->pickle), &dtype));
    assert_int_equal(dtype, GF_BF16);
    pw_global(&f->w, "numpy", "float16");
    GF_OK(look(f));
    assert_false(gf_torch_dtype(gf_pickle_root(f->pickle), &dtype));
    pw_global(&f->w, "torch", "Size");
    GF_OK(look(f));
    assert_false(gf_torch_dtype(gf_pickle_root(f->pickle), &dtype));
    assert_false(gf_torch_dtype(NULL, &dtype));
}

#define MAGIC "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."

static void files_are_known_by_their_first_bytes(void **state)
{
    static const uint8_t framed[] =
        "\x80\x04\x95\x0d\0\0\0\0\0\0\0\x8a\x0a\x6c\xfc\x9c\x46";

    (void)state;
    assert_true(gf_torch_is_legacy((const uint8_t *)MAGIC, sizeof(MAGIC) - 1));
    assert_true(gf_torch_is_legacy(framed, 16));
    assert_false(gf_torch_is_legacy((const uint8_t *)MAGIC, 8));
    assert_false(gf_torch_is_legacy((const uint8_t *)"\x80\x02}q\0.0123456789", 16));
    assert_true(gf_torch_is_zip((const uint8_t *)"PK\3\4", 4));
    assert_false(gf_torch_is_zip((const uint8_t *)"PK\3\5", 4));
    assert_false(gf_torch_is_zip((const uint8_t *)"PK", 2));
}

/* magic, protocol 1001, system info, object, keys */
static int legacy(struct fixture *f, const char *info, const char *object, bool *ret_short)
{
    GF_AUTO(gf_pickle) keys = NULL;
    size_t used = 0;
    int r;

    gf_pickle_free(f->pickle);
    f->pickle = NULL;
    f->w.n = 0;
    pw_bytes(&f->w, MAGIC, sizeof(MAGIC) - 1);
    pw_bytes(&f->w, "\x80\x02M\xe9\x03.", 6);
    pw_op(&f->w, info);
    pw_op(&f->w, object);
    pw_op(&f->w, "](U\x03"
                 "123e.");
    for (size_t n = 0; ret_short && n < f->w.n; n++) {
        *ret_short = n < 15; /* too few for the magic */
        assert_int_equal(gf_torch_legacy_parse("x.pt", f->w.p, n, &gf_limits_default,
                                               &f->pickle, &keys, &used, ret_short, &t_err),
                         -GF_EBAD);
        assert_true(*ret_short);
    }
    pw_op(&f->w, "storages");
    r = gf_torch_legacy_parse("x.pt", f->w.p, f->w.n, &gf_limits_default, &f->pickle, &keys,
                              &used, NULL, &t_err);
    if (!r) {
        assert_int_equal(used, f->w.n - 8);
        assert_string_equal(gf_pv_str(gf_pv_item(gf_pickle_root(keys), 0)), "123");
    }
    return r;
}

static void a_legacy_stream_is_taken_apart(void **state)
{
    struct fixture *f = *state;
    bool cut;

    GF_OK(legacy(f, "}U\x0dlittle_endian\x88s.", "U\x01x.", &cut));
    assert_string_equal(gf_pv_str(gf_pickle_root(f->pickle)), "x");
}

static void legacy_streams_that_cannot_be_read_are_named(void **state)
{
    struct fixture *f = *state;

    GF_FAILS(legacy(f, "}U\x0dlittle_endian\x89s.", "N.", NULL), ENOTSUP, "big-endian");
    GF_FAILS(legacy(f, "N.", "N.", NULL), GF_EBAD, "without system info");
    GF_FAILS(legacy(f, "}.",
                    "(U\x06modulecm\nNet\nU\x04"
                    "filetQ.",
                    NULL),
             ENOTSUP, "a whole nn.Module");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(a_tensor_is_a_view_of_its_storage),
        T(scalars_and_empty_tensors_are_tensors),
        T(every_storage_class_has_its_dtype),
        T(newer_dtypes_come_with_the_constructor),
        T(wrappers_are_taken_off),
        T(attributes_do_not_hide_a_tensor_but_subclasses_do),
        T(wrappers_do_not_nest_for_ever),
        T(what_cannot_be_served_says_why),
        T(other_values_are_no_tensors),
        T(conjugated_and_negated_data_is_never_served_as_it_is),
        T(views_that_leave_their_storage_are_refused),
        T(impossible_numbers_are_refused),
        T(a_legacy_id_may_name_a_part_of_its_storage),
        T(dtypes_are_globals_of_torch),
        T(files_are_known_by_their_first_bytes),
        T(a_legacy_stream_is_taken_apart),
        T(legacy_streams_that_cannot_be_read_are_named),
#undef T
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
