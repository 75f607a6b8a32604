/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a pickle. What is accepted needs each of its bytes, and its values can be
 * looked at in every way. */
#include "fuzz.h"

#include <string.h>

#include "walk.h"

static void visit(struct walk *walk, const struct gf_pv *v)
{
    uint64_t dims[GF_MAX_RANK];
    const uint8_t *bytes;
    uint32_t rank;
    int64_t i;
    double d;
    size_t n;
    bool b;

    (void)walk;
    CHECK(gf_pv_kind(v) <= GF_PV_PERSID);
    CHECK(!gf_pv_item(v, gf_pv_len(v)));
    CHECK(!gf_pv_key(v, gf_pv_pairs(v)));
    bytes = gf_pv_bytes(v, &n);
    if (gf_pv_str(v))
        CHECK(bytes && strlen(gf_pv_str(v)) == n);
    CHECK(gf_pv_kind(v) != GF_PV_STR || gf_pv_str(v));
    if (gf_pv_bool(v, &b))
        CHECK(gf_pv_int(v, &i));
    gf_pv_float(v, &d);
    gf_pv_get(v, "state_dict");
    if (gf_pv_size(v, dims, &rank))
        CHECK(rank <= GF_MAX_RANK);
    gf_pv_is_call(v, "torch", "Size");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gf_limits limits = fuzz_limits();
    struct walk walk = { visit, 10000 };
    GF_AUTO(gf_pickle) pickle = NULL;
    GF_AUTO(gf_pickle) part = NULL;
    bool cut = false;
    size_t used;

    if (gf_pickle_parse("x", data, size, &limits, &pickle, &used, &cut, NULL))
        return 0;
    CHECK(used > 0 && used <= size && !cut);
    walk_value(&walk, gf_pickle_root(pickle), 100);
    for (size_t i = 0; i < gf_pickle_persids(pickle); i++)
        CHECK(gf_pv_kind(gf_pickle_persid(pickle, i)) == GF_PV_PERSID);
    CHECK(gf_pickle_parse("x", data, used - 1, &limits, &part, NULL, &cut, NULL) ==
          -GF_EBAD);
    CHECK(cut);
    return 0;
}
