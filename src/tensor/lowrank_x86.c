/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lowrank_x86.c - AVX-512 and AVX2 + FMA kernels, bit for bit like the reference; on other
 * CPUs and architectures there are none.
 *
 * A few rows of a group of columns are summed in registers over all of the rank: per step,
 * two vectors of `right` are shared by the rows, and each row's number of `left` is spread.
 * The sums are then added to dst in its own dtype. Of a group that is only partly wanted,
 * dst is first copied to a place that has all of it.
 */
#include "tensor/lowrank_int.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define AVX2 __attribute__((target("avx2,fma,f16c")))
#define AVX512 __attribute__((target("avx512f")))

enum { GROUP = GF_LOWRANK_GROUP };

/* ---- AVX-512: two vectors are a group ---- */

/* Sixteen elements at p: p + x, rounded. */
AVX512 INLINE void add512(enum gf_dtype dtype, uint8_t *p, __m512 x)
{
    __m256i half =
        dtype == GF_F32 ? _mm256_setzero_si256() : _mm256_loadu_si256((const __m256i_u *)p);
    __m512i u;

    switch (dtype) {
    case GF_BF16:
        u = _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
        x = _mm512_add_ps(_mm512_castsi512_ps(u), x);
        u = _mm512_castps_si512(x);
        u = _mm512_add_epi32(u, _mm512_add_epi32(_mm512_and_si512(_mm512_srli_epi32(u, 16),
                                                                  _mm512_set1_epi32(1)),
                                                 _mm512_set1_epi32(0x7fff)));
        u = _mm512_mask_set1_epi32(_mm512_srli_epi32(u, 16),
                                   _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), 0xffff);
        _mm256_storeu_si256((__m256i_u *)p, _mm512_cvtepi32_epi16(u));
        break;
    case GF_F16:
        x = _mm512_add_ps(_mm512_cvtph_ps(half), x);
        _mm256_storeu_si256((__m256i_u *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
        break;
    default:
        _mm512_storeu_ps(p, _mm512_add_ps(_mm512_loadu_ps(p), x));
    }
}

/* `rows` is a constant where this is inlined, so that the sums are registers; `row` is
 * bytes from one row of dst to the next. */
AVX512 INLINE void group512(const struct gf_lowrank *p, const float *left,
                            const float *right, uint8_t *dst, size_t row, const int rows)
{
    __m512 sum[8][2], scale = _mm512_set1_ps(p->scale);
    __m512 start = _mm512_set1_ps(gf_lowrank_start(p));
    size_t half = 16 * gf_dtype_size(p->dtype);

#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        sum[i][0] = sum[i][1] = start;
    for (size_t k = 0; k < p->rank; k++, right += GROUP) {
        __m512 a = _mm512_loadu_ps(right), b = _mm512_loadu_ps(right + 16);

#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            __m512 x = _mm512_set1_ps(left[(size_t)i * p->rank + k]);

            sum[i][0] = _mm512_fmadd_ps(x, a, sum[i][0]);
            sum[i][1] = _mm512_fmadd_ps(x, b, sum[i][1]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++, dst += row) {
        sum[i][0] = _mm512_mul_ps(sum[i][0], scale);
        sum[i][1] = _mm512_mul_ps(sum[i][1], scale);
        if (p->add) {
            add512(p->dtype, dst, sum[i][0]);
            add512(p->dtype, dst + half, sum[i][1]);
        } else {
            _mm512_storeu_ps(dst, sum[i][0]);
            _mm512_storeu_ps(dst + half, sum[i][1]);
        }
    }
}

/* ---- AVX2: four vectors are a group, two at a time ---- */

/* Eight floats' bits to eight bfloat16 in the low halves of eight lanes. */
AVX2 INLINE __m256i bf16_of(__m256 x)
{
    __m256i u = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i sum = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));

    return _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), _mm256_set1_epi32(0xffff), nan);
}

