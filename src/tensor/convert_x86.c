/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert_x86.c - AVX2 + F16C kernels, bit for bit like the reference; on other CPUs and
 * architectures nothing is replaced.
 */
#include "tensor/convert_int.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2,f16c")))

/* Eight floats' bits to eight bfloat16 in the low halves of eight 32-bit lanes. */
AVX2 static inline __m256i round8(__m256i u)
{
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i sum = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256 f = _mm256_castsi256_ps(u);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(f, f, _CMP_UNORD_Q));

    return _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_set1_epi32(0xffff), nan);
}

AVX2 static void f32_bf16(void *dst, const void *src, size_t n)
{
    const uint8_t *s = src;
    uint8_t *d = dst;

    for (; n >= 16; n -= 16, s += 64, d += 32) {
        __m256i lo = round8(_mm256_loadu_si256((const __m256i_u *)s));
        __m256i hi = round8(_mm256_loadu_si256((const __m256i_u *)(s + 32)));

        /* packus works within 128-bit halves: put the quarters back in order. */
        _mm256_storeu_si256((__m256i_u *)d,
                            _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8));
    }
    for (; n; n--, s += 4, d += 2) {
        uint32_t u;
        uint16_t h;

        memcpy(&u, s, 4);
        h = gf_bf16_of_f32(u);
        memcpy(d, &h, 2);
    }
}

AVX2 static void f32_f16(void *dst, const void *src, size_t n)
{
    const uint8_t *s = src;
    uint8_t *d = dst;

    for (; n >= 8; n -= 8, s += 32, d += 16)
        _mm_storeu_si128((__m128i_u *)d,
                         _mm256_cvtps_ph(_mm256_loadu_ps((const float *)(const void *)s),
                                         _MM_FROUND_TO_NEAREST_INT));
    for (; n; n--, s += 4, d += 2) {
        uint32_t u;
        uint16_t h;

        memcpy(&u, s, 4);
        h = gf_f16_of_f32(u);
        memcpy(d, &h, 2);
    }
}

AVX2 static void bf16_f32(void *dst, const void *src, size_t n)
{
    const uint8_t *s = src;
    uint8_t *d = dst;

    for (; n >= 8; n -= 8, s += 16, d += 32) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i_u *)s));

        _mm256_storeu_si256((__m256i_u *)d, _mm256_slli_epi32(wide, 16));
    }
    for (; n; n--, s += 2, d += 4) {
        uint16_t h;
        uint32_t u;

        memcpy(&h, s, 2);
        u = (uint32_t)h << 16;
        memcpy(d, &u, 4);
    }
}

AVX2 static void f16_f32(void *dst, const void *src, size_t n)
{
    const uint8_t *s = src;
    uint8_t *d = dst;

    for (; n >= 8; n -= 8, s += 16, d += 32)
        _mm256_storeu_ps((float *)(void *)d,
                         _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)s)));
    for (; n; n--, s += 2, d += 4) {
        uint16_t h;
        uint32_t u;

        memcpy(&h, s, 2);
        u = gf_f32_of_f16(h);
        memcpy(d, &u, 4);
    }
}

const char *gf_convert_vector(gf_convert_fn *table[GF_NDTYPES][GF_NDTYPES])
{
    unsigned a, b, c = 0, d;

    /* clang 14 does not know "f16c" as a feature name: ask the CPU. */
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__get_cpuid(1, &a, &b, &c, &d) ||
        !(c & bit_F16C))
        return "c";
    table[GF_F32][GF_BF16] = f32_bf16;
    table[GF_F32][GF_F16] = f32_f16;
    table[GF_BF16][GF_F32] = bf16_f32;
    table[GF_F16][GF_F32] = f16_f32;
    return "avx2";
}
#else
const char *gf_convert_vector(gf_convert_fn *table[GF_NDTYPES][GF_NDTYPES])
{
    (void)table;
    return "c";
}
#endif
