/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz.h - what every fuzz target includes.
 *
 * A target is one function that takes bytes and aborts when a property does not hold. It
 * is linked with libFuzzer (-Dfuzzing=true) or with driver.c, which replays files.
 */
#ifndef GF_TESTS_FUZZ_H
#define GF_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(what)                                                                        \
    do {                                                                                   \
        if (!(what)) {                                                                     \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what);      \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

/* The default limits, but no input may cost more than a few tens of MB. */
static inline struct gf_limits fuzz_limits(void)
{
    struct gf_limits limits = gf_limits_default;

    limits.pickle_arena = (size_t)32 << 20;
    limits.pickle_nodes = (size_t)1 << 20;
    return limits;
}

#endif
