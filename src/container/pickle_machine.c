/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pickle_machine.c - the stack, the memo and the values that a pickle's opcodes work on.
 *
 * Every function that fails has set the error; all limits on values are kept here.
 */
#include "container/pickle_int.h"

#include <string.h>

#include "base/math.h"
#include "base/utf8.h"

void *gf_pm_room(struct gf_pm *m, size_t size)
{
    struct gf_arena *arena = &m->pickle->arena;
    void *p = gf_arena_alloc(arena, size);

    if (!p && size > arena->ceiling - GF_MIN(arena->used, arena->ceiling))
        GF_PM_BAD(m, "its values take more than %zu bytes", arena->ceiling);
    else if (!p)
        gf_nomem(m->err);
    return p;
}

struct gf_pv *gf_pm_node(struct gf_pm *m, enum gf_pv_kind kind, size_t more)
{
    struct gf_pv *v;

    if (m->nodes >= m->limits->pickle_nodes) {
        GF_PM_BAD(m, "more than %zu values", m->limits->pickle_nodes);
        return NULL;
    }
    m->nodes++;
    v = gf_pm_room(m, sizeof(*v) + more);
    if (v)
        v->kind = (uint8_t)kind;
    return v;
}

int gf_pm_push(struct gf_pm *m, struct gf_pv *v)
{
    if (!v)
        return -m->err->code;
    switch (gf_vec_push(&m->stack, v, m->limits->pickle_nodes)) {
    case 0:
        return 0;
    case -E2BIG:
        return GF_PM_BAD(m, "more than %zu values on the stack", m->limits->pickle_nodes);
    default:
        return gf_nomem(m->err);
    }
}

int gf_pm_push_int(struct gf_pm *m, int64_t value)
{
    struct gf_pv *v;

    if (value >= 0 && value < (int64_t)GF_COUNT(m->pickle->small))
        return gf_pm_push(m, &m->pickle->small[value]);
    v = gf_pm_node(m, GF_PV_INT, 0);
    if (v)
        v->u.integer = value;
    return gf_pm_push(m, v);
}

int gf_pm_push_string(struct gf_pm *m, enum gf_pv_kind kind, const uint8_t *s, size_t len)
{
    bool text = gf_utf8_valid(s, len) && (!len || !memchr(s, 0, len));
    struct gf_pv *v = gf_pm_node(m, text ? kind : GF_PV_BYTES, len + 1);

    if (v) {
        v->text = text;
        v->n = (uint32_t)len;
        v->u.s = (char *)(v + 1);
        if (len)
            memcpy(v->u.s, s, len);
    }
    return gf_pm_push(m, v);
}

struct gf_pv *gf_pm_tuple(struct gf_pm *m, struct gf_pv **items, size_t n)
{
    struct gf_pv *v;

    if (n == 0)
        return &m->pickle->empty;
    v = gf_pm_node(m, GF_PV_TUPLE, n * sizeof(*items));
    if (v) {
        v->n = (uint32_t)n;
        v->u.at = (struct gf_pv **)(void *)(v + 1);
        memcpy(v->u.at, items, n * sizeof(*items));
    }
    return v;
}

struct gf_pv *gf_pm_global(struct gf_pm *m, const char *module, const char *name)
{
    struct gf_pv *v = gf_pm_node(m, GF_PV_GLOBAL, 2 * sizeof(*v->u.path));

    if (v) {
        v->u.path = (const char **)(void *)(v + 1);
        v->u.path[0] = module;
        v->u.path[1] = name;
    }
    return v;
}

struct gf_pv *gf_pm_call(struct gf_pm *m, struct gf_pv *func, struct gf_pv *args)
{
    struct gf_pv *v = gf_pm_node(m, GF_PV_CALL, sizeof(*v->u.call));

    if (v) {
        v->u.call = (struct gf_pv_call *)(void *)(v + 1);
        v->u.call->func = func;
        v->u.call->args = args;
    }
    return v;
}

/* How many elements an array of `n` has room for. */
static size_t array_room(size_t n)
{
    return n > 1 ? (size_t)1 << (64 - __builtin_clzll(n - 1)) : n;
}

int gf_pm_extend(struct gf_pm *m, struct gf_pv *v, struct gf_pv **items, size_t n,
                 size_t width)
{
    if (v->n + n > array_room(v->n)) {
        struct gf_pv **at = gf_pm_room(m, array_room(v->n + n) * width * sizeof(*at));

        if (!at)
            return -m->err->code;
        if (v->n)
            memcpy(at, v->u.at, v->n * width * sizeof(*at));
        v->u.at = at;
    }
    if (n)
        memcpy(v->u.at + v->n * width, items, n * width * sizeof(*items));
    v->n += (uint32_t)n;
    return 0;
}

int gf_pm_part(struct gf_pm *m, struct gf_pv *v, enum gf_pv_kind kind, struct gf_pv **ret)
{
    struct gf_pv **part = NULL;

    *ret = NULL;
    if (v->kind == kind)
        *ret = v;
    else if (v->kind == GF_PV_CALL)
        part = kind == GF_PV_DICT ? &v->u.call->items : &v->u.call->list;
    else if (v->kind != GF_PV_GLOBAL && v->kind != GF_PV_PERSID)
        return GF_PM_BAD(m, "items for a value that holds none");
    if (part) {
        if (!*part)
            *part = gf_pm_node(m, kind == GF_PV_DICT ? GF_PV_DICT : GF_PV_LIST, 0);
        if (!*part)
            return -m->err->code;
        *ret = *part;
    }
    return 0;
}

size_t gf_pm_height(const struct gf_pm *m)
{
    return m->stack.n - (m->marks.n ? m->marks.at[m->marks.n - 1] : 0);
}

int gf_pm_pop(struct gf_pm *m, size_t n, struct gf_pv ***ret)
{
    if (gf_pm_height(m) < n)
        return GF_PM_BAD(m, "stack of %zu values, %zu wanted", gf_pm_height(m), n);
    m->stack.n -= n;
    *ret = m->stack.at + m->stack.n;
    return 0;
}

int gf_pm_pop_mark(struct gf_pm *m, struct gf_pv ***ret, size_t *ret_n)
{
    if (!m->marks.n)
        return GF_PM_BAD(m, "no mark on the stack");
    *ret_n = gf_pm_height(m);
    m->marks.n--;
    m->stack.n -= *ret_n;
    *ret = m->stack.at ? m->stack.at + m->stack.n : NULL;
    return 0;
}

int gf_pm_memo_put(struct gf_pm *m, size_t i)
{
    struct gf_pv *top;

    if (!gf_pm_height(m))
        return GF_PM_BAD(m, "nothing on the stack to remember");
    top = m->stack.at[m->stack.n - 1];
    m->puts++;
    /* Writers number densely, with gaps at most. */
    if (i >= 4 * m->puts + 1024)
        return GF_PM_BAD(m, "memo entry %zu after %zu entries", i, m->puts);
    if (i >= m->memo.n) {
        size_t more = i + 1 - m->memo.n;

        if (gf_vec_reserve(&m->memo, more, SIZE_MAX))
            return gf_nomem(m->err);
        memset(m->memo.at + m->memo.n, 0, more * sizeof(*m->memo.at));
        m->memo.n += more;
    }
    m->memo.at[i] = top;
    return 0;
}

int gf_pm_memo_get(struct gf_pm *m, size_t i)
{
    if (i >= m->memo.n || !m->memo.at[i])
        return GF_PM_BAD(m, "memo entry %zu was never made", i);
    return gf_pm_push(m, m->memo.at[i]);
}
