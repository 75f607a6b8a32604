/* SPDX-License-Identifier: Apache-2.0 */
/* Copies tensors to their places. The one file that reads tensor memory. */
#include "live/publish_int.h"

#include "base/math.h"

/* One tensor from `*offset` on, at most `budget` bytes; true when it is complete. */
static bool copy_tensor(const struct gatherfs_pub *pub, uint32_t i, uint64_t *offset,
                        uint8_t *memory, uint64_t budget, uint64_t *moved)
{
    const struct gf_live_tensor *t = &pub->table.at[i];
    uint64_t len = GF_MIN(t->nbytes - *offset, budget);

    if (len)
        memcpy(memory + t->data_off + *offset, pub->data[i] + *offset, len);
    *offset += len;
    *moved += len;
    return *offset == t->nbytes;
}

static bool in_part(uint32_t flags, enum gf_pub_part part)
{
    if (flags & (GF_LIVE_STATIC | GF_LIVE_ALIAS))
        return false;
    return part == GF_PUB_ALL || (part == GF_PUB_BUFFERS) == !!(flags & GF_LIVE_BUFFER);
}

bool gf_pub_copy(const struct gatherfs_pub *pub, const struct gf_pub_set *set,
                 enum gf_pub_part part, struct gf_pub_cursor *cursor, uint8_t *slot,
                 uint64_t budget, uint64_t *moved)
{
    uint64_t end = *moved + budget;

    for (; cursor->tensor < pub->table.n; cursor->tensor++, cursor->offset = 0) {
        if (!gf_live_set_has(set->bitmap, cursor->tensor) ||
            !in_part(pub->table.at[cursor->tensor].flags, part))
            continue;
        if (*moved == end ||
            !copy_tensor(pub, cursor->tensor, &cursor->offset, slot, end - *moved, moved))
            return false;
    }
    return true;
}

bool gf_pub_copy_static(const struct gatherfs_pub *pub, const struct gf_pub_set *set,
                        struct gf_pub_cursor *cursor, uint8_t *statics, uint8_t *done,
                        uint64_t budget, uint64_t *moved)
{
    uint64_t end = *moved + budget;

    for (; cursor->tensor < pub->table.n; cursor->tensor++, cursor->offset = 0) {
        uint32_t i = cursor->tensor;

        if (!gf_live_set_has(set->bitmap, i) || gf_live_set_has(done, i) ||
            !(pub->table.at[i].flags & GF_LIVE_STATIC))
            continue;
        if (*moved == end ||
            !copy_tensor(pub, i, &cursor->offset, statics, end - *moved, moved))
            return false;
        done[i / 8] = (uint8_t)(done[i / 8] | 1u << i % 8);
    }
    return true;
}
