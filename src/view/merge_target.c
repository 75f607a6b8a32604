/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge_target.c - the weight that an adapter's tensors are about: one item of the base, or
 * several that are runs of it.
 */
#include <inttypes.h>
#include <string.h>

#include "view/merge_int.h"

struct gf_shape gf_attach_shape(const struct gf_attaching *a, uint32_t rank, uint64_t d0,
                                uint64_t d1, uint64_t d2)
{
    uint64_t *dims = gf_arena_alloc(a->state->view->arena, 3 * sizeof(*dims));
    struct gf_shape shape = { dims ? rank : 0, dims };

    if (dims) {
        dims[0] = d0;
        dims[1] = d1;
        dims[2] = d2;
    }
    return shape;
}

static enum gf_dtype dtype_of(const struct gf_attaching *a, const struct gf_item *item)
{
    return gf_attach_tensor(a, item->like)->live;
}

static int one_item(struct gf_attaching *a, struct gf_item *item, struct gf_target *ret,
                    struct gf_err *err)
{
    struct gf_arena *arena = &a->state->arena;

    *ret = (struct gf_target){ .shape = item->shape, .dtype = dtype_of(a, item), .n = 1 };
    ret->items = gf_arena_alloc(arena, sizeof(struct gf_item *));
    ret->first = gf_arena_alloc(arena, sizeof(uint64_t));
    if (!ret->items || !ret->first)
        return gf_nomem(err);
    ret->items[0] = item;
    return 0;
}

/* The base's files may have the module's tensor cut up and renamed: the items of all parts. */
static int hub_items(struct gf_attaching *a, const char *name, struct gf_shape shape,
                     struct gf_target *ret, struct gf_err *err)
{
    struct gf_arena *arena = &a->state->arena;
    struct gf_items *items = a->state->items;
    struct gf_hub_part *parts;
    size_t n;
    int r = gf_hub_save(a->hub, name, shape, arena, &parts, &n, err);

    if (r)
        return r == -ENOTSUP ? 0 : r;
    *ret = (struct gf_target){ .shape = shape, .n = n };
    ret->items = gf_arena_alloc(arena, (n + 1) * sizeof(struct gf_item *));
    ret->first = gf_arena_alloc(arena, (n + 1) * sizeof(uint64_t));
    if (!ret->items || !ret->first)
        return gf_nomem(err);
    for (size_t i = 0; i < n; i++) {
        uint64_t k;

        if (!gf_strmap_get(&items->by_name, parts[i].name, &k) ||
            !gf_shape_equal(items->at[k].shape, parts[i].shape)) {
            ret->n = 0;
            return 0;
        }
        ret->items[i] = &items->at[k];
        ret->first[i] = parts[i].first;
    }
    ret->dtype = n ? dtype_of(a, ret->items[0]) : GF_F32;
    return 0;
}

int gf_target_find(struct gf_attaching *a, const char *name, struct gf_shape shape,
                   struct gf_target *ret, struct gf_err *err)
{
    struct gf_items *items = a->state->items;
    struct gf_item *embedding = NULL;
    uint64_t i;
    int r;

    *ret = (struct gf_target){ 0 };
    if (gf_strmap_get(&items->by_name, name, &i))
        return one_item(a, &items->at[i], ret, err);
    if (a->hub && (r = hub_items(a, name, shape, ret, err)))
        return r;
    if (ret->n)
        return 0;
    r = gf_tied_embedding(a->state->spec, items, a->state->view, name, &embedding, err);
    return r || !embedding ? r : one_item(a, embedding, ret, err);
}

int gf_target_need(struct gf_attaching *a, const struct gf_peft_slot *slot,
                   const char *name, struct gf_shape shape, struct gf_target *ret,
                   struct gf_err *err)
{
    int r = gf_target_find(a, name, shape, ret, err);

    if (r || ret->n)
        return r;
    return gf_fail(err, GF_EBAD, "tensor '%s': there is no '%s' in the base model",
                   gf_attach_tensor(a, slot->any)->name, name);
}

int gf_slot_misfit(const struct gf_attaching *a, const struct gf_peft_slot *slot,
                   enum gf_peft_part x, enum gf_peft_part y, const char *name,
                   struct gf_shape shape, struct gf_err *err)
{
    char sx[GF_SHAPE_TEXT], sy[GF_SHAPE_TEXT], sw[GF_SHAPE_TEXT];

    return gf_fail(
        err, GF_EBAD,
        "tensor '%s' has shape %s, its partner %s: shapes that don't multiply to "
        "'%s' %s",
        gf_attach_tensor(a, slot->parts[x])->name,
        gf_shape_text(gf_slot_shape(a, slot, x), sx),
        gf_shape_text(gf_slot_shape(a, slot, y), sy), name, gf_shape_text(shape, sw));
}

int gf_slot_need(const struct gf_attaching *a, const struct gf_peft_slot *slot,
                 enum gf_peft_part part, const char *what, struct gf_err *err)
{
    return gf_slot_has(slot, part)
               ? 0
               : gf_fail(err, GF_EBAD, "tensor '%s' is there without its %s",
                         gf_attach_tensor(a, slot->any)->name, what);
}

const struct gf_merge *gf_merge_stack(struct gf_arena *arena, const struct gf_merge *under,
                                      const struct gf_merge *top)
{
    struct gf_merge *copy;

    if (!under || !top)
        return top ? top : under;
    copy = gf_arena_alloc(arena, sizeof(*copy));
    if (!copy)
        return NULL;
    *copy = *top;
    copy->under = gf_merge_stack(arena, under, top->under);
    return copy->under ? copy : NULL;
}

