/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem.c - bytes already in memory as a source: texts that an option gives, and tests.
 */
#include <stdlib.h>
#include <string.h>

#include "source/source.h"

struct mem {
    struct gf_source base;
    uint8_t *bytes;
};

static int mem_read(struct gf_source *src, void *buf, size_t len, uint64_t off)
{
    memcpy(buf, ((struct mem *)src)->bytes + off, len);
    return 0;
}

static const void *mem_map(struct gf_source *src, uint64_t off, size_t len)
{
    (void)len;
    return ((struct mem *)src)->bytes + off;
}

static void mem_free(struct gf_source *src)
{
    free(((struct mem *)src)->bytes);
    free(src->name);
    free(src);
}

static const struct gf_source_ops mem_ops = {
    .kind = "mem",
    .read_at = mem_read,
    .map = mem_map,
    .free = mem_free,
};

int gf_source_mem(const char *name, const void *bytes, size_t len, struct gf_source **ret,
                  struct gf_err *err)
{
    struct mem *mem = calloc(1, sizeof(*mem));

    if (!mem)
        return gf_nomem(err);
    mem->base = (struct gf_source){
        .ops = &mem_ops, .name = strdup(name), .size = len, .mode = 0444
    };
    mem->bytes = malloc(len ? len : 1);
    if (!mem->base.name || !mem->bytes) {
        mem_free(&mem->base);
        return gf_nomem(err);
    }
    if (len)
        memcpy(mem->bytes, bytes, len);
    *ret = &mem->base;
    return 0;
}
