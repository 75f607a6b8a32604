/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub_int.h - what the hub files share: the tables, and one conversion as it is applied.
 *
 * The tables (hub_text.c, hub_vision.c, hub_mixed.c, hub_models.c) are transformers' own
 * mapping, rule by rule, in its order and with its regular expressions;
 * tools/hub-tables.py writes them. A rule reads from the hub to the module, as when a
 * model is loaded; gf_hub_save() goes the other way.
 */
#ifndef GF_VIEW_HUB_INT_H
#define GF_VIEW_HUB_INT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/regex.h"
#include "base/vec.h"
#include "view/hub.h"

enum gf_hub_op {
    GF_HUB_END,
    GF_HUB_USE,    /* all rules of the family `hub` */
    GF_HUB_RENAME, /* what matches `hub` becomes `module` */
    GF_HUB_ADD,    /* the component `hub` is put behind the prefix `module` */
    GF_HUB_REMOVE, /* ... is taken out */
    GF_HUB_SPLIT,  /* [E, k * n, ...] is E tensors for each of the k patterns of `hub` */
    GF_HUB_CHUNK,  /* [k * n, ...] is a tensor for each of the k patterns of `hub` */
    GF_HUB_SHARDS, /* ... as many as config.json says under the second word of `module` */
    GF_HUB_SAME,   /* saved as it is */
    GF_HUB_OTHER,  /* more than a run of one tensor: joined, transposed, permuted */
};

struct gf_hub_rule {
    enum gf_hub_op op;
    const char *hub, *module; /* one or more patterns, with a space between */
};

struct gf_hub_family {
    const char *name; /* a model_type or a class */
    const struct gf_hub_rule *rules;
};

/* Each ends with a NULL name. */
extern const struct gf_hub_family gf_hub_text[], gf_hub_vision[], gf_hub_mixed[];

/* A class, then the models inside it in the order of its modules. */
struct gf_hub_model {
    const char *outer;  /* the class; NULL in the rows of what is inside it */
    const char *path;   /* its base_model_prefix; inside: the module's path */
    const char *config; /* which part of the outer config it is made from; "" the same */
    const char *class;  /* its class, if model_type there is ... */
    const char *type;   /* this one */
};
extern const struct gf_hub_model gf_hub_models[]; /* ends with { NULL } */

/* The class that a model_type gets inside another model: as a model, and as a backbone. */
struct gf_hub_type {
    const char *type, *model, *backbone;
};
extern const struct gf_hub_type gf_hub_types[]; /* ends with a NULL type */

/* One direction of a rule. */
struct gf_hub_way {
    struct gf_regex *regex;
    const char *literal; /* in every name that matches: saves most searches; may be "" */
    const char **to;     /* what a match becomes: the first; all of them where it is cut */
    size_t n;
};

/* A rule at its place in the model. */
struct gf_hub_conv {
    const struct gf_hub_rule *rule;
    struct gf_hub_way load, save;
    /* Names that it applies to start with one of these, tried in this order; both NULL:
     * any. What it matches is the rest. */
    const char *long_scope, *scope;
    const char *count_key; /* SHARDS: where config.json has the number of parts */
    uint64_t count;
    bool on_use; /* only reverted if loading used it: not known without the files */
    bool used;
};

int gf_hub_conv_init(struct gf_hub_conv *conv, const struct gf_hub_rule *rule,
                     struct gf_arena *arena, struct gf_err *err);
void gf_hub_conv_done(struct gf_hub_conv *conv);

/* *ret: `name` renamed, in the arena, or NULL if the conversion does not apply. */
int gf_hub_conv_apply(const struct gf_hub_conv *conv, const struct gf_hub_way *way,
                      const char *name, struct gf_arena *arena, const char **ret,
                      struct gf_err *err);

struct gf_hub {
    struct gf_arena arena;
    struct GF_VEC(struct gf_hub_conv) convs; /* in the order that loading applies them */
    const char *type;                        /* model_type, for messages */
};

/* As loading renames: all renamings in turn, then at most one other conversion. *ret_conv:
 * that one, or SIZE_MAX. used[] of those that applied is set, if it is not NULL. */
int gf_hub_load_name(const struct gf_hub *hub, const char *name, struct gf_arena *arena,
                     const char **ret, size_t *ret_conv, bool *used, struct gf_err *err);

/* As saving renames: the other way round, from the last conversion to the first. */
int gf_hub_save_name(const struct gf_hub *hub, const char *name, struct gf_arena *arena,
                     const char **ret, size_t *ret_conv, struct gf_err *err);

static inline bool gf_hub_conv_renames(const struct gf_hub_conv *conv)
{
    return conv->rule->op < GF_HUB_SPLIT;
}

#endif
