/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pickle.c - the opcodes of a pickle, one function or line each; pickle_machine.c has the
 * stack, the memo and the values that they work on.
 *
 * Protocols 1 to 5, and what Python 2 writes in protocol 2 (text INT and LONG). Left out,
 * by name: opcodes of protocol 0 alone, the extension registry, out-of-band buffers.
 *
 * Every opcode takes time in proportion to its own bytes and to the stack items that it
 * pops, so a stream costs time and memory in proportion to its length, however its values
 * share each other. No step recurses. Lengths are checked against what is left of the
 * stream before anything is allocated; all the rest is bounded by the limits.
 */
#include "container/pickle.h"

#include <string.h>

#include "base/bytes.h"
#include "base/math.h"
#include "container/pickle_int.h"
#include "base/utf8.h"
enum op {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_POP = '0',
    OP_POP_MARK = '1',
    OP_DUP = '2',
    OP_FLOAT = 'F',
    OP_BINFLOAT = 'G',
    OP_INT = 'I',
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_LONG = 'L',
    OP_BININT2 = 'M',
    OP_NONE = 'N',
    OP_PERSID = 'P',
    OP_BINPERSID = 'Q',
    OP_REDUCE = 'R',
    OP_STRING = 'S',
    OP_BINSTRING = 'T',
    OP_SHORT_BINSTRING = 'U',
    OP_UNICODE = 'V',
    OP_BINUNICODE = 'X',
    OP_BINBYTES = 'B',
    OP_SHORT_BINBYTES = 'C',
    OP_APPEND = 'a',
    OP_BUILD = 'b',
    OP_GLOBAL = 'c',
    OP_DICT = 'd',
    OP_APPENDS = 'e',
    OP_GET = 'g',
    OP_BINGET = 'h',
    OP_INST = 'i',
    OP_LONG_BINGET = 'j',
    OP_LIST = 'l',
    OP_OBJ = 'o',
    OP_PUT = 'p',
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_SETITEM = 's',
    OP_TUPLE = 't',
    OP_SETITEMS = 'u',
    OP_EMPTY_TUPLE = ')',
    OP_EMPTY_LIST = ']',
    OP_EMPTY_DICT = '}',
    OP_PROTO = 0x80,
    OP_NEWOBJ = 0x81,
    OP_EXT1 = 0x82,
    OP_EXT2 = 0x83,
    OP_EXT4 = 0x84,
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_LONG1 = 0x8a,
    OP_LONG4 = 0x8b,
    OP_SHORT_BINUNICODE = 0x8c,
    OP_BINUNICODE8 = 0x8d,
    OP_BINBYTES8 = 0x8e,
    OP_EMPTY_SET = 0x8f,
    OP_ADDITEMS = 0x90,
    OP_FROZENSET = 0x91,
    OP_NEWOBJ_EX = 0x92,
    OP_STACK_GLOBAL = 0x93,
    OP_MEMOIZE = 0x94,
    OP_FRAME = 0x95,
    OP_BYTEARRAY8 = 0x96,
    OP_NEXT_BUFFER = 0x97,
    OP_READONLY_BUFFER = 0x98,
};

#define HIGHEST_PROTOCOL 5

static int cut_short(struct gf_pm *m)
{
    m->cut_short = true;
    return GF_PM_BAD(m, "cut short: opcode %#x wants more than the %zu bytes left", m->op,
                     gf_bytes_left(&m->in));
}

/* A little-endian number of `width` bytes. */
static int number(struct gf_pm *m, size_t width, uint64_t *ret)
{
    const uint8_t *p;
    uint64_t value = 0;

    if (!gf_bytes_get(&m->in, width, &p))
        return cut_short(m);
    while (width-- > 0)
        value = value << 8 | p[width];
    *ret = value;
    return 0;
}

/* Bytes behind a length of `width` bytes. */
static int counted(struct gf_pm *m, size_t width, const uint8_t **ret, size_t *ret_len)
{
    uint64_t len = 0;
    int r = number(m, width, &len);

    if (r)
        return r;
    if (!gf_bytes_get(&m->in, len, ret)) {
        m->cut_short = true;
        return GF_PM_BAD(m, "cut short: %llu bytes of a value, %zu follow",
                         (unsigned long long)len, gf_bytes_left(&m->in));
    }
    *ret_len = len;
    return 0;
}

/* The text up to the next line feed. */
static int line(struct gf_pm *m, const uint8_t **ret, size_t *ret_len)
{
    size_t left = gf_bytes_left(&m->in);
    const uint8_t *end = left ? memchr(m->in.p, '\n', left) : NULL;

    if (!end)
        return cut_short(m);
    *ret = m->in.p;
    *ret_len = (size_t)(end - m->in.p);
    m->in.p = end + 1;
    return 0;
}

