/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state_pick.h - which mapping in a pickle is the model's state dict. Pure; the rule is in
 * torch_state.h.
 */
#ifndef GF_FORMAT_STATE_PICK_H
#define GF_FORMAT_STATE_PICK_H

#include "base/err.h"
#include "base/limits.h"
#include "container/pickle.h"

#define GF_STATE_PATH 160

struct gf_state_pick {
    const struct gf_pv *dict;
    char where[GF_STATE_PATH]; /* keys with dots between them; "" for the root */
    char rival[GF_STATE_PATH]; /* another one that could have been meant; "" for none */
};

/* ENOTSUP says what is in the file instead: a whole nn.Module, or the root's keys. */
int gf_state_pick(struct gf_pickle *pickle, const char *file,
                  const struct gf_limits *limits, struct gf_state_pick *ret,
                  struct gf_err *err);

#endif
