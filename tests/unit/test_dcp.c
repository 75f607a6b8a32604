/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <unistd.h>

#include "dcp_writer.h"
#include "format/dcp.h"
#include "format/dcp_render.h"

#define D PW_DIMS

static const float values[12] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };

struct fixture {
    struct gf_dir *dir;
    struct gf_found found;
    struct gf_format_in in;
    struct pw meta;
    struct zw file[2]; /* '__0_0.distcp', '__1_0.distcp' */
};

static int setup(void **state)
{
    struct fixture *fx = calloc(1, sizeof(*fx));

    GF_OK(gf_dir_mem("run/checkpoint-12", &gf_limits_default, &fx->dir, &t_err));
    fx->in = (struct gf_format_in){ .dir = fx->dir, .limits = &gf_limits_default };
    *state = fx;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fx = *state;

    gf_found_done(&fx->found);
    gf_dir_free(fx->dir);
    zw_done(&fx->file[0]);
    zw_done(&fx->file[1]);
    free(fx);
    return 0;
}

static void put(struct fixture *fx, const char *path, const void *bytes, size_t n)
{
    GF_OK(gf_dir_mem_add(fx->dir, path, bytes, n, &t_err));
}

static void save_as(struct fixture *fx, const char *name, const struct dw_tensor *tensors,
                    size_t n)
{
    dw_metadata(&fx->meta, tensors, n, NULL);
    put(fx, name, fx->meta.p, fx->meta.n);
}

static void save_files(struct fixture *fx)
{
    put(fx, "__0_0.distcp", fx->file[0].p, fx->file[0].n);
    put(fx, "__1_0.distcp", fx->file[1].p, fx->file[1].n);
}

static void save(struct fixture *fx, const struct dw_tensor *tensors, size_t n)
{
    save_as(fx, ".metadata", tensors, n);
    save_files(fx);
}

static int load(struct fixture *fx)
{
    gf_found_done(&fx->found);
    return gf_dcp_format.read(&fx->in, &fx->found, &t_err);
}

static int check(struct fixture *fx)
{
    uint64_t sizes[8];
    const char *names[8];

    for (size_t i = 0; i < fx->found.sources.n; i++) {
        sizes[i] = fx->found.sources.at[i]->size;
        names[i] = fx->found.sources.at[i]->name;
    }
    return gf_catalog_check(fx->found.catalog, sizes, names, fx->found.sources.n, &t_err);
}

/* Reads a tensor whose pieces are runs. */
static int read_tensor(struct fixture *fx, const char *name, void *ret)
{
    const struct gf_tensor *t = gf_catalog_find(fx->found.catalog, name);
    size_t item = gf_dtype_size(t->dtype);
    int r = 0;

    assert_false(t->boxed);
    for (uint32_t i = 0; i < t->npieces && !r; i++) {
        const struct gf_piece *p = gf_catalog_piece(fx->found.catalog, t->pieces + i);

        r = gf_source_read(fx->found.sources.at[p->source],
                           (uint8_t *)ret + p->start * item, p->count * item, p->offset);
    }
    return r;
}

static struct dw_place rows(struct fixture *fx, int file, size_t first, size_t n)
{
    return dw_item(&fx->file[file], "FloatStorage", D((int64_t)n, 3), D(3, 1),
                   values + 3 * first, n * 12, 4);
}

/* 'w' [4, 3], two rows in each file. */
static struct dw_tensor halves(struct fixture *fx)
{
    struct dw_place a = rows(fx, 0, 0, 2), b = rows(fx, 1, 2, 2);

    return (struct dw_tensor){
        "model.w",
        { "model", "w" },
        "float32",
        DW_DIMS(4, 3),
        { { DW_DIMS(0, 0), DW_DIMS(2, 3), "__0_0.distcp", a, NULL, false },
          { DW_DIMS(2, 0), DW_DIMS(2, 3), "__1_0.distcp", b, NULL, false },
          { DW_DIMS(4, 0), DW_DIMS(0, 3), "__1_0.distcp", b, NULL, false } }
    };
}

