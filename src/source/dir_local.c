/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dir_local.c - a directory of this machine, never left.
 *
 * The kernel keeps us inside: openat2(RESOLVE_BENEATH) fails with EXDEV when a path or any
 * link on the way leads out. Two ways out are allowed: everything with follow_links, and
 * links from a Hugging Face cache snapshot (.../snapshots/REV) into the blobs/ of the same
 * repository, which is how that cache stores every file.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/vec.h"
#include "source/dir.h"
#include "source/file.h"

#define MOST_TRIES 256

/* Shared by the directory and the files opened from it, which may outlive it. */
struct root {
    struct gf_reopen how;
    atomic_uint refs;
    int fd;
    bool follow_links;
    char blobs[PATH_MAX +
               2]; /* real path with a trailing '/', "" if this is no cache snapshot */
};

struct local {
    struct gf_dir base;
    struct root *root;
};

static bool is_below(int fd, const char *prefix)
{
    char link[64], path[PATH_MAX];
    ssize_t n;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n < 0)
        return false;
    path[n] = '\0';
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

/* A rename or mount anywhere on the machine while ".." of a link is followed makes the kernel
 * give up, as it cannot tell whether that led out: it asks to try again. */
static int open_beneath(int root, const char *name, int flags)
{
    struct open_how how = { .flags = (unsigned)flags,
                            .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
    long fd;

    for (int tries = 0;; tries++) {
        fd = syscall(SYS_openat2, root, name, &how, sizeof(how));
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR) || tries == MOST_TRIES)
            return fd >= 0 ? (int)fd : -errno;
        if (tries >= MOST_TRIES / 2)
            sched_yield();
    }
}

/* flags: O_PATH, or O_DIRECTORY, so that nothing is opened that opening could change. */
static int open_inside(const struct root *root, const char *path, int flags)
{
    const char *name = *path ? path : ".";
    int fd;

    flags |= O_RDONLY | O_CLOEXEC;
    if (!root->follow_links) {
        fd = open_beneath(root->fd, name, flags);
        if (fd != -EXDEV || !root->blobs[0])
            return fd;
    }
    fd = openat(root->fd, name, flags);
    if (fd < 0)
        return -errno;
    if (!root->follow_links && !is_below(fd, root->blobs)) {
        close(fd);
        return -EXDEV;
    }
    return fd;
}

/* A regular file; -EINVAL for anything else, which is looked at but not opened: that would
 * wake up the writer of a FIFO, or rewind a tape. */
static int open_file(const struct root *root, const char *path, struct stat *st)
{
    int place = open_inside(root, path, O_PATH), fd;
    char link[64];

    if (place < 0)
        return place;
    if (fstat(place, st) || !S_ISREG(st->st_mode)) {
        close(place);
        return -EINVAL;
    }
    snprintf(link, sizeof(link), "/proc/self/fd/%d", place);
    fd = open(link, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    fd = fd < 0 ? -errno : fd;
    close(place);
    if (fd >= 0 && fstat(fd, st)) {
        close(fd);
        return -EIO;
    }
    return fd;
}

static int reopen(struct gf_reopen *how, const char *path)
{
    struct stat st;
    int fd = open_file((struct root *)how, path, &st);

    return fd == -EINVAL ? -ESTALE : fd; /* something else has the name now */
}

static struct gf_reopen *root_ref(struct gf_reopen *how)
{
    atomic_fetch_add(&((struct root *)how)->refs, 1);
    return how;
}

static void root_unref(struct gf_reopen *how)
{
    struct root *root = (struct root *)how;

    if (atomic_fetch_sub(&root->refs, 1) > 1)
        return;
    if (root->fd >= 0)
        close(root->fd);
    free(root);
}

static int say(const struct gf_dir *dir, const char *path, int r, struct gf_err *err)
{
    if (r == -EXDEV)
        return gf_fail(err, EPERM,
                       "'%s': a link leads out of '%s' (allow it with follow_links)", path,
                       dir->name);
    return gf_fail(err, -r, "'%s': %s", *path ? path : dir->name, strerror(-r));
}

static int local_open(struct gf_dir *dir, const char *path, struct gf_source **ret,
                      struct gf_err *err)
{
    struct root *root = ((struct local *)dir)->root;
    struct stat st;
    int fd = open_file(root, path, &st);

    if (fd == -EINVAL)
        return gf_fail(err, EINVAL, "'%s': not a regular file", path);
    if (fd < 0)
        return say(dir, path, fd, err);
    return gf_source_file(&root->how, path, fd, &st, ret, err);
}

/* Facts through links, staying inside. */
static int stat_inside(const struct root *root, const char *path, struct stat *st)
{
    int fd = open_inside(root, path, O_PATH), r;

    if (fd < 0)
        return fd;
    r = fstat(fd, st) ? -errno : 0;
    close(fd);
    return r;
}

static bool entry_of(const struct stat *st, struct gf_dir_entry *ret)
{
    if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
        return false;
    *ret = (struct gf_dir_entry){ .is_dir = S_ISDIR(st->st_mode),
                                  .mode = st->st_mode & 0777,
                                  .identity = gf_identity_of(st) };
    return true;
}

static int local_stat(struct gf_dir *dir, const char *path, struct gf_dir_entry *ret)
{
    struct stat st;
    int r = stat_inside(((struct local *)dir)->root, path, &st);

    if (r)
        return r == -EXDEV ? -EPERM : r;
    return entry_of(&st, ret) ? 0 : -ENOENT;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct gf_dir_entry *)a)->name,
                  ((const struct gf_dir_entry *)b)->name);
}

