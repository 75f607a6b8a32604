/* SPDX-License-Identifier: Apache-2.0 */
/* dtype, shape, convert. */
#include "t.h"

#include <math.h>
#include <stdlib.h>

#include "base/math.h"
#include "tensor/convert.h"
#include "tensor/convert_int.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

static void dtypes_are_found_by_each_of_their_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < GF_NDTYPES; i++) {
        const struct gf_dtype_info *info = gf_dtype_info((enum gf_dtype)i);
        enum gf_dtype got = GF_NDTYPES;

        assert_true(gf_dtype_by_safetensors(info->safetensors, &got) && got == i);
        if (info->torch)
            assert_true(gf_dtype_by_torch(info->torch, &got) && got == i);
        if (info->storage)
            assert_true(gf_dtype_by_storage(info->storage, &got) && got == i);
        assert_false(gf_dtype_by_safetensors("F33", &got));
    }
}

static void sizes_in_bytes_do_not_wrap_or_split_a_byte(void **state)
{
    uint64_t n;

    (void)state;
    assert_false(gf_dtype_nbytes(GF_F4, 6, &n));
    assert_int_equal(n, 3);
    assert_true(gf_dtype_nbytes(GF_F4, 5, &n));
    assert_true(gf_dtype_nbytes(GF_F64, UINT64_MAX / 8, &n));
}

static void shapes_count_and_overflow(void **state)
{
    uint64_t dims[3] = { 2, 3, 4 }, huge[2] = { UINT64_MAX / 2, 3 },
             empty[2] = { 0, UINT64_MAX };
    uint64_t strides[3], n;
    char text[GF_SHAPE_TEXT];

    (void)state;
    assert_false(gf_shape_numel((struct gf_shape){ 3, dims }, &n));
    assert_int_equal(n, 24);
    assert_false(gf_shape_numel((struct gf_shape){ 0, NULL }, &n));
    assert_int_equal(n, 1);
    assert_true(gf_shape_numel((struct gf_shape){ 2, huge }, &n));
    assert_true(gf_shape_numel((struct gf_shape){ 2, empty }, &n));
    gf_shape_strides((struct gf_shape){ 3, dims }, strides);
    assert_int_equal(strides[0], 12);
    assert_true(gf_shape_contiguous((struct gf_shape){ 3, dims }, strides));
    strides[0] = 1;
    assert_false(gf_shape_contiguous((struct gf_shape){ 3, dims }, strides));
    assert_string_equal(gf_shape_text((struct gf_shape){ 3, dims }, text), "[2, 3, 4]");
}

/* The definition, by exact arithmetic: the candidates around x, the nearer, ties to even. */
static double value_of(uint16_t h, bool bf16)
{
    int e = bf16 ? h >> 7 & 0xff : h >> 10 & 0x1f, bits = bf16 ? 7 : 10,
        bias = bf16 ? 127 : 15;
    int m = h & ((1 << bits) - 1);
    double v = e ? ldexp(1.0 + ldexp(m, -bits), e - bias) : ldexp(m, 1 - bias - bits);

    return h & 0x8000 ? -v : v;
}

static void rounding_is_to_the_nearest_ties_to_even(void **state)
{
    (void)state;
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (uint32_t h = 0; h < 0x7fff; h++) {
            uint16_t inf = bf16 ? 0x7f80 : 0x7c00;
            float lo, hi, mid;
            uint32_t bits[3];

            if (h >= inf - 1u)
                break;
            lo = (float)value_of((uint16_t)h, bf16);
            hi = (float)value_of((uint16_t)(h + 1), bf16);
            mid = (float)(((double)lo + (double)hi) / 2);
            memcpy(&bits[0], &lo, 4);
            memcpy(&bits[1], &mid, 4);
            memcpy(&bits[2], &hi, 4);
            for (int k = -1; k <= 1; k++) {
                uint32_t u = bits[1] + (uint32_t)k;
                uint16_t want = (uint16_t)(k < 0 ? h : k > 0 ? h + 1 : h + (h & 1));
                uint16_t got = bf16 ? gf_bf16_of_f32(u) : gf_f16_of_f32(u);

                if (got != want)
                    fail_msg("%08x -> %04x, want %04x (%s)", u, got, want,
                             bf16 ? "bf16" : "f16");
            }
            assert_int_equal(bf16 ? gf_bf16_of_f32(bits[0]) : gf_f16_of_f32(bits[0]), h);
        }
}