static void chunks_become_pieces_in_the_places_of_their_items(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);
    float got[12] = { 0 };
    char why[GF_WHY];

    save(fx, &t, 1);
    assert_int_equal(gf_dcp_format.probe(fx->dir, NULL, why), 95);
    GF_OK(load(fx));
    GF_OK(check(fx));
    GF_OK(read_tensor(fx, "w", got));
    assert_memory_equal(got, values, sizeof(values));
    assert_string_equal(fx->found.detail, "DCP, 2 ranks, 1 tensor in 2 items");
    assert_int_equal(fx->found.complete, GF_COMPLETE_YES);
    assert_true(fx->found.has_step);
    assert_int_equal(fx->found.step, 12);
    assert_int_equal(fx->found.warnings.n, 0);
}

static void a_part_of_an_item_is_read_and_mapped_in_place(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);
    struct gf_source *src;
    float got[2];

    save(fx, &t, 1);
    GF_OK(load(fx));
    src = fx->found.sources.at[1];
    GF_OK(gf_source_read(src, got, 8, 4));
    assert_memory_equal(got, values + 7, 8);
    assert_memory_equal(gf_source_map(src, 4, 8), values + 7, 8);
    /* The archive has more bytes than its elements; they have no address. */
    assert_int_equal(gf_source_read(src, got, 8, 20), -EINVAL);
    assert_null(gf_source_map(src, 20, 8));
}

static void columns_become_boxes(void **state)
{
    struct fixture *fx = *state;
    static const float left[] = { 0, 1, 3, 4, 6, 7, 9, 10 }, right[] = { 2, 5, 8, 11 };
    struct dw_tensor t = {
        "w",
        { "w" },
        "float32",
        DW_DIMS(4, 3),
        { { DW_DIMS(0, 0), DW_DIMS(4, 2), "__0_0.distcp",
            dw_item(&fx->file[0], "FloatStorage", D(4, 2), D(2, 1), left, 32, 4), NULL,
            false },
          { DW_DIMS(0, 2), DW_DIMS(4, 1), "__1_0.distcp",
            dw_item(&fx->file[1], "FloatStorage", D(4, 1), D(1, 1), right, 16, 4), NULL,
            false } }
    };

    save(fx, &t, 1);
    GF_OK(load(fx));
    GF_OK(check(fx));
    assert_true(gf_catalog_find(fx->found.catalog, "w")->boxed);
}

static void a_transposed_item_is_served_row_major(void **state)
{
    struct fixture *fx = *state;
    /* [3, 2] with strides (1, 3): columns of the storage are its rows. */
    static const float wanted[] = { 0, 3, 1, 4, 2, 5 };
    struct dw_place at =
        dw_item(&fx->file[0], "FloatStorage", D(3, 2), D(1, 3), values, 24, 4);
    struct dw_tensor t = { "w",
                           { "w" },
                           "float32",
                           DW_DIMS(3, 2),
                           { { DW_DIMS(0, 0), DW_DIMS(3, 2), "__0_0.distcp", at, NULL,
                               false } } };
    float got[6] = { 0 };

    save(fx, &t, 1);
    GF_OK(load(fx));
    GF_OK(check(fx));
    GF_OK(read_tensor(fx, "w", got));
    assert_memory_equal(got, wanted, sizeof(wanted));
    assert_null(gf_source_map(fx->found.sources.at[0], 0, 24));
}

