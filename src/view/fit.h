/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fit.h - do a view's names fit the architecture that config.json names?
 *
 * from_pretrained() leaves a module whose name is not in the files as it was initialised, with
 * no more than a report: 'policy.model.embed_tokens.weight' beside the config of a Llama is a
 * model of random weights. What tells is the input embedding. Each family of models has it in
 * one place (with or without the base model's own name in front, both load), in a shape that
 * config.json says. Of a model type that is not in the table the base model's names and shapes
 * decide, where they are known (the template); else there is no verdict, only a likelihood:
 * does anything have the embedding's shape?
 *
 * Pure. Nothing is said of embeddings that were left out on purpose: that a view lacks tensors
 * is another question (expect.c, format/template.h).
 */
#ifndef GF_VIEW_FIT_H
#define GF_VIEW_FIT_H

#include "view/view.h"

enum gf_fit {
    GF_FIT_NO,      /* the base model would not be found, or not in its shape */
    GF_FIT_UNKNOWN, /* nothing is known of this architecture */
    GF_FIT_PART,    /* the base model, under another head than config.json's class has */
    GF_FIT_LIKELY,  /* not known either, but something has the input embedding's shape */
    GF_FIT_YES,
};

#define GF_FIT_WHY 400

/* `why`: for GF_FIT_NO what was looked for and found, one line; else "". */
enum gf_fit gf_fit_view(const struct gf_view *view, const struct gf_json *config,
                        const struct gf_catalog *template, char why[static GF_FIT_WHY]);

/* Is it a model that writes text by code of transformers' own? Such a class has no head of a
 * trainer's in it. Where config.json names no class, a known model type is taken for one. */
bool gf_fit_generates(const struct gf_json *config);

/* Is it of a head that scores: a classifier's, a critic's, a reward model's? */
bool gf_fit_is_score(const char *name);

#endif
