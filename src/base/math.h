/* SPDX-License-Identifier: Apache-2.0 */
/*
 * math.h - arithmetic on numbers that come from files.
 *
 * The checked forms return true when the result does not fit, and leave *ret alone then.
 */
#ifndef GF_BASE_MATH_H
#define GF_BASE_MATH_H

#include <stdbool.h>
#include <stdint.h>

#define GF_MIN(a, b) ((a) < (b) ? (a) : (b))
#define GF_MAX(a, b) ((a) > (b) ? (a) : (b))
#define GF_COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline bool gf_add(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return true;
    *ret = sum;
    return false;
}

static inline bool gf_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return true;
    *ret = product;
    return false;
}

/* Does [off, off + len) lie inside [0, size)? */
static inline bool gf_inside(uint64_t off, uint64_t len, uint64_t size)
{
    return off <= size && len <= size - off;
}

/* `align` is a power of two; the caller knows that the result fits. */
static inline uint64_t gf_align(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

static inline uint64_t gf_ceil_div(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

#endif
