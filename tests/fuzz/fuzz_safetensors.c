/* SPDX-License-Identifier: Apache-2.0 */
/* The input is the start of a file; its first byte says how much data follows the header.
 * If it is accepted, the tensors cover the data, each byte once. */
#include "fuzz.h"

#include <string.h>

#include "container/safetensors.h"

static void check(const struct gf_safetensors *st, uint64_t file_size)
{
    uint64_t at = st->data;

    for (size_t i = 0; i < st->n; i++) {
        const struct gf_safetensors_entry *e = &st->at[i];
        uint64_t numel, nbytes;

        CHECK(e->begin == at && e->end >= at);
        CHECK(!gf_shape_numel(e->shape, &numel));
        CHECK(!gf_dtype_nbytes(e->dtype, numel, &nbytes));
        CHECK(nbytes == e->end - e->begin);
        for (size_t k = 0; k < i && k < 50; k++)
            CHECK(strcmp(e->name, st->at[k].name) != 0);
        at = e->end;
    }
    CHECK(at == file_size);
    for (size_t i = 0; i < st->nmeta; i++)
        CHECK(st->meta[i][0] && st->meta[i][1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gf_limits limits = fuzz_limits();
    GF_AUTO(gf_safetensors) st = NULL;
    uint64_t file_size, len;

    if (size < 9)
        return 0;
    file_size = size - 1 + data[0];
    if (gf_safetensors_header_len("x", data + 1, file_size, &limits, &len, NULL) ||
        len > size - 9)
        return 0;
    if (gf_safetensors_parse("x", data + 9, len, file_size, &limits, &st, NULL))
        return 0;
    check(st, file_size);
    return 0;
}
