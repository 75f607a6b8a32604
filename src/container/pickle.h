/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pickle.h - a pickle as data: parsed, never executed.
 *
 * A stack machine that builds values and calls nothing. What a real unpickler would call
 * (GLOBAL + REDUCE / NEWOBJ / BUILD) becomes an inert GF_PV_CALL node; the readers above
 * know a closed list of constructors by name and treat the rest as opaque. Unknown classes
 * are therefore no error here. Values may be shared and even cyclic, as in the stream:
 * walkers limit their depth (gf_limits.pickle_depth).
 *
 * Dict-like: GF_PV_DICT, GF_PV_CALL that got SETITEM(S) (defaultdict), and any call of
 * collections.OrderedDict (an empty one got none; Python 2 passes the pairs as argument).
 * List-like: GF_PV_LIST, GF_PV_TUPLE, GF_PV_SET, and GF_PV_CALL that got APPEND(S).
 * Accessors take any kind, also NULL, and answer "not that" (0, false, NULL).
 *
 * Once parsed, a pickle is read-only but for gf_pickle_alloc(): one thread per pickle.
 */
#ifndef GF_CONTAINER_PICKLE_H
#define GF_CONTAINER_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"

enum gf_pv_kind {
    GF_PV_NONE,
    GF_PV_BOOL,
    GF_PV_INT, /* fits int64 */
    GF_PV_BIG, /* an integer that does not */
    GF_PV_FLOAT,
    GF_PV_STR,   /* valid UTF-8 without NUL, NUL-terminated */
    GF_PV_BYTES, /* also a str that is not the above */
    GF_PV_TUPLE,
    GF_PV_LIST,
    GF_PV_DICT,
    GF_PV_SET,
    GF_PV_GLOBAL, /* module, name */
    GF_PV_CALL,   /* func(args), then state, items, appended; NEWOBJ_EX: without keywords */
    GF_PV_PERSID, /* a persistent id: one value */
};

struct gf_pv;
struct gf_pickle;

/* Parses one pickle at the start of `bytes`; *ret_used (may be NULL) = its length, since
 * legacy torch files have several in a row. GF_EBAD on anything malformed or past a limit.
 * -ENODATA is never used: a pickle that ends early fails with GF_EBAD and, if `ret_short`
 * is not NULL, sets *ret_short so that a caller that passed a prefix can fetch more.
 * Strings are copied: `bytes` may go. */
int gf_pickle_parse(const char *name, const uint8_t *bytes, size_t len,
                    const struct gf_limits *limits, struct gf_pickle **ret,
                    size_t *ret_used, bool *ret_short, struct gf_err *err);
void gf_pickle_free(struct gf_pickle *pickle);
GF_DEFINE_AUTO(gf_pickle);

const struct gf_pv *gf_pickle_root(const struct gf_pickle *pickle);
/* The persistent ids, as GF_PV_PERSID, in the order of the stream. */
size_t gf_pickle_persids(const struct gf_pickle *pickle);
const struct gf_pv *gf_pickle_persid(const struct gf_pickle *pickle, size_t i);
/* Room for what readers derive from it (shapes, names): freed with the pickle. */
void *gf_pickle_alloc(struct gf_pickle *pickle, size_t size);

enum gf_pv_kind gf_pv_kind(const struct gf_pv *v);   /* NULL: GF_PV_NONE */
bool gf_pv_is_none(const struct gf_pv *v);           /* NULL or None */
bool gf_pv_int(const struct gf_pv *v, int64_t *ret); /* GF_PV_INT and GF_PV_BOOL */
bool gf_pv_bool(const struct gf_pv *v, bool *ret);
bool gf_pv_float(const struct gf_pv *v, double *ret);
const char *gf_pv_str(const struct gf_pv *v); /* STR, or BYTES that are a valid string */
const uint8_t *gf_pv_bytes(const struct gf_pv *v, size_t *ret_len); /* BYTES and STR */

bool gf_pv_is_list(const struct gf_pv *v); /* list-like */
size_t gf_pv_len(const struct gf_pv *v);
const struct gf_pv *gf_pv_item(const struct gf_pv *v, size_t i);

bool gf_pv_is_dict(const struct gf_pv *v); /* dict-like; in insertion order */
size_t gf_pv_pairs(const struct gf_pv *v);
const struct gf_pv *gf_pv_key(const struct gf_pv *v, size_t i);
const struct gf_pv *gf_pv_value(const struct gf_pv *v, size_t i);
/* The last pair with this string key (as Python keeps it), or NULL. Linear. */
const struct gf_pv *gf_pv_get(const struct gf_pv *v, const char *key);

/* Is it GLOBAL module.name? NULL module matches any; "__builtin__" = "builtins". */
bool gf_pv_is_global(const struct gf_pv *v, const char *module, const char *name);
const char *gf_pv_global_module(const struct gf_pv *v);
const char *gf_pv_global_name(const struct gf_pv *v);
/* CALL nodes; NULL for other kinds. state: what BUILD set, NULL if nothing did. */
const struct gf_pv *gf_pv_func(const struct gf_pv *v);
const struct gf_pv *gf_pv_args(const struct gf_pv *v);
const struct gf_pv *gf_pv_state(const struct gf_pv *v);
const struct gf_pv *gf_pv_persid(const struct gf_pv *v);
/* Is it a CALL of GLOBAL module.name? */
bool gf_pv_is_call(const struct gf_pv *v, const char *module, const char *name);

/* An int sequence (tuple, list, torch.Size(...)) of entries >= 0 into ret[GF_MAX_RANK].
 * false if it is not one or is longer. */
bool gf_pv_size(const struct gf_pv *v, uint64_t *ret, uint32_t *ret_n);

#endif
