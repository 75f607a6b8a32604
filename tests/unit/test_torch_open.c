/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "pickle_writer.h"
#include "zip_writer.h"

#include "base/math.h"
#include "format/torch_open.h"

/* A source that counts its reads and can fail one of them. */
struct counted {
    struct gf_source base;
    const uint8_t *bytes;
    size_t reads, read, fail_at;
};

static int counted_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    struct counted *c = (struct counted *)src;

    if (++c->reads == c->fail_at)
        return -EIO;
    c->read += len;
    memcpy(buf, c->bytes + off, len);
    return 0;
}

static const struct gf_source_ops counted_ops = { .kind = "counted",
                                                  .read_at = counted_read };

struct fixture {
    struct zw zip;
    struct pw w;
    struct counted src;
    struct gf_torch *torch;
    struct gf_limits limits;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->limits = gf_limits_default;
    f->src.base.ops = &counted_ops;
    f->src.base.name = (char *)(uintptr_t) "x.pt";
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    gf_torch_free(f->torch);
    zw_done(&f->zip);
    free(f);
    return 0;
}

static int open_bytes(struct fixture *f, const void *bytes, size_t n)
{
    gf_torch_free(f->torch);
    f->torch = NULL;
    f->src.bytes = bytes;
    f->src.base.size = n;
    f->src.reads = f->src.read = 0;
    return gf_torch_open(&f->src.base, &f->limits, &f->torch, &t_err);
}

/* {'w': tensor of 4 floats at offset 1 of storage 0, which has 8} */
static void write_pickle(struct fixture *f)
{
    f->w.n = 0;
    pw_op(&f->w, "}");
    pw_str(&f->w, "w");
    pw_tensor(&f->w, "FloatStorage", "0", 8, 1, PW_DIMS(4), PW_DIMS(1));
    pw_op(&f->w, "s.");
}

static const float values[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };

static void begin_zip(struct fixture *f)
{
    zw_done(&f->zip);
    write_pickle(f);
    zw_add(&f->zip, "archive/data.pkl", f->w.p, f->w.n, 64);
}

static int end_zip(struct fixture *f)
{
    zw_end(&f->zip);
    return open_bytes(f, f->zip.p, f->zip.n);
}

static int locate(struct fixture *f, struct gf_torch_view *view, uint64_t *ret)
{
    const struct gf_pv *w = gf_pv_get(gf_torch_root(f->torch), "w");
    enum gf_torch_is is;
    const char *why;

    GF_OK(gf_torch_tensor(gf_torch_pickle(f->torch), w, "x.pt", "w", &is, view, &why,
                          &t_err));
    assert_int_equal(is, GF_TORCH_TENSOR);
    return gf_torch_locate(f->torch, view, ret, &t_err);
}

static void check_located(struct fixture *f)
{
    struct gf_torch_view view;
    uint64_t at = 0;

    GF_OK(locate(f, &view, &at));
    assert_int_equal(view.numel, 4);
    assert_memory_equal(f->src.bytes + at, values + 1, 16);
}

static void a_tensor_is_found_in_a_zip(void **state)
{
    struct fixture *f = *state;

    begin_zip(f);
    zw_add(&f->zip, "archive/byteorder", "little", 6, 64);
    zw_add(&f->zip, "archive/data/0", values, sizeof(values), 64);
    GF_OK(end_zip(f));
    check_located(f);
    /* head and tail: nothing else of a small file is fetched */
    assert_int_equal(f->src.reads, 2);
}

static void a_big_zip_takes_few_small_reads(void **state)
{
    struct fixture *f = *state;
    GF_AUTO_MEM uint8_t *big = calloc(1, 1 << 20);
    struct gf_torch_view view;
    uint64_t at;

    begin_zip(f);
    zw_add(&f->zip, "archive/data/0", values, sizeof(values), 64);
    zw_add(&f->zip, "archive/data/1", big, 1 << 20, 4096);
    GF_OK(end_zip(f));
    assert_int_equal(f->src.reads, 4); /* head, tail, local header and body of data.pkl */
    GF_OK(locate(f, &view, &at));
    GF_OK(locate(f, &view, &at));
    assert_int_equal(f->src.reads, 5); /* one local header, once */
    assert_true(f->src.read < 70000);
    check_located(f);
}

