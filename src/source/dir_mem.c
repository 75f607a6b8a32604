/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dir_mem.c - a directory in memory, for tests and fuzzing. Files are few: a sorted list of
 * whole paths, from which directories follow.
 */
#include <stdlib.h>
#include <string.h>

#include "base/vec.h"
#include "source/dir.h"

struct entry {
    char *path;
    uint8_t *bytes;
    size_t len;
};

struct mem_dir {
    struct gf_dir base;
    struct GF_VEC(struct entry) files; /* sorted by path */
};

/* Does `path` lie below directory `dir`? Then points at the rest. */
static const char *below(const char *path, const char *dir)
{
    size_t n = strlen(dir);

    if (n == 0)
        return path;
    return strncmp(path, dir, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

static int mem_list(struct gf_dir *base, const char *path, struct gf_dir_listing *ret,
                    struct gf_err *err)
{
    struct mem_dir *dir = (struct mem_dir *)base;
    struct GF_VEC(struct gf_dir_entry) out = { 0 };
    int r = 0;

    for (size_t i = 0; i < dir->files.n && !r; i++) {
        const char *rest = below(dir->files.at[i].path, path);
        struct gf_dir_entry entry = { .mode = 0444 };
        size_t n;

        if (!rest || !*rest)
            continue;
        n = strcspn(rest, "/");
        if (out.n && strlen(out.at[out.n - 1].name) == n &&
            strncmp(out.at[out.n - 1].name, rest, n) == 0)
            continue;
        entry.is_dir = rest[n] == '/';
        entry.identity.size = entry.is_dir ? 0 : dir->files.at[i].len;
        entry.name = strndup(rest, n);
        r = entry.name ? gf_vec_push(&out, entry, base->limits->dir_entries) : -ENOMEM;
    }
    *ret = (struct gf_dir_listing){ out.at, out.n };
    if (!r && out.n)
        return 0;
    gf_dir_listing_free(ret);
    if (r)
        return gf_fail(err, -r, "'%s': cannot list '%s'", base->name, path);
    return *path ? gf_fail(err, ENOENT, "'%s': no such directory", path) : 0;
}

static const struct entry *find(const struct mem_dir *dir, const char *path)
{
    for (size_t i = 0; i < dir->files.n; i++)
        if (strcmp(dir->files.at[i].path, path) == 0)
            return &dir->files.at[i];
    return NULL;
}

static int mem_open(struct gf_dir *base, const char *path, struct gf_source **ret,
                    struct gf_err *err)
{
    const struct entry *entry = find((struct mem_dir *)base, path);

    if (!entry)
        return gf_fail(err, ENOENT, "'%s': %s", path, strerror(ENOENT));
    return gf_source_mem(path, entry->bytes, entry->len, ret, err);
}

static int mem_stat(struct gf_dir *base, const char *path, struct gf_dir_entry *ret)
{
    const struct mem_dir *dir = (struct mem_dir *)base;
    const struct entry *entry = find(dir, path);

    *ret = (struct gf_dir_entry){ .mode = 0444, .is_dir = !entry };
    if (entry) {
        ret->identity.size = entry->len;
        return 0;
    }
    for (size_t i = 0; i < dir->files.n; i++)
        if (below(dir->files.at[i].path, path))
            return 0;
    return *path ? -ENOENT : 0;
}

static void mem_dir_free(struct gf_dir *base)
{
    struct mem_dir *dir = (struct mem_dir *)base;

    for (size_t i = 0; i < dir->files.n; i++) {
        free(dir->files.at[i].path);
        free(dir->files.at[i].bytes);
    }
    gf_vec_free(&dir->files);
    free(base->name);
    free(dir);
}

static const struct gf_dir_ops mem_dir_ops = {
    .list = mem_list,
    .open = mem_open,
    .stat = mem_stat,
    .free = mem_dir_free,
};

int gf_dir_mem(const char *name, const struct gf_limits *limits, struct gf_dir **ret,
               struct gf_err *err)
{
    struct mem_dir *dir = calloc(1, sizeof(*dir));

    if (!dir)
        return gf_nomem(err);
    dir->base =
        (struct gf_dir){ .ops = &mem_dir_ops, .name = strdup(name), .limits = limits };
    if (!dir->base.name) {
        free(dir);
        return gf_nomem(err);
    }
    *ret = &dir->base;
    return 0;
}

/* Order in which a directory's listing comes out sorted: '/' before everything else. */
static int path_order(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    if (*a == *b)
        return 0;
    if (!*a || !*b)
        return *a ? 1 : -1;
    if (*a == '/' || *b == '/')
        return *a == '/' ? -1 : 1;
    return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
}

int gf_dir_mem_add(struct gf_dir *base, const char *path, const void *bytes, size_t len,
                   struct gf_err *err)
{
    struct mem_dir *dir = (struct mem_dir *)base;
    struct entry entry = { strdup(path), malloc(len ? len : 1), len };
    size_t at = 0;

    if (!entry.path || !entry.bytes || gf_vec_reserve(&dir->files, 1, SIZE_MAX / 64)) {
        free(entry.path);
        free(entry.bytes);
        return gf_nomem(err);
    }
    if (len)
        memcpy(entry.bytes, bytes, len);
    while (at < dir->files.n && path_order(dir->files.at[at].path, path) < 0)
        at++;
    if (at < dir->files.n && strcmp(dir->files.at[at].path, path) == 0) {
        free(dir->files.at[at].path);
        free(dir->files.at[at].bytes);
    } else {
        memmove(dir->files.at + at + 1, dir->files.at + at,
                (dir->files.n - at) * sizeof(*dir->files.at));
        dir->files.n++;
    }
    dir->files.at[at] = entry;
    return 0;
}
