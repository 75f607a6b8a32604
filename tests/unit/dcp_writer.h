/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_writer.h - writes DCP checkpoints the way torch does, into a directory in memory.
 */
#ifndef GF_TESTS_DCP_WRITER_H
#define GF_TESTS_DCP_WRITER_H

#include <stdlib.h>

#include "pickle_writer.h"
#include "source/dir.h"
#include "zip_writer.h"

#define DW_META "torch.distributed.checkpoint.metadata"

/* An item in a file that is being written. */
struct dw_place {
    int64_t at, length;
};

/* Sizes end with -1, which is not part of them. */
#define DW_RANK 4
#define DW_DIMS(...)                                                                       \
    {                                                                                      \
        __VA_ARGS__ __VA_OPT__(, ) - 1                                                     \
    }

/* A chunk of a tensor and where it is stored. */
struct dw_piece {
    int64_t first[DW_RANK], size[DW_RANK];
    const char *file;
    struct dw_place place;
    const char *packed; /* a transform descriptor, or NULL */
    bool unstored;      /* not in storage_data */
};

struct dw_tensor {
    const char *fqn;
    const char *path[5]; /* in planner_data; none: not there */
    const char *dtype;   /* NULL: an object, stored as the only piece says */
    int64_t dims[DW_RANK];
    struct dw_piece pieces[6]; /* up to the first without a file */
};

/* An instance: dw_new(), pairs, dw_built(). */
static inline void dw_new(struct pw *w, const char *module, const char *class)
{
    pw_global(w, module, class);
    pw_op(w, ")\x81}(");
}

static inline void dw_built(struct pw *w)
{
    pw_op(w, "ub");
}

static inline void dw_size(struct pw *w, const int64_t *dims)
{
    pw_global(w, "torch", "Size");
    pw_ints(w, dims);
    pw_op(w, "\x85R");
}

static inline void dw_entry(struct pw *w, const struct dw_tensor *t)
{
    pw_str(w, t->fqn);
    dw_new(w, DW_META, t->dtype ? "TensorStorageMetadata" : "BytesStorageMetadata");
    if (t->dtype) {
        pw_str(w, "properties");
        pw_global(w, DW_META, "TensorProperties");
        pw_op(w, ")\x81(");
        pw_global(w, "torch", t->dtype);
        pw_op(w, "N\x89N\x89tb");
        pw_str(w, "size");
        dw_size(w, t->dims);
        pw_str(w, "chunks");
        pw_op(w, "](");
        for (const struct dw_piece *p = t->pieces; p->file; p++) {
            dw_new(w, DW_META, "ChunkStorageMetadata");
            pw_str(w, "offsets");
            dw_size(w, p->first);
            pw_str(w, "sizes");
            dw_size(w, p->size);
            dw_built(w);
        }
        pw_op(w, "e");
    }
    dw_built(w);
}

static inline void dw_stored(struct pw *w, const struct dw_tensor *t,
                             const struct dw_piece *p)
{
    dw_new(w, DW_META, "MetadataIndex");
    pw_str(w, "fqn");
    pw_str(w, t->fqn);
    if (t->dtype) {
        pw_str(w, "offset");
        dw_size(w, p->first);
    }
    pw_str(w, "index");
    pw_op(w, "N");
    dw_built(w);
    dw_new(w, "torch.distributed.checkpoint.filesystem", "_StorageInfo");
    pw_str(w, "relative_path");
    pw_str(w, p->file);
    pw_str(w, "offset");
    pw_int(w, p->place.at);
    pw_str(w, "length");
    pw_int(w, p->place.length);
    if (p->packed) {
        pw_str(w, "transform_descriptors");
        pw_op(w, "](");
        pw_str(w, p->packed);
        pw_op(w, "e");
    }
    dw_built(w);
}

/* A whole `.metadata`. `extra`: opcodes that put a value under the field storage_meta. */
static inline void dw_metadata(struct pw *w, const struct dw_tensor *tensors, size_t n,
                               const char *extra)
{
    w->n = 0;
    pw_op(w, "\x80\x02");
    dw_new(w, DW_META, "Metadata");
    pw_str(w, "state_dict_metadata");
    pw_op(w, "}(");
    for (size_t i = 0; i < n; i++)
        dw_entry(w, &tensors[i]);
    pw_op(w, "u");
    pw_str(w, "planner_data");
    pw_op(w, "}(");
    for (size_t i = 0; i < n; i++) {
        if (!tensors[i].path[0])
            continue;
        pw_str(w, tensors[i].fqn);
        pw_op(w, "(");
        for (const char *const *p = tensors[i].path; *p; p++)
            pw_str(w, *p);
        pw_op(w, "t");
    }
    pw_op(w, "u");
    pw_str(w, "storage_data");
    pw_op(w, "}(");
    for (size_t i = 0; i < n; i++)
        for (const struct dw_piece *p = tensors[i].pieces; p->file; p++)
            if (!p->unstored)
                dw_stored(w, &tensors[i], p);
    pw_op(w, "u");
    if (extra) {
        pw_str(w, "storage_meta");
        pw_op(w, extra);
    }
    dw_built(w);
    pw_op(w, ".");
}

/* A torch.save archive of what `object` pushes, with one storage. */
static inline struct dw_place dw_archive(struct zw *file, const struct pw *object,
                                         const void *data, size_t n)
{
    struct dw_place place = { .at = (int64_t)file->n };
    struct pw pickle = { .n = 0 };
    struct zw z = { 0 };

    pw_op(&pickle, "\x80\x02");
    pw_bytes(&pickle, object->p, object->n);
    pw_op(&pickle, ".");
    zw_add(&z, "archive/data.pkl", pickle.p, pickle.n, 64);
    zw_add(&z, "archive/byteorder", "little", 6, 64);
    zw_add(&z, "archive/data/0", data, n, 64);
    zw_add(&z, "archive/version", "3\n", 2, 64);
    zw_end(&z);
    zw_bytes(file, z.p, z.n);
    place.length = (int64_t)z.n;
    zw_done(&z);
    return place;
}

/* An item with one tensor. */
static inline struct dw_place dw_item(struct zw *file, const char *class,
                                      const int64_t *size, const int64_t *stride,
                                      const void *data, size_t n, size_t itemsize)
{
    struct pw object = { .n = 0 };

    pw_tensor(&object, class, "0", (int64_t)(n / itemsize), 0, size, stride);
    return dw_archive(file, &object, data, n);
}

#endif
