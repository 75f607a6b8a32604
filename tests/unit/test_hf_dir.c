/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>

#include "format/hf_dir.h"
#include "format/shard_order.h"
#include "format/template.h"

struct fixture {
    struct gf_dir *dir;
    struct gf_found found;
};

static int setup(void **state)
{
    static struct fixture fixture;

    fixture = (struct fixture){ 0 };
    GF_OK(gf_dir_mem("ckpt", &gf_limits_default, &fixture.dir, &t_err));
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    gf_found_done(&f->found);
    gf_dir_free(f->dir);
    return 0;
}

static int read_file(struct fixture *f, const char *file)
{
    struct gf_format_in in = {
        .dir = f->dir, .file = file, .limits = &gf_limits_default, .threads = 1
    };

    gf_found_done(&f->found);
    return gf_hf_dir_format.read(&in, &f->found, &t_err);
}

static int probe(struct fixture *f, const char *file)
{
    char why[GF_WHY] = "";
    int score = gf_hf_dir_format.probe(f->dir, file, why);

    assert_true(why[0]);
    return score;
}

static void add_text(struct fixture *f, const char *path, const char *text)
{
    GF_OK(gf_dir_mem_add(f->dir, path, text, strlen(text), &t_err));
}

/* A file of U8 tensors of these sizes, `meta` in front of them. */
static void add_file(struct fixture *f, const char *path, const char *meta,
                     const char *const *names, const unsigned *sizes, size_t n)
{
    char header[1024] = "{";
    uint8_t bytes[2048] = { 0 };
    size_t len = 1, at = 0;

    len += (size_t)snprintf(header + len, sizeof(header) - len, "%s", meta);
    for (size_t i = 0; i < n; at += sizes[i++])
        len += (size_t)snprintf(header + len, sizeof(header) - len,
                                "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[%u],"
                                "\"data_offsets\":[%zu,%zu]}",
                                len > 1 ? "," : "", names[i], sizes[i], at, at + sizes[i]);
    header[len++] = '}';
    bytes[0] = (uint8_t)len;
    bytes[1] = (uint8_t)(len >> 8);
    memcpy(bytes + 8, header, len);
    for (size_t i = 0; i < at; i++)
        bytes[8 + len + i] = (uint8_t)i;
    GF_OK(gf_dir_mem_add(f->dir, path, bytes, 8 + len + at, &t_err));
}

#define FILE_OF(f, path, names, sizes)                                                     \
    add_file(f, path, "", (const char *const[]){ names }, (const unsigned[]){ sizes },     \
             sizeof((const unsigned[]){ sizes }) / sizeof(unsigned))
#define LIST(...) __VA_ARGS__

static int check(const struct fixture *f)
{
    uint64_t sizes[8];
    const char *names[8];

    for (size_t i = 0; i < f->found.sources.n; i++) {
        sizes[i] = f->found.sources.at[i]->size;
        names[i] = f->found.sources.at[i]->name;
    }
    return gf_catalog_check(f->found.catalog, sizes, names, f->found.sources.n, &t_err);
}

/* All names in order, each with a space behind it. */
static const char *names_of(const struct gf_catalog *catalog)
{
    static char text[512];
    size_t n = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < gf_catalog_len(catalog); i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s ",
                              gf_catalog_at(catalog, i)->name);
    return text;
}

static void one_file_is_served_in_the_order_of_its_data(void **state)
{
    struct fixture *f = *state;
    const struct gf_tensor *t;

    FILE_OF(f, "model.safetensors", LIST("b", "a"), LIST(3, 5));
    assert_int_equal(probe(f, NULL), GF_HF_SURE_MODEL);
    GF_OK(read_file(f, NULL));
    GF_OK(check(f));
    assert_int_equal(f->found.complete, GF_COMPLETE_YES);
    assert_string_equal(names_of(f->found.catalog), "b a ");
    t = gf_catalog_find(f->found.catalog, "a");
    assert_int_equal(t->dtype, GF_U8);
    assert_int_equal(t->numel, 5);
    assert_int_equal(gf_catalog_piece(f->found.catalog, t->pieces)->offset,
                     f->found.sources.at[0]->size - 5);
}

static void a_known_model_type_gives_the_models_own_order(void **state)
{
    struct fixture *f = *state;

    FILE_OF(f, "model.safetensors",
            LIST("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"),
            LIST(3, 3, 1));
    add_text(f, "config.json", "{\"model_type\": \"llama\"}");
    GF_OK(read_file(f, NULL));
    assert_string_equal(names_of(f->found.catalog),
                        "model.embed_tokens.weight model.norm.weight lm_head.weight ");
}

static void a_broken_config_is_not_this_formats_business(void **state)
{
    struct fixture *f = *state;

    FILE_OF(f, "model.safetensors", LIST("b", "a"), LIST(3, 5));
    add_text(f, "config.json", "{");
    GF_OK(read_file(f, NULL));
    assert_string_equal(names_of(f->found.catalog), "b a ");
}

