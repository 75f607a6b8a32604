/* SPDX-License-Identifier: Apache-2.0 */
#include "live/segment.h"

#include "base/math.h"

#define MSG_MAGIC 0x564c4647u /* "GFLV" */

const char *gf_live_why_text(uint32_t why)
{
    static const char *const texts[GF_LIVE_WHY_END] = {
        [GF_LIVE_WHY_NONE] = "no reason given",
        [GF_LIVE_WHY_PASSED] = "the step is over",
        [GF_LIVE_WHY_MUTATING] = "the weights are being changed",
        [GF_LIVE_WHY_BUFFERS] = "it can be copied only when a step ends",
        [GF_LIVE_WHY_SLOW] = "the memory for the snapshot was not ready",
        [GF_LIVE_WHY_PENDING] = "an earlier request is unanswered",
        [GF_LIVE_WHY_NO_SLOT] = "all slots are leased",
        [GF_LIVE_WHY_NO_MEMORY] = "not enough memory",
        [GF_LIVE_WHY_STALLED] = "the copy would have stalled training",
        [GF_LIVE_WHY_CANCELLED] = "cancelled",
        [GF_LIVE_WHY_NO_TABLE] = "the tensors changed",
        [GF_LIVE_WHY_NO_SET] = "unknown set of tensors",
        [GF_LIVE_WHY_TAKEN] = "another agent is connected",
    };

    return why < GF_LIVE_WHY_END ? texts[why] : "unknown reason";
}

void gf_live_msg_seal(struct gf_live_msg *msg, size_t payload)
{
    msg->magic = MSG_MAGIC;
    msg->version = GF_LIVE_VERSION;
    msg->len = (uint32_t)(sizeof(*msg) + payload);
}

int gf_live_msg_parse(const void *data, size_t size, struct gf_live_msg *ret,
                      const uint8_t **ret_payload, size_t *ret_len, struct gf_err *err)
{
    struct gf_live_msg msg;

    if (size < sizeof(msg))
        return gf_fail(err, GF_EBAD, "live message of %zu bytes, wanted at least %zu", size,
                       sizeof(msg));
    memcpy(&msg, data, sizeof(msg));
    if (msg.magic != MSG_MAGIC)
        return gf_fail(err, GF_EBAD, "live message has magic %08x, wanted %08x", msg.magic,
                       MSG_MAGIC);
    if (msg.version != GF_LIVE_VERSION)
        return gf_fail(err, EPROTONOSUPPORT,
                       "live protocol version %u at the other end, %d here", msg.version,
                       GF_LIVE_VERSION);
    if (msg.len != size)
        return gf_fail(err, GF_EBAD, "live message of %zu bytes says it has %u", size,
                       msg.len);

    switch (msg.type) {
    case GF_LIVE_SELECT:
    case GF_LIVE_SELECTED:
    case GF_LIVE_ARM:
    case GF_LIVE_READY:
        if (msg.set >= GF_LIVE_MAX_SETS)
            return gf_fail(err, GF_EBAD, "live message type %u names set %u of %d",
                           msg.type, msg.set, GF_LIVE_MAX_SETS);
        break;
    case GF_LIVE_HELLO:
    case GF_LIVE_TABLE:
        if (!(msg.flags & GF_LIVE_FD) || msg.bytes < sizeof(struct gf_live_control))
            return gf_fail(err, GF_EBAD, "live table of %llu bytes %s memory",
                           (unsigned long long)msg.bytes,
                           msg.flags & GF_LIVE_FD ? "with" : "without");
        break;
    case GF_LIVE_MISSED:
    case GF_LIVE_BUSY:
    case GF_LIVE_FINAL:
    case GF_LIVE_BYE:
    case GF_LIVE_CANCEL:
    case GF_LIVE_RELEASE:
        break;
    default:
        return -ENOMSG;
    }
    if ((msg.type == GF_LIVE_READY || msg.type == GF_LIVE_RELEASE) &&
        msg.slot >= GF_LIVE_MAX_SLOTS)
        return gf_fail(err, GF_EBAD, "live message type %u names slot %u of %d", msg.type,
                       msg.slot, GF_LIVE_MAX_SLOTS);
    if (msg.type == GF_LIVE_SELECT && (msg.slot < 1 || msg.slot > GF_LIVE_MAX_SLOTS))
        return gf_fail(err, GF_EBAD, "live reader asks for %u slots, wanted 1 to %d",
                       msg.slot, GF_LIVE_MAX_SLOTS);
    if ((msg.type == GF_LIVE_ARM || msg.type == GF_LIVE_CANCEL ||
         msg.type == GF_LIVE_READY || msg.type == GF_LIVE_MISSED) &&
        msg.req == 0)
        return gf_fail(err, GF_EBAD, "live message type %u has no request number",
                       msg.type);

    *ret = msg;
    *ret_payload = (const uint8_t *)data + sizeof(msg);
    *ret_len = size - sizeof(msg);
    return 0;
}

int gf_live_set_check(const uint8_t *bitmap, size_t len, uint32_t ntensors,
                      struct gf_err *err)
{
    if (len != gf_ceil_div(ntensors, 8))
        return gf_fail(err, GF_EBAD, "set of %zu bytes for %u tensors, wanted %llu", len,
                       ntensors, (unsigned long long)gf_ceil_div(ntensors, 8));
    if (ntensors % 8 && bitmap[len - 1] >> ntensors % 8)
        return gf_fail(err, GF_EBAD, "set names tensors past the last of %u", ntensors);
    return 0;
}

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

void gf_live_status_load(const struct gf_live_control *control, struct gf_live_status *ret)
{
    const uint64_t *from = (const uint64_t *)&control->status;
    uint64_t *to = (uint64_t *)ret;

    for (size_t i = 0; i < sizeof(*ret) / sizeof(*to); i++)
        to[i] = load(from + i);
}

bool gf_live_metric_load(const struct gf_live_control *control, uint32_t i,
                         char name[GF_LIVE_METRIC_NAME + 1], double *ret_value,
                         uint64_t *ret_step)
{
    const struct gf_live_metric *from;
    uint64_t before, value, step;

    if (i >= GF_LIVE_METRICS)
        return false;
    from = &control->metrics[i];
    before = __atomic_load_n(&from->seq, __ATOMIC_ACQUIRE);
    memcpy(name, from->name, GF_LIVE_METRIC_NAME);
    name[GF_LIVE_METRIC_NAME] = '\0';
    value = load(&from->value);
    step = load(&from->step);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (before % 2 || load(&from->seq) != before || !name[0])
        return false;
    memcpy(ret_value, &value, sizeof(*ret_value));
    *ret_step = step;
    return true;
}
