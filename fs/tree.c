/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/tree.h"

#include <pthread.h>
#include <string.h>

#include "base/math.h"
#include "base/strmap.h"

struct gf_tree {
    pthread_mutex_t lock; /* guards all below; nothing else is locked under it */
    struct gf_node **by_id, **by_place; /* hash tables of `room` chains each */
    size_t room, n;
    uint64_t last_id;
    struct gf_node root;
};

bool gf_node_is_dir(enum gf_node_kind kind)
{
    switch (kind) {
    case GF_NODE_ROOT:
    case GF_NODE_CHECKPOINT:
    case GF_NODE_VIEW:
    case GF_NODE_DIR:
    case GF_NODE_CTL:
    case GF_NODE_PROV:
    case GF_NODE_PROV_VIEW:
        return true;
    case GF_NODE_FILE:
    case GF_NODE_LINK:
    case GF_NODE_STATUS:
    case GF_NODE_STATS:
    case GF_NODE_METRICS:
    case GF_NODE_PROV_FILE:
        break;
    }
    return false;
}

static struct gf_node **id_chain(struct gf_tree *tree, uint64_t id)
{
    return &tree->by_id[id & (tree->room - 1)];
}

static struct gf_node **place_chain(struct gf_tree *tree, const struct gf_place *place)
{
    const uint64_t key[] = { (uint64_t)place->kind, (uintptr_t)place->snapshot,
                             (uintptr_t)place->dir, (uintptr_t)place->file, place->parent };
    uint64_t hash = gf_hash(0, key, sizeof(key));

    if (place->path)
        hash = gf_hash(hash, place->path, strlen(place->path));
    return &tree->by_place[hash & (tree->room - 1)];
}

static bool same_place(const struct gf_place *a, const struct gf_place *b)
{
    return a->kind == b->kind && a->snapshot == b->snapshot && a->dir == b->dir &&
           a->file == b->file && a->parent == b->parent && !a->path == !b->path &&
           (!a->path || strcmp(a->path, b->path) == 0);
}

static void chain_in(struct gf_tree *tree, struct gf_node *node)
{
    struct gf_node **chain = id_chain(tree, node->id);

    node->next_id = *chain;
    *chain = node;
    chain = place_chain(tree, &node->place);
    node->next_place = *chain;
    *chain = node;
}

static void chain_out(struct gf_tree *tree, struct gf_node *node)
{
    struct gf_node **p = id_chain(tree, node->id);

    while (*p != node)
        p = &(*p)->next_id;
    *p = node->next_id;
    p = place_chain(tree, &node->place);
    while (*p != node)
        p = &(*p)->next_place;
    *p = node->next_place;
}

/* Makes room for one more node. Too few chains is only slow, so a failure to grow tables
 * that exist is none. */
static int make_room(struct gf_tree *tree)
{
    size_t old_room = tree->room, room = old_room ? old_room * 2 : 64;
    struct gf_node **old = tree->by_id, **by_id, **by_place;

    if (tree->n < old_room)
        return 0;
    by_id = calloc(room, sizeof(struct gf_node *));
    by_place = calloc(room, sizeof(struct gf_node *));
    if (!by_id || !by_place) {
        free(by_id);
        free(by_place);
        return old ? 0 : -ENOMEM;
    }
    free(tree->by_place);
    tree->by_id = by_id;
    tree->by_place = by_place;
    tree->room = room;
    for (size_t i = 0; i < old_room; i++)
        for (struct gf_node *node = old[i], *next; node; node = next) {
            next = node->next_id;
            chain_in(tree, node);
        }
    free(old);
    return 0;
}

int gf_tree_new(struct gf_tree **ret, struct gf_err *err)
{
    struct gf_tree *tree = calloc(1, sizeof(*tree));

    if (!tree || make_room(tree)) {
        free(tree);
        return gf_nomem(err);
    }
    pthread_mutex_init(&tree->lock, NULL);
    tree->root.id = tree->last_id = GF_ROOT_ID;
    tree->root.place = (struct gf_place){ .kind = GF_NODE_ROOT, .ino = GF_ROOT_ID };
    tree->root.nlookup = 1;
    chain_in(tree, &tree->root);
    tree->n = 1;
    *ret = tree;
    return 0;
}

static void node_free(struct gf_node *node)
{
    gf_snapshot_free(node->place.snapshot);
    free(node->place.path);
    free(node);
}

void gf_tree_free(struct gf_tree *tree)
{
    if (!tree)
        return;
    for (size_t i = 0; i < tree->room; i++)
        for (struct gf_node *node = tree->by_id[i], *next; node; node = next) {
            next = node->next_id;
            if (node != &tree->root)
                node_free(node);
        }
    pthread_mutex_destroy(&tree->lock);
    free(tree->by_id);
    free(tree->by_place);
    free(tree);
}

static struct gf_node *find_id(struct gf_tree *tree, uint64_t id)
{
    struct gf_node *node = *id_chain(tree, id);

    while (node && node->id != id)
        node = node->next_id;
    return node;
}

static struct gf_node *find_place(struct gf_tree *tree, const struct gf_place *place)
{
    struct gf_node *node = *place_chain(tree, place);

    while (node && !same_place(&node->place, place))
        node = node->next_place;
    return node;
}

struct gf_node *gf_tree_get(struct gf_tree *tree, uint64_t id)
{
    struct gf_node *node;

    pthread_mutex_lock(&tree->lock);
    node = find_id(tree, id);
    pthread_mutex_unlock(&tree->lock);
    return node;
}

int gf_tree_enter(struct gf_tree *tree, const struct gf_place *place, struct gf_node **ret)
{
    struct gf_snapshot *spare = place->snapshot;
    char *spare_path = place->path;
    struct gf_node *node;
    int r = 0;

    pthread_mutex_lock(&tree->lock);
    node = find_place(tree, place);
    if (!node) {
        node = make_room(tree) ? NULL : calloc(1, sizeof(*node));
        if (!node) {
            r = -ENOMEM;
            goto out;
        }
        node->id = ++tree->last_id;
        node->place = *place;
        spare = NULL;
        spare_path = NULL;
        chain_in(tree, node);
        tree->n++;
    }
    node->nlookup++;
    *ret = node;
out:
    pthread_mutex_unlock(&tree->lock);
    gf_snapshot_free(spare);
    free(spare_path);
    return r;
}

void gf_tree_forget(struct gf_tree *tree, uint64_t id, uint64_t n)
{
    struct gf_node *node;

    pthread_mutex_lock(&tree->lock);
    node = find_id(tree, id);
    if (node == &tree->root)
        node = NULL;
    if (node) {
        node->nlookup -= GF_MIN(n, node->nlookup);
        if (node->nlookup) {
            node = NULL;
        } else {
            chain_out(tree, node);
            tree->n--;
        }
    }
    pthread_mutex_unlock(&tree->lock);
    /* Outside the lock: the last reference closes files. */
    if (node)
        node_free(node);
}

size_t gf_tree_count(struct gf_tree *tree)
{
    size_t n;

    pthread_mutex_lock(&tree->lock);
    n = tree->n;
    pthread_mutex_unlock(&tree->lock);
    return n;
}
