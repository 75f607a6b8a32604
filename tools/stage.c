/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/stage.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/side.h"

struct gf_stage {
    char dest[PATH_MAX]; /* absolute, links resolved */
    char part[PATH_MAX]; /* dest with SUFFIX */
    char old[PATH_MAX];  /* where commit has put what was in dest */
    int fd;              /* of part; holds the lock */
    int old_fd;          /* of what dest replaces, locked as well; or -1 */
    bool replace, committed;
};

#define SUFFIX ".gatherfs-part"

/* How often an export that ends may take the staging directory from under us. */
#define MAX_TRIES 16

/* ---------------------------------------------------------------- where */

/* The absolute path of DEST, which need not exist though its parent must. */
static int resolve(const char *dest, char ret[static PATH_MAX], struct gf_err *err)
{
    size_t len = strlen(dest);
    GF_AUTO_MEM char *path = strdup(dest);
    char parent[PATH_MAX];
    const char *name;
    char *slash;

    if (!path)
        return gf_nomem(err);
    if (realpath(dest, ret))
        return 0;
    while (len > 1 && path[len - 1] == '/')
        path[--len] = '\0';
    slash = strrchr(path, '/');
    name = slash ? slash + 1 : path;
    if (slash)
        *slash = '\0';
    if (!realpath(slash ? (slash == path ? "/" : path) : ".", parent))
        return gf_fail(err, errno, "'%s': %s", slash ? path : dest, strerror(errno));
    if (!*name || !strcmp(name, ".") || !strcmp(name, ".."))
        return gf_fail(err, EINVAL, "'%s' is no name for a directory", dest);
    if (snprintf(ret, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", name) >=
        PATH_MAX)
        return gf_fail(err, ENAMETOOLONG, "'%s': the path is too long", dest);
    return 0;
}

/* Is `path` the directory `dir` or below it? Both absolute. */
static bool is_below(const char *path, const char *dir)
{
    size_t len = strlen(dir);

    if (!strcmp(dir, "/"))
        return true;
    return !strncmp(path, dir, len) && (path[len] == '/' || !path[len]);
}

/* What is in DEST already: nothing, files, or a sub-directory (its name in ret). */
static int look_inside(const char *dest, bool *ret_empty, char ret_dir[static NAME_MAX + 1],
                       struct gf_err *err)
{
    struct dirent *entry;
    struct stat st;
    DIR *dir = opendir(dest);

    *ret_empty = true;
    ret_dir[0] = '\0';
    if (!dir && errno == ENOENT)
        return 0;
    if (!dir)
        return gf_fail(err, errno, "'%s': %s", dest, strerror(errno));
    while ((entry = readdir(dir))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        *ret_empty = false;
        if (!strcmp(entry->d_name, GF_CHAT_TEMPLATES)) /* what an export had in it */
            continue;
        if (!fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
            S_ISDIR(st.st_mode))
            snprintf(ret_dir, NAME_MAX + 1, "%s", entry->d_name);
    }
    closedir(dir);
    return 0;
}

/* A mountpoint cannot be renamed, which would show only when all is written. */
static int check_mountpoint(const char *dest, struct gf_err *err)
{
    struct stat self, parent;
    char up[PATH_MAX];

    if (snprintf(up, sizeof(up), "%s/..", dest) >= (int)sizeof(up))
        return gf_fail(err, ENAMETOOLONG, "'%s': the path is too long", dest);
    if (!stat(dest, &self) && !stat(up, &parent) && self.st_dev != parent.st_dev)
        return gf_fail(err, EBUSY,
                       "'%s' is a mountpoint and cannot be replaced, export to a new "
                       "directory in it",
                       dest);
    return 0;
}

static int check_dest(const struct gf_stage *stage, const char *source, struct gf_err *err)
{
    char real[PATH_MAX], inside[NAME_MAX + 1];
    bool empty;
    int r = check_mountpoint(stage->dest, err);

    if (!r)
        r = look_inside(stage->dest, &empty, inside, err);
    if (r || empty)
        return r;
    if (!stage->replace)
        return gf_fail(err, EEXIST, "'%s' is not empty, --force replaces it", stage->dest);
    if (inside[0])
        return gf_fail(err, EEXIST,
                       "'%s' holds the directory '%s', --force replaces files only",
                       stage->dest, inside);
    if (realpath(source, real) &&
        (is_below(real, stage->dest) || is_below(stage->dest, real)))
        return gf_fail(err, EINVAL, "'%s' is part of the source '%s', it is not replaced",
                       stage->dest, source);
    return 0;
}

/* ---------------------------------------------------------------- emptying */

static int remove_files(int fd);

/* The one directory that an export has in it, of files only. */
static int remove_sub(int fd, const char *name)
{
    int sub = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r;

    if (sub < 0)
        return -1;
    r = remove_files(sub);
    close(sub);
    return r ? -1 : unlinkat(fd, name, AT_REMOVEDIR);
}

static int remove_files(int fd)
{
    struct dirent *entry;
    DIR *dir = fdopendir(dup(fd));
    int r = 0;

    if (!dir)
        return -errno;
    rewinddir(dir);
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
            unlinkat(fd, entry->d_name, 0) &&
            (strcmp(entry->d_name, GF_CHAT_TEMPLATES) || remove_sub(fd, entry->d_name)) &&
            !r)
            r = -errno;
    closedir(dir);
    return r;
}

