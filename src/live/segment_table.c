/* SPDX-License-Identifier: Apache-2.0 */
/* The tensor table of a control memory: placing, writing, and parsing one from a peer. */
#include "live/segment.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "base/math.h"

#define CONTROL_MAGIC 0x3145564c53464747ull /* "GGFSLVE1" */

void gf_live_table_free(struct gf_live_table *table)
{
    if (!table)
        return;
    free(table->at);
    free(table->memory);
    free(table);
}

/* ---------------------------------------------------------------- writing */

/* Bytes that a piece takes in memory, from its first element to behind its last. */
static bool span(const struct gf_live_tensor *t, uint64_t *ret)
{
    uint64_t last = 0, reach;

    if (t->count == 0 || t->flags & GF_LIVE_ALIAS)
        return *ret = 0, false;
    if (t->flags & GF_LIVE_FLAT)
        return gf_dtype_nbytes(t->dtype, t->count, ret);
    for (uint32_t d = 0; d < t->shape.rank; d++)
        if (gf_mul(t->local[d] - 1, t->stride[d], &reach) || gf_add(last, reach, &last))
            return true;
    return gf_add(last, 1, &last) || last > INT64_MAX ||
           gf_dtype_nbytes(t->dtype, last, ret);
}

int gf_live_table_place(struct gf_live_table *table, struct gf_err *err)
{
    uint64_t end[2] = { 0 }; /* of slots, of the static memory */

    for (uint32_t i = 0; i < table->n; i++) {
        struct gf_live_tensor *t = &table->at[i];
        uint64_t *here = &end[t->flags & GF_LIVE_STATIC ? 1 : 0];

        if (span(t, &t->nbytes) || t->nbytes > INT64_MAX / 2 ||
            *here > INT64_MAX / 2 - t->nbytes)
            return gf_fail(err, EOVERFLOW, "tensor '%s' has too many bytes", t->name);
        t->data_off = t->nbytes ? *here : 0;
        *here = gf_align(*here + t->nbytes, GF_LIVE_ALIGN);
    }
    table->slot_bytes = end[0];
    table->static_bytes = end[1];
    return 0;
}

static uint64_t names_at(const struct gf_live_table *table)
{
    return sizeof(struct gf_live_control) + table->n * sizeof(struct gf_live_entry);
}

int gf_live_table_size(const struct gf_live_table *table, uint64_t *ret, struct gf_err *err)
{
    uint64_t size = names_at(table);

    if (table->n > GF_LIVE_MAX_TENSORS)
        return gf_fail(err, E2BIG, "%u tensors, at most %u", table->n, GF_LIVE_MAX_TENSORS);
    for (uint32_t i = 0; i < table->n; i++)
        size += strlen(table->at[i].name);
    *ret = size;
    return 0;
}

static void write_entry(const struct gf_live_tensor *t, uint64_t name,
                        struct gf_live_entry *entry)
{
    bool boxed = !(t->flags & (GF_LIVE_FLAT | GF_LIVE_ALIAS));

    *entry = (struct gf_live_entry){
        .name = name,
        .name_len = (uint32_t)strlen(t->name),
        .flags = t->flags,
        .rank = t->shape.rank,
        .alias = t->alias,
        .replica = t->replica,
        .replicas = t->replicas,
        .flat_off = t->flat_off,
        .count = t->count,
        .nbytes = t->nbytes,
        .data_off = t->data_off,
    };
    snprintf(entry->dtype, sizeof(entry->dtype), "%s",
             gf_dtype_info(t->dtype)->safetensors);
    for (uint32_t d = 0; d < t->shape.rank; d++) {
        entry->shape[d] = t->shape.dims[d];
        entry->local[d] = boxed ? t->local[d] : 0;
        entry->first[d] = boxed ? t->first[d] : 0;
        entry->stride[d] = boxed ? t->stride[d] : 0;
    }
}

