/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opened.c - from SOURCE to the directory that export writes and verify reads; a mount's own
 * files.
 */
#include "tools/cmd.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

static int no_default_view(struct gf_snapshot *snapshot, const char *source,
                           struct gf_err *err)
{
    const struct gf_snapshot_info *info = gf_snapshot_info(snapshot);
    GF_AUTO_MEM struct gf_view_state *views = NULL;
    struct gf_text names = { 0 };
    size_t n = 0;
    int r = gf_snapshot_views(snapshot, &views, &n, err);

    if (r)
        return r;
    for (size_t i = 0; i < n; i++)
        if (!views[i].why_not[0])
            gf_text_printf(&names, "%s%s", names.len ? ", " : "", views[i].name);
    gf_fail(err, EINVAL, "'%s' has no default view: %.200s; choose one with --view: %s",
            source, info->why_no_default ? info->why_no_default : "none fits",
            names.s ? names.s : "there is none");
    gf_text_done(&names);
    return -EINVAL;
}

int gf_opened_open(const char *source, const struct gf_options *opt, struct gf_opened *ret,
                   struct gf_err *err)
{
    GF_AUTO(gf_run) run = NULL;
    int r = gf_run_open(source, opt, &run, err);

    if (!r)
        r = gf_opened_take(run, ret, err);
    if (!r)
        ret->owned = gf_take(&run);
    return r;
}

int gf_opened_take(struct gf_run *run, struct gf_opened *ret, struct gf_err *err)
{
    struct gf_opened opened = { .run = run };
    int r = gf_run_default(opened.run, &opened.snapshot, &opened.path, err);

    if (!r && !gf_snapshot_info(opened.snapshot)->default_view)
        r = no_default_view(opened.snapshot, gf_run_source(run), err);
    if (!r)
        r = gf_snapshot_dir(opened.snapshot, NULL, &opened.dir, err);
    if (!r)
        r = gf_snapshot_pin(opened.snapshot, err);
    opened.pinned = !r;
    if (!r)
        r = gf_snapshot_enter(opened.snapshot, 0, NULL, NULL, err);
    opened.entered = !r;
    if (r) {
        gf_opened_close(&opened);
        return r;
    }
    *ret = opened;
    return 0;
}

void gf_opened_close(struct gf_opened *opened)
{
    if (opened->entered)
        gf_snapshot_leave(opened->snapshot, 0);
    if (opened->pinned)
        gf_snapshot_unpin(opened->snapshot);
    gf_snapshot_free(opened->snapshot);
    gf_run_free(opened->owned);
    free(opened->path);
    *opened = (struct gf_opened){ 0 };
}

void gf_print_warnings(const struct gf_snapshot *snapshot)
{
    const struct gf_found *found = gf_snapshot_found(snapshot);

    for (size_t i = 0; i < found->warnings.n; i++)
        fprintf(stderr, "gatherfs: warning: %s\n", found->warnings.at[i]);
}

int gf_read_ctl(const char *mountpoint, const char *name, struct gf_text *ret,
                struct gf_err *err)
{
    char path[PATH_MAX], buf[4096];
    ssize_t n;
    int fd;

    if (snprintf(path, sizeof(path), "%s/.gatherfs/%s", mountpoint, name) >=
        (int)sizeof(path))
        return gf_fail(err, ENAMETOOLONG, "'%s': the path is too long", mountpoint);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return gf_fail(err, errno, "'%s' is not a gatherfs mount", mountpoint);
    if (fd < 0)
        return gf_fail(err, errno, "'%s': %s", path, strerror(errno));
    while ((n = read(fd, buf, sizeof(buf))) > 0)
        gf_text_addn(ret, buf, (size_t)n);
    if (n < 0)
        gf_fail(err, errno, "'%s': %s", path, strerror(errno));
    close(fd);
    if (n < 0)
        return -err->code;
    return ret->failed ? gf_nomem(err) : 0;
}

int gf_write_all(int fd, const void *buf, size_t len)
{
    const char *p = buf;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}
