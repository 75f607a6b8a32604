/* SPDX-License-Identifier: Apache-2.0 */
#include "view/view_int.h"

int gf_items_to_hub(const struct gf_view_spec *spec, struct gf_view *view,
                    struct gf_items *items, struct gf_err *err)
{
    (void)spec;
    (void)view;
    (void)items;
    (void)err;
    return 0;
}