void gf_live_table_write(const struct gf_live_table *table, uint64_t size, void *control)
{
    struct gf_live_control *c = control;
    struct gf_live_entry *entries = (void *)(c + 1);
    uint64_t names = names_at(table), name = 0;

    memset(c, 0, sizeof(*c));
    c->magic = CONTROL_MAGIC;
    c->version = GF_LIVE_VERSION;
    c->header = sizeof(*c);
    memcpy(c->run_id, table->run_id, sizeof(c->run_id));
    c->incarnation = table->incarnation;
    c->total = size;
    c->rank = table->rank;
    c->world = table->world;
    c->nslots = table->nslots;
    c->ntensors = table->n;
    c->slot_bytes = table->slot_bytes;
    c->static_bytes = table->static_bytes;
    c->names = names;
    c->names_len = size - names;
    c->start_ns = table->start_ns;
    c->pid = table->pid;
    c->entry = sizeof(*entries);
    memcpy(c->job, table->job, sizeof(c->job));
    memcpy(c->framework, table->framework, sizeof(c->framework));
    for (uint32_t i = 0; i < table->n; i++) {
        size_t len = strlen(table->at[i].name);

        write_entry(&table->at[i], name, &entries[i]);
        memcpy((char *)control + names + name, table->at[i].name, len);
        name += len;
    }
}

/* ---------------------------------------------------------------- parsing */

static int parse_control(const char *what, const void *data, size_t size,
                         const struct gf_limits *limits, struct gf_live_control *c,
                         struct gf_err *err)
{
    uint64_t entries;

    if (size < sizeof(*c))
        return gf_fail(err, GF_EBAD, "%s: control memory of %zu bytes, wanted at least %zu",
                       what, size, sizeof(*c));
    memcpy(c, data, sizeof(*c));
    if (c->magic != CONTROL_MAGIC)
        return gf_fail(err, GF_EBAD, "%s: control memory has magic %016" PRIx64, what,
                       c->magic);
    if (c->version != GF_LIVE_VERSION || c->header != sizeof(*c) ||
        c->entry != sizeof(struct gf_live_entry))
        return gf_fail(err, EPROTONOSUPPORT,
                       "%s: control memory of version %u (%u, %u), wanted %d (%zu, %zu)",
                       what, c->version, c->header, c->entry, GF_LIVE_VERSION, sizeof(*c),
                       sizeof(struct gf_live_entry));
    if (c->total != size)
        return gf_fail(err, GF_EBAD, "%s: control memory of %zu bytes says it has %" PRIu64,
                       what, size, c->total);
    if (c->world < 1 || c->world > GF_LIVE_MAX_WORLD || c->rank >= c->world)
        return gf_fail(err, GF_EBAD, "%s: rank %u of %u", what, c->rank, c->world);
    if (c->nslots < 1 || c->nslots > GF_LIVE_MAX_SLOTS)
        return gf_fail(err, GF_EBAD, "%s: %u slots, wanted 1 to %d", what, c->nslots,
                       GF_LIVE_MAX_SLOTS);
    if (c->ntensors > GF_LIVE_MAX_TENSORS || c->ntensors > limits->tensors)
        return gf_fail(err, GF_EBAD, "%s: %u tensors, at most %zu", what, c->ntensors,
                       GF_MIN(limits->tensors, (size_t)GF_LIVE_MAX_TENSORS));
    entries = (uint64_t)c->ntensors * sizeof(struct gf_live_entry);
    if (!gf_inside(sizeof(*c), entries, size) || c->names != sizeof(*c) + entries ||
        c->names_len != size - c->names)
        return gf_fail(err, GF_EBAD,
                       "%s: names at %" PRIu64 " (%" PRIu64 " bytes) do not fit %u tensors "
                       "in %zu bytes",
                       what, c->names, c->names_len, c->ntensors, size);
    if (c->slot_bytes > INT64_MAX || c->static_bytes > INT64_MAX)
        return gf_fail(err, GF_EBAD,
                       "%s: slots of %" PRIu64 " and static memory of %" PRIu64 " bytes",
                       what, c->slot_bytes, c->static_bytes);
    if (memchr(c->job, 0, sizeof(c->job)) == NULL ||
        memchr(c->framework, 0, sizeof(c->framework)) == NULL)
        return gf_fail(err, GF_EBAD, "%s: job name without end", what);
    return 0;
}

