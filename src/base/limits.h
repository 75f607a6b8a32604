/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limits.h - how much of an untrusted file is believed. One struct, passed down to every
 * parser; tests lower single fields. A file past a limit is refused by name.
 */
#ifndef GF_BASE_LIMITS_H
#define GF_BASE_LIMITS_H

#include <stddef.h>
#include <stdint.h>

/* Dimensions of a tensor. torch itself stops at 64. */
#define GF_MAX_RANK 64

struct gf_limits {
    size_t safetensors_header; /* bytes; the Rust reader's own limit */
    size_t tensors;            /* per checkpoint */
    size_t pieces;             /* per checkpoint */
    size_t name;               /* bytes of a tensor's name */
    size_t pickle_bytes;       /* one pickle stream */
    size_t pickle_nodes;       /* values in one pickle */
    size_t pickle_arena;       /* bytes of one parsed pickle */
    size_t pickle_depth;       /* nesting that the interpreters follow */
    size_t zip_members;        /* entries of one archive */
    size_t zip_directory;      /* bytes of one central directory */
    size_t json_bytes;         /* one JSON file */
    size_t json_depth;
    size_t dir_entries; /* files in one directory */
    size_t ranks;       /* rank files of one checkpoint */
};

extern const struct gf_limits gf_limits_default;

#endif
