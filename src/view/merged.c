/* SPDX-License-Identifier: Apache-2.0 */
#include "view/view_int.h"

int gf_merged_collect(const struct gf_view_spec *spec, struct gf_view *view,
                      struct gf_items *items, struct gf_err *err)
{
    (void)view;
    (void)items;
    return gf_fail(err, ENOENT, "no view '%s': adapters are not merged here", spec->name);
}
