/* SPDX-License-Identifier: Apache-2.0 */
#include "reader.h"

#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/math.h"

uint64_t reader_now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

uint64_t reader_step(const struct reader *reader)
{
    struct gf_live_status status;

    gf_live_status_load(reader->control, &status);
    return status.step;
}

static void unmap(const void *map, uint64_t size)
{
    if (map && size)
        munmap((void *)(uintptr_t)map, size);
}

static void drop_table(struct reader *r)
{
    if (!r->table)
        return;
    for (uint32_t i = 0; i < GF_LIVE_MAX_SLOTS; i++) {
        unmap(r->slots[i], r->table->slot_bytes);
        r->slots[i] = NULL;
    }
    unmap(r->statics, r->table->static_bytes);
    unmap(r->control, sizeof(*r->control));
    close(r->control_fd);
    gf_live_table_free(r->table);
    r->statics = NULL;
    r->control = NULL;
    r->table = NULL;
    r->control_fd = -1;
}

static int take_table(struct reader *r, int fd)
{
    GF_AUTO_MEM uint8_t *copy = malloc(r->msg.bytes);
    const void *map;
    int e;

    drop_table(r);
    if (!copy || pread(fd, copy, r->msg.bytes, 0) != (ssize_t)r->msg.bytes)
        return -EIO;
    if ((e = gf_live_memory_map("control", fd, sizeof(*r->control), &map, &r->err)))
        return e;
    r->control = map;
    r->control_fd = fd;
    return gf_live_table_parse("control", copy, r->msg.bytes, &gf_limits_default, &r->table,
                               &r->err);
}

static int take_memory(struct reader *r, int fd)
{
    bool is_slot = r->msg.type == GF_LIVE_READY;
    const uint8_t **place = is_slot ? &r->slots[r->msg.slot] : &r->statics;
    uint64_t size = is_slot ? r->table->slot_bytes : r->table->static_bytes;
    const void *map = NULL;
    int e = 0;

    unmap(*place, size);
    if (size)
        e = gf_live_memory_map("memory", fd, size, &map, &r->err);
    *place = map;
    close(fd);
    return e;
}

int reader_wait(struct reader *r, int timeout_ms)
{
    uint64_t until = reader_now_ms() + (uint64_t)timeout_ms;

    for (;;) {
        struct pollfd p = { .fd = r->sock, .events = POLLIN };
        uint64_t now = reader_now_ms();
        const uint8_t *payload;
        int fd = -1, e;
        size_t len;

        e = gf_live_recv(r->sock, r->buffer, &r->msg, &payload, &len, &fd, &r->err);
        if (e == 1) {
            if (fd >= 0) {
                bool table = r->msg.type == GF_LIVE_HELLO || r->msg.type == GF_LIVE_TABLE;

                if ((e = table ? take_table(r, fd) : take_memory(r, fd)))
                    return e;
            }
            return r->msg.type;
        }
        if (e < 0 && e != -ENOMSG)
            return e;
        if (now >= until)
            return 0;
        poll(&p, 1, (int)(until - now));
    }
}

int reader_wait_for(struct reader *r, uint16_t type, int timeout_ms)
{
    uint64_t until = reader_now_ms() + (uint64_t)timeout_ms;

    for (;;) {
        uint64_t now = reader_now_ms();
        int e = reader_wait(r, now < until ? (int)(until - now) : 0);

        if (e == type)
            return 0;
        if (e <= 0)
            return e ? e : -ETIMEDOUT;
    }
}

int reader_open(struct reader *r, const char *dir, uint32_t rank, int timeout_ms)
{
    uint64_t until = reader_now_ms() + (uint64_t)timeout_ms;
    char name[32];
    int e;

    *r = (struct reader){ .sock = -1, .control_fd = -1, .buffer = malloc(GF_LIVE_MSG_MAX) };
    snprintf(name, sizeof(name), "rank-%u.sock", rank);
    do {
        int dirfd = -1;

        e = gf_live_dir_open(dir, false, &dirfd, &r->err);
        if (e == 0) {
            e = gf_live_connect(dirfd, name, &r->sock, &r->err);
            close(dirfd);
        }
        if (e == 0) {
            int type = reader_wait(r, 2000);

            if (type == GF_LIVE_HELLO)
                return 0;
            e = type == GF_LIVE_BUSY ? -EBUSY : type < 0 ? type : -ETIMEDOUT;
            close(r->sock);
            r->sock = -1;
        }
        usleep(2000);
    } while (reader_now_ms() < until);
    reader_close(r);
    return e;
}

void reader_close(struct reader *r)
{
    drop_table(r);
    if (r->sock >= 0)
        close(r->sock);
    free(r->buffer);
    *r = (struct reader){ .sock = -1, .control_fd = -1 };
}

int reader_say(struct reader *r, struct gf_live_msg msg)
{
    return gf_live_send(r->sock, &msg, NULL, 0, -1);
}

int reader_select(struct reader *r, uint32_t set, uint32_t slots, const uint8_t *bits)
{
    size_t len = (size_t)gf_ceil_div(r->table->n, 8);
    GF_AUTO_MEM uint8_t *all = malloc(len + 1);
    struct gf_live_msg msg = { .type = GF_LIVE_SELECT,
                               .set = set,
                               .slot = slots,
                               .incarnation = r->table->incarnation };

    memset(all, 0xff, len);
    if (r->table->n % 8)
        all[len - 1] = (uint8_t)((1u << r->table->n % 8) - 1);
    return gf_live_send(r->sock, &msg, bits ? bits : all, len, -1);
}

int reader_arm(struct reader *r, uint32_t set, uint64_t step)
{
    return reader_say(r, (struct gf_live_msg){ .type = GF_LIVE_ARM,
                                               .req = ++r->requests,
                                               .set = set,
                                               .step = step,
                                               .incarnation = r->table->incarnation });
}

int reader_cancel(struct reader *r)
{
    return reader_say(r,
                      (struct gf_live_msg){ .type = GF_LIVE_CANCEL, .req = r->requests });
}

int reader_release(struct reader *r, uint32_t slot, uint64_t seq)
{
    return reader_say(r, (struct gf_live_msg){ .type = GF_LIVE_RELEASE,
                                               .slot = slot,
                                               .seq = seq,
                                               .incarnation = r->table->incarnation });
}

int reader_ready(struct reader *r, uint32_t slots)
{
    int e = reader_select(r, 0, slots, NULL);

    return e ? e : reader_wait_for(r, GF_LIVE_SELECTED, 10000);
}

int reader_snapshot(struct reader *r, uint64_t ahead, int timeout_ms)
{
    uint64_t until = reader_now_ms() + (uint64_t)timeout_ms;

    while (reader_now_ms() < until) {
        int e = reader_arm(r, 0, reader_step(r) + ahead);

        if (e == 0)
            e = reader_wait(r, timeout_ms);
        if (e == GF_LIVE_READY)
            return 0;
        if (e < 0)
            return e;
        if (e == 0)
            return -ETIMEDOUT;
        ahead = ahead ? ahead : 1;
    }
    return -ETIMEDOUT;
}
