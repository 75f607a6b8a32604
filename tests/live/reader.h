/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reader.h - the smallest agent: one connection to one publisher, spoken by hand, so that
 * tests can also say what no real agent would.
 */
#ifndef GF_TESTS_LIVE_READER_H
#define GF_TESTS_LIVE_READER_H

#include "live/channel.h"
#include "live/rundir.h"

struct reader {
    int sock, control_fd;
    uint8_t *buffer;
    struct gf_live_table *table;
    const struct gf_live_control *control;
    const uint8_t *slots[GF_LIVE_MAX_SLOTS]; /* mapped, table->slot_bytes long */
    const uint8_t *statics;
    uint32_t requests;
    struct gf_live_msg msg; /* the last one */
    struct gf_err err;
};

/* Connects to a rank of the job in that directory and waits for HELLO. Tries again while
 * the publisher is not there, or is busy with a reader that has just gone. 0 or -errno. */
int reader_open(struct reader *reader, const char *dir, uint32_t rank, int timeout_ms);
void reader_close(struct reader *reader);

/* Waits for the next message, keeps it in msg, takes its memory. Its type; 0 when the time is
 * over; -errno (-EPIPE: the publisher is gone). */
int reader_wait(struct reader *reader, int timeout_ms);
/* As reader_wait, but skips what is not `type`; 0 or -ETIMEDOUT, -errno. */
int reader_wait_for(struct reader *reader, uint16_t type, int timeout_ms);

/* All tensors, or those whose bits are set. Without waiting for the answer. */
int reader_select(struct reader *reader, uint32_t set, uint32_t slots, const uint8_t *bits);
int reader_arm(struct reader *reader, uint32_t set, uint64_t step);
int reader_cancel(struct reader *reader);
int reader_release(struct reader *reader, uint32_t slot, uint64_t seq);
int reader_say(struct reader *reader, struct gf_live_msg msg);

/* SELECT everything and wait for SELECTED. */
int reader_ready(struct reader *reader, uint32_t slots);
/* Snapshots of any step: arms `ahead` steps past the current one, again and again until
 * READY (in msg) or the time is over. */
int reader_snapshot(struct reader *reader, uint64_t ahead, int timeout_ms);

uint64_t reader_step(const struct reader *reader);
uint64_t reader_now_ms(void);

#endif
