/* SPDX-License-Identifier: Apache-2.0 */
#include "format/deepspeed_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog/catalog.h"
#include "format/deepspeed_value.h"

int gf_ds_files_new(size_t n, struct gf_ds_files *ret, struct gf_err *err)
{
    struct gf_ds_file *at = calloc(n + 1, sizeof(*at));

    if (!at)
        return gf_nomem(err);
    for (size_t i = 0; i < n; i++)
        at[i].index = GF_NONE;
    *ret = (struct gf_ds_files){ at, n };
    return 0;
}

int gf_ds_files_of(struct gf_ds_set set, enum gf_ds_want want, struct gf_ds_files *ret,
                   struct gf_err *err)
{
    int r = gf_ds_files_new(set.n, ret, err);

    for (size_t i = 0; i < set.n && !r; i++) {
        ret->at[i].path = set.at[i].path;
        ret->at[i].want = want;
    }
    return r;
}

void gf_ds_files_done(struct gf_ds_files *files)
{
    for (size_t i = 0; i < files->n; i++) {
        if (files->at[i].index == GF_NONE)
            gf_source_free(files->at[i].source);
        gf_arena_done(&files->at[i].arena);
    }
    free(files->at);
    *files = (struct gf_ds_files){ 0 };
}

static int read_master(struct gf_ds_reader *r, const struct gf_pv *root,
                       struct gf_ds_flat *ret)
{
    const struct gf_pv *value = gf_pv_is_dict(root) ? gf_pv_get(root, "param") : NULL;
    struct gf_torch_view view;
    enum gf_torch_is is;
    const char *why = NULL;
    int e = gf_torch_tensor(gf_torch_pickle(r->torch), value ? value : root, r->file->path,
                            "param", &is, &view, &why, r->err);

    if (e)
        return e;
    if (is != GF_TORCH_TENSOR || view.twist || !gf_dtype_info(view.dtype)->wide_float ||
        !gf_shape_contiguous(view.shape, view.strides))
        return gf_fail(r->err, GF_EBAD, "'%s': %s", r->file->path,
                       why ? why : "its 'param' is no plain tensor of floats");
    ret->numel = view.numel;
    ret->dtype = view.dtype;
    return gf_torch_locate(r->torch, &view, &ret->offset, r->err);
}

static int read_wanted(struct gf_ds_reader *r, const struct gf_ds_model *rank0)
{
    const struct gf_pv *root = gf_torch_root(r->torch);
    struct gf_ds_file *file = r->file;

    switch (file->want) {
    case GF_DS_WANT_MODEL:
        return gf_ds_read_model(r, &file->model);
    case GF_DS_WANT_RANK:
        return gf_ds_read_rank(r, rank0, &file->model);
    case GF_DS_WANT_STATE:
        return gf_ds_read_state(r, root, "the file", &file->state);
    case GF_DS_WANT_OPTIM:
        return gf_ds_read_optim(r, &file->optim);
    case GF_DS_WANT_MASTER:
        return read_master(r, root, &file->flat);
    }
    return 0;
}

/* A file that stands under another rank's name is whole and of the right size: only the
 * name under which torch.save wrote it tells. Other kinds of names say nothing. */
static int check_archive(const struct gf_ds_file *file, const struct gf_torch *torch,
                         struct gf_err *err)
{
    const char *slash = strrchr(file->path, '/'), *archive = gf_torch_archive(torch);
    struct gf_ds_name is, was;
    char name[128];

    if (snprintf(name, sizeof(name), "%.*s.pt", (int)strcspn(archive, "/"), archive) >=
            (int)sizeof(name) ||
        !gf_ds_name_parse(name, &was) ||
        !gf_ds_name_parse(slash ? slash + 1 : file->path, &is) ||
        gf_ds_name_order(&is, &was) == 0)
        return 0;
    return gf_fail(err, GF_EBAD, "'%s' was saved as '%s': files swapped or renamed?",
                   file->path, name);
}

int gf_ds_file_read(struct gf_ds_file *file, struct gf_dir *dir,
                    const struct gf_limits *limits, const struct gf_ds_model *rank0,
                    struct gf_err *err)
{
    GF_AUTO(gf_torch) torch = NULL;
    struct gf_ds_reader reader = { .file = file, .limits = limits, .err = err };
    int e = gf_dir_open(dir, file->path, &file->source, err);

    if (e == -ENOENT)
        return gf_fail(err, GF_EINCOMPLETE, "missing '%s'", file->path);
    if (e)
        return e;
    file->mtime_ns = file->source->identity.mtime_ns;
    file->arena.ceiling = limits->pickle_arena;
    e = gf_torch_open(file->source, limits, &torch, err);
    if (!e)
        e = check_archive(file, torch, err);
    if (e)
        return e;
    reader.torch = torch;
    return read_wanted(&reader, rank0);
}
