/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>

#include "format/hf_sharded.h"

struct fixture {
    struct gf_dir *dir;
    struct gf_found found;
    struct gf_format_in in;
    struct gf_catalog *template;
};

static int setup(void **state)
{
    struct fixture *fx = calloc(1, sizeof(*fx));

    GF_OK(gf_dir_mem("step-7", &gf_limits_default, &fx->dir, &t_err));
    fx->in = (struct gf_format_in){ .dir = fx->dir, .limits = &gf_limits_default };
    *state = fx;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fx = *state;

    gf_found_done(&fx->found);
    gf_catalog_free(fx->template);
    gf_dir_free(fx->dir);
    free(fx);
    return 0;
}

/* A safetensors file: `tensors` is the header's JSON without braces, `info` the text of
 * DCP_SHARDING_INFO with \" for quotes; NULL: none. Then n bytes of 0, 1, 2, ... */
static void put(struct fixture *fx, const char *path, const char *info, const char *tensors,
                size_t n)
{
    uint8_t bytes[4096] = { 0 };
    size_t len = (size_t)snprintf((char *)bytes + 8, sizeof(bytes) - 8,
                                  "{\"__metadata__\":{\"format\":\"pt\"%s%s%s},%s}",
                                  info ? ",\"DCP_SHARDING_INFO\":\"" : "", info ? info : "",
                                  info ? "\"" : "", tensors);

    bytes[0] = (uint8_t)len;
    bytes[1] = (uint8_t)(len >> 8);
    for (size_t i = 0; i < n; i++)
        bytes[8 + len + i] = (uint8_t)i;
    GF_OK(gf_dir_mem_add(fx->dir, path, bytes, 8 + len + n, &t_err));
}

#define AT(name, offsets) "\\\"" name "\\\":{\\\"saved_offsets\\\":[" offsets "]}"
#define TENSOR(name, dtype, shape, from, to)                                               \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" from  \
    "," to "]}"

static void put_first(struct fixture *fx, const char *path)
{
    put(fx, path, "{" AT("w", "0,0") "," AT("n", "") "}",
        TENSOR("w", "I16", "2,3", "0", "12") "," TENSOR("n", "I64", "", "12", "20"), 20);
}

static void put_second(struct fixture *fx, const char *path)
{
    put(fx, path, "{" AT("b", "0") "," AT("w", "2,0") "}",
        TENSOR("b", "BOOL", "3", "0", "3") "," TENSOR("w", "I16", "1,3", "3", "9"), 9);
}

