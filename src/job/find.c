/* SPDX-License-Identifier: Apache-2.0 */
/*
 * find.c - which publishers there are, and whether they are all ranks of one start of a job.
 *
 * A socket's file may be stale (its process was killed), new (the job was started again), or
 * of a start that is nearly over: ranks are put together by their run, and of two starts
 * the one that is whole counts.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/math.h"
#include "job/job_int.h"
#include "live/rundir.h"

#define ENDED_MS 1200 /* a look, a start in progress and an agent's answer take less */

/* ---------------------------------------------------------------- peers */

struct gf_peer *gf_job_peer(struct gf_job *job, const struct gf_ranks *ranks, uint32_t i)
{
    for (size_t k = 0; k < job->peers.n; k++)
        if (job->peers.at[k]->said == ranks->at[i].said)
            return job->peers.at[k];
    return NULL;
}

static struct gf_peer *peer_of_rank(struct gf_job *job, uint32_t rank)
{
    for (size_t i = 0; i < job->peers.n; i++)
        if (job->peers.at[i]->rank == rank)
            return job->peers.at[i];
    return NULL;
}

void gf_job_drop(struct gf_job *job, size_t i)
{
    gf_peer_free(job->peers.at[i]);
    job->peers.n--;
    memmove(job->peers.at + i, job->peers.at + i + 1,
            (job->peers.n - i) * sizeof(*job->peers.at));
}

/* Sorted by rank. */
static void add_peer(struct gf_job *job, uint32_t rank, int sock)
{
    struct gf_peer *peer = calloc(1, sizeof(*peer));
    size_t at = 0;

    if (!peer || gf_vec_reserve(&job->peers, 1, GF_MAX_PEERS)) {
        free(peer);
        close(sock);
        return; /* the next scan tries again */
    }
    *peer = (struct gf_peer){ .serial = ++job->serials,
                              .rank = rank,
                              .sock = sock,
                              .selecting = -1,
                              .since_ms = gf_now_ms() };
    while (at < job->peers.n && job->peers.at[at]->rank < rank)
        at++;
    memmove(job->peers.at + at + 1, job->peers.at + at,
            (job->peers.n - at) * sizeof(*job->peers.at));
    job->peers.at[at] = peer;
    job->peers.n++;
}

/* Connects to what is new. Stale sockets are nobody's fault; what else goes wrong is kept for
 * the error of those that wait. */
void gf_job_scan(struct gf_job *job)
{
    struct gf_err err = { 0 };
    struct dirent *entry;
    bool refused = false, other = job->peers.n > 0;
    int fd, sock;
    DIR *dir;

    if (gf_live_dir_open(job->dir, false, &fd, &err)) {
        job->refused_ms = 0;
        job->why = err;
        return;
    }
    dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return;
    }
    while ((entry = readdir(dir))) {
        uint32_t rank;

        err = (struct gf_err){ 0 };
        if (!gf_live_socket_rank(entry->d_name, &rank) || peer_of_rank(job, rank))
            continue;
        if (!gf_live_connect(dirfd(dir), entry->d_name, &sock, &err))
            add_peer(job, rank, sock);
        else if (err.code != ECONNREFUSED && err.code != ENOENT)
            job->why = err;
        refused |= err.code == ECONNREFUSED;
        other |= err.code != ECONNREFUSED;
    }
    closedir(dir);
    if (!refused || other)
        job->refused_ms = 0;
    else if (!job->refused_ms)
        job->refused_ms = gf_now_ms();
}

int gf_job_dead(const struct gf_job *job, struct gf_request *q)
{
    if (!job->refused_ms || job->host >= 0 || job->ranks ||
        gf_now_ms() - GF_MAX(job->refused_ms, q->start_ms) < ENDED_MS)
        return 0;
    return gf_fail(&q->err, GF_EINCOMPLETE,
                   "job '%s': its trainer has ended (its sockets in '%s' answer no more)",
                   job->name, job->dir);
}

/* ---------------------------------------------------------------- ranks */

/* The newest start of the job that is here, of those with the most ranks. */
static size_t pick_run(struct gf_said **said, size_t n)
{
    size_t best = 0, best_count = 0;
    bool best_whole = false;

    for (size_t i = 0; i < n; i++) {
        size_t count = 0;
        bool whole;

        for (size_t k = 0; k < n; k++)
            count += !memcmp(said[k]->table->run_id, said[i]->table->run_id,
                             sizeof(said[i]->table->run_id));
        whole = count == said[i]->table->world;
        if (whole > best_whole ||
            (whole == best_whole &&
             (count > best_count ||
              (count == best_count &&
               said[i]->table->start_ns > said[best]->table->start_ns)))) {
            best = i;
            best_count = count;
            best_whole = whole;
        }
    }
    /* If one start is whole, ranks of another are leftovers; else they are in the way. */
    return best_whole ? best : SIZE_MAX;
}

static bool same_ranks(const struct gf_ranks *ranks, struct gf_said *const *said, size_t n)
{
    bool same = ranks && ranks->n == n;

    for (size_t i = 0; i < n && same; i++)
        same = ranks->at[i].said == said[i];
    return same;
}

void gf_job_set_ranks(struct gf_job *job, struct gf_ranks *ranks, bool alive,
                      bool finishing)
{
    struct gf_ranks *old = NULL;

    pthread_mutex_lock(&job->lock);
    if (ranks) {
        old = job->ranks;
        job->ranks = ranks;
    }
    if (ranks || alive != job->alive || finishing != job->finishing)
        job->version++;
    job->alive = alive;
    job->finishing = finishing;
    job->ended &= !alive;
    pthread_mutex_unlock(&job->lock);
    gf_ranks_free(old);
}

/* Looks which ranks there are. With `partial`, some of them will do. */
void gf_job_group(struct gf_job *job, bool partial)
{
    GF_AUTO_MEM struct gf_said **said = calloc(job->peers.n + 1, sizeof(struct gf_said *));
    struct gf_ranks *ranks = NULL;
    struct gf_err why = { 0 };
    size_t n = 0, kept = 0, run;
    bool final = false;
    int r;

    for (size_t i = 0; said && i < job->peers.n; i++) {
        final |= job->peers.at[i]->final;
        if (job->peers.at[i]->said)
            said[n++] = job->peers.at[i]->said;
    }
    run = n ? pick_run(said, n) : SIZE_MAX;
    if (run != SIZE_MAX) {
        struct gf_said *of = said[run];

        for (size_t i = 0; i < n; i++)
            if (!memcmp(said[i]->table->run_id, of->table->run_id,
                        sizeof(of->table->run_id)))
                said[kept++] = said[i];
        n = kept;
    }
    r = said ? gf_ranks_agree(job->name, said, n, &why) : gf_nomem(&why);
    if (r == -GF_EINCOMPLETE && partial && n)
        r = 0;
    if (!r && !same_ranks(job->ranks, said, n))
        r = gf_ranks_new(said, n, &ranks, &why);
    /* What went wrong with a connection tells more than that there is none. */
    if (!r || n || !job->why.code)
        job->why = why;
    gf_job_set_ranks(job, ranks, !r, !r && final);
}
