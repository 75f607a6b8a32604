/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_model.c - *_model_states.pt: one dict.
 *
 *     module                  name -> tensor, in state_dict order; ZeRO-3: empty, dtype right
 *     buffer_names            [name]
 *     param_shapes            [name -> size] in flat order; None for ZeRO-0
 *     frozen_param_shapes     name -> size; None: not written
 *     frozen_param_fragments  name -> tensor, in ZeRO-3 1/W of it
 *     shared_params           alias -> name, only in global rank 0's file
 *     global_steps, mp_world_size, checkpoint_parallel_dimensions, num_experts, ds_config,
 *     ds_autoep_layers; anything else is a client's and not looked at
 */
#include <stdio.h>
#include <string.h>

#include "format/deepspeed_value.h"

static int read_shared(struct gf_ds_reader *r, const struct gf_pv *value,
                       struct gf_ds_model *ret)
{
    size_t n = gf_pv_pairs(value);
    int e;

    if (gf_pv_is_none(value))
        return 0;
    if (!gf_pv_is_dict(value))
        return gf_ds_not(r, "'shared_params'", "dict");
    e = gf_ds_room(r, n, sizeof(*ret->shared), &ret->shared);
    for (size_t i = 0; i < n && !e; i++) {
        e = gf_ds_copy_name(r, gf_pv_key(value, i), "'shared_params'",
                            &ret->shared[i].alias);
        if (!e)
            e = gf_ds_copy_name(r, gf_pv_value(value, i), "'shared_params'",
                                &ret->shared[i].name);
    }
    ret->nshared = n;
    return e;
}

static int read_buffers(struct gf_ds_reader *r, const struct gf_pv *value,
                        struct gf_ds_model *ret)
{
    size_t n = gf_pv_len(value);
    int e;

    if (gf_pv_is_none(value))
        return 0;
    if (!gf_pv_is_list(value))
        return gf_ds_not(r, "'buffer_names'", "list");
    e = gf_ds_room(r, n, sizeof(*ret->buffers), &ret->buffers);
    for (size_t i = 0; i < n && !e; i++)
        e = gf_ds_copy_name(r, gf_pv_item(value, i), "'buffer_names'", &ret->buffers[i]);
    ret->nbuffers = n;
    ret->has_buffers = true;
    return e;
}

static int read_fragments(struct gf_ds_reader *r, const struct gf_pv *dict,
                          const struct gf_ds_shapes *names, struct gf_ds_flat **ret)
{
    struct gf_ds_flat *at;
    int e;

    if (!gf_pv_is_dict(dict))
        return gf_ds_not(r, "'frozen_param_fragments'", "dict");
    if (gf_pv_pairs(dict) != names->n)
        return gf_fail(r->err, GF_EBAD,
                       "'%s': %zu frozen parameters have fragments, %zu have shapes",
                       r->file->path, gf_pv_pairs(dict), names->n);
    e = gf_ds_room(r, names->n, sizeof(*at), &at);
    for (size_t i = 0; i < names->n && !e; i++) {
        const char *name = gf_pv_str(gf_pv_key(dict, i));
        char what[256];

        if (!name || strcmp(name, names->at[i].name) != 0)
            return gf_fail(
                r->err, GF_EBAD,
                "'%s': frozen fragment %zu is of '%s', by the shapes it is of '%s'",
                r->file->path, i, name ? name : "?", names->at[i].name);
        snprintf(what, sizeof(what), "fragment of '%.200s'", name);
        e = gf_ds_read_flat(r, gf_pv_value(dict, i), what, &at[i]);
    }
    if (!e)
        *ret = at;
    return e;
}

static int read_frozen(struct gf_ds_reader *r, const struct gf_pv *root,
                       struct gf_ds_model *ret)
{
    const struct gf_pv *shapes = gf_pv_get(root, "frozen_param_shapes");
    const struct gf_pv *fragments = gf_pv_get(root, "frozen_param_fragments");
    int e;

    ret->has_frozen = shapes && fragments;
    ret->no_frozen = gf_pv_is_none(shapes) || gf_pv_is_none(fragments);
    if (ret->no_frozen)
        return 0;
    e = gf_ds_read_shapes(r, shapes, "'frozen_param_shapes'", &ret->frozen);
    /* Below ZeRO-3 the fragments are whole tensors, and `module` has them, too. */
    if (e || !r->file->split)
        return e;
    return read_fragments(r, fragments, &ret->frozen, &ret->fragments);
}

