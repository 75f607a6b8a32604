/* SPDX-License-Identifier: Apache-2.0 */
#include "catalog/names.h"

#include <string.h>

static bool is(const char *s, size_t len, const char *word)
{
    return len == strlen(word) && memcmp(s, word, len) == 0;
}

static bool is_wrapper(const char *s, size_t len)
{
    return is(s, len, "_fsdp_wrapped_module") || is(s, len, "_checkpoint_wrapped_module") ||
           is(s, len, "_orig_mod");
}

bool gf_components_next(struct gf_components *it, const char **ret, size_t *ret_len)
{
    while (it->p) {
        const char *s = it->p, *dot = strchrnul(s, '.');
        size_t len = (size_t)(dot - s);

        it->p = *dot ? dot + 1 : NULL;
        if (*dot && (is_wrapper(s, len) || (!it->begun && is(s, len, "module"))))
            continue;
        it->begun = true;
        *ret = s;
        *ret_len = len;
        return true;
    }
    return false;
}

void gf_name_unwrap(const char *name, char *buf)
{
    struct gf_components it = { .p = name };
    const char *s;
    size_t len;

    while (gf_components_next(&it, &s, &len)) {
        buf = mempcpy(buf, s, len);
        if (it.p)
            *buf++ = '.';
    }
    *buf = '\0';
}

bool gf_name_is_below(const char *name, const char *prefix)
{
    struct gf_components it = { .p = name };
    const char *s;
    size_t len;

    while (gf_components_next(&it, &s, &len)) {
        if (strncmp(prefix, s, len) != 0)
            return false;
        prefix += len;
        if (!*prefix)
            return it.p && *it.p;
        if (*prefix++ != '.')
            return false;
    }
    return false;
}
