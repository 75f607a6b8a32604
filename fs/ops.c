/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.c - the kernel's requests, answered from the tree and the snapshots.
 *
 * What is not here is left to the kernel: the mount is read-only (EROFS before a request is
 * sent), permissions are checked by default_permissions, lseek knows no holes.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/math.h"
#include "fs/ctl.h"
#include "fs/fs.h"
#include "snapshot/live.h"

#define BLOCK_SIZE (1 << 20) /* what cp and cat read at once */

/* ---------------------------------------------------------------- helpers */

static struct gf_fs *fs_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static struct gf_handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct gf_handle *)(uintptr_t)fi->fh;
}

/* Which errno a program sees: what it can act on, else EIO; and a line in the log. What has
 * gone (-ESTALE without text) is no fault. */
static void reply_error(fuse_req_t req, const char *what, const char *name, int r,
                        const struct gf_err *err)
{
    struct gf_fs *fs = fs_of(req);
    int code = r == -ENOMEM || r == -EMFILE || r == -ENFILE || r == -ESTALE ||
                       r == -EINTR || r == -ETIMEDOUT
                   ? -r
                   : EIO;

    if (r != -ESTALE || err->code) {
        atomic_fetch_add_explicit(&fs->errors, 1, memory_order_relaxed);
        gf_fs_log(fs, GF_LOG_ERROR, "%s '%s': %s", what, name,
                  err->code ? err->text : strerror(-r));
    }
    fuse_reply_err(req, code);
}

static const char *place_name(const struct gf_place *place)
{
    return place->file ? place->file->name : place->dir ? place->dir->name : "/";
}

static struct gf_node *node_of(fuse_req_t req, fuse_ino_t ino)
{
    struct gf_node *node = gf_tree_get(fs_of(req)->tree, ino);

    if (gf_run_live(fs_of(req)->run))
        gf_live_asked_by(fuse_req_ctx(req)->pid);
    if (!node)
        fuse_reply_err(req, ESTALE);
    return node;
}

/* ---------------------------------------------------------------- attributes */

static void fill_attr(struct gf_fs *fs, const struct gf_place *place,
                      struct gf_snapshot *snapshot, uint64_t size, struct stat *st)
{
    const struct gf_options *opt = fs->opt;
    const struct gf_snapshot_info *info = snapshot ? gf_snapshot_info(snapshot) : NULL;
    int64_t ns = info ? info->mtime_ns : fs->mtime_ns;
    mode_t mode = (opt->has_mode ? opt->mode : info ? info->mode : 0444) & 0444;
    bool is_dir = gf_node_is_dir(place->kind), is_link = place->kind == GF_NODE_LINK;

    /* Who may read a file may enter its directory. */
    *st = (struct stat){
        .st_ino = place->ino,
        .st_mode = is_dir    ? S_IFDIR | mode | mode >> 2
                   : is_link ? S_IFLNK | 0777
                             : S_IFREG | mode,
        .st_nlink = is_dir ? 2 : 1,
        .st_uid = opt->has_uid ? opt->uid : fs->uid,
        .st_gid = opt->has_gid ? opt->gid : fs->gid,
        .st_size = (off_t)size,
        .st_blocks = (blkcnt_t)gf_ceil_div(size, 512),
        .st_blksize = BLOCK_SIZE,
    };
    st->st_mtim.tv_sec = ns / 1000000000;
    st->st_mtim.tv_nsec = ns % 1000000000;
    st->st_atim = st->st_ctim = st->st_mtim;
}

/* -ESTALE without text: the link has gone. */
static int link_target(struct gf_fs *fs, const char *path, char **ret, struct gf_err *err)
{
    enum gf_run_kind kind;
    int r = gf_run_look(fs->run, path, &kind, ret, err);

    return r == -ENOENT || (!r && !*ret) ? -ESTALE : r;
}

