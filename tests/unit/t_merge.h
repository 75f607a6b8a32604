/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t_merge.h - one weight with an adapter merged into it, for the tests of gather/.
 *
 * Make a world, add tensors, fill w->merges, then serve(): from there on reads are of the
 * merged weight, which starts at an odd offset of its file.
 */
#ifndef GF_TESTS_T_MERGE_H
#define GF_TESTS_T_MERGE_H

#include <stdlib.h>

#include "base/math.h"
#include "gather/gather.h"
#include "t_catalog.h"
#include "tensor/convert.h"
#include "tensor/lowrank.h"

static uint64_t seed __attribute__((unused)) = 88172645463325252u;

static inline uint64_t dice(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % n;
}

struct world {
    struct gf_catalog *catalog;
    struct gf_source *sources[32];
    uint32_t nsources;
    struct gf_merge merges[2];
    struct gf_output output;
    struct gf_view view;
    struct gf_bound bound;
    struct gf_image *image;
    struct gf_resident *resident;
    struct gf_gather gather;
    struct gf_scratch scratch;
};

static inline uint64_t numel_of(struct gf_shape shape)
{
    uint64_t n = 1;

    assert_false(gf_shape_numel(shape, &n));
    return n;
}

/* A tensor of these values, in two files. */
static inline uint32_t add(struct world *w, enum gf_dtype dtype, struct gf_shape shape,
                           const float *values)
{
    uint64_t n = numel_of(shape), half = n / 2, size = gf_dtype_size(dtype);
    gf_convert_fn *convert = gf_convert_get(GF_F32, dtype);
    uint8_t *bytes = malloc(n * size);
    char name[16];
    uint32_t index;

    if (convert)
        convert(bytes, values, n);
    else
        memcpy(bytes, values, n * size);
    snprintf(name, sizeof(name), "t%u", w->nsources);
    index = t_add(w->catalog, name, dtype, shape);
    for (int i = 0; i < 2; i++) {
        uint64_t count = i ? n - half : half;

        GF_OK(gf_source_mem(name, bytes + (i ? half * size : 0), count * size,
                            &w->sources[w->nsources], &t_err));
        GF_OK(gf_catalog_add_linear(w->catalog, w->nsources++, 0, i ? half : 0, count,
                                    &t_err));
    }
    free(bytes);
    return index;
}

#define VALUES(...) ((const float[]){ __VA_ARGS__ })

static inline uint32_t add_random(struct world *w, enum gf_dtype dtype,
                                  struct gf_shape shape)
{
    uint64_t n = numel_of(shape);
    float *values = malloc(n * sizeof(*values));
    uint32_t index;

    for (uint64_t i = 0; i < n; i++)
        values[i] = (float)dice(1 << 20) / 0x1p19f - 1;
    index = add(w, dtype, shape, values);
    free(values);
    return index;
}

static const struct gf_merge nothing = {
    .dtype = GF_F32,
    .a = GF_NONE,
    .b = GF_NONE,
    .c = GF_NONE,
    .d = GF_NONE,
    .magnitude = GF_NONE,
    .scale = 1,
};

static inline struct gf_merge *merge(struct world *w, int i, enum gf_merge_kind kind,
                                     struct gf_shape shape)
{
    w->merges[i] = nothing;
    w->merges[i].kind = kind;
    w->merges[i].shape = shape;
    return &w->merges[i];
}

/* What is served: the run of `leaf` from `first` on, which is W from `merge_first` on. */
static inline void serve(struct world *w, uint32_t leaf, uint64_t first,
                         uint64_t merge_first, uint64_t count, enum gf_dtype to)
{
    uint64_t sizes[32];
    const char *names[32];

    for (uint32_t i = 0; i < w->nsources; i++) {
        sizes[i] = w->sources[i]->size;
        names[i] = w->sources[i]->name;
    }
    GF_OK(gf_catalog_check(w->catalog, sizes, names, w->nsources, &t_err));
    GF_OK(gf_expr_gather(w->catalog, 0, leaf, to, &w->output.expr, &t_err));
    w->output.name = "w";
    w->output.expr.first = first;
    w->output.expr.merge = &w->merges[0];
    w->output.expr.merge_first = merge_first;
    w->output.nbytes = count * gf_dtype_size(to);
    GF_OK(gf_image_new("f", &w->image, &t_err));
    GF_OK(gf_image_add_bytes(w->image, "x", 1, &t_err)); /* elements are not aligned */
    GF_OK(gf_image_add_tensor(w->image, 0, w->output.nbytes, &t_err));
    GF_OK(gf_image_seal(w->image, &t_err));
    w->view = (struct gf_view){ .outputs = &w->output, .n = 1 };
    w->bound = (struct gf_bound){ w->catalog, w->sources, w->nsources };
    w->gather = (struct gf_gather){
        .view = &w->view, .bound = &w->bound, .nbound = 1, .resident = w->resident
    };
}

static inline int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    gf_convert_init();
    gf_lowrank_init();
    w->catalog = t_catalog();
    GF_OK(gf_resident_new(1 << 20, &w->resident, &t_err));
    *state = w;
    return 0;
}

static inline int teardown(void **state)
{
    struct world *w = *state;

    gf_image_free(w->image);
    gf_resident_free(w->resident);
    gf_catalog_free(w->catalog);
    for (uint32_t i = 0; i < w->nsources; i++)
        gf_source_free(w->sources[i]);
    gf_scratch_done(&w->scratch);
    free(w);
    return 0;
}

static inline void read_at(struct world *w, uint64_t off, size_t len, void *buf)
{
    struct gf_fault fault = { 0 };

    assert_int_equal(
        gf_gather_read(&w->gather, w->image, 1 + off, len, buf, &w->scratch, &fault), 0);
}

static inline void expect(struct world *w, const float *want)
{
    uint64_t n = w->output.nbytes / gf_dtype_size(w->output.expr.to);
    gf_convert_fn *convert = gf_convert_get(w->output.expr.to, GF_F32);
    uint8_t raw[256];
    float got[64];

    assert_in_range(n, 1, 64);
    read_at(w, 0, w->output.nbytes, raw);
    if (convert)
        convert(got, raw, n);
    else
        memcpy(got, raw, n * sizeof(*got));
    for (uint64_t i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("element %u is %.9g, not %.9g", (unsigned)i, (double)got[i],
                     (double)want[i]);
}

static const float w23[] __attribute__((unused)) = { 1, 2, 3, 4, 5, 6 };

#endif
