/* SPDX-License-Identifier: Apache-2.0 */
#include "format/format.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "format/dcp.h"
#include "format/deepspeed.h"
#include "format/fsdp_local.h"
#include "format/hf_dir.h"
#include "format/rank_files.h"
#include "format/torch_bin.h"
#include "format/hf_sharded.h"

const struct gf_format *const gf_formats[] = {
    &gf_dcp_format,    &gf_deepspeed_format, &gf_rank_files_format, &gf_fsdp_local_format,
    &gf_hf_dir_format, &gf_torch_bin_format, &gf_hf_sharded_format, NULL,
};

static int unknown_name(const char *name, struct gf_err *err)
{
    struct gf_text names = { 0 };
    int r;

    for (size_t i = 0; gf_formats[i]; i++)
        gf_text_printf(&names, "%s'%s'", i ? ", " : "", gf_formats[i]->name);
    r = gf_fail(err, EINVAL, "source_format: no format '%.80s'; there are: %s", name,
                names.s ? names.s : "none");
    gf_text_done(&names);
    return r;
}

/* What one layer's formats say of a directory. */
struct verdict {
    const struct gf_format *best, *tied;
    char why[GF_WHY], tied_why[GF_WHY];
};

static void ask_layer(struct gf_dir *dir, const char *file, enum gf_layer layer,
                      struct verdict *ret, struct gf_text *nothing)
{
    int best = 0;

    *ret = (struct verdict){ 0 };
    for (size_t i = 0; gf_formats[i]; i++) {
        const struct gf_format *format = gf_formats[i];
        char why[GF_WHY] = "";
        int score = format->layer == layer ? format->probe(dir, file, why) : -1;

        if (score == 0 && nothing) {
            gf_text_printf(nothing, "%s%s: %s", nothing->len ? "; " : "", format->name,
                           why);
        } else if (score > best) {
            *ret = (struct verdict){ .best = format };
            memcpy(ret->why, why, sizeof(why));
            best = score;
        } else if (score > 0 && score == best) {
            ret->tied = format;
            memcpy(ret->tied_why, why, sizeof(why));
        }
    }
}

static int forced_format(struct gf_dir *dir, const char *file, const char *forced,
                         const struct gf_format **ret, char why[static GF_WHY],
                         struct gf_err *err)
{
    for (size_t i = 0; gf_formats[i]; i++)
        if (strcmp(gf_formats[i]->name, forced) == 0) {
            gf_formats[i]->probe(dir, file, why);
            *ret = gf_formats[i];
            return 0;
        }
    return unknown_name(forced, err);
}

int gf_format_detect(struct gf_dir *dir, const char *file, const char *forced,
                     const struct gf_format **ret, char why[static GF_WHY],
                     struct gf_err *err)
{
    struct gf_text nothing = { 0 };
    struct verdict v = { 0 };
    int r;

    why[0] = '\0';
    if (forced)
        return forced_format(dir, file, forced, ret, why, err);
    for (int layer = 0; layer < GF_NLAYERS && !v.best; layer++)
        ask_layer(dir, file, (enum gf_layer)layer, &v, &nothing);
    if (v.tied)
        r = gf_fail(err, EINVAL,
                    "'%s': could be '%s' (%.120s) or '%s' (%.120s); choose one with "
                    "source_format=",
                    dir->name, v.best->name, v.why, v.tied->name, v.tied_why);
    else if (v.best)
        r = 0;
    else
        r = gf_fail(err, ENOENT, "'%s%s%s': no checkpoint that is known here (%s)",
                    dir->name, file ? "/" : "", file ? file : "",
                    nothing.s ? nothing.s : "");
    gf_text_done(&nothing);
    if (r)
        return r;
    memcpy(why, v.why, sizeof(v.why));
    *ret = v.best;
    return 0;
}

const struct gf_format *gf_format_of_layer(struct gf_dir *dir, const char *file,
                                           enum gf_layer layer)
{
    struct verdict v;

    ask_layer(dir, file, layer, &v, NULL);
    return v.tied ? NULL : v.best;
}

void gf_found_done(struct gf_found *found)
{
    gf_catalog_free(found->catalog);
    gf_catalog_free(found->template);
    for (size_t i = 0; i < found->sources.n; i++)
        gf_source_free(found->sources.at[i]);
    gf_vec_free(&found->sources);
    for (size_t i = 0; i < found->warnings.n; i++)
        free(found->warnings.at[i]);
    gf_vec_free(&found->warnings);
    for (size_t i = 0; i < found->left_out.n; i++)
        free(found->left_out.at[i]);
    gf_vec_free(&found->left_out);
    *found = (struct gf_found){ 0 };
}

int gf_found_add_source(struct gf_found *found, struct gf_source *src, uint32_t *ret_index,
                        struct gf_err *err)
{
    int r = gf_vec_push(&found->sources, src, (size_t)GF_NONE - 1);

    if (r) {
        r = r == -E2BIG ? gf_fail(err, GF_EBAD, "'%s': too many files", src->name)
                        : gf_nomem(err);
        gf_source_free(src);
        return r;
    }
    *ret_index = (uint32_t)(found->sources.n - 1);
    return 0;
}

int gf_found_take_sources(struct gf_found *found, struct gf_found *from, struct gf_err *err)
{
    uint32_t ignored;
    size_t n = 0;
    int r = 0;

    while (n < from->sources.n && !r) /* taken over also on failure */
        r = gf_found_add_source(found, from->sources.at[n++], &ignored, err);
    from->sources.n -= n;
    if (from->sources.n)
        memmove(from->sources.at, from->sources.at + n,
                from->sources.n * sizeof(*from->sources.at));
    return r;
}

int gf_found_warn(struct gf_found *found, const char *fmt, ...)
{
    char *line;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&line, fmt, ap);
    va_end(ap);
    if (n < 0)
        return -ENOMEM;
    /* Names in it come from files: one printable line, as in errors. */
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    if (gf_vec_push(&found->warnings, line, SIZE_MAX / sizeof(line))) {
        free(line);
        return -ENOMEM;
    }
    return 0;
}
