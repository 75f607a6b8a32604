/* SPDX-License-Identifier: Apache-2.0 */
/*
 * convert.c - the reference conversions, and the table that vector kernels may replace.
 *
 * bfloat16 is the upper half of a float32; float16 has 5 exponent and 10 mantissa bits.
 * float64 goes to 16 bits through float32, as torch does (two roundings). NaN as torch 2.13
 * does it for contiguous tensors on x86: f32 and f64 -> bf16 give 0xffff, f16 -> bf16 gives
 * 0x7fc0; -> f16 gives sign | 0x7e00 | the upper payload bits (F16C); widening keeps the
 * payload, with the quiet bit set for f16.
 */
#include "tensor/convert.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/convert_int.h"

static uint32_t bits_of(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

static float float_of(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

uint16_t gf_bf16_of_f32(uint32_t u)
{
    uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16;

    return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? 0xffff : rounded);
}

uint16_t gf_f16_of_f32(uint32_t u)
{
    uint32_t sign = u >> 16 & 0x8000, a = u & 0x7fffffff, e = a >> 23, m, shift, half;

    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) /* 65520 and up round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (e >= 113) { /* normal in half: rebias by 112, round 13 bits away */
        a -= 112u << 23;
        return (uint16_t)(sign | (a + 0xfff + (a >> 13 & 1)) >> 13);
    }
    if (e < 102) /* below half the smallest denormal */
        return (uint16_t)sign;
    m = (a & 0x7fffff) | 0x800000;
    shift = 126 - e; /* 14..24 */
    half = 1u << (shift - 1);
    return (uint16_t)(sign | (m + half - 1 + (m >> shift & 1)) >> shift);
}

uint32_t gf_f32_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;

    if (e == 31)
        return sign | 0x7f800000 | m << 13 | (m ? 0x400000u : 0);
    if (e)
        return sign | (e + 112) << 23 | m << 13;
    return sign | bits_of((float)m * 0x1p-24f);
}

/* To bfloat16 from float16. */
static uint16_t bf16_of_f16(uint32_t u)
{
    return (u & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : gf_bf16_of_f32(u);
}

/* One loop per pair: load, convert through float32 bits (or double), store. */
#define LOOP(name, from_t, to_t, expr)                                                     \
    static void name(void *dst, const void *src, size_t n)                                 \
    {                                                                                      \
        const uint8_t *s = src;                                                            \
        uint8_t *d = dst;                                                                  \
                                                                                           \
        for (size_t i = 0; i < n; i++) {                                                   \
            from_t x;                                                                      \
            to_t y;                                                                        \
                                                                                           \
            memcpy(&x, s + i * sizeof(x), sizeof(x));                                      \
            y = (expr);                                                                    \
            memcpy(d + i * sizeof(y), &y, sizeof(y));                                      \
        }                                                                                  \
    }

LOOP(f32_bf16, uint32_t, uint16_t, gf_bf16_of_f32(x))
LOOP(f32_f16, uint32_t, uint16_t, gf_f16_of_f32(x))
LOOP(f32_f64, float, double, (double)x)
LOOP(f64_f32, double, float, (float)x)
LOOP(f64_bf16, double, uint16_t, gf_bf16_of_f32(bits_of((float)x)))
LOOP(f64_f16, double, uint16_t, gf_f16_of_f32(bits_of((float)x)))
LOOP(bf16_f32, uint16_t, uint32_t, (uint32_t)x << 16)
LOOP(bf16_f64, uint16_t, double, (double)float_of((uint32_t)x << 16))
LOOP(bf16_f16, uint16_t, uint16_t, gf_f16_of_f32((uint32_t)x << 16))
LOOP(f16_f32, uint16_t, uint32_t, gf_f32_of_f16(x))
LOOP(f16_f64, uint16_t, double, (double)float_of(gf_f32_of_f16(x)))
LOOP(f16_bf16, uint16_t, uint16_t, bf16_of_f16(gf_f32_of_f16(x)))

static gf_convert_fn *table[GF_NDTYPES][GF_NDTYPES] = {
    [GF_F32] = { [GF_BF16] = f32_bf16, [GF_F16] = f32_f16, [GF_F64] = f32_f64 },
    [GF_F64] = { [GF_BF16] = f64_bf16, [GF_F16] = f64_f16, [GF_F32] = f64_f32 },
    [GF_BF16] = { [GF_F32] = bf16_f32, [GF_F16] = bf16_f16, [GF_F64] = bf16_f64 },
    [GF_F16] = { [GF_F32] = f16_f32, [GF_BF16] = f16_bf16, [GF_F64] = f16_f64 },
};

gf_convert_fn *gf_convert_get(enum gf_dtype from, enum gf_dtype to)
{
    return table[from][to];
}

bool gf_convert_can(enum gf_dtype from, enum gf_dtype to)
{
    return from == to || table[from][to];
}

const char *gf_convert_init(void)
{
    const char *wish = getenv("GATHERFS_CPU");

    if (wish && strcmp(wish, "c") == 0)
        return "c";
    return gf_convert_vector(table);
}
