/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peft_int.h - what the views of a PEFT state share while they are built: which tensors are
 * the base's, which the adapter's, and the items that a merge is attached to.
 */
#ifndef GF_VIEW_PEFT_INT_H
#define GF_VIEW_PEFT_INT_H

#include "base/vec.h"
#include "view/adapter.h"
#include "view/peft.h"
#include "view/view_int.h"

/* A state's names, taken apart, and the adapter that the view is about. */
struct gf_peft_state {
    const struct gf_view_spec *spec;
    struct gf_view *view;
    struct gf_items *items;
    struct gf_arena arena;         /* of the names; goes when the view is built */
    struct gf_adapter_name *names; /* of the catalog's tensors */
    struct gf_peft *peft;          /* NULL: there is no adapter_config.json */
    char adapter[GF_ADAPTER_NAME]; /* "": the state is in an adapter file's form */
    bool below;                    /* its own names are below 'base_model.' */
};

int gf_peft_state_init(const struct gf_view_spec *spec, struct gf_view *view,
                       struct gf_items *items, struct gf_peft_state *ret,
                       struct gf_err *err);
void gf_peft_state_done(struct gf_peft_state *s);

/* Adds a tensor; the name is copied. GF_EBAD: the name is taken. */
int gf_peft_add(struct gf_peft_state *s, const char *name, uint32_t tensor,
                struct gf_err *err);

/* The base model's tensors as items, in the order of whichever of the two has more of them:
 * the state itself, or a base model that was joined to it. `whole`: weights that were
 * quantised will not do. */
int gf_peft_base_items(struct gf_peft_state *s, bool whole, struct gf_err *err);

/* The adapter's tensors of one module. Parts are indices into the catalog, or GF_NONE. */
enum gf_peft_part {
    GF_PART_LORA_A,
    GF_PART_LORA_B,
    GF_PART_LORA_BIAS,
    GF_PART_EMBEDDING_A,
    GF_PART_EMBEDDING_B,
    GF_PART_MAGNITUDE,
    GF_PART_TOKENS,
    GF_PART_IA3,
    GF_PART_HADA_W1_A,
    GF_PART_HADA_W1_B,
    GF_PART_HADA_W2_A,
    GF_PART_HADA_W2_B,
    GF_PART_LOKR_W1,
    GF_PART_LOKR_W1_A,
    GF_PART_LOKR_W1_B,
    GF_PART_LOKR_W2,
    GF_PART_LOKR_W2_A,
    GF_PART_LOKR_W2_B,
    GF_PART_LAMBDA_B,
    GF_PART_LAMBDA_D,
    GF_NPARTS
};

struct gf_peft_slot {
    const char *module;
    unsigned depth;
    uint32_t parts[GF_NPARTS];
    uint32_t any; /* one of them, for messages */
    bool done;    /* attached to its weight */
};

struct gf_peft_slots {
    struct GF_VEC(struct gf_peft_slot) list;
    struct gf_strmap by_key;
    uint32_t vera_a, vera_b; /* the projections that all modules share, or GF_NONE */
};

/* NULL: there is none. */
struct gf_peft_slot *gf_slot_find(struct gf_peft_slots *slots, unsigned depth,
                                  const char *module, struct gf_arena *arena);

/* Attaches all slots' merges to the items. Whatever does not fit is an error that names the
 * adapter's tensor. */
int gf_merge_attach(struct gf_peft_state *s, struct gf_peft_slots *slots,
                    struct gf_err *err);

#endif
