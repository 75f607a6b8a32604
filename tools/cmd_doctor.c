/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_doctor.c - can this machine mount, and what would make it better?
 *
 * Looks only; changes nothing. Each check prints one line: ok, warn (works, with advice) or
 * fail (a mount cannot work).
 */
#include "tools/cmd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CAP_SYS_ADMIN_BIT 21
#define WANTED_PAGES 256 /* of 4 KiB in one request */
#define WANTED_FILES 4096

enum state { OK, WARN, FAIL };

__attribute__((format(printf, 3, 4))) static bool line(enum state state, const char *what,
                                                       const char *fmt, ...)
{
    static const char *const words[] = { "ok", "warn", "fail" };
    va_list ap;

    printf("%-5s %-12s ", words[state], what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    return state != FAIL;
}

/* The first number of a small file of /proc or /sys; false if there is none. */
static bool number_in(const char *path, unsigned long long *ret)
{
    FILE *file = fopen(path, "re");
    bool found = file && fscanf(file, "%llu", ret) == 1;

    if (file)
        fclose(file);
    return found;
}

static bool may_mount_directly(void)
{
    unsigned long long caps = 0;
    char text[256];
    FILE *file = fopen("/proc/self/status", "re");

    if (!file)
        return false;
    while (fgets(text, sizeof(text), file))
        if (sscanf(text, "CapEff: %llx", &caps) == 1)
            break;
    fclose(file);
    return caps >> CAP_SYS_ADMIN_BIT & 1;
}

static bool check_build(void)
{
#ifdef GATHERFS_FUSE
    return line(OK, "gatherfs", GATHERFS_VERSION ", built with libfuse " GATHERFS_FUSE);
#else
    return line(FAIL, "gatherfs",
                GATHERFS_VERSION ", built without libfuse3: "
                                 "install libfuse3-dev and build again");
#endif
}

static bool check_device(void)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    struct stat st;

    if (fd >= 0) {
        bool is_fuse =
            !fstat(fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev == makedev(10, 229);

        close(fd);
        return is_fuse ? line(OK, "/dev/fuse", "can be opened")
                       : line(FAIL, "/dev/fuse",
                              "is something else, not character device 10:229");
    }
    if (errno == ENOENT)
        return line(FAIL, "/dev/fuse",
                    "is not there: load it (modprobe fuse), or start the "
                    "container with --device /dev/fuse");
    return line(FAIL, "/dev/fuse", "cannot be opened: %s", strerror(errno));
}

/* Where `name` is in PATH, and whether it is set-user-id root. */
static bool find_program(const char *name, char *ret, size_t room, bool *ret_setuid)
{
    const char *dir = getenv("PATH");
    struct stat st;

    while (dir && *dir) {
        size_t len = strcspn(dir, ":");

        snprintf(ret, room, "%.*s/%s", (int)len, dir, name);
        if (!access(ret, X_OK) && !stat(ret, &st)) {
            *ret_setuid = st.st_uid == 0 && (st.st_mode & S_ISUID);
            return true;
        }
        dir += len + (dir[len] == ':');
    }
    return false;
}

static bool check_permission(void)
{
    char path[4096];
    bool is_setuid = false,
         found = find_program("fusermount3", path, sizeof(path), &is_setuid);

    if (may_mount_directly())
        return line(found ? OK : WARN, "permission", "may mount directly%s",
                    found ? "" : "; other users need fusermount3 (package fuse3)");
    if (!found)
        return line(FAIL, "permission", "fusermount3 is not in PATH: install fuse3");
    if (!is_setuid && geteuid() != 0)
        return line(FAIL, "permission", "%s is not set-user-id root", path);
    if (geteuid() == 0)
        return line(FAIL, "permission",
                    "no CAP_SYS_ADMIN: start the container with "
                    "--cap-add SYS_ADMIN");
    return line(OK, "permission", "mounts through %s", path);
}

static bool check_kernel(void)
{
    unsigned major = 0, minor = 0;
    struct utsname name;

    if (uname(&name) || sscanf(name.release, "%u.%u", &major, &minor) != 2)
        return line(WARN, "kernel", "version unknown");
    if (major < 4 || (major == 4 && minor < 20))
        return line(WARN, "kernel", "%s: reads are 128 KiB at most before 4.20",
                    name.release);
    return line(OK, "kernel", "%s", name.release);
}

static bool check_request_size(void)
{
    static const char path[] = "/proc/sys/fs/fuse/max_pages_limit";
    unsigned long long pages;

    if (!number_in(path, &pages))
        return line(OK, "request size", "the kernel's own limit");
    if (pages < WANTED_PAGES)
        return line(WARN, "request size", "%llu pages: slow; as root: echo %d > %s", pages,
                    WANTED_PAGES, path);
    return line(OK, "request size", "%llu pages", pages);
}

static bool check_read_ahead(void)
{
    char path[512] = "";
    struct dirent *entry;
    DIR *dir = opendir("/sys/class/bdi");

    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof(path), "/sys/class/bdi/%s/read_ahead_kb", entry->d_name);
            break;
        }
    if (dir)
        closedir(dir);
    if (path[0] && !access(path, W_OK))
        return line(OK, "read-ahead", "can be raised by the mount");
    return line(WARN, "read-ahead",
                "stays at the kernel's 128 KiB (mmap up to 5 times slower): "
                "mount as root, or raise /sys/class/bdi/*/read_ahead_kb of "
                "the mount to 2048");
}

static bool check_allow_other(void)
{
    char text[256];
    bool found = false;
    FILE *file;

    if (geteuid() == 0)
        return line(OK, "allow_other", "root may use it");
    file = fopen("/etc/fuse.conf", "re");
    while (file && fgets(text, sizeof(text), file))
        found |= !strncmp(text, "user_allow_other", strlen("user_allow_other"));
    if (file)
        fclose(file);
    if (found)
        return line(OK, "allow_other", "permitted by /etc/fuse.conf");
    return line(WARN, "allow_other",
                "only you will see your mounts: others need "
                "'user_allow_other' in /etc/fuse.conf");
}

static bool check_open_files(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit))
        return line(WARN, "open files", "limit unknown");
    if (limit.rlim_max < WANTED_FILES)
        return line(WARN, "open files",
                    "%llu at most: checkpoints of many ranks need more "
                    "(ulimit -Hn)",
                    (unsigned long long)limit.rlim_max);
    return line(OK, "open files", "%llu at most", (unsigned long long)limit.rlim_max);
}

static int run(struct gf_args *args, struct gf_err *err)
{
    bool can = check_build();

    (void)args;
    can &= check_device();
    can &= check_permission();
    check_kernel();
    check_request_size();
    check_read_ahead();
    check_allow_other();
    check_open_files();
    if (can)
        return 0;
    return gf_fail(err, EPERM, "a mount cannot work here, 'gatherfs export' needs no FUSE");
}

const struct gf_cmd gf_cmd_doctor = {
    .name = "doctor",
    .words = "",
    .summary = "can this machine mount, and what would make it faster",
    .details = "Ends with 0 if a mount can work, 2 if not.\n",
    .run = run,
};