/* The directory, which holds files only and is locked by us. */
static int remove_dir(int fd, const char *path)
{
    int r = remove_files(fd);

    return !r && rmdir(path) ? -errno : r;
}

/* ---------------------------------------------------------------- open, create */

static int open_locked(const char *path, int *ret_fd, struct gf_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return gf_fail(err, errno, "'%s': %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        close(fd);
        return gf_fail(err, EBUSY, "'%s' is in use by another export", path);
    }
    *ret_fd = fd;
    return 0;
}

static bool is_still_at(int fd, const char *path)
{
    struct stat opened, named;

    return !fstat(fd, &opened) && !lstat(path, &named) && opened.st_dev == named.st_dev &&
           opened.st_ino == named.st_ino;
}

/* Between open and lock another export may commit: what we lock then is its finished DEST,
 * or gone, and the name is free for a new one. */
static int lock_part(struct gf_stage *stage, struct gf_err *err)
{
    for (int i = 0; i < MAX_TRIES; i++) {
        int fd, r;

        if (mkdir(stage->part, 0777) && errno != EEXIST)
            return gf_fail(err, errno, "'%s': cannot make the directory: %s", stage->part,
                           strerror(errno));
        r = open_locked(stage->part, &fd, err);
        if (r == -ENOENT)
            continue;
        if (r)
            return r;
        if (is_still_at(fd, stage->part)) {
            stage->fd = fd;
            return 0;
        }
        close(fd);
    }
    return gf_fail(err, EBUSY, "'%s' is in use by other exports", stage->part);
}

static int open_part(struct gf_stage *stage, struct gf_err *err)
{
    int r = lock_part(stage, err);

    if (r)
        return r;
    r = remove_files(stage->fd);
    return r ? gf_fail(err, -r, "'%s' cannot be emptied: %s", stage->part, strerror(-r))
             : 0;
}

int gf_stage_open(const char *dest, const char *source, bool replace, struct gf_stage **ret,
                  struct gf_err *err)
{
    GF_AUTO(gf_stage) stage = calloc(1, sizeof(*stage));
    int r;

    if (!stage)
        return gf_nomem(err);
    stage->fd = stage->old_fd = -1;
    stage->replace = replace;
    r = resolve(dest, stage->dest, err);
    if (!r)
        r = check_dest(stage, source, err);
    if (!r && snprintf(stage->part, PATH_MAX, "%s" SUFFIX, stage->dest) >= PATH_MAX)
        r = gf_fail(err, ENAMETOOLONG, "'%s': the path is too long", dest);
    if (!r)
        r = open_part(stage, err);
    if (!r)
        *ret = gf_take(&stage);
    return r;
}

