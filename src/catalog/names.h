/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names.h - module names as training frameworks spell them, without the wrappers.
 *
 *     module.module._orig_mod.model.layers.0._checkpoint_wrapped_module.mlp.weight
 *                             model.layers.0.                           mlp.weight
 *
 * Wrappers are whole components: `_fsdp_wrapped_module`, `_checkpoint_wrapped_module` and
 * `_orig_mod` anywhere, and `module` at the start. The last component names the tensor itself
 * and stays whatever it is called.
 */
#ifndef GF_CATALOG_NAMES_H
#define GF_CATALOG_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/* The components that stay, one after another. Start with { .p = name }. */
struct gf_components {
    const char *p; /* behind the last component; NULL at the end */
    bool begun;
};
bool gf_components_next(struct gf_components *it, const char **ret, size_t *ret_len);

/* The name without wrappers, into buf of strlen(name) + 1 bytes. */
void gf_name_unwrap(const char *name, char *buf);

/* Is the name without wrappers PREFIX.something? */
bool gf_name_is_below(const char *name, const char *prefix);

#endif
