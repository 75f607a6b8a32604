/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - what the unit tests of the publisher share: cmocka checks of its calls, answers. */
#ifndef GF_TESTS_LIVE_CHECK_H
#define GF_TESTS_LIVE_CHECK_H

#include "publisher.h"

#define OK(call)                                                                           \
    do {                                                                                   \
        int ok_r = (call);                                                                 \
        if (ok_r < 0)                                                                      \
            fail_msg("%s: %d: %s", #call, ok_r, gatherfs_error());                         \
    } while (0)
#define FAILS(call, code, words)                                                           \
    do {                                                                                   \
        assert_int_equal(call, -(code));                                                   \
        if (!strstr(gatherfs_error(), (words)))                                            \
            fail_msg("%s: '%s' does not say '%s'", #call, gatherfs_error(), (words));      \
    } while (0)
#define SEC 1000

/* tensors of job_fill */
enum { W, FROZEN, MEAN, BIG };
static const uint8_t only_w[1] = { 1 };

static inline void expect(struct reader *r, uint16_t type)
{
    int e = reader_wait(r, 5 * SEC);

    if (e != type)
        fail_msg("message %d (%s), expected %d", e,
                 e == GF_LIVE_BUSY || e == GF_LIVE_MISSED ? gf_live_why_text(r->msg.why)
                                                          : "",
                 type);
}

static inline void expect_why(struct reader *r, uint16_t type, uint32_t why)
{
    expect(r, type);
    assert_string_equal(gf_live_why_text(r->msg.why), gf_live_why_text(why));
}

#endif
