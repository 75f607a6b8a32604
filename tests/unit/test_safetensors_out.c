/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>

#include "image/weights.h"
#include "t_catalog.h"

static struct gf_image *image_of(const struct gf_catalog *catalog)
{
    GF_AUTO(gf_view) view = t_view(catalog);
    GF_AUTO_MEM uint32_t *all = malloc(view->n * sizeof(*all));
    struct gf_image *image = NULL;

    assert_non_null(all);
    for (uint32_t i = 0; i < view->n; i++)
        all[i] = i;
    GF_OK(gf_image_safetensors("model.safetensors", view, all, view->n, &image, &t_err));
    return image;
}

/* The header's JSON and padding; its length field is checked. */
static void assert_header(const struct gf_image *image, const char *want)
{
    size_t n, len = strlen(want);
    const struct gf_segment *s = gf_image_segments(image, &n);
    const uint8_t length[8] = { (uint8_t)len, (uint8_t)(len >> 8) };

    assert_int_equal(s[0].kind, GF_SEGMENT_BYTES);
    assert_int_equal(s[0].len, 8 + len);
    assert_memory_equal(s[0].u.bytes, length, 8);
    assert_memory_equal(s[0].u.bytes + 8, want, len);
}

/* The text is what safetensors 0.8 wrote for tensors of these dtypes. */
static void every_dtype_has_its_place_and_size(void **state)
{
    GF_AUTO(gf_catalog) catalog = t_catalog();
    GF_AUTO(gf_image) image = NULL;
    size_t n;

    (void)state;
    for (int i = 0; i < GF_NDTYPES; i++)
        if (i != GF_F6_E2M3 && i != GF_F6_E3M2)
            t_add(catalog, gf_dtype_info((enum gf_dtype)i)->torch, (enum gf_dtype)i,
                  i == GF_F4 ? SHAPE(2, 8) : SHAPE(2, 4));
    image = image_of(catalog);
    assert_header(
        image,
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"uint64\":{\"dtype\":\"U64\",\"shape\":[2,4],\"data_offsets\":[0,64]},"
        "\"int64\":{\"dtype\":\"I64\",\"shape\":[2,4],\"data_offsets\":[64,128]},"
        "\"float64\":{\"dtype\":\"F64\",\"shape\":[2,4],\"data_offsets\":[128,192]},"
        "\"complex64\":{\"dtype\":\"C64\",\"shape\":[2,4],\"data_offsets\":[192,256]},"
        "\"float32\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[256,288]},"
        "\"uint32\":{\"dtype\":\"U32\",\"shape\":[2,4],\"data_offsets\":[288,320]},"
        "\"int32\":{\"dtype\":\"I32\",\"shape\":[2,4],\"data_offsets\":[320,352]},"
        "\"bfloat16\":{\"dtype\":\"BF16\",\"shape\":[2,4],\"data_offsets\":[352,368]},"
        "\"float16\":{\"dtype\":\"F16\",\"shape\":[2,4],\"data_offsets\":[368,384]},"
        "\"uint16\":{\"dtype\":\"U16\",\"shape\":[2,4],\"data_offsets\":[384,400]},"
        "\"int16\":{\"dtype\":\"I16\",\"shape\":[2,4],\"data_offsets\":[400,416]},"
        "\"float8_e5m2fnuz\":{\"dtype\":\"F8_E5M2FNUZ\",\"shape\":[2,4],"
        "\"data_offsets\":[416,424]},"
        "\"float8_e4m3fnuz\":{\"dtype\":\"F8_E4M3FNUZ\",\"shape\":[2,4],"
        "\"data_offsets\":[424,432]},"
        "\"float8_e8m0fnu\":{\"dtype\":\"F8_E8M0\",\"shape\":[2,4],\"data_offsets\":[432,"
        "440]},"
        "\"float8_e4m3fn\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,4],\"data_offsets\":[440,"
        "448]},"
        "\"float8_e5m2\":{\"dtype\":\"F8_E5M2\",\"shape\":[2,4],\"data_offsets\":[448,456]}"
        ","
        "\"int8\":{\"dtype\":\"I8\",\"shape\":[2,4],\"data_offsets\":[456,464]},"
        "\"uint8\":{\"dtype\":\"U8\",\"shape\":[2,4],\"data_offsets\":[464,472]},"
        "\"float4_e2m1fn_x2\":{\"dtype\":\"F4\",\"shape\":[2,8],\"data_offsets\":[472,480]}"
        ","
        "\"bool\":{\"dtype\":\"BOOL\",\"shape\":[2,4],\"data_offsets\":[480,488]}} ");
    gf_image_segments(image, &n);
    assert_int_equal(n, 1 + GF_NDTYPES - 2);
}