/* *timeout: how long the kernel may keep it. */
static int get_attr(struct gf_fs *fs, const struct gf_place *place, struct stat *st,
                    double *timeout, struct gf_err *err)
{
    GF_AUTO(gf_snapshot) root = NULL;
    struct gf_snapshot *snapshot = place->snapshot;
    size_t size = 0;
    int r;

    *timeout = GF_LONG;
    if (gf_ctl_is_text(place->kind)) {
        GF_AUTO_MEM char *text = NULL;

        r = gf_ctl_text(fs, place, &text, &size, err);
        if (r)
            return r;
        *timeout = place->kind == GF_NODE_PROV_FILE ? GF_LONG : 0;
    } else if (place->kind == GF_NODE_FILE) {
        size = place->file->size;
    } else if (place->kind == GF_NODE_LINK) {
        GF_AUTO_MEM char *target = NULL;

        r = link_target(fs, place->path, &target, err);
        if (r)
            return r;
        size = strlen(target);
    }
    if (!snapshot) {
        /* The root stays a directory whatever became of its checkpoint. */
        if (!gf_run_snapshot(fs->run, "", &root, NULL))
            snapshot = root;
        *timeout = GF_MIN(*timeout, GF_SHORT);
    }
    fill_attr(fs, place, snapshot, size, st);
    return 0;
}

static void ll_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct gf_node *node = node_of(req, ino);
    struct gf_err err = { 0 };
    double timeout;
    struct stat st;
    int r;

    (void)fi;
    if (!node)
        return;
    r = get_attr(fs_of(req), &node->place, &st, &timeout, &err);
    if (r)
        reply_error(req, "stat", place_name(&node->place), r, &err);
    else
        fuse_reply_attr(req, &st, timeout);
}

/* ---------------------------------------------------------------- look-ups */

/* Of a live job the next process may see another step at once. */
static double entry_timeout(const struct gf_fs *fs, const struct gf_node *dir)
{
    if (gf_run_live(fs->run))
        return 0;
    return dir->place.kind == GF_NODE_VIEW || dir->place.kind == GF_NODE_PROV_VIEW
               ? GF_LONG
               : GF_SHORT;
}

/* One look-up more of `name`. entry->ino stays 0 where there is no such name. */
static int look_up(struct gf_fs *fs, const struct gf_node *dir, const char *name,
                   struct fuse_entry_param *entry, struct gf_err *err)
{
    struct gf_place place;
    struct gf_node *node;
    int r = gf_walk(fs->run, fs->opt, dir, name, &place, err);

    *entry = (struct fuse_entry_param){ .entry_timeout = entry_timeout(fs, dir) };
    atomic_fetch_add_explicit(&fs->lookups, 1, memory_order_relaxed);
    if (r)
        return r == -ENOENT ? 0 : r;
    r = gf_tree_enter(fs->tree, &place, &node);
    if (r)
        return r;
    r = get_attr(fs, &node->place, &entry->attr, &entry->attr_timeout, err);
    if (r) {
        gf_tree_forget(fs->tree, node->id, 1);
        return r;
    }
    entry->ino = node->id;
    entry->generation = 1;
    return 0;
}

static void ll_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct gf_fs *fs = fs_of(req);
    struct gf_node *dir = node_of(req, parent);
    struct fuse_entry_param entry;
    struct gf_err err = { 0 };
    int r;

    if (!dir)
        return;
    r = look_up(fs, dir, name, &entry, &err);
    if (r)
        reply_error(req, "looking up", name, r, &err);
    else if (fuse_reply_entry(req, &entry) && entry.ino)
        gf_tree_forget(fs->tree, entry.ino, 1); /* interrupted: the kernel never saw it */
}

static void ll_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
    gf_tree_forget(fs_of(req)->tree, ino, nlookup);
    fuse_reply_none(req);
}