static void add_two_shards(struct fixture *f)
{
    FILE_OF(f, "model-00001-of-00002.safetensors", LIST("a", "c"), LIST(3, 5));
    FILE_OF(f, "model-00002-of-00002.safetensors", LIST("b", "d"), LIST(1, 6));
}

static void shards_are_those_of_the_index(void **state)
{
    struct fixture *f = *state;

    add_two_shards(f);
    add_text(f, "model.safetensors.index.json",
             "{\"metadata\": {\"total_size\": 15}, \"weight_map\": {"
             "\"a\": \"model-00001-of-00002.safetensors\","
             "\"b\": \"model-00002-of-00002.safetensors\","
             "\"c\": \"model-00001-of-00002.safetensors\"}}");
    assert_int_equal(probe(f, NULL), GF_HF_SURE_MODEL);
    GF_OK(read_file(f, NULL));
    GF_OK(check(f));
    assert_string_equal(names_of(f->found.catalog), "c a d b ");
    assert_int_equal(f->found.complete, GF_COMPLETE_YES);
    assert_int_equal(f->found.warnings.n, 1);
    assert_non_null(
        strstr(f->found.warnings.at[0], "does not name 1 tensor of its files: 'd'"));
}

static void a_wrong_index_is_refused(void **state)
{
    static const struct {
        const char *map, *words;
        int code;
    } bad[] = {
        { "\"a\": \"m1\", \"b\": \"gone\"", "missing 'gone', which", GF_EINCOMPLETE },
        { "\"a\": \"m1\", \"x\": \"m1\"", "'m1': no tensor 'x' in it", GF_EINCOMPLETE },
        { "\"a\": \"m2\", \"b\": \"m1\"", "tensor 'a' is in 'm1', not in 'm2'", GF_EBAD },
        { "\"a\": \"/etc/passwd\"", "is not inside", GF_EBAD },
        { "\"a\": \"sub/../../m1\"", "is not inside", GF_EBAD },
        { "\"a\": \"m1\", \"a\": \"m1\"", "'a' is in it twice", GF_EBAD },
        { "", "no 'weight_map'", GF_EBAD },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[200];

        gf_dir_free(f->dir);
        GF_OK(gf_dir_mem("ckpt", &gf_limits_default, &f->dir, &t_err));
        FILE_OF(f, "m1", LIST("a"), LIST(3));
        FILE_OF(f, "m2", LIST("b"), LIST(3));
        snprintf(text, sizeof(text), "{\"weight_map\": {%s}}", bad[i].map);
        add_text(f, "model.safetensors.index.json", text);
        GF_FAILS(read_file(f, NULL), bad[i].code, bad[i].words);
    }
}

static void a_tensor_in_two_shards_is_refused(void **state)
{
    struct fixture *f = *state;

    FILE_OF(f, "m1", LIST("a", "b"), LIST(3, 1));
    FILE_OF(f, "m2", LIST("b"), LIST(3));
    add_text(f, "model.safetensors.index.json",
             "{\"weight_map\": {\"a\": \"m1\", \"b\": \"m2\"}}");
    GF_FAILS(read_file(f, NULL), GF_EBAD, "'b'");
}

static void one_file_wins_over_an_index(void **state)
{
    struct fixture *f = *state;

    FILE_OF(f, "model.safetensors", LIST("a"), LIST(3));
    add_text(f, "model.safetensors.index.json", "{");
    GF_OK(read_file(f, NULL));
}

static void adapters_never_mix_with_weights(void **state)
{
    struct fixture *f = *state;

    FILE_OF(f, "adapter_model.safetensors", LIST("base_model.model.a.lora_A.weight"),
            LIST(3));
    assert_int_equal(probe(f, NULL), GF_HF_SURE_ADAPTER);
    GF_OK(read_file(f, NULL));
    assert_string_equal(names_of(f->found.catalog), "base_model.model.a.lora_A.weight ");
    FILE_OF(f, "model.safetensors", LIST("a"), LIST(3));
    GF_OK(read_file(f, NULL));
    assert_string_equal(names_of(f->found.catalog), "a ");
    assert_int_equal(f->found.warnings.n, 1);
}

static void a_single_file_is_a_source_of_its_own(void **state)
{
    struct fixture *f = *state;

    add_two_shards(f);
    assert_int_equal(probe(f, NULL), 0);
    assert_int_equal(probe(f, "x.bin"), 0);
    assert_int_equal(probe(f, "model-00002-of-00002.safetensors"), GF_HF_SURE_FILE);
    GF_OK(read_file(f, "model-00002-of-00002.safetensors"));
    assert_string_equal(names_of(f->found.catalog), "b d ");
    assert_int_equal(f->found.complete, GF_COMPLETE_UNKNOWN);
}

static void one_ranks_shard_is_no_model(void **state)
{
    struct fixture *f = *state;

    add_file(f, "shard-00001-model-00001-of-00001.safetensors",
             "\"__metadata__\":{\"DCP_SHARDING_INFO\":\"{}\"}",
             (const char *const[]){ "a" }, (const unsigned[]){ 2 }, 1);
    GF_FAILS(read_file(f, "shard-00001-model-00001-of-00001.safetensors"), ENOTSUP,
             "one rank's parts");
}

