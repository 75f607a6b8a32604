/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.h - what gatherfs knows about a SOURCE, as text: inspect, status.json, provenance.
 */
#ifndef GF_SNAPSHOT_REPORT_H
#define GF_SNAPSHOT_REPORT_H

#include "base/err.h"
#include "base/text.h"
#include "snapshot/run.h"

/* gatherfs inspect: for people, or one JSON object. */
int gf_report_inspect(struct gf_run *run, bool json, bool tensors, struct gf_text *out,
                      struct gf_err *err);

/* The members of status.json that describe the source (no braces): fs/ adds the mount's. */
int gf_report_status(struct gf_run *run, struct gf_text *out, struct gf_err *err);

/* .gatherfs/provenance/FILE.json: which source file and offset each range comes from. */
int gf_report_provenance(const struct gf_vdir *dir, const struct gf_vfile *file,
                         struct gf_text *out, struct gf_err *err);

#endif