static void ll_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        gf_tree_forget(fs_of(req)->tree, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void ll_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct gf_node *node = node_of(req, ino);
    GF_AUTO_MEM char *target = NULL;
    struct gf_err err = { 0 };
    int r;

    if (!node)
        return;
    if (node->place.kind != GF_NODE_LINK) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    r = link_target(fs_of(req), node->place.path, &target, &err);
    if (r)
        reply_error(req, "reading", node->place.path, r, &err);
    else
        fuse_reply_readlink(req, target);
}

/* ---------------------------------------------------------------- open files */

static bool is_interrupted(void *req)
{
    return fuse_req_interrupted(req);
}

/* Pins what the file is made of; of a live job, gets its step. */
static int open_file(fuse_req_t req, struct gf_handle *handle, struct gf_err *err)
{
    const struct gf_place *place = &handle->node->place;
    int r = gf_snapshot_pin(place->snapshot, err);

    if (r)
        return r;
    handle->pinned = gf_snapshot_ref(place->snapshot);
    handle->reader = gf_live_asker();
    if (place->file->weights)
        r = gf_snapshot_enter(place->snapshot, handle->reader, is_interrupted, req, err);
    handle->entered = place->file->weights && !r;
    return r;
}

static void ll_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct gf_fs *fs = fs_of(req);
    struct gf_node *node = node_of(req, ino);
    struct gf_err err = { 0 };
    struct gf_handle *handle;
    int r;

    if (!node)
        return;
    /* Reached only where root has remounted the file system read-write. */
    if ((fi->flags & O_ACCMODE) != O_RDONLY) {
        fuse_reply_err(req, EROFS);
        return;
    }
    handle = gf_handle_new(fs, node);
    if (!handle) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    if (gf_ctl_is_text(node->place.kind)) {
        r = gf_ctl_text(fs, &node->place, &handle->text, &handle->len, &err);
        fi->direct_io = 1; /* its size changes */
    } else {
        r = open_file(req, handle, &err);
        fi->direct_io = fs->opt->direct_io;
        fi->keep_cache = !fi->direct_io;
    }
    if (r) {
        gf_handle_free(fs, handle);
        reply_error(req, "opening", place_name(&node->place), r, &err);
        return;
    }
    fi->fh = (uintptr_t)handle;
    atomic_fetch_add_explicit(&fs->opens, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&fs->open_files, 1, memory_order_relaxed);
    if (fuse_reply_open(req, fi)) {
        atomic_fetch_sub_explicit(&fs->open_files, 1, memory_order_relaxed);
        gf_handle_free(fs, handle); /* interrupted: there will be no RELEASE */
    }
}

static void ll_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    atomic_fetch_sub_explicit(&fs_of(req)->open_files, 1, memory_order_relaxed);
    gf_handle_free(fs_of(req), handle_of(fi));
    fuse_reply_err(req, 0);
}

/* ---------------------------------------------------------------- reads */

static void log_fault(struct gf_fs *fs, const struct gf_vfile *file, uint64_t off,
                      size_t len, const struct gf_fault *fault)
{
    const char *why = fault->code == -ESTALE ? "it is not the file it was at the start"
                                             : strerror(-fault->code);

    atomic_fetch_add_explicit(&fs->errors, 1, memory_order_relaxed);
    gf_fs_log(fs, GF_LOG_ERROR,
              "reading '%s' at %" PRIu64 ", %zu bytes: '%s' at %" PRIu64 ", %zu bytes: %s",
              file->name, off, len, fault->source ? fault->source : "a source",
              fault->offset, fault->len, why);
}

