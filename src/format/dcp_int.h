/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_int.h - a DCP checkpoint that is being read; shared by dcp.c (what it is) and
 * dcp_fill.c (its files and the catalog).
 */
#ifndef GF_FORMAT_DCP_INT_H
#define GF_FORMAT_DCP_INT_H

#include "format/dcp_dir.h"
#include "format/dcp_item.h"
#include "format/dcp_metadata.h"
#include "format/format.h"

struct gf_dcp {
    const struct gf_format_in *in;
    struct gf_found *out;
    struct gf_dcp_dir dir;
    struct gf_dcp_table *table;
    uint32_t group;
    const struct gf_dcp_object *object; /* the model, if it is no group of tensors */
    int64_t saved_ns;                   /* of the newest metadata */
    const char *newer;                  /* a data file that is newer than that, or NULL */

    /* By file of the table: its items stand in items[first[f]] .. items[first[f + 1]]. */
    struct gf_dcp_item *items;
    size_t *first, *next;
    uint32_t *source; /* index in out->sources */
    size_t nitems, ntensors;
};

/* A path below SOURCE of a name in the checkpoint's directory. */
int gf_dcp_path_below(const struct gf_dcp *d, const char *name, char **ret,
                      struct gf_err *err);

/* Opens the files that hold the model and fills the catalog. */
int gf_dcp_fill(struct gf_dcp *d, struct gf_err *err);

#endif
