/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dtype.h - element types: one table row each.
 *
 * The order of the enum is that of the safetensors library (safetensors 0.8, `Dtype`):
 * its writer sorts tensors by dtype, descending, before it sorts them by name.
 */
#ifndef GF_TENSOR_DTYPE_H
#define GF_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum gf_dtype {
    GF_BOOL,
    GF_F4,
    GF_F6_E2M3,
    GF_F6_E3M2,
    GF_U8,
    GF_I8,
    GF_F8_E5M2,
    GF_F8_E4M3,
    GF_F8_E8M0,
    GF_F8_E4M3FNUZ,
    GF_F8_E5M2FNUZ,
    GF_I16,
    GF_U16,
    GF_F16,
    GF_BF16,
    GF_I32,
    GF_U32,
    GF_F32,
    GF_C64,
    GF_F64,
    GF_I64,
    GF_U64,
    GF_NDTYPES
};

struct gf_dtype_info {
    const char *safetensors; /* "BF16" */
    const char *torch;       /* "bfloat16"; NULL where torch has none */
    const char *storage; /* legacy storage class, "BFloat16Storage"; NULL: UntypedStorage */
    unsigned bits;       /* of one element; F4: one torch element is two of these */
    bool wide_float;     /* floating point of 16 bits and more: what dtype= converts */
};

const struct gf_dtype_info *gf_dtype_info(enum gf_dtype dtype);

/* Bytes of one element. F4 and F6 have no whole number: use gf_dtype_nbytes. */
size_t gf_dtype_size(enum gf_dtype dtype);

/* Bytes of `n` elements; true if that overflows or ends inside a byte. */
bool gf_dtype_nbytes(enum gf_dtype dtype, uint64_t n, uint64_t *ret);

/* Look-ups by name; false if unknown. `torch` takes "bfloat16" (no "torch."). */
bool gf_dtype_by_safetensors(const char *name, enum gf_dtype *ret);
bool gf_dtype_by_torch(const char *name, enum gf_dtype *ret);
bool gf_dtype_by_storage(const char *name, enum gf_dtype *ret);

#endif
