/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_export.c - the directory that a mount would show, written to disk without FUSE.
 *
 * How it is written: export.h.
 */
#include "base/text.h"
#include "tools/cmd.h"
#include "tools/export.h"

#include <stdio.h>

static void print_result(const struct gf_opened *from, const char *dest,
                         const struct gf_export_result *result, bool json)
{
    const struct gf_snapshot_info *info = gf_snapshot_info(from->snapshot);
    struct gf_text text = { 0 };
    char size[GF_SIZE_TEXT];

    if (json) {
        gf_text_add(&text, "{\"dest\": ");
        gf_text_json(&text, dest);
        gf_text_add(&text, ", \"view\": ");
        gf_text_json(&text, from->dir->name);
        gf_text_printf(&text, ", \"files\": %zu, \"bytes\": %llu, \"seconds\": %.3f",
                       from->dir->n, (unsigned long long)result->bytes, result->seconds);
        if (info->has_step)
            gf_text_printf(&text, ", \"step\": %llu", (unsigned long long)info->step);
        if (*from->path) {
            gf_text_add(&text, ", \"checkpoint\": ");
            gf_text_json(&text, from->path);
        }
        gf_text_add(&text, "}\n");
    } else {
        gf_text_printf(&text, "%s: %zu files, %s, view %s", dest, from->dir->n,
                       gf_size_text(result->bytes, size), from->dir->name);
        if (info->has_step)
            gf_text_printf(&text, ", step %llu", (unsigned long long)info->step);
        if (*from->path)
            gf_text_printf(&text, " (the newest checkpoint, %s)", from->path);
        gf_text_printf(&text, ", in %.1f s\n", result->seconds);
    }
    fputs(text.s ? text.s : "", stdout);
    gf_text_done(&text);
}

static int run(struct gf_args *args, struct gf_err *err)
{
    const char *text = gf_args_flag(args, "jobs");
    struct gf_export_result result;
    struct gf_opened from = { 0 };
    uint64_t jobs = args->opt.threads;
    int r = text ? gf_parse_number("--jobs", text, 1, 1024, &jobs, err) : 0;

    if (!r)
        r = gf_opened_open(args->word[0], &args->opt, &from, err);
    if (r)
        return r;
    r = gf_export_write(&from, args->word[1], args->word[0],
                        gf_args_flag(args, "force") != NULL, (unsigned)jobs, &result, err);
    if (!r) {
        gf_print_warnings(from.snapshot);
        print_result(&from, args->word[1], &result, gf_args_flag(args, "json") != NULL);
    }
    gf_opened_close(&from);
    return r;
}

const struct gf_cmd gf_cmd_export = {
    .name = "export",
    .words = "SOURCE DEST",
    .summary = "write the directory that a mount would show, without FUSE",
    .min_words = 2,
    .max_words = 2,
    .shared = true,
    .flags = { { "jobs", 'j', "N", "threads (default: one for each processor)" },
               { "force", 0, NULL, "replace what is in DEST" },
               { "json", 0, NULL, "print the result as one JSON object" } },
    .details =
        "The bytes are those that cp from a mount would give. DEST appears when all of it\n"
        "is on disk; until then it is DEST.gatherfs-part, which a failure removes.\n"
        "\n"
        "Examples:\n"
        "  gatherfs export /data/run/ckpt /data/model\n"
        "  gatherfs export --tag global_step40 --dtype bf16 /data/run/ckpt /data/step40\n"
        "  gatherfs export --view raw /data/run/ckpt /data/raw\n",
    .run = run,
};
