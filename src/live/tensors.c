/* SPDX-License-Identifier: Apache-2.0 */
/* The table of tensors, as the trainer fills it. */
#include "live/publish_int.h"

#include "base/math.h"
#include "base/utf8.h"

#define KNOWN_FLAGS (GATHERFS_FLAT | GATHERFS_STATIC | GATHERFS_BUFFER | GATHERFS_FROZEN)

_Static_assert(GATHERFS_FLAT == GF_LIVE_FLAT && GATHERFS_STATIC == GF_LIVE_STATIC &&
                   GATHERFS_BUFFER == GF_LIVE_BUFFER && GATHERFS_FROZEN == GF_LIVE_FROZEN,
               "flags go into the table as they are");

static int check_name(const char *name, struct gf_err *err)
{
    size_t len = name ? strlen(name) : 0;

    if (len == 0 || len > gf_limits_default.name)
        return gf_fail(err, EINVAL, "a tensor's name has %zu bytes, wanted 1 to %zu", len,
                       gf_limits_default.name);
    if (!gf_utf8_valid((const uint8_t *)name, len))
        return gf_fail(err, EINVAL, "a tensor's name is not UTF-8");
    return 0;
}

static int check_desc(const struct gatherfs_tensor_desc *d, enum gf_dtype *ret,
                      struct gf_err *err)
{
    if (check_name(d->name, err))
        return -err->code;
    if (!d->dtype || !gf_dtype_by_torch(d->dtype, ret) || gf_dtype_info(*ret)->bits % 8)
        return gf_fail(err, EINVAL, "tensor '%s' has dtype '%s', which cannot be published",
                       d->name, d->dtype ? d->dtype : "");
    if (d->ndim > GF_LIVE_DIMS || (d->ndim && !d->shape))
        return gf_fail(err, EINVAL, "tensor '%s' has %u dimensions, at most %d", d->name,
                       d->ndim, GF_LIVE_DIMS);
    if (d->device != 0)
        return gf_fail(err, ENOTSUP,
                       "tensor '%s' is on a device (kind %d): this libgatherfs publishes "
                       "host memory only",
                       d->name, d->device);
    if (d->flags & ~KNOWN_FLAGS)
        return gf_fail(err, EINVAL, "tensor '%s' has unknown flags %#x", d->name, d->flags);
    if (d->flags & GATHERFS_STATIC && d->flags & GATHERFS_BUFFER)
        return gf_fail(err, EINVAL,
                       "tensor '%s' cannot be both static and a buffer that "
                       "changes",
                       d->name);
    if (d->replicas ? d->replica >= d->replicas : d->replica != 0)
        return gf_fail(err, EINVAL, "tensor '%s' is copy %u of %u", d->name, d->replica,
                       d->replicas);
    return 0;
}

/* Fills the box of t: sizes, place and strides of what this rank has. */
static int take_box(struct gf_live_tensor *t, const struct gatherfs_tensor_desc *d,
                    uint64_t *dims, struct gf_err *err)
{
    uint64_t *local = dims + d->ndim, *first = dims + 2 * d->ndim,
             *stride = dims + 3 * d->ndim;
    struct gf_shape box = { d->ndim, local };

    for (uint32_t k = 0; k < d->ndim; k++) {
        local[k] = d->local ? d->local[k] : d->shape[k];
        first[k] = d->first ? d->first[k] : 0;
        if (!gf_inside(first[k], local[k], d->shape[k]))
            return gf_fail(
                err, EINVAL,
                "tensor '%s' dimension %u: piece at %llu of %llu does not lie in "
                "%llu",
                d->name, k, (unsigned long long)first[k], (unsigned long long)local[k],
                (unsigned long long)d->shape[k]);
        if (d->stride && d->stride[k] < 0)
            return gf_fail(err, EINVAL, "tensor '%s' has a negative stride", d->name);
    }
    if (gf_shape_numel(box, &t->count))
        return gf_fail(err, EOVERFLOW, "tensor '%s' has too many elements", d->name);
    gf_shape_strides(box, stride);
    for (uint32_t k = 0; d->stride && k < d->ndim; k++)
        stride[k] = (uint64_t)d->stride[k];
    t->local = local;
    t->first = first;
    t->stride = stride;
    return 0;
}

static int new_tensor(struct gatherfs_pub *pub, struct gf_live_tensor t, const void *data,
                      struct gf_err *err)
{
    if (pub->table.n >= GF_LIVE_MAX_TENSORS)
        return gf_fail(err, E2BIG, "more than %u tensors", GF_LIVE_MAX_TENSORS);
    if (pub->table.n == pub->room) {
        size_t room = GF_MAX(2 * pub->room, 64);
        struct gf_live_tensor *at = reallocarray(pub->table.at, room, sizeof(*at));
        const uint8_t **addresses;

        if (!at)
            return gf_nomem(err);
        pub->table.at = at;
        addresses = reallocarray(pub->data, room, sizeof(*addresses));
        if (!addresses)
            return gf_nomem(err);
        pub->data = addresses;
        pub->room = room;
    }
    pub->data[pub->table.n] = data;
    pub->table.at[pub->table.n] = t;
    return (int)pub->table.n++;
}

