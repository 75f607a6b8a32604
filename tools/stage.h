/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage.h - a directory that appears whole or not at all.
 *
 *     DEST.gatherfs-part/   files are written here
 *     DEST/                 gf_stage_commit() puts it in place with one rename
 *
 * The staging directory is locked while it is in use; one that a killed process left behind
 * is used anew. gf_stage_free() without a commit removes it.
 */
#ifndef GF_TOOLS_STAGE_H
#define GF_TOOLS_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"

struct gf_stage;

/* Refuses a DEST that is a mountpoint, or not empty unless `replace`, and then still one that holds
 * sub-directories, contains `source` or lies in it: commit deletes what was there. */
int gf_stage_open(const char *dest, const char *source, bool replace, struct gf_stage **ret,
                  struct gf_err *err);

/* A new file of `size` bytes that only its owner may read, its space reserved where the file
 * system can do that. */
int gf_stage_create(struct gf_stage *stage, const char *name, uint64_t size, int *ret_fd,
                    struct gf_err *err);

/* Flushed to disk and in place, in one step; what was there before is deleted. */
int gf_stage_commit(struct gf_stage *stage, struct gf_err *err);
void gf_stage_free(struct gf_stage *stage);
GF_DEFINE_AUTO(gf_stage);

#endif
