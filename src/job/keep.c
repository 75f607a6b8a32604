/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keep.c - side files (BASE/JOB/model/, live/rundir.h) that outlive the publishers.
 *
 * A publisher takes its own files away when it ends, and leaves what others put in their
 * place. So the agent, which has the last step for its guests, replaces them by copies while
 * training ends, and takes those away itself. Only one thread at a time may do so.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "job/job_int.h"
#include "live/rundir.h"

#define TEMPORARY ".agent.part"

static int open_model(int job)
{
    return openat(job, "model", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static int write_copy(int dir, const char *name, const char *bytes, size_t len,
                      struct stat *ret)
{
    int fd =
        openat(dir, TEMPORARY, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int code = 0;

    if (fd < 0)
        return -errno;
    for (size_t at = 0; at < len && !code;) {
        ssize_t n = write(fd, bytes + at, len - at);

        if (n < 0 && errno != EINTR)
            code = errno;
        at += n > 0 ? (size_t)n : 0;
    }
    if (!code && fstat(fd, ret))
        code = errno;
    if (close(fd) && !code)
        code = errno;
    if (!code && renameat(dir, TEMPORARY, dir, name))
        code = errno;
    if (code)
        unlinkat(dir, TEMPORARY, 0);
    return -code;
}

/* What the list says is ours is there, or nothing is. */
static int put(struct gf_job *job, int dir, const char *name, const void *bytes, size_t len)
{
    struct gf_side side = { .name = strdup(name) };
    struct stat st;
    int r;

    if (!side.name || gf_vec_reserve(&job->sides, 1, SIZE_MAX / sizeof(side))) {
        free(side.name);
        return -ENOMEM;
    }
    r = write_copy(dir, name, bytes, len, &st);
    if (r) {
        free(side.name);
        return r;
    }
    side.dev = st.st_dev;
    side.ino = st.st_ino;
    side.written = st.st_mtim;
    job->sides.at[job->sides.n++] = side;
    return 0;
}

int gf_job_side_keep(struct gf_job *job, const char *name, const void *bytes, size_t len,
                     struct gf_err *err)
{
    int fd, dir, r = gf_live_dir_open(job->dir, false, &fd, err);

    if (r)
        return r;
    if (mkdirat(fd, "model", 0700) && errno != EEXIST)
        r = -errno;
    dir = r ? -1 : open_model(fd);
    if (!r)
        r = dir < 0 ? -errno : put(job, dir, name, bytes, len);
    if (dir >= 0)
        close(dir);
    close(fd);
    return r ? gf_fail(err, -r, "writing '%s/model/%s': %s", job->dir, name, strerror(-r))
             : 0;
}

/* No publisher is there that needs the directory, or is just beginning. */
static bool is_deserted(int job)
{
    int fd = flock(job, LOCK_EX | LOCK_NB)
                 ? -1
                 : openat(job, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    bool deserted = dir;
    uint32_t rank;

    if (!dir && fd >= 0)
        close(fd);
    for (struct dirent *e; dir && (e = readdir(dir));)
        deserted &= !gf_live_socket_rank(e->d_name, &rank);
    if (dir)
        closedir(dir);
    return deserted;
}

void gf_job_side_drop(struct gf_job *job)
{
    int fd = -1, dir;

    if (!job->sides.n)
        return;
    dir = gf_live_dir_open(job->dir, false, &fd, NULL) ? -1 : open_model(fd);
    for (size_t i = 0; i < job->sides.n; i++) {
        const struct gf_side *side = &job->sides.at[i];
        struct stat st;

        /* A restarted job may have put its own there. */
        if (dir >= 0 && !fstatat(dir, side->name, &st, AT_SYMLINK_NOFOLLOW) &&
            st.st_dev == side->dev && st.st_ino == side->ino &&
            st.st_mtim.tv_sec == side->written.tv_sec &&
            st.st_mtim.tv_nsec == side->written.tv_nsec)
            unlinkat(dir, side->name, 0);
        free(side->name);
    }
    gf_vec_free(&job->sides);
    if (dir >= 0)
        close(dir);
    if (fd >= 0 && is_deserted(fd))
        unlinkat(fd, "model", AT_REMOVEDIR);
    if (fd >= 0)
        close(fd);
}
