/* SPDX-License-Identifier: MIT */
/* A disk's queues in a process of their own, from the side of the guest's process: it begins the
 * other one when the guest connects, begins it anew whenever it dies, and ends it when the guest
 * has gone.  The guest finds its requests slow meanwhile and nothing else (xen_vbd_record.h).
 *
 *     IDLE -> RUNNING -> DYING -> PAUSED -> RUNNING ...
 *                                   +-----> GIVEN_UP
 *
 * DYING lasts until the kernel has done with all that the dead process had asked it for: a
 * write from before that comes after one from later would be a lost write.  PAUSED is the time
 * before the next attempt, none for the first deaths.  After too many of them within a minute
 * it is given up: this process answers the guest's requests with errors then, until the guest
 * disconnects.
 *
 * All of it runs on the loop's thread, which waits for the other process's answers; one that
 * does not answer is killed. */
#ifndef XENOLITH_DEV_XEN_VBD_REMOTE_H
#define XENOLITH_DEV_XEN_VBD_REMOTE_H

#include <sys/types.h>

#include "base/loop.h"
#include "dev/xen_vbd_queue.h"

struct vbd_remote;

/* How the other process is made. */
struct vbd_remote_spawn {
    /* One that runs xen_vbd_serve() on the other end of socket, a child of the calling thread;
     * NULL: disks are served by the guest's process.  0 or -errno. */
    int (*spawn)(void *arg, int socket, pid_t *pid);
    void *arg;
};

/* What is pointed to must outlive it. */
struct vbd_remote_params {
    struct loop *loop;
    const char *name;                   /* xvda */
    const struct blk_spec *spec;
    const struct blk_disk *disk;        /* opened to_share from spec, without filters */
    struct gnttab_host *grants;         /* their memory is what the other process maps */
    int fault_fd;                       /* as in struct vbd_queue_params */
    struct vbd_remote_spawn spawn;
    /* Something has changed: pid is 0 while there is no process, nr_deaths is of this
     * connection; given_up is the text for the operator, NULL before that. */
    void (*changed)(void *arg, pid_t pid, unsigned nr_deaths, const char *given_up);
    void *arg;
};

int vbd_remote_create(const struct vbd_remote_params *p, struct vbd_remote **out, struct err *e);
/* Stopped, or never started.  NULL is allowed. */
void vbd_remote_free(struct vbd_remote *r);

/* Serves nr of the guest's rings, ring.pages and port of which must stay until vbd_remote_stop().
 * 0 or -errno with nothing left running. */
int vbd_remote_start(struct vbd_remote *r, const struct vbd_queue_params *queues, unsigned nr,
                     struct err *e);
/* As vbd_queue_stop(), of all queues; last has room for nr.  If the process does not live to
 * see it done, what it leaves is answered with errors. */
void vbd_remote_stop(struct vbd_remote *r, struct vbd_queue_counters *last);

/* As blk_disk_resize(), by the other process; *served is false when there is none, and nothing
 * has been done. */
int vbd_remote_resize(struct vbd_remote *r, uint64_t size_bytes, bool *served, struct err *e);

/* While started. */
void vbd_remote_counters(const struct vbd_remote *r, unsigned queue,
                         struct vbd_queue_counters *out);
/* text is "" while its ring runs. */
void vbd_remote_fault(const struct vbd_remote *r, unsigned queue,
                      char text[VBD_RECORD_FAULT_BYTES]);

#endif
