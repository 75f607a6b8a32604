/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch_open.c - fetches the parts of a torch.save file that the parsers in container/ ask
 * for.
 *
 *   zip      the last 64 KiB (end records, and mostly the directory), the directory if it
 *            is longer, the pickle; later 30 bytes for each storage that is located
 *   legacy   a growing prefix until the five pickles are whole, then 8 bytes per storage
 *
 * The tail is kept: small files need no further read.
 */
#include "format/torch_open.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/math.h"
#include "base/strmap.h"
#include "container/zip.h"

#define LEGACY_FIRST_READ ((size_t)1 << 20)
#define HEAD 512 /* a tar archive shows itself at 257 */

struct legacy_storage {
    uint64_t at, nbytes;
};

struct gf_torch {
    struct gf_source *src;
    const struct gf_limits *limits;
    struct gf_pickle *pickle;

    uint8_t *tail; /* the file from tail_off to its end */
    uint64_t tail_off;
    struct gf_zip *zip; /* NULL: legacy */
    uint64_t *payloads; /* by member; 0 = not asked for yet */

    struct gf_pickle *keys;
    struct gf_strmap by_key; /* -> index into storages */
    struct legacy_storage *storages;
};

/* Reads from the tail what lies there. */
static int fetch(struct gf_torch *t, void *buf, size_t len, uint64_t off,
                 struct gf_err *err)
{
    if (t->tail && off >= t->tail_off && gf_inside(off, len, t->src->size)) {
        memcpy(buf, t->tail + (off - t->tail_off), len);
        return 0;
    }
    return gf_source_read_err(t->src, buf, len, off, err);
}

/* --- zip ------------------------------------------------------------------------------ */

static int read_directory(struct gf_torch *t, struct gf_err *err)
{
    const char *name = t->src->name;
    size_t len = GF_MIN(t->src->size, (uint64_t)GF_ZIP_TAIL_MAX);
    GF_AUTO_MEM uint8_t *dir = NULL;
    struct gf_zip_end end;
    int r;

    t->tail = malloc(len);
    if (!t->tail)
        return gf_nomem(err);
    t->tail_off = t->src->size - len;
    r = gf_source_read_err(t->src, t->tail, len, t->tail_off, err);
    if (!r)
        r = gf_zip_find_end(name, t->tail, len, t->src->size, t->limits, &end, err);
    if (r)
        return r;
    dir = malloc(end.dir_size + 1);
    if (!dir)
        return gf_nomem(err);
    r = fetch(t, dir, end.dir_size, end.dir_off, err);
    if (!r)
        r = gf_zip_parse(name, dir, &end, t->limits, &t->zip, err);
    if (r)
        return r;
    t->payloads = calloc(t->zip->n + 1, sizeof(*t->payloads));
    return t->payloads ? 0 : gf_nomem(err);
}

/* Where the bytes of a stored record start. */
static int payload_of(struct gf_torch *t, const struct gf_zip_member *member, uint64_t *ret,
                      struct gf_err *err)
{
    uint64_t *known = &t->payloads[member - t->zip->at];
    uint8_t local[GF_ZIP_LOCAL];
    int r;

    if (member->method != 0)
        return gf_fail(err, ENOTSUP,
                       "'%s': record '%s' is compressed (deflate): repacked by some zip "
                       "program? torch.save stores records as they are",
                       t->src->name, member->name);
    if (!*known) {
        r = fetch(t, local, sizeof(local), member->header, err);
        if (!r)
            r = gf_zip_data(t->src->name, t->zip, member, local, known, err);
        if (r)
            return r;
    }
    *ret = *known;
    return 0;
}

/* The whole of a record in memory of its own. */
static int read_record(struct gf_torch *t, const struct gf_zip_member *member, size_t max,
                       uint8_t **ret, struct gf_err *err)
{
    GF_AUTO_MEM uint8_t *bytes = NULL;
    uint64_t at;
    int r = payload_of(t, member, &at, err);

    if (r)
        return r;
    if (member->csize > max)
        return gf_fail(err, GF_EBAD,
                       "'%s': record '%s' of %" PRIu64 " bytes, at most %zu are read",
                       t->src->name, member->name, member->csize, max);
    bytes = malloc(member->csize + 1);
    if (!bytes)
        return gf_nomem(err);
    r = fetch(t, bytes, member->csize, at, err);
    if (!r)
        *ret = gf_take(&bytes);
    return r;
}

