/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a DCP `.metadata`. What is accepted names chunks inside their tensors, in
 * files inside the checkpoint, each stored in bytes that its file needs. */
#include "fuzz.h"

#include "base/math.h"
#include "format/dcp_metadata.h"
#include "source/dir.h"

static void check_tensor(const struct gf_dcp_table *table, const struct gf_dcp_tensor *t)
{
    CHECK(t->group < table->groups.n);
    for (size_t i = 0; i < t->chunks.n; i++) {
        const struct gf_dcp_chunk *chunk = &t->chunks.at[i];
        const struct gf_dcp_place *place = &chunk->place;

        for (uint32_t d = 0; d < t->shape.rank; d++)
            CHECK(
                chunk->box[t->shape.rank + d] &&
                gf_inside(chunk->box[d], chunk->box[t->shape.rank + d], t->shape.dims[d]));
        CHECK(place->file < table->files.n && place->packed < table->packings.n);
        CHECK(gf_inside(place->at, place->length, table->files.at[place->file].need));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gf_limits limits = fuzz_limits();
    GF_AUTO(gf_dcp_table) table = NULL;
    GF_AUTO(gf_pickle) pickle = NULL;
    size_t chosen, members = 0;

    if (gf_pickle_parse("x", data, size, &limits, &pickle, NULL, NULL, NULL))
        return 0;
    if (gf_dcp_table_new(&limits, &table, NULL))
        abort();
    if (gf_dcp_table_add(table, "x", pickle, size, NULL))
        return 0;
    gf_dcp_table_finish(table);
    for (size_t i = 0; i < table->files.n; i++)
        CHECK(gf_path_is_inside(table->files.at[i].path));
    for (size_t i = 0; i < table->tensors.n; i++)
        check_tensor(table, &table->tensors.at[i]);
    for (size_t i = 0; i < table->groups.n; i++)
        members += table->groups.at[i].tensors;
    CHECK(members == table->tensors.n);
    chosen = gf_dcp_group_choose(table->groups.at, table->groups.n);
    CHECK(chosen == SIZE_MAX ? table->groups.n == 0 : chosen < table->groups.n);
    return 0;
}
