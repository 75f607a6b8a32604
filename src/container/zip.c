/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zip.c - tables of a zip archive, from its end to its members.
 *
 *   member   "PK\3\4", 30 bytes, name, extra | payload | maybe a data descriptor
 *   ...
 *   directory: per member "PK\1\2", 46 bytes, name, extra, comment
 *   "PK\6\6" zip64 end record, 56 bytes   (only archives with a locator)
 *   "PK\6\7" zip64 locator, 20 bytes
 *   "PK\5\6" end record, 22 bytes, comment
 *
 * torch writes sizes and CRCs of 0 into local headers, so that only the directory counts;
 * a local header is read for one thing, where its payload starts. Both tables are sorted
 * once, so that 10^6 members cost no more than their sorting.
 */
#include "container/zip.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/math.h"

#define END_SIZE 22
#define LOCATOR_SIZE 20
#define END64_SIZE 56
#define ENTRY_SIZE 46

#define SIG_LOCAL 0x04034b50u
#define SIG_ENTRY 0x02014b50u
#define SIG_END 0x06054b50u
#define SIG_END64 0x06064b50u
#define SIG_LOCATOR 0x07064b50u

#define EXTRA_ZIP64 1
#define FLAG_ENCRYPTED 1
#define IN_ZIP64 0xffffffffu /* a 32-bit field whose value is in the zip64 extra */

/* The last end record whose comment ends with the archive, or NULL. */
static const uint8_t *find_end(const uint8_t *tail, size_t len)
{
    if (len < END_SIZE)
        return NULL;
    for (size_t i = len - END_SIZE + 1; i-- > 0;)
        if (gf_le32(tail + i) == SIG_END && gf_le16(tail + i + 20) == len - i - END_SIZE)
            return tail + i;
    return NULL;
}

/* Takes the numbers of the zip64 record that the locator in front of `end` points to.
 * *end_at becomes the offset of that record: the directory ends there. */
static int find_end64(const char *name, const uint8_t *tail, uint64_t tail_off,
                      const uint8_t *locator, uint64_t *end_at, struct gf_zip_end *ret,
                      struct gf_err *err)
{
    uint64_t at = gf_le64(locator + 8);
    uint64_t locator_off = tail_off + (uint64_t)(locator - tail);
    const uint8_t *p;

    if (gf_le32(locator + 4) != 0 || gf_le32(locator + 16) > 1)
        return gf_fail(err, GF_EBAD, "'%s': zip archive of several disks", name);
    if (at < tail_off || !gf_inside(at, END64_SIZE, locator_off))
        return gf_fail(err, GF_EBAD,
                       "'%s': cut short or corrupt: zip64 end record at %" PRIu64
                       ", its locator at %" PRIu64,
                       name, at, locator_off);
    p = tail + (at - tail_off);
    if (gf_le32(p) != SIG_END64)
        return gf_fail(err, GF_EBAD, "'%s': no zip64 end record at %" PRIu64, name, at);
    if (gf_le32(p + 16) || gf_le32(p + 20) || gf_le64(p + 24) != gf_le64(p + 32))
        return gf_fail(err, GF_EBAD, "'%s': zip archive of several disks", name);
    ret->count = gf_le64(p + 32);
    ret->dir_size = gf_le64(p + 40);
    ret->dir_off = gf_le64(p + 48);
    *end_at = at;
    return 0;
}

int gf_zip_find_end(const char *name, const uint8_t *tail, size_t len, uint64_t size,
                    const struct gf_limits *limits, struct gf_zip_end *ret,
                    struct gf_err *err)
{
    const uint8_t *p = find_end(tail, len);
    struct gf_zip_end end = { .size = size };
    uint64_t tail_off = size - len, end_at;
    int r;

    if (!p)
        return gf_fail(err, GF_EBAD,
                       "'%s': cut short: no zip end record in the last %zu of %" PRIu64
                       " bytes",
                       name, len, size);
    end_at = tail_off + (uint64_t)(p - tail);
    if (p - tail >= LOCATOR_SIZE && gf_le32(p - LOCATOR_SIZE) == SIG_LOCATOR) {
        r = find_end64(name, tail, tail_off, p - LOCATOR_SIZE, &end_at, &end, err);
        if (r)
            return r;
    } else {
        if (gf_le16(p + 4) || gf_le16(p + 6) || gf_le16(p + 8) != gf_le16(p + 10))
            return gf_fail(err, GF_EBAD, "'%s': zip archive of several disks", name);
        end.count = gf_le16(p + 10);
        end.dir_size = gf_le32(p + 12);
        end.dir_off = gf_le32(p + 16);
    }
    if (!gf_inside(end.dir_off, end.dir_size, end_at))
        return gf_fail(err, GF_EBAD,
                       "'%s': cut short or corrupt: zip directory of %" PRIu64
                       " bytes at %" PRIu64 ", but the end record is at %" PRIu64,
                       name, end.dir_size, end.dir_off, end_at);
    if (end.count > limits->zip_members || end.dir_size > limits->zip_directory)
        return gf_fail(err, GF_EBAD,
                       "'%s': zip directory of %" PRIu64 " members and %" PRIu64
                       " bytes, at most %zu and %zu are read",
                       name, end.count, end.dir_size, limits->zip_members,
                       limits->zip_directory);
    if (end.count > end.dir_size / ENTRY_SIZE)
        return gf_fail(err, GF_EBAD,
                       "'%s': zip directory of %" PRIu64 " bytes cannot hold %" PRIu64
                       " members",
                       name, end.dir_size, end.count);
    *ret = end;
    return 0;
}

