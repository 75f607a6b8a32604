/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_path.h - the path of keys that leads to a value in the state that was saved.
 */
#ifndef GF_FORMAT_DCP_PATH_H
#define GF_FORMAT_DCP_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "container/pickle.h"

#define GF_DCP_PATH_ELEMENTS 64
#define GF_DCP_PATH_BYTES 4096 /* all of them together */

struct gf_dcp_path {
    const char *elements[GF_DCP_PATH_ELEMENTS]; /* in text */
    size_t n;                                   /* at least 1 */
    char text[GF_DCP_PATH_BYTES];
    size_t used;
};

/* A path of planner_data: a tuple of keys and of positions in lists. False if it is none. */
bool gf_dcp_path_of_value(const struct gf_pv *value, struct gf_dcp_path *ret);

/* Without planner_data keys are flat, and names as they are; but the optimizer's start with
 * its own name. False if the key is too long. */
bool gf_dcp_path_of_key(const char *fqn, struct gf_dcp_path *ret);

/* Is it the state of something else than a model? At the top a key may be that itself
 * ('rng_state'), but not if it is the name of a parameter. */
bool gf_dcp_path_is_other(const struct gf_dcp_path *path);

/* What stands between elements in gf_dcp_path_dict(): no key holds it by accident. */
#define GF_DCP_PATH_BETWEEN "\x1f"

/* The dict that the value was in: all elements but the last. */
void gf_dcp_path_dict(const struct gf_dcp_path *path, char ret[GF_DCP_PATH_BYTES]);

#endif
