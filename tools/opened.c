/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opened.c - from SOURCE to the directory that export writes and verify reads.
 */
#include "tools/cmd.h"

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
    struct gf_opened opened = { 0 };
    int r = gf_run_open(source, opt, &opened.run, err);

    if (!r)
        r = gf_run_default(opened.run, &opened.snapshot, &opened.path, err);
    if (!r && !gf_snapshot_info(opened.snapshot)->default_view)
        r = no_default_view(opened.snapshot, source, err);
    if (!r)
        r = gf_snapshot_dir(opened.snapshot, NULL, &opened.dir, err);
    if (!r)
        r = gf_snapshot_pin(opened.snapshot, err);
    opened.pinned = !r;
    if (r) {
        gf_opened_close(&opened);
        return r;
    }
    *ret = opened;
    return 0;
}

void gf_opened_close(struct gf_opened *opened)
{
    if (opened->pinned)
        gf_snapshot_unpin(opened->snapshot);
    gf_snapshot_free(opened->snapshot);
    gf_run_free(opened->run);
    free(opened->path);
    *opened = (struct gf_opened){ 0 };
}

void gf_print_warnings(const struct gf_snapshot *snapshot)
{
    const struct gf_found *found = gf_snapshot_found(snapshot);

    for (size_t i = 0; i < found->warnings.n; i++)
        fprintf(stderr, "gatherfs: warning: %s\n", found->warnings.at[i]);
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
