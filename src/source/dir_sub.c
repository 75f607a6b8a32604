/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dir_sub.c - a directory below another: the same files, shorter paths.
 *
 * Sources opened through it keep the path from the top as their name, so that messages and
 * provenance say where in SOURCE a file is.
 */
#include <stdlib.h>
#include <string.h>

#include "source/dir.h"

struct sub {
    struct gf_dir base;
    struct gf_dir *top; /* borrowed */
    char *prefix;
};

/* prefix/path; NULL when out of memory. */
static char *below(const struct gf_dir *dir, const char *path)
{
    const char *prefix = ((const struct sub *)dir)->prefix;
    char *full;

    return asprintf(&full, "%s%s%s", prefix, *path ? "/" : "", path) < 0 ? NULL : full;
}

static int sub_list(struct gf_dir *dir, const char *path, struct gf_dir_listing *ret,
                    struct gf_err *err)
{
    GF_AUTO_MEM char *full = below(dir, path);

    return full ? gf_dir_list(((struct sub *)dir)->top, full, ret, err) : gf_nomem(err);
}

static int sub_open(struct gf_dir *dir, const char *path, struct gf_source **ret,
                    struct gf_err *err)
{
    GF_AUTO_MEM char *full = below(dir, path);

    return full ? gf_dir_open(((struct sub *)dir)->top, full, ret, err) : gf_nomem(err);
}

static int sub_stat(struct gf_dir *dir, const char *path, struct gf_dir_entry *ret)
{
    GF_AUTO_MEM char *full = below(dir, path);

    return full ? gf_dir_stat(((struct sub *)dir)->top, full, ret) : -ENOMEM;
}

static void sub_free(struct gf_dir *dir)
{
    free(((struct sub *)dir)->prefix);
    free(dir->name);
    free(dir);
}

static const struct gf_dir_ops sub_ops = {
    .list = sub_list,
    .open = sub_open,
    .stat = sub_stat,
    .free = sub_free,
};

int gf_dir_sub(struct gf_dir *top, const char *path, struct gf_dir **ret,
               struct gf_err *err)
{
    struct sub *sub;

    if (!gf_path_is_inside(path) || !*path)
        return gf_fail(err, EPERM, "'%s': path '%s' leads out of it", top->name, path);
    sub = calloc(1, sizeof(*sub));
    if (!sub)
        return gf_nomem(err);
    sub->base = (struct gf_dir){ .ops = &sub_ops, .limits = top->limits };
    sub->top = top;
    sub->prefix = strdup(path);
    if (asprintf(&sub->base.name, "%s/%s", top->name, path) < 0)
        sub->base.name = NULL;
    if (!sub->prefix || !sub->base.name) {
        sub_free(&sub->base);
        return gf_nomem(err);
    }
    *ret = &sub->base;
    return 0;
}
