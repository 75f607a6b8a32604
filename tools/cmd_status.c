/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_status.c - this machine's mounts, or the state of one.
 */
#include "base/json.h"
#include "base/text.h"
#include "fs/mount.h"
#include "snapshot/live.h"
#include "tools/cmd.h"

#include <stdio.h>

static int list_mounts(bool json, struct gf_err *err)
{
    struct gf_mount_entry *mounts = NULL;
    struct gf_text text = { 0 };
    size_t n = 0;
    int r = gf_mounts_list(&mounts, &n, err);

    if (r)
        return r;
    if (json)
        gf_text_add(&text, "[");
    for (size_t i = 0; i < n; i++)
        if (json) {
            gf_text_add(&text, i ? ", {\"source\": " : "{\"source\": ");
            gf_text_json(&text, mounts[i].source);
            gf_text_add(&text, ", \"mountpoint\": ");
            gf_text_json(&text, mounts[i].mountpoint);
            gf_text_add(&text, "}");
        } else {
            gf_text_printf(&text, "%s on %s\n", mounts[i].source, mounts[i].mountpoint);
        }
    gf_text_add(&text, json ? "]\n" : n ? "" : "no gatherfs mounts\n");
    if (text.failed)
        r = gf_nomem(err);
    else
        fputs(text.s, stdout);
    gf_text_done(&text);
    gf_mounts_free(mounts, n);
    return r;
}

/* ---------------------------------------------------------------- one mount */

static void print_value(const struct gf_json *value, int depth)
{
    uint64_t whole;
    double number;

    if ((gf_json_is_object(value) || gf_json_is_array(value)) && gf_json_len(value)) {
        putchar('\n');
        for (size_t i = 0; i < gf_json_len(value); i++) {
            const struct gf_json *member = gf_json_at(value, i);
            const char *key = gf_json_is_object(value) ? gf_json_key(member) : "-";

            printf("%*s%s%s", depth * 2, "", key, gf_json_is_object(value) ? ": " : " ");
            print_value(member, depth + 1);
        }
        return;
    }
    if (gf_json_str(value))
        fputs(gf_json_str(value), stdout);
    else if (gf_json_u64(value, &whole))
        printf("%llu", (unsigned long long)whole);
    else if (gf_json_f64(value, &number))
        printf("%g", number);
    else if (gf_json_is_null(value) || gf_json_is_array(value) || gf_json_is_object(value))
        fputs("none", stdout);
    else
        fputs(gf_json_bool(value, false) ? "yes" : "no", stdout);
    putchar('\n');
}

static int print_status(const char *text, size_t len, struct gf_err *err)
{
    GF_AUTO(gf_json) doc = NULL;
    int r = gf_json_parse("status.json", text, len, &gf_limits_default, &doc, err);

    if (r)
        return r;
    for (size_t i = 0; i < gf_json_len(doc); i++) {
        const struct gf_json *member = gf_json_at(doc, i);

        printf("%s: ", gf_json_key(member));
        print_value(member, 1);
    }
    return 0;
}

/* ---------------------------------------------------------------- a job */

static int print_job(struct gf_args *args, bool json, struct gf_err *err)
{
    GF_AUTO(gf_run) run = NULL;
    struct gf_text text = { 0 };
    int r = gf_run_open(args->word[0], &args->opt, &run, err);

    if (!r)
        r = gf_live_report(gf_run_live(run), json, &text, err);
    if (!r)
        printf("%s%s", text.s, json ? "\n" : "");
    gf_text_done(&text);
    return r;
}

static int run(struct gf_args *args, struct gf_err *err)
{
    bool json = gf_args_flag(args, "json") != NULL;
    struct gf_text text = { 0 };
    int r;

    if (!args->word[0])
        return list_mounts(json, err);
    if (gf_live_name(args->word[0]))
        return print_job(args, json, err);
    r = gf_read_ctl(args->word[0], "status.json", &text, err);
    if (!r && json)
        fputs(text.s ? text.s : "", stdout);
    else if (!r)
        r = print_status(text.s ? text.s : "", text.len, err);
    gf_text_done(&text);
    return r;
}

const struct gf_cmd gf_cmd_status = {
    .name = "status",
    .words = "[MOUNTPOINT|live:JOB]",
    .summary = "this machine's mounts, or the state of one, or of a job",
    .max_words = 1,
    .flags = { { "json", 0, NULL, "as JSON" } },
    .details = "Examples:\n"
               "  gatherfs status\n"
               "  gatherfs status /mnt/model\n"
               "  gatherfs status live:run7     ranks, steps, stalls, memory\n",
    .run = run,
};
