/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>
#include <unistd.h>

#include "snapshot/options.h"

static int setup(void **state)
{
    static struct gf_options opt;

    gf_options_init(&opt);
    *state = &opt;
    return 0;
}

static int teardown(void **state)
{
    gf_options_done(*state);
    return 0;
}

static void every_option_of_the_table_can_be_set(void **state)
{
    static const struct {
        const char *key, *value;
    } special[] = {
        { "dtype", "bf16" },     { "format", "bin" }, { "max_shard_size", "5GB" },
        { "readahead", "4MiB" }, { "cache", "1MB" },  { "uid", "0" },
        { "gid", "10" },         { "mode", "444" },   { "threads", "3" },
        { "timeout", "5" },      { "names", "hub" }
    };

    for (const struct gf_option_info *info = gf_option_table; info->key; info++) {
        const char *value = info->arg ? "x" : NULL;

        for (size_t i = 0; i < sizeof(special) / sizeof(special[0]); i++)
            if (strcmp(special[i].key, info->key) == 0)
                value = special[i].value;
        GF_OK(gf_options_set(*state, info->key, value, &t_err));
    }
}

static void dashes_and_underscores_are_one_key(void **state)
{
    struct gf_options *opt = *state;

    GF_OK(gf_options_set(opt, "max-shard-size", "5MB", &t_err));
    assert_int_equal(opt->max_shard_size, 5000000);
    GF_OK(gf_options_set(opt, "allow-incomplete", NULL, &t_err));
    assert_true(opt->allow_incomplete);
}

static void dtypes_have_aliases(void **state)
{
    struct gf_options *opt = *state;

    GF_OK(gf_options_set(opt, "dtype", "fp16", &t_err));
    assert_int_equal(opt->policy, GF_DTYPE_FIXED);
    assert_int_equal(opt->dtype, GF_F16);
    GF_OK(gf_options_set(opt, "dtype", "stored", &t_err));
    assert_int_equal(opt->policy, GF_DTYPE_STORED);
    GF_FAILS(gf_options_set(opt, "dtype", "int8", &t_err), EINVAL,
             "'int8' is not auto, stored");
}

static void wrong_use_names_the_option(void **state)
{
    GF_FAILS(gf_options_set(*state, "colour", "red", &t_err), EINVAL,
             "unknown option 'colour'");
    GF_FAILS(gf_options_set(*state, "tag", NULL, &t_err), EINVAL, "'tag' needs a value");
    GF_FAILS(gf_options_set(*state, "direct_io", "1", &t_err), EINVAL, "takes no value");
    GF_FAILS(gf_options_set(*state, "uid", "-1", &t_err), EINVAL, "'uid'");
    GF_FAILS(gf_options_set(*state, "mode", "888", &t_err), EINVAL, "octal");
    GF_FAILS(gf_options_set(*state, "mode", "7777", &t_err), EINVAL, "octal");
    GF_FAILS(gf_options_set(*state, "max_shard_size", "many", &t_err), EINVAL, "size");
    GF_FAILS(gf_options_set(*state, "max_shard_size", "0", &t_err), EINVAL, "size");
}

static void a_list_takes_what_fstab_gives(void **state)
{
    struct gf_options *opt = *state;
    char *fuse = NULL;

    GF_OK(gf_options_set_list(opt,
                              "rw,nofail,x-systemd.automount,_netdev,dev,suid,tag=step\\,1,"
                              "allow_other,fsname=a,debug",
                              &fuse, &t_err));
    assert_string_equal(opt->tag, "step,1");
    assert_true(opt->allow_other);
    assert_string_equal(fuse, "fsname=a,debug");
    free(fuse);
    GF_FAILS(gf_options_set_list(opt, "ro,colour=red", NULL, &t_err), EINVAL, "'colour'");
}

static void sizes_are_decimal_unless_they_say_i(void **state)
{
    static const struct {
        const char *text;
        uint64_t want;
    } good[] = { { "1", 1 },           { "5GB", 5000000000 }, { "5gb", 5000000000 },
                 { "1.5MB", 1500000 }, { "2MiB", 2 << 20 },   { "200K", 200000 } };
    static const char *const bad[] = {
        "", "GB", "-1", "1e400", "5XB", "0.1", "99999999TB"
    };
    uint64_t n;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(gf_parse_size(good[i].text, &n), 0);
        assert_int_equal(n, good[i].want);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(gf_parse_size(bad[i], &n), -EINVAL);
}

static void paths_hold_when_the_working_directory_changes(void **state)
{
    struct gf_options *opt = *state;
    char *here = getcwd(NULL, 0);

    GF_OK(gf_options_set(opt, "config_from", "model/base", &t_err));
    assert_memory_equal(opt->config_from, here, strlen(here));
    assert_string_equal(opt->config_from + strlen(here), "/model/base");
    GF_OK(gf_options_set(opt, "config_from", "/model", &t_err));
    assert_string_equal(opt->config_from, "/model");
    GF_OK(gf_options_set(opt, "generation_config", " {}", &t_err));
    assert_string_equal(opt->generation_config, " {}");
    free(here);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(every_option_of_the_table_can_be_set),
        T(dashes_and_underscores_are_one_key),
        T(dtypes_have_aliases),
        T(wrong_use_names_the_option),
        T(a_list_takes_what_fstab_gives),
        T(sizes_are_decimal_unless_they_say_i),
        T(paths_hold_when_the_working_directory_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