static int adding(struct gatherfs_pub *pub, struct gf_err *err)
{
    if (pub->started)
        return gf_fail(err, EBUSY,
                       "tensors can be added only before start, or after reset_table");
    return 0;
}

int gatherfs_pub_add(struct gatherfs_pub *pub, const struct gatherfs_tensor_desc *desc)
{
    struct gf_live_tensor t = { .alias = pub->table.n };
    struct gf_err *err = gf_pub_err();
    struct gatherfs_tensor_desc d;
    uint64_t *dims, numel;

    if (pub->dead)
        return 0;
    if (gf_pub_take_struct(&d, sizeof(d), desc, err) || adding(pub, err) ||
        check_desc(&d, &t.dtype, err))
        return -err->code;
    dims = gf_arena_alloc(&pub->arena, 4 * GF_MAX(d.ndim, 1) * sizeof(*dims));
    t.name = gf_arena_strdup(&pub->arena, d.name);
    if (!dims || !t.name)
        return gf_nomem(err);
    if (d.ndim)
        memcpy(dims, d.shape, d.ndim * sizeof(*dims));
    t.shape = (struct gf_shape){ d.ndim, dims };
    t.flags = d.flags;
    t.replica = d.replica;
    t.replicas = GF_MAX(d.replicas, 1);
    if (gf_shape_numel(t.shape, &numel))
        return gf_fail(err, EOVERFLOW, "tensor '%s' has too many elements", d.name);
    if (d.flags & GATHERFS_FLAT) {
        t.flat_off = d.flat_off;
        t.count = d.flat_count;
        if (!gf_inside(t.flat_off, t.count, numel))
            return gf_fail(err, EINVAL,
                           "tensor '%s' elements at %llu of %llu do not lie in %llu",
                           d.name, (unsigned long long)t.flat_off,
                           (unsigned long long)t.count, (unsigned long long)numel);
    } else if (take_box(&t, &d, dims, err))
        return -err->code;
    if (t.count && !d.data)
        return gf_fail(err, EINVAL, "tensor '%s' has no address", d.name);
    return new_tensor(pub, t, d.data, err);
}

int gatherfs_pub_alias(struct gatherfs_pub *pub, const char *name, uint32_t id)
{
    struct gf_err *err = gf_pub_err();
    struct gf_live_tensor t;

    if (pub->dead)
        return 0;
    if (adding(pub, err) || check_name(name, err))
        return -err->code;
    if (id >= pub->table.n || pub->table.at[id].flags & GF_LIVE_ALIAS)
        return gf_fail(err, EINVAL, "'%s' cannot be a second name of tensor %u", name, id);
    t = pub->table.at[id];
    t = (struct gf_live_tensor){
        .name = gf_arena_strdup(&pub->arena, name),
        .dtype = t.dtype,
        .flags = GF_LIVE_ALIAS | (t.flags & GF_LIVE_FROZEN),
        .alias = id,
        .replica = t.replica,
        .replicas = t.replicas,
        .shape = t.shape,
    };
    if (!t.name)
        return gf_nomem(err);
    return new_tensor(pub, t, NULL, err);
}

int gatherfs_pub_set_ptr(struct gatherfs_pub *pub, uint32_t id, const void *data)
{
    struct gf_err *err = gf_pub_err();

    if (pub->dead)
        return 0;
    if (id >= pub->table.n || pub->table.at[id].flags & GF_LIVE_ALIAS)
        return gf_fail(err, EINVAL, "there is no tensor %u with an address", id);
    if (pub->table.at[id].count && !data)
        return gf_fail(err, EINVAL, "tensor '%s' has no address", pub->table.at[id].name);
    pthread_mutex_lock(&pub->lock);
    while (pub->reading)
        pthread_cond_wait(&pub->changed, &pub->lock);
    pub->data[id] = data;
    pthread_mutex_unlock(&pub->lock);
    return 0;
}

void gf_pub_tensors_done(struct gatherfs_pub *pub)
{
    gf_arena_done(&pub->arena);
    free(pub->table.at);
    free(pub->data);
    pub->table.at = NULL;
    pub->data = NULL;
    pub->table.n = 0;
    pub->room = 0;
}

int gatherfs_pub_reset_table(struct gatherfs_pub *pub)
{
    if (pub->dead)
        return 0;
    pthread_mutex_lock(&pub->lock);
    if (pub->started) {
        pub->started = false;
        pub->table_gone = true;
        gf_pub_notify(pub);
        while (pub->table_gone)
            pthread_cond_wait(&pub->changed, &pub->lock);
        memcpy(pub->metrics, pub->control->metrics, sizeof(pub->metrics));
        pub->control = NULL;
        gf_pub_memory_done(&pub->control_memory);
    }
    gf_pub_tensors_done(pub);
    pthread_mutex_unlock(&pub->lock);
    return 0;
}