static int load(struct fixture *fx)
{
    gf_found_done(&fx->found);
    return gf_hf_sharded_format.read(&fx->in, &fx->found, &t_err);
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

static void expect_tensor(struct fixture *fx, const char *name, enum gf_dtype dtype,
                          uint32_t rank, const uint64_t *dims)
{
    struct gf_tensor_spec spec = { .name = name,
                                   .shape = { rank, dims },
                                   .dtype = dtype,
                                   .live = dtype,
                                   .copy = GF_NONE,
                                   .alias = GF_NONE };

    if (!fx->template)
        GF_OK(gf_catalog_new(&gf_limits_default, &fx->template, &t_err));
    GF_OK(gf_catalog_add(fx->template, &spec, NULL, &t_err));
    fx->in.template = fx->template;
}

#define FIRST "shard-00001-model-00001-of-00001.safetensors"
#define SECOND "shard-00002-model-00001-of-00001.safetensors"

static void pieces_are_put_where_they_were_saved(void **state)
{
    struct fixture *fx = *state;
    const struct gf_tensor *w;
    uint8_t got[6];
    char why[GF_WHY];

    assert_int_equal(gf_hf_sharded_format.probe(fx->dir, NULL, why), 0);
    put_first(fx, FIRST);
    put_second(fx, SECOND);
    assert_int_equal(gf_hf_sharded_format.probe(fx->dir, NULL, why), 90);
    GF_OK(load(fx));
    GF_OK(check(fx));
    w = gf_catalog_find(fx->found.catalog, "w");
    assert_int_equal(w->shape.dims[0], 3);
    assert_int_equal(w->npieces, 2);
    assert_int_equal(gf_catalog_piece(fx->found.catalog, w->pieces + 1)->start, 6);
    GF_OK(gf_source_read(fx->found.sources.at[1], got, 6,
                         gf_catalog_piece(fx->found.catalog, w->pieces + 1)->offset));
    assert_memory_equal(got, ((uint8_t[]){ 3, 4, 5, 6, 7, 8 }), 6);
    assert_int_equal(gf_catalog_find(fx->found.catalog, "n")->shape.rank, 0);
    assert_int_equal(gf_catalog_find(fx->found.catalog, "b")->dtype, GF_BOOL);
    assert_int_equal(fx->found.step, 7);
}

static void without_a_template_completeness_is_unknown(void **state)
{
    static const uint64_t w[] = { 3, 3 }, more[] = { 4, 3 }, less[] = { 2, 3 }, b[] = { 3 };
    struct fixture *fx = *state;

    put_first(fx, FIRST);
    put_second(fx, SECOND);
    GF_OK(load(fx));
    assert_int_equal(fx->found.complete, GF_COMPLETE_UNKNOWN);
    assert_non_null(strstr(fx->found.why, "config_from"));

    expect_tensor(fx, "w", GF_I16, 2, w);
    expect_tensor(fx, "n", GF_I64, 0, NULL);
    expect_tensor(fx, "b", GF_BOOL, 1, b);
    GF_OK(load(fx));
    GF_OK(check(fx));
    assert_int_equal(fx->found.complete, GF_COMPLETE_YES);

    /* A rank that is missing at the end shows against the template. */
    gf_catalog_free(fx->template);
    fx->template = NULL;
    expect_tensor(fx, "w", GF_I16, 2, more);
    GF_OK(load(fx));
    GF_FAILS(check(fx), GF_EINCOMPLETE, "'w'");

    gf_catalog_free(fx->template);
    fx->template = NULL;
    expect_tensor(fx, "w", GF_I16, 2, less);
    GF_FAILS(load(fx), GF_EBAD, "pieces reach to [3, 3], the template has [2, 3]");

    gf_catalog_free(fx->template);
    fx->template = NULL;
    expect_tensor(fx, "w", GF_I16, 2, w);
    expect_tensor(fx, "gone", GF_I16, 2, w);
    GF_FAILS(load(fx), GF_EINCOMPLETE, "gone");
    fx->in.allow_incomplete = true;
    GF_OK(load(fx));
    assert_int_equal(fx->found.complete, GF_COMPLETE_UNKNOWN);
}

static void zero_size_pieces_take_no_place(void **state)
{
    struct fixture *fx = *state;

    put_first(fx, FIRST);
    put(fx, SECOND, "{" AT("w", "2,0") "}", TENSOR("w", "I16", "0,3", "0", "0"), 0);
    GF_OK(load(fx));
    GF_OK(check(fx));
    assert_int_equal(gf_catalog_find(fx->found.catalog, "w")->npieces, 1);
}

static void shards_below_a_consolidated_model_are_found(void **state)
{
    struct fixture *fx = *state;

    put_first(fx, "sharded/" FIRST);
    put_second(fx, "sharded/" SECOND);
    GF_OK(gf_dir_mem_add(fx->dir, "model.safetensors.index.json", "{}", 2, &t_err));
    GF_OK(load(fx));
    GF_OK(check(fx));
    assert_string_equal(fx->found.base, "sharded");
}

static void ranks_and_files_without_gaps(void **state)
{
    struct fixture *fx = *state;

    put_first(fx, FIRST);
    put_second(fx, "shard-00003-model-00001-of-00001.safetensors");
    GF_FAILS(load(fx), GF_EINCOMPLETE, "missing 'shard-00002-model-*");
    put_second(fx, "shard-00002-model-00002-of-00002.safetensors");
    GF_FAILS(load(fx), GF_EBAD, "of 2");
}

static void missing_files_of_all_ranks_are_named(void **state)
{
    struct fixture *fx = *state;

    put_first(fx, "shard-00001-model-00001-of-00003.safetensors");
    put_second(fx, "shard-00002-model-00003-of-00003.safetensors");
    GF_FAILS(load(fx), GF_EINCOMPLETE, "missing 'shard-*-model-00002-of-00003");
    put_second(fx, "shard-00002-model-00002-of-00003.safetensors");
    GF_OK(load(fx));
    GF_FAILS(check(fx), GF_EBAD, "overlap"); /* the same piece in two files */
}

static void pieces_that_overlap_are_found(void **state)
{
    struct fixture *fx = *state;

    put_first(fx, FIRST);
    put(fx, SECOND, "{" AT("w", "1,0") "}", TENSOR("w", "I16", "2,3", "0", "12"), 12);
    GF_OK(load(fx));
    GF_FAILS(check(fx), GF_EBAD, "overlap");
}

static void pieces_must_agree_and_have_a_place(void **state)
{
    struct fixture *fx = *state;

    put_first(fx, FIRST);
    put(fx, SECOND, "{" AT("w", "2,0") "}", TENSOR("w", "F16", "1,3", "0", "6"), 6);
    GF_FAILS(load(fx), GF_EBAD, "tensor 'w': F16");
    put(fx, SECOND, "{" AT("w", "2") "}", TENSOR("w", "I16", "1,3", "0", "6"), 6);
    GF_FAILS(load(fx), GF_EBAD, "no place");
    put(fx, SECOND, "{" AT("v", "2,0") "}", TENSOR("w", "I16", "1,3", "0", "6"), 6);
    GF_FAILS(load(fx), GF_EBAD, "names 0 of its 1 tensors");
    put(fx, SECOND, "{" AT("w", "9007199254740992,0") "}",
        TENSOR("w", "I16", "1,3", "0", "6"), 6);
    GF_OK(load(fx));
    GF_FAILS(check(fx), GF_EINCOMPLETE, "'w'");
    put(fx, SECOND, NULL, TENSOR("w", "I16", "1,3", "0", "6"), 6);
    GF_FAILS(load(fx), GF_EBAD, "no DCP_SHARDING_INFO");
    put(fx, SECOND, "{" AT("w", "2,0") "}", TENSOR("w", "I16", "1,3", "0", "6"), 5);
    GF_FAILS(load(fx), GF_EBAD, "cut short");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(pieces_are_put_where_they_were_saved),
        TEST(without_a_template_completeness_is_unknown),
        TEST(zero_size_pieces_take_no_place),
        TEST(shards_below_a_consolidated_model_are_found),
        TEST(ranks_and_files_without_gaps),
        TEST(missing_files_of_all_ranks_are_named),
        TEST(pieces_that_overlap_are_found),
        TEST(pieces_must_agree_and_have_a_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