/* The box lies in the shape and has `count` elements. */
static int parse_box(const char *what, const struct gf_live_entry *e,
                     struct gf_live_tensor *t, uint64_t *dims, struct gf_err *err)
{
    uint64_t count;

    for (uint32_t d = 0; d < e->rank; d++) {
        dims[e->rank + d] = e->local[d];
        dims[2 * e->rank + d] = e->first[d];
        dims[3 * e->rank + d] = e->stride[d];
        if (!gf_inside(e->first[d], e->local[d], e->shape[d]))
            return gf_fail(err, GF_EBAD,
                           "%s: tensor '%s' dimension %u: piece at %" PRIu64 " of %" PRIu64
                           " does not lie in %" PRIu64,
                           what, t->name, d, e->first[d], e->local[d], e->shape[d]);
    }
    t->local = dims + e->rank;
    t->first = dims + 2 * e->rank;
    t->stride = dims + 3 * e->rank;
    if (gf_shape_numel((struct gf_shape){ e->rank, t->local }, &count) || count != t->count)
        return gf_fail(err, GF_EBAD,
                       "%s: tensor '%s' says %" PRIu64 " elements for its box", what,
                       t->name, t->count);
    return 0;
}

static int parse_alias(const char *what, const struct gf_live_table *table, uint32_t i,
                       const struct gf_live_entry *e, struct gf_live_tensor *t,
                       struct gf_err *err)
{
    const struct gf_live_tensor *other = e->alias < i ? &table->at[e->alias] : NULL;

    if (!other || other->flags & GF_LIVE_ALIAS || other->dtype != t->dtype ||
        !gf_shape_equal(other->shape, t->shape))
        return gf_fail(err, GF_EBAD,
                       "%s: tensor '%s' is an alias of %u, which does not fit", what,
                       t->name, e->alias);
    if (e->count || e->nbytes || e->data_off)
        return gf_fail(err, GF_EBAD, "%s: alias '%s' has bytes of its own", what, t->name);
    t->alias = e->alias;
    return 0;
}

static int parse_entry(const char *what, struct gf_live_table *table, uint32_t i,
                       const struct gf_live_entry *e, uint64_t *dims, struct gf_err *err)
{
    struct gf_live_tensor *t = &table->at[i];
    uint64_t numel, nbytes, room;

    t->flags = e->flags;
    t->alias = i;
    t->replica = e->replica;
    t->replicas = e->replicas;
    t->flat_off = e->flat_off;
    t->count = e->count;
    t->nbytes = e->nbytes;
    t->data_off = e->data_off;
    t->shape = (struct gf_shape){ e->rank, dims };
    if (e->flags & ~GF_LIVE_FLAGS || e->rank > GF_LIVE_DIMS)
        return gf_fail(err, GF_EBAD, "%s: tensor '%s' has flags %#x and %u dimensions",
                       what, t->name, e->flags, e->rank);
    if (!memchr(e->dtype, 0, sizeof(e->dtype)) ||
        !gf_dtype_by_safetensors(e->dtype, &t->dtype) || gf_dtype_info(t->dtype)->bits % 8)
        return gf_fail(err, GF_EBAD, "%s: tensor '%s' has an unknown dtype '%.*s'", what,
                       t->name, (int)strnlen(e->dtype, sizeof(e->dtype)), e->dtype);
    if (e->replicas < 1 || e->replica >= e->replicas)
        return gf_fail(err, GF_EBAD, "%s: tensor '%s' is copy %u of %u", what, t->name,
                       e->replica, e->replicas);
    memcpy(dims, e->shape, e->rank * sizeof(*dims));
    if (gf_shape_numel(t->shape, &numel))
        return gf_fail(err, GF_EBAD, "%s: tensor '%s' has too many elements", what,
                       t->name);
    if (e->flags & GF_LIVE_ALIAS)
        return parse_alias(what, table, i, e, t, err);
    if (e->flags & GF_LIVE_FLAT) {
        if (!gf_inside(e->flat_off, e->count, numel))
            return gf_fail(err, GF_EBAD,
                           "%s: tensor '%s' elements at %" PRIu64 " of %" PRIu64
                           " do not lie in %" PRIu64,
                           what, t->name, e->flat_off, e->count, numel);
    } else if (parse_box(what, e, t, dims, err))
        return -err->code;
    room = e->flags & GF_LIVE_STATIC ? table->static_bytes : table->slot_bytes;
    if (span(t, &nbytes) || nbytes != e->nbytes || !gf_inside(e->data_off, nbytes, room) ||
        e->data_off % GF_LIVE_ALIGN)
        return gf_fail(err, GF_EBAD,
                       "%s: tensor '%s' has %" PRIu64 " bytes at %" PRIu64
                       ", which do not fit %" PRIu64,
                       what, t->name, e->nbytes, e->data_off, room);
    return 0;
}