static int do_string(struct gf_pm *m, enum gf_pv_kind kind, size_t width)
{
    const uint8_t *s = NULL;
    size_t len = 0;
    int r = counted(m, width, &s, &len);

    return r ? r : gf_pm_push_string(m, kind, s, len);
}

/* Two's complement, little-endian, of any length. */
static int do_long(struct gf_pm *m, size_t width)
{
    const uint8_t *p = NULL;
    uint64_t value = 0;
    size_t len = 0;
    uint8_t sign;
    int r = counted(m, width, &p, &len);

    if (r)
        return r;
    sign = len && p[len - 1] & 0x80 ? 0xff : 0;
    for (size_t i = 0; i < 8; i++)
        value |= (uint64_t)(i < len ? p[i] : sign) << (8 * i);
    for (size_t i = 8; i < len; i++)
        if (p[i] != sign || value >> 63 != sign >> 7)
            return gf_pm_push(m, gf_pm_node(m, GF_PV_BIG, 0));
    return gf_pm_push_int(m, (int64_t)value);
}

/* INT and LONG: decimal text; "00" and "01" are the booleans of protocol 1. */
static int do_decimal(struct gf_pm *m, bool is_long)
{
    const uint8_t *p = NULL;
    size_t len = 0, i = 0;
    bool minus, big = false;
    int64_t value = 0;
    int r = line(m, &p, &len);

    if (r)
        return r;
    if (!is_long && len == 2 && p[0] == '0' && (p[1] == '0' || p[1] == '1'))
        return gf_pm_push(m, p[1] == '1' ? &m->pickle->yes : &m->pickle->no);
    if (is_long && len && p[len - 1] == 'L')
        len--;
    minus = len && p[0] == '-';
    i = minus;
    if (i == len)
        return GF_PM_BAD(m, "a number without digits");
    for (; i < len; i++) {
        int digit = p[i] - '0';

        if (digit < 0 || digit > 9)
            return GF_PM_BAD(m, "a number with a character %#x", (unsigned)p[i]);
        big = big || __builtin_mul_overflow(value, 10, &value) ||
              __builtin_sub_overflow(value, digit, &value);
    }
    /* Counted below zero, where there is one more. */
    if (big || (!minus && value == INT64_MIN))
        return gf_pm_push(m, gf_pm_node(m, GF_PV_BIG, 0));
    return gf_pm_push_int(m, minus ? value : -value);
}

static int do_float(struct gf_pm *m)
{
    struct gf_pv *v;
    const uint8_t *p;
    uint64_t bits = 0;

    if (!gf_bytes_get(&m->in, 8, &p))
        return cut_short(m);
    for (size_t i = 0; i < 8; i++)
        bits = bits << 8 | p[i];
    v = gf_pm_node(m, GF_PV_FLOAT, 0);
    if (v)
        memcpy(&v->u.real, &bits, sizeof(bits));
    return gf_pm_push(m, v);
}

static int new_container(struct gf_pm *m, enum gf_pv_kind kind, bool from_mark,
                         size_t width)
{
    struct gf_pv **items = NULL, *v;
    size_t n = 0;
    int r = from_mark ? gf_pm_pop_mark(m, &items, &n) : 0;

    if (r)
        return r;
    if (n % width)
        return GF_PM_BAD(m, "a key without a value");
    v = gf_pm_node(m, kind, 0);
    if (v && gf_pm_extend(m, v, items, n / width, width))
        return -m->err->code;
    return gf_pm_push(m, v);
}

/* n = 0: everything above the mark. */
static int do_tuple(struct gf_pm *m, size_t n)
{
    struct gf_pv **items = NULL;
    int r = n ? gf_pm_pop(m, n, &items) : gf_pm_pop_mark(m, &items, &n);

    return r ? r : gf_pm_push(m, gf_pm_tuple(m, items, n));
}

/* APPEND, APPENDS, ADDITEMS, SETITEM, SETITEMS; n = 0: everything above the mark. */
static int do_fill(struct gf_pm *m, enum gf_pv_kind kind, size_t n)
{
    size_t width = kind == GF_PV_DICT ? 2 : 1;
    struct gf_pv **items = NULL, *target;
    int r = n ? gf_pm_pop(m, n, &items) : gf_pm_pop_mark(m, &items, &n);

    if (r)
        return r;
    if (!gf_pm_height(m))
        return GF_PM_BAD(m, "items, but no container under them");
    if (n % width)
        return GF_PM_BAD(m, "a key without a value");
    r = gf_pm_part(m, m->stack.at[m->stack.n - 1], kind, &target);
    if (r || !target)
        return r;
    return gf_pm_extend(m, target, items, n / width, width);
}

