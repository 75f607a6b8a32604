/* SPDX-License-Identifier: Apache-2.0 */
#include "source/dir.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool gf_path_is_inside(const char *path)
{
    if (*path == '/')
        return false;
    while (*path) {
        size_t n = strcspn(path, "/");

        if (n == 0 || (n == 1 && path[0] == '.') ||
            (n == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        path += n;
        if (*path == '/' && *++path == '\0')
            return false;
    }
    return true;
}

static int refuse_outside(const struct gf_dir *dir, const char *path, struct gf_err *err)
{
    return gf_path_is_inside(path)
               ? 0
               : gf_fail(err, EPERM, "'%s': path '%s' leads out of it", dir->name, path);
}

int gf_dir_list(struct gf_dir *dir, const char *path, struct gf_dir_listing *ret,
                struct gf_err *err)
{
    int r = refuse_outside(dir, path, err);

    return r ? r : dir->ops->list(dir, path, ret, err);
}

void gf_dir_listing_free(struct gf_dir_listing *listing)
{
    for (size_t i = 0; i < listing->n; i++)
        free((char *)(uintptr_t)listing->at[i].name);
    free(listing->at);
    *listing = (struct gf_dir_listing){ 0 };
}

const struct gf_dir_entry *gf_dir_listing_find(const struct gf_dir_listing *listing,
                                               const char *name)
{
    size_t lo = 0, hi = listing->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(name, listing->at[mid].name);

        if (order == 0)
            return &listing->at[mid];
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

int gf_dir_open(struct gf_dir *dir, const char *path, struct gf_source **ret,
                struct gf_err *err)
{
    int r = refuse_outside(dir, path, err);

    return r ? r : dir->ops->open(dir, path, ret, err);
}

int gf_dir_stat(struct gf_dir *dir, const char *path, struct gf_dir_entry *ret)
{
    return gf_path_is_inside(path) ? dir->ops->stat(dir, path, ret) : -EPERM;
}

int gf_dir_read(struct gf_dir *dir, const char *path, size_t max, char **ret,
                size_t *ret_len, struct gf_err *err)
{
    GF_AUTO(gf_source) src = NULL;
    GF_AUTO_MEM char *text = NULL;
    int r = gf_dir_open(dir, path, &src, err);

    if (r)
        return r;
    if (src->size > max)
        return gf_fail(err, GF_EBAD, "'%s': %" PRIu64 " bytes, at most %zu are read", path,
                       src->size, max);
    text = malloc(src->size + 1);
    if (!text)
        return gf_nomem(err);
    r = gf_source_read_err(src, text, src->size, 0, err);
    if (r)
        return r;
    text[src->size] = '\0';
    if (ret_len)
        *ret_len = src->size;
    *ret = gf_take(&text);
    return 0;
}

void gf_dir_free(struct gf_dir *dir)
{
    if (dir)
        dir->ops->free(dir);
}
