/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge_int.h - what the attach files share: the weight that a slot is about, and the ways in
 * which a slot does not fit it.
 */
#ifndef GF_VIEW_MERGE_INT_H
#define GF_VIEW_MERGE_INT_H

#include "base/math.h"
#include "view/hub.h"
#include "view/peft_int.h"

struct gf_attaching {
    struct gf_peft_state *state;
    struct gf_peft_slots *slots;
    struct gf_hub *hub;  /* the base model's names may be the hub's; NULL: they are not */
    bool conv1d;         /* square weights are stored as [in, out] */
    bool experts_in_out; /* ... and those of experts */
};

/* A weight of the base: one item, or those that the hub's files cut it into. */
struct gf_target {
    struct gf_shape shape;
    enum gf_dtype dtype; /* live */
    struct gf_item **items;
    uint64_t *first; /* where each starts in it */
    size_t n;        /* 0: it is not there */
};

static inline const struct gf_tensor *gf_attach_tensor(const struct gf_attaching *a,
                                                       uint32_t index)
{
    return gf_catalog_at(a->state->spec->catalog, index);
}

static inline bool gf_slot_has(const struct gf_peft_slot *slot, enum gf_peft_part part)
{
    return slot->parts[part] != GF_NONE;
}

static inline struct gf_shape gf_slot_shape(const struct gf_attaching *a,
                                            const struct gf_peft_slot *slot,
                                            enum gf_peft_part part)
{
    return gf_attach_tensor(a, slot->parts[part])->shape;
}

static inline bool gf_is_matrix(struct gf_shape shape, uint64_t rows, uint64_t columns)
{
    return shape.rank == 2 && shape.dims[0] == rows && shape.dims[1] == columns;
}

/* W is [out, in], or [in, out] with *ret_transposed; false: neither. */
bool gf_attach_orient(const struct gf_attaching *a, struct gf_shape w, uint64_t out,
                      uint64_t in, bool *ret_transposed);

/* In the view's arena; rank 0 when out of memory. */
struct gf_shape gf_attach_shape(const struct gf_attaching *a, uint32_t rank, uint64_t d0,
                                uint64_t d1, uint64_t d2);

/* "MODULE.param", NULL when out of memory. */
const char *gf_slot_name(const struct gf_attaching *a, const struct gf_peft_slot *slot,
                         const char *param);

/* The weight `name`. Under the base's own names; else as the hub's files cut a tensor of this
 * `shape`; else, for a tied output head, the embedding. */
int gf_target_find(struct gf_attaching *a, const char *name, struct gf_shape shape,
                   struct gf_target *ret, struct gf_err *err);
/* The same, and it must be there. */
int gf_target_need(struct gf_attaching *a, const struct gf_peft_slot *slot,
                   const char *name, struct gf_shape shape, struct gf_target *ret,
                   struct gf_err *err);

/* The module's bias, of n elements; ret->n 0: it has none. */
int gf_target_bias(struct gf_attaching *a, const struct gf_peft_slot *slot, uint64_t n,
                   struct gf_target *ret, struct gf_err *err);

/* A merge of this kind without operands. */
struct gf_merge gf_merge_of(enum gf_merge_kind kind);

/* Applies it to the target, on top of what was attached before. */
int gf_target_add(struct gf_attaching *a, const struct gf_peft_slot *slot,
                  const struct gf_target *target, struct gf_merge *merge,
                  struct gf_err *err);

/* What does not fit, by name. */
int gf_slot_need(const struct gf_attaching *a, const struct gf_peft_slot *slot,
                 enum gf_peft_part part, const char *what, struct gf_err *err);
int gf_slot_misfit(const struct gf_attaching *a, const struct gf_peft_slot *slot,
                   enum gf_peft_part x, enum gf_peft_part y, const char *name,
                   struct gf_shape shape, struct gf_err *err);
int gf_slot_wrong_rank(const struct gf_attaching *a, uint32_t tensor, uint64_t rank,
                       uint64_t wanted, struct gf_err *err);

/* merge_lora.c; `name` is the module's weight */
int gf_attach_lora(struct gf_attaching *a, struct gf_peft_slot *slot, const char *name,
                   struct gf_err *err);
int gf_attach_embedding(struct gf_attaching *a, const struct gf_peft_slot *slot,
                        const char *name, struct gf_err *err);

/* merge_tuners.c */
int gf_attach_tokens(struct gf_attaching *a, const struct gf_peft_slot *slot,
                     const char *name, struct gf_err *err);
int gf_attach_ia3(struct gf_attaching *a, const struct gf_peft_slot *slot, const char *name,
                  struct gf_err *err);
int gf_attach_loha(struct gf_attaching *a, const struct gf_peft_slot *slot,
                   const char *name, struct gf_err *err);
int gf_attach_lokr(struct gf_attaching *a, const struct gf_peft_slot *slot,
                   const char *name, struct gf_err *err);
int gf_attach_vera(struct gf_attaching *a, const struct gf_peft_slot *slot,
                   const char *name, struct gf_err *err);

#endif
