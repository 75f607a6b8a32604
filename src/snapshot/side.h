/* SPDX-License-Identifier: Apache-2.0 */
/*
 * side.h - the files beside the weights: config, generation config, tokenizer, custom code.
 *
 * Each is searched in the order of DESIGN 1.3: the option, the checkpoint, its huggingface/,
 * hf_config/ and hf_model/, then its parents up to SOURCE (for SOURCE = a tag that layout's
 * root, too). The files of a tokenizer, chat templates among them, come from one directory: the
 * first that has a vocabulary. Files are carried through as they are, byte for byte; only
 * config.json is read into memory, because it is corrected to what is served.
 */
#ifndef GF_SNAPSHOT_SIDE_H
#define GF_SNAPSHOT_SIDE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/json.h"
#include "base/vec.h"
#include "format/format.h"
#include "snapshot/options.h"
#include "source/dir.h"
#include "source/source.h"

/* Further chat templates: the one directory beside the weights. */
#define GF_CHAT_TEMPLATES "additional_chat_templates"

struct gf_side_file {
    char *name;      /* as served: one component, or that of a file in GF_CHAT_TEMPLATES */
    uint32_t source; /* index into sources */
    bool base;       /* of the base model: not an adapter's */
};

/* The adapter_config.json of one adapter of several: NAME/adapter_config.json. */
struct gf_side_adapter {
    char *name, *text;
    size_t len;
    uint32_t source;
    struct gf_json *config;
};

struct gf_side {
    struct GF_VEC(
        struct gf_side_file) files; /* sorted by name; config.json is among them */
    struct GF_VEC(struct gf_source *) sources;
    bool tokenizer;    /* one was found: no more of its files are taken */
    char *config_text; /* NULL: there is no config.json */
    size_t config_len;
    struct gf_json *config; /* parsed; NULL as above */
    char *adapter_text;     /* the same of adapter_config.json */
    size_t adapter_len;
    struct gf_json *adapter_config;
    struct GF_VEC(struct gf_side_adapter) adapters; /* that have one of their own */
};

/* `dir` is SOURCE's directory, `base` where in it the checkpoint's layout stands, found->base
 * the checkpoint below that. */
int gf_side_find(struct gf_dir *dir, const char *base, const struct gf_found *found,
                 const struct gf_options *opt, struct gf_side *ret, struct gf_err *err);

/* What is still lacking, from the base model's directory. */
int gf_side_supply(struct gf_side *side, struct gf_dir *dir, const struct gf_options *opt,
                   struct gf_err *err);

/* The adapter's own adapter_config.json, if its directory beside the checkpoint's files has
 * one. `dir`, `base` and `found` as above. */
int gf_side_adapter(struct gf_side *side, struct gf_dir *dir, const char *base,
                    const struct gf_found *found, const char *name,
                    const struct gf_options *opt, struct gf_err *err);
const struct gf_side_adapter *gf_side_adapter_find(const struct gf_side *side,
                                                   const char *name);

void gf_side_done(struct gf_side *side);

/* Is this a name that belongs beside the weights (hf-directory 3.4)? */
bool gf_side_is_wanted(const char *name);

#endif
