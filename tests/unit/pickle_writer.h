/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pickle_writer.h - writes pickles of tensors the way torch.save does, into memory.
 */
#ifndef GF_TESTS_PICKLE_WRITER_H
#define GF_TESTS_PICKLE_WRITER_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct pw {
    uint8_t p[8192];
    size_t n;
};

static inline void pw_bytes(struct pw *w, const void *s, size_t n)
{
    memcpy(w->p + w->n, s, n);
    w->n += n;
}

/* Opcodes without arguments, by their characters. */
static inline void pw_op(struct pw *w, const char *ops)
{
    pw_bytes(w, ops, strlen(ops));
}

static inline void pw_int(struct pw *w, int64_t value)
{
    pw_bytes(w, "\x8a\x08", 2);
    for (int i = 0; i < 8; i++)
        w->p[w->n++] = (uint8_t)((uint64_t)value >> (8 * i));
}

static inline void pw_str(struct pw *w, const char *s)
{
    w->p[w->n++] = 'X';
    for (int i = 0; i < 4; i++)
        w->p[w->n++] = (uint8_t)(strlen(s) >> (8 * i));
    pw_bytes(w, s, strlen(s));
}

static inline void pw_global(struct pw *w, const char *module, const char *name)
{
    w->n += (size_t)snprintf((char *)w->p + w->n, sizeof(w->p) - w->n, "c%s\n%s\n", module,
                             name);
}

/* A tuple of whole numbers that ends with -1, which is not part of it. */
static inline void pw_ints(struct pw *w, const int64_t *values)
{
    pw_op(w, "(");
    for (; *values != -1; values++)
        pw_int(w, *values);
    pw_op(w, "t");
}

/* ('storage', torch.<class>, key, 'cpu', numel) as a persistent id. */
static inline void pw_storage(struct pw *w, const char *class, const char *key,
                              const char *location, int64_t numel)
{
    pw_op(w, "(");
    pw_str(w, "storage");
    pw_global(w, "torch", class);
    pw_str(w, key);
    pw_str(w, location);
    pw_int(w, numel);
    pw_op(w, "tQ");
}

/* The head of a call of torch._utils.<func>: arguments follow, pw_op("tR") ends it. */
static inline void pw_begin(struct pw *w, const char *func)
{
    pw_global(w, "torch._utils", func);
    pw_op(w, "(");
}

/* A whole _rebuild_tensor_v2 on a storage. */
static inline void pw_tensor(struct pw *w, const char *class, const char *key,
                             int64_t numel, int64_t offset, const int64_t *size,
                             const int64_t *stride)
{
    pw_begin(w, "_rebuild_tensor_v2");
    pw_storage(w, class, key, "cpu", numel);
    pw_int(w, offset);
    pw_ints(w, size);
    pw_ints(w, stride);
    pw_op(w, "\x89");
    pw_global(w, "collections", "OrderedDict");
    pw_op(w, ")RtR");
}

#define PW_DIMS(...) ((const int64_t[]){ __VA_ARGS__ __VA_OPT__(, ) - 1 })

#endif