/* The module and name lines of GLOBAL and INST. */
static int read_global(struct gf_pm *m, struct gf_pv **ret)
{
    char *text[2];

    for (size_t i = 0; i < 2; i++) {
        const uint8_t *p = NULL;
        size_t len = 0;
        int r = line(m, &p, &len);

        if (r)
            return r;
        if (!gf_utf8_valid(p, len) || (len && memchr(p, 0, len)))
            return GF_PM_BAD(m, "a class name that is no text");
        text[i] = gf_pm_room(m, len + 1);
        if (!text[i])
            return -m->err->code;
        if (len)
            memcpy(text[i], p, len);
    }
    *ret = gf_pm_global(m, text[0], text[1]);
    return *ret ? 0 : -m->err->code;
}

static int do_global(struct gf_pm *m)
{
    struct gf_pv *v = NULL;
    int r = read_global(m, &v);

    return r ? r : gf_pm_push(m, v);
}

static int do_stack_global(struct gf_pm *m)
{
    struct gf_pv **v = NULL;
    int r = gf_pm_pop(m, 2, &v);

    if (r)
        return r;
    if (!gf_pv_str(v[0]) || !gf_pv_str(v[1]))
        return GF_PM_BAD(m, "a class name that is no text");
    return gf_pm_push(m, gf_pm_global(m, v[0]->u.s, v[1]->u.s));
}

/* REDUCE, NEWOBJ, NEWOBJ_EX: `n` values, function and arguments first. */
static int do_call(struct gf_pm *m, size_t n)
{
    struct gf_pv **v = NULL;
    int r = gf_pm_pop(m, n, &v);

    return r ? r : gf_pm_push(m, gf_pm_call(m, v[0], v[1]));
}

/* INST: class by its lines, arguments above the mark. */
static int do_inst(struct gf_pm *m)
{
    struct gf_pv **items = NULL, *func = NULL, *args;
    size_t n = 0;
    int r = read_global(m, &func);

    if (!r)
        r = gf_pm_pop_mark(m, &items, &n);
    if (r)
        return r;
    args = gf_pm_tuple(m, items, n);
    return gf_pm_push(m, args ? gf_pm_call(m, func, args) : NULL);
}

/* OBJ: class and arguments above the mark. */
static int do_obj(struct gf_pm *m)
{
    struct gf_pv **items = NULL, *args;
    size_t n = 0;
    int r = gf_pm_pop_mark(m, &items, &n);

    if (r)
        return r;
    if (!n)
        return GF_PM_BAD(m, "an object without its class");
    args = gf_pm_tuple(m, items + 1, n - 1);
    return gf_pm_push(m, args ? gf_pm_call(m, items[0], args) : NULL);
}

static int do_build(struct gf_pm *m)
{
    struct gf_pv **state = NULL, *v;
    int r = gf_pm_pop(m, 1, &state);

    if (r)
        return r;
    if (!gf_pm_height(m))
        return GF_PM_BAD(m, "a state, but no object under it");
    v = m->stack.at[m->stack.n - 1];
    if (v->kind == GF_PV_CALL)
        v->u.call->state = *state;
    return 0;
}

static int do_persid(struct gf_pm *m)
{
    struct gf_pv **id = NULL, *v;
    int r = gf_pm_pop(m, 1, &id);

    if (r)
        return r;
    v = gf_pm_node(m, GF_PV_PERSID, 0);
    if (!v)
        return -m->err->code;
    v->u.id = *id;
    if (gf_vec_push(&m->pickle->persids, v, SIZE_MAX))
        return gf_nomem(m->err);
    return gf_pm_push(m, v);
}

static int do_mark(struct gf_pm *m)
{
    int r = gf_vec_push(&m->marks, m->stack.n, m->limits->pickle_nodes);

    if (r == -E2BIG)
        return GF_PM_BAD(m, "more than %zu marks", m->limits->pickle_nodes);
    return r ? gf_nomem(m->err) : 0;
}

static int do_pop(struct gf_pm *m)
{
    struct gf_pv **ignored = NULL;

    /* As in Python: a mark on top is popped like a value. */
    if (!gf_pm_height(m) && m->marks.n) {
        m->marks.n--;
        return 0;
    }
    return gf_pm_pop(m, 1, &ignored);
}

