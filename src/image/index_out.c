/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index_out.c - *.safetensors.index.json as transformers 5 writes it:
 * json.dumps(index, indent=2, sort_keys=True) + "\n".
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "image/weights.h"

static int by_name(const void *a, const void *b, void *ctx)
{
    const struct gf_output *outputs = (const struct gf_output *)ctx;

    /* Python sorts by code point, which is UTF-8's byte order. */
    return strcmp(outputs[*(const uint32_t *)a].name, outputs[*(const uint32_t *)b].name);
}

static void free_names(char **names, uint32_t n)
{
    for (uint32_t i = 0; names && i < n; i++)
        free(names[i]);
    free(names);
}

static char **name_shards(const char *stem, const char *suffix, uint32_t n)
{
    char **names = calloc((size_t)n + 1, sizeof(*names));

    for (uint32_t i = 0; names && i < n; i++) {
        names[i] = gf_shard_name(stem, suffix, i, n);
        if (!names[i]) {
            free_names(names, n);
            return NULL;
        }
    }
    return names;
}

static void write_index(struct gf_text *text, const struct gf_view *view,
                        const uint32_t *order, const uint32_t *shard, char *const *names)
{
    gf_text_printf(text,
                   "{\n  \"metadata\": {\n    \"total_parameters\": %" PRIu64
                   ",\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
                   view->nparameters, view->nbytes);
    for (size_t i = 0; i < view->n; i++) {
        gf_text_add(text, i ? ",\n    " : "\n    ");
        gf_text_json_ascii(text, view->outputs[order[i]].name);
        gf_text_add(text, ": ");
        gf_text_json_ascii(text, names[shard[order[i]]]);
    }
    gf_text_add(text, "\n  }\n}\n");
}

int gf_image_index(const char *name, const struct gf_view *view, const uint32_t *shard,
                   uint32_t nshards, const char *stem, const char *suffix,
                   struct gf_image **ret, struct gf_err *err)
{
    GF_AUTO_MEM uint32_t *order = malloc((view->n + 1) * sizeof(*order));
    GF_AUTO(gf_image) image = NULL;
    struct gf_text text = { 0 };
    char **names = name_shards(stem, suffix, nshards);
    int r = order && names ? 0 : gf_nomem(err);

    if (!r) {
        for (size_t i = 0; i < view->n; i++)
            order[i] = (uint32_t)i;
        qsort_r(order, view->n, sizeof(*order), by_name, view->outputs);
        write_index(&text, view, order, shard, names);
        r = text.failed ? gf_nomem(err) : gf_image_new(name, &image, err);
    }
    if (!r)
        r = gf_image_add_bytes(image, text.s, text.len, err);
    if (!r)
        r = gf_image_seal(image, err);
    free_names(names, nshards);
    gf_text_done(&text);
    if (!r)
        *ret = gf_take(&image);
    return r;
}
