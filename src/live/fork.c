/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fork.c - a forked child (a data loader) has a copy of the publisher, but no service thread
 * and no right to speak for the trainer. It gives up every descriptor, or a reader would not
 * notice the trainer's end while data loaders live. Its shared memory was never inherited
 * (MADV_DONTFORK).
 */
#include "live/publish_int.h"

#include <unistd.h>

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct gatherfs_pub *all;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
    pthread_mutex_lock(&all_lock);
    for (struct gatherfs_pub *pub = all; pub; pub = pub->next)
        pthread_mutex_lock(&pub->lock);
}

static void unlock_all(void)
{
    for (struct gatherfs_pub *pub = all; pub; pub = pub->next)
        pthread_mutex_unlock(&pub->lock);
    pthread_mutex_unlock(&all_lock);
}

static void close_in_child(int fd)
{
    if (fd >= 0)
        close(fd);
}

static void in_child(void)
{
    for (struct gatherfs_pub *pub = all; pub; pub = pub->next) {
        if (pub->dead)
            continue;
        pub->dead = true;
        pub->control = NULL;
        close_in_child(pub->dirfd);
        close_in_child(pub->listener);
        close_in_child(pub->agent);
        close_in_child(pub->event);
        close_in_child(pub->control_memory.fd);
        close_in_child(pub->statics.fd);
        for (uint32_t i = 0; i < GF_LIVE_MAX_SLOTS; i++)
            close_in_child(pub->slots[i].memory.fd);
    }
    unlock_all();
}

static void watch_forks(void)
{
    pthread_atfork(before_fork, unlock_all, in_child);
}

void gf_pub_register(struct gatherfs_pub *pub)
{
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&all_lock);
    pub->next = all;
    all = pub;
    pthread_mutex_unlock(&all_lock);
}

void gf_pub_unregister(struct gatherfs_pub *pub)
{
    pthread_mutex_lock(&all_lock);
    for (struct gatherfs_pub **p = &all; *p; p = &(*p)->next)
        if (*p == pub) {
            *p = pub->next;
            break;
        }
    pthread_mutex_unlock(&all_lock);
}
