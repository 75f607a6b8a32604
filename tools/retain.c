/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/retain.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/json.h"
#include "base/text.h"

#define LIST ".gatherfs-snapshots.json"
#define LIST_MAX ((size_t)16 << 20)
#define DOOMED "gatherfs-old"

static char *path_in(const struct gf_retain *retain, const char *name)
{
    char *path;

    return asprintf(&path, "%s/%s", retain->dest, name) < 0 ? NULL : path;
}

/* ---------------------------------------------------------------- the list */

static int parse_list(struct gf_retain *retain, const char *text, size_t len,
                      struct gf_err *err)
{
    GF_AUTO(gf_json) doc = NULL;
    const struct gf_json *list;
    int r = gf_json_parse(LIST, text, len, &gf_limits_default, &doc, err);

    if (r)
        return gf_wrap(err, "'%s'", retain->dest);
    list = gf_json_get(doc, "checkpoints");
    for (const struct gf_json *at = gf_json_at(list, 0); at; at = gf_json_next(at)) {
        struct gf_kept kept = { 0 };

        if (!gf_json_u64(gf_json_get(at, "step"), &kept.step))
            continue;
        /* Of another metric the values say nothing. */
        kept.has_metric =
            retain->metric && gf_json_str(gf_json_get(doc, "metric")) &&
            strcmp(gf_json_str(gf_json_get(doc, "metric")), retain->metric) == 0 &&
            gf_json_f64(gf_json_get(at, "value"), &kept.metric);
        if (gf_vec_push(&retain->list, kept, 1 << 20))
            return gf_nomem(err);
    }
    return 0;
}

