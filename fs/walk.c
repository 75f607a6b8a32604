/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/walk.h"

#include <stdio.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"

#define ENTRIES_MAX (1u << 20)

/* ---------------------------------------------------------------- helpers */

/* st_ino of what has none from a snapshot. */
static uint64_t path_ino(const char *kind, const char *name)
{
    return gf_hash(gf_hash(0, kind, strlen(kind)), name, strlen(name));
}

static uint64_t provenance_ino(uint64_t ino)
{
    return gf_hash(ino, "provenance", 10);
}

/* A view that cannot be built is not there: inspect says why. */
static int not_there(int r, struct gf_err *err)
{
    if (r != -ENOENT && r != -GF_EBAD && r != -GF_EINCOMPLETE)
        return r;
    if (err)
        *err = (struct gf_err){ 0 };
    return -ENOENT;
}

static int view_dir(struct gf_snapshot *snapshot, const char *name,
                    const struct gf_vdir **ret, struct gf_err *err)
{
    return not_there(gf_snapshot_dir(snapshot, name, ret, err), err);
}

/* A checkpoint's current snapshot. One that cannot be served is not there: status and inspect
 * say why. */
static int checkpoint(struct gf_run *run, const char *path, struct gf_snapshot **ret)
{
    return gf_run_snapshot(run, path, ret, NULL) == -ENOMEM ? -ENOMEM : *ret ? 0 : -ENOENT;
}

/* The root's; *ret stays NULL when there is none: it shows checkpoints only. */
static int root_snapshot(struct gf_run *run, struct gf_snapshot **ret)
{
    int r = checkpoint(run, "", ret);

    return r == -ENOENT ? 0 : r;
}

const struct gf_vdir *gf_walk_vdir(const struct gf_place *place)
{
    const struct gf_vdir *dir = place->dir;

    if (!dir && place->snapshot && gf_snapshot_dir(place->snapshot, NULL, &dir, NULL))
        return NULL;
    return dir;
}

/* Sub-directories of a checkpoint: with view= there are none. */
static bool has_views(const struct gf_options *opt)
{
    return !opt->view;
}

/* ---------------------------------------------------------------- look-ups */

/* The one directory that a view may have in it. Takes over the snapshot's reference. */
static bool enter_sub(struct gf_run *run, const struct gf_vdir *dir, const char *name,
                      uint64_t parent, struct gf_snapshot *snapshot, struct gf_place *ret)
{
    if (!dir || !dir->sub || gf_run_live(run) || strcmp(dir->sub->name, name))
        return false;
    *ret = (struct gf_place){ .kind = GF_NODE_VIEW,
                              .snapshot = snapshot,
                              .dir = dir->sub,
                              .ino = dir->sub->ino,
                              .parent = parent };
    return true;
}

/* A file or a view's directory of a checkpoint. */
static int walk_checkpoint(struct gf_run *run, const struct gf_options *opt,
                           uint64_t parent, struct gf_snapshot *snapshot, const char *name,
                           struct gf_place *ret, struct gf_err *err)
{
    struct gf_place place = { .kind = GF_NODE_FILE, .snapshot = snapshot };
    int r;

    place.dir = gf_walk_vdir(&place);
    place.file = place.dir ? gf_vdir_find(place.dir, name) : NULL;
    if (place.file) {
        place.ino = place.file->ino;
    } else if (!enter_sub(run, place.dir, name, parent, snapshot, &place)) {
        if (!has_views(opt))
            return -ENOENT;
        r = view_dir(snapshot, name, &place.dir, err);
        if (r)
            return r;
        place.kind = GF_NODE_VIEW;
        place.ino = place.dir->ino;
        place.parent = parent;
    }
    gf_snapshot_ref(snapshot);
    *ret = place;
    return 0;
}

/* The directory of a view. Of a live job it is that of the step that is asked for now: whoever
 * works in it sees what he would see at the root. steps/N/ stays what it is. */
static int view_at(struct gf_run *run, const struct gf_place *at, struct gf_place *ret,
                   struct gf_err *err)
{
    GF_AUTO(gf_snapshot) root = NULL;
    int r;

    *ret = *at;
    if (!gf_run_live(run) || at->parent != GF_ROOT_ID) {
        gf_snapshot_ref(ret->snapshot);
        return 0;
    }
    r = root_snapshot(run, &root);
    if (!r)
        r = root ? view_dir(root, at->dir->name, &ret->dir, err) : -ENOENT;
    if (!r)
        ret->snapshot = gf_take(&root);
    return r;
}