AVX2 INLINE void add256(enum gf_dtype dtype, uint8_t *p, __m256 x)
{
    __m128i half =
        dtype == GF_F32 ? _mm_setzero_si128() : _mm_loadu_si128((const __m128i_u *)p);
    __m256i u;

    switch (dtype) {
    case GF_BF16:
        u = _mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
        u = bf16_of(_mm256_add_ps(_mm256_castsi256_ps(u), x));
        _mm_storeu_si128((__m128i_u *)p, _mm_packus_epi32(_mm256_castsi256_si128(u),
                                                          _mm256_extracti128_si256(u, 1)));
        break;
    case GF_F16:
        x = _mm256_add_ps(_mm256_cvtph_ps(half), x);
        _mm_storeu_si128((__m128i_u *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
        break;
    default:
        x = _mm256_add_ps(_mm256_loadu_ps((const float *)(const void *)p), x);
        _mm256_storeu_ps((float *)(void *)p, x);
    }
}

AVX2 INLINE void half256(const struct gf_lowrank *p, const float *left, const float *right,
                         uint8_t *dst, size_t row, const int rows)
{
    __m256 sum[4][2], scale = _mm256_set1_ps(p->scale);
    __m256 start = _mm256_set1_ps(gf_lowrank_start(p));
    size_t half = 8 * gf_dtype_size(p->dtype);

#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
        sum[i][0] = sum[i][1] = start;
    for (size_t k = 0; k < p->rank; k++, right += GROUP) {
        __m256 a = _mm256_loadu_ps(right), b = _mm256_loadu_ps(right + 8);

#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            __m256 x = _mm256_set1_ps(left[(size_t)i * p->rank + k]);

            sum[i][0] = _mm256_fmadd_ps(x, a, sum[i][0]);
            sum[i][1] = _mm256_fmadd_ps(x, b, sum[i][1]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++, dst += row) {
        sum[i][0] = _mm256_mul_ps(sum[i][0], scale);
        sum[i][1] = _mm256_mul_ps(sum[i][1], scale);
        if (p->add) {
            add256(p->dtype, dst, sum[i][0]);
            add256(p->dtype, dst + half, sum[i][1]);
        } else {
            _mm256_storeu_ps((float *)(void *)dst, sum[i][0]);
            _mm256_storeu_ps((float *)(void *)(dst + half), sum[i][1]);
        }
    }
}

AVX2 INLINE void group256(const struct gf_lowrank *p, const float *left, const float *right,
                          uint8_t *dst, size_t row, const int rows)
{
    half256(p, left, right, dst, row, rows);
    half256(p, left, right + 16, dst + 16 * gf_dtype_size(p->dtype), row, rows);
}

/* ---- rows and groups ---- */

/* One group of columns, of a number of rows that depends on the function. */
typedef void group_fn(const struct gf_lowrank *p, const float *left, const float *right,
                      uint8_t *dst, size_t row);

#define GROUP_FN(target, name, group, rows)                                                \
    target static void name(const struct gf_lowrank *p, const float *left,                 \
                            const float *right, uint8_t *dst, size_t row)                  \
    {                                                                                      \
        group(p, left, right, dst, row, rows);                                             \
    }
GROUP_FN(AVX512, eight512, group512, 8)
GROUP_FN(AVX512, three512, group512, 3)
GROUP_FN(AVX512, one512, group512, 1)
GROUP_FN(AVX2, four256, group256, 4)
GROUP_FN(AVX2, one256, group256, 1)

/* Functions for fewer and fewer rows; the last is for one. */
struct step {
    size_t rows;
    group_fn *fn;
};

/* Columns [in, in + n) of a group. */
static void part(const struct gf_lowrank *p, const struct step *step, const float *left,
                 const float *right, uint8_t *dst, size_t row, size_t in, size_t n)
{
    size_t size = gf_dtype_size(p->dtype);
    uint8_t room[8 * GROUP * sizeof(float)] = { 0 };

    for (size_t i = 0; i < step->rows && p->add; i++)
        memcpy(room + (i * GROUP + in) * size, dst + i * row, n * size);
    step->fn(p, left, right, room, GROUP * size);
    for (size_t i = 0; i < step->rows; i++)
        memcpy(dst + i * row, room + (i * GROUP + in) * size, n * size);
}

static void blocks(const struct step *step, const struct gf_lowrank *p, uint64_t col,
                   size_t rows, size_t cols, uint8_t *dst, size_t row)
{
    const float *left = p->left;
    size_t size = gf_dtype_size(p->dtype);

    while (rows) {
        if (rows < step->rows) {
            step++;
            continue;
        }
        for (size_t j = 0; j < cols;) {
            size_t in = (col + j) % GROUP,
                   n = cols - j < GROUP - in ? cols - j : GROUP - in;
            const float *right = p->right + (col + j) / GROUP * p->rank * GROUP;

            if (n == GROUP)
                step->fn(p, left, right, dst + j * size, row);
            else
                part(p, step, left, right, dst + j * size, row, in, n);
            j += n;
        }
        rows -= step->rows;
        left += step->rows * p->rank;
        dst += step->rows * row;
    }
}

static void lowrank512(const struct gf_lowrank *p, uint64_t col, size_t rows, size_t cols,
                       void *dst, size_t stride)
{
    static const struct step steps[] = { { 8, eight512 }, { 3, three512 }, { 1, one512 } };

    blocks(steps, p, col, rows, cols, dst, stride * gf_dtype_size(p->dtype));
}

static void lowrank256(const struct gf_lowrank *p, uint64_t col, size_t rows, size_t cols,
                       void *dst, size_t stride)
{
    static const struct step steps[] = { { 4, four256 }, { 1, one256 } };

    blocks(steps, p, col, rows, cols, dst, stride * gf_dtype_size(p->dtype));
}

const struct gf_lowrank_kernel *gf_lowrank_vector(void)
{
    static const struct gf_lowrank_kernel kernels[] = { { "avx512", lowrank512 },
                                                        { "avx2", lowrank256 },
                                                        { NULL, NULL } };
    unsigned a, b, c = 0, d;

    /* clang 14 does not know "f16c" as a feature name: ask the CPU. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return kernels;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C)
               ? kernels + 1
               : kernels + 2;
}
#else
const struct gf_lowrank_kernel *gf_lowrank_vector(void)
{
    static const struct gf_lowrank_kernel none = { NULL, NULL };

    return &none;
}
#endif