static void read_file(fuse_req_t req, const struct gf_place *place, uint64_t off,
                      size_t len)
{
    struct gf_fs *fs = fs_of(req);
    struct gf_thread *thread = gf_fs_thread(fs);
    const struct gf_vfile *file = place->file;
    struct gf_fault fault = { 0 };
    int n = 0, r;

    atomic_fetch_add_explicit(&fs->reads, 1, memory_order_relaxed);
    if (!thread) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    len = off < file->size ? (size_t)GF_MIN(len, file->size - off) : 0;
    r = len ? gf_snapshot_iov(place->dir, file, off, len, &thread->scratch, thread->iov,
                              GF_REPLY_IOVS, &n, &fault)
            : 0;
    if (r) {
        fault.code = r;
        log_fault(fs, file, off, len, &fault);
        fuse_reply_err(req, r == -ENOMEM ? ENOMEM : EIO);
        return;
    }
    r = fuse_reply_iov(req, thread->iov, n);
    if (!r) {
        atomic_fetch_add_explicit(&fs->bytes, len, memory_order_relaxed);
    } else if (r == -EFAULT) {
        /* A source was cut short between the check and the kernel's copy from the
         * mapping: the kernel itself has answered the reader with EIO. */
        atomic_fetch_add_explicit(&fs->errors, 1, memory_order_relaxed);
        gf_fs_log(fs, GF_LOG_ERROR,
                  "reading '%s' at %" PRIu64
                  ", %zu bytes: a source was cut short meanwhile",
                  file->name, off, len);
    }
}

static void read_timed(fuse_req_t req, const struct gf_place *place, uint64_t off,
                       size_t len)
{
    struct gf_fs *fs = fs_of(req); /* the reply ends the request */
    struct timespec from, to;

    clock_gettime(CLOCK_MONOTONIC, &from);
    read_file(req, place, off, len);
    clock_gettime(CLOCK_MONOTONIC, &to);
    atomic_fetch_add_explicit(
        &fs->read_ns,
        (uint64_t)((to.tv_sec - from.tv_sec) * 1000000000 + (to.tv_nsec - from.tv_nsec)),
        memory_order_relaxed);
}

static void ll_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    struct gf_handle *handle = handle_of(fi);
    uint64_t start = (uint64_t)off;

    (void)ino;
    if (!handle->text)
        read_timed(req, &handle->node->place, start, size);
    else if (start >= handle->len)
        fuse_reply_buf(req, NULL, 0);
    else
        fuse_reply_buf(req, handle->text + start, GF_MIN(size, handle->len - start));
}

/* ---------------------------------------------------------------- directories */

static void ll_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct gf_fs *fs = fs_of(req);
    struct gf_node *node = node_of(req, ino);
    struct gf_err err = { 0 };
    struct gf_handle *handle;
    int r;

    if (!node)
        return;
    handle = gf_handle_new(fs, node);
    if (!handle) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    r = gf_walk_list(fs->run, fs->opt, node, &handle->list, &err);
    if (r) {
        gf_handle_free(fs, handle);
        reply_error(req, "listing", place_name(&node->place), r, &err);
        return;
    }
    fi->fh = (uintptr_t)handle;
    fi->cache_readdir = fi->keep_cache =
        node->place.kind == GF_NODE_VIEW && !gf_run_live(fs->run);
    if (fuse_reply_open(req, fi))
        gf_handle_free(fs, handle);
}

static void ll_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    gf_handle_free(fs_of(req), handle_of(fi));
    fuse_reply_err(req, 0);
}

/* Entry `i` of a directory: ".", "..", then the listing. NULL past the end. */
static const char *entry_at(const struct gf_handle *handle, size_t i, struct stat *st)
{
    const struct gf_listing *list = &handle->list;

    *st = (struct stat){ .st_mode = S_IFDIR, .st_ino = handle->node->place.ino };
    if (i < 2)
        return i ? ".." : ".";
    i -= 2;
    if (i >= list->entries.n)
        return NULL;
    st->st_mode = list->entries.at[i].is_dir    ? S_IFDIR
                  : list->entries.at[i].is_link ? S_IFLNK
                                                : S_IFREG;
    st->st_ino = list->entries.at[i].ino;
    return list->entries.at[i].name;
}

