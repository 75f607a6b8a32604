/* SPDX-License-Identifier: Apache-2.0 */
/*
 * box.h - elements of an n-dimensional piece, put where they belong in a flat range.
 *
 * Private to gather/. A flat range of a row-major tensor is at most 2 * rank - 1 rectangles;
 * each, cut with the box, is read by its span in the source where that is dense, else split
 * along its largest source stride, and scattered.
 */
#ifndef GF_GATHER_BOX_H
#define GF_GATHER_BOX_H

#include "gather/gather.h"

struct gf_box_read {
    const struct gf_bound *bound;
    const struct gf_tensor *tensor;
    uint64_t first, count; /* the flat range of elements wanted */
    uint8_t *dst;          /* where element `first` goes */
    uint8_t **span;        /* staging buffer, grown as needed */
    size_t *span_size;
    struct gf_fault *fault;
};

/* Puts those elements of the piece (box or linear) that lie in the range into dst. */
int gf_box_read(struct gf_box_read *rd, const struct gf_piece *piece);

#endif
