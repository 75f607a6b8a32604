/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shard.c - which output goes into which file.
 *
 * As huggingface_hub's split_torch_state_dict_into_shards (2.4): walk the outputs in order
 * and fill a shard; one that would overflow it starts the next. An output larger than the
 * limit gets a shard of its own at once, while the one being filled stays open: so it can
 * come before outputs that precede it. Outputs that share a storage in torch's eyes (those
 * that were one tensor; all without bytes, which have the null storage) stay together where
 * the first of them went, which counts for all of them. Sizes are the tensors', headers do
 * not count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/vec.h"
#include "image/weights.h"

#define NO_GROUP UINT32_MAX

/* Outputs are put into groups; a group becomes a numbered shard when it is closed. */
struct plan {
    uint32_t *group;  /* of each output */
    uint32_t *number; /* of each group */
    uint32_t ngroups, nclosed;
    struct storage *storages; /* by gf_output.storage */
};

struct storage {
    uint64_t nbytes;
    uint32_t group; /* where its first output went; NO_GROUP before that */
};

static uint32_t open_group(struct plan *plan)
{
    return plan->ngroups++;
}

static void close_group(struct plan *plan, uint32_t group)
{
    plan->number[group] = plan->nclosed++;
}

static void fill(struct plan *plan, const struct gf_view *view, uint64_t max)
{
    uint32_t filling = NO_GROUP, empties = NO_GROUP;
    uint64_t used = 0;

    for (size_t i = 0; i < view->n; i++) {
        uint32_t id = view->outputs[i].storage;
        struct storage *storage = id ? &plan->storages[id] : NULL;
        uint64_t nbytes = storage ? storage->nbytes : view->outputs[i].nbytes;

        if (storage && storage->group != NO_GROUP) {
            plan->group[i] = storage->group;
            continue;
        }
        if (nbytes > max) {
            plan->group[i] = open_group(plan);
            close_group(plan, plan->group[i]);
            if (storage)
                storage->group = plan->group[i];
            continue;
        }
        if (nbytes == 0 && empties != NO_GROUP) {
            plan->group[i] = empties;
            continue;
        }
        if (used > max - nbytes) {
            close_group(plan, filling);
            filling = NO_GROUP;
            used = 0;
        }
        if (filling == NO_GROUP)
            filling = open_group(plan);
        if (nbytes == 0)
            empties = filling;
        if (storage)
            storage->group = filling;
        plan->group[i] = filling;
        used += nbytes;
    }
    if (filling != NO_GROUP)
        close_group(plan, filling);
}

int gf_shard_plan(const struct gf_view *view, uint64_t max_shard_size, uint32_t **ret,
                  uint32_t *ret_n, struct gf_err *err)
{
    GF_AUTO_MEM uint32_t *group = malloc((view->n + 1) * sizeof(*group));
    GF_AUTO_MEM uint32_t *number = malloc((view->n + 1) * sizeof(*number));
    GF_AUTO_MEM struct storage *storages = malloc((view->n + 1) * sizeof(*storages));
    struct plan plan = { .group = group, .number = number, .storages = storages };

    if (!group || !number || !storages)
        return gf_nomem(err);
    for (size_t i = 0; i <= view->n; i++)
        storages[i] = (struct storage){ .group = NO_GROUP };
    for (size_t i = 0; i < view->n; i++)
        storages[view->outputs[i].storage].nbytes += view->outputs[i].nbytes;
    fill(&plan, view, max_shard_size);
    for (size_t i = 0; i < view->n; i++)
        group[i] = number[group[i]];
    *ret = gf_take(&group);
    *ret_n = plan.nclosed;
    return 0;
}

char *gf_shard_name(const char *stem, const char *suffix, uint32_t i, uint32_t n)
{
    char *name;
    int len = n == 1 ? asprintf(&name, "%s%s", stem, suffix)
                     : asprintf(&name, "%s-%05u-of-%05u%s", stem, i + 1, n, suffix);

    return len < 0 ? NULL : name;
}

/* The outputs of shard i: order[start[i]] up to order[start[i + 1]]. */
static int sort_by_shard(const uint32_t *shard, size_t n, uint32_t nshards,
                         uint32_t **ret_order, size_t **ret_start, struct gf_err *err)
{
    GF_AUTO_MEM uint32_t *order = malloc((n + 1) * sizeof(*order));
    GF_AUTO_MEM size_t *start = calloc((size_t)nshards + 2, sizeof(*start));

    if (!order || !start)
        return gf_nomem(err);
    /* Counted two places on, so that filling moves each start to where it belongs. */
    for (size_t i = 0; i < n; i++)
        start[shard[i] + (size_t)2]++;
    for (size_t i = 2; i <= nshards; i++)
        start[i] += start[i - 1];
    for (size_t i = 0; i < n; i++)
        order[start[shard[i] + (size_t)1]++] = (uint32_t)i;
    *ret_order = gf_take(&order);
    *ret_start = gf_take(&start);
    return 0;
}

const struct gf_file_format gf_file_safetensors = { ".safetensors", gf_image_safetensors };
const struct gf_file_format gf_file_torchbin = { ".bin", gf_image_torchbin };

static int add_files(const struct gf_view *view, const struct gf_file_format *format,
                     const char *stem, const uint32_t *shard, uint32_t nshards,
                     struct gf_image **images, struct gf_err *err)
{
    const char *suffix = format->suffix;
    GF_AUTO_MEM uint32_t *order = NULL;
    GF_AUTO_MEM size_t *start = NULL;
    GF_AUTO_MEM char *index = NULL;
    int r = sort_by_shard(shard, view->n, nshards, &order, &start, err);

    for (uint32_t i = 0; i < nshards && !r; i++) {
        GF_AUTO_MEM char *name = gf_shard_name(stem, suffix, i, nshards);

        r = name ? format->image(name, view, order + start[i], start[i + 1] - start[i],
                                 &images[i], err)
                 : gf_nomem(err);
    }
    if (r || nshards == 1)
        return r;
    if (asprintf(&index, "%s%s.index.json", stem, suffix) < 0) {
        index = NULL;
        return gf_nomem(err);
    }
    return gf_image_index(index, view, shard, nshards, stem, suffix, &images[nshards], err);
}

int gf_images_of_view(const struct gf_view *view, const struct gf_file_format *format,
                      const char *stem, uint64_t max_shard_size, struct gf_image ***ret,
                      size_t *ret_n, struct gf_err *err)
{
    GF_AUTO_MEM uint32_t *shard = NULL;
    struct gf_image **images;
    uint32_t nshards;
    int r = gf_shard_plan(view, max_shard_size, &shard, &nshards, err);

    if (r)
        return r;
    images = calloc((size_t)nshards + 1, sizeof(*images));
    if (!images)
        return gf_nomem(err);
    r = add_files(view, format, stem, shard, nshards, images, err);
    if (r) {
        for (size_t i = 0; i <= nshards; i++)
            gf_image_free(images[i]);
        free(images);
        return r;
    }
    *ret = images;
    *ret_n = nshards == 1 ? 1 : (size_t)nshards + 1;
    return 0;
}
