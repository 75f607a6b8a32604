/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dir.h - a checkpoint's directory, wherever it is: list names, open files as sources.
 *
 * Paths are relative to the directory, with '/' between components; "" is the directory
 * itself. Absolute paths and ".." are refused (-EPERM): names may come from file contents.
 * Symbolic links are followed only inside the directory (DESIGN 1.4), or anywhere with
 * follow_links. Only regular files open; nothing blocks (a FIFO is refused).
 */
#ifndef GF_SOURCE_DIR_H
#define GF_SOURCE_DIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "source/source.h"

struct gf_dir_entry {
    const char *name; /* one component; owned by the listing */
    bool is_dir;      /* else a regular file; other kinds are not listed */
    uint32_t mode;    /* permission bits */
    struct gf_identity identity;
};

/* Sorted by name in byte order. */
struct gf_dir_listing {
    struct gf_dir_entry *at;
    size_t n;
};

struct gf_dir;

struct gf_dir_ops {
    int (*list)(struct gf_dir *dir, const char *path, struct gf_dir_listing *ret,
                struct gf_err *err);
    int (*open)(struct gf_dir *dir, const char *path, struct gf_source **ret,
                struct gf_err *err);
    /* One entry's facts; the name in *ret is NULL. -ENOENT without text if not there. */
    int (*stat)(struct gf_dir *dir, const char *path, struct gf_dir_entry *ret);
    void (*free)(struct gf_dir *dir);
};

struct gf_dir {
    const struct gf_dir_ops *ops;
    char *name; /* as given by the user, for errors */
    const struct gf_limits *limits;
};

int gf_dir_list(struct gf_dir *dir, const char *path, struct gf_dir_listing *ret,
                struct gf_err *err);
void gf_dir_listing_free(struct gf_dir_listing *listing);
/* The entry called `name`, or NULL. */
const struct gf_dir_entry *gf_dir_listing_find(const struct gf_dir_listing *listing,
                                               const char *name);

int gf_dir_open(struct gf_dir *dir, const char *path, struct gf_source **ret,
                struct gf_err *err);
int gf_dir_stat(struct gf_dir *dir, const char *path, struct gf_dir_entry *ret);

/* The whole of a small file, NUL-terminated (the NUL is not counted); free() it.
 * Longer than `max` bytes: GF_EBAD. Not there: -ENOENT. */
int gf_dir_read(struct gf_dir *dir, const char *path, size_t max, char **ret,
                size_t *ret_len, struct gf_err *err);

void gf_dir_free(struct gf_dir *dir); /* sources opened from it stay valid */
GF_DEFINE_AUTO(gf_dir);

/* A directory of this machine. */
int gf_dir_local(const char *path, bool follow_links, const struct gf_limits *limits,
                 struct gf_dir **ret, struct gf_err *err);

/* The directory `path` below `top`, which outlives it. Names of sources keep the whole path. */
int gf_dir_sub(struct gf_dir *top, const char *path, struct gf_dir **ret,
               struct gf_err *err);

/* A directory in memory, for tests and fuzzing: add files by path, parents appear. */
int gf_dir_mem(const char *name, const struct gf_limits *limits, struct gf_dir **ret,
               struct gf_err *err);
int gf_dir_mem_add(struct gf_dir *dir, const char *path, const void *bytes, size_t len,
                   struct gf_err *err);

/* Is this path safe to use below a directory: relative, no "..", no empty component? */
bool gf_path_is_inside(const char *path);

#endif