static int walk_view(struct gf_run *run, const struct gf_node *node, const char *name,
                     struct gf_place *ret, struct gf_err *err)
{
    const struct gf_place *at = &node->place;
    struct gf_place view;
    const struct gf_vfile *file;
    int r = view_at(run, at, &view, err);

    if (r)
        return r;
    file = gf_vdir_find(view.dir, name);
    if (!file && enter_sub(run, view.dir, name, node->id, view.snapshot, ret))
        return 0;
    if (!file) {
        gf_snapshot_free(view.snapshot);
        return -ENOENT;
    }
    *ret = (struct gf_place){ .kind = GF_NODE_FILE,
                              .snapshot = view.snapshot,
                              .dir = view.dir,
                              .file = file,
                              .ino = file->ino };
    return 0;
}

/* Where a directory stands in the run: "" is the root. */
static const char *run_path(const struct gf_place *at)
{
    return at->path ? at->path : "";
}

/* A checkpoint, a directory of checkpoints, or a link. */
static int walk_run(struct gf_run *run, const struct gf_node *dir, const char *name,
                    struct gf_place *ret, struct gf_err *err)
{
    const char *parent = run_path(&dir->place);
    GF_AUTO_MEM char *path = NULL;
    GF_AUTO(gf_snapshot) child = NULL;
    struct gf_place place = { .kind = GF_NODE_CHECKPOINT };
    enum gf_run_kind kind;
    int r;

    if (asprintf(&path, "%s%s%s", parent, *parent ? "/" : "", name) < 0) {
        path = NULL;
        return gf_nomem(err);
    }
    r = gf_run_look(run, path, &kind, NULL, err);
    if (!r && kind == GF_RUN_CHECKPOINT)
        r = checkpoint(run, path, &child);
    if (r)
        return r;
    if (kind != GF_RUN_CHECKPOINT)
        place.kind = kind == GF_RUN_DIR ? GF_NODE_DIR : GF_NODE_LINK;
    place.parent = kind == GF_RUN_LINK ? 0 : dir->id;
    place.ino = path_ino("run", path);
    place.snapshot = gf_take(&child);
    place.path = gf_take(&path);
    *ret = place;
    return 0;
}

static int walk_root(struct gf_run *run, const struct gf_options *opt,
                     const struct gf_node *dir, const char *name, struct gf_place *ret,
                     struct gf_err *err)
{
    GF_AUTO(gf_snapshot) root = NULL;
    int r;

    if (!strcmp(name, ".gatherfs")) {
        *ret = (struct gf_place){ .kind = GF_NODE_CTL,
                                  .parent = GF_ROOT_ID,
                                  .ino = path_ino("ctl", name) };
        return 0;
    }
    r = root_snapshot(run, &root);
    if (!r && root)
        r = walk_checkpoint(run, opt, GF_ROOT_ID, root, name, ret, err);
    else if (!r)
        r = -ENOENT;
    return r == -ENOENT ? walk_run(run, dir, name, ret, err) : r;
}

static const struct {
    const char *name;
    enum gf_node_kind kind;
} ctl_files[] = {
    { "status.json", GF_NODE_STATUS },
    { "stats.json", GF_NODE_STATS },
    { "metrics", GF_NODE_METRICS },
    { "provenance", GF_NODE_PROV },
};

static int walk_ctl(struct gf_run *run, const struct gf_node *dir, const char *name,
                    struct gf_place *ret)
{
    for (size_t i = 0; i < GF_COUNT(ctl_files); i++) {
        struct gf_place place = { .kind = ctl_files[i].kind, .ino = path_ino("ctl", name) };

        if (strcmp(name, ctl_files[i].name))
            continue;
        if (place.kind == GF_NODE_PROV) {
            int r = root_snapshot(run, &place.snapshot);

            if (r || !place.snapshot)
                return r ? r : -ENOENT;
            place.parent = dir->id;
        }
        *ret = place;
        return 0;
    }
    return -ENOENT;
}

