/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torchbin_out: what our own zip and pickle readers find in the file. That torch finds the
 * same is tests/formats' business.
 */
#include "t.h"

#include <stdlib.h>

#include "container/torch_file.h"
#include "container/zip.h"
#include "image/weights.h"

static uint8_t *whole(const struct gf_image *image)
{
    const struct gf_segment *segs;
    uint8_t *bytes = calloc(1, gf_image_size(image));
    size_t n;

    segs = gf_image_segments(image, &n);
    for (size_t i = 0; i < n; i++)
        if (segs[i].kind == GF_SEGMENT_BYTES)
            memcpy(bytes + segs[i].off, segs[i].u.bytes, segs[i].len);
    return bytes;
}

static void the_file_reads_back(void **state)
{
    static const uint64_t dims[2] = { 3, 5 }, none[1] = { 0 };
    struct gf_output outputs[] = {
        { .name = "w", .dtype = GF_BF16, .shape = { 2, dims }, .nbytes = 30 },
        { .name = "f8", .dtype = GF_F8_E4M3, .shape = { 2, dims }, .nbytes = 15 },
        { .name = "scalar", .dtype = GF_F32, .shape = { 0, dims }, .nbytes = 4 },
        { .name = "empty", .dtype = GF_I64, .shape = { 1, none }, .nbytes = 0 },
    };
    static const uint32_t order[] = { 0, 1, 2, 3 };
    struct gf_view view = { .outputs = outputs, .n = 4 };
    struct gf_image *image;
    struct gf_pickle *pickle;
    struct gf_zip_end end;
    struct gf_zip *zip;
    uint8_t *bytes;
    uint64_t size, at;

    (void)state;
    GF_OK(gf_image_torchbin("pytorch_model.bin", &view, order, 4, &image, &t_err));
    size = gf_image_size(image);
    bytes = whole(image);
    GF_OK(gf_zip_find_end("x", bytes, size, size, &gf_limits_default, &end, &t_err));
    GF_OK(gf_zip_parse("x", bytes + end.dir_off, &end, &gf_limits_default, &zip, &t_err));
    assert_string_equal(zip->prefix, "pytorch_model/");
    GF_OK(gf_zip_data("x", zip, gf_zip_find(zip, "data.pkl"),
                      bytes + gf_zip_find(zip, "data.pkl")->header, &at, &t_err));
    GF_OK(gf_pickle_parse("x", bytes + at, gf_zip_find(zip, "data.pkl")->usize,
                          &gf_limits_default, &pickle, NULL, NULL, &t_err));
    assert_int_equal(gf_pv_pairs(gf_pickle_root(pickle)), 4);
    for (size_t i = 0; i < 4; i++) {
        const struct gf_zip_member *member;
        struct gf_torch_view got;
        enum gf_torch_is is;
        const char *why;
        char name[16];

        snprintf(name, sizeof(name), "data/%zu", i);
        member = gf_zip_find(zip, name);
        GF_OK(gf_zip_data("x", zip, member, bytes + member->header, &at, &t_err));
        assert_int_equal(at % 64, 0);
        assert_int_equal(member->usize, outputs[i].nbytes);
        GF_OK(gf_torch_tensor(pickle, gf_pv_get(gf_pickle_root(pickle), outputs[i].name),
                              "x", outputs[i].name, &is, &got, &why, &t_err));
        assert_int_equal(is, GF_TORCH_TENSOR);
        assert_int_equal(got.dtype, outputs[i].dtype);
        assert_true(gf_shape_equal(got.shape, outputs[i].shape));
        assert_int_equal(got.offset, 0);
    }
    gf_pickle_free(pickle);
    gf_zip_free(zip);
    gf_image_free(image);
    free(bytes);
}

static void a_dtype_that_torch_lacks_is_refused(void **state)
{
    static const uint64_t dims[1] = { 4 };
    struct gf_output out = {
        .name = "w", .dtype = GF_F6_E2M3, .shape = { 1, dims }, .nbytes = 3
    };
    static const uint32_t order[] = { 0 };
    struct gf_view view = { .outputs = &out, .n = 1 };
    struct gf_image *image = NULL;

    (void)state;
    GF_FAILS(gf_image_torchbin("x.bin", &view, order, 1, &image, &t_err), ENOTSUP,
             "F6_E2M3");
    assert_null(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_reads_back),
        cmocka_unit_test(a_dtype_that_torch_lacks_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
