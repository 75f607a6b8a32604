/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#include "base/math.h"

/* struct gf_json is cJSON under another name: only this file knows. */
static const cJSON *c(const struct gf_json *value)
{
    return (const cJSON *)(const void *)value;
}

static const struct gf_json *j(const cJSON *value)
{
    return (const struct gf_json *)(const void *)value;
}

/* Where a JSON string that starts at `p` ends (behind the quote), or end. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\')
            p++;
    return p < end ? p + 1 : end;
}

/* What cJSON does not look at: how deep the text nests, and whether a byte stands outside
 * strings that JSON does not have there (it passes over control characters and a byte order
 * mark). Returns the first such byte or NULL. */
static const char *look_over(const char *text, size_t len, size_t *ret_depth)
{
    const char *p = text, *end = text + len;
    size_t depth = 0, deepest = 0;

    while (p < end) {
        if (*p == '"') {
            p = skip_string(p, end);
            continue;
        }
        if (!*p || !strchr("{}[]:, \t\r\n+-.0123456789Etruefalsn", *p))
            return p;
        if (*p == '{' || *p == '[')
            deepest = ++depth > deepest ? depth : deepest;
        else if ((*p == '}' || *p == ']') && depth)
            depth--;
        p++;
    }
    *ret_depth = deepest;
    return NULL;
}

/* Python's json writes NaN and Infinity, which JSON has not. The copy has numbers of the same
 * length in their place, which are never whole; to be freed. */
static char *without_nan(const char *text, size_t len)
{
    char *copy = malloc(len + 1), *p = copy, *end;

    if (!copy)
        return NULL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    for (end = copy + len; p < end;) {
        if (*p == '"') {
            p = (char *)(uintptr_t)skip_string(p, end);
        } else if (strncmp(p, "NaN", 3) == 0) {
            p = mempcpy(p, "0.5", 3);
        } else if (strncmp(p, "Infinity", 8) == 0) {
            p = mempcpy(p, "0.500000", 8);
        } else {
            p++;
        }
    }
    return copy;
}

int gf_json_parse(const char *name, const void *text, size_t len,
                  const struct gf_limits *limits, struct gf_json **ret, struct gf_err *err)
{
    const char *stop = NULL;
    size_t depth;
    GF_AUTO_MEM char *plain = NULL;
    cJSON *doc;

    if (len > limits->json_bytes)
        return gf_fail(err, GF_EBAD, "'%s': %zu bytes of JSON, at most %zu are read", name,
                       len, limits->json_bytes);
    plain = without_nan(text, len);
    if (!plain)
        return gf_nomem(err);
    stop = look_over(plain, len, &depth);
    if (stop)
        return gf_fail(err, GF_EBAD, "'%s': not JSON: error at byte %td of %zu", name,
                       stop - plain, len);
    if (depth > limits->json_depth)
        return gf_fail(err, GF_EBAD, "'%s': JSON nested deeper than %zu", name,
                       limits->json_depth);
    doc = cJSON_ParseWithLengthOpts(plain, len, &stop, false);
    if (!doc)
        return gf_fail(err, GF_EBAD, "'%s': not JSON: error at byte %td of %zu", name,
                       stop ? stop - plain : 0, len);
    for (const char *end = plain + len; stop < end; stop++)
        if (!strchr(" \t\r\n", *stop) || !*stop) {
            cJSON_Delete(doc);
            return gf_fail(err, GF_EBAD,
                           "'%s': not JSON: more text behind the value at byte %td", name,
                           stop - plain);
        }
    *ret = (struct gf_json *)(void *)doc;
    return 0;
}

void gf_json_free(struct gf_json *doc)
{
    cJSON_Delete((cJSON *)(void *)doc);
}

const struct gf_json *gf_json_get(const struct gf_json *object, const char *key)
{
    return cJSON_IsObject(c(object)) ? j(cJSON_GetObjectItemCaseSensitive(c(object), key))
                                     : NULL;
}

const struct gf_json *gf_json_at(const struct gf_json *array, size_t i)
{
    return array && i <= INT32_MAX ? j(cJSON_GetArrayItem(c(array), (int)i)) : NULL;
}

const struct gf_json *gf_json_next(const struct gf_json *member)
{
    return member ? j(c(member)->next) : NULL;
}

size_t gf_json_len(const struct gf_json *array_or_object)
{
    return array_or_object ? (size_t)cJSON_GetArraySize(c(array_or_object)) : 0;
}

const char *gf_json_key(const struct gf_json *member)
{
    return member ? c(member)->string : NULL;
}