static int read_experts(struct gf_ds_reader *r, const struct gf_pv *value,
                        struct gf_ds_model *ret)
{
    size_t n = gf_pv_len(value);
    int e;

    if (!gf_pv_is_list(value))
        return gf_pv_is_none(value) ? 0 : gf_ds_not(r, "'num_experts'", "list");
    e = gf_ds_room(r, n, sizeof(*ret->experts), &ret->experts);
    for (size_t i = 0; i < n && !e; i++)
        if (!gf_ds_u64(gf_pv_item(value, i), &ret->experts[i]))
            return gf_ds_not(r, "'num_experts'", "list of numbers");
    ret->nexperts = n;
    return e;
}

/* Which of the user's settings change what the files hold. */
static void read_config(const struct gf_pv *root, struct gf_ds_model *ret)
{
    const struct gf_pv *config = gf_pv_get(root, "ds_config");
    const struct gf_pv *zero = gf_pv_get(config, "zero_optimization");
    const struct gf_pv *bf16 = gf_pv_get(config, "bf16");

    gf_pv_bool(gf_pv_get(zero, "zero_quantized_nontrainable_weights"), &ret->quantized);
    gf_pv_bool(gf_pv_get(bf16, "enabled"), &ret->bf16);
}

static void read_step(const struct gf_pv *root, struct gf_ds_model *ret)
{
    ret->has_step = gf_ds_u64(gf_pv_get(root, "global_steps"), &ret->step);
}

static void read_numbers(const struct gf_pv *root, struct gf_ds_model *ret)
{
    const struct gf_pv *dims = gf_pv_get(root, "checkpoint_parallel_dimensions");
    const struct gf_pv *info = gf_pv_get(root, "universal_checkpoint_info");

    read_step(root, ret);
    gf_ds_u64(gf_pv_get(root, "mp_world_size"), &ret->mp_world);
    gf_ds_u64(gf_pv_get(dims, "pp_degree"), &ret->pp_degree);
    gf_ds_u64(gf_pv_get(dims, "tp_degree"), &ret->tp_degree);
    ret->autoep = gf_pv_len(gf_pv_get(root, "ds_autoep_layers")) > 0 ||
                  gf_pv_len(gf_pv_get(info, "ds_autoep_layers")) > 0;
}

int gf_ds_read_model(struct gf_ds_reader *r, struct gf_ds_model *ret)
{
    const struct gf_pv *root = gf_torch_root(r->torch);
    const struct gf_pv *module = gf_pv_get(root, "module");
    const struct gf_pv *shapes = gf_pv_get(root, "param_shapes");
    int e = 0;

    if (!gf_pv_is_dict(root) || !module)
        return gf_fail(r->err, GF_EBAD, "'%s': no DeepSpeed model file: no 'module' in it",
                       r->file->path);
    ret->no_module = gf_pv_is_none(module);
    ret->has_shapes = !gf_pv_is_none(shapes);
    read_numbers(root, ret);
    read_config(root, ret);
    if (!ret->no_module)
        e = gf_ds_read_state(r, module, "'module'", &ret->module);
    if (!e && ret->has_shapes)
        e = gf_ds_read_groups(r, shapes, "'param_shapes'", &ret->shapes);
    if (!e)
        e = read_frozen(r, root, ret);
    if (!e)
        e = read_shared(r, gf_pv_get(root, "shared_params"), ret);
    if (!e)
        e = read_buffers(r, gf_pv_get(root, "buffer_names"), ret);
    return e ? e : read_experts(r, gf_pv_get(root, "num_experts"), ret);
}

int gf_ds_read_rank(struct gf_ds_reader *r, const struct gf_ds_model *rank0,
                    struct gf_ds_model *ret)
{
    const struct gf_pv *root = gf_torch_root(r->torch);

    read_step(root, ret);
    if (rank0->frozen.n == 0)
        return 0;
    return read_fragments(r, gf_pv_get(root, "frozen_param_fragments"), &rank0->frozen,
                          &ret->fragments);
}
