/* SPDX-License-Identifier: Apache-2.0 */
#include "format/weight_index.h"

#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const struct gf_json *gf_weight_index_first(const struct gf_weight_index *index)
{
    return gf_json_at(gf_json_get(index->doc, "weight_map"), 0);
}

/* The files, each once. */
static int collect_files(struct gf_weight_index *index, struct gf_err *err)
{
    struct gf_strmap seen = { 0 };
    int r = 0;

    for (const struct gf_json *at = gf_weight_index_first(index); at && !r;
         at = gf_json_next(at)) {
        const char *file = gf_json_str(at);

        if (!file || !gf_path_is_inside(file)) {
            r = gf_fail(err, GF_EBAD,
                        "'%s': tensor '%s': its file '%.80s' is not inside the directory",
                        index->name, gf_json_key(at), file ? file : "?");
            break;
        }
        r = gf_strmap_put(&seen, file, 0, NULL);
        if (r == -EEXIST)
            r = 0;
        else if (r)
            r = gf_nomem(err);
        else
            index->files[index->nfiles++] = file;
    }
    gf_strmap_done(&seen);
    if (!r && index->nfiles)
        qsort(index->files, index->nfiles, sizeof(*index->files), by_name);
    return r;
}

static uint64_t place_of(const struct gf_weight_index *index, const char *file)
{
    const char **hit =
        bsearch(&file, index->files, index->nfiles, sizeof(*index->files), by_name);

    return (uint64_t)(hit - index->files);
}

static int collect_tensors(struct gf_weight_index *index, struct gf_err *err)
{
    for (const struct gf_json *at = gf_weight_index_first(index); at;
         at = gf_json_next(at)) {
        uint64_t place = place_of(index, gf_json_str(at));
        int r = gf_strmap_put(&index->places, gf_json_key(at), place, NULL);

        if (r == -EEXIST)
            return gf_fail(err, GF_EBAD, "'%s': tensor '%s' is in it twice", index->name,
                           gf_json_key(at));
        if (r)
            return gf_nomem(err);
    }
    return 0;
}

int gf_weight_index_read(struct gf_dir *dir, const char *name,
                         const struct gf_limits *limits, struct gf_weight_index **ret,
                         struct gf_err *err)
{
    GF_AUTO(gf_weight_index) index = calloc(1, sizeof(*index));
    GF_AUTO_MEM char *text = NULL;
    size_t len, n;
    int r;

    if (!index)
        return gf_nomem(err);
    index->name = name;
    r = gf_dir_read(dir, name, limits->json_bytes, &text, &len, err);
    if (!r)
        r = gf_json_parse(name, text, len, limits, &index->doc, err);
    if (r)
        return r;
    n = gf_json_len(gf_json_get(index->doc, "weight_map"));
    if (!gf_json_is_object(gf_json_get(index->doc, "weight_map")) || n == 0)
        return gf_fail(err, GF_EBAD, "'%s': no 'weight_map' with names and files", name);
    if (n > limits->tensors)
        return gf_fail(err, GF_EBAD, "'%s': %zu tensors, at most %zu are read", name, n,
                       limits->tensors);
    index->files = calloc(n, sizeof(*index->files));
    if (!index->files)
        return gf_nomem(err);
    r = collect_files(index, err);
    if (!r)
        r = collect_tensors(index, err);
    if (!r)
        *ret = gf_take(&index);
    return r;
}

void gf_weight_index_free(struct gf_weight_index *index)
{
    if (!index)
        return;
    gf_strmap_done(&index->places);
    free(index->files);
    gf_json_free(index->doc);
    free(index);
}
