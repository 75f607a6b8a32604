/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot_int.h - a snapshot's inside, shared by snapshot.c (opening, pins, reads),
 * snapshot_choose.c (which views there are) and snapshot_views.c (their directories).
 */
#ifndef GF_SNAPSHOT_SNAPSHOT_INT_H
#define GF_SNAPSHOT_SNAPSHOT_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/vec.h"
#include "job/epoch.h"
#include "snapshot/side.h"
#include "snapshot/snapshot.h"
#include "view/adapter.h"
#include "view/fit.h"
#include "view/kind.h"

/* Models in one composite state; more are reachable, but not listed. */
#define GF_MAX_COMPONENTS 32

/* A view that somebody asked for. */
struct gf_built {
    struct gf_vdir dir;
    struct gf_view *view;
    bool adapter;                      /* an adapter's directory: other files go with it */
    const struct gf_side_adapter *own; /* its adapter_config.json is this one; or NULL */
    bool fits;                /* what config.json describes: the directory holds it */
    enum gf_fit fit;          /* how well */
    char *warning;            /* config.json is there and does not fit; or NULL */
    struct gf_image **images; /* one per file, in the order they were made */
    struct gf_vfile *files;
    size_t n;
    struct gf_vdir sub; /* of dir.sub, where there is one */
    struct gf_vfile *sub_files;
    struct gf_built *next;
};

struct gf_snapshot {
    atomic_uint refs;
    struct gf_options const *opt;
    struct gf_epoch *epoch; /* of a live job, or NULL */
    struct gf_found found;
    struct gf_bound bound;
    struct gf_side side;
    struct gf_snapshot_info info;
    char why[GF_WHY], why_no_default[sizeof(((struct gf_err *)0)->text)];
    enum gf_state_kind kind;
    char *components[GF_MAX_COMPONENTS]; /* that are listed; owned */
    size_t ncomponents;
    pthread_mutex_t lock;
    struct gf_built *built;
    struct gf_resident *resident; /* adapters, as float32; all views share it */
    unsigned pins;
    struct GF_VEC(const char *) listed; /* names owned by built views */
    char base_why[GF_WHY]; /* why there is no base model under an adapter; "" */
    uint64_t base_vocab;   /* the base model's vocabulary, by its config; 0: unknown */
    char *named[2 * GF_MAX_ADAPTERS]; /* views of single adapters where there are several:
                                       * "adapter.NAME", "full.NAME"; owned */
    size_t nnamed;
};

void gf_built_free(struct gf_built *built);
GF_DEFINE_AUTO(gf_built);

/* A view, built at the first call. It lives as long as the snapshot. */
int gf_snapshot_built(struct gf_snapshot *s, const char *name, const struct gf_built **ret,
                      struct gf_err *err);

/* While it is opened, one after another: what sort of state it is, and its parts; the view at
 * the root (that there is none is no error); the views that are listed, and what is wrong with
 * what is served. */
int gf_snapshot_choose_kind(struct gf_snapshot *s, struct gf_err *err);
int gf_snapshot_choose_default(struct gf_snapshot *s, struct gf_err *err);
int gf_snapshot_choose_listed(struct gf_snapshot *s, struct gf_err *err);

#endif
