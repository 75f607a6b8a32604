/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pickle_int.h - how values lie in memory, and the machine that makes them. Shared by the
 * opcodes (pickle.c), the machine's parts (pickle_machine.c) and the accessors
 * (pickle_value.c).
 *
 * A value is 16 bytes in the pickle's arena; what does not fit stands right behind it or,
 * for containers that grow, in an array of its own. Such an array always has room for the
 * next power of two, so that its room need not be stored; outgrown arrays stay in the
 * arena, which at most doubles it.
 */
#ifndef GF_CONTAINER_PICKLE_INT_H
#define GF_CONTAINER_PICKLE_INT_H

#include "base/arena.h"
#include "base/bytes.h"
#include "base/vec.h"
#include "container/pickle.h"

struct gf_pv {
    uint8_t kind;
    bool text;  /* STR, BYTES: valid UTF-8 without NUL */
    uint32_t n; /* bytes of a string, items, pairs */
    union {
        bool truth;
        int64_t integer;
        double real;
        char *s;           /* STR, BYTES: n bytes and a NUL */
        struct gf_pv **at; /* TUPLE, LIST, SET: n; DICT: key, value, key, value, ... */
        struct gf_pv *id;  /* PERSID */
        const char **path; /* GLOBAL: module, name */
        struct gf_pv_call *call;
    } u;
};

struct gf_pv_call {
    struct gf_pv *func, *args, *state;
    struct gf_pv *items; /* a DICT, NULL before the first SETITEM(S) */
    struct gf_pv *list;  /* a LIST, NULL before the first APPEND(S) or ADDITEMS */
};

struct gf_pickle {
    struct gf_arena arena;
    struct gf_pv *root;
    struct GF_VEC(struct gf_pv *) persids;
    /* Values that occur all the time: one of each. */
    struct gf_pv none, no, yes, empty, small[256];
};

struct gf_pm {
    const char *name; /* the stream's, for errors */
    const struct gf_limits *limits;
    struct gf_pickle *pickle; /* being made */
    struct gf_bytes in;
    size_t at;      /* where the current opcode stands */
    uint8_t op;     /* the current opcode */
    bool cut_short; /* the stream ended inside a value */
    size_t nodes;   /* values made */
    size_t puts;    /* memo entries made, overwritten ones included */
    struct GF_VEC(struct gf_pv *) stack;
    struct GF_VEC(size_t) marks; /* heights of the stack, ascending */
    struct GF_VEC(struct gf_pv *) memo;
    struct gf_err *err; /* never NULL */
};

#define GF_PM_BAD(m, fmt, ...)                                                             \
    gf_fail((m)->err, GF_EBAD, "'%s': pickle, byte %zu: " fmt, (m)->name, (m)->at,         \
            ##__VA_ARGS__)

/* Values. NULL: the error is set. Room is zeroed; a node has `more` bytes behind it. */
void *gf_pm_room(struct gf_pm *m, size_t size);
struct gf_pv *gf_pm_node(struct gf_pm *m, enum gf_pv_kind kind, size_t more);
struct gf_pv *gf_pm_tuple(struct gf_pm *m, struct gf_pv **items, size_t n);
struct gf_pv *gf_pm_global(struct gf_pm *m, const char *module, const char *name);
struct gf_pv *gf_pm_call(struct gf_pm *m, struct gf_pv *func, struct gf_pv *args);

/* Appends n elements (of `width` values each) to a LIST, SET or DICT. */
int gf_pm_extend(struct gf_pm *m, struct gf_pv *v, struct gf_pv **items, size_t n,
                 size_t width);
/* What an opcode that fills a container of `kind` fills: the value itself, the part of a
 * call that is made for it, or NULL where the value is unknown and its contents don't
 * matter. */
int gf_pm_part(struct gf_pm *m, struct gf_pv *v, enum gf_pv_kind kind, struct gf_pv **ret);

/* The stack. push(NULL) passes on the error of the function that made no value. */
int gf_pm_push(struct gf_pm *m, struct gf_pv *v);
int gf_pm_push_int(struct gf_pm *m, int64_t value);
/* `kind` STR becomes BYTES if it is no text that C can hold. */
int gf_pm_push_string(struct gf_pm *m, enum gf_pv_kind kind, const uint8_t *s, size_t len);
/* Values above the last mark: what may be popped. */
size_t gf_pm_height(const struct gf_pm *m);
/* Popped values stay readable until the next push. */
int gf_pm_pop(struct gf_pm *m, size_t n, struct gf_pv ***ret);
int gf_pm_pop_mark(struct gf_pm *m, struct gf_pv ***ret, size_t *ret_n);

int gf_pm_memo_put(struct gf_pm *m, size_t i);
int gf_pm_memo_get(struct gf_pm *m, size_t i);

#endif
