/* SPDX-License-Identifier: MIT */
#include "dev/xen_vbd_nodes.h"

#include <stdarg.h>
#include <stdio.h>

static void node_add(struct vbd_nodes *l, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void node_add(struct vbd_nodes *l, const char *key, const char *fmt, ...)
{
    struct xenbus_node *n = &l->node[l->nr++];
    va_list ap;

    n->key = key;
    va_start(ap, fmt);
    vsnprintf(n->value, sizeof(n->value), fmt, ap);
    va_end(ap);
}

void vbd_nodes_size(struct vbd_nodes *l, const struct blk_props *d)
{
    node_add(l, "sectors", "%llu", (unsigned long long)blk_props_nr_sectors(d));
    node_add(l, "physical-sector-size", "%u", d->physical_block_bytes);
}

void vbd_nodes_fill(struct vbd_nodes *l, const struct xen_vbd_params *p, const char *vdev,
                    const struct blk_props *d)
{
    node_add(l, "dev", "%s", vdev);
    node_add(l, "type", "%s", d->block_device ? "phy" : "file");
    node_add(l, "params", "%s", p->disk.path ? p->disk.path : "");
    node_add(l, "mode", "%s", d->readonly ? "r" : "w");
    node_add(l, "device-type", "%s", p->cdrom ? "cdrom" : "disk");
    node_add(l, "removable", "%d", p->cdrom);
    node_add(l, "bootable", "%d", p->bootable);
    node_add(l, "discard-enable", "%d", !p->disk.no_discard);

    /* Always in units of 512 bytes: blkif.h warns of frontends that cannot do
     * otherwise, Linux's among them. */
    node_add(l, "sector-size", "%u", BLK_SECTOR_BYTES);
    vbd_nodes_size(l, d);
    node_add(l, "info", "%u", (d->readonly ? VDISK_READONLY : 0) |
                              (p->cdrom ? VDISK_CDROM | VDISK_REMOVABLE : 0));

    node_add(l, "feature-flush-cache", "%d", d->can_flush);
    node_add(l, "feature-barrier", "%d", d->can_flush);
    node_add(l, "feature-discard", "%d", d->can_discard);
    if (d->can_discard) {
        node_add(l, "discard-granularity", "%u", d->discard_granularity_bytes);
        node_add(l, "discard-alignment", "%u", d->discard_alignment_bytes);
        node_add(l, "discard-secure", "0");
    }
    node_add(l, "feature-persistent", "%d", p->persistent);
    node_add(l, "feature-max-indirect-segments", "%u", VBD_SEGMENTS_MAX);
    node_add(l, "max-ring-page-order", "%u", VBD_RING_ORDER_MAX);
    node_add(l, "multi-queue-max-queues", "%u", p->max_queues);
}