static int do_pop_mark(struct gf_pm *m)
{
    struct gf_pv **ignored = NULL;
    size_t n = 0;

    return gf_pm_pop_mark(m, &ignored, &n);
}

static int do_dup(struct gf_pm *m)
{
    if (!gf_pm_height(m))
        return GF_PM_BAD(m, "nothing on the stack to repeat");
    return gf_pm_push(m, m->stack.at[m->stack.n - 1]);
}

static int do_proto(struct gf_pm *m)
{
    uint64_t version = 0;
    int r = number(m, 1, &version);

    if (r)
        return r;
    if (version > HIGHEST_PROTOCOL)
        return GF_PM_BAD(m, "protocol %u, at most %d is known", (unsigned)version,
                         HIGHEST_PROTOCOL);
    return 0;
}

/* Steps over the length of a frame, which says nothing that is needed. */
static int do_frame(struct gf_pm *m)
{
    return gf_bytes_skip(&m->in, 8) ? 0 : cut_short(m);
}

static int do_int(struct gf_pm *m, size_t width)
{
    uint64_t value = 0;
    int r = number(m, width, &value);

    if (r)
        return r;
    return gf_pm_push_int(m,
                          width == 4 ? (int64_t)(int32_t)(uint32_t)value : (int64_t)value);
}

static int do_memo_put(struct gf_pm *m, size_t width)
{
    uint64_t i = 0;
    int r = number(m, width, &i);

    return r ? r : gf_pm_memo_put(m, i);
}

static int do_memo_get(struct gf_pm *m, size_t width)
{
    uint64_t i = 0;
    int r = number(m, width, &i);

    return r ? r : gf_pm_memo_get(m, i);
}

static int step(struct gf_pm *m)
{
    struct gf_pickle *pickle = m->pickle;

    switch ((enum op)m->op) {
    case OP_PROTO:
        return do_proto(m);
    case OP_FRAME:
        return do_frame(m);

    case OP_NONE:
        return gf_pm_push(m, &pickle->none);
    case OP_NEWTRUE:
        return gf_pm_push(m, &pickle->yes);
    case OP_NEWFALSE:
        return gf_pm_push(m, &pickle->no);
    case OP_BININT1:
        return do_int(m, 1);
    case OP_BININT2:
        return do_int(m, 2);
    case OP_BININT:
        return do_int(m, 4);
    case OP_INT:
        return do_decimal(m, false);
    case OP_LONG:
        return do_decimal(m, true);
    case OP_LONG1:
        return do_long(m, 1);
    case OP_LONG4:
        return do_long(m, 4);
    case OP_BINFLOAT:
        return do_float(m);

    case OP_SHORT_BINUNICODE:
        return do_string(m, GF_PV_STR, 1);
    case OP_BINUNICODE:
        return do_string(m, GF_PV_STR, 4);
    case OP_BINUNICODE8:
        return do_string(m, GF_PV_STR, 8);
    case OP_SHORT_BINSTRING:
    case OP_SHORT_BINBYTES:
        return do_string(m, GF_PV_BYTES, 1);
    case OP_BINSTRING:
    case OP_BINBYTES:
        return do_string(m, GF_PV_BYTES, 4);
    case OP_BINBYTES8:
    case OP_BYTEARRAY8:
        return do_string(m, GF_PV_BYTES, 8);

    case OP_EMPTY_TUPLE:
        return gf_pm_push(m, &pickle->empty);
    case OP_TUPLE1:
        return do_tuple(m, 1);
    case OP_TUPLE2:
        return do_tuple(m, 2);
    case OP_TUPLE3:
        return do_tuple(m, 3);
    case OP_TUPLE:
        return do_tuple(m, 0);
    case OP_EMPTY_LIST:
        return new_container(m, GF_PV_LIST, false, 1);
    case OP_LIST:
        return new_container(m, GF_PV_LIST, true, 1);
    case OP_EMPTY_DICT:
        return new_container(m, GF_PV_DICT, false, 2);
    case OP_DICT:
        return new_container(m, GF_PV_DICT, true, 2);
    case OP_EMPTY_SET:
        return new_container(m, GF_PV_SET, false, 1);
    case OP_FROZENSET:
        return new_container(m, GF_PV_SET, true, 1);
    case OP_APPEND:
        return do_fill(m, GF_PV_LIST, 1);
    case OP_APPENDS:
        return do_fill(m, GF_PV_LIST, 0);
    case OP_ADDITEMS:
        return do_fill(m, GF_PV_SET, 0);
    case OP_SETITEM:
        return do_fill(m, GF_PV_DICT, 2);
    case OP_SETITEMS:
        return do_fill(m, GF_PV_DICT, 0);

    case OP_GLOBAL:
        return do_global(m);
    case OP_STACK_GLOBAL:
        return do_stack_global(m);
    case OP_REDUCE:
    case OP_NEWOBJ:
        return do_call(m, 2);
    case OP_NEWOBJ_EX:
        return do_call(m, 3);
    case OP_INST:
        return do_inst(m);
    case OP_OBJ:
        return do_obj(m);
    case OP_BUILD:
        return do_build(m);
    case OP_BINPERSID:
        return do_persid(m);

    case OP_MARK:
        return do_mark(m);
    case OP_POP:
        return do_pop(m);
    case OP_POP_MARK:
        return do_pop_mark(m);
    case OP_DUP:
        return do_dup(m);
    case OP_BINPUT:
        return do_memo_put(m, 1);
    case OP_LONG_BINPUT:
        return do_memo_put(m, 4);
    case OP_MEMOIZE:
        return gf_pm_memo_put(m, m->memo.n);
    case OP_BINGET:
        return do_memo_get(m, 1);
    case OP_LONG_BINGET:
        return do_memo_get(m, 4);

    case OP_FLOAT:
    case OP_STRING:
    case OP_UNICODE:
    case OP_GET:
    case OP_PUT:
    case OP_PERSID:
        return GF_PM_BAD(m, "opcode '%c' of protocol 0, which is not read", m->op);
    case OP_EXT1:
    case OP_EXT2:
    case OP_EXT4:
        return GF_PM_BAD(m, "an entry of the extension registry (opcode %#x)", m->op);
    case OP_NEXT_BUFFER:
    case OP_READONLY_BUFFER:
        return GF_PM_BAD(m, "an out-of-band buffer (opcode %#x)", m->op);
    case OP_STOP:
        break;
    }
    return GF_PM_BAD(m, "unknown opcode %#x", m->op);
}

