/* SPDX-License-Identifier: MIT */
/* What a virtual block device says of itself in xenstore (xen/io/blkif.h). */
#ifndef XENOLITH_DEV_XEN_VBD_NODES_H
#define XENOLITH_DEV_XEN_VBD_NODES_H

#include "dev/xen_vbd.h"
#include "dev/xenbus.h"

#define VBD_NODES_MAX 32

struct vbd_nodes {
    struct xenbus_node node[VBD_NODES_MAX];
    unsigned nr;
};

/* All that the backend's directory has to begin with; *d is the disk's. */
void vbd_nodes_fill(struct vbd_nodes *l, const struct xen_vbd_params *p, const char *vdev,
                    const struct blk_props *d);
/* Those of them that xen_vbd_resize() changes. */
void vbd_nodes_size(struct vbd_nodes *l, const struct blk_props *d);

#endif
