/* SPDX-License-Identifier: Apache-2.0 */
/*
 * no_fuse.c - the commands that need libfuse3, in a build without it.
 */
#include "tools/cmd.h"

static int run(struct gf_args *args, struct gf_err *err)
{
    return gf_fail(err, ENOSYS,
                   "'%s' needs libfuse3, which this gatherfs was built without",
                   args->cmd->name);
}

#define WITHOUT_FUSE(name_, words_, max_)                                                  \
    const struct gf_cmd gf_cmd_##name_ = { .name = #name_,                                 \
                                           .words = words_,                                \
                                           .summary = "not in this build: needs libfuse3", \
                                           .max_words = max_,                              \
                                           .shared = true,                                 \
                                           .run = run }

WITHOUT_FUSE(mount, "SOURCE MOUNTPOINT", 2);
WITHOUT_FUSE(umount, "MOUNTPOINT", 1);
WITHOUT_FUSE(status, "[MOUNTPOINT]", 1);
