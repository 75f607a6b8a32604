/* SPDX-License-Identifier: Apache-2.0 */
/*
 * budget.c - how much memory is left for this process. Reads /proc/meminfo and the cgroups
 * that /proc/self/cgroup names, up to the root: v2 memory.max and memory.current, v1
 * memory.limit_in_bytes and memory.usage_in_bytes; file cache that the kernel would give up
 * (inactive_file) counts as free. What cannot be read does not limit.
 */
#include "live/publish_int.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/math.h"

/* The beginning of a small file as text; false if there is none. */
static bool slurp(const char *root, const char *path, char *buf, size_t room)
{
    GF_AUTO_MEM char *full = NULL;
    ssize_t n;
    int fd;

    if (asprintf(&full, "%s%s", root, path) < 0) {
        full = NULL;
        return false;
    }
    fd = open(full, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = read(fd, buf, room - 1);
    close(fd);
    if (n < 0)
        return false;
    buf[n] = '\0';
    return true;
}

/* The number behind `key` in "key number" lines; 0 if it isn't there. */
static uint64_t number_of(const char *text, const char *key)
{
    size_t len = strlen(key);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0)
            return strtoull(line + len, NULL, 10);
    }
    return 0;
}

struct version {
    const char *mount, *max, *current, *cache;
};

/* Bytes left in one cgroup; UINT64_MAX: no limit there. */
static uint64_t cgroup_left(const char *root, const struct version *v, const char *group)
{
    const char *const files[] = { v->max, v->current, "memory.stat" };
    uint64_t value[GF_COUNT(files)];
    char text[8192];

    for (size_t i = 0; i < GF_COUNT(files); i++) {
        GF_AUTO_MEM char *path = NULL;

        if (asprintf(&path, "%s%s/%s", v->mount, group, files[i]) < 0) {
            path = NULL;
            return UINT64_MAX;
        }
        if (!slurp(root, path, text, sizeof(text)) || strncmp(text, "max", 3) == 0)
            return UINT64_MAX;
        value[i] = i < 2 ? strtoull(text, NULL, 10) : number_of(text, v->cache);
    }
    value[1] -= GF_MIN(value[1], value[2]);
    return value[0] > value[1] ? value[0] - value[1] : 0;
}

/* The least over a cgroup and those above it. */
static uint64_t cgroups_left(const char *root, const struct version *v, char *group)
{
    uint64_t left = UINT64_MAX;

    for (;;) {
        uint64_t here = cgroup_left(root, v, strcmp(group, "/") == 0 ? "" : group);
        char *slash = strrchr(group, '/');

        left = GF_MIN(left, here);
        if (!slash || !group[1])
            return left;
        slash[slash == group ? 1 : 0] = '\0';
    }
}

uint64_t gf_budget_available(const char *root)
{
    static const struct version v2 = { "/sys/fs/cgroup", "memory.max", "memory.current",
                                       "inactive_file " };
    static const struct version v1 = { "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                       "memory.usage_in_bytes", "total_inactive_file " };
    uint64_t left = UINT64_MAX;
    char text[8192], *rest = text;

    if (slurp(root, "/proc/meminfo", text, sizeof(text)) &&
        number_of(text, "MemAvailable:"))
        left = number_of(text, "MemAvailable:") * 1024;
    if (!slurp(root, "/proc/self/cgroup", text, sizeof(text)))
        return left;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        uint64_t here = UINT64_MAX;

        if (!path || path[1] != '/')
            continue;
        *path++ = '\0';
        if (strcmp(names, ":") == 0)
            here = cgroups_left(root, &v2, path);
        else if (strstr(names, "memory"))
            here = cgroups_left(root, &v1, path);
        left = GF_MIN(left, here);
    }
    return left;
}