/* "FILE.json" for a weight file, or a view's name. */
static int walk_provenance(const struct gf_options *opt, const struct gf_node *dir,
                           const char *name, struct gf_place *ret, struct gf_err *err)
{
    struct gf_place place = { .kind = GF_NODE_PROV_FILE, .snapshot = dir->place.snapshot };
    size_t len = strlen(name);
    int r;

    place.dir = gf_walk_vdir(&dir->place);
    if (place.dir && len > 5 && !strcmp(name + len - 5, ".json")) {
        GF_AUTO_MEM char *file = strndup(name, len - 5);

        if (!file)
            return gf_nomem(err);
        place.file = gf_vdir_find(place.dir, file);
    }
    if (place.file && place.file->weights) {
        place.ino = provenance_ino(place.file->ino);
    } else {
        if (dir->place.kind != GF_NODE_PROV || !has_views(opt))
            return -ENOENT;
        r = view_dir(place.snapshot, name, &place.dir, err);
        if (r)
            return r;
        place.kind = GF_NODE_PROV_VIEW;
        place.file = NULL;
        place.ino = provenance_ino(place.dir->ino);
        place.parent = dir->id;
    }
    gf_snapshot_ref(place.snapshot);
    *ret = place;
    return 0;
}

int gf_walk(struct gf_run *run, const struct gf_options *opt, const struct gf_node *dir,
            const char *name, struct gf_place *ret, struct gf_err *err)
{
    const struct gf_place *at = &dir->place;
    int r;

    switch (at->kind) {
    case GF_NODE_ROOT:
        return walk_root(run, opt, dir, name, ret, err);
    case GF_NODE_CHECKPOINT:
        r = walk_checkpoint(run, opt, dir->id, at->snapshot, name, ret, err);
        return r == -ENOENT ? walk_run(run, dir, name, ret, err) : r;
    case GF_NODE_DIR:
        return walk_run(run, dir, name, ret, err);
    case GF_NODE_VIEW:
        return walk_view(run, dir, name, ret, err);
    case GF_NODE_CTL:
        return walk_ctl(run, dir, name, ret);
    case GF_NODE_PROV:
    case GF_NODE_PROV_VIEW:
        return walk_provenance(opt, dir, name, ret, err);
    case GF_NODE_FILE:
    case GF_NODE_LINK:
    case GF_NODE_STATUS:
    case GF_NODE_STATS:
    case GF_NODE_METRICS:
    case GF_NODE_PROV_FILE:
        break;
    }
    return -ENOTDIR;
}

/* ---------------------------------------------------------------- listings */

static int add(struct gf_listing *list, const char *name, const char *suffix, uint64_t ino,
               bool is_dir, struct gf_err *err)
{
    struct gf_listed entry = { .ino = ino, .is_dir = is_dir };

    if (asprintf(&entry.name, "%s%s", name, suffix) < 0)
        return gf_nomem(err);
    if (gf_vec_push(&list->entries, entry, ENTRIES_MAX)) {
        free(entry.name);
        return gf_nomem(err);
    }
    return 0;
}

static int list_files(const struct gf_vdir *dir, struct gf_listing *list,
                      struct gf_err *err)
{
    int r = 0;

    for (size_t i = 0; dir && i < dir->n && !r; i++)
        if (!strchr(dir->files[i].name, '/'))
            r = add(list, dir->files[i].name, "", dir->files[i].ino, false, err);
    if (!r && dir && dir->sub)
        r = add(list, dir->sub->name, "", dir->sub->ino, true, err);
    return r;
}

static int list_view(struct gf_run *run, const struct gf_place *at, struct gf_listing *list,
                     struct gf_err *err)
{
    struct gf_place view;
    int r = view_at(run, at, &view, err);

    if (r)
        return r;
    r = list_files(view.dir, list, err);
    gf_snapshot_free(view.snapshot);
    return r;
}

/* The listed views that can be built. */
static int list_views(const struct gf_options *opt, struct gf_snapshot *snapshot,
                      uint64_t (*ino)(uint64_t), struct gf_listing *list,
                      struct gf_err *err)
{
    const struct gf_vdir *dir;
    const char *const *names;
    size_t n = 0;
    int r = 0;

    names = has_views(opt) ? gf_snapshot_listed(snapshot, &n) : NULL;
    for (size_t i = 0; i < n && !r; i++) {
        r = view_dir(snapshot, names[i], &dir, err);
        if (r == -ENOENT)
            r = 0;
        else if (!r)
            r = add(list, names[i], "", ino ? ino(dir->ino) : dir->ino, true, err);
    }
    return r;
}

