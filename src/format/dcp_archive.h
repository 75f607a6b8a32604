/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_archive.h - one item: a torch.save archive somewhere in a file, with one tensor.
 *
 *     at                                                             at + length
 *     | header data.pkl | header byteorder | header data/0 | directory, end |
 *                                          ^ the chunk's elements
 */
#ifndef GF_FORMAT_DCP_ARCHIVE_H
#define GF_FORMAT_DCP_ARCHIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "source/source.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

/* What the metadata says of an item. */
struct gf_dcp_item {
    uint64_t at, length;   /* of the archive in its file, as packed */
    struct gf_shape shape; /* of the chunk, as torch counts: F4 in pairs */
    enum gf_dtype dtype;
    bool zstd;      /* else the archive lies there as it is */
    uint64_t start; /* see gf_dcp_source() */
};

/* Where its elements are. */
struct gf_dcp_layout {
    uint64_t data;  /* bytes into the archive, of element 0 */
    uint64_t reach; /* bytes from there to behind the last one */
    bool contiguous;
    uint64_t strides[GF_MAX_RANK]; /* in elements */
};

/* Bytes of the chunk; true if there is no such number. */
bool gf_dcp_item_nbytes(struct gf_shape shape, enum gf_dtype dtype, uint64_t *ret);

/* The archive as a source: a part of the file, or unpacked in memory. Borrows the file, and
 * is used by one thread. */
int gf_dcp_archive(struct gf_source *file, const struct gf_dcp_item *item,
                   struct gf_source **ret, struct gf_err *err);

/* Reads its headers. GF_EBAD unless it holds one tensor of the item's shape and dtype. */
int gf_dcp_archive_layout(struct gf_source *archive, const struct gf_dcp_item *item,
                          struct gf_dcp_layout *ret, struct gf_err *err);

#endif
