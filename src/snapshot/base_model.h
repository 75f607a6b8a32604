/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base_model.h - where the model under an adapter is on this machine.
 *
 *   base=DIR                    the user says so
 *   base_model_name_or_path     of adapter_config.json:
 *     a relative path           below SOURCE, if there is a directory
 *     a repository's name       in the local Hugging Face cache, at `revision`:
 *                               models--org--name/refs/main -> snapshots/HASH
 *     an absolute path          is content, and must not lead out of SOURCE: base= is asked for
 *
 * Nothing is downloaded. The cache is where huggingface_hub has it: HF_HUB_CACHE, HF_HOME/hub,
 * XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub.
 */
#ifndef GF_SNAPSHOT_BASE_MODEL_H
#define GF_SNAPSHOT_BASE_MODEL_H

#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "format/format.h"
#include "snapshot/options.h"
#include "source/dir.h"

struct gf_base_model {
    struct gf_dir *dir; /* owned; NULL: it is not here, and `why` says it */
    char why[GF_WHY]; /* "adapter_config.json names ..., which ...: base=DIR supplies it" */
    uint64_t vocab;   /* its vocab_size; 0: unknown */
};

/* `source` outlives *ret. That it is nowhere is no error. base= is one if it cannot be opened. */
int gf_base_model_find(struct gf_dir *source, const struct gf_json *adapter_config,
                       const struct gf_options *opt, struct gf_base_model *ret,
                       struct gf_err *err);
void gf_base_model_done(struct gf_base_model *base);

/* Is this a name that huggingface_hub accepts for a repository: 'name' or 'org/name'? */
bool gf_base_model_is_repo(const char *name);

#endif
