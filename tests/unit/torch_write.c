/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/torch_write.h"

#include "tests/unit/zip_writer.h"

static void put(struct tw *w, const void *s, size_t n)
{
    while (w->n + n > w->room) {
        w->room = w->room ? 2 * w->room : 4096;
        w->p = realloc(w->p, w->room);
    }
    memcpy(w->p + w->n, s, n);
    w->n += n;
}

static void ops(struct tw *w, const char *s)
{
    put(w, s, strlen(s));
}

static void global(struct tw *w, const char *module, const char *name)
{
    ops(w, "c");
    ops(w, module);
    ops(w, "\n");
    ops(w, name);
    ops(w, "\n");
}

void tw_start(struct tw *w)
{
    *w = (struct tw){ 0 };
    ops(w, "\x80\x02");
}

static void enter(struct tw *w, const char *start, char end)
{
    ops(w, start);
    w->open[w->depth++] = end;
}

void tw_dict(struct tw *w)
{
    enter(w, "}(", 'u');
}

void tw_list(struct tw *w)
{
    enter(w, "](", 'e');
}

void tw_end(struct tw *w)
{
    put(w, &w->open[--w->depth], 1);
}

void tw_str(struct tw *w, const char *s)
{
    uint32_t len = (uint32_t)strlen(s);

    ops(w, "X");
    put(w, (uint8_t[]){ (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16), 0 }, 4);
    ops(w, s);
}

void tw_int(struct tw *w, int64_t value)
{
    ops(w, "\x8a\x08");
    for (int i = 0; i < 8; i++)
        put(w, &(uint8_t){ (uint8_t)((uint64_t)value >> (8 * i)) }, 1);
}

void tw_bool(struct tw *w, bool value)
{
    ops(w, value ? "\x88" : "\x89");
}

void tw_none(struct tw *w)
{
    ops(w, "N");
}

static void sizes(struct tw *w, const uint64_t *dims, size_t rank)
{
    ops(w, "(");
    for (size_t i = 0; i < rank; i++)
        tw_int(w, (int64_t)dims[i]);
    ops(w, "t");
}

void tw_size(struct tw *w, const uint64_t *dims, size_t rank)
{
    global(w, "torch", "Size");
    ops(w, "(");
    sizes(w, dims, rank);
    ops(w, "tR");
}

void tw_call(struct tw *w, const char *module, const char *name, const int64_t *values,
             size_t n)
{
    global(w, module, name);
    ops(w, "(");
    for (size_t i = 0; i < n; i++)
        tw_int(w, values[i]);
    ops(w, "tR");
}

void tw_address(struct tw *w, uint64_t numel, uint64_t start)
{
    global(w, "deepspeed.utils.tensor_fragment", "fragment_address");
    ops(w, ")\x81");
    tw_dict(w);
    tw_str(w, "numel");
    tw_int(w, (int64_t)numel);
    tw_str(w, "start");
    tw_int(w, (int64_t)start);
    tw_end(w);
    ops(w, "b");
}

size_t tw_storage(struct tw *w, enum gf_dtype dtype, const void *bytes, size_t size)
{
    void *copy = malloc(size + 1);

    if (size)
        memcpy(copy, bytes, size);
    w->storages[w->nstorages].bytes = copy;
    w->storages[w->nstorages].size = size;
    w->storages[w->nstorages].dtype = dtype;
    return w->nstorages++;
}

void tw_tensor(struct tw *w, size_t storage, uint64_t start, const uint64_t *dims,
               size_t rank)
{
    enum gf_dtype dtype = w->storages[storage].dtype;
    uint64_t strides[8] = { 0 }, step = 1;
    char key[16];

    for (size_t i = rank; i-- > 0; step *= dims[i] ? dims[i] : 1)
        strides[i] = step;
    snprintf(key, sizeof(key), "%zu", storage);
    global(w, "torch._utils", "_rebuild_tensor_v2");
    ops(w, "((");
    tw_str(w, "storage");
    global(w, "torch", gf_dtype_info(dtype)->storage);
    tw_str(w, key);
    tw_str(w, "cpu");
    tw_int(w, (int64_t)(w->storages[storage].size / gf_dtype_size(dtype)));
    ops(w, "tQ");
    tw_int(w, (int64_t)start);
    sizes(w, dims, rank);
    sizes(w, strides, rank);
    ops(w, "\x89");
    global(w, "collections", "OrderedDict");
    ops(w, ")RtR");
}

static void add_record(struct zw *z, const char *archive, const char *name,
                       const void *bytes, size_t size)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", archive, name);
    zw_add(z, path, bytes, size, 64);
}

void *tw_finish(struct tw *w, const char *archive, size_t *ret_len)
{
    struct zw z = { 0 };

    ops(w, ".");
    add_record(&z, archive, "data.pkl", w->p, w->n);
    add_record(&z, archive, "byteorder", "little", 6);
    for (size_t i = 0; i < w->nstorages; i++) {
        char name[48];

        snprintf(name, sizeof(name), "data/%zu", i);
        add_record(&z, archive, name, w->storages[i].bytes, w->storages[i].size);
        free(w->storages[i].bytes);
    }
    add_record(&z, archive, "version", "3\n", 2);
    zw_end(&z);
    free(w->p);
    *w = (struct tw){ 0 };
    *ret_len = z.n;
    return z.p;
}
