/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auto.h - cleanup by attribute.
 *
 *     GF_AUTO(gf_catalog) catalog = NULL;     calls gf_catalog_free(catalog) at scope end
 *     GF_AUTO_MEM char *text = NULL;          calls free(text)
 *     *ret = gf_take(&catalog);               hands it over; nothing is freed
 *
 * Declare a type once, beside its _free function, with GF_DEFINE_AUTO(gf_catalog).
 */
#ifndef GF_BASE_AUTO_H
#define GF_BASE_AUTO_H

#include <stdlib.h>

#define GF_DEFINE_AUTO(type)                                                               \
    static inline void type##_auto(struct type **p)                                        \
    {                                                                                      \
        if (*p)                                                                            \
            type##_free(*p);                                                               \
    }                                                                                      \
    struct gf_auto_semicolon

#define GF_AUTO(type) __attribute__((cleanup(type##_auto))) struct type *

static inline void gf_auto_mem(void *p)
{
    free(*(void **)p);
}
#define GF_AUTO_MEM __attribute__((cleanup(gf_auto_mem)))

#define gf_take(p)                                                                         \
    __extension__({                                                                        \
        __typeof__(*(p)) gf_taken = *(p);                                                  \
        *(p) = NULL;                                                                       \
        gf_taken;                                                                          \
    })

#endif
