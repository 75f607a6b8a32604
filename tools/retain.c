/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/retain.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/json.h"
#include "base/text.h"
#include "snapshot/side.h"

#define LIST ".gatherfs-snapshots.json"
#define LIST_MAX ((size_t)16 << 20)
#define DOOMED "gatherfs-old"
#define PART ".gatherfs-part" /* stage.c's: what it writes there is renamed */

static char *path_in(const struct gf_retain *retain, const char *name)
{
    char *path;

    return asprintf(&path, "%s/%s", retain->dest, name) < 0 ? NULL : path;
}

/* ---------------------------------------------------------------- the list */

static void drop_kept(struct gf_kept *kept)
{
    for (size_t i = 0; i < kept->n; i++)
        free(kept->names[i]);
    free(kept->names);
}

static int parse_names(const struct gf_json *list, struct gf_kept *kept)
{
    struct GF_VEC(char *) names = { 0 };
    int r = 0;

    for (const struct gf_json *at = gf_json_at(list, 0); at && !r; at = gf_json_next(at)) {
        char *name = strdup(gf_json_str(at) ? gf_json_str(at) : "");

        r = name ? gf_vec_push(&names, name, 1 << 20) : -ENOMEM;
        if (r)
            free(name);
    }
    kept->names = names.at;
    kept->n = names.n;
    return r;
}

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
        const char *id;

        if (!gf_json_u64(gf_json_get(at, "step"), &kept.step) ||
            !(id = gf_json_str(gf_json_get(at, "id"))) || strlen(id) >= sizeof(kept.id))
            continue;
        memcpy(kept.id, id, strlen(id));
        /* Of another metric the values say nothing. */
        kept.has_metric =
            retain->metric && gf_json_str(gf_json_get(doc, "metric")) &&
            strcmp(gf_json_str(gf_json_get(doc, "metric")), retain->metric) == 0 &&
            gf_json_f64(gf_json_get(at, "value"), &kept.metric);
        if (parse_names(gf_json_get(at, "files"), &kept) ||
            gf_vec_push(&retain->list, kept, 1 << 20)) {
            drop_kept(&kept);
            return gf_nomem(err);
        }
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
    errno = 0; /* a short write has none */
    failed = write(fd, text->s, text->len) != (ssize_t)text->len || fsync(fd);
    if (close(fd) || failed)
        return gf_fail(err, errno ? errno : ENOSPC, "'%s': cannot write", path);
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

        gf_text_printf(&text, "%s{\"step\": %" PRIu64 ", \"id\": ", i ? ", " : "",
                       kept->step);
        gf_text_json(&text, kept->id);
        if (kept->has_metric)
            gf_text_printf(&text, ", \"value\": %.17g", kept->metric);
        gf_text_add(&text, ", \"files\": [");
        for (size_t k = 0; k < kept->n; k++) {
            gf_text_add(&text, k ? ", " : "");
            gf_text_json(&text, kept->names[k]);
        }
        gf_text_add(&text, "]}");
    }
    gf_text_add(&text, "]}\n");
    r = path && part && !text.failed ? write_text(part, &text, err) : gf_nomem(err);
    if (!r && rename(part, path))
        r = gf_fail(err, errno, "'%s': %s", path, strerror(errno));
    gf_text_done(&text);
    return r;
}

/* ---------------------------------------------------------------- whose is it? */

static char *path_of(const struct gf_retain *retain, const char *prefix, uint64_t step,
                     const char *suffix)
{
    char *path;

    return asprintf(&path, "%s/%scheckpoint-%" PRIu64 "%s", retain->dest, prefix, step,
                    suffix) < 0
               ? NULL
               : path;
}

