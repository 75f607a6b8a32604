/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_group.h - which of a checkpoint's tensors are the model.
 *
 * A checkpoint holds the state of everything: model, optimizer, scheduler, loader. The
 * tensors are grouped by the path of the dict that they were in when they were saved
 * (planner_data), and the model's group is chosen by that path, never by size: the
 * optimizer's is twice as large.
 *
 *   ('model', 'model.norm.weight')          group 'model'       Accelerate, Trainer, most
 *   ('app', 'model', 'model.norm.weight')   group 'app.model'   a Stateful wrapper
 *   ('model.norm.weight',)                  group ''            torchtitan
 *   ('optim', 'state', ...)                 never the model
 */
#ifndef GF_FORMAT_DCP_GROUP_H
#define GF_FORMAT_DCP_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gf_dcp_group {
    const char *path; /* elements joined by '.', for messages; "" = the root */
    const char *last; /* last element of the path; "" = the root */
    uint32_t depth;
    size_t tensors;  /* in the group */
    size_t weights;  /* of these, with a dimension at all: not counters */
    size_t expected; /* of these, named in the template */
};

/* Is a path with this element the state of something other than a model? */
bool gf_dcp_group_is_other(const char *element);

/* The model's group: its index, SIZE_MAX if there is none. */
size_t gf_dcp_group_choose(const struct gf_dcp_group *groups, size_t n);

/* May this one be a model, too? For a word about those that were not chosen. */
bool gf_dcp_group_is_model(const struct gf_dcp_group *group);

#endif