static void names_are_sorted_by_bytes_and_escaped(void **state)
{
    static const struct {
        const char *name;
        uint64_t n;
    } tensors[] = {
        { "layers.10.w", 2 },
        { "layers.2.w", 6 },
        { "a\"b\\c/d", 1 },
        { "tab\tnl\nbs\bff\fcr\r\x01\x1f\x7f", 1 },
        { "gr\xc3\xb6\xc3\x9f"
          "e.\xe6\x9d\x83\xe9\x87\x8d.\xf0\x9f\x98\x80",
          1 },
        { "Z", 1 },
        { "z", 1 },
    };
    GF_AUTO(gf_catalog) catalog = t_catalog();
    GF_AUTO(gf_image) image = NULL;

    (void)state;
    t_add(catalog, "scalar", GF_F32, SCALAR);
    t_add(catalog, "empty", GF_F16, SHAPE(0, 5));
    for (size_t i = 0; i < sizeof(tensors) / sizeof(tensors[0]); i++)
        t_add(catalog, tensors[i].name, GF_F32, SHAPE(tensors[i].n));
    image = image_of(catalog);
    assert_header(
        image, "{\"__metadata__\":{\"format\":\"pt\"},"
               "\"Z\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
               "\"a\\\"b\\\\c/d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
               "\"gr\xc3\xb6\xc3\x9f"
               "e.\xe6\x9d\x83\xe9\x87\x8d.\xf0\x9f\x98\x80\":{\"dtype\":\"F32\","
               "\"shape\":[1],\"data_offsets\":[8,12]},"
               "\"layers.10.w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]},"
               "\"layers.2.w\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[20,44]},"
               "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[44,48]},"
               "\"tab\\tnl\\nbs\\bff\\fcr\\r\\u0001\\u001f\x7f\":{\"dtype\":\"F32\","
               "\"shape\":[1],\"data_offsets\":[48,52]},"
               "\"z\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[52,56]},"
               "\"empty\":{\"dtype\":\"F16\",\"shape\":[0,5],\"data_offsets\":[56,56]}}"
               "      ");
}

static void segments_follow_the_header(void **state)
{
    GF_AUTO(gf_catalog) catalog = t_catalog();
    GF_AUTO(gf_image) image = NULL;
    const struct gf_segment *s;
    size_t n;

    (void)state;
    t_add(catalog, "b", GF_BF16, SHAPE(3));
    t_add(catalog, "none", GF_F32, SHAPE(0));
    t_add(catalog, "a", GF_BF16, SHAPE(5));
    t_add(catalog, "c", GF_F32, SHAPE(2));
    image = image_of(catalog);
    s = gf_image_segments(image, &n);
    assert_int_equal(n, 4);
    assert_int_equal(s[1].u.tensor, 3);
    assert_int_equal(s[2].u.tensor, 2);
    assert_int_equal(s[3].u.tensor, 0);
    assert_int_equal(s[1].off % 8, 0);
    assert_int_equal(gf_image_size(image), s[0].len + 8 + 10 + 6);
}

static void a_file_of_chosen_outputs_has_only_those(void **state)
{
    static const uint32_t chosen[] = { 2, 0 };
    GF_AUTO(gf_catalog) catalog = t_catalog();
    GF_AUTO(gf_view) view = NULL;
    GF_AUTO(gf_image) image = NULL;

    (void)state;
    t_add(catalog, "a", GF_U8, SHAPE(1));
    t_add(catalog, "b", GF_U8, SHAPE(2));
    t_add(catalog, "c", GF_U8, SHAPE(4));
    view = t_view(catalog);
    GF_OK(gf_image_safetensors("x", view, chosen, 2, &image, &t_err));
    assert_header(image, "{\"__metadata__\":{\"format\":\"pt\"},"
                         "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                         "\"c\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[1,5]}}");
}

static void a_header_that_no_reader_takes_is_refused(void **state)
{
    static const uint32_t chosen[] = { 0, 1 };
    size_t len = gf_limits_default.safetensors_header / 2;
    GF_AUTO_MEM char *name = malloc(len + 1);
    struct gf_output outputs[2] = { { .dtype = GF_F32 }, { .dtype = GF_F32 } };
    struct gf_view view = { .outputs = outputs, .n = 2 };
    GF_AUTO(gf_image) image = NULL;

    (void)state;
    assert_non_null(name);
    memset(name, 'x', len);
    name[len] = '\0';
    outputs[0].name = name;
    outputs[1].name = name + 1;
    GF_FAILS(gf_image_safetensors("x", &view, chosen, 2, &image, &t_err), EFBIG,
             "max_shard_size");
    GF_OK(gf_image_safetensors("x", &view, chosen, 1, &image, &t_err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dtype_has_its_place_and_size),
        cmocka_unit_test(names_are_sorted_by_bytes_and_escaped),
        cmocka_unit_test(segments_follow_the_header),
        cmocka_unit_test(a_file_of_chosen_outputs_has_only_those),
        cmocka_unit_test(a_header_that_no_reader_takes_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
