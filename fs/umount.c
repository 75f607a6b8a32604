/* SPDX-License-Identifier: Apache-2.0 */
/*
 * umount.c - taking mounts down, and listing them.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "fs/mount.h"
#include "fs/mountinfo.h"

extern char **environ;

/* The mountpoint as mountinfo has it. A dead mount, or another user's, cannot be looked
 * into, but the directory above it can. */
static char *resolve(const char *mountpoint)
{
    char *path = realpath(mountpoint, NULL);
    GF_AUTO_MEM char *copy = NULL;
    GF_AUTO_MEM char *parent = NULL;
    char *slash;

    if (path)
        return path;
    copy = strdup(mountpoint);
    if (!copy)
        return NULL;
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    slash = strrchr(copy, '/');
    if (slash)
        *slash = '\0';
    parent = realpath(!slash ? "." : slash == copy ? "/" : copy, NULL);
    if (!parent || asprintf(&path, "%s/%s", strcmp(parent, "/") ? parent : "",
                            slash ? slash + 1 : copy) < 0)
        return NULL;
    return path;
}

/* fusermount3 -u, with the first line that it says as the error. */
static int run_fusermount(const char *path, bool lazy, struct gf_err *err)
{
    const char *argv[] = { "fusermount3", "-u", "--", path, NULL };
    char said[200] = "";
    posix_spawn_file_actions_t actions;
    int fd = memfd_create("fusermount3-stderr", MFD_CLOEXEC), r, status = -1;
    pid_t pid;
    ssize_t n;

    if (fd < 0)
        return gf_fail(err, errno, "memfd_create: %s", strerror(errno));
    if (lazy)
        argv[1] = "-uz";
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd, STDERR_FILENO);
    r = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv,
                     environ);
    posix_spawn_file_actions_destroy(&actions);
    if (!r)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    n = pread(fd, said, sizeof(said) - 1, 0);
    said[n > 0 ? n : 0] = '\0';
    said[strcspn(said, "\n")] = '\0';
    close(fd);
    if (r)
        return gf_fail(err, r, "cannot unmount '%s': cannot run fusermount3: %s", path,
                       strerror(r));
    if (status)
        return gf_fail(err, strstr(said, "busy") ? EBUSY : EIO, "cannot unmount '%s': %s%s",
                       path, said[0] ? said : "fusermount3 failed",
                       strstr(said, "busy") ? "; -z detaches it all the same" : "");
    return 0;
}

int gf_umount(const char *mountpoint, bool lazy, struct gf_err *err)
{
    GF_AUTO_MEM char *path = resolve(mountpoint);
    struct gf_mountinfos infos;
    bool ours;
    int r;

    if (!path)
        return gf_fail(err, errno, "'%s': %s", mountpoint, strerror(errno));
    r = gf_mountinfo_read(&infos, err);
    if (r)
        return r;
    ours = gf_mountinfo_is_gatherfs(gf_mountinfo_at(&infos, path));
    gf_mountinfo_done(&infos);
    if (!ours)
        return gf_fail(err, EINVAL, "'%s': no gatherfs mount", mountpoint);
    if (!umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
        return 0;
    if (errno == EPERM)
        return run_fusermount(path, lazy, err);
    return gf_fail(err, errno, "cannot unmount '%s': %s%s", mountpoint, strerror(errno),
                   errno == EBUSY ? "; -z detaches it all the same" : "");
}

int gf_mounts_list(struct gf_mount_entry **ret, size_t *ret_n, struct gf_err *err)
{
    struct GF_VEC(struct gf_mount_entry) list = { 0 };
    struct gf_mountinfos infos;
    int r = gf_mountinfo_read(&infos, err);

    if (r)
        return r;
    for (size_t i = 0; i < infos.all.n && !r; i++) {
        const struct gf_mountinfo *info = &infos.all.at[i];
        struct gf_mount_entry entry;

        if (!gf_mountinfo_is_gatherfs(info))
            continue;
        r = gf_vec_reserve(&list, 1, infos.all.n);
        if (r)
            break;
        entry = (struct gf_mount_entry){ strdup(info->source), strdup(info->mountpoint) };
        list.at[list.n++] = entry;
        if (!entry.source || !entry.mountpoint)
            r = -ENOMEM;
    }
    gf_mountinfo_done(&infos);
    if (r) {
        gf_mounts_free(list.at, list.n);
        return gf_nomem(err);
    }
    *ret = list.at;
    *ret_n = list.n;
    return 0;
}

void gf_mounts_free(struct gf_mount_entry *mounts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(mounts[i].source);
        free(mounts[i].mountpoint);
    }
    free(mounts);
}
