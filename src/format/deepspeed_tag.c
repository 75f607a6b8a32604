/* SPDX-License-Identifier: Apache-2.0 */
#include "format/deepspeed_tag.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "format/deepspeed_dir.h"

#define TAG_SIZE 256
#define LATEST_MAX 4096

/* Does this directory hold weights, or at least (`any`) a part of a checkpoint? *ret_mark
 * (may be NULL): the name of one file. */
static bool holds(struct gf_dir *dir, const char *path, bool any, char *ret_mark,
                  size_t size)
{
    struct gf_dir_listing listing = { 0 };
    const char *mark;
    struct gf_err ignored;

    if (gf_dir_list(dir, path, &listing, &ignored))
        return false;
    mark = gf_ds_dir_mark(&listing, any);
    if (mark && ret_mark)
        snprintf(ret_mark, size, "%s", mark);
    gf_dir_listing_free(&listing);
    return mark != NULL;
}

int gf_ds_tag_list(struct gf_dir *dir, struct gf_dir_listing *ret, struct gf_err *err)
{
    struct gf_dir_listing all = { 0 };
    size_t n = 0;
    bool is_tag;
    int r = gf_dir_list(dir, "", &all, err);

    if (r)
        return r;
    is_tag = gf_ds_dir_mark(&all, true) != NULL;
    for (size_t i = 0; i < all.n; i++) {
        struct gf_dir_entry entry = all.at[i];

        if (is_tag || !entry.is_dir || !holds(dir, entry.name, false, NULL, 0))
            continue;
        all.at[i] = all.at[n]; /* swapped, so that the rest can be freed as one listing */
        all.at[n++] = entry;
    }
    for (size_t i = n; i < all.n; i++)
        free((void *)(uintptr_t)all.at[i].name);
    all.n = n;
    *ret = all;
    return 0;
}

/* The one line of `latest`, without white space around it. -ENOENT: no such file. */
static int read_latest(struct gf_dir *dir, const char *file, char ret[static TAG_SIZE],
                       struct gf_err *err)
{
    GF_AUTO_MEM char *text = NULL;
    size_t len;
    char *p;
    int r = gf_dir_read(dir, file, LATEST_MAX, &text, &len, err);

    if (r)
        return r;
    for (p = text; isspace((unsigned char)*p); p++)
        ;
    for (len = strlen(p); len && isspace((unsigned char)p[len - 1]); len--)
        ;
    p[len] = '\0';
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)p[i] < ' ' || p[i] == 0x7f)
            return gf_fail(err, GF_EBAD, "'%s': not one line with a tag", file);
    if (len == 0 || len >= TAG_SIZE)
        return gf_fail(err, GF_EBAD, "'%s': a tag of %zu bytes", file, len);
    if (!gf_path_is_inside(p))
        return gf_fail(err, GF_EBAD, "'%s' names '%s', which is not inside the directory",
                       file, p);
    snprintf(ret, TAG_SIZE, "%s", p);
    return 0;
}

/* "'a', 'b', 'c'" or "none". */
static size_t tags_text(struct gf_dir *dir, char *buf, size_t size,
                        char first[static TAG_SIZE])
{
    struct gf_dir_listing tags = { 0 };
    struct gf_err ignored;
    size_t used = 0, n;

    snprintf(buf, size, "none");
    if (gf_ds_tag_list(dir, &tags, &ignored))
        return 0;
    for (size_t i = 0; i < tags.n; i++) {
        const char *name = tags.at[i].name;

        if (i == 0)
            snprintf(first, TAG_SIZE, "%s", name);
        if (used + strlen(name) + 12 > size) {
            snprintf(buf + used, size - used, ", ...");
            break;
        }
        used += (size_t)snprintf(buf + used, size - used, "%s'%s'", i ? ", " : "", name);
    }
    n = tags.n;
    gf_dir_listing_free(&tags);
    return n;
}

static int find_asked(struct gf_dir *dir, const char *tag, char ret[static TAG_SIZE],
                      struct gf_err *err)
{
    char first[TAG_SIZE], list[200], step[TAG_SIZE];

