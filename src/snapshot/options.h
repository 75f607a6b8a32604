/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.h - the options of DESIGN 1.1, the same for every command and for -o.
 *
 * One table says name, kind and help; a key is accepted as --config-from DIR and as
 * -o config_from=DIR ('-' and '_' are the same in a key).
 */
#ifndef GF_SNAPSHOT_OPTIONS_H
#define GF_SNAPSHOT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "tensor/dtype.h"
#include "view/view.h"

struct gf_options {
    /* what is served */
    char *view;   /* NULL: the default view at the root, others as sub-directories */
    char *prefix; /* a component by its name path: becomes the default view */
    char *views;  /* NULL: the default listing; "none"; else a comma-separated list */
    char *tag;    /* tag= or step= */
    char *source_format;
    char *base, *config_from, *tokenizer, *generation_config;
    char *base_name; /* what adapter_config.json calls the base model; NULL: as it is */
    enum gf_dtype_policy policy;
    enum gf_dtype dtype;
    enum gf_names names;
    uint64_t max_shard_size; /* bytes */
    bool bin;                /* pytorch_model.bin in place of safetensors */
    uint64_t cache;          /* bytes of adapters that are kept in memory */
    bool allow_incomplete, follow_links;
    /* how it is mounted: used by mount alone, accepted everywhere */
    bool allow_other, direct_io, foreground;
    bool has_uid, has_gid, has_mode;
    uint32_t uid, gid, mode;
    unsigned threads;   /* 0: as many as fit the machine */
    uint64_t readahead; /* bytes; 0: 2 MiB */
    unsigned timeout;   /* seconds, for starts and waits */
    char *log;          /* file, NULL: stderr while in the foreground */
    int verbose;
    /* not an option: limits for parsers */
    const struct gf_limits *limits;
};

/* One option of the table; `arg` is NULL for switches. */
struct gf_option_info {
    const char *key, *arg, *help;
};
extern const struct gf_option_info gf_option_table[]; /* ends with key == NULL */

void gf_options_init(struct gf_options *opt);
void gf_options_done(struct gf_options *opt);

/* Is it a key of the table, and does it take a value? */
const struct gf_option_info *gf_option_find(const char *key);

/* Sets one option. value NULL for switches. EINVAL names the key and what was expected. */
int gf_options_set(struct gf_options *opt, const char *key, const char *value,
                   struct gf_err *err);

/* "key=value,key,..." as in -o: '\,' is a comma in a value. Keys of mount(8) and fstab (rw,
 * ro, nofail, _netdev, defaults, auto, noauto, user..., x-*) are ignored; keys of libfuse
 * itself are appended to fuse_opts (comma-separated, may be NULL: then ignored). */
int gf_options_set_list(struct gf_options *opt, const char *list, char **fuse_opts,
                        struct gf_err *err);

/* "5GB", "500MB", "1000": decimal units as in transformers, and KiB/MiB/GiB. */
int gf_parse_size(const char *text, uint64_t *ret);

#endif