bool gf_json_is_object(const struct gf_json *value)
{
    return cJSON_IsObject(c(value));
}

bool gf_json_is_array(const struct gf_json *value)
{
    return cJSON_IsArray(c(value));
}

bool gf_json_is_null(const struct gf_json *value)
{
    return cJSON_IsNull(c(value));
}

const char *gf_json_str(const struct gf_json *value)
{
    return cJSON_GetStringValue(c(value));
}

bool gf_json_bool(const struct gf_json *value, bool otherwise)
{
    return cJSON_IsBool(c(value)) ? cJSON_IsTrue(c(value)) : otherwise;
}

bool gf_json_f64(const struct gf_json *value, double *ret)
{
    if (!cJSON_IsNumber(c(value)))
        return false;
    *ret = c(value)->valuedouble;
    return true;
}

bool gf_json_u64(const struct gf_json *value, uint64_t *ret)
{
    double d;

    if (!gf_json_f64(value, &d) || !(d >= 0) || d > 9007199254740992.0 || floor(d) < d)
        return false;
    *ret = (uint64_t)d;
    return true;
}

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
        p++;
    return p;
}

/* Behind the value that starts at `p`, of text that is known to be JSON. */
static const char *skip_value(const char *p, const char *end)
{
    size_t depth = 0;

    while (p < end) {
        if (*p == '"') {
            p = skip_string(p, end);
        } else if (*p == '{' || *p == '[') {
            depth++;
            p++;
            continue;
        } else if (*p == '}' || *p == ']') {
            depth--;
            p++;
        } else if (depth && !strchr("-+.0123456789truefalsnEe", *p)) {
            p++; /* punctuation and space inside a container */
            continue;
        } else {
            while (p < end && !strchr(",]} \t\r\n", *p))
                p++;
        }
        if (!depth)
            break;
    }
    return p;
}

/* The key as its raw bytes stand in the text; escapes never occur in keys that we edit. */
static bool key_is(const char *p, const char *end, const char *key)
{
    size_t n = strlen(key);

    return (size_t)(end - p) == n + 2 && memcmp(p + 1, key, n) == 0;
}

/* text with [from, to) replaced by a and b. */
static int splice(const char *text, size_t len, size_t from, size_t to, const char *a,
                  const char *b, char **ret, size_t *ret_len, struct gf_err *err)
{
    size_t na = strlen(a), nb = strlen(b), n = len - (to - from) + na + nb;
    char *out = malloc(n + 1), *p = out;

    if (!out)
        return gf_nomem(err);
    p = mempcpy(p, text, from);
    p = mempcpy(p, a, na);
    p = mempcpy(p, b, nb);
    p = mempcpy(p, text + to, len - to);
    *p = '\0';
    *ret = out;
    *ret_len = n;
    return 0;
}

int gf_json_edit(const char *text, size_t len, const char *key, const char *value,
                 char **ret, size_t *ret_len, struct gf_err *err)
{
    const char *end = text + len, *p = skip_space(text, end), *last = NULL, *indent;
    char lead[256];

    if (p == end || *p != '{')
        return gf_fail(err, GF_EBAD, "JSON to edit is no object");
    indent = p + 1;
    for (p = skip_space(p + 1, end); p < end && *p == '"';) {
        const char *name = p, *name_end = skip_string(p, end), *from, *to;

        from = skip_space(name_end, end);
        if (from < end && *from == ':')
            from = skip_space(from + 1, end);
        to = skip_value(from, end);
        p = skip_space(to, end);
        if (key_is(name, name_end, key)) {
            if (value)
                return splice(text, len, (size_t)(from - text), (size_t)(to - text), value,
                              "", ret, ret_len, err);
            /* Remove: with the comma behind it, or, for the last member, the one before. */
            if (p < end && *p == ',')
                return splice(text, len, (size_t)(name - text),
                              (size_t)(skip_space(p + 1, end) - text), "", "", ret, ret_len,
                              err);
            return splice(text, len, (size_t)((last ? last : name) - text),
                          (size_t)(to - text), "", "", ret, ret_len, err);
        }
        last = to;
        if (p < end && *p == ',')
            p = skip_space(p + 1, end);
    }
    if (!value)
        return splice(text, len, len, len, "", "", ret, ret_len, err);
    snprintf(lead, sizeof(lead), "%s%.*s\"%.128s\": ", last ? "," : "",
             last ? (int)GF_MIN(skip_space(indent, end) - indent, 64) : 0, indent, key);
    if (!last)
        last = indent;
    return splice(text, len, (size_t)(last - text), (size_t)(last - text), lead, value, ret,
                  ret_len, err);
}