    if (strlen(tag) < TAG_SIZE && gf_path_is_inside(tag) &&
        holds(dir, tag, true, NULL, 0)) {
        snprintf(ret, TAG_SIZE, "%s", tag);
        return 0;
    }
    if (*tag && strspn(tag, "0123456789") == strlen(tag) &&
        snprintf(step, sizeof(step), "global_step%s", tag) < (int)sizeof(step) &&
        holds(dir, step, true, NULL, 0)) {
        snprintf(ret, TAG_SIZE, "%s", step);
        return 0;
    }
    tags_text(dir, list, sizeof(list), first);
    return gf_fail(err, ENOENT, "'%s': no tag '%.80s' in it; there are: %s", dir->name, tag,
                   list);
}

int gf_ds_tag_find(const struct gf_format_in *in, char ret[static TAG_SIZE],
                   struct gf_err *err)
{
    static const char *const files[] = { "latest", "latest_universal" };
    char tag[TAG_SIZE], first[TAG_SIZE], list[200];
    size_t n;

    if (in->tag)
        return find_asked(in->dir, in->tag, ret, err);
    if (holds(in->dir, "", true, NULL, 0)) {
        ret[0] = '\0';
        return 0;
    }
    for (size_t i = 0; i < 2; i++) {
        int r = read_latest(in->dir, files[i], tag, err);

        if (r == -ENOENT)
            continue;
        if (r)
            return r;
        if (holds(in->dir, tag, true, NULL, 0)) {
            snprintf(ret, TAG_SIZE, "%s", tag);
            return 0;
        }
        tags_text(in->dir, list, sizeof(list), first);
        return gf_fail(
            err, GF_EINCOMPLETE,
            "'%s' names '%.80s', which is not there or has no rank files; tag= may "
            "pick one of: %s",
            files[i], tag, list);
    }
    n = tags_text(in->dir, list, sizeof(list), first);
    if (n == 1) {
        snprintf(ret, TAG_SIZE, "%s", first);
        return 0;
    }
    if (n == 0)
        return gf_fail(
            err, ENOENT,
            "'%s': no DeepSpeed checkpoint: no 'latest', no '*_model_states.pt' here "
            "or one level below",
            in->dir->name);
    return gf_fail(err, EINVAL,
                   "'%s': no 'latest', and several tags: %s; choose one with tag=",
                   in->dir->name, list);
}

int gf_ds_tag_probe(struct gf_dir *dir, const char *file, char why[static GF_WHY])
{
    char tag[TAG_SIZE], mark[TAG_SIZE], first[TAG_SIZE], list[100];
    struct gf_err err;
    size_t n;
    int r;

    if (file) {
        snprintf(why, GF_WHY, "a single file");
        return 0;
    }
    if (holds(dir, "", false, mark, sizeof(mark))) {
        snprintf(why, GF_WHY, "'%.200s' is there", mark);
        return GF_DS_SURE_TAG;
    }
    r = read_latest(dir, "latest", tag, &err);
    if (r == 0 && holds(dir, tag, false, NULL, 0)) {
        snprintf(why, GF_WHY, "'latest' names '%.200s'", tag);
        return GF_DS_SURE_LATEST;
    }
    n = tags_text(dir, list, sizeof(list), first);
    if (n) {
        snprintf(why, GF_WHY, "model files in %s", list);
        return GF_DS_SURE_BELOW;
    }
    if (r == 0 || r == -GF_EBAD) {
        snprintf(why, GF_WHY, "%.200s", r ? err.text : "'latest' names what is not there");
        return GF_DS_SURE_LOST;
    }
    if (holds(dir, "", true, mark, sizeof(mark))) {
        snprintf(why, GF_WHY, "'%.200s' is there, and no model file", mark);
        return GF_DS_SURE_LOST;
    }
    snprintf(why, GF_WHY, "no 'latest', no '*_model_states.pt' here or one level below");
    return 0;
}
