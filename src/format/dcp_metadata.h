/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_metadata.h - what the pickle in a DCP `.metadata` says: tensors, their chunks, and
 * the item in a file that holds each chunk.
 *
 *     Metadata
 *       state_dict_metadata  {fqn: TensorStorageMetadata{properties, size, chunks} | Bytes...}
 *       storage_data         {MetadataIndex{fqn, offset}: _StorageInfo{path, offset, length}}
 *       planner_data         {fqn: path of keys} or None
 *
 * Pure: a pickle in, tables out. Nothing of the pickle is kept. Classes are known by name;
 * fields that are not known are passed over, so all versions since torch 1.12 read alike.
 * A save without collectives leaves one such pickle per rank, each with its own chunks:
 * they are added one after another, and chunks that several ranks stored count once.
 */
#ifndef GF_FORMAT_DCP_METADATA_H
#define GF_FORMAT_DCP_METADATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/strmap.h"
#include "base/vec.h"
#include "container/pickle.h"
#include "format/dcp_group.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

/* Where an item lies: `length` bytes at `at` of a file, a torch.save archive. */
struct gf_dcp_place {
    uint64_t at, length;
    uint32_t file;   /* index into the table's files; GF_DCP_NOWHERE */
    uint32_t packed; /* index into the table's packings; 0: as it is */
};

#define GF_DCP_NOWHERE UINT32_MAX

struct gf_dcp_chunk {
    const uint64_t *box; /* first[rank], size[rank]: elements as torch counts them */
    struct gf_dcp_place place;
};

struct gf_dcp_tensor {
    const char *fqn;  /* flattened key */
    const char *name; /* last element of its path: the state dict's own key */
    uint32_t group;
    uint64_t order;         /* among the names of planner_data: the state dict's order */
    const char *dtype_text; /* "bfloat16" */
    bool servable;          /* has a dtype that safetensors knows */
    enum gf_dtype dtype;
    struct gf_shape shape;                     /* as torch counts: F4 in pairs */
    struct GF_VEC(struct gf_dcp_chunk) chunks; /* by first element; empty ones left out */
    size_t fresh; /* chunks from here on are of the pickle being added */
};

struct gf_dcp_file {
    const char *path; /* relative to the checkpoint, and inside it */
    uint64_t need;    /* bytes that its items take */
};

/* A Python object that was stored whole; its path may be a model's. */
struct gf_dcp_object {
    const char *fqn;
    struct gf_dcp_place place;
};

struct gf_dcp_table {
    const struct gf_limits *limits;
    struct gf_arena arena;
    struct GF_VEC(struct gf_dcp_tensor) tensors; /* those of other groups are left out */
    struct GF_VEC(struct gf_dcp_group) groups;
    struct GF_VEC(struct gf_dcp_file) files;
    struct GF_VEC(struct gf_dcp_object) objects;
    struct GF_VEC(const char *) packings; /* "", then "stream.zstd/1" and the like */
    size_t skipped;                       /* tensors of optimizers and the like */
    const char *skipped_as;               /* the flattened key of one of them */
    struct gf_strmap by_fqn, by_path, by_file, objects_by_fqn;
    size_t npickles;
};

int gf_dcp_table_new(const struct gf_limits *limits, struct gf_dcp_table **ret,
                     struct gf_err *err);
void gf_dcp_table_free(struct gf_dcp_table *table);
GF_DEFINE_AUTO(gf_dcp_table);

/* Adds what one pickle of `len` bytes says; `name` is its file's. GF_EBAD for what cannot be:
 * chunks that nothing stores, files outside of the directory, numbers that overflow. */
int gf_dcp_table_add(struct gf_dcp_table *table, const char *name,
                     const struct gf_pickle *pickle, size_t len, struct gf_err *err);

/* After the last one: orders tensors and chunks, drops repeated chunks. */
void gf_dcp_table_finish(struct gf_dcp_table *table);

#endif
