/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub_parts.c - one name through all conversions, and the runs that a tensor is cut into.
 */
#include "view/hub_int.h"

#include <inttypes.h>
#include <string.h>

#include "base/math.h"

#define MAX_PARTS 100000 /* experts of one tensor, times two or three */

int gf_hub_load_name(const struct gf_hub *hub, const char *name, struct gf_arena *arena,
                     const char **ret, size_t *ret_conv, bool *used, struct gf_err *err)
{
    *ret_conv = SIZE_MAX;
    *ret = name;
    for (int renames = 1; renames >= 0; renames--)
        for (size_t i = 0; i < hub->convs.n; i++) {
            const struct gf_hub_conv *conv = &hub->convs.at[i];
            const char *next = NULL;
            int r = 0;

            if (gf_hub_conv_renames(conv) == (renames == 1))
                r = gf_hub_conv_apply(conv, &conv->load, *ret, arena, &next, err);
            if (r)
                return r;
            if (!next)
                continue;
            *ret = next;
            if (used)
                used[i] = true;
            if (!renames) {
                *ret_conv = i;
                return 0;
            }
        }
    return 0;
}

int gf_hub_save_name(const struct gf_hub *hub, const char *name, struct gf_arena *arena,
                     const char **ret, size_t *ret_conv, struct gf_err *err)
{
    *ret_conv = SIZE_MAX;
    *ret = name;
    for (int renames = 0; renames <= 1; renames++)
        for (size_t i = hub->convs.n; i-- > 0;) {
            const struct gf_hub_conv *conv = &hub->convs.at[i];
            const char *next = NULL;
            int r = 0;

            if (gf_hub_conv_renames(conv) == (renames == 1))
                r = gf_hub_conv_apply(conv, &conv->save, *ret, arena, &next, err);
            if (r)
                return r;
            if (!next)
                continue;
            *ret = next;
            if (!renames) {
                *ret_conv = i;
                break;
            }
        }
    return 0;
}

int gf_hub_module_name(const struct gf_hub *hub, const char *name, struct gf_arena *arena,
                       const char **ret, struct gf_err *err)
{
    size_t conv;

    return gf_hub_load_name(hub, name, arena, ret, &conv, NULL, err);
}

/* Does a conversion apply to the name, and its reverse lead back to it? */
static int there_and_back(const struct gf_hub *hub, const char *name, bool saving,
                          struct gf_arena *arena, const char **ret_there, bool *ret_cut,
                          struct gf_err *err)
{
    const char *there, *back;
    size_t conv, back_conv;
    int r = saving ? gf_hub_save_name(hub, name, arena, &there, &conv, err)
                   : gf_hub_load_name(hub, name, arena, &there, &conv, NULL, err);

    *ret_there = NULL;
    if (r || strcmp(there, name) == 0)
        return r;
    r = saving ? gf_hub_load_name(hub, there, arena, &back, &back_conv, NULL, err)
               : gf_hub_save_name(hub, there, arena, &back, &back_conv, err);
    if (r || back_conv != conv)
        return r;
    *ret_cut = conv != SIZE_MAX;
    /* Which of the tensors it is cut into is not said by a module's name. */
    if (strcmp(back, name) == 0 || (*ret_cut && !saving))
        *ret_there = there;
    return 0;
}

int gf_hub_kind(const struct gf_hub *hub, const char *name, struct gf_arena *arena,
                enum gf_name_kind *ret, struct gf_err *err)
{
    const char *saved, *loaded;
    bool cut = false, ignored;
    int r = there_and_back(hub, name, false, arena, &loaded, &cut, err);

    if (!r)
        r = there_and_back(hub, name, true, arena, &saved, &ignored, err);
    if (r)
        return r;
    /* 'a.x' <-> 'a.b.x': 'a.b.x' could be the one or the other. That it has 'b' twice on the
     * other side is less likely than that it has none. */
    if (saved && loaded)
        *ret = strlen(loaded) < strlen(name) ? GF_NAME_HUB : GF_NAME_MODULE;
    else if (loaded)
        *ret = cut ? GF_NAME_HUB : GF_NAME_MAYBE_HUB;
    else
        *ret = saved ? GF_NAME_MODULE : GF_NAME_SAME;
    return 0;
}

/* ---- parts ---- */

/* How a tensor is cut: [outer, pieces * rows, inner] into outer * pieces runs. Where it is not
 * experts that are cut (outer 1) the last run may be shorter, as torch.chunk has it. */
struct cut {
    uint64_t outer, pieces, total, rows, inner;
};

/* The shape of a run: `rows` along the dimension that is cut, and no experts. */
static int run_shape(struct gf_shape shape, bool split, uint64_t rows,
                     struct gf_arena *arena, struct gf_shape *ret, struct gf_err *err)
{
    uint64_t *dims = gf_arena_alloc(arena, (shape.rank + 1) * sizeof(*dims));

    if (!dims)
        return gf_nomem(err);
    *ret = (struct gf_shape){ .dims = dims };
    for (uint32_t i = split ? 1 : 0; i < shape.rank; i++) {
        uint64_t n = i == (split ? 1 : 0) ? rows : shape.dims[i];

        /* SplitModulelist squeezes all of it, not just the experts' dimension. */
        if (!split || n != 1)
            dims[ret->rank++] = n;
    }
    return 0;
}

/* The hub name: the pattern with its number, in the place where the first one stands in the
 * renamed name. NULL: a renaming has changed that place. */
