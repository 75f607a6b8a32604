/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a pickle. Parts of distributed tensors lie inside their tensors; choosing the
 * state dict ends. */
#include "fuzz.h"

#include "base/math.h"
#include "format/dtensor.h"
#include "format/state_pick.h"
#include "walk.h"

struct dtensor_walk {
    struct walk walk;
    struct gf_pickle *pickle;
};

static void visit(struct walk *walk, const struct gf_pv *v)
{
    struct dtensor_walk *dw = (struct dtensor_walk *)walk;
    struct gf_dtensor dt;
    enum gf_torch_is is;
    const char *why = NULL;
    uint64_t numel;

    if (gf_dtensor_parse(dw->pickle, v, 1, "x", "t", &is, &dt, &why, NULL))
        return;
    CHECK(is != GF_TORCH_UNSUPPORTED || why);
    if (is != GF_TORCH_TENSOR)
        return;
    CHECK(dt.ranks > 0);
    CHECK(!gf_shape_numel(dt.shape, &numel));
    for (size_t i = 0; i < dt.n; i++) {
        const struct gf_dtensor_box *box = &dt.boxes[i];

        CHECK(box->view.shape.rank == dt.shape.rank);
        CHECK(box->view.numel > 0 && box->view.dtype == dt.dtype);
        for (uint32_t d = 0; d < dt.shape.rank; d++)
            CHECK(gf_inside(box->first[d], box->view.shape.dims[d], dt.shape.dims[d]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gf_limits limits = fuzz_limits();
    struct dtensor_walk dw = { .walk = { visit, 5000 } };
    GF_AUTO(gf_pickle) pickle = NULL;
    struct gf_state_pick pick;

    limits.tensors = 1000;
    if (gf_pickle_parse("x", data, size, &limits, &pickle, NULL, NULL, NULL))
        return 0;
    dw.pickle = pickle;
    walk_value(&dw.walk, gf_pickle_root(pickle), 60);
    if (gf_state_pick(pickle, "x", &limits, &pick, NULL) == 0)
        CHECK(gf_pv_is_dict(pick.dict));
    return 0;
}
