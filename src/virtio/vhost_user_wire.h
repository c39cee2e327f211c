/* SPDX-License-Identifier: MIT */
/* Messages of the vhost-user protocol (QEMU, docs/interop/vhost-user.rst) on a socket that
 * never makes anybody wait: numbers, layouts, one message in, one message out. */
#ifndef XENOLITH_VIRTIO_VHOST_USER_WIRE_H
#define XENOLITH_VIRTIO_VHOST_USER_WIRE_H

#include "base/err.h"
#include "base/types.h"

enum vhost_user_request {
    VHOST_USER_GET_FEATURES = 1,
    VHOST_USER_SET_FEATURES = 2,
    VHOST_USER_SET_OWNER = 3,
    VHOST_USER_RESET_OWNER = 4,
    VHOST_USER_SET_MEM_TABLE = 5,
    VHOST_USER_SET_LOG_BASE = 6,
    VHOST_USER_SET_LOG_FD = 7,
    VHOST_USER_SET_VRING_NUM = 8,
    VHOST_USER_SET_VRING_ADDR = 9,
    VHOST_USER_SET_VRING_BASE = 10,
    VHOST_USER_GET_VRING_BASE = 11,
    VHOST_USER_SET_VRING_KICK = 12,
    VHOST_USER_SET_VRING_CALL = 13,
    VHOST_USER_SET_VRING_ERR = 14,
    VHOST_USER_GET_PROTOCOL_FEATURES = 15,
    VHOST_USER_SET_PROTOCOL_FEATURES = 16,
    VHOST_USER_GET_QUEUE_NUM = 17,
    VHOST_USER_SET_VRING_ENABLE = 18,
    VHOST_USER_SET_BACKEND_REQ_FD = 21,
    VHOST_USER_GET_CONFIG = 24,
    VHOST_USER_SET_CONFIG = 25,
    VHOST_USER_GET_INFLIGHT_FD = 31,
    VHOST_USER_SET_INFLIGHT_FD = 32,
    VHOST_USER_RESET_DEVICE = 34,
    VHOST_USER_GET_MAX_MEM_SLOTS = 36,
    VHOST_USER_ADD_MEM_REG = 37,
    VHOST_USER_REM_MEM_REG = 38,
};

/* what the back-end says by itself, on a socket that the client gives it */
enum vhost_user_backend_request {
    VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2,
};

/* bits of protocol features */
enum vhost_user_protocol_feature {
    VHOST_USER_PROTOCOL_F_MQ = 0,
    VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1,
    VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
    VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
    VHOST_USER_PROTOCOL_F_CONFIG = 9,
    VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
    VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
    VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
};

/* a feature bit of virtio that the protocol has taken for itself */
#define VHOST_USER_F_PROTOCOL_FEATURES 30

#define VHOST_USER_VERSION      0x1u    /* in flags */
#define VHOST_USER_VERSION_MASK 0x3u
#define VHOST_USER_REPLY        0x4u
#define VHOST_USER_NEED_REPLY   0x8u

#define VHOST_USER_VRING_INDEX  0xffu   /* in the u64 of SET_VRING_KICK, CALL and ERR */
#define VHOST_USER_VRING_NOFD   0x100u

#define VHOST_USER_TABLE_MAX    8u      /* regions of SET_MEM_TABLE */
#define VHOST_USER_FDS_MAX      8u
#define VHOST_USER_CONFIG_MAX   256u

struct vhost_user_region {
    uint64_t guest_address;
    uint64_t size_bytes;
    uint64_t user_address;
    uint64_t file_offset_bytes;
};

struct vhost_user_vring_state { uint32_t index, num; };

struct vhost_user_vring_addr {
    uint32_t index, flags;
    uint64_t desc, used, avail;         /* user addresses */
    uint64_t log;                       /* a guest address */
};

struct vhost_user_config {
    uint32_t offset, size, flags;
    uint8_t bytes[VHOST_USER_CONFIG_MAX];
};

struct vhost_user_inflight {
    uint64_t size_bytes, offset_bytes;
    uint16_t nr_queues, queue_size;
};

#define VHOST_USER_HEADER_BYTES 12u

struct vhost_user_msg {
    uint32_t request;
    uint32_t flags;
    uint32_t size;                      /* of what follows */
    union {
        uint64_t u64;
        struct vhost_user_vring_state state;
        struct vhost_user_vring_addr addr;
        struct { uint32_t nr_regions, padding;
                 struct vhost_user_region region[VHOST_USER_TABLE_MAX]; } table;
        struct { uint64_t padding; struct vhost_user_region region; } slot;
        struct { uint64_t size_bytes, offset_bytes; } log;
        struct vhost_user_config config;
        struct vhost_user_inflight inflight;
    } __attribute__((packed)) payload;
} __attribute__((packed));

struct vhost_user_wire {
    int fd;
    size_t have;                        /* bytes of msg */
    struct vhost_user_msg msg;
    unsigned nr_fds;
    int fds[VHOST_USER_FDS_MAX];        /* that came with msg; -1: taken */
};

void vhost_user_wire_init(struct vhost_user_wire *w, int fd);
/* Closes what came and was not taken, and fd. */
void vhost_user_wire_close(struct vhost_user_wire *w);

/* 1: w->msg is complete.  0: the rest has not come yet.  -ECONNRESET: the other side has
 * closed; another -errno with e set. */
int vhost_user_wire_recv(struct vhost_user_wire *w, struct err *e);
/* The message and its descriptors have been dealt with. */
void vhost_user_wire_next(struct vhost_user_wire *w);
/* The i-th descriptor, now the caller's; -1: there is none. */
int vhost_user_wire_fd_take(struct vhost_user_wire *w, unsigned i);
/* Sends w->msg as the reply to itself, size bytes of payload, with pass_fd unless it is -1.
 * A client that lets replies pile up is not worth waiting for: -errno with e set. */
int vhost_user_wire_reply(struct vhost_user_wire *w, uint32_t size, int pass_fd, struct err *e);
/* Sends a request without payload, which needs no reply, to whoever reads fd.  0; -EAGAIN: there
 * is no room, since those sent before have not been read; another -errno. */
int vhost_user_wire_tell(int fd, enum vhost_user_backend_request request);

#endif
