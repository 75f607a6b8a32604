/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mountinfo.h - what is mounted where: /proc/self/mountinfo.
 *
 *     98 29 0:52 / /mnt/a\040b ro,nosuid shared:1 - fuse.gatherfs /ckpt ro,user_id=0
 *           ~dev   ~mountpoint    (any number)      ~fstype       ~source
 */
#ifndef GF_FS_MOUNTINFO_H
#define GF_FS_MOUNTINFO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/vec.h"

struct gf_mountinfo {
    char *line; /* owns the strings */
    dev_t dev;
    const char *mountpoint, *fstype, *source;
};

struct gf_mountinfos {
    struct GF_VEC(struct gf_mountinfo) all; /* the later one of a place hides the earlier */
};

int gf_mountinfo_read(struct gf_mountinfos *ret, struct gf_err *err);
void gf_mountinfo_done(struct gf_mountinfos *infos);

/* What is seen at `mountpoint` (an absolute path without links): NULL if nothing is mounted
 * right there. */
const struct gf_mountinfo *gf_mountinfo_at(const struct gf_mountinfos *infos,
                                           const char *mountpoint);

bool gf_mountinfo_is_gatherfs(const struct gf_mountinfo *info); /* NULL: no */

#endif
