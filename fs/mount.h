/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mount.h - the door of fs/ for the commands: mount, unmount, list.
 */
#ifndef GF_FS_MOUNT_H
#define GF_FS_MOUNT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "snapshot/options.h"

/* Mounts SOURCE and returns when the mount answers, with a background process serving it;
 * with opt->foreground it serves it itself and returns when unmounted. A start that fails
 * or takes longer than opt->timeout leaves neither process nor mount behind. fuse_opts:
 * libfuse's own options, or NULL. The caller has a single thread and has flushed stdio. */
int gf_mount(const char *source, const char *mountpoint, const struct gf_options *opt,
             const char *fuse_opts, struct gf_err *err);

/* Unmounts a gatherfs mount: as root by itself, else by fusermount3. lazy: also while
 * files on it are open. */
int gf_umount(const char *mountpoint, bool lazy, struct gf_err *err);

struct gf_mount_entry {
    char *source, *mountpoint;
};

/* This machine's gatherfs mounts, as far as this process sees them. */
int gf_mounts_list(struct gf_mount_entry **ret, size_t *ret_n, struct gf_err *err);
void gf_mounts_free(struct gf_mount_entry *mounts, size_t n);

#endif
