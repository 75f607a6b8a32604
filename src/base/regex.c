/* SPDX-License-Identifier: Apache-2.0 */
#include "base/regex.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Steps of backtracking in one match: far more than a name of a tensor needs. */
#define MATCH_LIMIT 100000
#define MAX_PATTERN 4096

struct gf_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    atomic_bool *gave_up; /* all else is read-only */
};

void gf_regex_free(struct gf_regex *regex)
{
    if (!regex)
        return;
    pcre2_code_free(regex->code);
    pcre2_match_context_free(regex->limits);
    free(regex->gave_up);
    free(regex);
}

void gf_regex_limit(struct gf_regex *regex, uint32_t steps)
{
    pcre2_set_match_limit(regex->limits, steps);
    pcre2_set_depth_limit(regex->limits, steps);
}

int gf_regex_new(const char *pattern, struct gf_regex **ret, struct gf_err *err)
{
    GF_AUTO(gf_regex) regex = NULL;
    PCRE2_UCHAR text[128];
    PCRE2_SIZE at;
    int code;

    if (strlen(pattern) > MAX_PATTERN)
        return gf_fail(err, GF_EBAD, "pattern '%.32s...' has %zu characters, at most %d",
                       pattern, strlen(pattern), MAX_PATTERN);
    regex = calloc(1, sizeof(*regex));
    if (!regex)
        return gf_nomem(err);
    regex->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (!regex->code) {
        pcre2_get_error_message(code, text, sizeof(text));
        return gf_fail(err, GF_EBAD, "pattern '%.64s' at %zu: %s", pattern, at, text);
    }
    regex->limits = pcre2_match_context_create(NULL);
    regex->gave_up = calloc(1, sizeof(*regex->gave_up));
    if (!regex->limits || !regex->gave_up)
        return gf_nomem(err);
    atomic_init(regex->gave_up, false);
    gf_regex_limit(regex, MATCH_LIMIT);
    *ret = gf_take(&regex);
    return 0;
}

static bool match(const struct gf_regex *regex, const char *text, uint32_t options)
{
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(regex->code, NULL);
    int n = data ? pcre2_match(regex->code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0,
                               options, data, regex->limits)
                 : -1;

    pcre2_match_data_free(data);
    if (n == PCRE2_ERROR_MATCHLIMIT || n == PCRE2_ERROR_DEPTHLIMIT)
        atomic_store(regex->gave_up, true);
    return n >= 0;
}

bool gf_regex_gave_up(const struct gf_regex *regex)
{
    return atomic_load(regex->gave_up);
}

bool gf_regex_matches_start(const struct gf_regex *regex, const char *text)
{
    return match(regex, text, PCRE2_ANCHORED);
}

bool gf_regex_matches(const struct gf_regex *regex, const char *text)
{
    return match(regex, text, 0);
}

bool gf_regex_find(const struct gf_regex *regex, const char *text, struct gf_span *spans,
                   size_t n)
{
    pcre2_match_data *data = pcre2_match_data_create(4, NULL);
    int found = data ? pcre2_match(regex->code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0,
                                   0, data, regex->limits)
                     : -1;

    /* 0: more groups matched than there is room for. */
    for (size_t i = 0; found >= 0 && i < n; i++) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(data) + 2 * i;

        spans[i] = (struct gf_span){ 0, 0 };
        if ((found == 0 || i < (size_t)found) && at[0] != PCRE2_UNSET)
            spans[i] = (struct gf_span){ at[0], at[1] };
    }
    pcre2_match_data_free(data);
    return found >= 0;
}

int gf_regex_replace(const struct gf_regex *regex, const char *text, const char *with,
                     bool all, char **ret, size_t *ret_n, struct gf_err *err)
{
    PCRE2_SIZE room = strlen(text) + strlen(with) * 4 + 64;
    uint32_t options = PCRE2_SUBSTITUTE_OVERFLOW_LENGTH | PCRE2_SUBSTITUTE_UNSET_EMPTY |
                       (all ? PCRE2_SUBSTITUTE_GLOBAL : 0);

    for (int attempt = 0; attempt < 2; attempt++) {
        char *buf = malloc(room);
        int n;

        if (!buf)
            return gf_nomem(err);
        n = pcre2_substitute(regex->code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0,
                             options, NULL, regex->limits, (PCRE2_SPTR)with,
                             PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)buf, &room);
        if (n >= 0) {
            *ret = buf;
            if (ret_n)
                *ret_n = (size_t)n;
            return 0;
        }
        free(buf);
        if (n != PCRE2_ERROR_NOMEMORY)
            return gf_fail(err, GF_EBAD, "'%.64s': cannot be matched within %d steps", text,
                           MATCH_LIMIT);
    }
    return gf_nomem(err);
}
