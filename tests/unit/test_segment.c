/* SPDX-License-Identifier: Apache-2.0 */
#include "t.h"

#include <stdlib.h>

#include "base/math.h"
#include "live/segment.h"

/* ---------------------------------------------------------------- messages */

static struct gf_live_msg message(uint16_t type)
{
    struct gf_live_msg msg = { .type = type, .req = 7, .slot = 1, .step = 40, .seq = 2 };

    if (type == GF_LIVE_HELLO || type == GF_LIVE_TABLE) {
        msg.flags = GF_LIVE_FD;
        msg.bytes = 5000;
    }
    gf_live_msg_seal(&msg, 0);
    return msg;
}

static int parse(const struct gf_live_msg *msg, size_t size)
{
    struct gf_live_msg got;
    const uint8_t *payload;
    size_t len;

    return gf_live_msg_parse(msg, size, &got, &payload, &len, &t_err);
}

static void every_message_is_read_back(void **state)
{
    static const uint16_t types[] = { GF_LIVE_HELLO, GF_LIVE_TABLE,  GF_LIVE_SELECTED,
                                      GF_LIVE_READY, GF_LIVE_MISSED, GF_LIVE_BUSY,
                                      GF_LIVE_FINAL, GF_LIVE_BYE,    GF_LIVE_SELECT,
                                      GF_LIVE_ARM,   GF_LIVE_CANCEL, GF_LIVE_RELEASE };

    (void)state;
    for (size_t i = 0; i < GF_COUNT(types); i++) {
        struct gf_live_msg msg = message(types[i]), got;
        const uint8_t *payload;
        size_t len;

        GF_OK(gf_live_msg_parse(&msg, sizeof(msg), &got, &payload, &len, &t_err));
        assert_memory_equal(&msg, &got, sizeof(msg));
        assert_int_equal(len, 0);
    }
}

static void a_payload_follows_the_head(void **state)
{
    struct {
        struct gf_live_msg msg;
        uint8_t bits[3];
    } sent = { message(GF_LIVE_SELECT), { 1, 2, 3 } };
    struct gf_live_msg got;
    const uint8_t *payload;
    size_t len;

    (void)state;
    gf_live_msg_seal(&sent.msg, 3);
    GF_OK(gf_live_msg_parse(&sent, sizeof(sent.msg) + 3, &got, &payload, &len, &t_err));
    assert_int_equal(len, 3);
    assert_memory_equal(payload, sent.bits, 3);
}

static void messages_that_cannot_be_right_are_refused(void **state)
{
    struct gf_live_msg msg = message(GF_LIVE_ARM);

    (void)state;
    GF_FAILS(parse(&msg, 63), GF_EBAD, "63 bytes");
    GF_FAILS(parse(&msg, 0), GF_EBAD, "0 bytes");
    msg.magic ^= 1;
    GF_FAILS(parse(&msg, 64), GF_EBAD, "magic");
    msg = message(GF_LIVE_ARM);
    msg.version = 2;
    GF_FAILS(parse(&msg, 64), EPROTONOSUPPORT, "version 2");
    msg = message(GF_LIVE_ARM);
    msg.len = 65;
    GF_FAILS(parse(&msg, 64), GF_EBAD, "says it has 65");
    msg = message(GF_LIVE_ARM);
    msg.set = GF_LIVE_MAX_SETS;
    GF_FAILS(parse(&msg, 64), GF_EBAD, "set 8");
    msg = message(GF_LIVE_ARM);
    msg.req = 0;
    GF_FAILS(parse(&msg, 64), GF_EBAD, "request number");
    msg = message(GF_LIVE_READY);
    msg.slot = GF_LIVE_MAX_SLOTS;
    GF_FAILS(parse(&msg, 64), GF_EBAD, "slot 8");
    msg = message(GF_LIVE_RELEASE);
    msg.slot = UINT32_MAX;
    GF_FAILS(parse(&msg, 64), GF_EBAD, "slot 4294967295");
    msg = message(GF_LIVE_SELECT);
    msg.slot = 0;
    GF_FAILS(parse(&msg, 64), GF_EBAD, "0 slots");
    msg = message(GF_LIVE_HELLO);
    msg.flags = 0;
    GF_FAILS(parse(&msg, 64), GF_EBAD, "without memory");
    msg = message(GF_LIVE_TABLE);
    msg.bytes = 4095;
    GF_FAILS(parse(&msg, 64), GF_EBAD, "4095 bytes");
}

