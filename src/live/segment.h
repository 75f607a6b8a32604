/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment.h - what a publisher (a rank of a training job) and an agent (a gatherfs process
 * on its node) say to each other, and how the memory they share is laid out. Pure: no I/O
 * here; channel.h sends, receives and maps, rundir.h finds jobs.
 *
 * WHERE.  BASE/JOB/rank-R.sock, one listening SOCK_SEQPACKET socket for each rank of this
 * node; BASE/JOB/model/ holds small side files (config.json, tokenizer). See rundir.h.
 *
 * WHO.  One agent at a time for each publisher; a second one gets BUSY and is closed. The
 * end of the connection is the crash detector of both sides. Neither believes the other:
 * whatever fails to parse here ends the connection, and shared memory is sealed so that the
 * agent cannot write and the publisher cannot shrink it (channel.h checks).
 *
 * MESSAGES.  64 bytes, host byte order (both sides are one machine), `len` says how long
 * the whole message is: a known head is followed by what later versions may add. Unknown
 * types are ignored. Requests get exactly one answer each; at most one SELECT and one ARM
 * may be waiting for theirs.
 *
 *   publisher                                      agent
 *      HELLO incarnation bytes step    +control -->           first message
 *      <-- SELECT set slots              bitmap               which tensors, how many slots
 *      SELECTED set bytes             [+static] -->           memory is there, faulted in
 *        or BUSY set why bytes                  -->
 *      <-- ARM req step set                                   snapshot at commit(step)
 *      READY req step slot seq set [+slot memfd] -->          copied; leased to the agent
 *        or MISSED req step why                 -->           step = where it is now
 *        or BUSY req why                        -->
 *      <-- CANCEL req                                         answered as BUSY cancelled, or
 *                                                             crosses another answer
 *      <-- RELEASE slot seq                                   the lease of that READY ends
 *      TABLE incarnation bytes step    +control -->           new tensors: sets are forgotten,
 *                                                             leases stay valid, what waits
 *                                                             was answered BUSY table before
 *      FINAL step                               -->           training is over: ARM(step) once
 *      <-- BYE                                                more if wanted, then BYE
 *      BYE                                      -->           orderly end; leases stay valid
 *
 * A memfd comes with the first message that needs it: the control memfd with HELLO and each
 * TABLE, the static memfd with the first SELECTED of an incarnation whose set has static
 * tensors, a slot memfd with READY when GF_LIVE_FD is set (a slot's memory may be replaced).
 * The publisher never writes to a slot again while its lease lasts, and drops (never reuses)
 * slots whose agent went away or whose table is gone: whoever still maps them keeps them.
 *
 * STEPS.  ARM(S): S past the current step waits for commit(S); S == current step while the
 * weights are not being changed is copied at once (MISSED why=GF_LIVE_WHY_BUFFERS where the set
 * has buffers, which forward changes: arm a later step); all else is MISSED. S is the number
 * passed to commit(); before the first commit it is the publisher's start step.
 *
 * CONTROL MEMORY                                  SLOT k            STATIC
 *   0     struct gf_live_control (one page:       +-----------+     +-----------+
 *         identity, live status, slots, metrics)  | tensor 0  |     | frozen a  |
 *   4096  struct gf_live_entry [ntensors]         | (64-byte  |     | frozen b  |
 *   ...   names, back to back, no NUL             |  aligned) |     | ...       |
 *                                                 | tensor 1  |     +-----------+
 * Each tensor has a fixed place, `data_off`, in every slot, or in the static memory if it is
 * GF_LIVE_STATIC. Those outside the set of a snapshot hold garbage there. Identity, entries
 * and names never change after HELLO or TABLE, but read them out (pread) before parsing: the
 * publisher could change them meanwhile. The status is for people, never for correctness.
 */
#ifndef GF_LIVE_SEGMENT_H
#define GF_LIVE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

#define GF_LIVE_VERSION 1
#define GF_LIVE_DIMS 8                          /* dimensions of a live tensor */
#define GF_LIVE_MAX_TENSORS ((uint32_t)1 << 18) /* entries of one rank */
#define GF_LIVE_MAX_SLOTS 8
#define GF_LIVE_MAX_SETS 8 /* set ids are 0..7 */
#define GF_LIVE_MAX_WORLD ((uint32_t)1 << 20)
#define GF_LIVE_ALIGN 64
#define GF_LIVE_METRICS 32
#define GF_LIVE_METRIC_NAME 39 /* bytes */

/* ---------------------------------------------------------------- messages */

enum gf_live_type {
    GF_LIVE_HELLO = 1, /* publisher: */
    GF_LIVE_TABLE = 2,
    GF_LIVE_SELECTED = 3,
    GF_LIVE_READY = 4,
    GF_LIVE_MISSED = 5,
    GF_LIVE_BUSY = 6,
    GF_LIVE_FINAL = 7,
    GF_LIVE_BYE = 8,     /* either */
    GF_LIVE_SELECT = 16, /* agent: */
    GF_LIVE_ARM = 17,
    GF_LIVE_CANCEL = 18,
    GF_LIVE_RELEASE = 19,
};

/* Why there is no snapshot. */
enum gf_live_why {
    GF_LIVE_WHY_NONE = 0,
    GF_LIVE_WHY_PASSED = 1,   /* MISSED: the step is over */
    GF_LIVE_WHY_MUTATING = 2, /* MISSED: weights are being changed right now */
    GF_LIVE_WHY_BUFFERS = 3,  /* MISSED: only at a commit, not later; arm a later step */
    GF_LIVE_WHY_SLOW = 4,     /* MISSED: the slot's memory was not there in time; again */
    GF_LIVE_WHY_PENDING = 5,  /* BUSY: an earlier request has no answer yet */
    GF_LIVE_WHY_NO_SLOT = 6,  /* BUSY: all slots are leased */
    GF_LIVE_WHY_NO_MEMORY =
        7,                   /* BUSY: `bytes` more are needed than the node or limit has */
    GF_LIVE_WHY_STALLED = 8, /* BUSY: training would have waited more than max_stall */
    GF_LIVE_WHY_CANCELLED = 9, /* BUSY: as asked */
    GF_LIVE_WHY_NO_TABLE = 10, /* BUSY: the table changed or is being changed */
    GF_LIVE_WHY_NO_SET = 11,   /* BUSY: SELECT that set first */
    GF_LIVE_WHY_TAKEN = 12,    /* BUSY: another agent is connected; then closed */
    GF_LIVE_WHY_END
};

/* "all slots are leased"; for messages to people. */
const char *gf_live_why_text(uint32_t why);

#define GF_LIVE_FD 1u /* msg.flags: a descriptor comes with this message */

struct gf_live_msg {
    uint32_t magic; /* set by encode, checked by decode */
    uint16_t version;
    uint16_t type;
    uint32_t len; /* of the whole message, payload included */
    uint32_t flags;
    uint32_t req; /* ARM, CANCEL and their answers: the agent's number, never 0; a BUSY with
                     req 0 answers a SELECT */
    uint32_t why;
    uint32_t set;  /* SELECT, SELECTED, BUSY (of a SELECT), ARM, READY */
    uint32_t slot; /* READY, RELEASE: index; SELECT: how many slots to have ready */
    uint64_t step;
    uint64_t seq; /* READY, RELEASE: which lease of that slot */
    uint64_t incarnation;
    uint64_t bytes; /* HELLO, TABLE: of the control memory; SELECTED: of one snapshot of the
                       set; READY: copied; BUSY no memory: missing */
};

#define GF_LIVE_MSG_MAX (sizeof(struct gf_live_msg) + GF_LIVE_MAX_TENSORS / 8)

/* Fills magic, version and len: the message is these 64 bytes, then `payload` bytes. */
void gf_live_msg_seal(struct gf_live_msg *msg, size_t payload);

/* Takes a received message apart. *ret is sound for its type (known set, slot and why
 * numbers), *ret_payload points at what follows the head in `data`. A type that this
 * version does not know is -ENOMSG (ignore it); GF_EBAD: drop the peer. */
int gf_live_msg_parse(const void *data, size_t size, struct gf_live_msg *ret,
                      const uint8_t **ret_payload, size_t *ret_len, struct gf_err *err);

/* The bitmap of SELECT: bit i = tensor i, ceil(n / 8) bytes, the rest of the last is 0. */
int gf_live_set_check(const uint8_t *bitmap, size_t len, uint32_t ntensors,
                      struct gf_err *err);
static inline bool gf_live_set_has(const uint8_t *bitmap, uint32_t tensor)
{
    return bitmap[tensor / 8] >> tensor % 8 & 1;
}

/* ---------------------------------------------------------------- control memory */

enum gf_live_phase { GF_LIVE_STABLE = 0, GF_LIVE_MUTATING = 1, GF_LIVE_FINISHED = 2 };

enum gf_live_flags {
    GF_LIVE_FLAT = 1,   /* elements [flat_off, flat_off + count) of the flattened tensor */
    GF_LIVE_STATIC = 2, /* never changes; in the static memory, copied once */
    GF_LIVE_BUFFER = 4, /* a module's buffer: forward may change it */
    GF_LIVE_ALIAS = 8,  /* tied: the data is that of entry `alias`; this one has none */
    GF_LIVE_FROZEN = 16 /* requires_grad is false */
};
#define GF_LIVE_FLAGS 31u

enum gf_live_slot_state { GF_LIVE_FREE = 0, GF_LIVE_FILLING = 1, GF_LIVE_LEASED = 2 };

/* Written by the publisher alone, each word atomically and on its own. */
struct gf_live_status {
    uint64_t step, phase;  /* enum gf_live_phase */
    uint64_t commits;      /* since the start */
    uint64_t commit_ns;    /* CLOCK_REALTIME of the last one */
    uint64_t heartbeat_ns; /* CLOCK_REALTIME, each second while an agent is connected */
    uint64_t step_ns;      /* time from commit to commit, smoothed */
    uint64_t copy_ns;      /* the last snapshot's copy took this long */
    uint64_t snapshots;    /* READY sent */
    uint64_t missed, busy; /* MISSED and BUSY sent for an ARM */
    uint64_t bytes;        /* copied in all */
    uint64_t stall_ns;     /* training waited in begin() and commit(), in all */
    uint64_t stall_max_ns; /* the longest wait */
    uint64_t memory;       /* bytes held now for slots and static tensors */
    uint64_t memory_limit; /* 0: none but the node's */
    uint64_t background;   /* last snapshot: 1 copied by the service thread, 0 in commit */
};

struct gf_live_slot_status {
    uint64_t state; /* enum gf_live_slot_state */
    uint64_t seq;   /* odd while filling */
    uint64_t step, set, bytes;
    uint64_t commit; /* how many commits there had been */
    uint64_t reserved[2];
};

struct gf_live_metric {
    char name[GF_LIVE_METRIC_NAME + 1]; /* "" = free from here on */
    uint64_t value;                     /* the bits of a double */
    uint64_t step;
    uint64_t seq; /* odd while being written */
};

struct gf_live_control {
    uint64_t magic;
    uint32_t version, header; /* header = sizeof(struct gf_live_control) */
    uint8_t run_id[16];       /* equal on all ranks of one start of a job */
    uint64_t incarnation;     /* of this table; grows, also over restarts */
    uint64_t total;           /* bytes of the control memory */
    uint32_t rank, world;
    uint32_t nslots, ntensors;
    uint64_t slot_bytes, static_bytes;
    uint64_t names, names_len; /* where the names are */
    uint64_t start_ns;         /* CLOCK_REALTIME */
    int32_t pid;               /* as the trainer sees itself */
    uint32_t entry;            /* sizeof(struct gf_live_entry) */
    char job[64], framework[32];
    uint8_t pad0[512 - 208];
    struct gf_live_status status; /* at 512 */
    uint8_t pad1[512 - sizeof(struct gf_live_status)];
    struct gf_live_slot_status slots[GF_LIVE_MAX_SLOTS]; /* at 1024 */
    uint8_t pad2[512];
    struct gf_live_metric metrics[GF_LIVE_METRICS]; /* at 2048 */
};

struct gf_live_entry {
    uint64_t name; /* offset from `names` */
    uint32_t name_len, flags;
    char dtype[16]; /* as safetensors names it: "BF16" */
    uint32_t rank;  /* dimensions */
    uint32_t alias;
    uint32_t replica,
        replicas; /* which of how many equal copies of this piece in the job */
    uint64_t shape[GF_LIVE_DIMS];
    uint64_t local[GF_LIVE_DIMS], first[GF_LIVE_DIMS]; /* not flat: this rank's box */
    uint64_t stride[GF_LIVE_DIMS];                     /* of the box in memory, elements */
    uint64_t flat_off, count;                          /* elements of this rank's piece */
    uint64_t nbytes, data_off;
    uint8_t reserved[48];
};

_Static_assert(sizeof(struct gf_live_msg) == 64, "a message is 64 bytes");
_Static_assert(sizeof(struct gf_live_control) == 4096, "the header is one page");
_Static_assert(offsetof(struct gf_live_control, status) == 512, "pad0");
_Static_assert(offsetof(struct gf_live_control, metrics) == 2048, "pad2");
_Static_assert(sizeof(struct gf_live_entry) == 384, "entries are packed");

/* One tensor piece of one rank, parsed and sound: the box lies in the shape, the bytes in
 * the slot (or the static memory). Several entries may carry one name: pieces of it. */
struct gf_live_tensor {
    const char *name; /* UTF-8 and NUL-free are the catalog's check; NUL-terminated here */
    enum gf_dtype dtype;
    uint32_t flags; /* enum gf_live_flags */
    uint32_t
        alias; /* entry with the same shape and dtype that is no alias; else own index */
    uint32_t replica, replicas;
    struct gf_shape shape; /* of the whole tensor */
    const uint64_t *local, *first,
        *stride;               /* shape.rank entries each; not for FLAT, ALIAS */
    uint64_t flat_off;         /* FLAT */
    uint64_t count;            /* elements of the piece; 0: nothing is here */
    uint64_t nbytes, data_off; /* with strides, nbytes spans the piece: >= count * size */
};

struct gf_live_table {
    uint8_t run_id[16];
    uint64_t incarnation, start_ns;
    uint32_t rank, world, nslots;
    int32_t pid;
    uint64_t slot_bytes, static_bytes;
    char job[64], framework[32];
    uint32_t n;
    struct gf_live_tensor *at;
    void *memory; /* what `at` points into */
};

/* Parses a private copy of the control memory; `what` names it in errors. */
int gf_live_table_parse(const char *what, const void *data, size_t size,
                        const struct gf_limits *limits, struct gf_live_table **ret,
                        struct gf_err *err);
void gf_live_table_free(struct gf_live_table *table);
GF_DEFINE_AUTO(gf_live_table);

/* Gives each tensor its data_off and nbytes, the table its slot_bytes and static_bytes. */
int gf_live_table_place(struct gf_live_table *table, struct gf_err *err);
/* Bytes of the control memory of a placed table, and writing it (status all 0). */
int gf_live_table_size(const struct gf_live_table *table, uint64_t *ret,
                       struct gf_err *err);
void gf_live_table_write(const struct gf_live_table *table, uint64_t size, void *control);

/* The live words of a mapped control memory. */
void gf_live_status_load(const struct gf_live_control *control, struct gf_live_status *ret);
/* Metric i; false: there is none, or it is being written. name becomes NUL-terminated. */
bool gf_live_metric_load(const struct gf_live_control *control, uint32_t i,
                         char name[GF_LIVE_METRIC_NAME + 1], double *ret_value,
                         uint64_t *ret_step);

#endif