static int read_list(struct gf_retain *retain, struct gf_err *err)
{
    GF_AUTO_MEM char *path = path_in(retain, LIST);
    GF_AUTO_MEM char *text = NULL;
    struct stat st;
    ssize_t n = 0;
    int fd, r = 0;

    if (!path)
        return gf_nomem(err);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : gf_fail(err, errno, "'%s': %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > LIST_MAX)
        r = gf_fail(err, GF_EBAD, "'%s': not a list of snapshots", path);
    if (!r) {
        text = malloc((size_t)st.st_size + 1);
        n = text ? read(fd, text, (size_t)st.st_size) : -1;
        if (n < 0)
            r = text ? gf_fail(err, errno, "'%s': %s", path, strerror(errno))
                     : gf_nomem(err);
    }
    close(fd);
    return r ? r : parse_list(retain, text, (size_t)n, err);
}

static int write_text(const char *path, const struct gf_text *text, struct gf_err *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    bool failed;

    if (fd < 0)
        return gf_fail(err, errno, "'%s': %s", path, strerror(errno));
    failed = write(fd, text->s, text->len) != (ssize_t)text->len || fsync(fd);
    if (close(fd) || failed)
        return gf_fail(err, errno ? errno : EIO, "'%s': cannot write", path);
    return 0;
}

static int write_list(const struct gf_retain *retain, struct gf_err *err)
{
    GF_AUTO_MEM char *path = path_in(retain, LIST);
    GF_AUTO_MEM char *part = path_in(retain, LIST ".part");
    struct gf_text text = { 0 };
    int r;

    gf_text_add(&text, "{\"metric\": ");
    if (retain->metric)
        gf_text_json(&text, retain->metric);
    else
        gf_text_add(&text, "null");
    gf_text_add(&text, ", \"checkpoints\": [");
    for (size_t i = 0; i < retain->list.n; i++) {
        const struct gf_kept *kept = &retain->list.at[i];

        gf_text_printf(&text, "%s{\"step\": %" PRIu64, i ? ", " : "", kept->step);
        if (kept->has_metric)
            gf_text_printf(&text, ", \"value\": %.17g", kept->metric);
        gf_text_add(&text, "}");
    }
    gf_text_add(&text, "]}\n");
    r = path && part && !text.failed ? write_text(part, &text, err) : gf_nomem(err);
    if (!r && rename(part, path))
        r = gf_fail(err, errno, "'%s': %s", path, strerror(errno));
    gf_text_done(&text);
    return r;
}

/* ---------------------------------------------------------------- links, old ones */

static int set_link(const struct gf_retain *retain, const char *name, uint64_t step,
                    struct gf_err *err)
{
    GF_AUTO_MEM char *path = path_in(retain, name);
    GF_AUTO_MEM char *part = NULL;
    struct stat st;
    char target[64];

    snprintf(target, sizeof(target), "checkpoint-%" PRIu64, step);
    if (!path || asprintf(&part, "%s.part", path) < 0) {
        part = NULL;
        return gf_nomem(err);
    }
    /* Somebody's own file or directory of that name stays. */
    if (!lstat(path, &st) && !S_ISLNK(st.st_mode))
        return 0;
    unlink(part);
    if (symlink(target, part) || rename(part, path))
        return gf_fail(err, errno, "'%s': cannot make the link: %s", path, strerror(errno));
    return 0;
}

static const struct gf_kept *best_of(const struct gf_retain *retain)
{
    const struct gf_kept *best = NULL;

    for (size_t i = 0; i < retain->list.n; i++) {
        const struct gf_kept *kept = &retain->list.at[i];

        if (kept->has_metric && (!best || (retain->max ? kept->metric > best->metric
                                                       : kept->metric < best->metric)))
            best = kept;
    }
    return best;
}

/* A directory of plain files. It changes its name first, so that half of it is never taken
 * for a checkpoint. */
static int delete_checkpoint(const struct gf_retain *retain, uint64_t step,
                             struct gf_err *err)
{
    GF_AUTO_MEM char *old = NULL;
    GF_AUTO_MEM char *path = NULL;
    struct dirent *entry;
    DIR *dir;

    if (asprintf(&path, "%s/checkpoint-%" PRIu64, retain->dest, step) < 0 ||
        asprintf(&old, "%s/.checkpoint-%" PRIu64 "." DOOMED, retain->dest, step) < 0)
        return gf_nomem(err);
    if (rename(path, old))
        return errno == ENOENT ? 0
                               : gf_fail(err, errno, "'%s': cannot be removed: %s", path,
                                         strerror(errno));
    dir = opendir(old);
    while (dir && (entry = readdir(dir)))
        unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
    return rmdir(old)
               ? gf_fail(err, errno, "'%s': cannot be removed: %s", old, strerror(errno))
               : 0;
}

static int prune(struct gf_retain *retain, uint64_t keep, struct gf_err *err)
{
    const struct gf_kept *best = best_of(retain);
    uint64_t best_step = best ? best->step : 0;
    size_t n = 0, total = retain->list.n;
    int r = 0;

    for (size_t i = 0; i < total; i++) {
        struct gf_kept kept = retain->list.at[i];
        bool stays = !keep || total - i <= keep || (best && kept.step == best_step);

        if (!stays && !r)
            r = delete_checkpoint(retain, kept.step, err);
        if (stays || r)
            retain->list.at[n++] = kept;
    }
    retain->list.n = n;
    return r;
}

int gf_retain_add(struct gf_retain *retain, const struct gf_kept *fresh, uint64_t keep,
                  struct gf_err *err)
{
    const struct gf_kept *best;
    size_t n = 0;
    int r;

    for (size_t i = 0; i < retain->list.n; i++)
        if (retain->list.at[i].step != fresh->step)
            retain->list.at[n++] = retain->list.at[i];
    retain->list.n = n;
    if (gf_vec_push(&retain->list, *fresh, 1 << 20))
        return gf_nomem(err);
    /* The list first: what is not on it is never deleted. The links before what they may
     * have led to goes. */
    r = write_list(retain, err);
    if (!r)
        r = set_link(retain, "latest", fresh->step, err);
    best = best_of(retain);
    if (!r && best)
        r = set_link(retain, "best", best->step, err);
    if (!r)
        r = prune(retain, keep, err);
    return r ? r : write_list(retain, err);
}

/* ---------------------------------------------------------------- the whole */

int gf_retain_path(const struct gf_retain *retain, uint64_t step, char **ret,
                   bool *ret_ours, struct gf_err *err)
{
    *ret_ours = false;
    for (size_t i = 0; i < retain->list.n; i++)
        *ret_ours |= retain->list.at[i].step == step;
    if (asprintf(ret, "%s/checkpoint-%" PRIu64, retain->dest, step) < 0)
        return gf_nomem(err);
    return 0;
}

int gf_retain_open(const char *dest, const char *metric, bool max, struct gf_retain *ret,
                   struct gf_err *err)
{
    struct gf_retain retain = { .dest = dest, .metric = metric, .max = max };
    int r = 0;

    if (mkdir(dest, 0777) && errno != EEXIST)
        r = gf_fail(err, errno, "'%s': cannot make the directory: %s", dest,
                    strerror(errno));
    if (!r)
        r = read_list(&retain, err);
    if (r) {
        gf_retain_done(&retain);
        return r;
    }
    *ret = retain;
    return 0;
}

void gf_retain_done(struct gf_retain *retain)
{
    gf_vec_free(&retain->list);
}
