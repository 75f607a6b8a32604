/* SPDX-License-Identifier: Apache-2.0 */
/* The input is JSON. An object that is accepted can be edited, and stays JSON. */
#include "fuzz.h"

#include "base/json.h"

static void edit(const char *text, size_t size, const char *value)
{
    struct gf_limits limits = fuzz_limits();
    GF_AUTO(gf_json) doc = NULL;
    GF_AUTO_MEM char *out = NULL;
    struct gf_err err;
    size_t len;

    CHECK(!gf_json_edit(text, size, "dtype", value, &out, &len, &err));
    limits.json_depth++; /* the new value may be the deepest */
    CHECK(!gf_json_parse("x", out, len, &limits, &doc, &err));
    CHECK(gf_json_is_object(doc));
    if (value)
        CHECK(gf_json_get(doc, "dtype"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gf_limits limits = fuzz_limits();
    const char *text = (const char *)data;
    GF_AUTO(gf_json) doc = NULL;
    uint64_t u;
    double d;

    if (gf_json_parse("x", text, size, &limits, &doc, NULL))
        return 0;
    for (size_t i = 0; i < gf_json_len(doc) && i < 100; i++) {
        const struct gf_json *v = gf_json_at(doc, i);

        CHECK(v);
        CHECK(!gf_json_is_object(doc) || gf_json_get(doc, gf_json_key(v)));
        gf_json_str(v);
        if (gf_json_u64(v, &u))
            CHECK(gf_json_f64(v, &d) && d >= 0);
    }
    if (!gf_json_is_object(doc))
        return 0;
    edit(text, size, "\"bfloat16\"");
    edit(text, size, "{\"a\": [1, 2]}");
    edit(text, size, NULL);
    return 0;
}
