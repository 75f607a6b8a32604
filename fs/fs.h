/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs.h - one mount: what the request handlers, the generated files and the session share.
 *
 * Requests are answered by up to `threads` threads of libfuse. What they share is either
 * read-only after the start, atomic (the counters), or has its own lock: the tree, the list
 * of open handles, the kept log lines. None of these locks is held while another is taken
 * or while the kernel is talked to. Reads take none: a handle has all that a read needs.
 */
#ifndef GF_FS_FS_H
#define GF_FS_FS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/log.h"
#include "base/text.h"
#include "fs/tree.h"
#include "fs/walk.h"
#include "snapshot/run.h"

#define GF_LOG_LINES 20
#define GF_REPLY_IOVS 1023 /* UIO_MAXIOV less libfuse's own header */

/* An open file or directory, from OPEN to RELEASE. */
struct gf_handle {
    struct gf_handle *prev, *next; /* the list of all, for an unmount without RELEASEs */
    struct gf_node *node;
    struct gf_snapshot *pinned; /* of a file: one reference and one pin */
    bool entered;               /* ... and its weights are being read by ... */
    pid_t reader;
    char *text; /* of a generated file */
    size_t len;
    struct gf_listing list; /* of a directory */
};

/* What a thread keeps between reads, so that they allocate nothing. */
struct gf_thread {
    struct gf_scratch scratch;
    struct iovec iov[GF_REPLY_IOVS];
};

struct gf_fs {
    const struct gf_options *opt;
    const char *mountpoint, *fuse_opts; /* fuse_opts may be NULL */
    struct gf_run *run;
    struct gf_tree *tree;
    pthread_key_t thread; /* struct gf_thread */
    struct timespec started;
    int64_t mtime_ns; /* of SOURCE: for what belongs to no checkpoint */
    uid_t uid;
    gid_t gid;
    unsigned threads;
    atomic_uint_fast64_t read_ahead_kb; /* as set; 0: the kernel's own */

    pthread_mutex_t handles_lock;
    struct gf_handle *handles;

    pthread_mutex_t log_lock;
    char log[GF_LOG_LINES][256]; /* a ring of the last lines, for status.json */
    size_t log_n;                /* lines ever */

    atomic_uint_fast64_t opens, open_files, lookups, reads, bytes, errors;
    atomic_uint_fast64_t read_ns; /* spent in reads, of all threads together */
};

/* How long the kernel may keep what cannot change, in seconds: forget and ask again once a
 * day. What training replaces may be seen a poll and this late, within two seconds. */
#define GF_LONG 86400.0
#define GF_SHORT 0.5

extern const struct fuse_lowlevel_ops gf_ops;

/* Opens SOURCE. What is passed is borrowed. gf_fs_done() only after success. */
int gf_fs_init(struct gf_fs *fs, const char *source, const char *mountpoint,
               const struct gf_options *opt, const char *fuse_opts, struct gf_err *err);
void gf_fs_done(struct gf_fs *fs);

/* The calling thread's, made at its first read; NULL when out of memory. */
struct gf_thread *gf_fs_thread(struct gf_fs *fs);

struct gf_handle *gf_handle_new(struct gf_fs *fs, struct gf_node *node);
void gf_handle_free(struct gf_fs *fs, struct gf_handle *handle);

/* To the log, rate-limited, and to the last lines of status.json. */
void gf_fs_log(struct gf_fs *fs, enum gf_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
