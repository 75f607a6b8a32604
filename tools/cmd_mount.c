/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_mount.c - mount SOURCE; also what `gatherfs SOURCE MOUNTPOINT` and mount(8) run.
 */
#include "fs/mount.h"
#include "tools/cmd.h"

static int run(struct gf_args *args, struct gf_err *err)
{
    args->opt.foreground = gf_args_flag(args, "foreground") != NULL;
    return gf_mount(args->word[0], args->word[1], &args->opt, args->fuse_opts, err);
}

const struct gf_cmd gf_cmd_mount = {
    .name = "mount",
    .words = "SOURCE MOUNTPOINT",
    .summary = "show SOURCE as a model directory",
    .min_words = 2,
    .max_words = 2,
    .shared = true,
    .flags = { { "foreground", 'f', NULL, "serve in the foreground until unmounted" } },
    .details =
        "Returns when the mount answers. 'gatherfs SOURCE MOUNTPOINT' is the same.\n"
        "\n"
        "Examples:\n"
        "  gatherfs mount /data/run/ckpt /mnt/model\n"
        "  gatherfs mount --dtype bf16 --max-shard-size 5GB /data/run/ckpt /mnt/model\n"
        "  /etc/fstab: /data/run/ckpt /mnt/model fuse.gatherfs nofail,allow_other 0 0\n",
    .run = run,
};
