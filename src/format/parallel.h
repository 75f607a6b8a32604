/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parallel.h - the same work for many files, on several threads.
 */
#ifndef GF_FORMAT_PARALLEL_H
#define GF_FORMAT_PARALLEL_H

#include <stddef.h>

#include "base/err.h"

/* Calls work(ctx, i, err) for each i < n, by up to `threads` threads (the caller's is one of
 * them). If some fail, the error is that of the lowest i, whatever the timing. */
int gf_parallel(size_t n, unsigned threads,
                int (*work)(void *ctx, size_t i, struct gf_err *err), void *ctx,
                struct gf_err *err);

#endif
