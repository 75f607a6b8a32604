/* SPDX-License-Identifier: Apache-2.0 */
#include "format/state_pick.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/math.h"
#include "base/text.h"
#include "container/torch_file.h"

#define DEEPEST 4
#define NOT_PREFERRED 100

struct pick {
    struct gf_pickle *pickle;
    const char *file;
    size_t left; /* entries that may still be looked at: values can be shared */
    struct gf_state_pick best;
    unsigned rank; /* of the best: lower is better */
    uint64_t bytes;
    const struct gf_pv *module; /* a pickled nn.Module */
};

static bool has(const char *text, const char *word)
{
    return strstr(text, word) != NULL;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

/* What a trainer keeps beside the model. */
static bool is_skipped(const char *key)
{
    static const char *const whole[] = { "ema",    "loops", "callbacks",
                                         "scaler", "args",  "hyper_parameters" };
    char low[64];
    size_t i;

    for (i = 0; key[i] && i + 1 < sizeof(low); i++)
        low[i] = (char)tolower((unsigned char)key[i]);
    low[i] = '\0';
    for (i = 0; i < GF_COUNT(whole); i++)
        if (strcmp(low, whole[i]) == 0)
            return true;
    return has(low, "optim") || has(low, "sched") || has(low, "rng") ||
           has(low, "random") || strncmp(low, "ema_", 4) == 0 || ends_with(low, "_ema") ||
           has(low, "_ema_");
}

static unsigned preference(const char *key)
{
    static const char *const names[] = { "state_dict",       "model", "module",
                                         "model_state_dict", "net",   "network",
                                         "model_state" };

    for (unsigned i = 0; i < GF_COUNT(names); i++)
        if (strcmp(key, names[i]) == 0)
            return i;
    return NOT_PREFERRED;
}

/* Everything that torch pickles as a tensor, served or not. */
static bool is_tensor(const struct gf_pv *v)
{
    const struct gf_pv *func = gf_pv_func(v);
    const char *module = gf_pv_global_module(func), *name = gf_pv_global_name(func);

    return module && strncmp(module, "torch.", 6) == 0 &&
           strncmp(name, "_rebuild_", 9) == 0;
}

static uint64_t bytes_of(struct gf_pickle *pickle, const struct gf_pv *v)
{
    struct gf_torch_view view;
    enum gf_torch_is is = GF_TORCH_OTHER;
    const char *why;
    uint64_t dims[GF_MAX_RANK], numel;
    uint32_t rank;

    if (gf_torch_tensor(pickle, v, "", "", &is, &view, &why, NULL))
        return 0;
    if (is == GF_TORCH_TENSOR)
        return view.numel * gf_torch_itemsize(view.dtype);
    /* A distributed one says its whole size. */
    if (gf_pv_size(gf_pv_item(gf_pv_item(gf_pv_args(v), 2), 2), dims, &rank) &&
        !gf_shape_numel((struct gf_shape){ rank, dims }, &numel) && numel < INT64_MAX / 4)
        return numel * 4;
    return 0;
}

static bool is_module(const struct gf_pv *v)
{
    return gf_pv_is_dict(gf_pv_get(gf_pv_state(v), "_modules")) &&
           gf_pv_is_dict(gf_pv_get(gf_pv_state(v), "_parameters"));
}

static void consider(struct pick *p, const struct gf_pv *dict, const char *path,
                     const char *key)
{
    unsigned rank = preference(key);
    uint64_t bytes = 0;
    bool better;

    for (size_t i = 0; i < gf_pv_pairs(dict); i++)
        if (gf_add(bytes, bytes_of(p->pickle, gf_pv_value(dict, i)), &bytes))
            bytes = UINT64_MAX;
    better = !p->best.dict || rank < p->rank || (rank == p->rank && bytes > p->bytes);
    if (p->best.dict)
        snprintf(p->best.rival, sizeof(p->best.rival), "%s", better ? p->best.where : path);
    if (!better)
        return;
    p->best.dict = dict;
    snprintf(p->best.where, sizeof(p->best.where), "%s", path);
    p->rank = rank;
    p->bytes = bytes;
}

static void walk(struct pick *p, const struct gf_pv *dict, const char *path,
                 const char *key, unsigned depth)
{
    size_t tensors = 0, strings = 0, n = gf_pv_pairs(dict);
    char below[GF_STATE_PATH];

    for (size_t i = 0; i < n && p->left; i++, p->left--) {
        strings += gf_pv_str(gf_pv_key(dict, i)) != NULL;
        tensors += is_tensor(gf_pv_value(dict, i));
    }
    if (strings == n && tensors > n / 2)
        consider(p, dict, path, key);
    for (size_t i = 0; i < n && p->left; i++, p->left--) {
        const struct gf_pv *value = gf_pv_value(dict, i);
        const char *name = gf_pv_str(gf_pv_key(dict, i));

        if (!name || is_skipped(name))
            continue;
        if (!p->module && is_module(value))
            p->module = value;
        if (depth == 0 || !gf_pv_is_dict(value))
            continue;
        if ((size_t)snprintf(below, sizeof(below), "%s%s%s", path, *path ? "." : "", name) <
            sizeof(below))
            walk(p, value, below, name, depth - 1);
    }
}

static int nothing(const struct pick *p, struct gf_err *err)
{
    const struct gf_pv *root = gf_pickle_root(p->pickle);
    const struct gf_pv *class = gf_pv_func(p->module);
    struct gf_text keys = { 0 };
    int r;

    if (p->module)
        return gf_fail(err, ENOTSUP,
                       "'%s': a whole pickled nn.Module ('%.80s.%.80s'), not a state dict",
                       p->file, class ? gf_pv_global_module(class) : "?",
                       class ? gf_pv_global_name(class) : "?");
    if (!gf_pv_is_dict(root))
        return gf_fail(err, ENOTSUP, "'%s': no state dict in it: its value is no dict",
                       p->file);
    for (size_t i = 0; i < gf_pv_pairs(root) && i < 8; i++) {
        const char *key = gf_pv_str(gf_pv_key(root, i));

        gf_text_printf(&keys, "%s'%.40s'", i ? ", " : "", key ? key : "?");
    }
    r = gf_fail(err, ENOTSUP,
                "'%s': no state dict in it: no mapping of names to tensors beside those of "
                "optimizers; its keys: %s",
                p->file, keys.s ? keys.s : "none");
    gf_text_done(&keys);
    return r;
}

int gf_state_pick(struct gf_pickle *pickle, const char *file,
                  const struct gf_limits *limits, struct gf_state_pick *ret,
                  struct gf_err *err)
{
    const struct gf_pv *root = gf_pickle_root(pickle);
    struct pick p = { .pickle = pickle, .file = file };

    p.left = 4 * limits->tensors;
    if (is_module(root))
        p.module = root;
    else if (gf_pv_is_dict(root))
        walk(&p, root, "", "", DEEPEST);
    if (!p.best.dict)
        return nothing(&p, err);
    *ret = p.best;
    return 0;
}
