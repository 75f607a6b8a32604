/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deepspeed_value.h - from pickled values to numbers in a file's arena: what the parsers of
 * model files and of optimizer files share.
 */
#ifndef GF_FORMAT_DEEPSPEED_VALUE_H
#define GF_FORMAT_DEEPSPEED_VALUE_H

#include "container/pickle.h"
#include "format/deepspeed_file.h"

struct gf_ds_reader {
    struct gf_torch *torch;
    struct gf_ds_file *file;
    const struct gf_limits *limits;
    size_t items; /* copied so far: values may be shared, so their number is bounded here */
    struct gf_err *err;
};

/* Zeroed memory for n items, counted against gf_limits.tensors. */
int gf_ds_room(struct gf_ds_reader *r, size_t n, size_t size, void *ret);
int gf_ds_copy_name(struct gf_ds_reader *r, const struct gf_pv *value, const char *what,
                    const char **ret);
/* A whole number >= 0; false for anything else. */
bool gf_ds_u64(const struct gf_pv *value, uint64_t *ret);
/* list of dicts name -> shape, or (before 0.5.4) one such dict. */
int gf_ds_read_groups(struct gf_ds_reader *r, const struct gf_pv *value, const char *what,
                      struct gf_ds_groups *ret);
int gf_ds_read_shapes(struct gf_ds_reader *r, const struct gf_pv *value, const char *what,
                      struct gf_ds_shapes *ret);
/* A tensor with one dimension, no gaps. */
int gf_ds_read_flat(struct gf_ds_reader *r, const struct gf_pv *value, const char *what,
                    struct gf_ds_flat *ret);
int gf_ds_read_state(struct gf_ds_reader *r, const struct gf_pv *dict, const char *what,
                     struct gf_ds_state *ret);
/* "'path': `what` is no dict". */
int gf_ds_not(struct gf_ds_reader *r, const char *what, const char *kind);

int gf_ds_read_model(struct gf_ds_reader *r, struct gf_ds_model *ret);
int gf_ds_read_rank(struct gf_ds_reader *r, const struct gf_ds_model *rank0,
                    struct gf_ds_model *ret);
int gf_ds_read_optim(struct gf_ds_reader *r, struct gf_ds_optim *ret);

#endif
