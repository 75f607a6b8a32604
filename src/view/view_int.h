/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view_int.h - what the files of this folder share while a view is being built.
 */
#ifndef GF_VIEW_VIEW_INT_H
#define GF_VIEW_VIEW_INT_H

#include "base/arena.h"
#include "base/strmap.h"
#include "view/view.h"

/* The components of a module name that unwrapping keeps, one after another. Start with
 * { .p = name }. */
struct gf_components {
    const char *p; /* behind the last component; NULL at the end */
    bool begun;
};
bool gf_components_next(struct gf_components *it, const char **ret, size_t *ret_len);

/* A tensor of the catalog, or a run of one, under the name that the view gives it. */
struct gf_item {
    const char *name;
    uint32_t tensor;
    struct gf_shape shape;
    uint64_t first; /* flattened element of the tensor where the run starts */
    const struct gf_merge *merge;
    uint64_t merge_first; /* which element of the merge's weight `first` is */
    bool dropped;
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

/* Refuses a view that lacks a whole layer which config.json says there is. */
int gf_expect_layers(const struct gf_view_spec *spec, const struct gf_items *items,
                     struct gf_err *err);

int gf_view_note(struct gf_view *view, struct gf_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
