/* SPDX-License-Identifier: Apache-2.0 */
/*
 * t_deepspeed.h - what the tests of the DeepSpeed format share: checkpoints are written by
 * DeepSpeed's rules (ds_write.c), read by ours, and every element is compared: it names its
 * parameter and its place.
 */
#ifndef GF_TESTS_T_DEEPSPEED_H
#define GF_TESTS_T_DEEPSPEED_H

#include "base/math.h"
#include "format/deepspeed.h"
#include "tests/unit/ds_write.h"

#define TAG "global_step4"

/* Odd sizes, fewer elements than ranks, a scalar, nothing at all; two groups. */
static const struct dw_param model[] = {
    { .name = "embed", .rank = 2, .dims = { 7, 5 } },
    { .name = "scalar", .rank = 0 },
    { .name = "mask", .role = DW_BUFFER, .rank = 1, .dims = { 3 } },
    { .name = "up", .rank = 3, .dims = { 2, 3, 11 }, .group = 1 },
    { .name = "none", .rank = 2, .dims = { 0, 4 } },
    { .name = "one", .rank = 1, .dims = { 1 }, .group = 1 },
    { .name = "head", .role = DW_TIED, .rank = 2, .dims = { 7, 5 }, .tied_to = 0 },
    { .name = "cold", .role = DW_FROZEN, .rank = 2, .dims = { 3, 5 } },
    { .name = "last", .rank = 1, .dims = { 13 } },
};

#define RUN(stage_, world_, ...)                                                           \
    ((struct dw_run){ .params = model,                                                     \
                      .n = GF_COUNT(model),                                                \
                      .groups = 2,                                                         \
                      .stage = (stage_),                                                   \
                      .world = (world_)__VA_OPT__(, ) __VA_ARGS__ })

struct opened {
    struct gf_dir *dir;
    struct gf_found found;
};

static inline struct gf_dir *a_dir(void)
{
    struct gf_dir *dir = NULL;

    GF_OK(gf_dir_mem("run", &gf_limits_default, &dir, &t_err));
    return dir;
}

static inline int read_dir(struct gf_dir *dir, const char *tag, bool allow,
                           struct gf_found *ret)
{
    struct gf_format_in in = { .dir = dir,
                               .tag = tag,
                               .limits = &gf_limits_default,
                               .allow_incomplete = allow,
                               .threads = 4 };
    int r = gf_deepspeed_format.read(&in, ret, &t_err);
    const char *names[64];
    uint64_t sizes[64];

    if (r) {
        gf_found_done(ret);
        return r;
    }
    for (size_t i = 0; i < ret->sources.n; i++) {
        sizes[i] = ret->sources.at[i]->size;
        names[i] = ret->sources.at[i]->name;
    }
    return gf_catalog_check(ret->catalog, sizes, names, ret->sources.n, &t_err);
}

static inline struct opened save_and_read(const struct dw_run *run, bool allow)
{
    struct opened o = { .dir = a_dir() };

    dw_save(o.dir, TAG, run);
    dw_text(o.dir, "latest", TAG "\n");
    GF_OK(read_dir(o.dir, NULL, allow, &o.found));
    return o;
}

static inline int save_and_fail(const struct dw_run *run, bool allow)
{
    GF_AUTO(gf_dir) dir = a_dir();
    struct gf_found found = { 0 };
    int r;

    dw_save(dir, TAG, run);
    dw_text(dir, "latest", TAG);
    r = read_dir(dir, NULL, allow, &found);
    gf_found_done(&found);
    return r;
}

static inline void done(struct opened *o)
{
    gf_found_done(&o->found);
    gf_dir_free(o->dir);
}

/* A file of a checkpoint in another's place. */
static inline void copy_file(struct gf_dir *dir, const char *from, const char *to)
{
    static char bytes[1 << 16];
    GF_AUTO(gf_source) src = NULL;

    GF_OK(gf_dir_open(dir, from, &src, &t_err));
    GF_OK(gf_source_read_err(src, bytes, src->size, 0, &t_err));
    GF_OK(gf_dir_mem_add(dir, to, bytes, src->size, &t_err));
}

static inline const struct gf_tensor *find(const struct opened *o, const char *name)
{
    const struct gf_tensor *tensor = gf_catalog_find(o->found.catalog, name);

    if (!tensor)
        fail_msg("no tensor '%s'", name);
    return tensor;
}

static inline void gather(const struct opened *o, const struct gf_tensor *tensor, void *buf)
{
    size_t size = gf_dtype_size(tensor->dtype);

    for (uint32_t i = 0; i < tensor->npieces; i++) {
        const struct gf_piece *piece =
            gf_catalog_piece(o->found.catalog, tensor->pieces + i);

        assert_int_equal(piece->box, GF_NONE);
        assert_int_equal(gf_source_read(o->found.sources.at[piece->source],
                                        (char *)buf + piece->start * size,
                                        piece->count * size, piece->offset),
                         0);
    }
}

static inline void check_master(const struct opened *o, const struct gf_tensor *tensor,
                                size_t i)
{
    float buf[256] = { 0 };

    assert_int_equal(tensor->dtype, GF_F32);
    gather(o, tensor, buf);
    for (uint64_t e = 0; e < tensor->numel; e++)
        if (buf[e] != dw_master(i, e))
            fail_msg("'%s': master %d is %f", tensor->name, (int)e, (double)buf[e]);
}

static inline void check_live(const struct opened *o, const struct gf_tensor *tensor,
                              size_t i)
{
    uint16_t buf[256] = { 0 };

    assert_int_equal(tensor->dtype, GF_BF16);
    gather(o, tensor, buf);
    for (uint64_t e = 0; e < tensor->numel; e++)
        assert_int_equal(buf[e], dw_live(i, e));
}

/* Everything that the run says must be there, and nothing else. */
static inline void check_all(const struct opened *o, const struct dw_run *run)
{
    size_t visible = 0, expected = 0;

    for (size_t i = 0; i < run->n; i++) {
        const struct dw_param *p = &run->params[i];
        size_t of = p->role == DW_TIED ? p->tied_to : i;
        const struct gf_tensor *t;

        if (p->role == DW_EXCLUDED)
            continue;
        expected++;
        t = find(o, p->name);
        assert_true(
            gf_shape_equal(t->shape, (struct gf_shape){ (uint32_t)p->rank, p->dims }));
        assert_int_equal(t->live, GF_BF16);
        assert_false(t->hidden);
        assert_int_equal(t->buffer, p->role == DW_BUFFER);
        if (p->role == DW_TIED)
            assert_ptr_equal(gf_catalog_at(o->found.catalog, t->alias),
                             find(o, run->params[of].name));
        else
            assert_int_equal(t->alias, GF_NONE);
        if (p->role == DW_BUFFER || p->role == DW_FROZEN || run->stage == 0) {
            assert_int_equal(t->frozen, p->role == DW_FROZEN && run->stage > 0);
            assert_int_equal(t->copy, GF_NONE);
            check_live(o, t, of);
            continue;
        }
        check_master(o, t, of);
        if (run->stage < 3 && t->numel) {
            const struct gf_tensor *copy = gf_catalog_at(o->found.catalog, t->copy);

            assert_true(copy->hidden);
            assert_int_equal(copy->npieces, 1);
            check_live(o, copy, of);
        } else {
            assert_int_equal(t->copy, GF_NONE);
        }
    }
    for (uint32_t i = 0; i < gf_catalog_len(o->found.catalog); i++)
        visible += !gf_catalog_at(o->found.catalog, i)->hidden;
    assert_int_equal(visible, expected);
}

#endif