static void unknown_messages_are_to_be_ignored(void **state)
{
    struct gf_live_msg msg = message(99);

    (void)state;
    assert_int_equal(parse(&msg, 64), -ENOMSG);
}

static void a_set_has_one_bit_for_each_tensor(void **state)
{
    uint8_t bits[2] = { 0xff, 0x03 };

    (void)state;
    GF_OK(gf_live_set_check(bits, 2, 10, &t_err));
    assert_true(gf_live_set_has(bits, 9));
    assert_false(gf_live_set_has((const uint8_t[]){ 0xff, 1 }, 9));
    GF_OK(gf_live_set_check(NULL, 0, 0, &t_err));
    GF_FAILS(gf_live_set_check(bits, 2, 9, &t_err), GF_EBAD, "past the last of 9");
    GF_FAILS(gf_live_set_check(bits, 2, 17, &t_err), GF_EBAD, "wanted 3");
    GF_FAILS(gf_live_set_check(bits, 2, 8, &t_err), GF_EBAD, "wanted 1");
}

static void every_reason_has_words(void **state)
{
    (void)state;
    for (uint32_t why = 0; why < GF_LIVE_WHY_END; why++)
        assert_non_null(gf_live_why_text(why));
    assert_string_equal(gf_live_why_text(GF_LIVE_WHY_END), "unknown reason");
}

/* ---------------------------------------------------------------- tables */

static const uint64_t shape[2] = { 4, 6 }, rows[2] = { 2, 6 }, at2[2] = { 2, 0 },
                      dense[2] = { 6, 1 }, apart[2] = { 8, 1 };

static struct gf_live_tensor tensors[] = {
    { .name = "box",
      .dtype = GF_F32,
      .replicas = 1,
      .count = 12,
      .shape = { 2, shape },
      .local = rows,
      .first = at2,
      .stride = dense },
    { .name = "frozen.flat",
      .dtype = GF_BF16,
      .flags = GF_LIVE_FLAT | GF_LIVE_STATIC,
      .replica = 1,
      .replicas = 2,
      .flat_off = 3,
      .count = 5,
      .shape = { 2, shape } },
    { .name = "box",
      .dtype = GF_F32,
      .replicas = 1,
      .count = 12,
      .shape = { 2, shape },
      .local = rows,
      .first = rows /* [2, 6]: see below */,
      .stride = apart },
    { .name = "scalar",
      .dtype = GF_I64,
      .flags = GF_LIVE_BUFFER,
      .replicas = 1,
      .count = 1 },
    { .name = "tied",
      .dtype = GF_F32,
      .flags = GF_LIVE_ALIAS,
      .replicas = 1,
      .shape = { 2, shape } },
    { .name = "nothing",
      .dtype = GF_F16,
      .flags = GF_LIVE_FLAT,
      .replicas = 1,
      .shape = { 2, shape } },
};
static const uint64_t zeros[2];

static uint8_t *control;
static size_t control_size;

static int make_control(void **state)
{
    struct gf_live_table table = { .world = 2,
                                   .rank = 1,
                                   .nslots = 2,
                                   .pid = 99,
                                   .incarnation = 77,
                                   .job = "run",
                                   .framework = "fsdp2",
                                   .n = GF_COUNT(tensors),
                                   .at = tensors };
    uint64_t size;

    (void)state;
    tensors[2].first = zeros;
    GF_OK(gf_live_table_place(&table, &t_err));
    GF_OK(gf_live_table_size(&table, &size, &t_err));
    control_size = (size_t)size;
    control = malloc(control_size);
    assert_non_null(control);
    gf_live_table_write(&table, size, control);
    return 0;
}

static int free_control(void **state)
{
    (void)state;
    free(control);
    return 0;
}

static struct gf_live_control *head(void)
{
    return (struct gf_live_control *)(void *)control;
}

static struct gf_live_entry *entry(size_t i)
{
    return (struct gf_live_entry *)(void *)(control + sizeof(*head())) + i;
}

static int parse_table(size_t size)
{
    GF_AUTO(gf_live_table) table = NULL;

    return gf_live_table_parse("rank 1", control, size, &gf_limits_default, &table, &t_err);
}

