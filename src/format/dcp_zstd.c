/* SPDX-License-Identifier: Apache-2.0 */
#include "format/dcp_zstd.h"

#ifdef GATHERFS_ZSTD

#include <inttypes.h>
#include <stdlib.h>

#include <zstd.h>

#include "base/auto.h"
#include "base/math.h"

#define FIRST_ROOM ((size_t)64 << 10)

struct unpack {
    struct gf_source *file;
    uint64_t at, left; /* of the packed bytes */
    ZSTD_DStream *stream;
    uint8_t *in;
    size_t in_room;
    ZSTD_outBuffer out; /* dst is owned */
    size_t max;
    struct gf_err *err;
};

bool gf_dcp_zstd_here(void)
{
    return true;
}

static int bad(const struct unpack *u, const char *why)
{
    return gf_fail(u->err, GF_EBAD, "'%s': zstd item that ends at %" PRIu64 ": %s",
                   u->file->name, u->at + u->left, why);
}

static int make_room(struct unpack *u)
{
    size_t want = u->out.size ? 2 * u->out.size : FIRST_ROOM;
    void *p;

    if (u->out.pos < u->out.size)
        return 0;
    if (u->out.size == u->max)
        return bad(u, "holds more than its chunk");
    want = GF_MIN(want, u->max);
    p = realloc(u->out.dst, want);
    if (!p)
        return gf_nomem(u->err);
    u->out.dst = p;
    u->out.size = want;
    return 0;
}

/* Unpacks all frames; *ret_more: the last one is not at its end. */
static int unpack_some(struct unpack *u, size_t n, bool *ret_more)
{
    ZSTD_inBuffer in = { u->in, n, 0 };

    do {
        size_t before = u->out.pos, state;
        int r = make_room(u);

        if (r)
            return r;
        state = ZSTD_decompressStream(u->stream, &u->out, &in);
        if (ZSTD_isError(state))
            return bad(u, ZSTD_getErrorName(state));
        *ret_more = state != 0;
        if (in.pos == in.size &&
            (!*ret_more || u->out.pos == before || u->out.pos < u->out.size))
            return 0;
    } while (true);
}

static int unpack_all(struct unpack *u)
{
    bool more = true;

    while (u->left) {
        size_t n = GF_MIN(u->left, (uint64_t)u->in_room);
        int r = gf_source_read_err(u->file, u->in, n, u->at, u->err);

        if (r)
            return r;
        u->at += n;
        u->left -= n;
        r = unpack_some(u, n, &more);
        if (r)
            return r;
    }
    return more ? bad(u, "cut short") : 0;
}

int gf_dcp_zstd_read(struct gf_source *file, uint64_t at, uint64_t length, size_t max,
                     uint8_t **ret, size_t *ret_len, struct gf_err *err)
{
    struct unpack u = { .file = file,
                        .at = at,
                        .left = length,
                        .stream = ZSTD_createDStream(),
                        .in_room = ZSTD_DStreamInSize(),
                        .max = max,
                        .err = err };
    int r;

    u.in = malloc(u.in_room);
    r = u.in && u.stream ? unpack_all(&u) : gf_nomem(err);
    free(u.in);
    ZSTD_freeDStream(u.stream);
    if (r) {
        free(u.out.dst);
        return r;
    }
    *ret = u.out.dst;
    *ret_len = u.out.pos;
    return 0;
}

#else

bool gf_dcp_zstd_here(void)
{
    return false;
}

int gf_dcp_zstd_read(struct gf_source *file, uint64_t at, uint64_t length, size_t max,
                     uint8_t **ret, size_t *ret_len, struct gf_err *err)
{
    (void)at, (void)length, (void)max, (void)ret, (void)ret_len;
    return gf_fail(err, ENOTSUP,
                   "'%s': packed with zstd, but gatherfs was built without it", file->name);
}

#endif