static void rendered_items_stay_within_the_cache(void **state)
{
    static const uint64_t dims[] = { 3, 2 };
    struct gf_dcp_rendered *slots[3] = { NULL };
    struct gf_dcp_item items[3];
    GF_AUTO(gf_dcp_cache) cache = NULL;
    GF_AUTO(gf_source) file = NULL;
    struct fixture *fx = *state;
    float got = 0;

    for (size_t i = 0; i < 3; i++) {
        struct dw_place at =
            dw_item(&fx->file[0], "FloatStorage", D(3, 2), D(1, 3), values + i, 24, 4);

        items[i] = (struct gf_dcp_item){ .at = (uint64_t)at.at,
                                         .length = (uint64_t)at.length,
                                         .shape = { 2, dims },
                                         .dtype = GF_F32 };
    }
    GF_OK(gf_source_mem("f", fx->file[0].p, fx->file[0].n, &file, &t_err));
    GF_OK(gf_dcp_cache_new(48, &cache, &t_err));
    GF_OK(gf_dcp_cache_read(cache, file, &items[0], &slots[0], &got, 4, 4));
    assert_true(got == 3);
    GF_OK(gf_dcp_cache_read(cache, file, &items[1], &slots[1], &got, 4, 4));
    GF_OK(gf_dcp_cache_read(cache, file, &items[0], &slots[0], &got, 4, 8));
    assert_true(got == 1);
    /* The third takes the place of the one that was read longest ago. */
    GF_OK(gf_dcp_cache_read(cache, file, &items[2], &slots[2], &got, 4, 0));
    assert_true(got == 2);
    assert_non_null(slots[0]);
    assert_null(slots[1]);
    for (size_t i = 0; i < 3; i++)
        gf_dcp_cache_drop(cache, &slots[i]);
    assert_null(slots[0]);
}

static void item_headers_are_read_late_and_checked(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);
    float got[12];
    size_t at;

    /* Files of zeros open: nothing but their size is looked at. */
    save_as(fx, ".metadata", &t, 1);
    memset(fx->file[1].p, 0, fx->file[1].n);
    save_files(fx);
    GF_OK(load(fx));
    GF_OK(check(fx));
    assert_int_equal(read_tensor(fx, "w", got), -GF_EBAD);

    /* Another shape than the metadata's. */
    fx->file[1].n = 0;
    at = (size_t)dw_item(&fx->file[1], "FloatStorage", D(3, 2), D(2, 1), values, 24, 4)
             .length;
    assert_int_equal(at, fx->file[0].n);
    save(fx, &t, 1);
    GF_OK(load(fx));
    assert_int_equal(read_tensor(fx, "w", got), -GF_EBAD);

    /* Another dtype. */
    fx->file[1].n = 0;
    dw_item(&fx->file[1], "IntStorage", D(2, 3), D(3, 1), values, 24, 4);
    zw_bytes(&fx->file[1], "  ", 2); /* the class name is two letters shorter */
    save(fx, &t, 1);
    GF_OK(load(fx));
    assert_int_equal(read_tensor(fx, "w", got), -GF_EBAD);
}

static void short_and_missing_files_are_named(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);

    save_as(fx, ".metadata", &t, 1);
    put(fx, "__0_0.distcp", fx->file[0].p, fx->file[0].n);
    GF_FAILS(load(fx), GF_EINCOMPLETE, "missing '__1_0.distcp': 1 of 2 data files");
    put(fx, "__1_0.distcp", fx->file[1].p, fx->file[1].n - 1);
    GF_FAILS(load(fx), GF_EBAD, "'__1_0.distcp': cut short");
}

static void holes_and_overlaps_are_found(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);

    t.pieces[1] = (struct dw_piece){ 0 };
    save(fx, &t, 1);
    GF_OK(load(fx));
    GF_FAILS(check(fx), GF_EINCOMPLETE, "'w'");

    zw_done(&fx->file[0]);
    zw_done(&fx->file[1]);
    t = halves(fx);
    t.pieces[1].first[0] = 1;
    save(fx, &t, 1);
    GF_OK(load(fx));
    GF_FAILS(check(fx), GF_EBAD, "overlap");

    t.pieces[1].first[0] = 3;
    save(fx, &t, 1);
    GF_FAILS(load(fx), GF_EBAD, "a chunk of 2 at 3 of dimension 0, which has 4");
}

