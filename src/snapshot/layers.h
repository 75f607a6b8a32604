/* SPDX-License-Identifier: Apache-2.0 */
/*
 * layers.h - one checkpoint, though several layouts may stand side by side in it.
 *
 * A Trainer writes model.safetensors beside global_step5/; an FSDP run leaves a .bin beside
 * the shards. Training shards are served first, then ready safetensors, then .bin (DESIGN
 * 1.2); weaker layers, and a base model given by base=, supply the tensors that the first
 * lacks. They do so only if they are of the same model: common names, and each common name
 * of one shape.
 */
#ifndef GF_SNAPSHOT_LAYERS_H
#define GF_SNAPSHOT_LAYERS_H

#include "base/err.h"
#include "format/format.h"
#include "snapshot/options.h"
#include "source/dir.h"

struct gf_layers_in {
    struct gf_dir *dir;
    const char *file, *tag; /* may be NULL */
    const struct gf_options *opt;
};

/* One layout alone, its catalog proved sound; gf_found_done(ret) also after failure. */
int gf_layer_read(const struct gf_format *format, const struct gf_format_in *in,
                  struct gf_found *ret, struct gf_err *err);

/* Detects, reads, checks and joins: *ret has one catalog, proved sound. `why` tells what was
 * seen. gf_found_done(ret) also after failure. */
int gf_layers_read(const struct gf_layers_in *in, struct gf_found *ret,
                   char why[static GF_WHY], struct gf_err *err);

/* Joins the base model in `dir`: what the checkpoint lacks of it. EINVAL: it does not fit. */
int gf_layers_join_base(struct gf_found *to, struct gf_dir *dir,
                        const struct gf_options *opt, struct gf_err *err);

/* The same for tensors that were found elsewhere (a live job): checks them, and joins what the
 * options bring. */
int gf_layers_finish(const struct gf_options *opt, struct gf_found *found,
                     struct gf_err *err);

#endif