static void overflow_is_infinity_and_nan_stays_nan(void **state)
{
    (void)state;
    assert_int_equal(gf_f16_of_f32(0x477fefff), 0x7bff); /* just below 65520 */
    assert_int_equal(gf_f16_of_f32(0x477ff000), 0x7c00);
    assert_int_equal(gf_f16_of_f32(0xff800000), 0xfc00);
    assert_int_equal(gf_bf16_of_f32(0x7f7fffff), 0x7f80);
    assert_int_equal(gf_bf16_of_f32(0x7f800001), 0xffff); /* as torch 2.13 on x86 */
    assert_int_equal(gf_f16_of_f32(0x7f800001), 0x7e00);
    assert_int_equal(gf_f16_of_f32(0xff812345), 0xfe09);
    assert_int_equal(gf_f16_of_f32(0x33000000), 0x0000); /* half the smallest: to even */
    assert_int_equal(gf_f16_of_f32(0x33000001), 0x0001);
}

static void widening_and_narrowing_is_the_identity(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        if ((h & 0x7c00) != 0x7c00 || !(h & 0x3ff))
            assert_int_equal(gf_f16_of_f32(gf_f32_of_f16((uint16_t)h)), h);
        if ((h & 0x7f80) != 0x7f80 || !(h & 0x7f))
            assert_int_equal(gf_bf16_of_f32(h << 16), h);
    }
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Every vector kernel against the reference, on random bits and all halves, odd lengths and
 * unaligned ends. */
static void vector_kernels_agree_with_the_reference(void **state)
{
    enum { N = 70000 };
    static const enum gf_dtype types[] = { GF_F16, GF_BF16, GF_F32, GF_F64 };
    uint8_t *src = malloc(N * 8 + 8), *a = malloc(N * 8 + 8), *b = malloc(N * 8 + 8);
    gf_convert_fn *reference[4][4];
    uint64_t seed = 88172645463325252u;

    (void)state;
    for (size_t i = 0; i < N * 8; i += 8) {
        uint64_t u = next_random(&seed);

        memcpy(src + i, &u, 8);
    }
    for (uint32_t h = 0; h < 0x10000; h++) { /* all halves, also as the tops of floats */
        uint16_t u = (uint16_t)h;

        memcpy(src + 2 * h, &u, 2);
    }
    setenv("GATHERFS_CPU", "c", 1);
    assert_string_equal(gf_convert_init(), "c");
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++)
            reference[i][k] = gf_convert_get(types[i], types[k]);
    unsetenv("GATHERFS_CPU");
    gf_convert_init();
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++) {
            gf_convert_fn *fn = gf_convert_get(types[i], types[k]);
            size_t size = gf_dtype_size(types[k]);

            assert_int_equal(fn == NULL, i == k);
            for (size_t n = 0; n < 70 && fn; n++) {
                memset(a, 0xaa, n * size + 8);
                memset(b, 0xaa, n * size + 8);
                fn(a + 1, src + 3 + 40 * n, n);
                reference[i][k](b + 1, src + 3 + 40 * n, n);
                assert_memory_equal(a, b, n * size + 8);
            }
            if (fn) {
                fn(a, src, N);
                reference[i][k](b, src, N);
                assert_memory_equal(a, b, N * size);
            }
        }
    free(src);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dtypes_are_found_by_each_of_their_names),
        cmocka_unit_test(sizes_in_bytes_do_not_wrap_or_split_a_byte),
        cmocka_unit_test(shapes_count_and_overflow),
        cmocka_unit_test(rounding_is_to_the_nearest_ties_to_even),
        cmocka_unit_test(overflow_is_infinity_and_nan_stays_nan),
        cmocka_unit_test(widening_and_narrowing_is_the_identity),
        cmocka_unit_test(vector_kernels_agree_with_the_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