static void a_long_directory_is_fetched_by_itself(void **state)
{
    struct fixture *f = *state;
    size_t n;

    begin_zip(f);
    zw_add(&f->zip, "archive/data/0", values, sizeof(values), 64);
    zw_end(&f->zip);
    /* pad between the directory and its end records */
    n = f->zip.end64;
    f->zip.n = n;
    for (size_t i = 0; i < 100000; i++)
        zw_bytes(&f->zip, "", 1);
    {
        size_t dir_size = n - f->zip.dir, end64 = f->zip.n;

        zw_bytes(&f->zip, "PK\6\6", 4);
        zw_le(&f->zip, 44, 8);
        zw_le(&f->zip, 0, 12);
        zw_le(&f->zip, 2, 8);
        zw_le(&f->zip, 2, 8);
        zw_le(&f->zip, dir_size, 8);
        zw_le(&f->zip, f->zip.dir, 8);
        zw_bytes(&f->zip, "PK\6\7", 4);
        zw_le(&f->zip, 0, 4);
        zw_le(&f->zip, end64, 8);
        zw_le(&f->zip, 1, 4);
        zw_bytes(&f->zip, "PK\5\6", 4);
        zw_le(&f->zip, 0, 18);
    }
    GF_OK(open_bytes(f, f->zip.p, f->zip.n));
    check_located(f);
}

static void a_view_without_elements_needs_no_record(void **state)
{
    struct fixture *f = *state;
    struct gf_torch_view view = { .numel = 0, .storage.key = "9" };
    uint64_t at = 5;

    begin_zip(f);
    GF_OK(end_zip(f));
    GF_OK(gf_torch_locate(f->torch, &view, &at, &t_err));
    assert_int_equal(at, 0);
}

static void records_that_are_missing_or_short_are_named(void **state)
{
    struct fixture *f = *state;
    struct gf_torch_view view;
    uint64_t at;

    begin_zip(f);
    GF_OK(end_zip(f));
    GF_FAILS(locate(f, &view, &at), GF_EBAD,
             "no record 'archive/data/0' for a storage of 32");
    begin_zip(f);
    zw_add(&f->zip, "archive/data/0", values, 31, 64);
    GF_OK(end_zip(f));
    GF_FAILS(locate(f, &view, &at), GF_EBAD,
             "'x.pt': record 'archive/data/0' of 31 bytes, its storage has 32");
}

static void a_deflated_record_is_refused_when_it_is_needed(void **state)
{
    struct fixture *f = *state;
    struct gf_torch_view view;
    uint64_t at;

    begin_zip(f);
    zw_add(&f->zip, "archive/data/0", values, sizeof(values), 64)->method = 8;
    GF_OK(end_zip(f));
    GF_FAILS(locate(f, &view, &at), ENOTSUP, "record 'archive/data/0' is compressed");
    begin_zip(f);
    f->zip.at[0].method = 8;
    GF_FAILS(end_zip(f), ENOTSUP, "record 'archive/data.pkl' is compressed");
}

static void archives_of_other_kinds_are_named(void **state)
{
    struct fixture *f = *state;

    begin_zip(f);
    zw_add(&f->zip, "archive/constants.pkl", "N.", 2, 64);
    GF_FAILS(end_zip(f), ENOTSUP, "a TorchScript archive");
    zw_done(&f->zip);
    zw_add(&f->zip, "word/document.xml", "<w>", 3, 1);
    GF_FAILS(end_zip(f), GF_EBAD, "without record 'word/data.pkl'");
    begin_zip(f);
    zw_add(&f->zip, "archive/byteorder", "big", 3, 64);
    GF_FAILS(end_zip(f), ENOTSUP, "byte order 'big'");
}

static void the_limit_of_the_pickle_holds(void **state)
{
    struct fixture *f = *state;

    f->limits.pickle_bytes = 10;
    begin_zip(f);
    GF_FAILS(end_zip(f), GF_EBAD, "record 'archive/data.pkl' of");
}

static void files_of_other_kinds_are_named(void **state)
{
    struct fixture *f = *state;
    uint8_t tar[512] = { 0 };

    memcpy(tar + 257, "ustar", 5);
    GF_FAILS(open_bytes(f, "", 0), GF_EBAD, "'x.pt': empty file");
    GF_FAILS(open_bytes(f, tar, sizeof(tar)), ENOTSUP, "a tar archive");
    GF_FAILS(open_bytes(f, "{\"a\": 1}", 8), GF_EBAD,
             "no torch file: starts with 7b 22 61 22");
    GF_FAILS(open_bytes(f, "P", 1), GF_EBAD, "no torch file");
    GF_FAILS(open_bytes(f, "PK\3\4", 4), GF_EBAD, "cut short");
}

static void every_cut_of_a_zip_is_noticed(void **state)
{
    struct fixture *f = *state;
    size_t n;

    begin_zip(f);
    zw_add(&f->zip, "archive/data/0", values, sizeof(values), 64);
    zw_end(&f->zip);
    for (n = 4; n < f->zip.n; n++)
        GF_FAILS(open_bytes(f, f->zip.p, n), GF_EBAD, "cut short");
}

/* --- legacy streams --- */