static int run(struct gf_pm *m, const uint8_t *bytes)
{
    struct gf_pv **root = NULL;
    int r;

    for (;;) {
        m->at = (size_t)(m->in.p - bytes);
        if (!gf_bytes_u8(&m->in, &m->op)) {
            m->cut_short = true;
            return GF_PM_BAD(m, "cut short: no stop opcode in %zu bytes", m->at);
        }
        if (m->op == OP_STOP)
            break;
        r = step(m);
        if (r)
            return r;
    }
    r = gf_pm_pop(m, 1, &root);
    if (!r)
        m->pickle->root = *root;
    return r;
}

static struct gf_pickle *new_pickle(const struct gf_limits *limits)
{
    struct gf_pickle *pickle = calloc(1, sizeof(*pickle));

    if (!pickle)
        return NULL;
    pickle->arena.ceiling = limits->pickle_arena;
    pickle->no.kind = pickle->yes.kind = GF_PV_BOOL;
    pickle->yes.u.truth = true;
    pickle->empty.kind = GF_PV_TUPLE;
    for (size_t i = 0; i < GF_COUNT(pickle->small); i++) {
        pickle->small[i].kind = GF_PV_INT;
        pickle->small[i].u.integer = (int64_t)i;
    }
    return pickle;
}

int gf_pickle_parse(const char *name, const uint8_t *bytes, size_t len,
                    const struct gf_limits *limits, struct gf_pickle **ret,
                    size_t *ret_used, bool *ret_short, struct gf_err *err)
{
    GF_AUTO(gf_pickle) pickle = NULL;
    struct gf_err unheard = { 0 };
    struct gf_pm m = { .name = name,
                       .limits = limits,
                       .in = gf_bytes_of(bytes, len),
                       .err = err ? err : &unheard };
    int r;

    /* Counts in values have 32 bits. */
    if (len > limits->pickle_bytes || len > UINT32_MAX)
        return gf_fail(err, GF_EBAD, "'%s': pickle of %zu bytes, at most %zu are read",
                       name, len, GF_MIN(limits->pickle_bytes, (size_t)UINT32_MAX));
    m.pickle = pickle = new_pickle(limits);
    if (!pickle)
        return gf_nomem(err);
    r = run(&m, bytes);
    gf_vec_free(&m.stack);
    gf_vec_free(&m.marks);
    gf_vec_free(&m.memo);
    if (m.cut_short && ret_short)
        *ret_short = true;
    if (r)
        return r;
    if (ret_used)
        *ret_used = (size_t)(m.in.p - bytes);
    *ret = gf_take(&pickle);
    return 0;
}