static void a_table_is_read_back(void **state)
{
    GF_AUTO(gf_live_table) table = NULL;

    (void)state;
    GF_OK(gf_live_table_parse("rank 1", control, control_size, &gf_limits_default, &table,
                              &t_err));
    assert_int_equal(table->n, GF_COUNT(tensors));
    assert_int_equal(table->rank, 1);
    assert_int_equal(table->world, 2);
    assert_int_equal(table->incarnation, 77);
    assert_string_equal(table->job, "run");
    for (uint32_t i = 0; i < table->n; i++) {
        const struct gf_live_tensor *a = &tensors[i], *b = &table->at[i];

        assert_string_equal(a->name, b->name);
        assert_int_equal(a->dtype, b->dtype);
        assert_int_equal(a->flags, b->flags);
        assert_int_equal(a->count, b->count);
        assert_int_equal(a->nbytes, b->nbytes);
        assert_int_equal(a->data_off, b->data_off);
        assert_int_equal(a->replica, b->replica);
        assert_true(gf_shape_equal(a->shape, b->shape));
    }
    assert_int_equal(table->at[0].first[0], 2);
    assert_int_equal(table->at[2].stride[0], 8);
    assert_int_equal(table->at[4].alias, 0);
    assert_int_equal(table->at[5].nbytes, 0);
}

static void places_do_not_overlap_and_strides_span(void **state)
{
    (void)state;
    assert_int_equal(tensors[0].data_off, 0);
    assert_int_equal(tensors[0].nbytes, 48);
    assert_int_equal(tensors[1].data_off, 0); /* in the static memory */
    assert_int_equal(tensors[1].nbytes, 10);
    assert_int_equal(tensors[2].data_off, 64);
    assert_int_equal(tensors[2].nbytes, (8 + 6) * 4);
    assert_int_equal(tensors[3].data_off, 128);
    assert_int_equal(head()->slot_bytes, 192);
    assert_int_equal(head()->static_bytes, 64);
}

static void heads_that_cannot_be_right_are_refused(void **state)
{
    (void)state;
    GF_FAILS(parse_table(4095), GF_EBAD, "4095 bytes");
    GF_FAILS(parse_table(control_size - 1), GF_EBAD, "says it has");
    head()->magic++;
    GF_FAILS(parse_table(control_size), GF_EBAD, "magic");
    head()->magic--;
    head()->version = 9;
    GF_FAILS(parse_table(control_size), EPROTONOSUPPORT, "version 9");
    head()->version = GF_LIVE_VERSION;
    head()->rank = 2;
    GF_FAILS(parse_table(control_size), GF_EBAD, "rank 2 of 2");
    head()->rank = 1;
    head()->world = 0;
    GF_FAILS(parse_table(control_size), GF_EBAD, "of 0");
    head()->world = 2;
    head()->nslots = 9;
    GF_FAILS(parse_table(control_size), GF_EBAD, "9 slots");
    head()->nslots = 2;
    head()->ntensors = 100;
    GF_FAILS(parse_table(control_size), GF_EBAD, "do not fit 100 tensors");
    head()->ntensors = UINT32_MAX;
    GF_FAILS(parse_table(control_size), GF_EBAD, "at most");
    head()->ntensors = GF_COUNT(tensors);
    head()->names_len--;
    GF_FAILS(parse_table(control_size), GF_EBAD, "names");
    head()->names_len++;
    head()->slot_bytes = UINT64_MAX;
    GF_FAILS(parse_table(control_size), GF_EBAD, "slots of");
    head()->slot_bytes = 192;
    memset(head()->job, 'x', sizeof(head()->job));
    GF_FAILS(parse_table(control_size), GF_EBAD, "without end");
}

