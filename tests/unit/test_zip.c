/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "zip_writer.h"

#include "base/limits.h"
#include "base/math.h"
#include "container/zip.h"

static struct gf_limits limits;

static int setup(void **state)
{
    struct zw *z = calloc(1, sizeof(*z));

    limits = gf_limits_default;
    zw_add(z, "model/data.pkl", "pickle", 6, 64);
    zw_add(z, "model/data/0", "0123456789", 10, 64);
    zw_add(z, "model/data/1", "", 0, 1);
    *state = z;
    return 0;
}

static int teardown(void **state)
{
    zw_done(*state);
    free(*state);
    return 0;
}

/* End records and directory of the archive, as a reader would do it. */
static int parse(const struct zw *z, struct gf_zip **ret)
{
    struct gf_zip_end end;
    size_t len = GF_MIN(z->n, (size_t)GF_ZIP_TAIL_MAX);
    int r = gf_zip_find_end("x.pt", z->p + z->n - len, len, z->n, &limits, &end, &t_err);

    return r ? r : gf_zip_parse("x.pt", z->p + end.dir_off, &end, &limits, ret, &t_err);
}

static void check_three_members(const struct zw *z)
{
    GF_AUTO(gf_zip) zip = NULL;
    const struct gf_zip_member *m;
    uint64_t at;

    GF_OK(parse(z, &zip));
    assert_int_equal(zip->n, 3);
    assert_string_equal(zip->prefix, "model/");
    m = gf_zip_find(zip, "data/0");
    assert_non_null(m);
    assert_int_equal(m->usize, 10);
    GF_OK(gf_zip_data("x.pt", zip, m, z->p + m->header, &at, &t_err));
    assert_int_equal(at % 64, 0);
    assert_memory_equal(z->p + at, "0123456789", 10);
    m = gf_zip_find(zip, "data/1");
    assert_int_equal(m->usize, 0);
    GF_OK(gf_zip_data("x.pt", zip, m, z->p + m->header, &at, &t_err));
    assert_null(gf_zip_find(zip, "data/2"));
    assert_null(gf_zip_find(zip, "data"));
    assert_null(gf_zip_find(zip, "model/data/0"));
}

static void an_archive_of_torch_is_read(void **state)
{
    zw_end(*state);
    check_three_members(*state);
}

static void an_archive_without_zip64_is_read(void **state)
{
    struct zw *z = *state;

    z->plain = true;
    zw_end(z);
    check_three_members(z);
}

static void a_comment_may_stand_behind_the_end_record(void **state)
{
    struct zw *z = *state;

    z->comment = "hello PK\5\6 world";
    zw_end(z);
    check_three_members(z);
}

static void sizes_come_from_the_zip64_extra(void **state)
{
    struct zw *z = *state;

    z->at[1].zip64 = true;
    zw_end(z);
    check_three_members(z);
}

static void a_missing_zip64_extra_is_refused(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    z->at[1].csize = z->at[1].usize = 0xffffffff;
    zw_end(z);
    GF_FAILS(parse(z, &zip), GF_EBAD, "zip64 sizes are missing");
}

static void a_directory_in_front_is_no_prefix_of_names_without_one(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    snprintf(z->at[0].name, sizeof(z->at[0].name), "plain");
    zw_end(z);
    GF_OK(parse(z, &zip));
    assert_string_equal(zip->prefix, "");
    assert_non_null(gf_zip_find(zip, "model/data/0"));
}

/* Any proper prefix of an archive is a file that was cut short. */
static void every_cut_is_noticed(void **state)
{
    struct zw *z = *state;
    size_t n;

    zw_end(z);
    n = z->n;
    for (z->n = 0; z->n < n; z->n++) {
        struct gf_zip *zip = NULL;

        GF_FAILS(parse(z, &zip), GF_EBAD, "cut short");
    }
}

static void bytes_lost_in_the_middle_are_noticed(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    zw_end(z);
    memmove(z->p + 40, z->p + 90, z->n - 90);
    z->n -= 50;
    GF_FAILS(parse(z, &zip), GF_EBAD, "cut short");
}

static void overlapping_members_are_refused(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    z->at[1].header = z->at[0].header + 40;
    zw_end(z);
    GF_FAILS(parse(z, &zip), GF_EBAD, "overlaps the next record");
}

static void a_member_that_reaches_into_the_directory_is_refused(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    z->at[2].csize = z->at[2].usize = 1000;
    zw_end(z);
    GF_FAILS(parse(z, &zip), GF_EBAD, "overlaps the zip directory");
}

static void sizes_that_overflow_are_refused(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    z->at[1].csize = z->at[1].usize = UINT64_MAX - 20;
    z->at[1].zip64 = true;
    zw_end(z);
    GF_FAILS(parse(z, &zip), GF_EBAD, "overlaps");
}

static void two_members_of_a_name_are_refused(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    snprintf(z->at[2].name, sizeof(z->at[2].name), "model/data/0");
    zw_end(z);
    GF_FAILS(parse(z, &zip), GF_EBAD, "two records are called 'model/data/0'");
}

static void what_torch_never_writes_is_refused_by_name(void **state)
{
    static const struct {
        uint16_t method, flags, disk;
        uint64_t usize;
        const char *words;
    } cases[] = {
        { 0, 1, 0, 10, "record 'model/data/0' is encrypted" },
        { 12, 0, 0, 10, "compression method 12" },
        { 0, 0, 1, 10, "several disks" },
        { 0, 0, 0, 11, "stored, but 10 bytes for 11" },
    };
    struct zw *z = *state;
    size_t n = z->n;

    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        GF_AUTO(gf_zip) zip = NULL;

        z->n = n;
        z->at[1].method = cases[i].method;
        z->at[1].flags = cases[i].flags;
        z->at[1].disk = cases[i].disk;
        z->at[1].usize = cases[i].usize;
        zw_end(z);
        GF_FAILS(parse(z, &zip), GF_EBAD, cases[i].words);
    }
}

