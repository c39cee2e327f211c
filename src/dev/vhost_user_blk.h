/* SPDX-License-Identifier: MIT */
/* A disk served to other programs' virtual machines: virtio-blk over vhost-user.  Control runs
 * on the loop's thread; each of the client's rings gets a thread of its own
 * (vhost_user_blk_queue.h).  One client at a time is served; the next waits in the socket's
 * queue until it has gone, however it went. */
#ifndef XENOLITH_DEV_VHOST_USER_BLK_H
#define XENOLITH_DEV_VHOST_USER_BLK_H

#include "base/err.h"
#include "base/loop.h"
#include "blk/disk.h"

struct vhost_user_blk;

/* a good poll_max_ns: about what one wake-up of a sleeping thread costs, on both sides */
#define VHOST_USER_BLK_POLL_MAX_NS 100000u

/* The strings are copied, the loop must outlive the device. */
struct vhost_user_blk_params {
    struct loop *loop;
    const char *socket;         /* path; a socket that nobody listens at is replaced */
    const char *serial;         /* what VIRTIO_BLK_T_GET_ID answers */
    struct blk_spec disk;
    unsigned max_queues;        /* offered; 1 .. VHOST_USER_QUEUES_MAX */
    uint64_t poll_max_ns;       /* longest polling before a sleep; 0: none */
};

/* Opens the disk and listens.  0 or -errno; nothing is left behind then. */
int vhost_user_blk_create(const struct vhost_user_blk_params *p, struct vhost_user_blk **out,
                          struct err *e);
/* blk_disk_resize(), of which the client is told. */
int vhost_user_blk_resize(struct vhost_user_blk *v, uint64_t size_bytes, struct err *e);
/* Requests in flight are completed first.  The socket is removed. */
void vhost_user_blk_destroy(struct vhost_user_blk *v);

const struct blk_props *vhost_user_blk_props(const struct vhost_user_blk *v);

#endif
