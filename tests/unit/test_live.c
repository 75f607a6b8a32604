/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_live.c - tables of ranks as catalogs (format/live.c). The tables are written by hand
 * here; what a rank may say at all is segment_table.c's business.
 */
#include "t.h"

#include <stdlib.h>

#include "base/limits.h"
#include "format/live.h"

#define RANKS 2
#define MAX 4

struct ranks {
    struct gf_live_table table[RANKS];
    struct gf_live_tensor tensors[RANKS][MAX];
    struct gf_live_rank at[RANKS];
    uint8_t set[RANKS];
    struct gf_found found;
};

static const uint64_t shape_4x4[2] = { 4, 4 };
static const uint64_t half[2] = { 4, 2 }, left[2] = { 0, 0 }, right[2] = { 0, 2 };
static const uint64_t stride_2[2] = { 2, 1 }, stride_4[2] = { 4, 1 };

static int setup(void **state)
{
    static const uint8_t zeros[4096];
    struct ranks *t = calloc(1, sizeof(*t));

    for (uint32_t i = 0; i < RANKS; i++) {
        char name[16];

        snprintf(name, sizeof(name), "rank-%u", i);
        t->table[i] = (struct gf_live_table){ .rank = i,
                                              .world = RANKS,
                                              .job = "run7",
                                              .at = t->tensors[i],
                                              .slot_bytes = 4096 };
        t->set[i] = 0xff;
        t->at[i] = (struct gf_live_rank){ .table = &t->table[i], .set = &t->set[i] };
        GF_OK(gf_source_mem(name, zeros, sizeof(zeros), &t->at[i].slot, &t_err));
        GF_OK(gf_source_mem(name, zeros, sizeof(zeros), &t->at[i].frozen, &t_err));
    }
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct ranks *t = *state;

    for (uint32_t i = 0; i < RANKS; i++) {
        gf_source_free(t->at[i].slot);
        gf_source_free(t->at[i].frozen);
    }
    gf_found_done(&t->found);
    free(t);
    return 0;
}

static struct gf_live_tensor *add(struct ranks *t, uint32_t rank, const char *name,
                                  uint32_t flags, uint64_t data_off)
{
    uint32_t i = t->table[rank].n++;

    t->tensors[rank][i] = (struct gf_live_tensor){ .name = name,
                                                   .dtype = GF_F32,
                                                   .flags = flags,
                                                   .alias = i,
                                                   .replicas = 1,
                                                   .shape = { 2, shape_4x4 },
                                                   .local = shape_4x4,
                                                   .first = left,
                                                   .stride = stride_4,
                                                   .count = 16,
                                                   .nbytes = 64,
                                                   .data_off = data_off };
    return &t->tensors[rank][i];
}

static struct gf_live_tensor *add_flat(struct ranks *t, uint32_t rank, const char *name,
                                       uint64_t off, uint64_t count)
{
    struct gf_live_tensor *tensor = add(t, rank, name, GF_LIVE_FLAT, 64);

    tensor->flat_off = off;
    tensor->count = count;
    tensor->nbytes = count * 4;
    return tensor;
}

static struct gf_live_tensor *add_half(struct ranks *t, uint32_t rank, const char *name)
{
    struct gf_live_tensor *tensor = add(t, rank, name, 0, 64);

    tensor->local = half;
    tensor->first = rank ? right : left;
    tensor->stride = stride_2;
    tensor->count = 8;
    tensor->nbytes = 32;
    return tensor;
}

static int read_them(struct ranks *t)
{
    return gf_live_found(t->at, RANKS, 0, &gf_limits_default, &t->found, &t_err);
}

static int check(struct ranks *t)
{
    uint64_t sizes[2 * RANKS];
    const char *names[2 * RANKS];

    for (size_t i = 0; i < t->found.sources.n; i++) {
        sizes[i] = t->found.sources.at[i]->size;
        names[i] = t->found.sources.at[i]->name;
    }
    return gf_catalog_check(t->found.catalog, sizes, names, t->found.sources.n, &t_err);
}

static void pieces_of_one_name_are_one_tensor(void **state)
{
    struct ranks *t = *state;
    const struct gf_tensor *flat, *box;

    add_flat(t, 0, "flat", 0, 10);
    add_half(t, 0, "box");
    add_flat(t, 1, "flat", 10, 6);
    add_half(t, 1, "box");
    GF_OK(read_them(t));
    GF_OK(check(t));
    assert_int_equal(gf_catalog_len(t->found.catalog), 2);
    flat = gf_catalog_find(t->found.catalog, "flat");
    box = gf_catalog_find(t->found.catalog, "box");
    assert_int_equal(flat->npieces, 2);
    assert_true(box->boxed);
    assert_int_equal(gf_catalog_piece(t->found.catalog, flat->pieces + 1)->start, 10);
    assert_string_equal(t->found.format, "live");
    assert_int_equal(t->found.complete, GF_COMPLETE_YES);
}