static void write_legacy(struct fixture *f, int64_t count)
{
    write_pickle(f);
    struct pw object = f->w;

    f->w.n = 0;
    pw_bytes(&f->w, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    pw_bytes(&f->w, "\x80\x02M\xe9\x03.\x80\x02}U\x0dlittle_endian\x88s.", 27);
    pw_bytes(&f->w, object.p, object.n);
    pw_op(&f->w, "]U\x01");
    pw_op(&f->w, "0a.");
    for (int i = 0; i < 8; i++)
        f->w.p[f->w.n++] = (uint8_t)((uint64_t)count >> (8 * i));
    pw_bytes(&f->w, values, sizeof(values));
}

static void a_tensor_is_found_in_a_legacy_stream(void **state)
{
    struct fixture *f = *state;

    write_legacy(f, 8);
    GF_OK(open_bytes(f, f->w.p, f->w.n));
    check_located(f);
    assert_int_equal(f->src.reads, 3); /* head, pickles, one storage's count */
}

static void every_cut_of_a_legacy_stream_is_noticed(void **state)
{
    struct fixture *f = *state;

    write_legacy(f, 8);
    for (size_t n = 15; n < f->w.n; n++)
        GF_FAILS(open_bytes(f, f->w.p, n), GF_EBAD, "cut short");
}

static void legacy_storages_that_do_not_fit_are_named(void **state)
{
    struct fixture *f = *state;
    struct gf_torch_view view = { .numel = 1, .storage = { .key = "nope", .nbytes = 4 } };
    uint64_t at;

    write_legacy(f, 7);
    GF_FAILS(open_bytes(f, f->w.p, f->w.n), GF_EBAD, "has 7 elements, its id says 8");
    write_legacy(f, 8);
    GF_OK(open_bytes(f, f->w.p, f->w.n));
    GF_FAILS(gf_torch_locate(f->torch, &view, &at, &t_err), GF_EBAD,
             "'nope' of 4 bytes is not");
    view.storage.key = "0";
    view.storage.nbytes = 33;
    GF_FAILS(gf_torch_locate(f->torch, &view, &at, &t_err), GF_EBAD,
             "of 32 bytes, 33 wanted");
}

static void long_preludes_are_fetched_in_growing_parts(void **state)
{
    enum { N = 3 << 20 };
    struct fixture *f = *state;
    GF_AUTO_MEM uint8_t *bytes = malloc(N + 200);
    struct pw w = { .n = 0 };

    pw_bytes(&w, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
    pw_bytes(&w, "M\xe9\x03.}.B\0\0\x30\0", 11);
    memcpy(bytes, w.p, w.n);
    memset(bytes + w.n, 'x', N);
    memcpy(bytes + w.n + N, ".].", 3);
    GF_OK(open_bytes(f, bytes, w.n + N + 3));
    assert_int_equal(f->src.reads, 4); /* head, 1 MiB, 2 MiB, the rest */
    f->limits.pickle_bytes = 2 << 20;
    GF_FAILS(open_bytes(f, bytes, w.n + N + 3), GF_EBAD,
             "pickles of more than 2097152 bytes");
}

/* Whichever read fails, opening or locating fails with its text, and nothing leaks. */
static void every_failing_read_is_reported(void **state)
{
    struct fixture *f = *state;
    GF_AUTO_MEM uint8_t *big = calloc(1, 1 << 20);

    begin_zip(f);
    zw_add(&f->zip, "archive/data/0", values, sizeof(values), 64);
    zw_add(&f->zip, "archive/data/1", big, 1 << 20, 64);
    zw_end(&f->zip);
    write_legacy(f, 8);
    for (f->src.fail_at = 1; f->src.fail_at < 6; f->src.fail_at++) {
        struct gf_torch_view view;
        uint64_t at;
        int r = open_bytes(f, f->zip.p, f->zip.n);

        if (!r)
            r = locate(f, &view, &at);
        assert_int_equal(r, -EIO);
        assert_non_null(strstr(t_err.text, "'x.pt'"));
        if (f->src.fail_at < 4)
            GF_FAILS(open_bytes(f, f->w.p, f->w.n), EIO, "'x.pt'");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(a_tensor_is_found_in_a_zip),
        T(a_big_zip_takes_few_small_reads),
        T(a_long_directory_is_fetched_by_itself),
        T(a_view_without_elements_needs_no_record),
        T(records_that_are_missing_or_short_are_named),
        T(a_deflated_record_is_refused_when_it_is_needed),
        T(archives_of_other_kinds_are_named),
        T(the_limit_of_the_pickle_holds),
        T(files_of_other_kinds_are_named),
        T(every_cut_of_a_zip_is_noticed),
        T(a_tensor_is_found_in_a_legacy_stream),
        T(every_cut_of_a_legacy_stream_is_noticed),
        T(legacy_storages_that_do_not_fit_are_named),
        T(long_preludes_are_fetched_in_growing_parts),
        T(every_failing_read_is_reported),
#undef T
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
