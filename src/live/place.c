/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place.c - the publisher's place in the run directory (rundir.h): directory, socket, side
 * files, and which run this is. Names are made and removed under flock(2) on the job's
 * directory, so that a starting and an ending rank do not undo each other's work.
 */
#include "live/publish_int.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/strmap.h"
#include "live/rundir.h"

#define SOCKET_NAME 32
#define MAX_FILE ((size_t)256 << 20)

static void socket_name(const struct gatherfs_pub *pub, char name[SOCKET_NAME])
{
    snprintf(name, SOCKET_NAME, "rank-%u.sock", pub->table.rank);
}

/* Never for long: who holds it could have been stopped. */
static bool lock_dir(int dirfd)
{
    for (int i = 0; i < 300; i++) {
        if (flock(dirfd, LOCK_EX | LOCK_NB) == 0)
            return true;
        usleep(10000);
    }
    return false;
}

/* Opens BASE/JOB, made where it is missing, and locks it. */
int gf_pub_place_open(struct gatherfs_pub *pub, const char *rundir, const char *job,
                      struct gf_err *err)
{
    GF_AUTO_MEM char *base = NULL;
    int fd;

    if (!gf_live_job_valid(job))
        return gf_fail(err, EINVAL,
                       "job '%s': wanted 1 to %d letters, digits, '.', '_' or '-'", job,
                       GF_LIVE_JOB_MAX);
    if (rundir ? !(base = strdup(rundir)) : gf_live_base_path(&base, err))
        return rundir ? gf_nomem(err) : -err->code;
    if (asprintf(&pub->dir, "%s/%s", base, job) < 0) {
        pub->dir = NULL;
        return gf_nomem(err);
    }
    if (gf_live_dir_open(base, true, &fd, err))
        return -err->code;
    close(fd);
    /* The last rank of an earlier run may be removing it at this moment. */
    for (int i = 0;; i++) {
        int r = gf_live_dir_open(pub->dir, true, &pub->dirfd, err);
        struct stat mine, there;

        if (r && (r != -ENOENT || i == 100))
            return r;
        if (r)
            continue;
        if (!lock_dir(pub->dirfd))
            return gf_fail(err, EBUSY, "'%s' is locked by another process", pub->dir);
        if (fstat(pub->dirfd, &mine) == 0 && stat(pub->dir, &there) == 0 &&
            mine.st_ino == there.st_ino && mine.st_dev == there.st_dev)
            return 0;
        close(pub->dirfd);
        pub->dirfd = -1;
        if (i == 100)
            return gf_fail(err, EAGAIN, "'%s' is being replaced all the time", pub->dir);
    }
}

/* Takes the rank's socket over from a dead process, never from a live one. */
int gf_pub_listen(struct gatherfs_pub *pub, struct gf_err *err)
{
    char name[SOCKET_NAME];
    struct sockaddr_un address;
    int sock, r;

    socket_name(pub, name);
    r = gf_live_connect(pub->dirfd, name, &sock, err);
    if (r == 0)
        close(sock);
    if (r == 0 || r == -EAGAIN)
        return gf_fail(err, EADDRINUSE,
                       "rank %u of job '%s' is being published by another process, in '%s'",
                       pub->table.rank, pub->table.job, pub->dir);
    if (r == -ECONNREFUSED)
        unlinkat(pub->dirfd, name, 0);
    pub->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    gf_live_address(pub->dirfd, name, &address);
    if (pub->listener < 0 ||
        bind(pub->listener, (struct sockaddr *)&address, sizeof(address)) ||
        listen(pub->listener, 8))
        return gf_fail(err, errno, "listening at '%s/%s': %s", pub->dir, name,
                       strerror(errno));
    return 0;
}

static int open_model(const struct gatherfs_pub *pub)
{
    return openat(pub->dirfd, "model", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* `rundir` may be any directory: what others put there, also in our files' place, stays. */
static void remove_files(struct gatherfs_pub *pub)
{
    int dir = pub->files.n ? open_model(pub) : -1;

    for (size_t i = 0; i < pub->files.n; i++) {
        const struct gf_pub_file *f = &pub->files.at[i];
        struct stat st;

        if (dir >= 0 && !fstatat(dir, f->name, &st, AT_SYMLINK_NOFOLLOW) &&
            st.st_dev == f->dev && st.st_ino == f->ino &&
            st.st_mtim.tv_sec == f->written.tv_sec &&
            st.st_mtim.tv_nsec == f->written.tv_nsec)
            unlinkat(dir, f->name, 0);
    }
    if (dir >= 0)
        close(dir);
}

static void forget_files(struct gatherfs_pub *pub)
{
    for (size_t i = 0; i < pub->files.n; i++)
        free(pub->files.at[i].name);
    gf_vec_free(&pub->files);
}

/* The last rank that leaves takes the directories along, if they are empty. */
static void clear_job(struct gatherfs_pub *pub)
{
    DIR *dir;
    uint32_t rank;
    int fd = openat(pub->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool others = false;

    if (fd < 0)
        return;
    if (!(dir = fdopendir(fd))) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));)
        others |= gf_live_socket_rank(e->d_name, &rank);
    closedir(dir);
    if (others)
        return;
    unlinkat(pub->dirfd, "model", AT_REMOVEDIR);
    rmdir(pub->dir);
}

