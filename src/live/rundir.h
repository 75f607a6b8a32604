/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rundir.h - where running jobs are found on a node.
 *
 *     BASE = $GATHERFS_RUNDIR, else $XDG_RUNTIME_DIR/gatherfs, else /tmp/gatherfs-UID
 *     BASE/JOB/rank-R.sock      a listening publisher; refused connection: stale
 *     BASE/JOB/model/           config.json, tokenizer, ... : small files, each renamed in
 *     BASE/JOB/agent.sock       the agent of the node, for further gatherfs processes
 *
 * All directories have mode 0700 when made here; one that is a link, belongs to somebody
 * else (root may use other people's), or that others can write to, is refused. Sockets are
 * reached through the directory's descriptor, so paths may be long and cannot be swapped.
 * Who binds, removes or takes over names in JOB holds flock(2) on the directory.
 */
#ifndef GF_LIVE_RUNDIR_H
#define GF_LIVE_RUNDIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "base/err.h"

#define GF_LIVE_JOB_MAX 63

/* Letters, digits, '.', '_' and '-', not starting with '.', at most GF_LIVE_JOB_MAX. */
bool gf_live_job_valid(const char *job);

/* The directory of a job, which is a name or (with a '/') a path, as a new string. */
int gf_live_job_path(const char *job, char **ret, struct gf_err *err);

/* BASE itself, where names are listed; as a new string. */
int gf_live_base_path(char **ret, struct gf_err *err);

/* Opens that directory after the checks above; `make` creates what is missing. */
int gf_live_dir_open(const char *path, bool make, int *ret_fd, struct gf_err *err);

/* "rank-3.sock" -> 3. */
bool gf_live_socket_rank(const char *name, uint32_t *ret);

/* The address of NAME in an open job directory. */
void gf_live_address(int dirfd, const char *name, struct sockaddr_un *ret);

/* Connects to NAME in a job directory, whose owner the peer must be: a non-blocking SOCK_SEQPACKET
 * socket. -ECONNREFUSED: stale, its process is gone. -EAGAIN: alive, but does not answer. */
int gf_live_connect(int dirfd, const char *name, int *ret_sock, struct gf_err *err);

#endif
