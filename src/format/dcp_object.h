/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dcp_object.h - a model that was saved whole, as one Python object: what
 * flatten_state_dict=False makes of {'model': state_dict}. Its item is a torch.save archive
 * of the dict, whose tensors are where they are in the `.distcp` file.
 *
 * Only rank 0 stores objects, so a dict of distributed tensors holds its parts alone and is
 * refused.
 */
#ifndef GF_FORMAT_DCP_OBJECT_H
#define GF_FORMAT_DCP_OBJECT_H

#include "catalog/catalog.h"
#include "format/dcp_metadata.h"
#include "source/source.h"

/* The object whose name is most like a model's; NULL if there are none. */
const struct gf_dcp_object *gf_dcp_object_choose(const struct gf_dcp_table *table);

/* Adds its tensors; `source` is the index that pieces name the file by. */
int gf_dcp_object_read(struct gf_source *file, const struct gf_dcp_object *object,
                       uint32_t source, const struct gf_limits *limits,
                       struct gf_catalog *catalog, struct gf_err *err);

#endif
