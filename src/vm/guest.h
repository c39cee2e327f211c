/* SPDX-License-Identifier: MIT */
/* A running guest: configuration in, life cycle out.  One guest per process (a
 * reboot makes a new one in the same process).  Every function is called from
 * the thread that runs the loop; callbacks come on that thread too. */
#ifndef XENOLITH_VM_GUEST_H
#define XENOLITH_VM_GUEST_H

#include "base/err.h"
#include "base/loop.h"
#include "vm/config.h"

struct vm_guest;
struct xen_console;

/* Why a guest stopped; numbers are SHUTDOWN_* of xen/sched.h. */
enum vm_stop {
    VM_STOP_POWEROFF = 0, VM_STOP_REBOOT = 1, VM_STOP_SUSPEND = 2,
    VM_STOP_CRASH = 3, VM_STOP_WATCHDOG = 4, VM_STOP_SOFT_RESET = 5,
    VM_STOP_FAILURE = 256,      /* the host's: text says what */
};

struct vm_guest_params {
    const struct vm_config *config;     /* must outlive the guest */
    unsigned domid;                     /* from the registry, at least 1 */
    struct loop *loop;
    const char *xenstore_socket;        /* path of the xenstore daemon's socket */
    const char *run_dir;                /* where guests' processes meet; outlives the guest */
    int console_log_fd;                 /* -1: no log; stays the caller's */
    /* Other guests: the socket where this one is met (SOCK_SEQPACKET, listening, non-blocking;
     * -errno), and a connection to another's (-errno), for which nobody waits.  Any thread. */
    int (*peer_listen)(void *arg, struct err *e);
    int (*peer_connect)(void *arg, unsigned domid);
    /* All vCPUs have stopped for good; text is for the operator, may be "". */
    void (*stopped)(void *arg, enum vm_stop why, const char *text);
    /* A disk that vm_guest_disk_detach() did not wait for is gone. */
    void (*disk_detached)(void *arg, unsigned vdev_number);
    void *arg;
};

struct vm_guest_info {
    bool running, blocked, paused, shutdown, crashed, dying;
    enum vm_stop why;           /* while shutdown or crashed */
    uint64_t memory_bytes;
    unsigned vcpus_online, vcpus_max;
    uint64_t cpu_time_ns;       /* of all vCPU threads */
    uint64_t booted_ns;         /* CLOCK_MONOTONIC of vm_guest_start(), 0 before */
    unsigned ring;              /* 1 or 3 */
};

/* Builds the guest, paused.  On failure e names file and field, nothing is left
 * behind.  -errno. */
int vm_guest_create(const struct vm_guest_params *p, struct vm_guest **out, struct err *e);
/* Starts the vCPUs, or lets them go on after vm_guest_pause(). */
void vm_guest_unpause(struct vm_guest *g);
/* Returns when no vCPU runs guest code. */
void vm_guest_pause(struct vm_guest *g);
/* Asks the guest, through xenstore's control/shutdown: "poweroff", "reboot",
 * "suspend" or "halt".  0 or -errno. */
int vm_guest_ask(struct vm_guest *g, const char *request, struct err *e);

/* ---- disks of a guest that runs, each known by its number (vm_disk_vdev_number()) ---- */

/* The guest finds the disk and uses it when it gets to it.  0 or -errno with e naming the image
 * or the device: -EEXIST, -EBUSY (the image is somebody else's) ... */
int vm_guest_disk_attach(struct vm_guest *g, const struct vm_disk *d, struct err *e);
/* Asks the guest to let go; with force, or when it has nothing to let go of, the disk is gone
 * at once (0).  -EINPROGRESS, with e untouched: disk_detached() will come, however long it
 * takes; or never.  -ENODEV. */
int vm_guest_disk_detach(struct vm_guest *g, unsigned vdev_number, bool force, struct err *e);
/* Gives the disk *size_bytes, or (0) those that its image has by now; *size_bytes becomes what
 * it has.  0 or -errno. */
int vm_guest_disk_resize(struct vm_guest *g, unsigned vdev_number, uint64_t *size_bytes,
                         struct err *e);

struct vm_guest_disk {
    unsigned vdev_number;
    int state, event_channel, ring_ref; /* as the guest has written them; -1: it has not */
    char backend[64];                   /* xenstore's directory */
};

/* Up to VM_DISKS_MAX of them, in the order they came.  How many. */
unsigned vm_guest_disk_list(const struct vm_guest *g, struct vm_guest_disk *out);

/* Stops everything, releases everything; no callback is made any more. */
void vm_guest_destroy(struct vm_guest *g);

void vm_guest_info(const struct vm_guest *g, struct vm_guest_info *info);
/* The guest's console (dev/xen_console.h), owned by the guest. */
struct xen_console *vm_guest_console(struct vm_guest *g);

#endif
