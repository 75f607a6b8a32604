/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is what a live peer may say: a message, or (where it begins like one) the control
 * memory of a publisher. A table that is accepted lies inside its memory, and written out and
 * read again it is the same.
 */
#include "fuzz.h"

#include <string.h>

#include "base/math.h"
#include "live/segment.h"

static void check_message(const uint8_t *data, size_t size)
{
    struct gf_live_msg msg;
    const uint8_t *payload;
    size_t len;

    if (gf_live_msg_parse(data, size, &msg, &payload, &len, NULL))
        return;
    CHECK(payload == data + sizeof(msg) && len == size - sizeof(msg));
    CHECK(gf_live_why_text(msg.why));
    /* Whatever number of tensors there is: every bit of an accepted set can be asked for. */
    if (msg.type == GF_LIVE_SELECT && gf_live_set_check(payload, len, msg.req, NULL) == 0)
        for (uint32_t i = 0; i < 8 * len; i++)
            CHECK(!gf_live_set_has(payload, i) || i < msg.req);
}

static void check_place(const struct gf_live_table *table, const struct gf_live_tensor *t)
{
    uint64_t room = t->flags & GF_LIVE_STATIC ? table->static_bytes : table->slot_bytes;
    uint64_t numel, last = 0;

    CHECK(!gf_shape_numel(t->shape, &numel) && t->count <= numel);
    CHECK(gf_inside(t->data_off, t->nbytes, room));
    CHECK(t->alias < table->n);
    if (t->flags & GF_LIVE_ALIAS) {
        CHECK(gf_shape_equal(t->shape, table->at[t->alias].shape) && t->nbytes == 0);
        return;
    }
    if (t->flags & GF_LIVE_FLAT) {
        CHECK(gf_inside(t->flat_off, t->count, numel));
        return;
    }
    for (uint32_t d = 0; d < t->shape.rank; d++) {
        CHECK(gf_inside(t->first[d], t->local[d], t->shape.dims[d]));
        last += t->count ? (t->local[d] - 1) * t->stride[d] : 0;
    }
    CHECK(t->count == 0 || (last + 1) * gf_dtype_size(t->dtype) == t->nbytes);
}

static void check_same(const struct gf_live_table *table)
{
    GF_AUTO(gf_live_table) again = NULL;
    uint64_t size;
    void *copy;

    CHECK(gf_live_table_size(table, &size, NULL) == 0);
    copy = malloc(size);
    if (!copy)
        abort();
    gf_live_table_write(table, size, copy);
    CHECK(gf_live_table_parse("x", copy, size, &gf_limits_default, &again, NULL) == 0);
    CHECK(again->n == table->n && again->slot_bytes == table->slot_bytes);
    for (uint32_t i = 0; i < table->n; i++)
        CHECK(strcmp(again->at[i].name, table->at[i].name) == 0 &&
              again->at[i].data_off == table->at[i].data_off &&
              again->at[i].nbytes == table->at[i].nbytes);
    free(copy);
}

static void check_control(const uint8_t *data, size_t size)
{
    GF_AUTO(gf_live_table) table = NULL;
    struct gf_limits limits = fuzz_limits();
    char name[GF_LIVE_METRIC_NAME + 1];
    struct gf_live_control head;
    double value;
    uint64_t step;

    if (size < sizeof(head))
        return;
    memcpy(&head, data, sizeof(head));
    for (uint32_t i = 0; i < GF_LIVE_METRICS + 1; i++)
        if (gf_live_metric_load(&head, i, name, &value, &step))
            CHECK(name[0] && strlen(name) <= GF_LIVE_METRIC_NAME);
    if (gf_live_table_parse("x", data, size, &limits, &table, NULL))
        return;
    CHECK(table->rank < table->world && strlen(table->job) < sizeof(table->job));
    for (uint32_t i = 0; i < table->n; i++)
        check_place(table, &table->at[i]);
    check_same(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_message(data, size);
    check_control(data, size);
    return 0;
}
