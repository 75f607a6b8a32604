/* SPDX-License-Identifier: Apache-2.0 */
/*
 * regex.h - regular expressions in Python's syntax, as near as PCRE2 comes to it.
 *
 * Patterns may come with a checkpoint (rank_pattern): matching is bounded, and one that
 * runs into the bound does not match. Read-only once made, usable from any thread.
 */
#ifndef GF_BASE_REGEX_H
#define GF_BASE_REGEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"

struct gf_regex;

/* GF_EBAD for what is no pattern, naming the place in it. */
int gf_regex_new(const char *pattern, struct gf_regex **ret, struct gf_err *err);
void gf_regex_free(struct gf_regex *regex);
GF_DEFINE_AUTO(gf_regex);

/* Steps of backtracking in one match, instead of the 100000 that are allowed. */
void gf_regex_limit(struct gf_regex *regex, uint32_t steps);

/* re.match / re.search: at the start of the text, or anywhere in it. */
bool gf_regex_matches_start(const struct gf_regex *regex, const char *text);
bool gf_regex_matches(const struct gf_regex *regex, const char *text);

/* Did these two run into the bound with it? Where many texts are matched one does well not to
 * go on with such a pattern. */
bool gf_regex_gave_up(const struct gf_regex *regex);

/* re.search: where the pattern (spans[0]) and its first n - 1 groups matched; a group that
 * took no part is empty. n <= 4. */
struct gf_span {
    size_t start, end; /* half-open, bytes of the text */
};
bool gf_regex_find(const struct gf_regex *regex, const char *text, struct gf_span *spans,
                   size_t n);

/* re.sub with `count` 0 (every occurrence) or 1 (the first). Groups are \1 or \g<1> in Python and $1 or
 * ${1} here. *ret is to be freed; *ret_n how many were replaced (may be NULL). */
int gf_regex_replace(const struct gf_regex *regex, const char *text, const char *with,
                     bool all, char **ret, size_t *ret_n, struct gf_err *err);

#endif