/* With `plus` each file comes with its attributes, and counts as one look-up. Directories
 * come without: to know them may mean to open a checkpoint. So do generated files. */
static void read_dir(fuse_req_t req, size_t size, off_t off, struct gf_handle *handle,
                     bool plus)
{
    struct gf_fs *fs = fs_of(req);
    GF_AUTO_MEM char *buf = malloc(size);
    struct GF_VEC(uint64_t) looked_up = { 0 };
    struct fuse_entry_param entry;
    size_t used = 0, n;
    const char *name;

    if (!buf) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    for (size_t i = (size_t)off;; i++) {
        memset(&entry, 0, sizeof(entry));
        name = entry_at(handle, i, &entry.attr);
        if (!name)
            break;
        if (!plus) {
            n = fuse_add_direntry(req, buf + used, size - used, name, &entry.attr,
                                  (off_t)i + 1);
        } else {
            n = fuse_add_direntry_plus(req, NULL, 0, name, NULL, 0);
            if (n > size - used)
                break;
            if (S_ISREG(entry.attr.st_mode) && handle->node->place.kind <= GF_NODE_VIEW &&
                !gf_vec_reserve(&looked_up, 1, size)) {
                struct stat listed = entry.attr;

                if (look_up(fs, handle->node, name, &entry, NULL) || !entry.ino)
                    entry = (struct fuse_entry_param){ .attr = listed };
                else
                    looked_up.at[looked_up.n++] = entry.ino;
            }
            n = fuse_add_direntry_plus(req, buf + used, size - used, name, &entry,
                                       (off_t)i + 1);
        }
        if (n > size - used)
            break;
        used += n;
    }
    if (fuse_reply_buf(req, buf, used)) /* interrupted: the kernel never saw them */
        for (size_t i = 0; i < looked_up.n; i++)
            gf_tree_forget(fs->tree, looked_up.at[i], 1);
    gf_vec_free(&looked_up);
}

static void ll_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                       struct fuse_file_info *fi)
{
    (void)ino;
    read_dir(req, size, off, handle_of(fi), false);
}

static void ll_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                           struct fuse_file_info *fi)
{
    (void)ino;
    read_dir(req, size, off, handle_of(fi), true);
}

static void ll_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct gf_fs *fs = fs_of(req);
    GF_AUTO(gf_snapshot) root = NULL;
    const struct gf_vdir *dir = NULL;
    struct statvfs st = { .f_bsize = BLOCK_SIZE, .f_frsize = 4096, .f_namemax = 255 };

    (void)ino;
    if (!gf_run_snapshot(fs->run, "", &root, NULL))
        dir = gf_walk_vdir(
            &(struct gf_place){ .kind = GF_NODE_CHECKPOINT, .snapshot = root });
    for (size_t i = 0; dir && i < dir->n; i++)
        st.f_blocks += gf_ceil_div(dir->files[i].size, st.f_frsize);
    st.f_files = dir ? dir->n : 0;
    fuse_reply_statfs(req, &st);
}

/* ---------------------------------------------------------------- xattrs */

static const char *const xattrs[] = { "user.gatherfs.step", "user.gatherfs.view",
                                      "user.gatherfs.format", "user.gatherfs.dtype",
                                      "user.gatherfs.complete" };

/* Of a live job the step is known once somebody needs it: whoever asks does. */
static void get_step(struct gf_fs *fs, const struct gf_place *place)
{
    GF_AUTO(gf_snapshot) root = NULL;
    struct gf_snapshot *snapshot = place->snapshot;

    if (place->kind == GF_NODE_ROOT && !gf_run_snapshot(fs->run, "", &root, NULL))
        snapshot = root;
    if (snapshot && !gf_snapshot_enter(snapshot, gf_live_asker(), NULL, NULL, NULL))
        gf_snapshot_leave(snapshot, gf_live_asker());
}

