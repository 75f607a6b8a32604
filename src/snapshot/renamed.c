/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot/renamed.h"

#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/json.h"
#include "snapshot/join.h"
#include "view/hub.h"

/* The conversions that loading `files` takes; NULL without a config.json that says so. */
static int find_hub(const struct gf_catalog *files, struct gf_dir *dir,
                    const struct gf_limits *limits, struct gf_hub **ret, struct gf_err *err)
{
    GF_AUTO(gf_json) config = NULL;
    GF_AUTO_MEM char *text = NULL;
    size_t len;

    if (gf_dir_read(dir, "config.json", limits->json_bytes, &text, &len, NULL) ||
        gf_json_parse("config.json", text, len, limits, &config, NULL))
        return 0;
    return gf_hub_new_for(config, files, ret, err);
}

int gf_renamed_mark(const struct gf_catalog *files, struct gf_dir *dir,
                    const struct gf_catalog *state, const struct gf_limits *limits,
                    bool **ret, struct gf_err *err)
{
    size_t n = gf_catalog_len(files);
    GF_AUTO_MEM bool *marks = calloc(n + 1, sizeof(*marks));
    struct gf_name_table names = { 0 };
    GF_AUTO(gf_hub) hub = NULL;
    int r = marks ? find_hub(files, dir, limits, &hub, err) : gf_nomem(err);

    if (!r && hub)
        r = gf_name_table_of(state, &names, err);
    for (uint32_t i = 0; hub && i < n && !r; i++) {
        const char *name = gf_name_table_unwrap(&names, gf_catalog_at(files, i)->name);
        const char *module;
        uint64_t index;

        r = name ? gf_hub_module_name(hub, name, &names.arena, &module, err)
                 : gf_nomem(err);
        if (!r)
            marks[i] =
                strcmp(module, name) != 0 && gf_strmap_get(&names.map, module, &index);
    }
    gf_name_table_done(&names);
    if (!r)
        *ret = gf_take(&marks);
    return r;
}
