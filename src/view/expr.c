/* SPDX-License-Identifier: Apache-2.0 */
#include "view/expr.h"

#include "tensor/convert.h"

int gf_expr_gather(const struct gf_catalog *catalog, uint32_t catalog_index,
                   uint32_t tensor, enum gf_dtype to, struct gf_expr *ret,
                   struct gf_err *err)
{
    const struct gf_tensor *t = gf_catalog_at(catalog, tensor);

    if (!gf_convert_can(t->dtype, to))
        return gf_fail(err, ENOTSUP, "tensor '%s': no conversion from %s to %s", t->name,
                       gf_dtype_info(t->dtype)->safetensors,
                       gf_dtype_info(to)->safetensors);
    *ret = (struct gf_expr){
        .catalog = catalog_index,
        .tensor = tensor,
        .from = t->dtype,
        .to = to,
    };
    return 0;
}
