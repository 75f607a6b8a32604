/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch_open.h - one torch.save file: fetches what the pure parsers ask for.
 *
 * Zip and legacy files look the same from here: a root value, tensors in it, and for each
 * tensor the place of its first element in the file. A handful of small reads, none of
 * which grows with the weights. One thread per file.
 */
#ifndef GF_FORMAT_TORCH_OPEN_H
#define GF_FORMAT_TORCH_OPEN_H

#include "base/auto.h"
#include "base/err.h"
#include "base/limits.h"
#include "container/torch_file.h"
#include "source/source.h"

struct gf_torch;

/* `src` is borrowed and outlives it. GF_EBAD for anything that is no whole torch file
 * ("'x.pt': cut short: no zip end record in the last 812 of 812 bytes", "'x.pt': empty
 * file"); ENOTSUP for one that is, but cannot be read: TorchScript, a tar of torch 0.1,
 * big-endian, a whole nn.Module (legacy), a compressed pickle. */
int gf_torch_open(struct gf_source *src, const struct gf_limits *limits,
                  struct gf_torch **ret, struct gf_err *err);
void gf_torch_free(struct gf_torch *torch);
GF_DEFINE_AUTO(gf_torch);

const struct gf_pv *gf_torch_root(const struct gf_torch *torch);
struct gf_pickle *gf_torch_pickle(struct gf_torch *torch); /* for gf_torch_tensor() */
/* The directory in the archive, with its '/': by torch.save the name that the file had, cut
 * at its last dot; "archive/" if it was written to memory first. "" for legacy files. */
const char *gf_torch_archive(const struct gf_torch *torch);

/* Byte offset in the file of the view's element 0 (storage offset included). The storage's
 * record must exist, hold storage.nbytes (else GF_EBAD), and be stored uncompressed (else
 * ENOTSUP). Cached per storage. For an empty view *ret = 0. */
int gf_torch_locate(struct gf_torch *torch, const struct gf_torch_view *view, uint64_t *ret,
                    struct gf_err *err);

#endif
