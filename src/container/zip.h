/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zip.h - the zip container that torch.save writes: stored members, found from the end.
 *
 * Pure: bytes in, tables out. The reader (format/torch_open) fetches
 *   1. the archive's last bytes            -> gf_zip_find_end()
 *   2. the central directory they point to -> gf_zip_parse()
 *   3. 30 bytes of a member's local header -> gf_zip_data()
 * All offsets are relative to the start of the archive, which may itself be a part of a
 * file (a DCP item). Facts: torch.save zip, pytorch inline_container.h; zip64 record and
 * locator are always written; sizes are only in the central directory; payloads are padded
 * to any alignment through the local header's extra field; CRCs may be 0 and are not used.
 */
#ifndef GF_CONTAINER_ZIP_H
#define GF_CONTAINER_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"

#define GF_ZIP_TAIL 98        /* bytes of end records that torch writes; less is enough */
#define GF_ZIP_TAIL_MAX 65792 /* a comment may stand behind them */
#define GF_ZIP_LOCAL 30       /* fixed part of a local header */
#define GF_ZIP_NAME 4096      /* longest name of a member */

struct gf_zip_end {
    uint64_t dir_off, dir_size, count; /* the central directory */
    uint64_t size;                     /* of the archive */
};

struct gf_zip_member {
    const char *name;
    uint64_t header;       /* offset of the local header */
    uint64_t csize, usize; /* stored and uncompressed bytes; equal for method 0 */
    uint16_t method;       /* 0 stored, 8 deflated; others are refused by the parser */
};

struct gf_zip {
    struct gf_zip_member *at; /* sorted by name in byte order */
    size_t n;
    uint64_t dir_off;   /* members end before this */
    const char *prefix; /* "archive/": first directory of the first entry, "" if none */
    uint64_t *headers;  /* of all members, ascending: where the next one starts */
    char *text;         /* the names and the prefix */
};

/* `tail` = the last `len` bytes of an archive of `size` bytes. Fails with GF_EBAD:
 * "no end record: cut short?" and the like; `name` is the file's, for messages. */
int gf_zip_find_end(const char *name, const uint8_t *tail, size_t len, uint64_t size,
                    const struct gf_limits *limits, struct gf_zip_end *ret,
                    struct gf_err *err);

/* `dir` = the end->dir_size bytes at end->dir_off. Checks names, methods, encryption,
 * ranges, duplicates, and that no two members overlap. */
int gf_zip_parse(const char *name, const uint8_t *dir, const struct gf_zip_end *end,
                 const struct gf_limits *limits, struct gf_zip **ret, struct gf_err *err);
void gf_zip_free(struct gf_zip *zip);
GF_DEFINE_AUTO(gf_zip);

/* The member called prefix + `name`, or NULL. One binary search. */
const struct gf_zip_member *gf_zip_find(const struct gf_zip *zip, const char *name);

/* Where the member's payload starts, from its local header. GF_EBAD if that is no local
 * header or the payload would reach into the next member or the central directory. */
int gf_zip_data(const char *name, const struct gf_zip *zip,
                const struct gf_zip_member *member, const uint8_t local[GF_ZIP_LOCAL],
                uint64_t *ret, struct gf_err *err);

#endif
