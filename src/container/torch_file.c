/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch_file.c - what torch's constructors mean, by name; nothing is called.
 *
 *   tensor   = _rebuild_tensor(storage, offset, size, stride)
 *            | _rebuild_tensor_v2(storage, offset, size, stride, grad, hooks[, flags])
 *            | _rebuild_tensor_v3(storage, offset, size, stride, grad, hooks, dtype[, flags])
 *            | _rebuild_parameter(tensor, ...)
 *            | _rebuild_parameter_with_state(tensor, ...)
 *            | _rebuild_device_tensor_from_cpu_tensor(tensor, ...)
 *            | _rebuild_from_type_v2(constructor, type, arguments, state)
 *   storage  = persistent id ('storage', Class, key, location, numel[, view])
 *
 * Offsets and strides count elements. For float4_e2m1fn_x2 (GF_F4) all numbers stay in
 * torch's terms, where an element is a byte that holds two values: shape [6] is 6 bytes and
 * is [12] in a safetensors header. Whoever fills a catalog doubles the last dimension.
 */
#include "container/torch_file.h"

#include <inttypes.h>
#include <string.h>

#include "base/math.h"

/* Wrappers within wrappers: a parameter of a subclass of a device tensor is 3. */
#define MAX_WRAPS 8

static const struct {
    const char *name;
    uint32_t elem;
    const char *why;
} odd_classes[] = {
    { "ComplexDoubleStorage", 16, "complex128 tensor" },
    { "QInt8Storage", 1, "quantized tensor" },
    { "QUInt8Storage", 1, "quantized tensor" },
    { "QInt32Storage", 4, "quantized tensor" },
    { "QUInt4x2Storage", 1, "quantized tensor" },
    { "QUInt2x4Storage", 1, "quantized tensor" },
};

static const struct {
    const char *name, *why;
} odd_tensors[] = {
    { "_rebuild_qtensor", "quantized tensor" },
    { "_rebuild_sparse_tensor", "sparse tensor" },
    { "_rebuild_sparse_csr_tensor", "sparse tensor" },
    { "_rebuild_nested_tensor", "nested tensor" },
    { "_rebuild_meta_tensor_no_storage", "meta tensor, which has no data" },
    { "_rebuild_wrapper_subclass", "tensor of a wrapper subclass" },
    { "_rebuild_device_tensor_from_numpy", "tensor saved as a numpy array" },
    { "_rebuild_xla_tensor", "tensor saved as a numpy array" },
};

size_t gf_torch_itemsize(enum gf_dtype dtype)
{
    return dtype == GF_F4 ? 1 : gf_dtype_size(dtype);
}

bool gf_torch_dtype(const struct gf_pv *value, enum gf_dtype *ret)
{
    const char *module = gf_pv_global_module(value);

    return module && strcmp(module, "torch") == 0 &&
           gf_dtype_by_torch(gf_pv_global_name(value), ret);
}

/* A whole number that counts something. */
static bool count(const struct gf_pv *v, uint64_t *ret)
{
    int64_t i;

    if (!gf_pv_int(v, &i) || i < 0)
        return false;
    *ret = (uint64_t)i;
    return true;
}

static void storage_class(const char *name, struct gf_torch_storage *ret)
{
    if (strcmp(name, "UntypedStorage") == 0) {
        ret->untyped = true;
        ret->dtype = GF_U8;
        ret->elem = 1;
        return;
    }
    if (gf_dtype_by_storage(name, &ret->dtype)) {
        ret->elem = (uint32_t)gf_dtype_size(ret->dtype);
        return;
    }
    ret->unsupported = "tensor on an unknown class of storage";
    for (size_t i = 0; i < GF_COUNT(odd_classes); i++)
        if (strcmp(odd_classes[i].name, name) == 0) {
            ret->unsupported = odd_classes[i].why;
            ret->elem = odd_classes[i].elem;
        }
}

int gf_torch_storage(const struct gf_pv *persid, const char *file, bool *ret_is,
                     struct gf_torch_storage *ret, struct gf_err *err)
{
    const struct gf_pv *id = gf_pv_persid(persid), *view = gf_pv_item(id, 5);
    const char *kind = gf_pv_str(gf_pv_item(id, 0));
    const char *class = gf_pv_global_name(gf_pv_item(id, 1));
    const char *location = gf_pv_str(gf_pv_item(id, 3));
    struct gf_torch_storage s = { .key = gf_pv_str(gf_pv_item(id, 2)) };

