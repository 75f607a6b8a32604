/* SPDX-License-Identifier: Apache-2.0 */
#include "format/deepspeed_load.h"

#include "format/parallel.h"

struct load {
    const struct gf_format_in *in;
    struct gf_ds_file *at;
    const struct gf_ds_model *rank0;
};

static int load_one(void *ctx, size_t i, struct gf_err *err)
{
    const struct load *load = ctx;

    return gf_ds_file_read(&load->at[i], load->in->dir, load->in->limits, load->rank0, err);
}

int gf_ds_load(const struct gf_format_in *in, struct gf_ds_files files, size_t first,
               const struct gf_ds_model *rank0, struct gf_err *err)
{
    struct load load = { .in = in, .at = files.at + first, .rank0 = rank0 };

    if (first >= files.n)
        return 0;
    return gf_parallel(files.n - first, in->threads, load_one, &load, err);
}
