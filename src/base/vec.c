/* SPDX-License-Identifier: Apache-2.0 */
#include "base/vec.h"

#include <stdint.h>

int gf_vec_grow(void **at, size_t *room, size_t n, size_t more, size_t size, size_t ceiling)
{
    size_t want;
    void *p;

    if (more > ceiling || n > ceiling - more)
        return -E2BIG;
    if (n + more <= *room)
        return 0;
    want = *room < 8 ? 8 : *room + *room / 2;
    if (want < n + more)
        want = n + more;
    if (want > SIZE_MAX / size)
        return -ENOMEM;
    p = realloc(*at, want * size);
    if (!p)
        return -ENOMEM;
    *at = p;
    *room = want;
    return 0;
}