/* Inodes are used again, so the time it was made tells, too. */
static int identify(int fd, const char *path, struct gf_kept *ret)
{
    struct statx st;

    if (statx(fd, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &st))
        return -errno;
    if (!(st.stx_mask & STATX_BTIME))
        st.stx_btime = (struct statx_timestamp){ 0 };
    snprintf(ret->id, sizeof(ret->id), "%llu-%lld.%09u", (unsigned long long)st.stx_ino,
             (long long)st.stx_btime.tv_sec, st.stx_btime.tv_nsec);
    return 0;
}

static bool is_same(int fd, const char *path, const struct gf_kept *kept)
{
    struct gf_kept found = { 0 };

    return !identify(fd, path, &found) && !strcmp(found.id, kept->id);
}

static bool has_name(const struct gf_kept *kept, const char *prefix, const char *name)
{
    size_t len = strlen(prefix);

    for (size_t i = 0; i < kept->n; i++)
        if (!strncmp(kept->names[i], prefix, len) && !strcmp(kept->names[i] + len, name))
            return true;
    return false;
}

/* Looks at all there is in it, or deletes that. False: something is not ours, or stays. */
static bool each_file(int fd, const struct gf_kept *kept, const char *prefix, bool delete)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;
    bool good = dir;

    while (good && (entry = readdir(dir))) {
        const char *name = entry->d_name;
        struct stat st;
        int sub;

        if (!strcmp(name, ".") || !strcmp(name, ".."))
            continue;
        if (!*prefix && !strcmp(name, GF_CHAT_TEMPLATES)) {
            sub = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            good = sub >= 0 && each_file(sub, kept, GF_CHAT_TEMPLATES "/", delete) &&
                   (!delete || !unlinkat(fd, name, AT_REMOVEDIR));
            if (sub >= 0)
                close(sub);
            continue;
        }
        good = has_name(kept, prefix, name) &&
               !fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode) &&
               (!delete || !unlinkat(fd, name, 0));
    }
    if (dir)
        closedir(dir);
    else if (copy >= 0)
        close(copy);
    return good;
}

