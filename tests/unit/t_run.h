/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t_run.h - runs on disk, for the tests of what is read from a real directory: tiny
 * safetensors files whose one tensor `w` tells which they are.
 */
#ifndef GF_TESTS_T_RUN_H
#define GF_TESTS_T_RUN_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/options.h"

struct t_run {
    char top[64];
    struct gf_options opt;
};

static inline int t_run_setup(void **state)
{
    struct t_run *t = calloc(1, sizeof(*t));

    snprintf(t->top, sizeof(t->top), "/tmp/gatherfs-run.XXXXXX");
    assert_non_null(mkdtemp(t->top));
    gf_options_init(&t->opt);
    *state = t;
    return 0;
}

static inline void t_run_shell(const struct t_run *t, const char *command)
{
    char line[512];

    snprintf(line, sizeof(line), "cd '%s' && %s", t->top, command);
    assert_int_equal(system(line), 0);
}

static inline int t_run_teardown(void **state)
{
    struct t_run *t = *state;

    t_run_shell(t, "rm -rf \"$PWD\"");
    gf_options_done(&t->opt);
    free(t);
    return 0;
}

static inline const char *t_run_path(const struct t_run *t, const char *path)
{
    static char full[4][512];
    static unsigned at;
    char *p = full[at++ % 4];

    snprintf(p, sizeof(full[0]), "%s%s%s", t->top, *path ? "/" : "", path);
    return p;
}

/* A file with its directories; written anew under another inode, as trainers do. */
static inline void t_run_write(const struct t_run *t, const char *path, const void *bytes,
                               size_t len)
{
    char full[512];
    int fd;

    snprintf(full, sizeof(full), "%s/%s", t->top, path);
    for (char *slash = strchr(full + strlen(t->top) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        assert_true(mkdir(full, 0755) == 0 || errno == EEXIST);
        *slash = '/';
    }
    unlink(full);
    fd = open(full, O_WRONLY | O_CREAT | O_EXCL, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
}

static inline void t_run_text(const struct t_run *t, const char *path, const char *text)
{
    t_run_write(t, path, text, strlen(text));
}

/* Tensors called as in `names` ("a b c"), each four floats: value, value, ... */
static inline void t_run_tensors(const struct t_run *t, const char *path, const char *names,
                                 float value)
{
    char file[2048] = { 0 }, list[256], *rest = list, *name;
    size_t at = 8, n = 0, len;

    snprintf(list, sizeof(list), "%s", names);
    at += (size_t)snprintf(file + at, sizeof(file) - at, "{");
    for (; (name = strsep(&rest, " ")); n++)
        at += (size_t)snprintf(file + at, sizeof(file) - at,
                               "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[4],"
                               "\"data_offsets\":[%zu,%zu]}",
                               n ? "," : "", name, n * 16, n * 16 + 16);
    file[at++] = '}';
    len = at - 8;
    memcpy(file, &len, sizeof(len));
    for (size_t i = 0; i < n * 4; i++, at += sizeof(value))
        memcpy(file + at, &value, sizeof(value));
    t_run_write(t, path, file, at);
}

static inline void t_run_model(const struct t_run *t, const char *dir, float value)
{
    char path[256];

    snprintf(path, sizeof(path), "%s%smodel.safetensors", dir, *dir ? "/" : "");
    t_run_tensors(t, path, "w", value);
}

#endif
