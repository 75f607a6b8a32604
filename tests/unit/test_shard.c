/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>

#include "image/weights.h"
#include "t_catalog.h"

/* A view of U8 tensors of these sizes, named t0, t1, ... */
static struct gf_view *view_of(struct gf_catalog *catalog, const uint64_t *sizes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[32];

        snprintf(name, sizeof(name), "t%zu", i);
        t_add(catalog, name, GF_U8, SHAPE(sizes[i]));
    }
    return t_view(catalog);
}

/* The expected shards were computed with huggingface_hub 2.4's
 * split_torch_state_dict_into_shards on tensors of these sizes. */
static void outputs_are_split_as_the_hub_does(void **state)
{
    static const struct {
        uint64_t max;
        size_t n;
        uint64_t sizes[8];
        uint32_t nshards, shard[8];
    } table[] = {
        { 10, 3, { 3, 3, 4 }, 1, { 0, 0, 0 } },
        { 10, 3, { 3, 3, 5 }, 2, { 0, 0, 1 } },
        { 10, 6, { 6, 6, 2, 6, 2, 2 }, 3, { 0, 1, 1, 2, 2, 2 } },
        /* One too large goes first, though the shard being filled began before it. */
        { 10, 4, { 3, 11, 4, 5 }, 3, { 1, 0, 1, 2 } },
        { 10, 2, { 11, 12 }, 2, { 0, 1 } },
        { 10, 3, { 10, 10, 1 }, 3, { 0, 1, 2 } },
        /* Empty ones stay with the first of them. */
        { 10, 5, { 0, 10, 5, 0, 6 }, 3, { 0, 0, 1, 0, 2 } },
        { 10, 4, { 11, 0, 11, 0 }, 3, { 0, 2, 1, 2 } },
        { 0, 3, { 1, 0, 2 }, 3, { 0, 2, 1 } },
        { 10, 1, { 0 }, 1, { 0 } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        GF_AUTO(gf_catalog) catalog = t_catalog();
        GF_AUTO(gf_view) view = view_of(catalog, table[i].sizes, table[i].n);
        GF_AUTO_MEM uint32_t *shard = NULL;
        uint32_t n = 0;

        GF_OK(gf_shard_plan(view, table[i].max, &shard, &n, &t_err));
        assert_int_equal(n, table[i].nshards);
        assert_memory_equal(shard, table[i].shard, table[i].n * sizeof(*shard));
    }
}

static void outputs_of_one_storage_stay_together(void **state)
{
    static const struct {
        size_t n;
        uint64_t sizes[6];
        uint32_t storage[6], nshards, shard[6];
    } table[] = {
        { 4, { 4, 4, 4, 4 }, { 0, 1, 1, 0 }, 3, { 0, 1, 1, 2 } },
        /* Together they are too large: a shard of their own, at once. */
        { 4, { 4, 6, 6, 3 }, { 0, 1, 1, 0 }, 2, { 1, 0, 0, 1 } },
        { 6, { 2, 3, 3, 3, 3, 5 }, { 0, 1, 2, 1, 2, 0 }, 3, { 0, 0, 1, 0, 1, 2 } },
        { 5, { 6, 3, 3, 2, 2 }, { 0, 1, 1, 2, 2 }, 2, { 0, 1, 1, 1, 1 } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        GF_AUTO(gf_catalog) catalog = t_catalog();
        GF_AUTO(gf_view) view = view_of(catalog, table[i].sizes, table[i].n);
        GF_AUTO_MEM uint32_t *shard = NULL;
        uint32_t n = 0;

        for (size_t k = 0; k < table[i].n; k++)
            view->outputs[k].storage = table[i].storage[k];
        GF_OK(gf_shard_plan(view, 10, &shard, &n, &t_err));
        assert_int_equal(n, table[i].nshards);
        assert_memory_equal(shard, table[i].shard, table[i].n * sizeof(*shard));
    }
}

static void file_names_count_from_one(void **state)
{
    static const struct {
        uint32_t i, n;
        const char *want;
    } table[] = {
        { 0, 1, "model.safetensors" },
        { 0, 2, "model-00001-of-00002.safetensors" },
        { 122, 123456, "model-00123-of-123456.safetensors" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        GF_AUTO_MEM char *name =
            gf_shard_name("model", ".safetensors", table[i].i, table[i].n);

        assert_string_equal(name, table[i].want);
    }
}

static void free_images(struct gf_image **images, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gf_image_free(images[i]);
    free(images);
}

static void one_shard_is_one_plain_file(void **state)
{
    GF_AUTO(gf_catalog) catalog = t_catalog();
    GF_AUTO(gf_view) view = view_of(catalog, (const uint64_t[]){ 4, 5 }, 2);
    struct gf_image **images = NULL;
    size_t n = 0;

    (void)state;
    GF_OK(gf_images_of_view(view, &gf_file_safetensors, "adapter_model", 9, &images, &n,
                            &t_err));
    assert_int_equal(n, 1);
    assert_string_equal(gf_image_name(images[0]), "adapter_model.safetensors");
    free_images(images, n);
}

static void shards_come_with_their_index(void **state)
{
    static const char *const want[] = { "model-00001-of-00003.safetensors",
                                        "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors",
                                        "model.safetensors.index.json" };
    static const uint64_t bytes[] = { 11, 7, 5, 0 };
    GF_AUTO(gf_catalog) catalog = t_catalog();
    GF_AUTO(gf_view) view = view_of(catalog, (const uint64_t[]){ 3, 11, 4, 5 }, 4);
    struct gf_image **images = NULL;
    size_t n = 0;

    (void)state;
    GF_OK(gf_images_of_view(view, &gf_file_safetensors, "model", 10, &images, &n, &t_err));
    assert_int_equal(n, 4);
    for (size_t i = 0; i < n; i++) {
        const struct gf_segment *s;
        uint64_t sum = 0;
        size_t m;

        assert_string_equal(gf_image_name(images[i]), want[i]);
        s = gf_image_segments(images[i], &m);
        for (size_t k = 1; k < m; k++)
            sum += s[k].len;
        assert_int_equal(sum, bytes[i]);
        assert_int_equal(sum + s[0].len, gf_image_size(images[i]));
    }
    free_images(images, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_split_as_the_hub_does),
        cmocka_unit_test(outputs_of_one_storage_stay_together),
        cmocka_unit_test(file_names_count_from_one),
        cmocka_unit_test(one_shard_is_one_plain_file),
        cmocka_unit_test(shards_come_with_their_index),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
