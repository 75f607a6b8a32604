/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_zstd.h - items that torch's ZStandard extension packed; the only user of libzstd.
 */
#ifndef GF_FORMAT_DCP_ZSTD_H
#define GF_FORMAT_DCP_ZSTD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "source/source.h"

/* Was it built with libzstd? */
bool gf_dcp_zstd_here(void);

/* The content of the frames in `length` bytes at `at` of the file, at most `max` bytes; to
 * be freed. GF_EBAD if they are cut short, corrupt or hold more; ENOTSUP without libzstd.
 */
int gf_dcp_zstd_read(struct gf_source *file, uint64_t at, uint64_t length, size_t max,
                     uint8_t **ret, size_t *ret_len, struct gf_err *err);

#endif
