/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slots.c - the memory that snapshots live in. It is made for the first reader, faulted in
 * by the service thread before anything is copied (the first touch of shared memory costs ten
 * times the copy), kept between snapshots, and given up when the reader goes.
 */
#include "live/publish_int.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/math.h"
#include "live/channel.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif
#define PAGE ((uint64_t)4096)

void gf_pub_memory_done(struct gf_pub_memory *memory)
{
    if (memory->map)
        munmap(memory->map, memory->size);
    if (memory->fd >= 0)
        close(memory->fd);
    *memory = (struct gf_pub_memory){ .fd = -1 };
}

/* Bytes that a memory really takes. */
static uint64_t taken(const struct gf_pub_memory *memory)
{
    struct stat st;

    return memory->fd >= 0 && fstat(memory->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512
                                                          : 0;
}

/* Under the lock. */
static void count_memory(struct gatherfs_pub *pub)
{
    uint64_t sum = taken(&pub->statics);

    for (uint32_t i = 0; i < GF_LIVE_MAX_SLOTS; i++)
        sum += taken(&pub->slots[i].memory);
    gf_pub_count(pub, memory, sum);
}

/* ---------------------------------------------------------------- sets */

void gf_pub_set_done(struct gf_pub_set *set)
{
    free(set->bitmap);
    free(set->slot.at);
    free(set->statics.at);
    *set = (struct gf_pub_set){ 0 };
}

/* Tensors lie in the order of the table, so their pages can be joined as they come. */
static bool add_run(struct gf_pub_runs *runs, size_t room, uint64_t at, uint64_t len)
{
    uint64_t end = gf_align(at + len, PAGE);
    struct gf_pub_run *last = runs->n ? &runs->at[runs->n - 1] : NULL;

    at &= ~(PAGE - 1);
    if (last && at <= last->end) {
        runs->pages += end - last->end;
        last->end = end;
        return true;
    }
    if (!runs->at && !(runs->at = calloc(room, sizeof(*runs->at))))
        return false;
    runs->at[runs->n++] = (struct gf_pub_run){ at, end };
    runs->pages += end - at;
    return true;
}

int gf_pub_set_new(struct gatherfs_pub *pub, uint32_t id, const uint8_t *bitmap,
                   struct gf_err *err)
{
    struct gf_pub_set *set = &pub->sets[id];
    size_t len = (size_t)gf_ceil_div(pub->table.n, 8);

    gf_pub_set_done(set);
    pub->fault.memory = NULL;
    pub->static_for = 0;
    for (uint32_t i = 0; i < GF_LIVE_MAX_SLOTS; i++)
        pub->slots[i].faulted &= ~(1u << id);
    set->bitmap = malloc(len + 1);
    if (!set->bitmap)
        return gf_nomem(err);
    memcpy(set->bitmap, bitmap, len);
    for (uint32_t i = 0; i < pub->table.n; i++) {
        const struct gf_live_tensor *t = &pub->table.at[i];
        bool is_static = t->flags & GF_LIVE_STATIC;

        if (!gf_live_set_has(bitmap, i) || !t->nbytes)
            continue;
        if (!add_run(is_static ? &set->statics : &set->slot, pub->table.n, t->data_off,
                     t->nbytes)) {
            gf_pub_set_done(set);
            return gf_nomem(err);
        }
        set->bytes += is_static ? 0 : t->nbytes;
        set->buffers |= t->flags & GF_LIVE_BUFFER;
    }
    return 0;
}

/* ---------------------------------------------------------------- faulting in */

static int check_budget(struct gatherfs_pub *pub, const struct gf_pub_memory *memory,
                        const struct gf_pub_runs *runs, uint64_t *missing)
{
    uint64_t have = taken(memory), need = runs->pages - GF_MIN(have, runs->pages), left;

    if (need == 0)
        return 0;
    if (pub->memory_limit && (pub->stats.memory > pub->memory_limit ||
                              need > pub->memory_limit - pub->stats.memory)) {
        *missing = pub->stats.memory + need - pub->memory_limit;
        return -ENOMEM;
    }
    /* Other ranks of this node may be doing the same at this moment. */
    left = gf_budget_available("");
    need += need / 16 + ((uint64_t)64 << 20);
    if (need > left) {
        *missing = need - left;
        return -ENOMEM;
    }
    return 0;
}

static int make(struct gatherfs_pub *pub, const char *name, uint64_t size,
                struct gf_pub_memory *memory)
{
    void *map;
    int r;

    if (memory->map)
        return 0;
    size = gf_align(GF_MAX(size, 1), PAGE);
    pthread_mutex_lock(&pub->lock);
    r = gf_live_memory_new(name, size, &memory->fd, &map, NULL);
    if (r == 0) {
        memory->map = map;
        memory->size = size;
    }
    pthread_mutex_unlock(&pub->lock);
    return r ? -ENOMEM : 0;
}

static int populate(const struct gf_pub_memory *memory, uint64_t at, uint64_t len)
{
    if (madvise(memory->map + at, len, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno == EINTR || errno == EAGAIN)
        return 0;
    if (errno == EINVAL && fallocate(memory->fd, 0, (off_t)at, (off_t)len) == 0)
        return 0;
    return -ENOMEM;
}

/* A chunk of faulting in: 1 all done, 0 call again. */
static int fault(struct gatherfs_pub *pub, const struct gf_pub_memory *memory,
                 const struct gf_pub_runs *runs, uint64_t *missing)
{
    struct gf_pub_fault *f = &pub->fault;
    uint64_t budget = GF_PUB_CHUNK, len;

    if (f->memory != memory || f->runs != runs) {
        if (check_budget(pub, memory, runs, missing))
            return -ENOMEM;
        *f = (struct gf_pub_fault){ .memory = memory, .runs = runs };
    }
    for (; f->run < runs->n; f->run++, f->at = 0) {
        const struct gf_pub_run *run = &runs->at[f->run];

        len = GF_MIN(run->end - run->at - f->at, budget);
        if (len && populate(memory, run->at + f->at, len)) {
            *missing = run->end - run->at - f->at;
            return -ENOMEM;
        }
        f->at += len;
        budget -= len;
        if (f->at < run->end - run->at)
            return 0;
    }
    f->memory = NULL;
    return 1;
}

static int give_up(struct gatherfs_pub *pub, struct gf_pub_memory *memory)
{
    pub->fault.memory = NULL;
    pthread_mutex_lock(&pub->lock);
    gf_pub_memory_done(memory);
    count_memory(pub);
    pthread_mutex_unlock(&pub->lock);
    return -ENOMEM;
}

int gf_pub_fault_slot(struct gatherfs_pub *pub, uint32_t slot, uint32_t set,
                      uint64_t *missing)
{
    struct gf_pub_slot *s = &pub->slots[slot];
    char name[32];
    int r;

    snprintf(name, sizeof(name), "gatherfs-slot%u", slot);
    *missing = pub->sets[set].slot.pages;
    if (make(pub, name, pub->table.slot_bytes, &s->memory))
        return -ENOMEM;
    r = fault(pub, &s->memory, &pub->sets[set].slot, missing);
    if (r < 0) {
        s->faulted = 0;
        s->sent = false;
        return give_up(pub, &s->memory);
    }
    if (r > 0) {
        pthread_mutex_lock(&pub->lock);
        s->faulted |= 1u << set;
        count_memory(pub);
        pthread_mutex_unlock(&pub->lock);
    }
    return r;
}

int gf_pub_fill_static(struct gatherfs_pub *pub, uint32_t id, uint64_t *missing)
{
    struct gf_pub_set *set = &pub->sets[id];
    uint64_t moved = 0;
    bool done;
    int r;

    if (set->filled || set->statics.pages == 0)
        return 1;
    *missing = set->statics.pages;
    if (!pub->static_done && !(pub->static_done = calloc(1, pub->table.n / 8 + 1)))
        return -ENOMEM;
    if (make(pub, "gatherfs-static", pub->table.static_bytes, &pub->statics))
        return -ENOMEM;
    if (pub->static_for != id + 1) {
        r = fault(pub, &pub->statics, &set->statics, missing);
        if (r <= 0)
            return r; /* what other sets have there stays */
        pub->static_for = id + 1;
        pub->static_at = (struct gf_pub_cursor){ 0 };
    }
    pthread_mutex_lock(&pub->lock);
    pub->reading++;
    pthread_mutex_unlock(&pub->lock);
    done = gf_pub_copy_static(pub, set, &pub->static_at, pub->statics.map, pub->static_done,
                              GF_PUB_CHUNK, &moved);
    pthread_mutex_lock(&pub->lock);
    pub->reading--;
    gf_pub_count(pub, bytes, pub->stats.bytes + moved);
    count_memory(pub);
    pthread_cond_broadcast(&pub->changed);
    pthread_mutex_unlock(&pub->lock);
    set->filled = done;
    return done;
}

void gf_pub_drop_memory(struct gatherfs_pub *pub)
{
    pthread_mutex_lock(&pub->lock);
    while (pub->reading)
        pthread_cond_wait(&pub->changed, &pub->lock);
    for (uint32_t i = 0; i < GF_LIVE_MAX_SLOTS; i++) {
        struct gf_pub_slot *slot = &pub->slots[i];

        gf_pub_memory_done(&slot->memory);
        *slot = (struct gf_pub_slot){ .memory = { .fd = -1 }, .seq = slot->seq & ~1ull };
    }
    gf_pub_memory_done(&pub->statics);
    free(pub->static_done);
    pub->static_done = NULL;
    pub->static_for = 0;
    pub->static_sent = false;
    pub->fault.memory = NULL;
    for (uint32_t i = 0; i < GF_LIVE_MAX_SETS; i++)
        gf_pub_set_done(&pub->sets[i]);
    count_memory(pub);
    pthread_mutex_unlock(&pub->lock);
}
