/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h - how far a long command is, on stderr and only if that is a terminal.
 *
 * gf_progress_add() may be called by any thread; the line is drawn ten times a second at
 * most, by whoever comes along.
 */
#ifndef GF_TOOLS_PROGRESS_H
#define GF_TOOLS_PROGRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct gf_progress {
    const char *what; /* "export" */
    uint64_t total;   /* bytes */
    bool shown;
    int64_t started; /* nanoseconds */
    atomic_uint_least64_t done;
    atomic_int_least64_t drawn; /* when, nanoseconds */
};

void gf_progress_start(struct gf_progress *progress, const char *what, uint64_t total);
void gf_progress_add(struct gf_progress *progress, uint64_t bytes);
/* Wipes the line; returns the seconds since the start. */
double gf_progress_end(struct gf_progress *progress);

#endif