/* Operands are taken as float32: they must convert to it. Of one that is also stored as it
 * was in the live model, that copy. */
static int check_operand(const struct gf_attaching *a, uint32_t *operand,
                         struct gf_err *err)
{
    struct gf_expr ignored;

    if (*operand == GF_NONE)
        return 0;
    if (gf_attach_tensor(a, *operand)->copy != GF_NONE)
        *operand = gf_attach_tensor(a, *operand)->copy;
    return gf_expr_gather(a->state->spec->catalog, 0, *operand, GF_F32, &ignored, err);
}

static int check_merge(const struct gf_attaching *a, const struct gf_peft_slot *slot,
                       const struct gf_target *target, struct gf_merge *merge,
                       struct gf_err *err)
{
    const struct gf_tensor *w = gf_attach_tensor(a, target->items[0]->tensor);
    uint32_t *operands[] = { &merge->a, &merge->b, &merge->c, &merge->d,
                             &merge->magnitude };
    int r = 0;

    if (target->dtype != GF_F32 && target->dtype != GF_BF16 && target->dtype != GF_F16)
        return gf_fail(err, ENOENT, "tensor '%s' cannot be merged into '%s': it is %s",
                       gf_attach_tensor(a, slot->any)->name, w->name,
                       gf_dtype_info(target->dtype)->safetensors);
    if (merge->magnitude != GF_NONE && target->n > 1)
        return gf_fail(
            err, ENOENT,
            "tensor '%s' cannot be merged: it scales whole rows of a weight that "
            "is stored in parts, first '%s'",
            gf_attach_tensor(a, merge->magnitude)->name, w->name);
    for (size_t i = 0; i < GF_COUNT(operands) && !r; i++)
        r = check_operand(a, operands[i], err);
    return r;
}

/* Merges on top of one another are of the same whole W: a weight may be reached under its own
 * name, and as a part of what the hub's files cut up. */
static int check_stack(const struct gf_attaching *a, const struct gf_peft_slot *slot,
                       const struct gf_item *item, uint64_t first,
                       const struct gf_merge *merge, enum gf_dtype dtype,
                       struct gf_err *err)
{
    uint64_t under, over;

    if (!item->merge || (item->merge_first == first && item->merge->dtype == dtype &&
                         !gf_shape_numel(item->merge->shape, &under) &&
                         !gf_shape_numel(merge->shape, &over) && under == over))
        return 0;
    return gf_fail(err, GF_EBAD,
                   "tensors '%s' and '%s' are both merged into '%s', one as a part of a "
                   "larger weight",
                   gf_attach_tensor(a, item->merge->a)->name,
                   gf_attach_tensor(a, slot->any)->name,
                   gf_attach_tensor(a, item->tensor)->name);
}

int gf_target_add(struct gf_attaching *a, const struct gf_peft_slot *slot,
                  const struct gf_target *target, struct gf_merge *merge,
                  struct gf_err *err)
{
    int r = check_merge(a, slot, target, merge, err);

    for (size_t i = 0; i < target->n && !r; i++) {
        struct gf_item *item = target->items[i];
        struct gf_merge *copy = gf_arena_alloc(a->state->view->arena, sizeof(*copy));

        if (!copy)
            return gf_nomem(err);
        r = check_stack(a, slot, item, target->first[i], merge, target->dtype, err);
        if (r)
            return r;
        *copy = *merge;
        copy->dtype = target->dtype;
        copy->under = item->merge;
        item->merge = copy;
        item->merge_first = target->first[i];
    }
    return r;
}

struct gf_merge gf_merge_of(enum gf_merge_kind kind)
{
    return (struct gf_merge){ .kind = kind,
                              .a = GF_NONE,
                              .b = GF_NONE,
                              .c = GF_NONE,
                              .d = GF_NONE,
                              .magnitude = GF_NONE,
                              .scale = 1 };
}

bool gf_attach_orient(const struct gf_attaching *a, struct gf_shape w, uint64_t out,
                      uint64_t in, bool *ret_transposed)
{
    bool straight = gf_is_matrix(w, out, in), turned = gf_is_matrix(w, in, out);

    *ret_transposed = turned && (!straight || a->conv1d);
    return straight || turned;
}

const char *gf_slot_name(const struct gf_attaching *a, const struct gf_peft_slot *slot,
                         const char *param)
{
    return gf_arena_printf(&a->state->arena, "%s%s%s", slot->module,
                           *slot->module ? "." : "", param);
}

int gf_slot_wrong_rank(const struct gf_attaching *a, uint32_t tensor, uint64_t rank,
                       uint64_t wanted, struct gf_err *err)
{
    return gf_fail(err, GF_EBAD,
                   "tensor '%s' has rank %" PRIu64 ", adapter_config.json says %" PRIu64,
                   gf_attach_tensor(a, tensor)->name, rank, wanted);
}

int gf_target_bias(struct gf_attaching *a, const struct gf_peft_slot *slot, uint64_t n,
                   struct gf_target *ret, struct gf_err *err)
{
    const char *name = gf_slot_name(a, slot, "bias");

    return name ? gf_target_find(a, name, gf_attach_shape(a, 1, n, 0, 0), ret, err)
                : gf_nomem(err);
}
