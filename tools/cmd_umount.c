/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_umount.c - end a mount.
 */
#include "fs/mount.h"
#include "tools/cmd.h"

static int run(struct gf_args *args, struct gf_err *err)
{
    return gf_umount(args->word[0], gf_args_flag(args, "lazy") != NULL, err);
}

const struct gf_cmd gf_cmd_umount = {
    .name = "umount",
    .words = "MOUNTPOINT",
    .summary = "end a mount",
    .min_words = 1,
    .max_words = 1,
    .flags = { { "lazy", 'z', NULL,
                 "also while in use: it ends when its last file is closed" } },
    .details = "Examples:\n"
               "  gatherfs umount /mnt/model\n",
    .run = run,
};
