/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.h - a checkpoint's files -> catalog. One file a layout, one line in the registry.
 *
 * A format knows names, rank files and completeness of one directory layout. It fills a
 * catalog and lists the sources that the pieces name; it never looks at weight bytes.
 */
#ifndef GF_FORMAT_FORMAT_H
#define GF_FORMAT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/vec.h"
#include "catalog/catalog.h"
#include "source/dir.h"
#include "source/source.h"

#define GF_WHY 240
#define GF_PROBE_BYTES 4096

enum gf_complete { GF_COMPLETE_NO, GF_COMPLETE_UNKNOWN, GF_COMPLETE_YES };

struct gf_format_in {
    struct gf_dir *dir;
    const char *file; /* SOURCE is this one file of dir; NULL: the directory itself */
    const char *tag;  /* which tag or step; NULL: the layout's own choice (`latest`) */
    const struct gf_limits *limits;
    const struct gf_catalog *template; /* names, shapes and order that are expected (from
                                        * config_from or a base model), or NULL */
    bool allow_incomplete; /* serve what is there in spite of a doubt about completeness */
    unsigned threads;      /* rank files may be parsed by this many threads */
};

struct gf_found {
    struct gf_catalog *catalog;
    struct gf_catalog *template; /* owned; what was expected (gf_format_in), or NULL */
    struct GF_VEC(struct gf_source *) sources; /* owned; pieces name them by index */
    const char *format;                        /* the gf_format's name */
    char detail[128]; /* "ZeRO stage 3, 4 ranks, bf16": for inspect */
    char tag[256];    /* "" if the layout has none */
    char base[256];   /* directory of this checkpoint below dir: "" or "global_step4" */
    bool has_step;
    uint64_t step;
    enum gf_complete complete;
    char why[GF_WHY]; /* the rule that decided, or what is missing */
    int64_t mtime_ns; /* newest source file: the step's time */
    bool parent_side; /* dir is a tag: the layout's root (dir/..) has the side files */
    struct GF_VEC(char *) warnings; /* owned lines */
    struct GF_VEC(char *) left_out; /* owned names: tensors of the model that this layout is
                                     * known not to hold (frozen ones excluded from a save) */
};

/* Layouts that stand side by side in one checkpoint: the first kind found is served, the
 * later ones supply what it lacks (DESIGN 1.2). */
enum gf_layer { GF_LAYER_SHARDS, GF_LAYER_SAFETENSORS, GF_LAYER_BIN, GF_NLAYERS };

struct gf_format {
    const char *name; /* value of source_format= */
    enum gf_layer layer;
    /* 0 = not mine, else 1..100. `why` says what was seen ("'latest' names 'global_step4'").
     * Looks at names and at most GF_PROBE_BYTES of one file. */
    int (*probe)(struct gf_dir *dir, const char *file, char why[static GF_WHY]);
    /* Fills *out (zeroed by the caller, gf_found_done() also after failure). The caller runs
     * gf_catalog_check() afterwards. GF_EINCOMPLETE names what is missing. */
    int (*read)(const struct gf_format_in *in, struct gf_found *out, struct gf_err *err);
    /* The further checkpoints side by side in this directory (DeepSpeed: its other tags), as
     * values for `tag`. NULL: none. */
    int (*tags)(struct gf_dir *dir, struct gf_dir_listing *ret, struct gf_err *err);
};

/* The layout of SOURCE: of the first layer that has one. forced: source_format=, or NULL. A
 * tie between layouts of one layer is an error naming both; nothing found is -ENOENT with what was looked for. `why` tells the reason. */
int gf_format_detect(struct gf_dir *dir, const char *file, const char *forced,
                     const struct gf_format **ret, char why[static GF_WHY],
                     struct gf_err *err);

/* The layout of that layer in the directory, NULL if there is none or if several fit. */
const struct gf_format *gf_format_of_layer(struct gf_dir *dir, const char *file,
                                           enum gf_layer layer);

/* All formats, NULL-terminated. */
extern const struct gf_format *const gf_formats[];

void gf_found_done(struct gf_found *found);
/* Appends a source; takes it over also on failure. */
int gf_found_add_source(struct gf_found *found, struct gf_source *src, uint32_t *ret_index,
                        struct gf_err *err);
/* Appends all sources of another one, which has none then. */
int gf_found_take_sources(struct gf_found *found, struct gf_found *from,
                          struct gf_err *err);
int gf_found_warn(struct gf_found *found, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