/* The directory at path, if it is the one on the list and nothing else is in it; or -1. */
static int open_ours(const char *path, const struct gf_kept *kept)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0 && is_same(fd, "", kept) && each_file(fd, kept, "", false))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool is_ours(const struct gf_retain *retain, const char *path, uint64_t step)
{
    int fd = -1;

    for (size_t i = 0; i < retain->list.n && fd < 0; i++)
        if (retain->list.at[i].step == step)
            fd = open_ours(path, &retain->list.at[i]);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* ---------------------------------------------------------------- links, old ones */

/* One that leads to a checkpoint of ours, or to one that is no more. */
static bool is_our_link(const struct gf_retain *retain, const char *path)
{
    char target[64], rest;
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    struct stat st;
    uint64_t step;

    if (n < 0)
        return errno == ENOENT;
    target[n] = '\0';
    if (sscanf(target, "checkpoint-%" SCNu64 "%c", &step, &rest) != 1)
        return false;
    for (size_t i = 0; i < retain->list.n; i++)
        if (retain->list.at[i].step == step)
            return true;
    return stat(path, &st) && errno == ENOENT;
}

static int set_link(const struct gf_retain *retain, const char *name, uint64_t step,
                    struct gf_err *err)
{
    GF_AUTO_MEM char *path = path_in(retain, name);
    GF_AUTO_MEM char *part = NULL;
    char target[64];

    snprintf(target, sizeof(target), "checkpoint-%" PRIu64, step);
    if (!path || asprintf(&part, "%s.part", path) < 0) {
        part = NULL;
        return gf_nomem(err);
    }
    if (!is_our_link(retain, path))
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

/* What a killed process has left half deleted, or half written. */
static int delete_rest(const char *old, const struct gf_kept *kept, struct gf_err *err)
{
    int fd = open_ours(old, kept), r = 0;

    if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && /* stage.c's, too */
        (!each_file(fd, kept, "", true) || rmdir(old)))
        r = gf_fail(err, errno ? errno : EIO, "'%s': cannot be removed: %s", old,
                    strerror(errno));
    if (fd >= 0)
        close(fd);
    return r;
}

/* It changes its name first, so that half of it is never taken for a checkpoint. What is not
 * ours (any more) stays. */
static int delete_checkpoint(const struct gf_retain *retain, const struct gf_kept *kept,
                             struct gf_err *err)
{
    GF_AUTO_MEM char *path = path_of(retain, "", kept->step, "");
    GF_AUTO_MEM char *old = path_of(retain, ".", kept->step, "." DOOMED);
    int fd, r = 0;

    if (!path || !old)
        return gf_nomem(err);
    fd = open_ours(path, kept);
    if (fd >= 0) {
        close(fd);
        if (rename(path, old))
            r = gf_fail(err, errno, "'%s': cannot be removed: %s", path, strerror(errno));
        else if (!is_same(AT_FDCWD, old, kept))
            r = rename(old, path) ? gf_fail(err, errno, "'%s' is now '%s'", path, old) : 0;
    }
    return r ? r : delete_rest(old, kept, err);
}

static int prune(struct gf_retain *retain, uint64_t keep, struct gf_err *err)
{
    const struct gf_kept *best = best_of(retain);
    uint64_t best_step = best ? best->step : 0;
    bool has_best = best;
    size_t n = 0, total = retain->list.n;
    int r = 0;

    for (size_t i = 0; i < total; i++) {
        struct gf_kept kept = retain->list.at[i];
        bool stays = !keep || total - i <= keep || (has_best && kept.step == best_step);

        if (!stays && !r)
            r = delete_checkpoint(retain, &kept, err);
        if (stays || r)
            retain->list.at[n++] = kept;
        else
            drop_kept(&kept);
    }
    retain->list.n = n;
    return r;
}

/* ---------------------------------------------------------------- a new one */

static int copy_names(const struct gf_vdir *files, struct gf_kept *kept)
{
    kept->names = calloc(files->n + 1, sizeof(*kept->names));
    for (; kept->names && kept->n < files->n; kept->n++) {
        kept->names[kept->n] = strdup(files->files[kept->n].name);
        if (!kept->names[kept->n])
            return -ENOMEM;
    }
    return kept->names ? 0 : -ENOMEM;
}

int gf_retain_begin(struct gf_retain *retain, uint64_t step, const struct gf_vdir *files,
                    char **ret, bool *ret_replace, struct gf_err *err)
{
    GF_AUTO_MEM char *path = path_of(retain, "", step, "");
    GF_AUTO_MEM char *part = path_of(retain, "", step, PART);
    struct gf_kept kept = { .step = step };
    struct stat st;
    int r = 0;

    if (!path || !part)
        return gf_nomem(err);
    *ret_replace = is_ours(retain, path, step);
    if (!*ret_replace && !lstat(path, &st))
        return gf_fail(err, EEXIST, "'%s' is there already, and not by a schedule", path);
    if (copy_names(files, &kept)) {
        drop_kept(&kept);
        return gf_nomem(err);
    }
    /* The directory that will be renamed, so that its inode is known before. */
    if ((mkdir(part, 0777) && errno != EEXIST) || identify(AT_FDCWD, part, &kept))
        r = gf_fail(err, errno, "'%s': cannot make the directory: %s", part,
                    strerror(errno));
    else if (gf_vec_push(&retain->list, kept, 1 << 20))
        r = gf_nomem(err);
    if (r) {
        drop_kept(&kept);
        return r;
    }
    r = write_list(retain, err);
    if (r)
        gf_retain_cancel(retain);
    else
        *ret = gf_take(&path);
    return r;
}

void gf_retain_cancel(struct gf_retain *retain)
{
    struct gf_kept *kept = &retain->list.at[--retain->list.n];
    GF_AUTO_MEM char *part = path_of(retain, "", kept->step, PART);

    if (part)
        rmdir(part);
    drop_kept(kept);
    write_list(retain, NULL); /* what it says too much is not there */
}

int gf_retain_commit(struct gf_retain *retain, const double *metric, uint64_t keep,
                     struct gf_err *err)
{
    struct gf_kept *fresh = &retain->list.at[retain->list.n - 1];
    struct gf_kept kept = *fresh;
    const struct gf_kept *best;
    size_t n = 0;
    int r;

    kept.has_metric = metric;
    kept.metric = metric ? *metric : 0;
    for (size_t i = 0; i + 1 < retain->list.n; i++)
        if (retain->list.at[i].step != kept.step)
            retain->list.at[n++] = retain->list.at[i];
        else
            drop_kept(&retain->list.at[i]);
    retain->list.at[n++] = kept;
    retain->list.n = n;
    /* The list first: what is not on it is never deleted. The links before what they may
     * have led to goes. */
    r = write_list(retain, err);
    if (!r)
        r = set_link(retain, "latest", kept.step, err);
    best = best_of(retain);
    if (!r && best)
        r = set_link(retain, "best", best->step, err);
    if (!r)
        r = prune(retain, keep, err);
    return r ? r : write_list(retain, err);
}

/* ---------------------------------------------------------------- the whole */

/* What is not there any more, or not ours, is forgotten; what was half deleted goes. */
static int check_list(struct gf_retain *retain, struct gf_err *err)
{
    size_t n = 0;

    for (size_t i = 0; i < retain->list.n; i++) {
        struct gf_kept *kept = &retain->list.at[i];
        GF_AUTO_MEM char *path = path_of(retain, "", kept->step, "");
        GF_AUTO_MEM char *old = path_of(retain, ".", kept->step, "." DOOMED);
        GF_AUTO_MEM char *part = path_of(retain, "", kept->step, PART);
        bool there;
        int fd;

        if (!path || !old || !part)
            return gf_nomem(err);
        fd = open_ours(path, kept);
        there = fd >= 0;
        if (there)
            close(fd);
        /* If that fails it is tried again the next time. */
        if (there || delete_rest(old, kept, NULL) || delete_rest(part, kept, NULL)) {
            struct gf_kept keeps = *kept;

            retain->list.at[i] = retain->list.at[n];
            retain->list.at[n++] = keeps;
        } else {
            drop_kept(kept);
            *kept = (struct gf_kept){ 0 };
        }
    }
    retain->list.n = n;
    return 0;
}

static int lock_dest(struct gf_retain *retain, struct gf_err *err)
{
    retain->lock = open(retain->dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (retain->lock < 0)
        return gf_fail(err, errno, "'%s': %s", retain->dest, strerror(errno));
    /* Some file systems have no locks for directories. */
    if (flock(retain->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return gf_fail(err, EBUSY, "'%s': another 'gatherfs snapshot --every' writes there",
                       retain->dest);
    return 0;
}

int gf_retain_open(const char *dest, const char *metric, bool max, struct gf_retain *ret,
                   struct gf_err *err)
{
    struct gf_retain retain = { .dest = dest, .metric = metric, .max = max, .lock = -1 };
    int r = 0;

    if (mkdir(dest, 0777) && errno != EEXIST)
        r = gf_fail(err, errno, "'%s': cannot make the directory: %s", dest,
                    strerror(errno));
    if (!r)
        r = lock_dest(&retain, err);
    if (!r)
        r = read_list(&retain, err);
    if (!r)
        r = check_list(&retain, err);
    if (r) {
        gf_retain_done(&retain);
        return r;
    }
    *ret = retain;
    return 0;
}

void gf_retain_done(struct gf_retain *retain)
{
    for (size_t i = 0; i < retain->list.n; i++)
        drop_kept(&retain->list.at[i]);
    gf_vec_free(&retain->list);
    if (retain->lock >= 0)
        close(retain->lock);
}