static int list_checkpoint(const struct gf_options *opt, struct gf_snapshot *snapshot,
                           struct gf_listing *list, struct gf_err *err)
{
    const struct gf_place place = { .kind = GF_NODE_CHECKPOINT, .snapshot = snapshot };
    int r = list_files(gf_walk_vdir(&place), list, err);

    return r ? r : list_views(opt, snapshot, NULL, list, err);
}

static bool is_listed(const struct gf_listing *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list->entries.at[i].name, name))
            return true;
    return false;
}

/* What stands right below `at` in the run. Incomplete checkpoints are not shown, and what has
 * a file's or a view's name cannot be reached. */
static int list_run(struct gf_run *run, const struct gf_place *at, struct gf_listing *list,
                    struct gf_err *err)
{
    size_t len = strlen(run_path(at)), own = list->entries.n, n;
    struct gf_run_entry *entries;
    int r = gf_run_entries(run, run_path(at), &entries, &n, err);

    if (r)
        return r;
    for (size_t i = 0; i < n && !r; i++) {
        const char *path = entries[i].path, *name = path + len + (len > 0);
        bool link = entries[i].kind == GF_RUN_LINK;

        if (!entries[i].complete || is_listed(list, own, name))
            continue;
        r = add(list, name, "", path_ino("run", path), !link, err);
        if (!r)
            list->entries.at[list->entries.n - 1].is_link = link;
    }
    gf_run_entries_free(entries, n);
    return r;
}

static int list_root(struct gf_run *run, const struct gf_options *opt,
                     const struct gf_place *at, struct gf_listing *list, struct gf_err *err)
{
    GF_AUTO(gf_snapshot) root = NULL;
    int r = root_snapshot(run, &root);

    if (!r && root)
        r = list_checkpoint(opt, root, list, err);
    return r ? r : list_run(run, at, list, err);
}

static int list_provenance(const struct gf_options *opt, const struct gf_place *at,
                           struct gf_listing *list, struct gf_err *err)
{
    const struct gf_vdir *dir = gf_walk_vdir(at);
    int r = 0;

    for (size_t i = 0; dir && i < dir->n && !r; i++)
        if (dir->files[i].weights)
            r = add(list, dir->files[i].name, ".json", provenance_ino(dir->files[i].ino),
                    false, err);
    if (r || at->kind != GF_NODE_PROV)
        return r;
    return list_views(opt, at->snapshot, provenance_ino, list, err);
}

static int list_ctl(struct gf_listing *list, struct gf_err *err)
{
    int r = 0;

    for (size_t i = 0; i < GF_COUNT(ctl_files) && !r; i++)
        r = add(list, ctl_files[i].name, "", path_ino("ctl", ctl_files[i].name),
                gf_node_is_dir(ctl_files[i].kind), err);
    return r;
}

int gf_walk_list(struct gf_run *run, const struct gf_options *opt,
                 const struct gf_node *dir, struct gf_listing *ret, struct gf_err *err)
{
    const struct gf_place *at = &dir->place;
    struct gf_listing list = { 0 };
    int r = -ENOTDIR;

    switch (at->kind) {
    case GF_NODE_ROOT:
        r = list_root(run, opt, at, &list, err);
        break;
    case GF_NODE_CHECKPOINT:
        r = list_checkpoint(opt, at->snapshot, &list, err);
        if (!r)
            r = list_run(run, at, &list, err);
        break;
    case GF_NODE_DIR:
        r = list_run(run, at, &list, err);
        break;
    case GF_NODE_VIEW:
        r = list_view(run, at, &list, err);
        break;
    case GF_NODE_CTL:
        r = list_ctl(&list, err);
        break;
    case GF_NODE_PROV:
    case GF_NODE_PROV_VIEW:
        r = list_provenance(opt, at, &list, err);
        break;
    case GF_NODE_FILE:
    case GF_NODE_LINK:
    case GF_NODE_STATUS:
    case GF_NODE_STATS:
    case GF_NODE_METRICS:
    case GF_NODE_PROV_FILE:
        break;
    }
    if (r)
        gf_listing_done(&list);
    else
        *ret = list;
    return r;
}

void gf_listing_done(struct gf_listing *listing)
{
    for (size_t i = 0; i < listing->entries.n; i++)
        free(listing->entries.at[i].name);
    gf_vec_free(&listing->entries);
}
