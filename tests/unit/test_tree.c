/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inode table, with snapshots that only count their references.
 */
#include "t.h"

#include "fs/tree.h"

struct gf_snapshot {
    int refs;
};

static struct gf_snapshot step1, step2;
static const struct gf_vdir full = { .name = "full" }, raw = { .name = "raw" };
static const struct gf_vfile model = { .name = "model.safetensors" };

struct gf_snapshot *gf_snapshot_ref(struct gf_snapshot *snapshot)
{
    snapshot->refs++;
    return snapshot;
}

void gf_snapshot_free(struct gf_snapshot *snapshot)
{
    if (snapshot)
        snapshot->refs--;
}

static int setup(void **state)
{
    struct gf_tree *tree;

    step1.refs = step2.refs = 0;
    GF_OK(gf_tree_new(&tree, &t_err));
    *state = tree;
    return 0;
}

static int teardown(void **state)
{
    gf_tree_free(*state);
    assert_int_equal(step1.refs, 0);
    assert_int_equal(step2.refs, 0);
    return 0;
}

static struct gf_node *enter(struct gf_tree *tree, struct gf_place place)
{
    struct gf_node *node = NULL;

    if (place.snapshot)
        gf_snapshot_ref(place.snapshot);
    assert_int_equal(gf_tree_enter(tree, &place, &node), 0);
    return node;
}

static struct gf_place file_of(struct gf_snapshot *snapshot)
{
    return (struct gf_place){ GF_NODE_FILE, snapshot, &full, &model, 0, 77, NULL };
}

static void the_root_is_always_there(void **state)
{
    struct gf_tree *tree = *state;
    struct gf_node *root = gf_tree_get(tree, GF_ROOT_ID);

    assert_non_null(root);
    assert_int_equal(root->place.kind, GF_NODE_ROOT);
    gf_tree_forget(tree, GF_ROOT_ID, 1000);
    assert_ptr_equal(gf_tree_get(tree, GF_ROOT_ID), root);
    assert_int_equal(gf_tree_count(tree), 1);
}

static void one_place_is_one_node(void **state)
{
    struct gf_tree *tree = *state;
    struct gf_node *node = enter(tree, file_of(&step1));

    assert_int_equal(node->place.ino, 77);
    assert_ptr_equal(enter(tree, file_of(&step1)), node);
    assert_ptr_equal(gf_tree_get(tree, node->id), node);
    assert_int_equal(gf_tree_count(tree), 2);
    assert_int_equal(step1.refs, 1);
}

static void another_step_is_another_node(void **state)
{
    struct gf_tree *tree = *state;
    struct gf_node *old = enter(tree, file_of(&step1)), *new = enter(tree, file_of(&step2));

    assert_true(old->id != new->id);
    assert_ptr_equal(old->place.snapshot, &step1);
    assert_ptr_equal(new->place.snapshot, &step2);
}

static void each_part_of_a_place_counts(void **state)
{
    struct gf_tree *tree = *state;
    const struct gf_place places[] = {
        file_of(&step1),
        { GF_NODE_PROV_FILE, &step1, &full, &model, 0, 77, NULL },
        { GF_NODE_FILE, &step1, &raw, &model, 0, 77, NULL },
        { GF_NODE_VIEW, &step1, &full, NULL, GF_ROOT_ID, 77, NULL },
        { GF_NODE_VIEW, &step1, &full, NULL, 9, 77,
          NULL }, /* directories have no aliases */
        { GF_NODE_STATUS, NULL, NULL, NULL, 0, 77, NULL },
    };
    size_t n = sizeof(places) / sizeof(places[0]);

    for (size_t i = 0; i < n; i++)
        enter(tree, places[i]);
    assert_int_equal(gf_tree_count(tree), n + 1);
    for (size_t i = 0; i < n; i++)
        enter(tree, places[i]);
    assert_int_equal(gf_tree_count(tree), n + 1);
}

static void a_node_goes_with_its_last_look_up(void **state)
{
    struct gf_tree *tree = *state;
    struct gf_node *node = enter(tree, file_of(&step1));
    uint64_t id = node->id;

    enter(tree, file_of(&step1));
    enter(tree, file_of(&step1));
    gf_tree_forget(tree, id, 2);
    assert_ptr_equal(gf_tree_get(tree, id), node);
    assert_int_equal(step1.refs, 1);
    gf_tree_forget(tree, id, 1);
    assert_null(gf_tree_get(tree, id));
    assert_int_equal(step1.refs, 0);
}

static void ids_are_never_used_again(void **state)
{
    struct gf_tree *tree = *state;
    uint64_t last = GF_ROOT_ID;

    for (int i = 0; i < 100; i++) {
        struct gf_node *node = enter(tree, file_of(&step1));

        assert_true(node->id > last);
        last = node->id;
        gf_tree_forget(tree, node->id, 1);
    }
}

static void forgetting_too_much_or_the_unknown_is_harmless(void **state)
{
    struct gf_tree *tree = *state;
    struct gf_node *node = enter(tree, file_of(&step1));
    uint64_t id = node->id;

    gf_tree_forget(tree, 12345, 1);
    gf_tree_forget(tree, id, UINT64_MAX);
    gf_tree_forget(tree, id, 1);
    assert_int_equal(gf_tree_count(tree), 1);
}

static void many_nodes_are_found_again(void **state)
{
    static struct gf_vfile files[5000];
    static uint64_t ids[5000];
    struct gf_tree *tree = *state;

    for (size_t i = 0; i < 5000; i++)
        ids[i] = enter(tree, (struct gf_place){ GF_NODE_FILE, &step1, &full, &files[i], 0,
                                                i, NULL })
                     ->id;
    assert_int_equal(gf_tree_count(tree), 5001);
    for (size_t i = 0; i < 5000; i += 2)
        gf_tree_forget(tree, ids[i], 1);
    assert_int_equal(gf_tree_count(tree), 2501);
    for (size_t i = 0; i < 5000; i++) {
        struct gf_node *node = gf_tree_get(tree, ids[i]);

        if (i % 2 == 0) {
            assert_null(node);
            continue;
        }
        assert_int_equal(node->place.ino, i);
        assert_ptr_equal(enter(tree, node->place), node);
    }
    assert_int_equal(step1.refs, 2500);
}

static void freeing_the_tree_drops_what_the_kernel_still_knew(void **state)
{
    enter(*state, file_of(&step1));
    enter(*state, file_of(&step2));
    assert_int_equal(step1.refs + step2.refs, 2); /* teardown wants 0 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_root_is_always_there, setup, teardown),
        cmocka_unit_test_setup_teardown(one_place_is_one_node, setup, teardown),
        cmocka_unit_test_setup_teardown(another_step_is_another_node, setup, teardown),
        cmocka_unit_test_setup_teardown(each_part_of_a_place_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(a_node_goes_with_its_last_look_up, setup, teardown),
        cmocka_unit_test_setup_teardown(ids_are_never_used_again, setup, teardown),
        cmocka_unit_test_setup_teardown(forgetting_too_much_or_the_unknown_is_harmless,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(many_nodes_are_found_again, setup, teardown),
        cmocka_unit_test_setup_teardown(freeing_the_tree_drops_what_the_kernel_still_knew,
                                        setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
