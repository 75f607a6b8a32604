/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_tag.h - which directory of SOURCE is the checkpoint: the tag.
 */
#ifndef GF_FORMAT_DEEPSPEED_TAG_H
#define GF_FORMAT_DEEPSPEED_TAG_H

#include "format/format.h"

/* How sure a probe is, and why. SOURCE ... */
#define GF_DS_SURE_LATEST 95 /* ... has `latest`, which names a directory with weights */
#define GF_DS_SURE_TAG 90    /* ... is a directory with weights itself */
#define GF_DS_SURE_BELOW 70  /* ... has no usable `latest`, but such directories */
#define GF_DS_SURE_LOST                                                                    \
    20 /* ... has `latest`, and what it names is not there; or has
                              * optimizer files alone */

int gf_ds_tag_probe(struct gf_dir *dir, const char *file, char why[static GF_WHY]);

/* The tag: the one asked for; SOURCE itself if it holds rank files (""); what `latest` or
 * else `latest_universal` names; the only one there is. Into ret[256]. A directory that has
 * lost its model files is found, too, if it is named: reading it tells what is missing. */
int gf_ds_tag_find(const struct gf_format_in *in, char ret[static 256], struct gf_err *err);

/* All directories below SOURCE with weights, the one of `latest` too; none if SOURCE is a
 * tag. */
int gf_ds_tag_list(struct gf_dir *dir, struct gf_dir_listing *ret, struct gf_err *err);

#endif
