/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.h - visits the values of a pickle, in depth, for fuzz targets. Shared and cyclic
 * values make the number of paths unbounded: it stops after so many steps.
 */
#ifndef GF_TESTS_FUZZ_WALK_H
#define GF_TESTS_FUZZ_WALK_H

#include "container/pickle.h"

struct walk {
    void (*visit)(struct walk *walk, const struct gf_pv *v);
    size_t steps;
};

static inline void walk_value(struct walk *walk, const struct gf_pv *v, size_t depth)
{
    if (!v || !depth || !walk->steps)
        return;
    walk->steps--;
    walk->visit(walk, v);
    for (size_t i = 0; i < gf_pv_len(v) && walk->steps; i++)
        walk_value(walk, gf_pv_item(v, i), depth - 1);
    for (size_t i = 0; i < gf_pv_pairs(v) && walk->steps; i++) {
        walk_value(walk, gf_pv_key(v, i), depth - 1);
        walk_value(walk, gf_pv_value(v, i), depth - 1);
    }
    walk_value(walk, gf_pv_func(v), depth - 1);
    walk_value(walk, gf_pv_args(v), depth - 1);
    walk_value(walk, gf_pv_state(v), depth - 1);
    walk_value(walk, gf_pv_persid(v), depth - 1);
}

#endif
