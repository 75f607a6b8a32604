/* SPDX-License-Identifier: Apache-2.0 */
#include "format/dcp_path.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "format/dcp_group.h"

static bool add(struct gf_dcp_path *path, const struct gf_pv *element)
{
    const char *s = gf_pv_str(element);
    char digits[24];
    int64_t index;
    size_t len;

    if (!s && gf_pv_int(element, &index) && index >= 0) {
        snprintf(digits, sizeof(digits), "%" PRId64, index);
        s = digits;
    }
    len = s ? strlen(s) + 1 : 0;
    if (!s || path->n == GF_DCP_PATH_ELEMENTS || len > sizeof(path->text) - path->used)
        return false;
    path->elements[path->n++] = memcpy(path->text + path->used, s, len);
    path->used += len;
    return true;
}

bool gf_dcp_path_of_value(const struct gf_pv *value, struct gf_dcp_path *ret)
{
    size_t n = gf_pv_len(value);
    bool whole = n > 0;

    ret->n = ret->used = 0;
    for (size_t i = 0; i < n && whole; i++)
        whole = add(ret, gf_pv_item(value, i));
    return whole;
}

bool gf_dcp_path_of_key(const char *fqn, struct gf_dcp_path *ret)
{
    size_t head = strcspn(fqn, "."), len = strlen(fqn) + 1;

    ret->n = ret->used = 0;
    if (len > sizeof(ret->text))
        return false;
    ret->used = len;
    ret->elements[ret->n++] = memcpy(ret->text, fqn, len);
    if (!fqn[head])
        return true;
    ret->text[head] = '\0';
    if (gf_dcp_group_is_other(ret->text))
        ret->elements[ret->n++] = ret->text + head + 1;
    else
        ret->text[head] = '.';
    return true;
}

bool gf_dcp_path_is_other(const struct gf_dcp_path *path)
{
    for (size_t i = 0; i + 1 < path->n; i++)
        if (gf_dcp_group_is_other(path->elements[i]))
            return true;
    return path->n == 1 && !strchr(path->elements[0], '.') &&
           gf_dcp_group_is_other(path->elements[0]);
}

void gf_dcp_path_dict(const struct gf_dcp_path *path, char ret[GF_DCP_PATH_BYTES])
{
    size_t n = 0;

    ret[0] = '\0';
    for (size_t i = 0; i + 1 < path->n; i++)
        n += (size_t)snprintf(ret + n, GF_DCP_PATH_BYTES - n, "%s%s",
                              i ? GF_DCP_PATH_BETWEEN : "", path->elements[i]);
}
