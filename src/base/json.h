/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.h - JSON that came with a checkpoint: bounded, read-only; and edits of JSON text.
 *
 * Values are borrowed from the document and die with it. Reading is forgiving (a missing
 * key or another type is "not there"): what matters is decided by the caller.
 * Editing works on the text itself, so that everything else keeps its bytes.
 */
#ifndef GF_BASE_JSON_H
#define GF_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"

struct gf_json; /* a document or any value in it */

/* `name` is the file's name for errors. Fails with GF_EBAD. */
int gf_json_parse(const char *name, const void *text, size_t len,
                  const struct gf_limits *limits, struct gf_json **ret, struct gf_err *err);
void gf_json_free(struct gf_json *doc); /* documents only; NULL is fine */
GF_DEFINE_AUTO(gf_json);

const struct gf_json *gf_json_get(const struct gf_json *object, const char *key);
const struct gf_json *gf_json_at(const struct gf_json *array, size_t i);
/* The members one after another (gf_json_at counts from the start each time): the first is
 * gf_json_at(value, 0), NULL behind the last. */
const struct gf_json *gf_json_next(const struct gf_json *member);
size_t gf_json_len(const struct gf_json *array_or_object);
const char *
gf_json_key(const struct gf_json *member); /* of a value reached by gf_json_at */

bool gf_json_is_object(const struct gf_json *value); /* each is false for NULL */
bool gf_json_is_array(const struct gf_json *value);
bool gf_json_is_null(const struct gf_json *value);
const char *gf_json_str(const struct gf_json *value); /* NULL if it is not a string */
bool gf_json_bool(const struct gf_json *value, bool otherwise);
/* true and *ret only for whole numbers in [0, 2^53]. */
bool gf_json_u64(const struct gf_json *value, uint64_t *ret);
bool gf_json_f64(const struct gf_json *value, double *ret);

/* The text of `object` with member `key` of the top-level object set to `value` (JSON text):
 * replaced where it stands, or added in front of the closing brace in the style of the
 * rest. A NULL value removes the member. *ret is to be freed. The text must have parsed. */
int gf_json_edit(const char *text, size_t len, const char *key, const char *value,
                 char **ret, size_t *ret_len, struct gf_err *err);

#endif