static int check_byteorder(struct gf_torch *t, struct gf_err *err)
{
    const struct gf_zip_member *member = gf_zip_find(t->zip, "byteorder");
    GF_AUTO_MEM uint8_t *order = NULL;
    int r;

    if (!member)
        return 0;
    r = read_record(t, member, 64, &order, err);
    if (r)
        return r;
    if (member->csize == 6 && memcmp(order, "little", 6) == 0)
        return 0;
    return gf_fail(err, ENOTSUP, "'%s': byte order '%.*s', only 'little' is read",
                   t->src->name, (int)member->csize, (const char *)order);
}

static int open_zip(struct gf_torch *t, struct gf_err *err)
{
    const struct gf_zip_member *data;
    GF_AUTO_MEM uint8_t *bytes = NULL;
    int r = read_directory(t, err);

    if (r)
        return r;
    if (gf_zip_find(t->zip, "constants.pkl"))
        return gf_fail(
            err, ENOTSUP,
            "'%s': a TorchScript archive (record 'constants.pkl'), not a state dict",
            t->src->name);
    data = gf_zip_find(t->zip, "data.pkl");
    if (!data)
        return gf_fail(err, GF_EBAD,
                       "'%s': a zip archive without record '%sdata.pkl': not by torch.save",
                       t->src->name, t->zip->prefix);
    r = check_byteorder(t, err);
    if (!r)
        r = read_record(t, data, t->limits->pickle_bytes, &bytes, err);
    if (r)
        return r;
    return gf_pickle_parse(t->src->name, bytes, data->csize, t->limits, &t->pickle, NULL,
                           NULL, err);
}

static int locate_record(struct gf_torch *t, const struct gf_torch_storage *s,
                         uint64_t *ret, struct gf_err *err)
{
    const struct gf_zip_member *member = NULL;
    char record[GF_ZIP_NAME];

    if ((size_t)snprintf(record, sizeof(record), "data/%s", s->key) < sizeof(record))
        member = gf_zip_find(t->zip, record);
    if (!member)
        return gf_fail(err, GF_EBAD,
                       "'%s': no record '%sdata/%s' for a storage of %" PRIu64 " bytes",
                       t->src->name, t->zip->prefix, s->key, s->nbytes);
    if (member->usize < s->nbytes)
        return gf_fail(err, GF_EBAD,
                       "'%s': record '%s' of %" PRIu64 " bytes, its storage has %" PRIu64,
                       t->src->name, member->name, member->usize, s->nbytes);
    return payload_of(t, member, ret, err);
}

/* --- legacy --------------------------------------------------------------------------- */

/* Fetches ever longer prefixes until the pickles are whole. *ret: where they end. */
static int read_prelude(struct gf_torch *t, uint64_t *ret, struct gf_err *err)
{
    uint64_t whole = GF_MIN(t->src->size, (uint64_t)t->limits->pickle_bytes);
    GF_AUTO_MEM uint8_t *bytes = NULL;
    size_t have = 0, want = LEGACY_FIRST_READ, used;

    for (;; want *= 2) {
        bool cut_short = false;
        uint8_t *more;
        int r;

        want = GF_MIN(want, whole);
        more = realloc(bytes, want);
        if (!more)
            return gf_nomem(err);
        bytes = more;
        r = gf_source_read_err(t->src, bytes + have, want - have, have, err);
        if (r)
            return r;
        have = want;
        r = gf_torch_legacy_parse(t->src->name, bytes, have, t->limits, &t->pickle,
                                  &t->keys, &used, &cut_short, err);
        if (!r)
            *ret = used;
        if (cut_short && have == whole && whole < t->src->size)
            return gf_fail(err, GF_EBAD, "'%s': pickles of more than %" PRIu64 " bytes",
                           t->src->name, whole);
        if (!cut_short || have == whole)
            return r;
    }
}

