/* SPDX-License-Identifier: Apache-2.0 */
/*
 * err.h - how every function of gatherfs fails.
 *
 * A function that can fail returns 0 or -errno and takes a `struct gf_err *err` as its
 * last parameter. The function that decides the error writes the text; callers pass it
 * on or put context in front once per layer (gf_wrap). Text = what, where, found, wanted:
 * lower case, names in single quotes, no final stop, never a line break. `err` may be
 * NULL where nobody reads the text. Failing allocates nothing.
 */
#ifndef GF_BASE_ERR_H
#define GF_BASE_ERR_H

#include <errno.h>

struct gf_err {
    int code; /* positive errno, 0 = no error */
    char text[480];
};

/* Two errno values carry a meaning of their own, so that commands can tell a problem of
 * the checkpoint (exit code 1) from something they could not do (exit code 2). */
#define GF_EBAD EBADMSG        /* bytes that cannot be right: truncated, corrupt, hostile */
#define GF_EINCOMPLETE ENODATA /* bytes that should be there and are not: a rank, a shard */

/* Sets code and text, returns -code. */
int gf_fail(struct gf_err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "fmt: " in front of the text, returns -err->code (-EIO if err is NULL). */
int gf_wrap(struct gf_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Out of memory: the one error without a subject. */
int gf_nomem(struct gf_err *err);

/* The exit code of a command that failed with `code` (positive errno): 1 or 2. */
int gf_err_exit(int code);

#endif
