/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

#define BAR 30
#define EVERY 100000000 /* nanoseconds between two drawings */

static int64_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void draw(struct gf_progress *p, uint64_t done, int64_t at)
{
    double part = p->total ? (double)done / (double)p->total : 1;
    double seconds = (double)(at - p->started) / 1e9,
           left = part > 0 ? seconds / part - seconds : 0;
    char bar[BAR + 1], have[32], all[32];

    for (int i = 0; i < BAR; i++)
        bar[i] = i < (int)(part * BAR) ? '#' : '.';
    bar[BAR] = '\0';
    gf_size_text(done, have);
    gf_size_text(p->total, all);
    fprintf(stderr, "\r%s [%s] %3d%%  %s of %s  %.2f GB/s  %d:%02d left \033[K", p->what,
            bar, (int)(part * 100), have, all,
            seconds > 0 ? (double)done / 1e9 / seconds : 0, (int)left / 60, (int)left % 60);
}

void gf_progress_start(struct gf_progress *p, const char *what, uint64_t total)
{
    *p = (struct gf_progress){ .what = what, .total = total, .started = now() };
    p->drawn = p->started;
    p->shown = isatty(STDERR_FILENO) == 1;
}

void gf_progress_add(struct gf_progress *p, uint64_t bytes)
{
    uint64_t done = atomic_fetch_add(&p->done, bytes) + bytes;
    int_least64_t last = p->drawn, at;

    if (!p->shown)
        return;
    at = now();
    if (at - last >= EVERY && atomic_compare_exchange_strong(&p->drawn, &last, at))
        draw(p, done, at);
}

double gf_progress_end(struct gf_progress *p)
{
    if (p->shown)
        fprintf(stderr, "\r\033[K");
    return (double)(now() - p->started) / 1e9;
}
