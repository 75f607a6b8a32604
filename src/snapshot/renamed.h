/* SPDX-License-Identifier: Apache-2.0 */
/*
 * renamed.h - the same tensor under two names: as in a model's files, and as in its module.
 *
 * A Trainer leaves model.safetensors, with the hub's names, beside shards with the module's;
 * a base model comes from the hub. Compared by name alone, each would lack what the other
 * has (view/hub.h).
 */
#ifndef GF_SNAPSHOT_RENAMED_H
#define GF_SNAPSHOT_RENAMED_H

#include <stdbool.h>

#include "base/err.h"
#include "base/limits.h"
#include "catalog/catalog.h"
#include "source/dir.h"

/* (*ret)[i], to be freed: tensor i of `files`, whose config.json is in `dir`, is there in
 * `state` under the module's name, which is another. False throughout without config.json. */
int gf_renamed_mark(const struct gf_catalog *files, struct gf_dir *dir,
                    const struct gf_catalog *state, const struct gf_limits *limits,
                    bool **ret, struct gf_err *err);

#endif