int gf_stage_create(struct gf_stage *stage, const char *name, uint64_t size, int *ret_fd,
                    struct gf_err *err)
{
    const char *slash = strchr(name, '/');
    int fd, code;

    if (slash) {
        GF_AUTO_MEM char *dir = strndup(name, (size_t)(slash - name));

        if (!dir || (mkdirat(stage->fd, dir, 0777) && errno != EEXIST))
            return gf_fail(err, errno, "'%s/%s': cannot make the directory: %s",
                           stage->part, name, strerror(errno));
    }
    fd = openat(stage->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return gf_fail(err, errno, "'%s/%s': %s", stage->part, name, strerror(errno));
    if (size && fallocate(fd, 0, 0, (off_t)size) &&
        (errno != EOPNOTSUPP || ftruncate(fd, (off_t)size))) {
        code = errno;
        close(fd);
        return gf_fail(err, code, "'%s/%s': no room for %llu bytes: %s", stage->part, name,
                       (unsigned long long)size, strerror(code));
    }
    *ret_fd = fd;
    return 0;
}

/* ---------------------------------------------------------------- commit */

static void flush_parent(const char *path)
{
    char parent[PATH_MAX];
    int fd;

    snprintf(parent, sizeof(parent), "%s", path);
    *(strrchr(parent, '/') + 1) = '\0';
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd); /* best effort: the rename has happened either way */
    close(fd);
}

/* Where the two cannot be exchanged in one step: the old one steps aside, and comes back if
 * the new one cannot take its place. */
static int exchange_in_steps(struct gf_stage *stage)
{
    int code;

    if (snprintf(stage->old, PATH_MAX, "%s.gatherfs-old", stage->dest) >= PATH_MAX)
        return -ENAMETOOLONG;
    if (rename(stage->dest, stage->old))
        return -errno;
    if (rename(stage->part, stage->dest)) {
        code = errno;
        return rename(stage->old, stage->dest) ? -errno : -code;
    }
    return 0;
}

static int exchange(struct gf_stage *stage)
{
    memcpy(stage->old, stage->part, PATH_MAX);
    if (!renameat2(AT_FDCWD, stage->part, AT_FDCWD, stage->dest, RENAME_EXCHANGE))
        return 0;
    return errno == EINVAL || errno == ENOSYS ? exchange_in_steps(stage) : -errno;
}

/* Afterwards dest is the new directory, and the old one, if there was one, is at `old`. It is
 * locked before it gets there, as the next export looks for its staging directory there. */
static int put_in_place(struct gf_stage *stage, struct gf_err *err)
{
    int r = rename(stage->part, stage->dest) ? -errno : 0; /* also over an empty one */

    if (stage->replace && (r == -ENOTEMPTY || r == -EEXIST)) {
        r = open_locked(stage->dest, &stage->old_fd, err);
        if (r)
            return r;
        r = exchange(stage);
    }
    return r ? gf_fail(err, -r, "'%s' cannot be put in place: %s", stage->dest,
                       strerror(-r))
             : 0;
}

int gf_stage_commit(struct gf_stage *stage, struct gf_err *err)
{
    int r;

    if (fsync(stage->fd))
        return gf_fail(err, errno, "'%s': cannot flush to disk: %s", stage->part,
                       strerror(errno));
    r = put_in_place(stage, err);
    if (r)
        return r;
    stage->committed = true;
    flush_parent(stage->dest);
    r = stage->old_fd >= 0 ? remove_dir(stage->old_fd, stage->old) : 0;
    if (r)
        return gf_fail(err, -r,
                       "'%s' is written, but the old one cannot be removed from '%s': %s",
                       stage->dest, stage->old, strerror(-r));
    return 0;
}

void gf_stage_free(struct gf_stage *stage)
{
    if (!stage)
        return;
    if (stage->fd >= 0 && !stage->committed)
        remove_dir(stage->fd, stage->part);
    if (stage->fd >= 0)
        close(stage->fd);
    if (stage->old_fd >= 0)
        close(stage->old_fd);
    free(stage);
}
