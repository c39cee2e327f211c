/* SPDX-License-Identifier: MIT */
/* What a guest's process and the one that serves a disk of its say to each other, over a socket
 * that keeps messages apart (SOCK_SEQPACKET).  They are one program, so a message is a struct
 * of C, sent whole.  Each is answered before the next one is sent:
 *
 *     DISK     the disk, the guest's memory and its grant table.  The other confines itself.
 *     QUEUE    one of the guest's rings, which is served from now on
 *     SEALED   that was the last one: the other gives up what it needed to begin queues
 *     RESIZE   as blk_disk_resize()
 *     STOP     as vbd_queue_stop(), of all; then the other ends
 */
#ifndef XENOLITH_DEV_XEN_VBD_WIRE_H
#define XENOLITH_DEV_XEN_VBD_WIRE_H

#include "dev/xen_vbd_ring.h"

#define VBD_WIRE_FDS_MAX     (GUEST_MEM_REGIONS_MAX + 3)
#define VBD_WIRE_FILTERS_MAX 4096u
#define VBD_WIRE_NONE        UINT64_MAX     /* in the place of a guest address */

enum vbd_wire_op {
    VBD_WIRE_DISK, VBD_WIRE_QUEUE, VBD_WIRE_SEALED, VBD_WIRE_RESIZE, VBD_WIRE_STOP,
    VBD_WIRE_ANSWER,
};

/* Descriptors: keep_fd (blk_handed), the eventfd of faults, memory, the disk's if it has one. */
struct vbd_wire_disk {
    char name[16];              /* xvda, for messages */
    char driver[32];
    char filters[VBD_WIRE_FILTERS_MAX];
    uint64_t size_bytes;
    uint8_t readonly, shared_write, no_discard, no_direct, has_fd;
    uint32_t nr_regions;
    struct { uint64_t base, size_bytes; } region[GUEST_MEM_REGIONS_MAX];
    /* guest addresses, of struct gnttab_table's */
    uint64_t grant_frames, grant_status, grant_state;
    uint32_t grant_frames_max;
    int32_t parent;             /* the sender's process number */
};

/* Descriptors: kick_fd and irq_fd of the port, the record's memory. */
struct vbd_wire_queue {
    char protocol[32];          /* vbd_abi_find() */
    uint32_t nr_pages;
    uint8_t persistent;
    uint64_t page[VBD_RING_PAGES_MAX];      /* guest addresses, as are: */
    uint64_t link, links, load, wakers;
    uint32_t nr_wakers;
    uint64_t poll_max_ns;
};

struct vbd_wire_answer {
    int32_t rc;                 /* 0 or -errno, and then text */
    uint64_t size_bytes;        /* RESIZE: by now */
    char text[512];             /* DISK, when all went well: how it is confined */
};

struct vbd_wire {
    uint32_t op;                /* enum vbd_wire_op */
    union {
        struct vbd_wire_disk disk;
        struct vbd_wire_queue queue;
        uint64_t size_bytes;
        struct vbd_wire_answer answer;
    };
};

/* fds stay the caller's.  0 or -errno. */
int vbd_wire_send(int socket, const struct vbd_wire *m, const int *fds, unsigned nr_fds);
/* fds has room for VBD_WIRE_FDS_MAX, and is the caller's to close.  0, -EPIPE when the other end is
 * closed, or another -errno (-EAGAIN: a time-out of the socket's); then no fds. */
int vbd_wire_receive(int socket, struct vbd_wire *m, int *fds, unsigned *nr_fds);

#endif
