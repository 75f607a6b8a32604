/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include "image/weights.h"
#include "t_catalog.h"

/* The text is what Python's json.dumps(indent=2, sort_keys=True) gives. */
static void the_index_is_written_as_python_does(void **state)
{
    static const uint32_t shard[] = { 1, 0, 1, 0 };
    static const char want[] =
        "{\n"
        "  \"metadata\": {\n"
        "    \"total_parameters\": 12,\n"
        "    \"total_size\": 76\n"
        "  },\n"
        "  \"weight_map\": {\n"
        "    \"a\\\"b\\\\c/d\\t\\u0001\": \"model-00001-of-00002.safetensors\",\n"
        "    \"gr\\u00f6\\u00dfe.\\u6743.\\ud83d\\ude00\": "
        "\"model-00002-of-00002.safetensors\",\n"
        "    \"layers.10.w\": \"model-00001-of-00002.safetensors\",\n"
        "    \"layers.2.w\": \"model-00002-of-00002.safetensors\"\n"
        "  }\n"
        "}\n";
    GF_AUTO(gf_catalog) catalog = t_catalog();
    GF_AUTO(gf_view) view = NULL;
    GF_AUTO(gf_image) image = NULL;
    const struct gf_segment *s;
    size_t n;

    (void)state;
    t_add(catalog, "layers.2.w", GF_F32, SHAPE(2, 5));
    t_add(catalog, "layers.10.w", GF_BF16, SHAPE(2));
    /* A buffer counts as bytes, not as parameters. */
    t_add_spec(catalog, &(struct gf_tensor_spec){ .name = "gr\xc3\xb6\xc3\x9f"
                                                          "e.\xe6\x9d\x83.\xf0\x9f\x98\x80",
                                                  .shape = SHAPE(4),
                                                  .dtype = GF_F64,
                                                  .live = GF_F64,
                                                  .copy = GF_NONE,
                                                  .alias = GF_NONE,
                                                  .buffer = true });
    t_add(catalog, "a\"b\\c/d\t\x01", GF_F32, SHAPE(0));
    view = t_view(catalog);
    GF_OK(gf_image_index("model.safetensors.index.json", view, shard, 2, "model",
                         ".safetensors", &image, &t_err));
    s = gf_image_segments(image, &n);
    assert_int_equal(n, 1);
    assert_int_equal(s[0].len, sizeof(want) - 1);
    assert_memory_equal(s[0].u.bytes, want, sizeof(want) - 1);
    assert_string_equal(gf_image_name(image), "model.safetensors.index.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_index_is_written_as_python_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
