/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - for fs/ and tools/ only; the library returns errors and does not log.
 */
#ifndef GF_BASE_LOG_H
#define GF_BASE_LOG_H

enum gf_log_level { GF_LOG_ERROR, GF_LOG_WARN, GF_LOG_INFO, GF_LOG_DEBUG };

/* Where lines go: a file (appended), or stderr for NULL. Lines look like
 * "gatherfs: text" on stderr and "2026-01-31T12:00:00Z error text" in a file. */
int gf_log_open(const char *path, enum gf_log_level level);
enum gf_log_level gf_log_level(void);
void gf_log(enum gf_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* For the read path: at most ten lines a second in all, then one line that says how many
 * were left out. */
void gf_log_limited(enum gf_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
