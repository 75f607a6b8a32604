/* SPDX-License-Identifier: Apache-2.0 */
#include "job/ranks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/math.h"
#include "base/strmap.h"
#include "base/text.h"
#include "base/vec.h"
#include "live/channel.h"

/* ---------------------------------------------------------------- memory */

int gf_memory_map(const char *what, int fd, uint64_t size, struct gf_memory **ret,
                  struct gf_err *err)
{
    struct gf_memory *memory = calloc(1, sizeof(*memory));
    const void *p = NULL;
    int r = memory ? gf_live_memory_map(what, fd, size, &p, err) : gf_nomem(err);

    if (r) {
        free(memory);
        close(fd);
        return r;
    }
    atomic_init(&memory->refs, 1);
    memory->bytes = p;
    memory->size = size;
    memory->fd = fd;
    *ret = memory;
    return 0;
}

struct gf_memory *gf_memory_ref(struct gf_memory *memory)
{
    atomic_fetch_add(&memory->refs, 1);
    return memory;
}

void gf_memory_free(struct gf_memory *memory)
{
    if (!memory || atomic_fetch_sub(&memory->refs, 1) > 1)
        return;
    munmap((void *)(uintptr_t)memory->bytes, memory->size);
    close(memory->fd);
    free(memory);
}

/* ---------------------------------------------------------------- what a rank says */

static struct gf_said *said_ref(struct gf_said *said)
{
    atomic_fetch_add(&said->refs, 1);
    return said;
}

void gf_said_free(struct gf_said *said)
{
    if (!said || atomic_fetch_sub(&said->refs, 1) > 1)
        return;
    gf_live_table_free(said->table);
    gf_memory_free(said->control);
    free(said);
}

/* Bytes of the largest table that is believed: the header, the entries, their names. */
static uint64_t table_max(const struct gf_limits *limits)
{
    return sizeof(struct gf_live_control) +
           GF_LIVE_MAX_TENSORS *
               (uint64_t)(sizeof(struct gf_live_entry) + GF_MIN(limits->name, 4096u));
}