static void entries_that_lie_are_refused(void **state)
{
    struct gf_live_entry good;

    (void)state;
#define LIES(i, change, words)                                                             \
    do {                                                                                   \
        good = *entry(i);                                                                  \
        change;                                                                            \
        GF_FAILS(parse_table(control_size), GF_EBAD, words);                               \
        *entry(i) = good;                                                                  \
    } while (0)
    LIES(0, entry(0)->rank = 9, "9 dimensions");
    LIES(0, entry(0)->name_len = 5000, "name of 5000");
    LIES(0, entry(0)->name = UINT64_MAX - 1, "name of 3");
    LIES(0, entry(0)->name_len = 30, "share bytes");
    LIES(0, entry(0)->flags = 64, "flags 0x40");
    LIES(0, memset(entry(0)->dtype, 'F', 16), "dtype 'FFFF");
    LIES(0, snprintf(entry(0)->dtype, 16, "F4"), "dtype 'F4'");
    LIES(0, entry(0)->replicas = 0, "copy 0 of 0");
    LIES(0, entry(0)->replica = 1, "copy 1 of 1");
    LIES(0, entry(0)->shape[0] = UINT64_MAX / 2, "too many elements");
    LIES(0, entry(0)->first[0] = 3, "does not lie in 4");
    LIES(0, entry(0)->local[1] = UINT64_MAX, "does not lie in 6");
    LIES(0, entry(0)->count = 11, "says 11 elements");
    LIES(0, entry(0)->stride[0] = UINT64_MAX / 2, "do not fit");
    LIES(0, entry(0)->stride[0] = 100, "do not fit");
    LIES(0, entry(0)->nbytes = 44, "44 bytes");
    LIES(0, entry(0)->data_off = 192, "do not fit 192");
    LIES(0, entry(0)->data_off = UINT64_MAX - 63, "do not fit 192");
    LIES(0, entry(0)->data_off = 4, "at 4");
    LIES(1, entry(1)->flat_off = 20, "do not lie in 24");
    LIES(1, entry(1)->count = UINT64_MAX, "do not lie in 24");
    LIES(1, entry(1)->data_off = 64, "do not fit 64");
    LIES(4, entry(4)->alias = 4, "alias of 4");
    LIES(4, entry(4)->alias = 1, "alias of 1");
    LIES(4, entry(4)->shape[0] = 5, "alias of 0");
    LIES(4, entry(4)->nbytes = 4, "bytes of its own");
    GF_OK(parse_table(control_size));
}

static void limits_hold(void **state)
{
    GF_AUTO(gf_live_table) table = NULL;
    struct gf_limits limits = gf_limits_default;

    (void)state;
    limits.tensors = GF_COUNT(tensors) - 1;
    GF_FAILS(gf_live_table_parse("x", control, control_size, &limits, &table, &t_err),
             GF_EBAD, "6 tensors, at most 5");
    limits = gf_limits_default;
    limits.name = 10;
    GF_FAILS(gf_live_table_parse("x", control, control_size, &limits, &table, &t_err),
             GF_EBAD, "name of 11");
    assert_null(table);
}

static void a_metric_that_is_being_written_is_not_shown(void **state)
{
    struct gf_live_metric *metric = &head()->metrics[3];
    char name[GF_LIVE_METRIC_NAME + 1];
    double value = 0.25;
    uint64_t step;

    (void)state;
    assert_false(gf_live_metric_load(head(), 3, name, &value, &step));
    memset(metric->name, 'n', sizeof(metric->name)); /* no end */
    memcpy(&metric->value, &value, sizeof(value));
    metric->step = 12;
    metric->seq = 2;
    value = 0;
    assert_true(gf_live_metric_load(head(), 3, name, &value, &step));
    assert_int_equal(strlen(name), GF_LIVE_METRIC_NAME);
    assert_true(value == 0.25);
    assert_int_equal(step, 12);
    metric->seq = 3;
    assert_false(gf_live_metric_load(head(), 3, name, &value, &step));
    assert_false(gf_live_metric_load(head(), GF_LIVE_METRICS, name, &value, &step));
}

static void tables_too_large_for_memory_are_not_placed(void **state)
{
    static const uint64_t huge[1] = { (uint64_t)1 << 61 }, one[1] = { 1 };
    struct gf_live_tensor t = { .name = "huge",
                                .dtype = GF_F64,
                                .replicas = 1,
                                .count = huge[0],
                                .shape = { 1, huge },
                                .local = huge,
                                .first = zeros,
                                .stride = one };
    struct gf_live_table table = { .n = 1, .at = &t };

    (void)state;
    GF_FAILS(gf_live_table_place(&table, &t_err), EOVERFLOW, "'huge'");
}

int main(void)
{
#define WITH_CONTROL(test) cmocka_unit_test_setup_teardown(test, make_control, free_control)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_is_read_back),
        cmocka_unit_test(a_payload_follows_the_head),
        cmocka_unit_test(messages_that_cannot_be_right_are_refused),
        cmocka_unit_test(unknown_messages_are_to_be_ignored),
        cmocka_unit_test(a_set_has_one_bit_for_each_tensor),
        cmocka_unit_test(every_reason_has_words),
        WITH_CONTROL(a_table_is_read_back),
        WITH_CONTROL(places_do_not_overlap_and_strides_span),
        WITH_CONTROL(heads_that_cannot_be_right_are_refused),
        WITH_CONTROL(entries_that_lie_are_refused),
        WITH_CONTROL(limits_hold),
        WITH_CONTROL(a_metric_that_is_being_written_is_not_shown),
        cmocka_unit_test(tables_too_large_for_memory_are_not_placed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
