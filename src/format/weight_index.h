/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weight_index.h - model.safetensors.index.json and its like: which tensor is in which file.
 *
 *     {"metadata": {"total_size": 123}, "weight_map": {"h.0.weight": "model-00001-of-...", ...}}
 */
#ifndef GF_FORMAT_WEIGHT_INDEX_H
#define GF_FORMAT_WEIGHT_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/strmap.h"
#include "source/dir.h"

struct gf_weight_index {
    const char *name; /* of the index file, borrowed */
    struct gf_json *doc;
    const char **files; /* each once, sorted by name: shards in order */
    size_t nfiles;
    struct gf_strmap places; /* tensor -> index of its file in `files` */
};

/* Names of files are checked to be inside the directory, not that they are there. */
int gf_weight_index_read(struct gf_dir *dir, const char *name,
                         const struct gf_limits *limits, struct gf_weight_index **ret,
                         struct gf_err *err);
void gf_weight_index_free(struct gf_weight_index *index); /* NULL is fine */
GF_DEFINE_AUTO(gf_weight_index);

/* Walks the weight_map: the first member, then gf_json_next(). */
const struct gf_json *gf_weight_index_first(const struct gf_weight_index *index);

#endif