/* Fills in what a 32-bit field could not hold. False if the extra field lacks it. */
static bool read_zip64(struct gf_bytes extra, struct gf_zip_member *m)
{
    uint64_t *fields[] = { &m->usize, &m->csize, &m->header };
    uint16_t id, len;
    const uint8_t *body;

    while (gf_bytes_u16le(&extra, &id) && gf_bytes_u16le(&extra, &len) &&
           gf_bytes_get(&extra, len, &body)) {
        struct gf_bytes b = gf_bytes_of(body, len);

        if (id != EXTRA_ZIP64)
            continue;
        for (size_t i = 0; i < GF_COUNT(fields); i++)
            if (*fields[i] == IN_ZIP64 && !gf_bytes_u64le(&b, fields[i]))
                return false;
        return true;
    }
    return false;
}

/* One directory entry; its name is copied to *text, which moves on. */
static int read_entry(const char *name, struct gf_bytes *dir, char **text,
                      struct gf_zip_member *m, struct gf_err *err)
{
    const uint8_t *p, *label, *extra;
    uint16_t nlen, xlen;

    if (!gf_bytes_get(dir, ENTRY_SIZE, &p) || gf_le32(p) != SIG_ENTRY)
        return gf_fail(err, GF_EBAD, "'%s': zip directory has no entry where one is due",
                       name);
    nlen = gf_le16(p + 28);
    xlen = gf_le16(p + 30);
    if (!gf_bytes_get(dir, nlen, &label) || !gf_bytes_get(dir, xlen, &extra) ||
        !gf_bytes_skip(dir, gf_le16(p + 32)))
        return gf_fail(err, GF_EBAD, "'%s': entry reaches past the zip directory", name);
    if (nlen == 0 || nlen > GF_ZIP_NAME || memchr(label, 0, nlen))
        return gf_fail(err, GF_EBAD, "'%s': zip member with an impossible name of %u bytes",
                       name, nlen);
    m->name = memcpy(*text, label, nlen);
    *text += nlen;
    *(*text)++ = '\0';
    m->method = gf_le16(p + 10);
    m->csize = gf_le32(p + 20);
    m->usize = gf_le32(p + 24);
    m->header = gf_le32(p + 42);
    if ((m->csize == IN_ZIP64 || m->usize == IN_ZIP64 || m->header == IN_ZIP64) &&
        !read_zip64(gf_bytes_of(extra, xlen), m))
        return gf_fail(err, GF_EBAD, "'%s': record '%s': zip64 sizes are missing", name,
                       m->name);
    if (gf_le16(p + 8) & FLAG_ENCRYPTED)
        return gf_fail(err, GF_EBAD, "'%s': record '%s' is encrypted", name, m->name);
    if (gf_le16(p + 34))
        return gf_fail(err, GF_EBAD,
                       "'%s': record '%s' is on disk %u: archive of several disks", name,
                       m->name, gf_le16(p + 34));
    if (m->method != 0 && m->method != 8)
        return gf_fail(err, GF_EBAD,
                       "'%s': record '%s': compression method %u, only 0 (stored) is read",
                       name, m->name, m->method);
    if (m->method == 0 && m->csize != m->usize)
        return gf_fail(err, GF_EBAD,
                       "'%s': record '%s': stored, but %" PRIu64 " bytes for %" PRIu64,
                       name, m->name, m->csize, m->usize);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct gf_zip_member *)a)->name,
                  ((const struct gf_zip_member *)b)->name);
}

static int by_header(const void *a, const void *b)
{
    const struct gf_zip_member *x = a, *y = b;

    return (x->header > y->header) - (x->header < y->header);
}

/* Members in header order: each ends before the next begins, the last before the directory.
 * A local header's extra field is not known here, so this is the least that they take. */