    if (!kind || strcmp(kind, "storage") != 0) {
        *ret_is = false;
        return 0;
    }
    if (!class || !s.key || !count(gf_pv_item(id, 4), &s.numel))
        return gf_fail(err, GF_EBAD, "'%s': malformed storage id '%s'", file,
                       s.key ? s.key : "?");
    storage_class(class, &s);
    s.meta = location && strcmp(location, "meta") == 0;
    s.view_numel = s.numel;
    if (gf_mul(s.numel, s.elem, &s.nbytes) || s.nbytes > INT64_MAX)
        return gf_fail(err, GF_EBAD,
                       "'%s': storage '%s': impossible size of %" PRIu64 " %ss", file,
                       s.key, s.numel, class);
    if (!gf_pv_is_none(view) && (!count(gf_pv_item(view, 1), &s.view_offset) ||
                                 !count(gf_pv_item(view, 2), &s.view_numel) ||
                                 !gf_inside(s.view_offset, s.view_numel, s.numel)))
        return gf_fail(err, GF_EBAD,
                       "'%s': storage '%s': malformed view of its %" PRIu64 " elements",
                       file, s.key, s.numel);
    *ret_is = true;
    *ret = s;
    return 0;
}

/* What gf_torch_tensor() works on. */
struct tensor {
    struct gf_pickle *pickle;
    const char *file, *what;
    struct gf_torch_view view;
    const char *why; /* it cannot be served */
    struct gf_err *err;
};

