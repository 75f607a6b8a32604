/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t.h - what every unit test includes: cmocka, and checks of the project's errors.
 *
 *     GF_OK(gf_zip_parse(..., &t_err));                     prints the text when it fails
 *     GF_FAILS(gf_zip_parse(..., &t_err), GF_EBAD, "overlap");   code and words
 */
#ifndef GF_TESTS_T_H
#define GF_TESTS_T_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/err.h"

static struct gf_err t_err __attribute__((unused));

#define GF_OK(call)                                                                        \
    do {                                                                                   \
        int gf_r = (call);                                                                 \
        if (gf_r)                                                                          \
            fail_msg("%s: %d: %s", #call, gf_r, t_err.text);                               \
    } while (0)

#define GF_FAILS(call, errno_, words)                                                      \
    do {                                                                                   \
        int gf_r = (call);                                                                 \
        if (gf_r != -(errno_))                                                             \
            fail_msg("%s: gave %d (%s), expected %d", #call, gf_r, gf_r ? t_err.text : "", \
                     -(errno_));                                                           \
        if (!strstr(t_err.text, (words)))                                                  \
            fail_msg("%s: '%s' does not say '%s'", #call, t_err.text, (words));            \
        assert_null(strchr(t_err.text, '\n'));                                             \
    } while (0)

#endif
