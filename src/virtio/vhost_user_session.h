/* SPDX-License-Identifier: MIT */
/* The back-end's side of the vhost-user protocol: one client, from its first message to its
 * last, for a device of any kind.  The session knows features, memory and rings; the device
 * runs queues when it is told to.
 *
 * A ring runs while it has all it needs: size, addresses, a kick descriptor, and (where
 * protocol features were agreed) SET_VRING_ENABLE.  It does not wait for a first kick, since
 * after a restart of either side there may be work and no kick to come.  Whatever changes under
 * a ring that runs, memory, features, log, it is stopped first, which completes what is in
 * flight, and goes on after.
 *
 * Nothing here waits for the client. */
#ifndef XENOLITH_VIRTIO_VHOST_USER_SESSION_H
#define XENOLITH_VIRTIO_VHOST_USER_SESSION_H

#include "base/err.h"
#include "base/types.h"
#include "virtio/virtqueue.h"

#define VHOST_USER_QUEUES_MAX 64u

struct vhost_user_session;

/* What a queue runs with; everything stays until it has been stopped. */
struct vhost_user_queue {
    struct virtqueue_params vq;
    uint64_t features;          /* as the client set them */
    int kick_fd;                /* an eventfd that others may read and write at any time */
    int call_fd;                /* an eventfd, likewise; what the number stands for may change */
    int err_fd;                 /* another, to be written when the queue is stopped by a fault */
};

struct vhost_user_device_ops {
    /* The device's configuration space, size bytes from its beginning; behind its end are
     * zeroes. */
    void (*config_read)(void *device, uint8_t *bytes, uint32_t size);
    /* 0 or -errno when the driver may not write there. */
    int (*config_write)(void *device, uint32_t offset, const uint8_t *bytes, uint32_t size);
    /* Back to how it was before any driver came; no queue runs. */
    void (*reset)(void *device);
    /* 0 or -errno with e set. */
    int (*queue_start)(void *device, unsigned index, const struct vhost_user_queue *q,
                       struct err *e);
    /* Completes what is in flight.  virtqueue_base(). */
    uint32_t (*queue_stop)(void *device, unsigned index);
};

struct vhost_user_params {
    const struct vhost_user_device_ops *ops;
    void *device;
    const char *name;           /* for messages to the operator */
    uint64_t features;          /* the device's own and the rings', to be offered */
    unsigned max_queues;        /* 1 .. VHOST_USER_QUEUES_MAX */
};

/* NULL: out of memory. */
struct vhost_user_session *vhost_user_session_create(const struct vhost_user_params *p);
void vhost_user_session_free(struct vhost_user_session *s);

/* A client has come; fd becomes the session's. */
void vhost_user_session_begin(struct vhost_user_session *s, int fd);
/* Serves what has come from the client, and returns.  0, or a -errno when the session cannot go
 * on: -ECONNRESET when the client has closed, else with e set. */
int vhost_user_session_serve(struct vhost_user_session *s, struct err *e);
/* What config_read() answers has changed: tells a client that wants to be told.  One that has
 * not looked since it was told last is told no more.  0, or -errno when it cannot be reached. */
int vhost_user_session_config_changed(struct vhost_user_session *s);
/* Stops all queues and forgets the client. */
void vhost_user_session_end(struct vhost_user_session *s);

#endif
