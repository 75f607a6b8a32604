/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctl.h - the generated files of .gatherfs/: what a mount says about itself.
 *
 *     status.json          the source (report.h) and the mount
 *     stats.json           the counters alone
 *     metrics              the counters for Prometheus (text format 0.0.4)
 *     provenance/F.json    where each byte of F comes from (report.h)
 *
 * Text is made at each open and kept by that handle; stat() makes it once more for its
 * size.
 */
#ifndef GF_FS_CTL_H
#define GF_FS_CTL_H

#include "fs/fs.h"

bool gf_ctl_is_text(enum gf_node_kind kind);

/* The text of such a node; free() it. */
int gf_ctl_text(struct gf_fs *fs, const struct gf_place *place, char **ret, size_t *ret_len,
                struct gf_err *err);

#endif