static const char *part_name(const char *renamed, const char *first, const char *pattern,
                             uint64_t number, struct gf_arena *arena)
{
    const char *at = strstr(renamed, first), *star = strchr(pattern, '*');
    int before;

    if (!at)
        return NULL;
    before = (int)(at - renamed);
    at += strlen(first);
    if (!star)
        return gf_arena_printf(arena, "%.*s%s%s", before, renamed, pattern, at);
    return gf_arena_printf(arena, "%.*s%.*s%" PRIu64 "%s%s", before, renamed,
                           (int)(star - pattern), pattern, number, star + 1, at);
}

static int plan_cut(const struct gf_hub *hub, const struct gf_hub_conv *conv,
                    const char *name, struct gf_shape shape, struct cut *ret,
                    struct gf_err *err)
{
    bool split = conv->rule->op == GF_HUB_SPLIT;
    uint64_t pieces = conv->rule->op == GF_HUB_SHARDS ? conv->count : conv->save.n;
    uint32_t along = split ? 1 : 0;
    uint64_t outer, numel, total;
    const char *wrong = NULL;
    char text[GF_SHAPE_TEXT];

    outer = split && shape.rank ? shape.dims[0] : 1;
    total = shape.rank > along ? shape.dims[along] : 1;
    if (shape.rank < (split && pieces > 1 ? 2 : 1))
        wrong = "too few dimensions";
    else if (gf_shape_numel(shape, &numel))
        wrong = "too many elements";
    else if (outer == 0 || outer > MAX_PARTS || pieces > MAX_PARTS / outer)
        wrong = split ? "no such number of experts" : "no such number of parts";
    else if (pieces == 0 || total == 0 || (split && total % pieces))
        wrong = "no such number of rows";
    if (wrong)
        return gf_fail(err, GF_EBAD,
                       "tensor '%s' is %s: %s for the %" PRIu64
                       " tensors '%s' that a '%s' has on the hub",
                       name, gf_shape_text(shape, text), wrong, pieces, conv->rule->hub,
                       hub->type);
    *ret = (struct cut){
        .outer = outer, .total = total, .rows = gf_ceil_div(total, pieces), .inner = 1
    };
    ret->pieces = gf_ceil_div(total, ret->rows);
    for (uint32_t i = along + 1; i < shape.rank; i++)
        ret->inner *= shape.dims[i];
    return 0;
}

static int cut_parts(const struct gf_hub_conv *conv, const char *name, const char *renamed,
                     struct gf_shape shape, const struct cut *cut, struct gf_arena *arena,
                     struct gf_hub_part **ret, size_t *ret_n, struct gf_err *err)
{
    bool split = conv->rule->op == GF_HUB_SPLIT;
    uint64_t n = cut->outer * cut->pieces;
    struct gf_hub_part *parts = gf_arena_alloc(arena, n * sizeof(*parts));
    struct gf_shape run = { 0 };
    int r = parts ? 0 : gf_nomem(err);

    /* All experts' first runs, then all second ones: the order of the state dict. */
    for (uint64_t i = 0; i < n && !r; i++) {
        uint64_t outer = i % cut->outer, piece = i / cut->outer, row = piece * cut->rows;
        const char *pattern = conv->save.to[conv->save.n == 1 ? 0 : piece];

        if (outer == 0)
            r = run_shape(shape, split, GF_MIN(cut->rows, cut->total - row), arena, &run,
                          err);
        parts[i] = (struct gf_hub_part){
            .name =
                part_name(renamed, conv->save.to[0], pattern, split ? outer : piece, arena),
            .first = (outer * cut->total + row) * cut->inner,
            .shape = run,
            /* A chunk of several experts is copied, one of a single expert is a view. */
            .storage = split && cut->outer > 1 ? (uint32_t)piece : 0,
        };
        if (!r && !parts[i].name)
            r = gf_fail(err, ENOTSUP, "tensor '%s' is '%s' on the hub, which has no '%s'",
                        name, renamed, conv->save.to[0]);
    }
    if (r)
        return r;
    *ret = parts;
    *ret_n = n;
    return 0;
}

int gf_hub_save(const struct gf_hub *hub, const char *name, struct gf_shape shape,
                struct gf_arena *arena, struct gf_hub_part **ret, size_t *ret_n,
                struct gf_err *err)
{
    const struct gf_hub_conv *conv;
    const char *renamed = name;
    struct gf_hub_part *part;
    size_t which = SIZE_MAX;
    struct cut cut = { 0 };
    int r = hub ? gf_hub_save_name(hub, name, arena, &renamed, &which, err) : 0;

    if (r)
        return r;
    conv = which == SIZE_MAX ? NULL : &hub->convs.at[which];
    if (conv && conv->rule->op == GF_HUB_OTHER)
        return gf_fail(err, ENOTSUP,
                       "tensor '%s' of a '%s' is stored otherwise on the hub (as '%s')",
                       name, hub->type, conv->rule->hub);
    if (conv && conv->rule->op != GF_HUB_SAME) {
        r = plan_cut(hub, conv, name, shape, &cut, err);
        return r ? r : cut_parts(conv, name, renamed, shape, &cut, arena, ret, ret_n, err);
    }
    part = gf_arena_alloc(arena, sizeof(*part));
    if (!part)
        return gf_nomem(err);
    *part = (struct gf_hub_part){ .name = renamed, .shape = shape };
    *ret = part;
    *ret_n = 1;
    return 0;
}

int gf_hub_parts(const struct gf_hub *hub, const char *name, struct gf_shape shape,
                 struct gf_arena *arena, struct gf_hub_part **ret, size_t *ret_n,
                 struct gf_err *err)
{
    enum gf_name_kind kind = GF_NAME_SAME;
    int r = hub ? gf_hub_kind(hub, name, arena, &kind, err) : 0;

    if (r)
        return r;
    if (kind == GF_NAME_HUB || kind == GF_NAME_MAYBE_HUB)
        hub = NULL;
    return gf_hub_save(hub, name, shape, arena, ret, ret_n, err);
}
