/* SPDX-License-Identifier: Apache-2.0 */
/*
 * channel.h - sends and receives the messages of segment.h with their descriptors, checks
 * who the peer is, and makes and maps the sealed memory that they carry. Used by both sides.
 */
#ifndef GF_LIVE_CHANNEL_H
#define GF_LIVE_CHANNEL_H

#include <sys/types.h>

#include "live/segment.h"

/* Sends head and payload (len bytes, may be 0) and, if fd >= 0, that descriptor (sets
 * GF_LIVE_FD); never blocks. 0, -EAGAIN when the peer does not read, -errno. */
int gf_live_send(int sock, struct gf_live_msg *msg, const void *payload, size_t len,
                 int fd);

/* Receives one message without blocking, into `buffer` of GF_LIVE_MSG_MAX bytes; payload
 * points into it. *ret_fd is -1 or a descriptor that the caller owns; with NULL descriptors
 * are refused by the kernel. 1: a message; 0: nothing there now; -ENOMSG: skip it;
 * -EPIPE: the peer is gone; other errors: drop the peer. */
int gf_live_recv(int sock, uint8_t *buffer, struct gf_live_msg *ret,
                 const uint8_t **ret_payload, size_t *ret_len, int *ret_fd,
                 struct gf_err *err);

/* Does the process at the other end belong to `owner` or root? -EACCES else. */
int gf_live_peer_check(int sock, uid_t owner, struct gf_err *err);

/* Publisher: memory of `size` bytes that only the returned mapping can write: others can map
 * it read-only, nobody can resize it. Not inherited by forked children. */
int gf_live_memory_new(const char *name, uint64_t size, int *ret_fd, void **ret_map,
                       struct gf_err *err);
/* Agent: maps such a memory read-only, once seals and size are as they must be (so that no
 * read can fault): at least `size` bytes. munmap(*ret, size) is the caller's; fd stays his. */
int gf_live_memory_map(const char *what, int fd, uint64_t size, const void **ret,
                       struct gf_err *err);

#endif
