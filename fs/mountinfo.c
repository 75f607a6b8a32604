/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/mountinfo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define MOUNTS_MAX (1u << 20)

/* "\040" -> ' ', in place. */
static void unescape(char *s)
{
    char *to = s;

    for (; *s; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
            s[3] >= '0' && s[3] <= '7') {
            *to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
            s += 3;
        } else {
            *to++ = *s;
        }
    }
    *to = '\0';
}

/* Cuts the line into fields; false if it is none of mountinfo. */
static bool parse(char *line, struct gf_mountinfo *ret)
{
    char *field, *rest = line, *mountpoint = NULL, *fstype, *source;
    unsigned dev_major, dev_minor;

    line[strcspn(line, "\n")] = '\0';
    for (int i = 0; i < 5; i++) {
        field = strsep(&rest, " ");
        if (!field || (i == 2 && sscanf(field, "%u:%u", &dev_major, &dev_minor) != 2))
            return false;
        mountpoint = field;
    }
    do
        field = strsep(&rest, " ");
    while (field && strcmp(field, "-"));
    fstype = strsep(&rest, " ");
    source = strsep(&rest, " ");
    if (!fstype || !source)
        return false;
    unescape(mountpoint);
    unescape(fstype);
    unescape(source);
    *ret = (struct gf_mountinfo){ .line = line,
                                  .dev = makedev(dev_major, dev_minor),
                                  .mountpoint = mountpoint,
                                  .fstype = fstype,
                                  .source = source };
    return true;
}

int gf_mountinfo_read(struct gf_mountinfos *ret, struct gf_err *err)
{
    static const char path[] = "/proc/self/mountinfo";
    struct gf_mountinfos infos = { 0 };
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    int r = 0;

    if (!f)
        return gf_fail(err, errno, "'%s': %s", path, strerror(errno));
    while (!r && getline(&line, &room, f) > 0) {
        struct gf_mountinfo info;

        if (!parse(line, &info))
            continue;
        r = gf_vec_push(&infos.all, info, MOUNTS_MAX);
        if (!r)
            line = NULL; /* the entry's now */
    }
    free(line);
    fclose(f);
    if (r) {
        gf_mountinfo_done(&infos);
        return gf_nomem(err);
    }
    *ret = infos;
    return 0;
}

void gf_mountinfo_done(struct gf_mountinfos *infos)
{
    for (size_t i = 0; i < infos->all.n; i++)
        free(infos->all.at[i].line);
    gf_vec_free(&infos->all);
}

const struct gf_mountinfo *gf_mountinfo_at(const struct gf_mountinfos *infos,
                                           const char *mountpoint)
{
    for (size_t i = infos->all.n; i-- > 0;)
        if (!strcmp(infos->all.at[i].mountpoint, mountpoint))
            return &infos->all.at[i];
    return NULL;
}

bool gf_mountinfo_is_gatherfs(const struct gf_mountinfo *info)
{
    return info && !strcmp(info->fstype, "fuse.gatherfs");
}