void gf_pub_place_close(struct gatherfs_pub *pub)
{
    char name[SOCKET_NAME];

    if (pub->dirfd >= 0) {
        bool locked = lock_dir(pub->dirfd);

        if (pub->listener >= 0) {
            socket_name(pub, name);
            unlinkat(pub->dirfd, name, 0);
        }
        remove_files(pub);
        if (locked)
            clear_job(pub);
        close(pub->dirfd);
    }
    forget_files(pub);
    if (pub->listener >= 0)
        close(pub->listener);
    pub->dirfd = pub->listener = -1;
}

/* Where it is noted that this file is ours. */
static struct gf_pub_file *file_entry(struct gatherfs_pub *pub, const char *name)
{
    struct gf_pub_file fresh = { 0 };

    for (size_t i = 0; i < pub->files.n; i++)
        if (!strcmp(pub->files.at[i].name, name))
            return &pub->files.at[i];
    fresh.name = strdup(name);
    if (!fresh.name || gf_vec_push(&pub->files, fresh, SIZE_MAX / sizeof(fresh))) {
        free(fresh.name);
        return NULL;
    }
    return &pub->files.at[pub->files.n - 1];
}

static int write_file(int dir, const char *temporary, struct gf_pub_file *file,
                      const char *data, size_t size)
{
    int fd =
        openat(dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    struct stat st;
    int code = 0;

    if (fd < 0)
        return -errno;
    for (size_t at = 0; at < size && !code;) {
        ssize_t n = write(fd, data + at, size - at);

        if (n < 0 && errno != EINTR)
            code = errno;
        at += n > 0 ? (size_t)n : 0;
    }
    if (!code && fstat(fd, &st))
        code = errno;
    if (close(fd) && !code)
        code = errno;
    if (!code && renameat(dir, temporary, dir, file->name))
        code = errno;
    if (code) {
        unlinkat(dir, temporary, 0);
        return -code;
    }
    file->dev = st.st_dev;
    file->ino = st.st_ino;
    file->written = st.st_mtim;
    return 0;
}

int gatherfs_pub_file(struct gatherfs_pub *pub, const char *name, const void *data,
                      size_t size)
{
    struct gf_err *err = gf_pub_err();
    struct gf_pub_file *file;
    char temporary[64];
    int dir, r;

    if (pub->dead)
        return 0;
    if (!name[0] || name[0] == '.' || strchr(name, '/') || strlen(name) > 200)
        return gf_fail(err, EINVAL, "'%s' cannot be the name of a side file", name);
    if (size > MAX_FILE)
        return gf_fail(err, EFBIG, "side file '%s' has %zu bytes, at most %zu", name, size,
                       MAX_FILE);
    file = file_entry(pub, name);
    if (!file)
        return gf_nomem(err);
    if (mkdirat(pub->dirfd, "model", 0700) && errno != EEXIST)
        return gf_fail(err, errno, "making '%s/model': %s", pub->dir, strerror(errno));
    dir = open_model(pub);
    if (dir < 0)
        return gf_fail(err, errno, "opening '%s/model': %s", pub->dir, strerror(errno));
    snprintf(temporary, sizeof(temporary), ".rank-%u.part", pub->table.rank);
    r = write_file(dir, temporary, file, data, size);
    close(dir);
    return r ? gf_fail(err, -r, "writing '%s/model/%s': %s", pub->dir, name, strerror(-r))
             : 0;
}

/* Ranks do not talk to each other here, so what launchers tell all of them must do: it is
 * the same for all ranks of one start, and another after a restart by torchrun or SLURM. */
void gf_pub_run_id(const char *job, uint32_t world, const char *run_id, uint8_t ret[16])
{
    static const char *const told[] = { "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT",
                                        "SLURM_JOB_ID",        "SLURM_RESTART_COUNT",
                                        "MASTER_ADDR",         "MASTER_PORT" };
    uint64_t hash[2] = { 1, 2 };

    for (size_t i = 0; i < 2; i++) {
        hash[i] = gf_hash(hash[i], job, strlen(job));
        hash[i] = gf_hash(hash[i], &world, sizeof(world));
        if (run_id)
            hash[i] = gf_hash(hash[i], run_id, strlen(run_id));
        for (size_t k = 0; !run_id && k < sizeof(told) / sizeof(*told); k++) {
            const char *value = getenv(told[k]);

            hash[i] = gf_hash(hash[i] + k, value ? value : "", value ? strlen(value) : 0);
        }
    }
    memcpy(ret, hash, 16);
}
