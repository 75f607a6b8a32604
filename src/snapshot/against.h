/* SPDX-License-Identifier: Apache-2.0 */
/*
 * against.h - another model directory, held against a view tensor by tensor.
 *
 * The directory's safetensors files are one table of tensors, so that both sides may be
 * sharded as they like. A view's file is compared while it is swept: gf_against_begin(),
 * gf_against_chunk() for all of it from any thread, gf_against_end().
 */
#ifndef GF_SNAPSHOT_AGAINST_H
#define GF_SNAPSHOT_AGAINST_H

#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/text.h"
#include "snapshot/snapshot.h"

struct gf_against;
struct gf_against_file; /* one of the view's files, being compared */

/* What is wrong, one call a tensor. */
typedef void gf_against_fn(void *ctx, const char *text);

/* -ENOENT if the directory has no safetensors file. */
int gf_against_open(const char *path, const struct gf_limits *limits,
                    struct gf_against **ret, struct gf_err *err);
void gf_against_free(struct gf_against *against);
GF_DEFINE_AUTO(gf_against);

int gf_against_begin(struct gf_against *against, const struct gf_vdir *dir,
                     const struct gf_vfile *file, struct gf_against_file **ret,
                     struct gf_err *err);
int gf_against_chunk(struct gf_against_file *file, uint64_t off, const uint8_t *buf,
                     size_t len, struct gf_err *err);
/* Reports tensors that are missing there or differ; *ret_equal is how many are equal. */
void gf_against_end(struct gf_against_file *file, gf_against_fn *report, void *ctx,
                    uint64_t *ret_equal);
void gf_against_file_free(struct gf_against_file *file);
GF_DEFINE_AUTO(gf_against_file);

/* After all files: the directory's tensors that the view does not have. */
void gf_against_surplus(const struct gf_against *against, gf_against_fn *report, void *ctx);

/* Appends "config.json equal, ..." for the view's files that are not safetensors. */
int gf_against_side(struct gf_against *against, const struct gf_vdir *dir,
                    struct gf_text *text, struct gf_err *err);

/* Does the file hold tensors? */
bool gf_is_safetensors(const char *name);

#endif
