/* SPDX-License-Identifier: Apache-2.0 */
#include "format/dcp_dir.h"

#include <stdlib.h>
#include <string.h>

#include "base/math.h"

/* Where checkpoints of trainers have theirs: a DCP directory itself; Accelerate's
 * save_state and a Trainer's checkpoint-N. */
static const char *const bases[] = { "", "pytorch_model_fsdp_0" };

static const char model_prefix[] = "pytorch_model_fsdp_";

/* The digits at *s, which moves behind them; false if there are none or too many. */
static bool digits(const char **s, uint64_t *ret)
{
    size_t n = strspn(*s, "0123456789");

    if (n == 0 || n > 9)
        return false;
    *ret = strtoull(*s, NULL, 10);
    *s += n;
    return true;
}

bool gf_dcp_name_rank(const char *name, const char *ending, uint64_t *ret)
{
    uint64_t rank, part;

    if (strncmp(name, "__", 2) != 0)
        return false;
    name += 2;
    if (!digits(&name, &rank))
        return false;
    if (*name == '_') {
        name++;
        if (!digits(&name, &part))
            return false;
    }
    if (strcmp(name, ending) != 0)
        return false;
    *ret = rank;
    return true;
}

bool gf_dcp_name_is_model(const char *name)
{
    size_t n = sizeof(model_prefix) - 1;
    uint64_t ignored;

    if (strncmp(name, model_prefix, n) != 0)
        return false;
    name += n;
    return digits(&name, &ignored) && !*name;
}

static bool is_there(const struct gf_dir_listing *listing, const char *name)
{
    const struct gf_dir_entry *entry = gf_dir_listing_find(listing, name);

    return entry && !entry->is_dir;
}

static bool any(const struct gf_dir_listing *listing, const char *ending)
{
    uint64_t rank;

    for (size_t i = 0; i < listing->n; i++)
        if (!listing->at[i].is_dir && gf_dcp_name_rank(listing->at[i].name, ending, &rank))
            return true;
    return false;
}

static enum gf_dcp_state state_of(const struct gf_dir_listing *listing)
{
    if (is_there(listing, ".metadata"))
        return GF_DCP_SAVED;
    if (any(listing, ".metadata"))
        return GF_DCP_RANKS;
    if (is_there(listing, ".metadata.tmp"))
        return GF_DCP_UNFINISHED;
    return any(listing, ".distcp") ? GF_DCP_DATA_ONLY : GF_DCP_NONE;
}

int gf_dcp_dir_find(struct gf_dir *dir, struct gf_dcp_dir *ret, struct gf_err *err)
{
    struct gf_dcp_dir found = { .base = "" };
    struct gf_dir_listing top = { 0 };
    int r = gf_dir_list(dir, "", &top, err);

    if (r)
        return r;
    found.listing = top;
    found.state = state_of(&top);
    for (size_t i = 1; i < GF_COUNT(bases) && found.state == GF_DCP_NONE; i++) {
        const struct gf_dir_entry *entry = gf_dir_listing_find(&top, bases[i]);
        struct gf_dir_listing sub;

        if (!entry || !entry->is_dir || gf_dir_list(dir, bases[i], &sub, NULL))
            continue;
        found.state = state_of(&sub);
        if (found.state == GF_DCP_NONE) {
            gf_dir_listing_free(&sub);
            continue;
        }
        found.base = bases[i];
        found.listing = sub;
        gf_dir_listing_free(&top);
    }
    found.rewriting =
        found.state == GF_DCP_SAVED && is_there(&found.listing, ".metadata.tmp");
    found.megatron = is_there(&found.listing, "common.pt");
    *ret = found;
    return 0;
}

void gf_dcp_dir_done(struct gf_dcp_dir *found)
{
    gf_dir_listing_free(&found->listing);
}
