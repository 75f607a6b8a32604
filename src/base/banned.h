/* SPDX-License-Identifier: Apache-2.0 */
/*
 * banned.h - functions that cannot be used safely become compile errors.
 * Included for every file by the compiler's command line (meson.build, -include).
 */
#ifndef GF_BASE_BANNED_H
#define GF_BASE_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf gets atoi atol atoll     \
    strtok

#endif
