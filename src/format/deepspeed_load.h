/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_load.h - many files at once, on several threads.
 */
#ifndef GF_FORMAT_DEEPSPEED_LOAD_H
#define GF_FORMAT_DEEPSPEED_LOAD_H

#include "format/deepspeed_file.h"
#include "format/format.h"

/* Reads files.at[first..], each by one of in->threads threads. If some fail, the error is
 * that of the first in order. */
int gf_ds_load(const struct gf_format_in *in, struct gf_ds_files files, size_t first,
               const struct gf_ds_model *rank0, struct gf_err *err);

#endif