/* One directory entry; *ret_use is false for what is neither file nor directory. */
static int look(const struct root *root, const char *path, int fd, const char *name,
                struct gf_dir_entry *ret, bool *ret_use)
{
    char below[PATH_MAX];
    struct stat st;

    *ret_use = false;
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : -errno; /* gone since: a run goes on */
    if (S_ISLNK(st.st_mode)) {
        if (snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", name) >=
                (int)sizeof(below) ||
            stat_inside(root, below, &st))
            return 0;
    }
    if (!entry_of(&st, ret))
        return 0;
    ret->name = strdup(name);
    *ret_use = true;
    return ret->name ? 0 : -ENOMEM;
}

static int local_list(struct gf_dir *dir, const char *path, struct gf_dir_listing *ret,
                      struct gf_err *err)
{
    struct root *root = ((struct local *)dir)->root;
    struct GF_VEC(struct gf_dir_entry) entries = { 0 };
    int fd = open_inside(root, path, O_DIRECTORY), r = 0;
    struct dirent *d;
    DIR *stream;

    if (fd < 0)
        return say(dir, path, fd, err);
    stream = fdopendir(fd);
    if (!stream) {
        close(fd);
        return gf_nomem(err);
    }
    while (!r && (errno = 0, d = readdir(stream))) {
        struct gf_dir_entry entry;
        bool use;

        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        r = look(root, path, dirfd(stream), d->d_name, &entry, &use);
        if (!r && use)
            r = gf_vec_push(&entries, entry, dir->limits->dir_entries);
    }
    if (!r && errno)
        r = -errno;
    closedir(stream);
    *ret = (struct gf_dir_listing){ entries.at, entries.n };
    if (r) {
        gf_dir_listing_free(ret);
        return r == -E2BIG ? gf_fail(err, GF_EBAD, "'%s': more than %zu entries",
                                     *path ? path : dir->name, dir->limits->dir_entries)
                           : say(dir, path, r, err);
    }
    if (entries.n)
        qsort(entries.at, entries.n, sizeof(*entries.at), by_name);
    return 0;
}

static void local_free(struct gf_dir *dir)
{
    root_unref(&((struct local *)dir)->root->how);
    free(dir->name);
    free(dir);
}

static const struct gf_dir_ops local_ops = {
    .list = local_list,
    .open = local_open,
    .stat = local_stat,
    .free = local_free,
};

/* For .../snapshots/REV the real path of .../blobs/, if that is there. */
static void find_blobs(struct root *root, const char *path)
{
    char real[PATH_MAX], up[PATH_MAX];
    char *slash, *parent;

    if (!realpath(path, real) || !(slash = strrchr(real, '/')))
        return;
    *slash = '\0';
    parent = strrchr(real, '/');
    if (!parent || strcmp(parent, "/snapshots") != 0)
        return;
    *parent = '\0';
    if (snprintf(up, sizeof(up), "%s/blobs", real) < (int)sizeof(up) && realpath(up, real))
        snprintf(root->blobs, sizeof(root->blobs), "%s/", real);
}

int gf_dir_local(const char *path, bool follow_links, const struct gf_limits *limits,
                 struct gf_dir **ret, struct gf_err *err)
{
    struct local *dir = calloc(1, sizeof(*dir));
    struct root *root = calloc(1, sizeof(*root));
    char *name = strdup(path);

    if (!dir || !root || !name) {
        free(dir);
        free(root);
        free(name);
        return gf_nomem(err);
    }
    *root = (struct root){ .how = { reopen, root_ref, root_unref },
                           .refs = 1,
                           .follow_links = follow_links };
    dir->base = (struct gf_dir){ .ops = &local_ops, .name = name, .limits = limits };
    dir->root = root;
    root->fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root->fd < 0) {
        int code = errno;

        local_free(&dir->base);
        return gf_fail(err, code, "'%s': %s", path, strerror(code));
    }
    find_blobs(root, path);
    *ret = &dir->base;
    return 0;
}
