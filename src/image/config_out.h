/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_out.h - the config.json that goes with a view: the text that was found, corrected
 * where it would not fit the weights beside it. Every other byte stays.
 */
#ifndef GF_IMAGE_CONFIG_OUT_H
#define GF_IMAGE_CONFIG_OUT_H

#include <stddef.h>

#include "base/err.h"
#include "base/json.h"
#include "view/view.h"

/* `config` is `text`, parsed. Sets
 *   dtype, torch_dtype    to what the view serves; `dtype` is added where both are missing
 *   tie_word_embeddings   to false if the view says so
 *   architectures         without the prefix "FSDP" (a wrapped class's name), and with the
 *                         letters that an lstrip("FSDP") took off a class's own name, where
 *                         model_type tells them
 * *ret is to be freed; byte for byte `text` if nothing had to change. */
int gf_config_patch(const char *text, size_t len, const struct gf_json *config,
                    const struct gf_view *view, char **ret, size_t *ret_len,
                    struct gf_err *err);

#endif
