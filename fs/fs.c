/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/fs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS 16 /* several per core: reads wait for disks */

/* ---------------------------------------------------------------- per thread */

static void thread_free(void *arg)
{
    struct gf_thread *thread = arg;

    gf_scratch_done(&thread->scratch);
    free(thread);
}

struct gf_thread *gf_fs_thread(struct gf_fs *fs)
{
    struct gf_thread *thread = pthread_getspecific(fs->thread);

    if (thread)
        return thread;
    thread = calloc(1, sizeof(*thread));
    if (thread && pthread_setspecific(fs->thread, thread)) {
        free(thread);
        thread = NULL;
    }
    return thread;
}

/* ---------------------------------------------------------------- handles */

struct gf_handle *gf_handle_new(struct gf_fs *fs, struct gf_node *node)
{
    struct gf_handle *handle = calloc(1, sizeof(*handle));

    if (!handle)
        return NULL;
    handle->node = node;
    pthread_mutex_lock(&fs->handles_lock);
    handle->next = fs->handles;
    if (handle->next)
        handle->next->prev = handle;
    fs->handles = handle;
    pthread_mutex_unlock(&fs->handles_lock);
    return handle;
}

void gf_handle_free(struct gf_fs *fs, struct gf_handle *handle)
{
    pthread_mutex_lock(&fs->handles_lock);
    if (handle->next)
        handle->next->prev = handle->prev;
    if (handle->prev)
        handle->prev->next = handle->next;
    else
        fs->handles = handle->next;
    pthread_mutex_unlock(&fs->handles_lock);
    if (handle->entered)
        gf_snapshot_leave(handle->pinned, handle->reader);
    if (handle->pinned) {
        gf_snapshot_unpin(handle->pinned);
        gf_snapshot_free(handle->pinned);
    }
    gf_listing_done(&handle->list);
    free(handle->text);
    free(handle);
}

/* ---------------------------------------------------------------- the mount */

int gf_fs_init(struct gf_fs *fs, const char *source, const char *mountpoint,
               const struct gf_options *opt, const char *fuse_opts, struct gf_err *err)
{
    GF_AUTO(gf_run) run = NULL;
    GF_AUTO(gf_tree) tree = NULL;
    struct stat st;
    int r = gf_run_open(source, opt, &run, err);

    if (!r)
        r = gf_tree_new(&tree, err);
    if (r)
        return r;
    memset(fs, 0, sizeof(*fs));
    r = pthread_key_create(&fs->thread, thread_free);
    if (r)
        return gf_fail(err, r, "no thread key: %s", strerror(r));
    /* A live job has no time of its own. */
    if (stat(source, &st))
        clock_gettime(CLOCK_REALTIME, &st.st_mtim);
    fs->mtime_ns = st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    fs->opt = opt;
    fs->mountpoint = mountpoint;
    fs->fuse_opts = fuse_opts;
    fs->run = gf_take(&run);
    fs->tree = gf_take(&tree);
    /* From now on a job's end waits until we have its last step. */
    if (gf_run_live(fs->run))
        gf_run_poll(fs->run);
    fs->uid = getuid();
    fs->gid = getgid();
    fs->threads = opt->threads ? opt->threads : THREADS;
    clock_gettime(CLOCK_MONOTONIC, &fs->started);
    pthread_mutex_init(&fs->handles_lock, NULL);
    pthread_mutex_init(&fs->log_lock, NULL);
    return 0;
}

void gf_fs_done(struct gf_fs *fs)
{
    while (fs->handles)
        gf_handle_free(fs, fs->handles);
    gf_tree_free(fs->tree);
    gf_run_free(fs->run);
    pthread_key_delete(fs->thread);
    pthread_mutex_destroy(&fs->handles_lock);
    pthread_mutex_destroy(&fs->log_lock);
}

void gf_fs_log(struct gf_fs *fs, enum gf_log_level level, const char *fmt, ...)
{
    char text[sizeof(fs->log[0])];
    struct gf_err line;
    va_list ap;

    if (level > gf_log_level())
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    gf_fail(&line, EIO, "%s", text); /* one printable line, whatever the names hold */
    gf_log_limited(level, "%s", line.text);
    pthread_mutex_lock(&fs->log_lock);
    memcpy(fs->log[fs->log_n++ % GF_LOG_LINES], line.text, sizeof(text));
    pthread_mutex_unlock(&fs->log_lock);
}
