/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_verify.c - reads all of it, optionally against another directory.
 */
#include "base/text.h"
#include "snapshot/verify.h"
#include "tools/cmd.h"
#include "tools/progress.h"

#include <stdio.h>
#include <string.h>

struct findings {
    struct gf_progress progress;
    struct gf_text text; /* lines, or the members of a JSON array */
    bool json;
};

static void on_progress(void *ctx, uint64_t bytes)
{
    struct findings *findings = ctx;

    gf_progress_add(&findings->progress, bytes);
}

static void on_finding(void *ctx, enum gf_verify_kind kind, const char *text)
{
    static const char *const words[] = {
        [GF_VERIFY_GOOD] = "ok",
        [GF_VERIFY_NOTE] = "note",
        [GF_VERIFY_PROBLEM] = "problem",
        [GF_VERIFY_UNKNOWN] = "unknown",
    };
    struct findings *findings = ctx;

    if (findings->json) {
        gf_text_printf(&findings->text,
                       "%s{\"kind\": \"%s\", \"text\": ", findings->text.len ? ", " : "",
                       words[kind]);
        gf_text_json(&findings->text, text);
        gf_text_add(&findings->text, "}");
    } else {
        gf_text_printf(&findings->text, "%-8s %s\n", words[kind], text);
    }
}

static int print_findings(const struct findings *findings, const struct gf_opened *opened,
                          const struct gf_verify_result *result, double seconds,
                          struct gf_err *err)
{
    const char *text = findings->text.s ? findings->text.s : "";
    struct gf_text out = { 0 };
    int r;

    if (findings->json) {
        gf_text_add(&out, "{\"view\": ");
        gf_text_json(&out, opened->dir->name);
        gf_text_printf(
            &out,
            ", \"files\": %llu, \"tensors\": %llu, \"bytes\": %llu, "
            "\"problems\": %llu, \"unknown\": %llu, \"seconds\": %.3f, "
            "\"findings\": [",
            (unsigned long long)result->files, (unsigned long long)result->tensors,
            (unsigned long long)result->bytes, (unsigned long long)result->problems,
            (unsigned long long)result->unknown, seconds);
        gf_text_add(&out, text);
        gf_text_add(&out, "]}\n");
        text = out.s;
    }
    r = out.failed ? gf_nomem(err) : 0;
    if (!r)
        fputs(text, stdout);
    gf_text_done(&out);
    return r;
}

static int verify_opened(const struct gf_args *args, const struct gf_opened *opened,
                         struct gf_err *err)
{
    struct findings findings = { .json = gf_args_flag(args, "json") != NULL };
    struct gf_verify how = {
        .against = gf_args_flag(args, "against"),
        .jobs = args->opt.threads,
        .progress = on_progress,
        .say = on_finding,
        .ctx = &findings,
    };
    struct gf_verify_result result;
    uint64_t bytes = 0;
    double seconds;
    int r;

    for (size_t i = 0; i < opened->dir->n; i++)
        bytes += opened->dir->files[i].weights ? opened->dir->files[i].size : 0;
    gf_progress_start(&findings.progress, "verify", bytes);
    r = gf_verify(opened->snapshot, opened->dir, &how, &result, err);
    seconds = gf_progress_end(&findings.progress);
    if (!r && findings.text.failed)
        r = gf_nomem(err);
    if (!r)
        r = print_findings(&findings, opened, &result, seconds, err);
    gf_text_done(&findings.text);
    if (r)
        return r;
    if (result.problems)
        return gf_fail(err, GF_EBAD, "'%s': %llu problem%s found", args->word[0],
                       (unsigned long long)result.problems,
                       result.problems == 1 ? "" : "s");
    if (result.unknown)
        return gf_fail(err, EINVAL, "'%s': not everything could be checked", args->word[0]);
    gf_print_warnings(opened->snapshot);
    return 0;
}

static int run(struct gf_args *args, struct gf_err *err)
{
    struct gf_opened opened = { 0 };
    int r = gf_opened_open(args->word[0], &args->opt, &opened, err);

    if (r)
        return r;
    r = verify_opened(args, &opened, err);
    gf_opened_close(&opened);
    return r;
}

const struct gf_cmd gf_cmd_verify = {
    .name = "verify",
    .words = "SOURCE",
    .summary = "read every byte and say whether all is well",
    .min_words = 1,
    .max_words = 1,
    .shared = true,
    .flags = { { "against", 0, "DIR",
                 "compare every tensor with the safetensors files of DIR" },
               { "json", 0, NULL, "print the findings as one JSON object" } },
    .details =
        "Ends with 0 if all is well, 1 if there are problems, 2 if it could not check.\n"
        "DIR may be sharded in another way; its other files are compared for information.\n"
        "\n"
        "Examples:\n"
        "  gatherfs verify /data/run/ckpt\n"
        "  gatherfs verify --dtype fp32 --against /data/converted /data/run/ckpt\n",
    .run = run,
};
