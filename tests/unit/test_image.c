/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "image/image.h"

static int setup(void **state)
{
    struct gf_image *image = NULL;

    GF_OK(gf_image_new("model.safetensors", &image, &t_err));
    *state = image;
    return 0;
}

static int teardown(void **state)
{
    gf_image_free(*state);
    return 0;
}

static void lookup_is_exact_at_segment_edges(void **state)
{
    struct gf_image *image = *state;
    static const struct {
        uint64_t off;
        enum gf_segment_kind kind;
    } want[] = { { 0, GF_SEGMENT_BYTES },     { 9, GF_SEGMENT_BYTES },
                 { 10, GF_SEGMENT_TENSOR },   { 4105, GF_SEGMENT_TENSOR },
                 { 4106, GF_SEGMENT_SOURCE }, { 4112, GF_SEGMENT_SOURCE } };

    GF_OK(gf_image_add_bytes(image, "0123456789", 10, &t_err));
    GF_OK(gf_image_add_tensor(image, 0, 0, &t_err)); /* no bytes, no segment */
    GF_OK(gf_image_add_tensor(image, 1, 4096, &t_err));
    GF_OK(gf_image_add_bytes(image, "", 0, &t_err));
    GF_OK(gf_image_add_source(image, 3, 100, 7, &t_err));
    GF_OK(gf_image_add_source(image, 4, 100, 0, &t_err));
    GF_OK(gf_image_seal(image, &t_err));
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        assert_int_equal(gf_image_find(image, want[i].off)->kind, want[i].kind);
    assert_int_equal(gf_image_size(image), 4113);
    assert_null(gf_image_find(image, 4113));
    assert_null(gf_image_find(image, UINT64_MAX));
}

static void every_byte_of_many_segments_is_found(void **state)
{
    struct gf_image *image = *state;
    const struct gf_segment *segments;
    uint64_t off = 0;
    size_t n;

    for (uint32_t i = 0; i < 1000; i++)
        GF_OK(gf_image_add_tensor(image, i, i % 7, &t_err));
    GF_OK(gf_image_seal(image, &t_err));
    segments = gf_image_segments(image, &n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(segments[i].off, off);
        assert_true(segments[i].len > 0);
        for (; off < segments[i].off + segments[i].len; off++)
            assert_ptr_equal(gf_image_find(image, off), &segments[i]);
    }
    assert_int_equal(off, gf_image_size(image));
}

static void segments_keep_what_they_were_given(void **state)
{
    struct gf_image *image = *state;
    char bytes[] = "abc";
    size_t n;

    GF_OK(gf_image_add_bytes(image, bytes, 3, &t_err));
    bytes[0] = 'x'; /* a copy was taken */
    GF_OK(gf_image_add_tensor(image, 7, 5, &t_err));
    GF_OK(gf_image_add_source(image, 2, 40, 6, &t_err));
    GF_OK(gf_image_seal(image, &t_err));

    const struct gf_segment *s = gf_image_segments(image, &n);

    assert_int_equal(n, 3);
    assert_memory_equal(s[0].u.bytes, "abc", 3);
    assert_int_equal(s[1].u.tensor, 7);
    assert_int_equal(s[2].u.source.index, 2);
    assert_int_equal(s[2].u.source.offset, 40);
    assert_string_equal(gf_image_name(image), "model.safetensors");
}

static void an_empty_file_is_a_file(void **state)
{
    size_t n = 1;

    GF_OK(gf_image_seal(*state, &t_err));
    assert_int_equal(gf_image_size(*state), 0);
    assert_null(gf_image_find(*state, 0));
    gf_image_segments(*state, &n);
    assert_int_equal(n, 0);
}

static void a_file_never_passes_the_largest_offset(void **state)
{
    struct gf_image *image = *state;

    GF_OK(gf_image_add_tensor(image, 0, INT64_MAX - 1, &t_err));
    GF_FAILS(gf_image_add_tensor(image, 1, 2, &t_err), EOVERFLOW, "'model.safetensors'");
    GF_FAILS(gf_image_add_tensor(image, 1, UINT64_MAX, &t_err), EOVERFLOW, "largest");
    GF_FAILS(gf_image_add_bytes(image, "ab", 2, &t_err), EOVERFLOW, "largest");
    GF_FAILS(gf_image_add_source(image, 0, INT64_MAX, 1, &t_err), EOVERFLOW, "of a source");
    GF_OK(gf_image_add_tensor(image, 1, 1, &t_err));
    assert_int_equal(gf_image_size(image), INT64_MAX);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lookup_is_exact_at_segment_edges),
        TEST(every_byte_of_many_segments_is_found),
        TEST(segments_keep_what_they_were_given),
        TEST(an_empty_file_is_a_file),
        TEST(a_file_never_passes_the_largest_offset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
