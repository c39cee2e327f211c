/* SPDX-License-Identifier: MIT */
/* A Xen virtual block device (xen/io/blkif.h): the face of a disk towards a Xen
 * guest.  Control runs on the loop's thread; each of the guest's rings gets a
 * thread of its own (xen_vbd_queue.h) while the guest is connected, here or in a process that
 * the disk has for itself (xen_vbd_remote.h). */
#ifndef XENOLITH_DEV_XEN_VBD_H
#define XENOLITH_DEV_XEN_VBD_H

#include "base/err.h"
#include "base/loop.h"
#include "blk/disk.h"
#include "dev/xen_vbd_queue.h"
#include "dev/xen_vbd_remote.h"
#include "xen/gnttab_host.h"
#include "xen/hostport.h"
#include "xen/xs_client.h"

struct xen_vbd;

#define XEN_VBD_QUEUES_MAX  64u
/* a good poll_max_ns: about what one wake-up of a sleeping thread costs */
#define XEN_VBD_POLL_MAX_NS 100000u

/* Everything pointed at must outlive the device, except the name and the disk's strings, which
 * are copied or not needed again. */
struct xen_vbd_params {
    struct loop *loop;
    struct xs_client *xs;
    struct gnttab_host *grants;
    const struct xen_hostport_ops *port_ops;
    void *port_owner;
    unsigned domid;
    unsigned vdev_number;       /* 51712 for xvda: docs/misc/vbd-interface of Xen */
    const char *vdev;           /* "xvda" */
    struct blk_spec disk;
    bool cdrom;
    bool bootable;
    bool persistent;            /* offer persistent grants */
    unsigned max_queues;        /* offered; 1 .. XEN_VBD_QUEUES_MAX */
    struct vbd_remote_spawn apart;      /* for a process of its own */
    uint64_t poll_max_ns;       /* longest polling before a sleep, see xen_vbd_queue.h; 0: none */
    /* After xen_vbd_close(), once: the guest has let go.  It may destroy the device.  NULL where
     * xen_vbd_close() is never called. */
    void (*closed)(void *arg, struct xen_vbd *v);
    void *arg;
};

/* What the guest and the device agreed on, last. */
struct xen_vbd_negotiated {
    bool connected;             /* now; the rest stays when the guest has gone */
    unsigned nr_queues;
    unsigned nr_ring_pages;     /* per queue */
    unsigned nr_ring_requests;  /* per queue */
    bool persistent;
    unsigned max_indirect_segments;     /* offered */
};

/* Opens the disk and offers the device to the guest through xenstore.  0 or
 * -errno; nothing is left behind then. */
int xen_vbd_create(const struct xen_vbd_params *p, struct xen_vbd **out, struct err *e);
/* Asks the guest to let go of the device.  True: it has nothing of it, so the device may be
 * destroyed at once; else that is when closed() comes, should the guest ever answer. */
bool xen_vbd_close(struct xen_vbd *v);
/* blk_disk_resize(), of which a connected guest is told. */
int xen_vbd_resize(struct xen_vbd *v, uint64_t size_bytes, struct err *e);
/* Requests in flight are completed first. */
void xen_vbd_destroy(struct xen_vbd *v);

void xen_vbd_negotiated(const struct xen_vbd *v, struct xen_vbd_negotiated *out);
const struct blk_props *xen_vbd_disk_props(const struct xen_vbd *v);
const char *xen_vbd_name(const struct xen_vbd *v);
unsigned xen_vbd_number(const struct xen_vbd *v);

/* The device as it stands in xenstore; what the guest has not written is -1. */
struct xen_vbd_front {
    int state;                  /* XenbusState* */
    int event_channel, ring_ref;        /* of the first queue, and its first page */
    const char *backend;        /* the backend's directory, the device's own */
};
void xen_vbd_front(const struct xen_vbd *v, struct xen_vbd_front *out);

/* Of all queues since the device was made, past connections included (but
 * grants_held, which is of now).  The loop's thread. */
void xen_vbd_counters(const struct xen_vbd *v, struct vbd_queue_counters *total);
/* Of one queue of this connection.  0 or -ENOENT. */
int xen_vbd_queue_counters(const struct xen_vbd *v, unsigned queue,
                           struct vbd_queue_counters *out);

#endif
