/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view.h - what the user sees of a checkpoint: named output tensors, each an expression.
 *
 * A view only names things; it reads no bytes. Order of the outputs is the state dict's
 * (sharding follows it). Frozen after gf_view_build(); the catalog outlives it.
 */
#ifndef GF_VIEW_VIEW_H
#define GF_VIEW_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/json.h"
#include "base/vec.h"
#include "catalog/catalog.h"
#include "view/expr.h"

/* dtype=: what floating-point tensors of 16 bits and more are served as. */
enum gf_dtype_policy {
    GF_DTYPE_AUTO,   /* as in the live model */
    GF_DTYPE_STORED, /* as the shards hold it */
    GF_DTYPE_FIXED,  /* view_spec.dtype, cast from the most precise stored copy */
};

struct gf_output {
    const char *name;
    enum gf_dtype dtype;
    struct gf_shape shape; /* as the catalog's: F4 counts half bytes */
    uint64_t nbytes;
    bool buffer; /* of the module: no parameter, so transformers does not count it */
    /* Outputs with the same number are views of one storage when save_pretrained writes them,
     * which keeps such tensors in one file (hub_items.c); 0: its own. At most as many as there
     * are outputs. */
    uint32_t storage;
    struct gf_expr expr;
};

/* names=: what tensors are called where a module's names are not the hub's (hub.h). */
enum gf_names { GF_NAMES_HUB, GF_NAMES_MODULE };

struct gf_view_spec {
    const char *name; /* "full", "raw", or a component: "policy", "actor.model" */
    bool component;   /* a component in any case: one that is called "full" (prefix=) */
    const struct gf_catalog *catalog;
    const struct gf_json *config;         /* config.json of what this view shows, or NULL */
    const struct gf_json *adapter_config; /* adapter_config.json, or NULL */
    const struct gf_catalog *template;    /* names and shapes of the base model, or NULL */
    const char *base_why; /* why there is no base model for an adapter, or NULL */
    uint64_t base_vocab;  /* rows of the base model's embedding, by its config; 0 unknown */
    enum gf_names names;
    enum gf_dtype_policy policy;
    enum gf_dtype dtype;
    bool partial; /* allow_incomplete: what config.json shows to be missing may be */
    /* Do these two tensors hold the same bytes? Asked for tied weights that do not share
     * storage; the snapshot compares samples (a view reads nothing). NULL only if config
     * is. */
    int (*same)(void *ctx, uint32_t a, uint32_t b, bool *ret, struct gf_err *err);
    void *ctx;
};

/* A tensor that is not served because another one is, which it is tied to. */
struct gf_tie {
    uint32_t dropped, kept; /* of the catalog */
};

struct gf_view {
    const char *name;
    struct gf_output *outputs;
    size_t n;
    uint64_t nbytes;      /* of all outputs */
    uint64_t nparameters; /* elements of all outputs but buffers, in torch's terms: what
                           * the index calls total_parameters */
    bool untie;           /* config.json must say tie_word_embeddings: false */
    bool scores;          /* a scoring head stands where config.json's class has another */
    struct GF_VEC(struct gf_tie) ties;
    struct GF_VEC(char *) notes; /* what was dropped or changed, for inspect; owned */
    struct gf_arena *arena;      /* owns names and outputs; shapes are the catalog's */
};

/* -ENOENT: no such view on this catalog (the text says why), other errors: it exists but
 * cannot be built (GF_EBAD, GF_EINCOMPLETE). */
int gf_view_build(const struct gf_view_spec *spec, struct gf_view **ret,
                  struct gf_err *err);
void gf_view_free(struct gf_view *view);
GF_DEFINE_AUTO(gf_view);

/* The dtype that config.json should name: that of the first floating-point output, as
 * transformers' get_parameter_dtype picks it; false if there is none. */
bool gf_view_dtype(const struct gf_view *view, enum gf_dtype *ret);

#endif
