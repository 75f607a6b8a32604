/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LINES_PER_SECOND 10

static struct {
    pthread_mutex_t lock;
    int fd; /* -1: stderr */
    enum gf_log_level level;
    time_t second; /* of the rate limit's window */
    unsigned lines, dropped;
} sink = { .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1, .level = GF_LOG_WARN };

int gf_log_open(const char *path, enum gf_log_level level)
{
    int fd = -1;

    if (path && (fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) < 0)
        return -errno;
    pthread_mutex_lock(&sink.lock);
    if (sink.fd >= 0)
        close(sink.fd);
    sink.fd = fd;
    sink.level = level;
    pthread_mutex_unlock(&sink.lock);
    return 0;
}

enum gf_log_level gf_log_level(void)
{
    return sink.level;
}

static void put(enum gf_log_level level, const char *fmt, va_list ap)
{
    static const char *const names[] = { "error", "warning", "info", "debug" };
    char line[1024], stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    int n, at;

    if (sink.fd >= 0) {
        gmtime_r(&now, &tm);
        strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%SZ", &tm);
        at = snprintf(line, sizeof(line), "%s %s ", stamp, names[level]);
    } else {
        at = snprintf(line, sizeof(line), "gatherfs: %s",
                      level == GF_LOG_WARN ? "warning: " : "");
    }
    n = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, fmt, ap);
    n = n < 0 ? at : at + n;
    if (n > (int)sizeof(line) - 2)
        n = (int)sizeof(line) - 2;
    line[n++] = '\n';
    /* One write, so that lines of several threads stay whole; nowhere to report a failure. */
    if (write(sink.fd >= 0 ? sink.fd : STDERR_FILENO, line, (size_t)n) < 0)
        return;
}

void gf_log(enum gf_log_level level, const char *fmt, ...)
{
    va_list ap;

    if (level > sink.level)
        return;
    va_start(ap, fmt);
    pthread_mutex_lock(&sink.lock);
    put(level, fmt, ap);
    pthread_mutex_unlock(&sink.lock);
    va_end(ap);
}

__attribute__((format(printf, 2, 3))) static void put_args(enum gf_log_level level,
                                                           const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    put(level, fmt, ap);
    va_end(ap);
}

void gf_log_limited(enum gf_log_level level, const char *fmt, ...)
{
    struct timespec now;
    va_list ap;

    if (level > sink.level)
        return;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    pthread_mutex_lock(&sink.lock);
    if (now.tv_sec != sink.second) {
        if (sink.dropped)
            put_args(level, "%u more lines were left out", sink.dropped);
        sink.second = now.tv_sec;
        sink.lines = sink.dropped = 0;
    }
    if (sink.lines++ < LINES_PER_SECOND) {
        va_start(ap, fmt);
        put(level, fmt, ap);
        va_end(ap);
    } else {
        sink.dropped++;
    }
    pthread_mutex_unlock(&sink.lock);
}