#define BAD(t, fmt, ...)                                                                   \
    gf_fail((t)->err, GF_EBAD, "'%s': tensor '%s': " fmt, (t)->file, (t)->what,            \
            ##__VA_ARGS__)

/* {'conj': True, 'neg': True}: the data is not the value. */
static int read_flags(struct tensor *t, const struct gf_pv *flags)
{
    static const char *const names[] = { "conj", "neg" };
    enum gf_dtype dtype = t->view.dtype;

    if (gf_pv_is_none(flags))
        return 0;
    if (!gf_pv_is_dict(flags))
        return BAD(t, "malformed flags");
    for (size_t i = 0; i < gf_pv_pairs(flags); i++) {
        const char *key = gf_pv_str(gf_pv_key(flags, i));
        bool known = false;

        for (unsigned bit = 0; bit < GF_COUNT(names); bit++)
            if (key && strcmp(key, names[bit]) == 0) {
                bool on;

                if (!gf_pv_bool(gf_pv_value(flags, i), &on))
                    return BAD(t, "malformed flag '%s'", key);
                t->view.twist =
                    (uint8_t)((t->view.twist & ~(1u << bit)) | (unsigned)on << bit);
                known = true;
            }
        if (!known)
            t->why = "tensor with an unknown flag";
    }
    if ((t->view.twist & 1 && dtype != GF_C64) ||
        (t->view.twist & 2 && dtype != GF_C64 && !gf_dtype_info(dtype)->wide_float))
        return BAD(t, "%s is conjugated or negated", gf_dtype_info(dtype)->torch);
    return 0;
}

/* size and stride, copied to where they live as long as the pickle. */
static int read_layout(struct tensor *t, const struct gf_pv *size,
                       const struct gf_pv *stride)
{
    uint64_t dims[2][GF_MAX_RANK], *copy;
    uint32_t rank, nstrides;

    if (!gf_pv_size(size, dims[0], &rank) || !gf_pv_size(stride, dims[1], &nstrides))
        return BAD(t, "malformed size or stride");
    if (rank != nstrides)
        return BAD(t, "%u dimensions but %u strides", rank, nstrides);
    copy = gf_pickle_alloc(t->pickle, 2 * rank * sizeof(*copy));
    if (!copy)
        return gf_nomem(t->err);
    if (rank) {
        memcpy(copy, dims[0], rank * sizeof(*copy));
        memcpy(copy + rank, dims[1], rank * sizeof(*copy));
    }
    t->view.shape = (struct gf_shape){ rank, copy };
    t->view.strides = copy + rank;
    if (gf_shape_numel(t->view.shape, &t->view.numel))
        return BAD(t, "impossible size of more than 2^63 elements");
    return 0;
}

/* Every element lies in the storage (or in the part of it that a legacy id names). */
static int check_extent(struct tensor *t)
{
    const struct gf_torch_storage *s = &t->view.storage;
    uint64_t last = t->view.offset, step, have, item = gf_torch_itemsize(t->view.dtype);
    bool overflow = false;

    if (s->elem != item && s->view_offset)
        return BAD(t, "a view of storage '%s' that has another dtype", s->key);
    have = s->view_numel * s->elem / item; /* not above nbytes */
    if (t->view.numel) {
        for (uint32_t i = 0; i < t->view.shape.rank && !overflow; i++)
            overflow = gf_mul(t->view.shape.dims[i] - 1, t->view.strides[i], &step) ||
                       gf_add(last, step, &last);
        if (overflow || last >= have)
            return BAD(t,
                       "reaches past storage '%s' of %" PRIu64 " elements: offset %" PRIu64
                       ", %" PRIu64 " elements, %s%" PRIu64,
                       s->key, have, t->view.offset, t->view.numel,
                       overflow ? "the last past " : "the last at ", last);
    }
    if (gf_add(t->view.offset, s->view_offset, &t->view.offset))
        return BAD(t, "impossible offset of %" PRIu64, t->view.offset);
    return 0;
}

/* The three constructors that make a tensor of a storage. */
static int rebuild(struct tensor *t, unsigned version, const struct gf_pv *args)
{
    struct gf_torch_storage *s = &t->view.storage;
    bool is_storage;
    int r = gf_torch_storage(gf_pv_item(args, 0), t->file, &is_storage, s, t->err);

    if (r)
        return r;
    if (!is_storage)
        return BAD(t, "its storage has no id");
    if (s->unsupported || s->meta) {
        t->why = s->meta ? "meta tensor, which has no data" : s->unsupported;
        return 0;
    }
    t->view.dtype = s->dtype;
    if (version == 3 && !gf_torch_dtype(gf_pv_item(args, 6), &t->view.dtype)) {
        t->why = "tensor of a dtype that safetensors lacks";
        return 0;
    }
    if (!count(gf_pv_item(args, 1), &t->view.offset))
        return BAD(t, "malformed offset");
    r = read_layout(t, gf_pv_item(args, 2), gf_pv_item(args, 3));
    if (!r)
        r = check_extent(t);
    if (!r && version > 1)
        r = read_flags(t, gf_pv_item(args, version == 2 ? 6 : 7));
    return r;
}

/* Name of a GLOBAL of torch's own constructors, or NULL. */
static const char *constructor(const struct gf_pv *func)
{
    const char *module = gf_pv_global_module(func);

    if (!module ||
        (strcmp(module, "torch._utils") != 0 && strcmp(module, "torch._tensor") != 0))
        return NULL;
    return gf_pv_global_name(func);
}

static bool is_plain_type(const struct gf_pv *type)
{
    return gf_pv_is_global(type, "torch", "Tensor") ||
           gf_pv_is_global(type, "torch._tensor", "Tensor") ||
           gf_pv_is_global(type, "torch.nn.parameter", "Parameter") ||
           gf_pv_is_global(type, "torch.nn.parameter", "Buffer");
}

static bool is_any_of(const char *name, const char *const names[])
{
    for (; *names; names++)
        if (strcmp(name, *names) == 0)
            return true;
    return false;
}

/* Takes wrappers off until a constructor of a tensor is reached. */
static int interpret(struct tensor *t, const struct gf_pv *func, const struct gf_pv *args,
                     bool *ret_is)
{
    static const char *const around_tensor[] = { "_rebuild_parameter",
                                                 "_rebuild_parameter_with_state",
                                                 "_rebuild_device_tensor_from_cpu_tensor",
                                                 NULL };
    static const char *const around_call[] = { "_rebuild_from_type_v2",
                                               "_rebuild_from_type", NULL };
    static const char *const plain[] = { "_rebuild_tensor", "_rebuild_tensor_v2",
                                         "_rebuild_tensor_v3" };

    for (size_t wraps = 0; wraps < MAX_WRAPS; wraps++) {
        const char *name = constructor(func);

        *ret_is = name || wraps;
        if (!name) {
            t->why = "tensor made by an unknown constructor";
            return 0;
        }
        for (unsigned i = 0; i < GF_COUNT(plain); i++)
            if (strcmp(name, plain[i]) == 0)
                return rebuild(t, i + 1, args);
        for (size_t i = 0; i < GF_COUNT(odd_tensors); i++)
            if (strcmp(name, odd_tensors[i].name) == 0) {
                t->why = odd_tensors[i].why;
                return 0;
            }
        if (is_any_of(name, around_tensor)) {
            func = gf_pv_func(gf_pv_item(args, 0));
            args = gf_pv_args(gf_pv_item(args, 0));
        } else if (is_any_of(name, around_call)) {
            if (!is_plain_type(gf_pv_item(args, 1))) {
                t->why = "tensor of a subclass";
                return 0;
            }
            func = gf_pv_item(args, 0);
            args = gf_pv_item(args, 2);
        } else {
            *ret_is = wraps > 0;
            t->why = "tensor made by an unknown constructor";
            return 0;
        }
    }
    return BAD(t, "wrapped more than %d times", MAX_WRAPS);
}

int gf_torch_tensor(struct gf_pickle *pickle, const struct gf_pv *value, const char *file,
                    const char *what, enum gf_torch_is *ret_is, struct gf_torch_view *ret,
                    const char **why, struct gf_err *err)
{
    struct tensor t = { .pickle = pickle, .file = file, .what = what, .err = err };
    bool is;
    int r = interpret(&t, gf_pv_func(value), gf_pv_args(value), &is);

    if (r)
        return r;
    if (!is) {
        *ret_is = GF_TORCH_OTHER;
    } else if (t.why) {
        *ret_is = GF_TORCH_UNSUPPORTED;
        *why = t.why;
    } else {
        *ret_is = GF_TORCH_TENSOR;
        *ret = t.view;
    }
    return 0;
}

/* A pickle of 0x1950a86a20f9469cfc6c, in protocols 2 and 3, or framed in 4 and 5. */
bool gf_torch_is_legacy(const uint8_t *bytes, size_t n)
{
    static const uint8_t magic[] = { 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                     0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e };
    size_t skip = n > 2 && bytes[2] == 0x95 ? 11 : 2;

    return n >= 15 && bytes[0] == 0x80 &&
           memcmp(bytes + skip, magic, GF_MIN(sizeof(magic), n - skip)) == 0;
}

bool gf_torch_is_zip(const uint8_t *bytes, size_t n)
{
    return n >= 4 && memcmp(bytes, "PK\3\4", 4) == 0;
}

static int check_prelude(const char *name, const struct gf_pv *protocol,
                         const struct gf_pv *sys_info, struct gf_err *err)
{
    int64_t version = 0;
    bool little = true;

    if (!gf_pv_int(protocol, &version) || version != 1001)
        return gf_fail(err, GF_EBAD,
                       "'%s': legacy torch file of protocol %" PRId64 ", wanted 1001", name,
                       version);
    if (!gf_pv_is_dict(sys_info))
        return gf_fail(err, GF_EBAD, "'%s': legacy torch file without system info", name);
    gf_pv_bool(gf_pv_get(sys_info, "little_endian"), &little);
    return little ? 0 : gf_fail(err, ENOTSUP, "'%s': big-endian torch file", name);
}

int gf_torch_legacy_parse(const char *name, const uint8_t *bytes, size_t len,
                          const struct gf_limits *limits, struct gf_pickle **ret_object,
                          struct gf_pickle **ret_keys, size_t *ret_used, bool *ret_short,
                          struct gf_err *err)
{
    GF_AUTO(gf_pickle) object = NULL;
    GF_AUTO(gf_pickle) keys = NULL;
    size_t at = 0, used = 0;
    int r;

    if (!gf_torch_is_legacy(bytes, len))
        return gf_fail(err, GF_EBAD, "'%s': no legacy torch file", name);
    {
        GF_AUTO(gf_pickle) magic = NULL;
        GF_AUTO(gf_pickle) protocol = NULL;
        GF_AUTO(gf_pickle) sys_info = NULL;
        struct gf_pickle **parts[] = { &magic, &protocol, &sys_info, &object, &keys };

        for (size_t i = 0; i < GF_COUNT(parts); i++, at += used) {
            r = gf_pickle_parse(name, bytes + at, len - at, limits, parts[i], &used,
                                ret_short, err);
            if (r)
                return r;
        }
        r = check_prelude(name, gf_pickle_root(protocol), gf_pickle_root(sys_info), err);
        if (r)
            return r;
    }
    for (size_t i = 0; i < gf_pickle_persids(object); i++) {
        const struct gf_pv *id = gf_pv_persid(gf_pickle_persid(object, i));
        const char *kind = gf_pv_str(gf_pv_item(id, 0));

        if (kind && strcmp(kind, "module") == 0)
            return gf_fail(err, ENOTSUP,
                           "'%s': a whole nn.Module with its code, not a state dict", name);
    }
    *ret_object = gf_take(&object);
    *ret_keys = gf_take(&keys);
    *ret_used = at;
    return 0;
}