static void items_that_overlap_in_their_file_are_refused(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);

    t.pieces[1].file = t.pieces[0].file;
    t.pieces[1].place.at = 8;
    t.pieces[1].place.length -= 8;
    save(fx, &t, 1);
    GF_FAILS(load(fx), GF_EBAD, "overlap");
    t.pieces[1].place.length = 10;
    save(fx, &t, 1);
    GF_FAILS(load(fx), GF_EBAD, "too short for its chunk");
}

static void a_chunk_that_nothing_stores_is_refused(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);

    t.pieces[1].unstored = true;
    save(fx, &t, 1);
    GF_FAILS(load(fx), GF_EBAD, "'model.w': its chunk at [2, 0] is stored nowhere");
}

static void paths_that_leave_the_directory_are_refused(void **state)
{
    static const char *const paths[] = { "../__1_0.distcp", "/etc/passwd", "a/../../b",
                                         "" };
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);

    for (size_t i = 0; i < 4; i++) {
        t.pieces[1].file = paths[i];
        save(fx, &t, 1);
        GF_FAILS(load(fx), GF_EBAD, "not inside the checkpoint");
    }
}

static void numbers_that_overflow_are_refused(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);

    t.pieces[0].place.at = INT64_MAX - 5;
    save(fx, &t, 1);
    GF_FAILS(load(fx), GF_EBAD, "no file, offset and length");
    t.pieces[0].place.at = -2;
    save(fx, &t, 1);
    GF_FAILS(load(fx), GF_EBAD, "no file, offset and length");
    t = (struct dw_tensor){ .fqn = "w",
                            .dtype = "float32",
                            .dims = DW_DIMS(INT64_MAX, INT64_MAX) };
    save(fx, &t, 1);
    GF_FAILS(load(fx), GF_EBAD, "impossible size");
}

static void nothing_in_the_pickle_is_called(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);

    dw_metadata(&fx->meta, &t, 1, "cos\nsystem\n(U\x19touch gatherfs_was_fooledtR");
    put(fx, ".metadata", fx->meta.p, fx->meta.n);
    save_files(fx);
    GF_OK(load(fx));
    GF_OK(check(fx));
    assert_int_equal(access("gatherfs_was_fooled", F_OK), -1);
}

static void unfinished_saves_are_refused(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);
    char why[GF_WHY];

    save_files(fx);
    GF_FAILS(load(fx), GF_EINCOMPLETE, "'.metadata' is missing");
    assert_true(gf_dcp_format.probe(fx->dir, NULL, why) > 0);
    save_as(fx, ".metadata.tmp", &t, 1);
    fx->in.allow_incomplete = true;
    GF_FAILS(load(fx), GF_EINCOMPLETE, "never renamed");
    assert_true(gf_dcp_format.probe(fx->dir, NULL, why) > 0);

    /* Saving again over a whole one: only with allow_incomplete. */
    save_as(fx, ".metadata", &t, 1);
    GF_OK(load(fx));
    assert_int_equal(fx->found.complete, GF_COMPLETE_UNKNOWN);
    fx->in.allow_incomplete = false;
    GF_FAILS(load(fx), GF_EINCOMPLETE, "saved again");
}