static void deflated_members_are_listed(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    z->at[1].method = 8;
    z->at[1].usize = 99;
    zw_end(z);
    GF_OK(parse(z, &zip));
    assert_int_equal(gf_zip_find(zip, "data/0")->method, 8);
}

static void counts_that_lie_are_refused(void **state)
{
    static const struct {
        uint64_t lie;
        const char *words;
    } cases[] = {
        { (uint64_t)-1, "behind its 2 members" },
        { 1, "cannot hold 4 members" },
        { 1000000, "cannot hold" },
        { (uint64_t)1 << 40, "at most" },
    };
    struct zw *z = *state;
    size_t n = z->n;

    for (size_t i = 0; i < GF_COUNT(cases); i++) {
        GF_AUTO(gf_zip) zip = NULL;

        z->n = n;
        z->count_lie = cases[i].lie;
        zw_end(z);
        GF_FAILS(parse(z, &zip), GF_EBAD, cases[i].words);
    }
}

static void a_directory_of_something_else_is_refused(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    zw_end(z);
    z->p[z->dir + 3] ^= 1;
    GF_FAILS(parse(z, &zip), GF_EBAD, "no entry where one is due");
    z->p[z->dir + 3] ^= 1;
    z->p[z->dir + 33] = 1; /* 256 bytes of comment */
    GF_FAILS(parse(z, &zip), GF_EBAD, "past the zip directory");
}

static void several_disks_are_refused(void **state)
{
    struct zw *z = *state;
    size_t n = z->n;

    for (int plain = 0; plain < 2; plain++) {
        GF_AUTO(gf_zip) zip = NULL;

        z->n = n;
        z->plain = plain;
        z->disk = 1;
        zw_end(z);
        GF_FAILS(parse(z, &zip), GF_EBAD, "several disks");
    }
}

static void a_payload_that_its_local_header_pushes_too_far_is_refused(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;
    const struct gf_zip_member *m;
    uint64_t at;

    zw_end(z);
    GF_OK(parse(z, &zip));
    m = gf_zip_find(zip, "data/0");
    z->p[m->header + 29] = 1; /* 256 more bytes of extra field */
    GF_FAILS(gf_zip_data("x.pt", zip, m, z->p + m->header, &at, &t_err), GF_EBAD,
             "reach past the next record");
    z->p[m->header + 29] = 0;
    GF_OK(gf_zip_data("x.pt", zip, m, z->p + m->header, &at, &t_err));
    z->p[m->header + 26]++;
    GF_FAILS(gf_zip_data("x.pt", zip, m, z->p + m->header, &at, &t_err), GF_EBAD,
             "no local header");
}

static void the_limits_of_members_and_directory_hold(void **state)
{
    struct zw *z = *state;
    GF_AUTO(gf_zip) zip = NULL;

    zw_end(z);
    limits.zip_members = 2;
    GF_FAILS(parse(z, &zip), GF_EBAD, "3 members");
    limits.zip_members = 3;
    limits.zip_directory = 100;
    GF_FAILS(parse(z, &zip), GF_EBAD, "at most 3 and 100");
}

/* A directory of very many members, out of order, and all names found again. */
static void a_hundred_thousand_members_take_no_time(void **state)
{
    enum { N = 100000 };
    struct zw dir = { 0 };
    GF_AUTO(gf_zip) zip = NULL;
    struct gf_zip_end end = { .count = N };
    char name[32];

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        uint64_t k = i * 7919 % N;

        snprintf(name, sizeof(name), "a/data/%06u", (unsigned)k);
        zw_bytes(&dir, "PK\1\2", 4);
        zw_le(&dir, 0, 8);
        zw_le(&dir, 0, 8);
        zw_le(&dir, 4, 4);
        zw_le(&dir, 4, 4);
        zw_le(&dir, 13, 2);
        zw_le(&dir, 0, 12);
        zw_le(&dir, k * 64, 4);
        zw_bytes(&dir, name, 13);
    }
    end.dir_off = N * 64;
    end.dir_size = dir.n;
    GF_OK(gf_zip_parse("x.pt", dir.p, &end, &limits, &zip, &t_err));
    for (unsigned i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "data/%06u", i);
        assert_int_equal(gf_zip_find(zip, name)->header, (uint64_t)i * 64);
    }
    zw_done(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(an_archive_of_torch_is_read),
        T(an_archive_without_zip64_is_read),
        T(a_comment_may_stand_behind_the_end_record),
        T(sizes_come_from_the_zip64_extra),
        T(a_missing_zip64_extra_is_refused),
        T(a_directory_in_front_is_no_prefix_of_names_without_one),
        T(every_cut_is_noticed),
        T(bytes_lost_in_the_middle_are_noticed),
        T(overlapping_members_are_refused),
        T(a_member_that_reaches_into_the_directory_is_refused),
        T(sizes_that_overflow_are_refused),
        T(two_members_of_a_name_are_refused),
        T(what_torch_never_writes_is_refused_by_name),
        T(deflated_members_are_listed),
        T(counts_that_lie_are_refused),
        T(a_directory_of_something_else_is_refused),
        T(several_disks_are_refused),
        T(a_payload_that_its_local_header_pushes_too_far_is_refused),
        T(the_limits_of_members_and_directory_hold),
        T(a_hundred_thousand_members_take_no_time),
#undef T
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