int gf_live_table_parse(const char *what, const void *data, size_t size,
                        const struct gf_limits *limits, struct gf_live_table **ret,
                        struct gf_err *err)
{
    GF_AUTO(gf_live_table) table = calloc(1, sizeof(*table));
    struct gf_live_control c;
    uint64_t *dims, ndims = 0, texts = 0;
    struct gf_live_entry e;
    struct gf_err local;
    char *names;

    err = err ? err : &local; /* parse_entry() reads the code back */
    if (!table)
        return gf_nomem(err);
    if (parse_control(what, data, size, limits, &c, err))
        return -err->code;
    memcpy(table->run_id, c.run_id, sizeof(c.run_id));
    memcpy(table->job, c.job, sizeof(c.job));
    memcpy(table->framework, c.framework, sizeof(c.framework));
    table->incarnation = c.incarnation;
    table->start_ns = c.start_ns;
    table->rank = c.rank;
    table->world = c.world;
    table->nslots = c.nslots;
    table->pid = c.pid;
    table->slot_bytes = c.slot_bytes;
    table->static_bytes = c.static_bytes;

    /* Sizes first, so that everything is one block; ranks and names are checked here. */
    for (uint32_t i = 0; i < c.ntensors; i++) {
        memcpy(&e, (const uint8_t *)data + sizeof(c) + i * sizeof(e), sizeof(e));
        if (e.rank > GF_LIVE_DIMS || e.name_len > limits->name ||
            !gf_inside(e.name, e.name_len, c.names_len))
            return gf_fail(
                err, GF_EBAD,
                "%s: tensor %u has %u dimensions and a name of %u bytes at %" PRIu64, what,
                i, e.rank, e.name_len, e.name);
        ndims += 4 * e.rank;
        texts += e.name_len + 1;
    }
    if (texts > c.names_len + c.ntensors)
        return gf_fail(err, GF_EBAD, "%s: %u names share bytes", what, c.ntensors);
    table->at = calloc(GF_MAX(c.ntensors, 1), sizeof(*table->at));
    table->memory = malloc(ndims * sizeof(*dims) + texts + 1);
    if (!table->at || !table->memory)
        return gf_nomem(err);
    dims = table->memory;
    names = (char *)(dims + ndims);
    for (uint32_t i = 0; i < c.ntensors; i++) {
        memcpy(&e, (const uint8_t *)data + sizeof(c) + i * sizeof(e), sizeof(e));
        memcpy(names, (const char *)data + c.names + e.name, e.name_len);
        names[e.name_len] = '\0';
        table->at[i].name = names;
        names += e.name_len + 1;
        if (parse_entry(what, table, i, &e, dims, err))
            return -err->code;
        dims += 4 * e.rank;
        table->n = i + 1;
    }
    *ret = gf_take(&table);
    return 0;
}
