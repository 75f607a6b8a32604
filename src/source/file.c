/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.c - a regular file as a source.
 *
 * `uses` counts reads under way and pins. While it is above 0 the descriptor and the mapping
 * stay; raising it from above 0 takes no lock, so a pinned file's reads take none. At 0 the
 * descriptor is kept, too, as long as the process has descriptors to spare; past the budget
 * it is closed and opened again by name at the next use, which fails with -ESTALE unless the
 * name still leads to the same file.
 *
 * Lock: file->lock guards fd, map and the step of `uses` from 0 to 1.
 */
#include "source/file.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

struct file {
    struct gf_source base;
    struct gf_reopen *how;
    pthread_mutex_t lock;
    atomic_uint uses;
    int fd;              /* -1: closed */
    _Atomic(void *) map; /* the whole file, NULL: not mapped */
};

static atomic_uint open_files;

/* Half of what the process may have: the rest is for reads under way and everybody else. */
static unsigned budget(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur > 1 << 20)
        return 1 << 19;
    return (unsigned)lim.rlim_cur / 2;
}

struct gf_identity gf_identity_of(const struct stat *st)
{
    return (struct gf_identity){
        .dev = st->st_dev,
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .mtime_ns = st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
        .ctime_ns = st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec,
    };
}

/* Still the bytes that were there? ctime is left out: it changes when a name is removed. */
static int check_identity(const struct file *file, int fd)
{
    const struct gf_identity *old = &file->base.identity;
    struct gf_identity now;
    struct stat st;

    if (fstat(fd, &st))
        return -errno;
    now = gf_identity_of(&st);
    return now.dev == old->dev && now.ino == old->ino && now.size == old->size &&
                   now.mtime_ns == old->mtime_ns
               ? 0
               : -ESTALE;
}

static void close_locked(struct file *file)
{
    void *map = atomic_exchange(&file->map, NULL);

    if (map)
        munmap(map, file->base.size);
    if (file->fd >= 0) {
        close(file->fd);
        atomic_fetch_sub(&open_files, 1);
    }
    file->fd = -1;
}

/* By name, and only if that is still the same file: a descriptor or -errno. */
static int open_again(const struct file *file)
{
    int fd = file->how->open(file->how, file->base.name), r;

    if (fd < 0)
        return fd == -ENOENT ? -ESTALE : fd;
    r = check_identity(file, fd);
    if (!r)
        return fd;
    close(fd);
    return r;
}

static int open_locked(struct file *file)
{
    int fd;

    if (file->fd >= 0)
        return 0;
    fd = open_again(file);
    if (fd < 0)
        return fd;
    file->fd = fd;
    atomic_fetch_add(&open_files, 1);
    return 0;
}

static int use(struct file *file)
{
    unsigned n = atomic_load(&file->uses);
    int r;

    while (n)
        if (atomic_compare_exchange_weak(&file->uses, &n, n + 1))
            return 0;
    pthread_mutex_lock(&file->lock);
    r = open_locked(file);
    if (!r)
        atomic_fetch_add(&file->uses, 1);
    pthread_mutex_unlock(&file->lock);
    return r;
}

static void done(struct file *file)
{
    if (atomic_fetch_sub(&file->uses, 1) > 1 || atomic_load(&open_files) <= budget())
        return;
    pthread_mutex_lock(&file->lock);
    if (atomic_load(&file->uses) == 0)
        close_locked(file);
    pthread_mutex_unlock(&file->lock);
}

static int file_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    struct file *file = (struct file *)src;
    uint8_t *p = buf;
    int r = use(file);

    if (r)
        return r;
    while (len && !r) {
        ssize_t n = pread(file->fd, p, len, (off_t)off);

        if (n > 0) {
            p += n;
            len -= (size_t)n;
            off += (uint64_t)n;
        } else if (n == 0) {
            r = -ESTALE; /* shorter than it was */
        } else if (errno != EINTR) {
            r = -errno;
        }
    }
    if (!r)
        r = check_identity(file, file->fd);
    done(file);
    return r;
}

static const void *file_map(struct gf_source *src, uint64_t off, size_t len)
{
    struct file *file = (struct file *)src;
    uint8_t *map;

    (void)len;
    if (!atomic_load(&file->uses) || check_identity(file, file->fd))
        return NULL;
    map = atomic_load(&file->map);
    if (!map) {
        pthread_mutex_lock(&file->lock);
        map = atomic_load(&file->map);
        if (!map) {
            map = mmap(NULL, file->base.size, PROT_READ, MAP_SHARED, file->fd, 0);
            if (map == MAP_FAILED)
                map = NULL;
            atomic_store(&file->map, map);
        }
        pthread_mutex_unlock(&file->lock);
    }
    return map ? map + off : NULL;
}

static int file_pin(struct gf_source *src)
{
    return use((struct file *)src);
}

static void file_unpin(struct gf_source *src)
{
    done((struct file *)src);
}

static int file_check(struct gf_source *src)
{
    struct file *file = (struct file *)src;
    int fd = open_again(file);

    if (fd >= 0) {
        close(fd);
        return 0;
    }
    /* Nobody can read it any more, so nothing should keep a deleted file's disk space. */
    pthread_mutex_lock(&file->lock);
    if (fd == -ESTALE && atomic_load(&file->uses) == 0)
        close_locked(file);
    pthread_mutex_unlock(&file->lock);
    return fd;
}

static void file_free(struct gf_source *src)
{
    struct file *file = (struct file *)src;

    close_locked(file);
    pthread_mutex_destroy(&file->lock);
    file->how->unref(file->how);
    free(src->name);
    free(src);
}

static const struct gf_source_ops file_ops = {
    .kind = "file",
    .read_at = file_read,
    .map = file_map,
    .pin = file_pin,
    .unpin = file_unpin,
    .check = file_check,
    .free = file_free,
};

int gf_source_file(struct gf_reopen *how, const char *path, int fd, const struct stat *st,
                   struct gf_source **ret, struct gf_err *err)
{
    struct file *file = calloc(1, sizeof(*file));
    char *name = strdup(path);

    if (!file || !name) {
        free(file);
        free(name);
        close(fd);
        return gf_nomem(err);
    }
    file->base = (struct gf_source){ .ops = &file_ops,
                                     .name = name,
                                     .size = (uint64_t)st->st_size,
                                     .mode = st->st_mode & 0777,
                                     .identity = gf_identity_of(st) };
    pthread_mutex_init(&file->lock, NULL);
    file->how = how->ref(how);
    file->fd = fd;
    atomic_fetch_add(&open_files, 1);
    if (atomic_load(&open_files) > budget())
        close_locked(file);
    *ret = &file->base;
    return 0;
}
