/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.h - the header of a safetensors file: u64 length, JSON, then the data.
 *
 * Pure. Rules of the Rust reader (safetensors 0.8, Metadata::validate): offsets start at
 * 0 and are contiguous in order, shape x dtype = length, the data ends with the file. One
 * more: no name occurs twice.
 */
#ifndef GF_CONTAINER_SAFETENSORS_H
#define GF_CONTAINER_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

struct gf_safetensors_entry {
    const char *name;
    enum gf_dtype dtype;
    struct gf_shape shape; /* as in the file: F4 counts half bytes */
    uint64_t begin, end;   /* bytes from the start of the file */
};

struct gf_safetensors {
    struct gf_safetensors_entry *at; /* in offset order */
    size_t n;
    const char *(*meta)[2]; /* __metadata__ pairs */
    size_t nmeta;
    uint64_t data;        /* where the data starts */
    struct gf_arena text; /* names, shapes, metadata */
};

/* The header's length from the file's first 8 bytes; checks the limit and the file size. */
int gf_safetensors_header_len(const char *name, const uint8_t first[8], uint64_t file_size,
                              const struct gf_limits *limits, uint64_t *ret,
                              struct gf_err *err);

/* `header` = the len bytes behind the first 8. */
int gf_safetensors_parse(const char *name, const uint8_t *header, uint64_t len,
                         uint64_t file_size, const struct gf_limits *limits,
                         struct gf_safetensors **ret, struct gf_err *err);
void gf_safetensors_free(struct gf_safetensors *st);
GF_DEFINE_AUTO(gf_safetensors);

#endif
