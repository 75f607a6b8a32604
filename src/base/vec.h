/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec.h - a growing array that is born with a ceiling.
 *
 *     struct GF_VEC(struct gf_piece) pieces = { 0 };
 *     if (gf_vec_push(&pieces, piece, limit)) ... out of memory or past the ceiling
 *     for (size_t i = 0; i < pieces.n; i++) use(pieces.at[i]);
 *     gf_vec_free(&pieces);
 */
#ifndef GF_BASE_VEC_H
#define GF_BASE_VEC_H

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#define GF_VEC(type)                                                                       \
    {                                                                                      \
        type *at;                                                                          \
        size_t n, room;                                                                    \
    }

/* Room for `n` more items of `size` bytes; 0, -ENOMEM, or -E2BIG past `ceiling` items. */
int gf_vec_grow(void **at, size_t *room, size_t n, size_t more, size_t size,
                size_t ceiling);

#define gf_vec_reserve(v, more, ceiling)                                                   \
    gf_vec_grow((void **)(void *)&(v)->at, &(v)->room, (v)->n, (more), sizeof(*(v)->at),   \
                (ceiling))

/* 0, -ENOMEM or -E2BIG; the array is unchanged on failure. */
#define gf_vec_push(v, item, ceiling)                                                      \
    __extension__({                                                                        \
        int gf_vec_r = gf_vec_reserve(v, 1, ceiling);                                      \
        if (!gf_vec_r)                                                                     \
            (v)->at[(v)->n++] = (item);                                                    \
        gf_vec_r;                                                                          \
    })

#define gf_vec_free(v) (free((v)->at), (v)->at = NULL, (v)->n = (v)->room = 0)

#endif