static int read_all(int fd, uint8_t *buf, uint64_t size)
{
    for (uint64_t at = 0; at < size;) {
        ssize_t n = pread(fd, buf + at, size - at, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO;
        at += (uint64_t)n;
    }
    return 0;
}

int gf_said_read(uint32_t rank, int fd, uint64_t size, const struct gf_limits *limits,
                 struct gf_said **ret, struct gf_err *err)
{
    GF_AUTO(gf_said) said = calloc(1, sizeof(*said));
    GF_AUTO_MEM uint8_t *copy = NULL;
    char what[64];
    int r = 0;

    snprintf(what, sizeof(what), "rank %" PRIu32 ": its table", rank);
    if (!said)
        r = gf_nomem(err);
    else if (size < sizeof(struct gf_live_control) || size > table_max(limits))
        r = gf_fail(err, GF_EBAD, "%s: %" PRIu64 " bytes are too %s for one", what, size,
                    size > table_max(limits) ? "many" : "few");
    if (r) {
        close(fd);
        return r;
    }
    atomic_init(&said->refs, 1);
    r = gf_memory_map(what, fd, size, &said->control, err);
    if (r)
        return r;
    /* The publisher could change it while it is parsed. */
    copy = malloc(size);
    r = copy ? read_all(said->control->fd, copy, size) : -ENOMEM;
    if (r)
        return gf_fail(err, -r, "%s: %s", what, strerror(-r));
    r = gf_live_table_parse(what, copy, size, limits, &said->table, err);
    if (!r && said->table->rank != rank)
        r = gf_fail(err, GF_EBAD, "rank %" PRIu32 ": says that it is rank %" PRIu32, rank,
                    said->table->rank);
    if (!r)
        *ret = gf_take(&said);
    return r;
}

/* ---------------------------------------------------------------- agreement */

static void run_text(const struct gf_live_table *table, char ret[static 17])
{
    for (size_t i = 0; i < 8; i++)
        snprintf(ret + i * 2, 3, "%02x", table->run_id[i]);
}

static int missing(const char *job, struct gf_said *const *said, size_t n, uint32_t world,
                   struct gf_err *err)
{
    struct gf_text list = { 0 };
    size_t named = 0, at = 0;
    int r;

    for (uint32_t rank = 0; rank < world && named < 8; rank++) {
        if (at < n && said[at]->table->rank == rank) {
            at++;
            continue;
        }
        gf_text_printf(&list, "%s%" PRIu32, named++ ? ", " : "", rank);
    }
    r = gf_fail(err, GF_EINCOMPLETE,
                "job '%s': %zu of %" PRIu32
                " ranks are here; missing on this node: rank %s%s",
                job, n, world, list.s ? list.s : "?", world - n > named ? ", ..." : "");
    gf_text_done(&list);
    return r;
}

int gf_ranks_agree(const char *job, struct gf_said *const *said, size_t n,
                   struct gf_err *err)
{
    const struct gf_live_table *first = n ? said[0]->table : NULL;

    if (!first)
        return gf_fail(err, GF_EINCOMPLETE, "job '%s': no rank of it is here", job);
    for (size_t i = 1; i < n; i++) {
        const struct gf_live_table *t = said[i]->table;
        char a[17], b[17];

        run_text(first, a);
        run_text(t, b);
        if (memcmp(t->run_id, first->run_id, sizeof(t->run_id)) != 0)
            return gf_fail(err, EINVAL,
                           "job '%s': rank %" PRIu32 " is of run %s, rank %" PRIu32
                           " of run %s",
                           job, first->rank, a, t->rank, b);
        if (t->world != first->world)
            return gf_fail(err, EINVAL,
                           "job '%s': rank %" PRIu32 " is one of %" PRIu32 ", rank %" PRIu32
                           " one of %" PRIu32,
                           job, first->rank, first->world, t->rank, t->world);
    }
    return n < first->world ? missing(job, said, n, first->world, err) : 0;
}

/* ---------------------------------------------------------------- replicas */

struct chosen {
    struct gf_ranks *ranks;
    struct gf_arena arena;
    struct gf_strmap pieces;      /* of which there are copies -> index in `best` */
    struct GF_VEC(uint64_t) best; /* rank index << 32 | entry */
};

static void put_bit(uint8_t *set, uint32_t i, bool on)
{
    set[i / 8] = (uint8_t)((set[i / 8] & ~(1u << i % 8)) | (unsigned)on << i % 8);
}

/* Equal for copies of one piece. */
static char *piece_key(struct gf_arena *arena, const struct gf_live_tensor *t)
{
    struct gf_text key = { 0 };
    char *s;

    gf_text_printf(&key, "%s\n%" PRIu64, t->name, t->count);
    if (t->flags & GF_LIVE_FLAT)
        gf_text_printf(&key, " @%" PRIu64, t->flat_off);
    for (uint32_t d = 0; d < t->shape.rank && !(t->flags & GF_LIVE_FLAT); d++)
        gf_text_printf(&key, " %" PRIu64 "+%" PRIu64, t->first[d], t->local[d]);
    s = key.failed ? NULL : gf_arena_strdup(arena, key.s);
    gf_text_done(&key);
    return s;
}

static uint32_t replica_of(const struct gf_ranks *ranks, uint64_t place)
{
    return ranks->at[place >> 32].table->at[(uint32_t)place].replica;
}

/* The lowest replica that is here. */
static int choose_copy(struct chosen *c, uint32_t rank, uint32_t entry)
{
    const struct gf_live_tensor *t = &c->ranks->at[rank].table->at[entry];
    uint64_t place = (uint64_t)rank << 32 | entry, old;
    char *key = piece_key(&c->arena, t);
    int r = key ? gf_strmap_put(&c->pieces, key, c->best.n, &old) : -ENOMEM;

    if (!r) {
        put_bit(c->ranks->at[rank].set, entry, true);
        return gf_vec_push(&c->best, place, SIZE_MAX / sizeof(place));
    }
    if (r != -EEXIST)
        return r;
    if (t->replica < replica_of(c->ranks, c->best.at[old])) {
        uint64_t worse = c->best.at[old];

        put_bit(c->ranks->at[worse >> 32].set, (uint32_t)worse, false);
        put_bit(c->ranks->at[rank].set, entry, true);
        c->best.at[old] = place;
    }
    return 0;
}

static int choose(struct gf_ranks *ranks, struct gf_err *err)
{
    struct chosen c = { .ranks = ranks };
    int r = 0;

    for (uint32_t i = 0; i < ranks->n; i++)
        for (uint32_t k = 0; k < ranks->at[i].table->n && !r; k++) {
            const struct gf_live_tensor *t = &ranks->at[i].table->at[k];

            if (!t->count || (t->flags & GF_LIVE_ALIAS))
                continue;
            if (t->replicas > 1)
                r = choose_copy(&c, i, k);
            else
                put_bit(ranks->at[i].set, k, true);
        }
    gf_strmap_done(&c.pieces);
    gf_arena_done(&c.arena);
    gf_vec_free(&c.best);
    for (uint32_t i = 0; i < ranks->n; i++)
        for (uint32_t k = 0; k < ranks->at[i].table->n; k++) {
            bool rests = ranks->at[i].table->at[k].flags & GF_LIVE_STATIC;

            if (!gf_live_set_has(ranks->at[i].set, k))
                continue;
            ranks->at[i].resting |= rests;
            ranks->at[i].moving |= !rests;
        }
    return r ? gf_nomem(err) : 0;
}

/* ---------------------------------------------------------------- all of them */

int gf_ranks_new(struct gf_said *const *said, size_t n, struct gf_ranks **ret,
                 struct gf_err *err)
{
    GF_AUTO(gf_ranks) ranks = calloc(1, sizeof(*ranks));
    int r = 0;

    if (ranks) {
        atomic_init(&ranks->refs, 1);
        ranks->at = calloc(n, sizeof(*ranks->at));
    }
    if (!ranks || !ranks->at)
        return gf_nomem(err);
    ranks->world = said[0]->table->world;
    for (size_t i = 0; i < n && !r; i++) {
        struct gf_rank *rank = &ranks->at[i];

        rank->said = said_ref(said[i]);
        rank->table = said[i]->table;
        ranks->n++;
        rank->set = calloc(gf_ceil_div(rank->table->n, 8) + 1, 1);
        if (!rank->set)
            r = gf_nomem(err);
    }
    if (!r)
        r = choose(ranks, err);
    if (!r)
        *ret = gf_take(&ranks);
    return r;
}

struct gf_ranks *gf_ranks_ref(struct gf_ranks *ranks)
{
    atomic_fetch_add(&ranks->refs, 1);
    return ranks;
}

void gf_ranks_free(struct gf_ranks *ranks)
{
    if (!ranks || atomic_fetch_sub(&ranks->refs, 1) > 1)
        return;
    for (uint32_t i = 0; i < ranks->n; i++) {
        gf_said_free(ranks->at[i].said);
        gf_memory_free(ranks->at[i].frozen);
        free(ranks->at[i].set);
    }
    free(ranks->at);
    free(ranks);
}
