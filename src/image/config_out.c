/* SPDX-License-Identifier: Apache-2.0 */
#include "image/config_out.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"

struct draft {
    char *text;
    size_t len;
};

static int set(struct draft *draft, const char *key, const char *value, struct gf_err *err)
{
    char *text;
    int r = gf_json_edit(draft->text, draft->len, key, value, &text, &draft->len, err);

    if (r)
        return r;
    free(draft->text);
    draft->text = text;
    return 0;
}

static int patch_dtype(struct draft *draft, const struct gf_json *config,
                       const struct gf_view *view, struct gf_err *err)
{
    static const char *const keys[] = { "dtype", "torch_dtype" };
    char value[32];
    const char *torch;
    enum gf_dtype dtype;
    bool there = false;
    int r = 0;

    if (!gf_view_dtype(view, &dtype) || !(torch = gf_dtype_info(dtype)->torch))
        return 0;
    snprintf(value, sizeof(value), "\"%s\"", torch);
    for (size_t i = 0; i < GF_COUNT(keys) && !r; i++) {
        const struct gf_json *found = gf_json_get(config, keys[i]);
        const char *name = gf_json_str(found);

        there |= found != NULL;
        if (found && (!name || strcmp(name, torch) != 0))
            r = set(draft, keys[i], value, err);
    }
    return r || there ? r : set(draft, keys[0], value, err);
}

static const char *without_prefix(const char *class)
{
    static const char prefix[] = "FSDP";

    return strncmp(class, prefix, sizeof(prefix) - 1) == 0 ? class + sizeof(prefix) - 1
                                                           : class;
}

static int patch_architectures(struct draft *draft, const struct gf_json *config,
                               struct gf_err *err)
{
    const struct gf_json *classes = gf_json_get(config, "architectures");
    size_t n = gf_json_is_array(classes) ? gf_json_len(classes) : 0;
    struct gf_text value = { 0 };
    bool change = false;
    int r = 0;

    gf_text_add(&value, "[");
    for (size_t i = 0; i < n; i++) {
        const char *class = gf_json_str(gf_json_at(classes, i));

        if (!class) { /* not what transformers writes: leave all of it */
            change = false;
            break;
        }
        change |= without_prefix(class) != class;
        gf_text_add(&value, i ? ",\n    " : "\n    ");
        gf_text_json_ascii(&value, without_prefix(class));
    }
    gf_text_add(&value, "\n  ]");
    if (change)
        r = value.failed ? gf_nomem(err) : set(draft, "architectures", value.s, err);
    gf_text_done(&value);
    return r;
}

int gf_config_patch(const char *text, size_t len, const struct gf_json *config,
                    const struct gf_view *view, char **ret, size_t *ret_len,
                    struct gf_err *err)
{
    struct draft draft = { malloc(len + 1), len };
    int r;

    if (!draft.text)
        return gf_nomem(err);
    memcpy(draft.text, text, len);
    draft.text[len] = '\0';
    r = patch_architectures(&draft, config, err);
    if (!r)
        r = patch_dtype(&draft, config, view, err);
    if (!r && view->untie && gf_json_bool(gf_json_get(config, "tie_word_embeddings"), true))
        r = set(&draft, "tie_word_embeddings", "false", err);
    if (r) {
        free(draft.text);
        return r;
    }
    *ret = draft.text;
    *ret_len = draft.len;
    return 0;
}
