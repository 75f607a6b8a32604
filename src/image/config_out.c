/* SPDX-License-Identifier: Apache-2.0 */
#include "image/config_out.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* 'deepseek_v3' and 'DeepseekV3' alike. */
static char *plain(const char *type)
{
    char *name = strdup(type), *p = name;

    if (!name)
        return NULL;
    for (; *type; type++)
        if (isalnum((unsigned char)*type))
            *p++ = (char)tolower((unsigned char)*type);
    *p = '\0';
    return name;
}

/* How many letters of the model type the class has lost in front: FSDP's prefix was taken off
 * as a set of letters (axolotl's lstrip), 'PhiForCausalLM' is 'hiForCausalLM' then. 0: none. */
static size_t lost_letters(const char *class, const char *type)
{
    static const char letters[] = "FSDP";

    if (strncasecmp(class, type, strlen(type)) == 0 || strchr(letters, *class))
        return 0;
    for (size_t n = 1; type[n] && strchr(letters, toupper((unsigned char)type[n - 1])); n++)
        if (strncasecmp(class, type + n, strlen(type + n)) == 0)
            return n;
    return 0;
}

/* The class without a wrapper's prefix, and whole. Adds it as a JSON string; *ret_change is set
 * if it is another. */
static int add_class(struct gf_text *out, const char *class, const char *type,
                     bool *ret_change, struct gf_err *err)
{
    static const char prefix[] = "FSDP";
    bool wrapped = strncmp(class, prefix, sizeof(prefix) - 1) == 0;
    GF_AUTO_MEM char *model = plain(type);
    GF_AUTO_MEM char *whole = NULL;
    size_t lost;

    if (!model)
        return gf_nomem(err);
    class += wrapped ? sizeof(prefix) - 1 : 0;
    lost = lost_letters(class, model);
    for (size_t i = 0; i < lost; i++)
        model[i] = (char)toupper((unsigned char)model[i]);
    if (asprintf(&whole, "%.*s%s", (int)lost, model, class) < 0) {
        whole = NULL;
        return gf_nomem(err);
    }
    *ret_change |= wrapped || lost;
    gf_text_json_ascii(out, whole);
    return 0;
}

static int patch_architectures(struct draft *draft, const struct gf_json *config,
                               struct gf_err *err)
{
    const struct gf_json *classes = gf_json_get(config, "architectures");
    const char *type = gf_json_str(gf_json_get(config, "model_type"));
    size_t n = gf_json_is_array(classes) ? gf_json_len(classes) : 0;
    struct gf_text value = { 0 };
    bool change = false;
    int r = 0;

    gf_text_add(&value, "[");
    for (size_t i = 0; i < n && !r; i++) {
        const char *class = gf_json_str(gf_json_at(classes, i));

        if (!class) { /* not what transformers writes: leave all of it */
            change = false;
            break;
        }
        gf_text_add(&value, i ? ",\n    " : "\n    ");
        r = add_class(&value, class, type ? type : "", &change, err);
    }
    gf_text_add(&value, "\n  ]");
    if (change && !r)
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
