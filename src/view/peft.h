/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peft.h - adapter_config.json: how an adapter's tensors change the base model.
 *
 * Only what decides numbers or file contents is read; everything else is ignored. Patterns
 * are Python regular expressions, the first that matches wins.
 *
 * Source: peft 0.21 LoraConfig and its kin; LoraModel._create_and_replace; get_pattern_key.
 */
#ifndef GF_VIEW_PEFT_H
#define GF_VIEW_PEFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/json.h"
#include "base/regex.h"
#include "base/vec.h"

enum gf_peft_type {
    GF_PEFT_LORA,
    GF_PEFT_IA3,
    GF_PEFT_LOHA,
    GF_PEFT_LOKR,
    GF_PEFT_VERA,
    GF_PEFT_TRAINABLE_TOKENS,
    GF_PEFT_OTHER, /* cannot be merged here; its files can be served */
};

enum gf_peft_bias { GF_PEFT_BIAS_NONE, GF_PEFT_BIAS_ALL, GF_PEFT_BIAS_ONLY };

struct gf_peft_pattern {
    const char *text; /* of the config */
    struct gf_regex *regex;
    double value;
    bool used; /* it matched a module: gf_peft_unused() */
};

struct gf_peft_patterns {
    const char *field; /* the config's */
    struct GF_VEC(struct gf_peft_pattern) list;
};

struct gf_peft {
    const struct gf_json *config; /* borrowed */
    enum gf_peft_type type;
    char why_not[200]; /* why it cannot be merged; "" = it can */
    uint64_t r;
    double alpha;
    struct gf_peft_patterns ranks, alphas;
    uint64_t spent;       /* nanoseconds of matching, by all patterns */
    const char *too_slow; /* gf_peft_too_slow() */
    const char *too_slow_field;
    enum gf_peft_bias bias;
    bool rslora, dora, fan_in_fan_out;
    bool tokens;              /* trains single tokens of an embedding */
    struct gf_regex *targets; /* target_modules, where it is a pattern */
    bool lists_embedding;     /* ... and where it is a list: an embedding's name is in it */
    struct GF_VEC(const char *) parameters; /* target_parameters; the config's strings */
    bool
        changes_base; /* training began by taking the adapter off the base: the adapter fits
                        * only the base of the same checkpoint (PiSSA and its kin) */
};

/* GF_EBAD: a value that cannot be right. The config outlives it. */
int gf_peft_new(const struct gf_json *config, struct gf_peft **ret, struct gf_err *err);
void gf_peft_free(struct gf_peft *peft);
GF_DEFINE_AUTO(gf_peft);

/* r and the scale of a module (alpha / r, in double) by its path in the base model. r is 0
 * where the config's is none, and from the first pattern that is too slow on. */
struct gf_peft_rank {
    uint64_t r;
    double scale;
};
struct gf_peft_rank gf_peft_rank_of(struct gf_peft *peft, const char *module);

/* A pattern that took too long to match, and the field it stands in; NULL: none. */
const char *gf_peft_too_slow(const struct gf_peft *peft, const char **ret_field);

/* A pattern that matched no module so far, and the field it stands in; NULL: none. */
const char *gf_peft_unused(const struct gf_peft *peft, const char **ret_field);

/* The next parameter of the module ('model.layers.0.mlp.experts') that target_parameters names
 * ('mlp.experts.gate_up_proj'), or NULL. Start with *at 0. */
const char *gf_peft_parameter(const struct gf_peft *peft, const char *module, size_t *at);

/* Does it name any? Their ranks are not those of modules. */
bool gf_peft_has_parameters(const struct gf_peft *peft);

/* The trainable token indices of a module: an array of numbers, or NULL. */
const struct gf_json *gf_peft_tokens_of(const struct gf_peft *peft, const char *module);

/* Has this module trained tokens of its own? A tied output head has the embedding's, under its
 * name, too; `tied`: config.json says so. */
bool gf_peft_owns_tokens(const struct gf_peft *peft, const char *module, bool tied);

/* Is an embedding among the target modules, so that save_pretrained saves the embeddings' own
 * weights, too? Where target_modules is a pattern: is `module` one that it matches? */
bool gf_peft_targets_embedding(const struct gf_peft *peft, const char *module);

#endif
