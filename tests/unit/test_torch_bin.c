/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "format/template.h"
#include "format/torch_bin.h"
#include "format/torch_state.h"
#include "t_torch.h"

struct fixture {
    struct gf_dir *dir;
    struct gf_found found;
};

static int setup(void **state)
{
    static struct fixture fixture;

    fixture = (struct fixture){ .dir = t_dir() };
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

static int read_file(struct fixture *f, const char *file, bool allow_incomplete)
{
    struct gf_format_in in = t_in(f->dir);

    in.file = file;
    in.allow_incomplete = allow_incomplete;
    gf_found_done(&f->found);
    return gf_torch_bin_format.read(&in, &f->found, &t_err);
}

static int probe(struct fixture *f, const char *file)
{
    char why[GF_WHY] = "";
    int score = gf_torch_bin_format.probe(f->dir, file, why);

    assert_true(why[0]);
    return score;
}

static void add_text(struct fixture *f, const char *path, const char *text)
{
    GF_OK(gf_dir_mem_add(f->dir, path, text, strlen(text), &t_err));
}

/* A whole file with one tensor [2]. */
static void add_simple(struct fixture *f, const char *path, const char *name, float first)
{
    struct t_file file;

    t_file_begin(&file);
    t_plain(&file, name, first, PW_DIMS(2));
    t_file_end(&file, f->dir, path);
}

/* Within a file: a nested dict with one tensor [n]. */
static void add_nested(struct t_file *file, const char *key, const char *name, float first,
                       int64_t n)
{
    pw_str(&file->w, key);
    pw_op(&file->w, "}(");
    t_plain(file, name, first, PW_DIMS(n));
    pw_op(&file->w, "u");
}

static void a_state_dict_is_served_in_its_order(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    t_plain(&file, "z", 0, PW_DIMS(2, 2));
    t_plain(&file, "a", 10, PW_DIMS());
    t_plain(&file, "empty", 10, PW_DIMS(0, 3));
    t_file_end(&file, f->dir, "pytorch_model.bin");
    assert_int_equal(probe(f, NULL), GF_BIN_SURE_MODEL);
    GF_OK(read_file(f, NULL, false));
    GF_OK(t_check(&f->found));
    assert_int_equal(f->found.complete, GF_COMPLETE_YES);
    assert_string_equal(gf_catalog_at(f->found.catalog, 0)->name, "z");
    assert_string_equal(gf_catalog_at(f->found.catalog, 1)->name, "a");
    T_ELEMENTS(&f->found, "z", 0, 1, 2, 3);
    T_ELEMENTS(&f->found, "a", 10);
}

static void strides_and_stretched_views_are_honoured(void **state)
{
    struct fixture *f = *state;
    struct t_file file;
    const char *key;

    t_file_begin(&file);
    pw_str(&file.w, "t");
    key = t_storage(&file, 0, 6);
    pw_tensor(&file.w, "FloatStorage", key, 6, 0, PW_DIMS(3, 2), PW_DIMS(1, 3));
    pw_str(&file.w, "rows");
    pw_tensor(&file.w, "FloatStorage", "0", 6, 3, PW_DIMS(3), PW_DIMS(1));
    pw_str(&file.w, "same");
    pw_tensor(&file.w, "FloatStorage", "0", 6, 5, PW_DIMS(2, 2), PW_DIMS(0, 0));
    t_file_end(&file, f->dir, "pytorch_model.bin");
    GF_OK(read_file(f, NULL, false));
    GF_OK(t_check(&f->found));
    T_ELEMENTS(&f->found, "t", 0, 3, 1, 4, 2, 5);
    T_ELEMENTS(&f->found, "rows", 3, 4, 5);
    T_ELEMENTS(&f->found, "same", 5, 5, 5, 5);
}

static void equal_views_are_aliases_and_others_are_not(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    t_plain(&file, "embed", 0, PW_DIMS(2, 3));
    pw_str(&file.w, "head");
    pw_tensor(&file.w, "FloatStorage", "0", 6, 0, PW_DIMS(2, 3), PW_DIMS(3, 1));
    pw_str(&file.w, "flat");
    pw_tensor(&file.w, "FloatStorage", "0", 6, 0, PW_DIMS(6), PW_DIMS(1));
    t_file_end(&file, f->dir, "pytorch_model.bin");
    GF_OK(read_file(f, NULL, false));
    GF_OK(t_check(&f->found));
    assert_int_equal(gf_catalog_find(f->found.catalog, "head")->alias, 0);
    assert_int_equal(gf_catalog_find(f->found.catalog, "flat")->alias, GF_NONE);
    T_ELEMENTS(&f->found, "head", 0, 1, 2, 3, 4, 5);
}

static void the_models_mapping_is_found_among_others(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    pw_str(&file.w, "global_step");
    pw_int(&file.w, 7);
    add_nested(&file, "optimizer", "exp_avg", 0, 200);
    add_nested(&file, "ema", "w", 1, 100);
    add_nested(&file, "rng_state", "cpu", 1, 100);
    add_nested(&file, "critic", "w", 2, 50);
    add_nested(&file, "model", "w", 3, 2);
    t_file_end(&file, f->dir, "x.pt");
    assert_int_equal(probe(f, "x.pt"), GF_BIN_SURE_FILE);
    GF_OK(read_file(f, "x.pt", false));
    assert_int_equal(gf_catalog_len(f->found.catalog), 1);
    T_ELEMENTS(&f->found, "w", 3, 4);
    assert_int_equal(f->found.step, 7);
    assert_int_equal(f->found.warnings.n, 1);
    assert_non_null(strstr(f->found.warnings.at[0], "served is 'model', not 'critic'"));
}

static void without_a_known_name_the_larger_mapping_is_taken(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    add_nested(&file, "generator", "w", 0, 50);
    add_nested(&file, "critic", "w", 2, 5);
    t_file_end(&file, f->dir, "x.pt");
    GF_OK(read_file(f, "x.pt", false));
    T_ELEMENTS(&f->found, "w", 0, 1);
}

static void a_file_without_a_model_says_what_it_has(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    add_nested(&file, "optimizer", "exp_avg", 0, 2);
    pw_str(&file.w, "epoch");
    pw_int(&file.w, 7);
    t_file_end(&file, f->dir, "x.pt");
    GF_FAILS(read_file(f, "x.pt", false), ENOTSUP, "its keys: 'optimizer', 'epoch'");
}

static void cyclic_and_shared_values_end(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    /* d = {}; d['self'] = d; {'a': d, 'b': d, 'w': tensor} */
    pw_str(&file.w, "a");
    pw_op(&file.w, "}q\x05");
    pw_str(&file.w, "self");
    pw_op(&file.w, "h\x05s");
    pw_str(&file.w, "b");
    pw_op(&file.w, "h\x05");
    for (int i = 0; i < 3; i++) {
        char name[4];

        snprintf(name, sizeof(name), "w%d", i);
        t_plain(&file, name, 3, PW_DIMS(2));
    }
    t_file_end(&file, f->dir, "x.pt");
    GF_OK(read_file(f, "x.pt", false));
    T_ELEMENTS(&f->found, "w0", 3, 4);
}

static void add_odd(struct fixture *f)
{
    struct t_file file;

    t_file_begin(&file);
    t_plain(&file, "w", 0, PW_DIMS(2));
    pw_str(&file.w, "q");
    pw_begin(&file.w, "_rebuild_qtensor");
    pw_op(&file.w, "tR");
    pw_str(&file.w, "s");
    pw_begin(&file.w, "_rebuild_sparse_tensor");
    pw_op(&file.w, "tR");
    t_plain(&file, "v", 0, PW_DIMS(2));
    t_plain(&file, "u", 0, PW_DIMS(2));
    t_file_end(&file, f->dir, "pytorch_model.bin");
}

static void what_cannot_be_served_is_refused_by_name(void **state)
{
    struct fixture *f = *state;

    add_odd(f);
    GF_FAILS(read_file(f, NULL, false), ENOTSUP,
             "2 tensors cannot be served, the first is 'q': quantized tensor");
}

static void what_cannot_be_served_is_left_out_when_that_is_allowed(void **state)
{
    struct fixture *f = *state;

    add_odd(f);
    GF_OK(read_file(f, NULL, true));
    assert_int_equal(gf_catalog_len(f->found.catalog), 3);
    assert_int_equal(f->found.complete, GF_COMPLETE_NO);
    assert_non_null(strstr(f->found.warnings.at[0], "left out 2 tensors"));
}

static void one_ranks_part_is_not_taken_for_the_whole(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    t_shard0(&file, "lora_A", 0, PW_DIMS(2, 2), PW_DIMS(4, 2), 2, 0);
    t_file_end(&file, f->dir, "pytorch_model_fsdp.bin");
    assert_int_equal(probe(f, NULL), GF_BIN_SURE_MODEL);
    GF_FAILS(read_file(f, NULL, false), GF_EINCOMPLETE,
             "tensor 'lora_A': one rank's part of it alone ([2, 2] of [4, 2]");
}

static void a_distributed_tensor_that_is_whole_is_served(void **state)
{
    struct fixture *f = *state;
    struct t_file file;

    t_file_begin(&file);
    t_shard0(&file, "w", 5, PW_DIMS(4, 2), PW_DIMS(4, 2), 1, 0);
    t_file_end(&file, f->dir, "pytorch_model_fsdp.bin");
    GF_OK(read_file(f, NULL, false));
    GF_OK(t_check(&f->found));
    T_ELEMENTS(&f->found, "w", 5, 6, 7);
}

static void shards_are_those_of_the_index(void **state)
{
    struct fixture *f = *state;

    add_simple(f, "pytorch_model-00001-of-00002.bin", "a", 0);
    add_simple(f, "pytorch_model-00002-of-00002.bin", "b", 2);
    add_text(
        f, "pytorch_model.bin.index.json",
        "{\"metadata\": {}, \"weight_map\": {\"b\": \"pytorch_model-00002-of-00002.bin\","
        " \"a\": \"pytorch_model-00001-of-00002.bin\"}}");
    assert_int_equal(probe(f, NULL), GF_BIN_SURE_MODEL);
    GF_OK(read_file(f, NULL, false));
    GF_OK(t_check(&f->found));
    assert_string_equal(gf_catalog_at(f->found.catalog, 0)->name, "a");
    T_ELEMENTS(&f->found, "b", 2, 3);
}

static void a_wrong_index_is_refused(void **state)
{
    static const struct {
        const char *map, *words;
        int code;
    } bad[] = {
        { "\"a\": \"m1.bin\", \"b\": \"gone.bin\"", "missing 'gone.bin'", GF_EINCOMPLETE },
        { "\"a\": \"m1.bin\", \"c\": \"m1.bin\"", "no tensor 'c'", GF_EINCOMPLETE },
        { "\"a\": \"m2.bin\", \"b\": \"m1.bin\"", "tensor 'a' is in 'm1.bin'", GF_EBAD },
        { "\"a\": \"../m1.bin\"", "'../m1.bin' is not inside", GF_EBAD },
        { "\"a\": 3", "is not inside", GF_EBAD },
        { "", "no 'weight_map'", GF_EBAD },
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[200];

        gf_dir_free(f->dir);
        f->dir = t_dir();
        add_simple(f, "m1.bin", "a", 0);
        add_simple(f, "m2.bin", "b", 2);
        snprintf(text, sizeof(text), "{\"weight_map\": {%s}}", bad[i].map);
        add_text(f, "pytorch_model.bin.index.json", text);
        GF_FAILS(read_file(f, NULL, false), bad[i].code, bad[i].words);
    }
}

static void adapters_never_mix_with_weights(void **state)
{
    struct fixture *f = *state;

    add_simple(f, "adapter_model.bin", "base_model.model.a.lora_A.weight", 0);
    assert_int_equal(probe(f, NULL), GF_BIN_SURE_ADAPTER);
    GF_OK(read_file(f, NULL, false));
    T_ELEMENTS(&f->found, "base_model.model.a.lora_A.weight", 0, 1);
    add_simple(f, "pytorch_model.bin", "a", 0);
    assert_int_equal(probe(f, NULL), GF_BIN_SURE_MODEL);
    GF_OK(read_file(f, NULL, false));
    assert_int_equal(gf_catalog_len(f->found.catalog), 1);
    assert_non_null(strstr(f->found.warnings.at[0], "'adapter_model.bin' is left out"));
}

static void what_trainers_leave_beside_weights_is_no_model(void **state)
{
    static const char *const names[] = {
        "optimizer.bin",   "optimizer.pt",        "scheduler.bin",
        "scaler.pt",       "training_args.bin",   "rng_state.pth",
        "rng_state_3.pth", "random_states_0.pkl", "optim_world_size_2_rank_0.pt"
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        add_simple(f, names[i], "w", 0);
        assert_int_equal(probe(f, names[i]), 0);
    }
    assert_int_equal(probe(f, NULL), 0);
    add_text(f, "notes.txt", "a text that is long enough");
    add_text(f, "cut.pt", "PK");
    assert_int_equal(probe(f, "notes.txt"), 0);
    assert_int_equal(probe(f, "cut.pt"), GF_BIN_SURE_NAME);
    GF_FAILS(read_file(f, "cut.pt", false), GF_EBAD, "'cut.pt'");
}

static void a_template_keeps_the_order_of_torch_files(void **state)
{
    struct fixture *f = *state;
    struct gf_catalog *template = NULL;
    struct t_file file;

    assert_int_equal(gf_template_read(f->dir, &gf_limits_default, &template, &t_err),
                     -ENOENT);
    t_file_begin(&file);
    t_plain(&file, "z", 0, PW_DIMS(2));
    t_plain(&file, "a", 0, PW_DIMS(2));
    t_file_end(&file, f->dir, "pytorch_model.bin");
    GF_OK(gf_template_read(f->dir, &gf_limits_default, &template, &t_err));
    assert_string_equal(gf_catalog_at(template, 0)->name, "z");
    assert_true(gf_template_is_ordered(template));
    gf_catalog_free(template);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_state_dict_is_served_in_its_order),
        TEST(strides_and_stretched_views_are_honoured),
        TEST(equal_views_are_aliases_and_others_are_not),
        TEST(the_models_mapping_is_found_among_others),
        TEST(without_a_known_name_the_larger_mapping_is_taken),
        TEST(a_file_without_a_model_says_what_it_has),
        TEST(cyclic_and_shared_values_end),
        TEST(what_cannot_be_served_is_refused_by_name),
        TEST(what_cannot_be_served_is_left_out_when_that_is_allowed),
        TEST(one_ranks_part_is_not_taken_for_the_whole),
        TEST(a_distributed_tensor_that_is_whole_is_served),
        TEST(shards_are_those_of_the_index),
        TEST(a_wrong_index_is_refused),
        TEST(adapters_never_mix_with_weights),
        TEST(what_trainers_leave_beside_weights_is_no_model),
        TEST(a_template_keeps_the_order_of_torch_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
