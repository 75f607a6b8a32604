/* SPDX-License-Identifier: Apache-2.0 */
/* The input is an archive. If it is accepted, no two of its members share a byte. */
#include "fuzz.h"

#include <string.h>

#include "base/math.h"
#include "container/zip.h"

static void check(const uint8_t *data, const struct gf_zip *zip)
{
    uint64_t free_from = 0;

    /* The members in the order of their headers. */
    for (size_t i = 0; i < zip->n; i++)
        for (size_t k = 0; k < zip->n; k++) {
            const struct gf_zip_member *m = &zip->at[k];
            uint64_t at;

            if (m->header != zip->headers[i])
                continue;
            CHECK(m->header >= free_from && m->header + GF_ZIP_LOCAL <= zip->dir_off);
            free_from = m->header + GF_ZIP_LOCAL;
            if (gf_zip_data("x", zip, m, data + m->header, &at, NULL))
                continue;
            CHECK(at >= free_from && gf_inside(at, m->csize, zip->dir_off));
            free_from = at + m->csize;
            if (strncmp(m->name, zip->prefix, strlen(zip->prefix)) == 0)
                CHECK(gf_zip_find(zip, m->name + strlen(zip->prefix)) == m);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t tail = GF_MIN(size, (size_t)GF_ZIP_TAIL_MAX);
    struct gf_limits limits = fuzz_limits();
    GF_AUTO(gf_zip) zip = NULL;
    struct gf_zip_end end;

    limits.zip_members = 200; /* check() is quadratic */
    if (gf_zip_find_end("x", data + (size - tail), tail, size, &limits, &end, NULL))
        return 0;
    CHECK(gf_inside(end.dir_off, end.dir_size, size));
    if (gf_zip_parse("x", data + end.dir_off, &end, &limits, &zip, NULL))
        return 0;
    check(data, zip);
    return 0;
}