static void metadata_of_ranks_are_merged(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx), one;
    struct dw_place copy[2] = { rows(fx, 0, 0, 1), rows(fx, 1, 0, 1) };
    float got[12];

    for (int rank = 0; rank < 2; rank++) {
        struct dw_tensor both[2];
        char name[32];

        one = t;
        one.pieces[0] = t.pieces[rank];
        one.pieces[1] = (struct dw_piece){ 0 };
        both[0] = one;
        /* Each rank also stored all of 'r'. */
        both[1] = (struct dw_tensor){ "model.r",
                                      { "model", "r" },
                                      "float32",
                                      DW_DIMS(1, 3),
                                      { { DW_DIMS(0, 0), DW_DIMS(1, 3), t.pieces[rank].file,
                                          copy[rank], NULL, false } } };
        snprintf(name, sizeof(name), "__%d.metadata", rank);
        save_as(fx, name, both, 2);
        if (rank == 0) {
            save_files(fx);
            GF_OK(load(fx));
            GF_FAILS(check(fx), GF_EINCOMPLETE, "'w'");
        }
    }
    GF_OK(load(fx));
    GF_OK(check(fx));
    GF_OK(read_tensor(fx, "w", got));
    assert_memory_equal(got, values, sizeof(values));
    assert_int_equal(gf_catalog_find(fx->found.catalog, "r")->npieces, 1);
}

static void the_model_is_served_and_other_models_are_named(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t[4] = { halves(fx), halves(fx), halves(fx), halves(fx) };

    t[0].fqn = "optim.state.w.exp_avg";
    memcpy(t[0].path, (const char *[5]){ "optim", "state", "w", "exp_avg" },
           sizeof(t[0].path));
    t[1].fqn = "ema.w";
    t[1].path[0] = "ema";
    t[3].fqn = "model.b";
    t[3].path[1] = "b";
    save(fx, t, 4);
    GF_OK(load(fx));
    GF_OK(check(fx));
    assert_int_equal(gf_catalog_len(fx->found.catalog), 2);
    assert_string_equal(gf_catalog_at(fx->found.catalog, 0)->name, "w");
    assert_string_equal(gf_catalog_at(fx->found.catalog, 1)->name, "b");
    assert_int_equal(fx->found.warnings.n, 1);
    assert_non_null(strstr(fx->found.warnings.at[0], "'ema' (1 tensors)"));

    save(fx, t, 1);
    GF_FAILS(load(fx), ENOENT, "the state of an optimizer");
}

static void accelerate_keeps_it_in_a_directory_of_its_own(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);
    char why[GF_WHY];

    save_as(fx, "pytorch_model_fsdp_0/.metadata", &t, 1);
    put(fx, "pytorch_model_fsdp_0/__0_0.distcp", fx->file[0].p, fx->file[0].n);
    put(fx, "pytorch_model_fsdp_0/__1_0.distcp", fx->file[1].p, fx->file[1].n);
    put(fx, "pytorch_model_fsdp_1/.metadata", "", 0);
    put(fx, "optimizer_0/.metadata", "", 0);
    assert_int_equal(gf_dcp_format.probe(fx->dir, NULL, why), 95);
    GF_OK(load(fx));
    GF_OK(check(fx));
    assert_string_equal(fx->found.base, "pytorch_model_fsdp_0");
    assert_string_equal(fx->found.sources.at[0]->name, "pytorch_model_fsdp_0/__0_0.distcp");
    assert_int_equal(fx->found.warnings.n, 1);
    assert_non_null(strstr(fx->found.warnings.at[0], "'pytorch_model_fsdp_1'"));
}

static void packings_that_are_not_known_are_refused_by_name(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);

    t.pieces[1].packed = "stream.rot13/1";
    save(fx, &t, 1);
    GF_FAILS(load(fx), ENOTSUP, "tensor 'w': its items are packed by 'stream.rot13/1'");
}

static void a_dtype_without_a_name_is_left_out_with_a_warning(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t[2] = { halves(fx), halves(fx) };

    t[1].fqn = "model.c";
    t[1].path[1] = "c";
    t[1].dtype = "complex128";
    save(fx, t, 2);
    GF_OK(load(fx));
    assert_int_equal(gf_catalog_len(fx->found.catalog), 1);
    assert_int_equal(fx->found.warnings.n, 1);
    assert_non_null(strstr(fx->found.warnings.at[0], "'c': safetensors has no complex128"));
}

