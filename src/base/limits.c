/* SPDX-License-Identifier: Apache-2.0 */
#include "base/limits.h"

#define MIB ((size_t)1 << 20)

const struct gf_limits gf_limits_default = {
    .safetensors_header = 100000000,
    .tensors = 4000000,
    .pieces = 512 * MIB,
    .name = 2048,
    .pickle_bytes = 1024 * MIB,
    .pickle_nodes = 64 * MIB,
    .pickle_arena = 4096 * MIB,
    .pickle_depth = 200,
    .zip_members = 16 * MIB,
    .zip_directory = 2048 * MIB,
    .json_bytes = 256 * MIB,
    .json_depth = 100,
    .dir_entries = 4000000,
    .ranks = 65536,
};
