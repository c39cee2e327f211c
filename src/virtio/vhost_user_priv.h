/* SPDX-License-Identifier: MIT */
/* What the files of the vhost-user session share. */
#ifndef XENOLITH_VIRTIO_VHOST_USER_PRIV_H
#define XENOLITH_VIRTIO_VHOST_USER_PRIV_H

#include "mem/dirty_log.h"
#include "mem/shared_mem.h"
#include "virtio/vhost_user_session.h"
#include "virtio/vhost_user_wire.h"

struct vhost_user_vring {
    unsigned num;
    uint32_t base;
    bool has_addr;
    struct vhost_user_vring_addr addr;
    int kick_fd, call_fd, err_fd;       /* -1: none */
    bool enabled;
    bool running;
    struct virtqueue_inflight *inflight;    /* while it runs */
};

struct vhost_user_session {
    struct vhost_user_params params;
    struct vhost_user_wire wire;
    uint64_t features;                  /* acknowledged */
    uint64_t protocol_features;
    int backend_fd;                     /* where we speak unasked; -1: nowhere */
    unsigned nr_refused;                /* requests, with an acknowledgement that says so */
    struct shared_mem mem;
    struct dirty_log log;
    struct {
        uint8_t *region;                /* NULL: none */
        size_t size_bytes;
        uint16_t nr_queues, queue_size;
        void *map;
        size_t map_bytes;
    } inflight;
    struct vhost_user_vring vring[VHOST_USER_QUEUES_MAX];
};

static inline bool vhost_user_has(const struct vhost_user_session *s, unsigned feature)
{
    return s->features >> feature & 1;
}

static inline bool vhost_user_has_protocol(const struct vhost_user_session *s, unsigned feature)
{
    return s->protocol_features >> feature & 1;
}

/* A request's handler reads s->wire.msg.  0: done.  1: msg is the reply, with msg.size bytes.
 * -errno with e set. */
typedef int vhost_user_handler(struct vhost_user_session *s, struct err *e);

vhost_user_handler vhost_user_set_mem_table, vhost_user_add_mem_reg, vhost_user_rem_mem_reg;
vhost_user_handler vhost_user_set_log_base, vhost_user_set_log_fd;
vhost_user_handler vhost_user_get_inflight_fd, vhost_user_set_inflight_fd;
void vhost_user_memory_forget(struct vhost_user_session *s);

vhost_user_handler vhost_user_set_vring_num, vhost_user_set_vring_addr;
vhost_user_handler vhost_user_set_vring_base, vhost_user_get_vring_base;
vhost_user_handler vhost_user_set_vring_kick, vhost_user_set_vring_call;
vhost_user_handler vhost_user_set_vring_err, vhost_user_set_vring_enable;
void vhost_user_vrings_init(struct vhost_user_session *s);
/* Stops all that run, to go on with vhost_user_vrings_resume(). */
void vhost_user_vrings_pause(struct vhost_user_session *s);
/* Starts whichever can run.  One that cannot is told to the operator, and tried again when
 * something else changes. */
void vhost_user_vrings_resume(struct vhost_user_session *s);
/* Back to how they were when the client came. */
void vhost_user_vrings_forget(struct vhost_user_session *s);

#endif
