/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.h - one regular file as a source; private to the local directory.
 */
#ifndef GF_SOURCE_FILE_H
#define GF_SOURCE_FILE_H

#include <sys/stat.h>

#include "source/source.h"

/* How a file is opened again after its descriptor was given back: a descriptor or -errno. */
struct gf_reopen {
    int (*open)(struct gf_reopen *how, const char *path);
    struct gf_reopen *(*ref)(struct gf_reopen *how);
    void (*unref)(struct gf_reopen *how);
};

/* Takes over `fd` (also on failure), which is a regular file with these facts. */
int gf_source_file(struct gf_reopen *how, const char *path, int fd, const struct stat *st,
                   struct gf_source **ret, struct gf_err *err);

struct gf_identity gf_identity_of(const struct stat *st);

#endif
