/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - one mount from mount(2) to its end, in the process that serves it.
 */
#ifndef GF_FS_SESSION_H
#define GF_FS_SESSION_H

#include "base/err.h"
#include "snapshot/options.h"

/* Mounts and serves SOURCE until it is unmounted or a SIGTERM, SIGINT or SIGHUP comes.
 * `ready` is called once the mount answers; what it returns (0 or -errno) decides whether
 * the mount goes on. `mountpoint` is absolute. */
int gf_session_run(const char *source, const char *mountpoint, const struct gf_options *opt,
                   const char *fuse_opts, int (*ready)(void *ctx), void *ctx,
                   struct gf_err *err);

#endif