static void the_order_is_the_first_ranks_then_what_others_add(void **state)
{
    struct ranks *t = *state;

    add(t, 0, "z", 0, 64);
    add(t, 1, "a", 0, 64);
    add(t, 1, "b", 0, 128);
    GF_OK(read_them(t));
    assert_string_equal(gf_catalog_at(t->found.catalog, 0)->name, "z");
    assert_string_equal(gf_catalog_at(t->found.catalog, 1)->name, "a");
    assert_string_equal(gf_catalog_at(t->found.catalog, 2)->name, "b");
}

static void what_is_not_in_the_set_is_not_read(void **state)
{
    struct ranks *t = *state;

    add(t, 0, "w", 0, 64);
    add(t, 1, "w", 0, 64);
    t->set[1] = 0;
    GF_OK(read_them(t));
    GF_OK(check(t));
    assert_int_equal(gf_catalog_at(t->found.catalog, 0)->npieces, 1);
}

static void static_tensors_are_in_the_other_source(void **state)
{
    struct ranks *t = *state;
    const struct gf_tensor *w;

    add(t, 0, "w", GF_LIVE_STATIC | GF_LIVE_FROZEN, 64);
    GF_OK(read_them(t));
    GF_OK(check(t));
    w = gf_catalog_at(t->found.catalog, 0);
    assert_int_equal(gf_catalog_piece(t->found.catalog, w->pieces)->source, 1);
    assert_true(w->frozen);
}

static void tied_names_share_the_pieces_of_the_first(void **state)
{
    struct ranks *t = *state;
    const struct gf_catalog *catalog;

    add(t, 0, "head", GF_LIVE_ALIAS, 0)->alias = 1;
    add(t, 0, "embed", 0, 64);
    GF_OK(read_them(t));
    GF_OK(check(t));
    catalog = t->found.catalog;
    assert_string_equal(gf_catalog_at(catalog, 0)->name, "head");
    assert_int_equal(gf_catalog_at(catalog, 0)->alias, GF_NONE);
    assert_int_equal(gf_catalog_at(catalog, 1)->alias, 0);
    assert_int_equal(gf_catalog_at(catalog, 1)->pieces, gf_catalog_at(catalog, 0)->pieces);
}

static void ranks_that_disagree_are_refused_by_name(void **state)
{
    static const uint64_t other[2] = { 2, 8 };
    struct ranks *t = *state;

    add(t, 0, "w", 0, 64);
    add(t, 1, "w", 0, 64)->shape.dims = other;
    GF_FAILS(read_them(t), GF_EBAD, "'w': rank 0 and rank 1 give it different shapes");
}

static void different_dtypes_are_refused(void **state)
{
    struct ranks *t = *state;

    add(t, 0, "w", 0, 64);
    add(t, 1, "w", 0, 64)->dtype = GF_BF16;
    GF_FAILS(read_them(t), GF_EBAD, "different dtypes");
}

static void different_ties_are_refused(void **state)
{
    struct ranks *t = *state;

    for (uint32_t i = 0; i < RANKS; i++) {
        add(t, i, "a", 0, 64);
        add(t, i, "b", 0, 128);
        add(t, i, "c", GF_LIVE_ALIAS, 0)->alias = i;
    }
    GF_FAILS(read_them(t), GF_EBAD, "different tensors that it is tied to");
}

static void holes_and_overlaps_are_found(void **state)
{
    struct ranks *t = *state;

    add_flat(t, 0, "w", 0, 8);
    add_flat(t, 1, "w", 12, 4);
    GF_OK(read_them(t));
    GF_FAILS(check(t), GF_EINCOMPLETE, "'w': element 8");
    gf_found_done(&t->found);
}

static void a_piece_past_its_slot_is_found(void **state)
{
    struct ranks *t = *state;

    add(t, 0, "w", 0, 4096 - 32);
    GF_OK(read_them(t));
    GF_FAILS(check(t), GF_EBAD, "'rank-0': tensor 'w': needs 64 bytes");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(pieces_of_one_name_are_one_tensor),
        TEST(the_order_is_the_first_ranks_then_what_others_add),
        TEST(what_is_not_in_the_set_is_not_read),
        TEST(static_tensors_are_in_the_other_source),
        TEST(tied_names_share_the_pieces_of_the_first),
        TEST(ranks_that_disagree_are_refused_by_name),
        TEST(different_dtypes_are_refused),
        TEST(different_ties_are_refused),
        TEST(holes_and_overlaps_are_found),
        TEST(a_piece_past_its_slot_is_found),
    };

    return cmocka_run_group_tests_name("live", tests, NULL, NULL);
}