static int check_overlap(const char *name, const struct gf_zip *zip, struct gf_err *err)
{
    for (size_t i = 0; i < zip->n; i++) {
        const struct gf_zip_member *m = &zip->at[i];
        uint64_t end, next = i + 1 < zip->n ? zip->at[i + 1].header : zip->dir_off;

        if (gf_add(m->header, GF_ZIP_LOCAL + strlen(m->name), &end) ||
            gf_add(end, m->csize, &end) || end > next)
            return gf_fail(err, GF_EBAD,
                           "'%s': record '%.200s' of %" PRIu64 " bytes at %" PRIu64
                           " overlaps the %s at %" PRIu64,
                           name, m->name, m->csize, m->header,
                           i + 1 < zip->n ? "next record" : "zip directory", next);
    }
    return 0;
}

int gf_zip_parse(const char *name, const uint8_t *dir, const struct gf_zip_end *end,
                 const struct gf_limits *limits, struct gf_zip **ret, struct gf_err *err)
{
    GF_AUTO(gf_zip) zip = calloc(1, sizeof(*zip));
    struct gf_bytes b = gf_bytes_of(dir, end->dir_size);
    size_t n = end->count;
    const char *slash;
    char *text;
    int r;

    if (n > limits->zip_members || n > end->dir_size / ENTRY_SIZE)
        return gf_fail(err, GF_EBAD,
                       "'%s': zip directory of %" PRIu64 " bytes for %zu members", name,
                       end->dir_size, n);
    if (!zip || !(zip->at = calloc(n + 1, sizeof(*zip->at))) ||
        !(zip->headers = calloc(n + 1, sizeof(*zip->headers))) ||
        !(zip->text = malloc(end->dir_size + GF_ZIP_NAME + 1)))
        return gf_nomem(err);
    zip->dir_off = end->dir_off;
    text = zip->text;
    for (; zip->n < n; zip->n++) {
        r = read_entry(name, &b, &text, &zip->at[zip->n], err);
        if (r)
            return r;
    }
    if (gf_bytes_left(&b))
        return gf_fail(err, GF_EBAD,
                       "'%s': zip directory has %zu bytes behind its %zu members", name,
                       gf_bytes_left(&b), n);
    /* torch takes the prefix from the first entry; a renamed file keeps its old one. */
    slash = n ? strchr(zip->at[0].name, '/') : NULL;
    zip->prefix = text;
    if (slash)
        text = mempcpy(text, zip->at[0].name, (size_t)(slash + 1 - zip->at[0].name));
    *text = '\0';

    qsort(zip->at, n, sizeof(*zip->at), by_header);
    r = check_overlap(name, zip, err);
    if (r)
        return r;
    for (size_t i = 0; i < n; i++)
        zip->headers[i] = zip->at[i].header;
    qsort(zip->at, n, sizeof(*zip->at), by_name);
    for (size_t i = 1; i < n; i++)
        if (by_name(&zip->at[i - 1], &zip->at[i]) == 0)
            return gf_fail(err, GF_EBAD, "'%s': two records are called '%s'", name,
                           zip->at[i].name);
    *ret = gf_take(&zip);
    return 0;
}

void gf_zip_free(struct gf_zip *zip)
{
    if (!zip)
        return;
    free(zip->at);
    free(zip->headers);
    free(zip->text);
    free(zip);
}

const struct gf_zip_member *gf_zip_find(const struct gf_zip *zip, const char *name)
{
    size_t low = 0, high = zip->n, skip = strlen(zip->prefix);

    while (low < high) {
        const struct gf_zip_member *m = &zip->at[low + (high - low) / 2];
        int c = strncmp(zip->prefix, m->name, skip);

        if (!c)
            c = strcmp(name, m->name + skip);
        if (!c)
            return m;
        if (c < 0)
            high = (size_t)(m - zip->at);
        else
            low = (size_t)(m - zip->at) + 1;
    }
    return NULL;
}

/* Where the bytes of the member with this header must end. */
static uint64_t next_header(const struct gf_zip *zip, uint64_t header)
{
    size_t low = 0, high = zip->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (zip->headers[mid] <= header)
            low = mid + 1;
        else
            high = mid;
    }
    return low < zip->n ? zip->headers[low] : zip->dir_off;
}

int gf_zip_data(const char *name, const struct gf_zip *zip,
                const struct gf_zip_member *member, const uint8_t local[GF_ZIP_LOCAL],
                uint64_t *ret, struct gf_err *err)
{
    uint64_t next = next_header(zip, member->header), at;

    if (gf_le32(local) != SIG_LOCAL || gf_le16(local + 26) != strlen(member->name) ||
        gf_le16(local + 8) != member->method)
        return gf_fail(err, GF_EBAD, "'%s': record '%s': no local header of it at %" PRIu64,
                       name, member->name, member->header);
    at = member->header + GF_ZIP_LOCAL + gf_le16(local + 26) + gf_le16(local + 28);
    if (at > next || !gf_inside(at, member->csize, next))
        return gf_fail(err, GF_EBAD,
                       "'%s': record '%.200s': %" PRIu64 " bytes at %" PRIu64
                       " reach past the next record at %" PRIu64,
                       name, member->name, member->csize, at, next);
    *ret = at;
    return 0;
}
