/* SPDX-License-Identifier: Apache-2.0 */
/*
 * join.h - one catalog supplies what another lacks: a weaker layer of the same checkpoint, or
 * the base model under an adapter.
 */
#ifndef GF_SNAPSHOT_JOIN_H
#define GF_SNAPSHOT_JOIN_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/strmap.h"
#include "format/format.h"

/* Names of a catalog without the wrappers of training frameworks -> indices. */
struct gf_name_table {
    struct gf_arena arena;
    struct gf_strmap map;
};
int gf_name_table_of(const struct gf_catalog *catalog, struct gf_name_table *ret,
                     struct gf_err *err);
void gf_name_table_done(struct gf_name_table *names);
/* In the names' arena; NULL: no memory. */
char *gf_name_table_unwrap(struct gf_name_table *names, const char *name);

/* What `to` lacks, if both are of one model: at least one common name, and each common name of
 * one shape. Tensors of `from` that are `renamed` (renamed.h) are there already. *ret_same: are
 * they? Sources move over. */
int gf_join_layer(struct gf_found *to, struct gf_found *from, const bool *renamed,
                  bool *ret_same, struct gf_err *err);

/* The base model's tensors for a PEFT state that has none, or not all of them. The modules
 * that the adapter is about must be in it, in shapes that fit. EINVAL names `base` and what
 * does not. */
int gf_join_base(struct gf_found *to, struct gf_found *from, const char *base,
                 struct gf_err *err);

/* Does a PEFT state lack weights under its adapter, or hold them quantised? Else its own names
 * are not mixed with a base model's, which may be those of a hub's files. */
int gf_join_is_needed(const struct gf_found *found, bool *ret, struct gf_err *err);

#endif