/* The value of one, "" if this place has none. */
static void xattr_value(struct gf_fs *fs, const struct gf_place *place, size_t which,
                        char ret[static 64])
{
    static const char *const complete[] = { [GF_COMPLETE_NO] = "no",
                                            [GF_COMPLETE_UNKNOWN] = "unknown",
                                            [GF_COMPLETE_YES] = "yes" };
    GF_AUTO(gf_snapshot) root = NULL;
    struct gf_place at = *place;
    const struct gf_snapshot_info *info;
    const struct gf_vdir *dir;
    enum gf_dtype dtype;

    ret[0] = '\0';
    if (place->kind == GF_NODE_ROOT && !gf_run_snapshot(fs->run, "", &root, NULL))
        at.snapshot = root;
    if (place->kind > GF_NODE_FILE || !at.snapshot)
        return;
    info = gf_snapshot_info(at.snapshot);
    dir = gf_walk_vdir(&at);
    if (which == 0 && info->has_step)
        snprintf(ret, 64, "%" PRIu64, info->step);
    else if (which == 1 && dir)
        snprintf(ret, 64, "%s", dir->name);
    else if (which == 2)
        snprintf(ret, 64, "%s", info->format);
    else if (which == 3 && dir && dir->view && gf_view_dtype(dir->view, &dtype))
        snprintf(ret, 64, "%s", gf_dtype_info(dtype)->torch);
    else if (which == 4)
        snprintf(ret, 64, "%s", complete[info->complete]);
}

/* The size protocol: 0 asks how much room it takes. */
static void reply_xattr(fuse_req_t req, const char *value, size_t len, size_t size)
{
    if (!size)
        fuse_reply_xattr(req, len);
    else if (size < len)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, value, len);
}

static void ll_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct gf_node *node = node_of(req, ino);
    char value[64] = "";

    if (!node)
        return;
    if (gf_run_live(fs_of(req)->run) && !strcmp(name, xattrs[0]))
        get_step(fs_of(req), &node->place);
    for (size_t i = 0; i < GF_COUNT(xattrs); i++)
        if (!strcmp(name, xattrs[i]))
            xattr_value(fs_of(req), &node->place, i, value);
    if (value[0])
        reply_xattr(req, value, strlen(value), size);
    else
        fuse_reply_err(req, ENODATA);
}

static void ll_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct gf_node *node = node_of(req, ino);
    char value[64], names[256];
    size_t len = 0;

    if (!node)
        return;
    for (size_t i = 0; i < GF_COUNT(xattrs); i++) {
        xattr_value(fs_of(req), &node->place, i, value);
        if (!value[0])
            continue;
        memcpy(names + len, xattrs[i], strlen(xattrs[i]) + 1);
        len += strlen(xattrs[i]) + 1;
    }
    reply_xattr(req, names, len, size);
}

/* ---------------------------------------------------------------- the connection */

static void ll_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    /* Splicing at 1 MiB falls back to a copy with an allocation per request, and no data
     * changes behind an inode. */
    conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                              FUSE_CAP_SPLICE_MOVE | FUSE_CAP_AUTO_INVAL_DATA |
                              FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_WRITEBACK_CACHE);
    conn->want |=
        conn->capable &
        (unsigned)(FUSE_CAP_ASYNC_READ | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                   FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_PARALLEL_DIROPS);
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->time_gran = 1;
}

const struct fuse_lowlevel_ops gf_ops = {
    .init = ll_init,
    .lookup = ll_lookup,
    .readlink = ll_readlink,
    .forget = ll_forget,
    .forget_multi = ll_forget_multi,
    .getattr = ll_getattr,
    .open = ll_open,
    .read = ll_read,
    .release = ll_release,
    .opendir = ll_opendir,
    .readdir = ll_readdir,
    .readdirplus = ll_readdirplus,
    .releasedir = ll_releasedir,
    .statfs = ll_statfs,
    .getxattr = ll_getxattr,
    .listxattr = ll_listxattr,
};
