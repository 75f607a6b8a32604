/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view_int.h - what the files of this folder share while a view is being built.
 */
#ifndef GF_VIEW_VIEW_INT_H
#define GF_VIEW_VIEW_INT_H

#include "base/arena.h"
#include "base/strmap.h"
#include "catalog/names.h"
#include "view/view.h"

/* A tensor of the catalog, or a run of one, under the name that the view gives it. */
struct gf_item {
    const char *name;
    uint32_t tensor;
    uint32_t
        like; /* the tensor whose dtypes it is served as: itself, or what it replaces */
    struct gf_shape shape;
    uint64_t first; /* flattened element of the tensor where the run starts */
    const struct gf_merge *merge;
    uint64_t merge_first; /* which element of the merge's weight `first` is */
    uint32_t storage;     /* as gf_output has it */
    bool dropped;
    size_t kept; /* dropped: the item that is served in its place */
};

struct gf_items {
    struct gf_item *at; /* in the catalog's order */
    size_t n, room;
    struct gf_strmap by_name; /* name -> index into at */
};

/* Adds a whole tensor under this name (which outlives the items). -EEXIST, with the text,
 * if the name is taken. */
int gf_items_add(struct gf_items *items, const struct gf_catalog *catalog, const char *name,
                 uint32_t tensor, struct gf_err *err);
void gf_items_done(struct gf_items *items);

/* The item shows this whole tensor instead, under the same name. */
void gf_item_set(struct gf_item *item, const struct gf_catalog *catalog, uint32_t tensor);

/* The tensors of a PEFT state's adapter file, and of the base model (peft_items.c). -ENOENT:
 * there are none, or the adapter is one of several. */
int gf_adapter_collect(const struct gf_view_spec *spec, struct gf_view *view,
                       struct gf_items *items, struct gf_err *err);
int gf_base_collect(const struct gf_view_spec *spec, struct gf_view *view,
                    struct gf_items *items, struct gf_err *err);

/* The items of a PEFT state's whole model, the adapter merged into it (merged.c). -ENOENT:
 * there is no base to merge into, or the adapter is of a kind that cannot be merged. */
int gf_merged_collect(const struct gf_view_spec *spec, struct gf_view *view,
                      struct gf_items *items, struct gf_err *err);

/* Gives the items their names on the hub, cutting tensors as the files have them. */
int gf_items_to_hub(const struct gf_view_spec *spec, struct gf_view *view,
                    struct gf_items *items, struct gf_err *err);

/* Marks the items that are not served because their tie partner is, and sets view->untie
 * when partners differ. Refuses a view that would load with a random output head. */
int gf_tied_resolve(const struct gf_view_spec *spec, struct gf_items *items,
                    struct gf_view *view, struct gf_err *err);

/* The item that an output head of this name is tied to; *ret NULL: none, or config.json says
 * untied. */
int gf_tied_embedding(const struct gf_view_spec *spec, struct gf_items *items,
                      struct gf_view *view, const char *head, struct gf_item **ret,
                      struct gf_err *err);

/* `top` applied to what `under` makes, in the arena; either may be NULL. NULL: no memory. */
const struct gf_merge *gf_merge_stack(struct gf_arena *arena, const struct gf_merge *under,
                                      const struct gf_merge *top);

/* Refuses a view that lacks a whole layer which config.json says there is. */
int gf_expect_layers(const struct gf_view_spec *spec, const struct gf_items *items,
                     struct gf_err *err);

int gf_view_note(struct gf_view *view, struct gf_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
