/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch_file.h - what the values in a torch.save pickle mean: tensors on storages.
 *
 * Pure: a pickle's value in, a strided view of a storage out. A closed list of
 * constructors is known (torch._utils._rebuild_tensor, _v2, _v3, _rebuild_parameter,
 * _rebuild_parameter_with_state, torch._tensor._rebuild_from_type_v2 around one of them,
 * _rebuild_device_tensor_from_cpu_tensor); everything else is not a tensor, or is one that
 * cannot be served (quantized, sparse, nested, meta, wrapper subclasses), with the reason.
 * Legacy (pre-1.6) streams: their prelude of pickles is taken apart here, too.
 */
#ifndef GF_CONTAINER_TORCH_FILE_H
#define GF_CONTAINER_TORCH_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "container/pickle.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

/* A persistent id ('storage', Class, key, location, numel[, view]). */
struct gf_torch_storage {
    const char *key;         /* record data/<key>, or the legacy storage key */
    const char *unsupported; /* why the class cannot be served, else NULL */
    enum gf_dtype dtype;     /* of the class; U8 for untyped ones, as in torch */
    bool untyped;            /* UntypedStorage: the tensor has the dtype */
    bool meta;               /* location 'meta': no data */
    uint32_t elem;           /* bytes of an element of the class; 0 unknown */
    uint64_t numel, nbytes;
    uint64_t view_offset; /* elements; legacy view_metadata, else 0 */
    uint64_t view_numel;  /* elements from there; else numel */
};

struct gf_torch_view {
    struct gf_torch_storage storage;
    enum gf_dtype dtype;
    struct gf_shape shape; /* F4: in pairs, one byte each: the last dim is half the real */
    const uint64_t *strides; /* elements */
    uint64_t offset;         /* elements into the storage, view_offset included */
    uint64_t numel;
    uint8_t twist; /* 1 conj, 2 neg: enum gf_twist in the catalog */
};

/* What a value is: a tensor that can be served, one that cannot (why says so), or none. */
enum gf_torch_is { GF_TORCH_OTHER, GF_TORCH_TENSOR, GF_TORCH_UNSUPPORTED };

/* Looks at a value. For GF_TORCH_TENSOR fills *ret, with shape and strides allocated from
 * `pickle`; the view is checked against the storage's numel and against overflow. Returns
 * GF_EBAD for a tensor whose numbers are impossible; GF_TORCH_UNSUPPORTED puts the reason
 * ("sparse tensor") in `why` (a static string). `file` and `what` name things in errors. */
int gf_torch_tensor(struct gf_pickle *pickle, const struct gf_pv *value, const char *file,
                    const char *what, enum gf_torch_is *ret_is, struct gf_torch_view *ret,
                    const char **why, struct gf_err *err);

/* Is this GF_PV_PERSID a storage? Fills *ret then. GF_EBAD for impossible numbers. */
int gf_torch_storage(const struct gf_pv *persid, const char *file, bool *ret_is,
                     struct gf_torch_storage *ret, struct gf_err *err);

/* Bytes of one element as torch counts them: 1 for F4, where an element is a pair. */
size_t gf_torch_itemsize(enum gf_dtype dtype);

/* A dtype GLOBAL (torch.float32): false if it is none of ours. */
bool gf_torch_dtype(const struct gf_pv *value, enum gf_dtype *ret);

/* Does the file start like a legacy stream / a zip archive? `n` >= 16 bytes suffice. */
bool gf_torch_is_legacy(const uint8_t *bytes, size_t n);
bool gf_torch_is_zip(const uint8_t *bytes, size_t n);

/* The prelude of a legacy stream: magic, protocol 1001, sys info, object, storage keys.
 * *ret_short as in gf_pickle_parse. ret_used: where the storages start, an i64 count and
 * that many elements for each key in turn. ENOTSUP: big-endian, or a whole nn.Module. */
int gf_torch_legacy_parse(const char *name, const uint8_t *bytes, size_t len,
                          const struct gf_limits *limits, struct gf_pickle **ret_object,
                          struct gf_pickle **ret_keys, size_t *ret_used, bool *ret_short,
                          struct gf_err *err);

#endif