static void float4_is_counted_in_halves(void **state)
{
    struct fixture *fx = *state;
    struct dw_place at = { 0, 600 };
    struct dw_tensor t = {
        "w",
        { "w" },
        "float4_e2m1fn_x2",
        DW_DIMS(4, 3),
        { { DW_DIMS(0, 0), DW_DIMS(2, 3), "__0_0.distcp", at, NULL, false },
          { DW_DIMS(2, 0), DW_DIMS(2, 3), "__1_0.distcp", at, NULL, false } }
    };

    zw_le(&fx->file[0], 0, 600);
    zw_le(&fx->file[1], 0, 600);
    save(fx, &t, 1);
    GF_OK(load(fx));
    GF_OK(check(fx));
    assert_int_equal(gf_catalog_at(fx->found.catalog, 0)->shape.dims[1], 6);
}

static void a_state_dict_saved_as_one_object_is_read(void **state)
{
    struct fixture *fx = *state;
    struct pw object = { .n = 0 };
    struct dw_tensor t[2] = { { .fqn = "args" }, { .fqn = "model" } };
    float got[6];

    pw_op(&object, "}(");
    pw_str(&object, "w");
    pw_tensor(&object, "FloatStorage", "0", 6, 0, D(2, 3), D(3, 1));
    pw_str(&object, "b");
    pw_tensor(&object, "FloatStorage", "0", 6, 3, D(3), D(1));
    pw_op(&object, "u");
    rows(fx, 0, 0, 1);
    t[1].pieces[0] =
        (struct dw_piece){ .file = "__0_0.distcp",
                           .place = dw_archive(&fx->file[0], &object, values, 24) };
    save(fx, t, 2);
    GF_OK(load(fx));
    GF_OK(check(fx));
    GF_OK(read_tensor(fx, "w", got));
    assert_memory_equal(got, values, 24);
    GF_OK(read_tensor(fx, "b", got));
    assert_memory_equal(got, values + 3, 12);
}

static void other_pickles_and_layouts_are_refused(void **state)
{
    struct fixture *fx = *state;
    struct dw_tensor t = halves(fx);
    char why[GF_WHY];

    put(fx, ".metadata", "{\"a\": 1}", 8);
    assert_int_equal(gf_dcp_format.probe(fx->dir, NULL, why), 0);
    GF_FAILS(load(fx), GF_EBAD, ".metadata");
    put(fx, ".metadata", "\x80\x02}.", 4);
    GF_FAILS(load(fx), GF_EBAD, "no metadata of torch.distributed.checkpoint");
    save(fx, &t, 1);
    put(fx, "common.pt", "", 0);
    GF_FAILS(load(fx), ENOTSUP, "Megatron");
    fx->in.tag = "x";
    GF_FAILS(load(fx), EINVAL, "no tags");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(chunks_become_pieces_in_the_places_of_their_items),
        TEST(a_part_of_an_item_is_read_and_mapped_in_place),
        TEST(columns_become_boxes),
        TEST(a_transposed_item_is_served_row_major),
        TEST(rendered_items_stay_within_the_cache),
        TEST(item_headers_are_read_late_and_checked),
        TEST(short_and_missing_files_are_named),
        TEST(holes_and_overlaps_are_found),
        TEST(items_that_overlap_in_their_file_are_refused),
        TEST(a_chunk_that_nothing_stores_is_refused),
        TEST(paths_that_leave_the_directory_are_refused),
        TEST(numbers_that_overflow_are_refused),
        TEST(nothing_in_the_pickle_is_called),
        TEST(unfinished_saves_are_refused),
        TEST(metadata_of_ranks_are_merged),
        TEST(the_model_is_served_and_other_models_are_named),
        TEST(accelerate_keeps_it_in_a_directory_of_its_own),
        TEST(packings_that_are_not_known_are_refused_by_name),
        TEST(a_dtype_without_a_name_is_left_out_with_a_warning),
        TEST(float4_is_counted_in_halves),
        TEST(a_state_dict_saved_as_one_object_is_read),
        TEST(other_pickles_and_layouts_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