static void a_template_is_by_name_where_the_order_is_not_known(void **state)
{
    struct fixture *f = *state;
    struct gf_catalog *template = NULL;

    FILE_OF(f, "model.safetensors", LIST("model.norm.weight", "lm_head.weight"),
            LIST(3, 5));
    GF_OK(gf_template_read(f->dir, &gf_limits_default, &template, &t_err));
    assert_string_equal(names_of(template), "lm_head.weight model.norm.weight ");
    assert_false(gf_template_is_ordered(template));
    gf_catalog_free(template);
    add_text(f, "config.json", "{\"model_type\": \"llama\"}");
    GF_OK(gf_template_read(f->dir, &gf_limits_default, &template, &t_err));
    assert_string_equal(names_of(template), "model.norm.weight lm_head.weight ");
    assert_true(gf_template_is_ordered(template));
    gf_catalog_free(template);
}

static void an_adapter_is_no_template(void **state)
{
    struct fixture *f = *state;
    struct gf_catalog *template = NULL;

    FILE_OF(f, "adapter_model.safetensors", LIST("a"), LIST(3));
    assert_int_equal(gf_template_read(f->dir, &gf_limits_default, &template, &t_err),
                     -ENOENT);
}

/* Cuts sizes as save_pretrained() does; writes each shard's size-sum, in file order. */
static size_t cut(const uint64_t *sizes, const size_t *order, size_t n, uint64_t limit,
                  size_t *shard_of)
{
    size_t closed = 0;
    uint64_t used = 0;
    size_t open[32], nopen = 0;

    for (size_t i = 0; i < n; i++) {
        size_t t = order ? order[i] : i;

        if (sizes[t] > limit) {
            shard_of[t] = closed++;
            continue;
        }
        if (used + sizes[t] > limit) {
            for (size_t k = 0; k < nopen; k++)
                shard_of[open[k]] = closed;
            closed++;
            nopen = 0;
            used = 0;
        }
        open[nopen++] = t;
        used += sizes[t];
    }
    for (size_t k = 0; k < nopen; k++)
        shard_of[open[k]] = closed;
    return closed + (nopen > 0);
}

static void an_order_is_found_that_makes_the_same_shards(void **state)
{
    static const struct {
        uint64_t limit, sizes[8];
    } cases[] = {
        { 10, { 3, 3, 3, 3, 3, 3, 3, 3 } },  { 10, { 9, 1, 1, 9, 4, 5, 6, 1 } },
        { 10, { 50, 3, 4, 5, 1, 9, 2, 2 } }, { 10, { 3, 4, 5, 1, 9, 2, 2, 50 } },
        { 10, { 9, 5, 50, 3, 4, 4, 1, 1 } }, { 10, { 5, 50, 4, 3, 60, 9, 2, 1 } },
    };

    (void)state;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        size_t shard[8], again[8], members[8], starts[9] = { 0 }, nshards, at = 0,
                                               *order = NULL;
        uint64_t sizes[8], in_files[8];
        size_t place[8];

        memcpy(sizes, cases[c].sizes, sizeof(sizes));
        nshards = cut(sizes, NULL, 8, cases[c].limit, shard);
        /* What the files hold: each shard's tensors, backwards. */
        for (size_t s = 0; s < nshards; s++) {
            for (size_t t = 8; t-- > 0;)
                if (shard[t] == s)
                    members[at++] = t;
            starts[s + 1] = at;
        }
        for (size_t i = 0; i < 8; i++) {
            in_files[i] = sizes[members[i]];
            for (size_t s = 0; s < nshards; s++)
                if (i >= starts[s] && i < starts[s + 1])
                    place[i] = s;
        }
        GF_OK(gf_shard_order(in_files, starts, nshards, &order, &t_err));
        assert_int_equal(cut(in_files, order, 8, cases[c].limit, again), nshards);
        for (size_t i = 0; i < 8; i++)
            if (again[i] != place[i])
                fail_msg("case %zu: tensor %zu is in shard %zu, was in %zu", c, i, again[i],
                         place[i]);
        free(order);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_file_is_served_in_the_order_of_its_data),
        TEST(a_known_model_type_gives_the_models_own_order),
        TEST(a_broken_config_is_not_this_formats_business),
        TEST(shards_are_those_of_the_index),
        TEST(a_wrong_index_is_refused),
        TEST(a_tensor_in_two_shards_is_refused),
        TEST(one_file_wins_over_an_index),
        TEST(adapters_never_mix_with_weights),
        TEST(a_single_file_is_a_source_of_its_own),
        TEST(one_ranks_shard_is_no_model),
        TEST(a_template_is_by_name_where_the_order_is_not_known),
        TEST(an_adapter_is_no_template),
        cmocka_unit_test(an_order_is_found_that_makes_the_same_shards),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
