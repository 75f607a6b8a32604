/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_inspect.c - what is SOURCE, is it complete, which views, where the bytes come from.
 */
#include "base/text.h"
#include "snapshot/report.h"
#include "tools/cmd.h"

#include <string.h>
#include <unistd.h>

static int run(struct gf_args *args, struct gf_err *err)
{
    GF_AUTO(gf_run) source = NULL;
    struct gf_text text = { 0 };
    int r = gf_run_open(args->word[0], &args->opt, &source, err);

    if (!r)
        r = gf_report_inspect(source, gf_args_flag(args, "json") != NULL,
                              gf_args_flag(args, "tensors") != NULL, &text, err);
    if (!r && text.failed)
        r = gf_nomem(err);
    if (!r && (r = gf_write_all(STDOUT_FILENO, text.s, text.len)))
        gf_fail(err, -r, "cannot write the output: %s", strerror(-r));
    gf_text_done(&text);
    return r;
}

const struct gf_cmd gf_cmd_inspect = {
    .name = "inspect",
    .words = "SOURCE",
    .summary = "what it is, whether it is complete, which views it has",
    .min_words = 1,
    .max_words = 1,
    .shared = true,
    .flags = { { "json", 0, NULL, "one JSON object instead of text" },
               { "tensors", 0, NULL, "also every tensor: name, dtype, shape, pieces" } },
    .details = "Examples:\n"
               "  gatherfs inspect /data/run/ckpt\n"
               "  gatherfs inspect --json --tensors /data/run/ckpt/global_step40\n",
    .run = run,
};