/* Which storages the pickle names, by key: the first id of a key tells its class. */
static int collect_ids(struct gf_torch *t, struct gf_strmap *ids, struct gf_err *err)
{
    for (size_t i = 0; i < gf_pickle_persids(t->pickle); i++) {
        struct gf_torch_storage s;
        bool is_storage;
        int r = gf_torch_storage(gf_pickle_persid(t->pickle, i), t->src->name, &is_storage,
                                 &s, err);

        if (r)
            return r;
        if (is_storage && gf_strmap_put(ids, s.key, i, NULL) == -ENOMEM)
            return gf_nomem(err);
    }
    return 0;
}

/* One storage at *at, which moves behind it. */
static int read_storage(struct gf_torch *t, const char *key, const struct gf_strmap *ids,
                        uint64_t *at, struct legacy_storage *ret, struct gf_err *err)
{
    const char *name = t->src->name;
    uint64_t id, n, end, size = t->src->size;
    struct gf_torch_storage s;
    bool is_storage;
    uint8_t raw[8];
    int r;

    if (!gf_strmap_get(ids, key, &id))
        return gf_fail(err, GF_EBAD,
                       "'%s': storage '%s' at %" PRIu64 " has no id in the pickle", name,
                       key, *at);
    r = gf_torch_storage(gf_pickle_persid(t->pickle, id), name, &is_storage, &s, err);
    if (r)
        return r;
    if (s.elem == 0)
        return gf_fail(err, ENOTSUP,
                       "'%s': storage '%s' of a class whose size is not known", name, key);
    if (!gf_inside(*at, sizeof(raw), size))
        return gf_fail(err, GF_EBAD,
                       "'%s': cut short: storage '%s' is due at %" PRIu64
                       ", the file has %" PRIu64 " bytes",
                       name, key, *at, size);
    r = gf_source_read_err(t->src, raw, sizeof(raw), *at, err);
    if (r)
        return r;
    n = gf_le64(raw);
    if (n != s.numel)
        return gf_fail(err, GF_EBAD,
                       "'%s': storage '%s' at %" PRIu64 " has %" PRIu64
                       " elements, its id says %" PRIu64,
                       name, key, *at, n, s.numel);
    *ret = (struct legacy_storage){ *at + sizeof(raw), s.nbytes };
    if (gf_add(ret->at, ret->nbytes, &end) || end > size)
        return gf_fail(err, GF_EBAD,
                       "'%s': cut short: storage '%s' at %" PRIu64 " has %" PRIu64
                       " bytes, the file %" PRIu64,
                       name, key, ret->at, ret->nbytes, size);
    *at = end;
    return 0;
}

static int read_storages(struct gf_torch *t, const struct gf_strmap *ids, uint64_t at,
                         struct gf_err *err)
{
    const struct gf_pv *keys = gf_pickle_root(t->keys);
    size_t n = gf_pv_len(keys);

    if (gf_pv_kind(keys) != GF_PV_LIST)
        return gf_fail(err, GF_EBAD, "'%s': legacy torch file without a list of storages",
                       t->src->name);
    t->storages = calloc(n + 1, sizeof(*t->storages));
    if (!t->storages)
        return gf_nomem(err);
    for (size_t i = 0; i < n; i++) {
        const char *key = gf_pv_str(gf_pv_item(keys, i));
        int r;

        if (!key)
            return gf_fail(err, GF_EBAD, "'%s': storage key %zu of %zu is no text",
                           t->src->name, i, n);
        r = read_storage(t, key, ids, &at, &t->storages[i], err);
        if (r)
            return r;
        r = gf_strmap_put(&t->by_key, key, i, NULL);
        if (r == -EEXIST)
            return gf_fail(err, GF_EBAD, "'%s': storage '%s' is listed twice", t->src->name,
                           key);
        if (r)
            return gf_nomem(err);
    }
    return 0;
}

