/* SPDX-License-Identifier: Apache-2.0 */
#include "format/dcp_group.h"

#include <string.h>

#include "base/math.h"

/* Elements of paths that lead to the trainer's own state. */
static const char *const others[] = {
    "callbacks",    "dataloader",    "dataloaders", "extra",      "extra_state", "loops",
    "lr_scheduler", "lr_schedulers", "scheduler",   "schedulers", "train_state",
};

/* The same for whole families of names: 'optimizer_0', 'optim_state', 'rng_states'. */
static const char *const other_prefixes[] = { "optim", "rng" };

/* Names that trainers give the model, best first; any other name comes after them. */
static const char *const models[] = {
    "model", "module", "state_dict", "model_state_dict", "policy", "actor",
};

/* Copies and companions of a model: chosen only if nothing else is there. */
static const char *const companions[] = {
    "critic", "ema", "ema_model", "ref", "ref_model", "reference", "teacher", "value_model",
};

static size_t position(const char *name, const char *const *list, size_t n)
{
    size_t i = 0;

    while (i < n && strcmp(name, list[i]) != 0)
        i++;
    return i;
}

bool gf_dcp_group_is_other(const char *element)
{
    for (size_t i = 0; i < GF_COUNT(other_prefixes); i++)
        if (strncmp(element, other_prefixes[i], strlen(other_prefixes[i])) == 0)
            return true;
    return position(element, others, GF_COUNT(others)) < GF_COUNT(others);
}

bool gf_dcp_group_is_model(const struct gf_dcp_group *group)
{
    return group->weights > 0;
}

/* The lower, the more a path looks like the model's. */
static size_t rank(const struct gf_dcp_group *group)
{
    if (position(group->last, companions, GF_COUNT(companions)) < GF_COUNT(companions))
        return GF_COUNT(models) + 1;
    return position(group->last, models, GF_COUNT(models));
}

static bool is_better(const struct gf_dcp_group *a, const struct gf_dcp_group *b)
{
    if (gf_dcp_group_is_model(a) != gf_dcp_group_is_model(b))
        return gf_dcp_group_is_model(a);
    if (a->expected != b->expected)
        return a->expected > b->expected;
    if (rank(a) != rank(b))
        return rank(a) < rank(b);
    if (a->depth != b->depth && rank(a) < GF_COUNT(models))
        return a->depth < b->depth;
    if (a->weights != b->weights)
        return a->weights > b->weights;
    return strcmp(a->path, b->path) < 0;
}

size_t gf_dcp_group_choose(const struct gf_dcp_group *groups, size_t n)
{
    size_t best = SIZE_MAX;

    for (size_t i = 0; i < n; i++)
        if (groups[i].tensors && (best == SIZE_MAX || is_better(&groups[i], &groups[best])))
            best = i;
    return best;
}
