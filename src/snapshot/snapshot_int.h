/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_int.h - a snapshot's inside, shared by snapshot.c (opening, pins, reads) and
 * snapshot_views.c (which views there are, and their directories).
 */
#ifndef GF_SNAPSHOT_SNAPSHOT_INT_H
#define GF_SNAPSHOT_SNAPSHOT_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/vec.h"
#include "snapshot/side.h"
#include "snapshot/snapshot.h"
#include "view/kind.h"

/* Models in one composite state; more are reachable, but not listed. */
#define GF_MAX_COMPONENTS 32

/* A view that somebody asked for. */
struct gf_built {
    struct gf_vdir dir;
    struct gf_view *view;
    bool adapter;             /* an adapter's directory: other files go with it */
    bool fits;                /* what config.json describes: the directory holds it */
    struct gf_image **images; /* one per file, in the order they were made */
    struct gf_vfile *files;
    size_t n;
    struct gf_built *next;
};

struct gf_snapshot {
    atomic_uint refs;
    struct gf_options const *opt;
    struct gf_found found;
    struct gf_bound bound;
    struct gf_side side;
    struct gf_snapshot_info info;
    char why[GF_WHY], why_no_default[sizeof(((struct gf_err *)0)->text)];
    enum gf_state_kind kind;
    char *components[GF_MAX_COMPONENTS]; /* of a composite; owned */
    size_t ncomponents;
    pthread_mutex_t lock;
    struct gf_built *built;
    unsigned pins;
    struct GF_VEC(const char *) listed; /* names owned by built views */
};

void gf_built_free(struct gf_built *built);
GF_DEFINE_AUTO(gf_built);

/* While it is opened: the view at the root (that there is none is no error), and the views
 * that are listed. */
int gf_snapshot_choose_default(struct gf_snapshot *s, struct gf_err *err);
int gf_snapshot_choose_listed(struct gf_snapshot *s, struct gf_err *err);

#endif
