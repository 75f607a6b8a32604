/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a torch.save file. Each tensor that is accepted lies in the file. */
#include "fuzz.h"

#include "base/math.h"
#include "format/torch_open.h"
#include "walk.h"

struct torch_walk {
    struct walk walk;
    struct gf_torch *torch;
    uint64_t size;
};

static void visit(struct walk *walk, const struct gf_pv *v)
{
    struct torch_walk *tw = (struct torch_walk *)walk;
    struct gf_pickle *pickle = gf_torch_pickle(tw->torch);
    struct gf_torch_view view;
    enum gf_torch_is is;
    const char *why = NULL;
    uint64_t at, last = 0;

    if (gf_torch_tensor(pickle, v, "x", "t", &is, &view, &why, NULL))
        return;
    CHECK(is != GF_TORCH_UNSUPPORTED || why);
    if (is != GF_TORCH_TENSOR || gf_torch_locate(tw->torch, &view, &at, NULL) ||
        !view.numel)
        return;
    for (uint32_t i = 0; i < view.shape.rank; i++)
        last += (view.shape.dims[i] - 1) * view.strides[i];
    CHECK(gf_inside(at, (last + 1) * gf_torch_itemsize(view.dtype), tw->size));
    CHECK((view.offset + last + 1) * gf_torch_itemsize(view.dtype) <= view.storage.nbytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gf_limits limits = fuzz_limits();
    struct torch_walk tw = { .walk = { visit, 5000 }, .size = size };
    GF_AUTO(gf_source) src = NULL;
    GF_AUTO(gf_torch) torch = NULL;

    if (gf_source_mem("x", data, size, &src, NULL))
        abort();
    if (gf_torch_open(src, &limits, &torch, NULL))
        return 0;
    tw.torch = torch;
    walk_value(&tw.walk, gf_torch_root(torch), 60);
    return 0;
}