static int open_legacy(struct gf_torch *t, struct gf_err *err)
{
    struct gf_strmap ids = { 0 };
    uint64_t at = 0;
    int r = read_prelude(t, &at, err);

    if (!r)
        r = collect_ids(t, &ids, err);
    if (!r)
        r = read_storages(t, &ids, at, err);
    gf_strmap_done(&ids);
    return r;
}

static int locate_legacy(struct gf_torch *t, const struct gf_torch_storage *s,
                         uint64_t *ret, struct gf_err *err)
{
    uint64_t i;

    if (!gf_strmap_get(&t->by_key, s->key, &i))
        return gf_fail(err, GF_EBAD,
                       "'%s': storage '%s' of %" PRIu64 " bytes is not in the file",
                       t->src->name, s->key, s->nbytes);
    if (t->storages[i].nbytes < s->nbytes)
        return gf_fail(
            err, GF_EBAD,
            "'%s': storage '%s' at %" PRIu64 " of %" PRIu64 " bytes, %" PRIu64 " wanted",
            t->src->name, s->key, t->storages[i].at, t->storages[i].nbytes, s->nbytes);
    *ret = t->storages[i].at;
    return 0;
}

/* --- both ----------------------------------------------------------------------------- */

static int open_any(struct gf_torch *t, struct gf_err *err)
{
    const char *name = t->src->name;
    uint8_t head[HEAD] = { 0 };
    size_t n = GF_MIN(t->src->size, (uint64_t)sizeof(head));
    int r;

    if (n == 0)
        return gf_fail(err, GF_EBAD, "'%s': empty file", name);
    r = gf_source_read_err(t->src, head, n, 0, err);
    if (r)
        return r;
    if (gf_torch_is_zip(head, n))
        return open_zip(t, err);
    if (gf_torch_is_legacy(head, n))
        return open_legacy(t, err);
    if (memcmp(head + 257, "ustar", 5) == 0)
        return gf_fail(
            err, ENOTSUP,
            "'%s': a tar archive, as torch 0.1 wrote; torch itself no longer reads "
            "them as weights",
            name);
    return gf_fail(
        err, GF_EBAD,
        "'%s': no torch file: starts with %02x %02x %02x %02x, wanted a zip archive "
        "or a legacy torch.save stream",
        name, head[0], head[1], head[2], head[3]);
}

int gf_torch_open(struct gf_source *src, const struct gf_limits *limits,
                  struct gf_torch **ret, struct gf_err *err)
{
    GF_AUTO(gf_torch) torch = calloc(1, sizeof(*torch));
    int r;

    if (!torch)
        return gf_nomem(err);
    torch->src = src;
    torch->limits = limits;
    r = open_any(torch, err);
    if (!r)
        *ret = gf_take(&torch);
    return r;
}

void gf_torch_free(struct gf_torch *torch)
{
    if (!torch)
        return;
    gf_strmap_done(&torch->by_key); /* before the strings that it borrows */
    gf_pickle_free(torch->pickle);
    gf_pickle_free(torch->keys);
    gf_zip_free(torch->zip);
    free(torch->tail);
    free(torch->payloads);
    free(torch->storages);
    free(torch);
}

const struct gf_pv *gf_torch_root(const struct gf_torch *torch)
{
    return gf_pickle_root(torch->pickle);
}

struct gf_pickle *gf_torch_pickle(struct gf_torch *torch)
{
    return torch->pickle;
}

const char *gf_torch_archive(const struct gf_torch *torch)
{
    return torch->zip ? torch->zip->prefix : "";
}

int gf_torch_locate(struct gf_torch *torch, const struct gf_torch_view *view, uint64_t *ret,
                    struct gf_err *err)
{
    uint64_t at = 0;
    int r;

    if (view->numel == 0) {
        *ret = 0;
        return 0;
    }
    r = torch->zip ? locate_record(torch, &view->storage, &at, err)
                   : locate_legacy(torch, &view->storage, &at, err);
    if (r)
        return r;
    /* The view lies in its storage, and the storage in the file: no overflow. */
    *ret = at + view->offset * gf_torch_itemsize(view->dtype);
    return 0;
}
