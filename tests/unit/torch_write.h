/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch_write.h - writes torch.save files into memory: any tree of dicts, lists and
 * tensors.
 *
 * Values are written in order; between tw_dict() and tw_end() keys and values take turns.
 */
#ifndef GF_TESTS_TORCH_WRITE_H
#define GF_TESTS_TORCH_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "tensor/dtype.h"

#define TW_STORAGES 12

struct tw {
    uint8_t *p; /* the pickle */
    size_t n, room;
    char open[32]; /* 'u' dict or 'e' list, per level */
    size_t depth;
    struct {
        void *bytes;
        size_t size;
        enum gf_dtype dtype;
    } storages[TW_STORAGES];
    size_t nstorages;
};

void tw_start(struct tw *w);
void tw_dict(struct tw *w);
void tw_list(struct tw *w);
void tw_end(struct tw *w); /* of the innermost dict or list */
void tw_str(struct tw *w, const char *s);
void tw_int(struct tw *w, int64_t value);
void tw_bool(struct tw *w, bool value);
void tw_none(struct tw *w);
void tw_size(struct tw *w, const uint64_t *dims, size_t rank); /* torch.Size */
/* module.name(*values), and module.name() with attributes numel and start. */
void tw_call(struct tw *w, const char *module, const char *name, const int64_t *values,
             size_t n);
void tw_address(struct tw *w, uint64_t numel, uint64_t start);

/* A storage's bytes are copied; its key is the returned number. */
size_t tw_storage(struct tw *w, enum gf_dtype dtype, const void *bytes, size_t size);
/* A contiguous tensor on a storage, from element `start`. */
void tw_tensor(struct tw *w, size_t storage, uint64_t start, const uint64_t *dims,
               size_t rank);

/* The file; free() it. The writer is empty afterwards. `archive`: the directory in it. */
void *tw_finish(struct tw *w, const char *archive, size_t *ret_len);

#endif
