/* SPDX-License-Identifier: MIT */
/* Other guests on this host: what a guest grants them and they grant it, and the event
 * channels between.  Each guest has a process of its own, and these talk to each other
 * over sockets (pv_peer_wire.h). */
#ifndef XENOLITH_VM_PV_PEERS_H
#define XENOLITH_VM_PV_PEERS_H

#include "base/err.h"
#include "mem/guest_mem.h"
#include "shim/abi.h"
#include "xen/hostport.h"

struct pv_peers;

/* Links of the guest's to other guests; 0 or -errno. */
struct pv_peer_link_ops {
    /* For a port that waits by this id: the shim is asked to attach it. */
    int (*attach)(void *owner, uint32_t port, uint32_t id, struct xen_hostport *end);
    /* For a port that the shim is about to connect by itself. */
    int (*take)(void *owner, uint32_t port, struct xen_hostport *end);
    /* That one was not connected. */
    void (*untake)(void *owner, struct xen_hostport *end);
    /* The shim has closed the port, or the guest is gone. */
    void (*release)(void *owner, struct xen_hostport *end);
};

enum pv_peer_window { PV_WINDOW_WRITE, PV_WINDOW_READ, PV_NR_PEER_WINDOWS };

struct pv_peers_params {
    unsigned domid;
    /* A connected SOCK_SEQPACKET socket to the guest's process, or -errno.  Any thread; waits
     * for nobody. */
    int (*connect)(void *arg, unsigned domid);
    void *arg;
    int listen_fd;                      /* where others connect; becomes the callee's */
    unsigned answer_seconds;            /* a process that says nothing for so long is given up */
    const struct pv_peer_link_ops *link_ops;
    void *links;
    const struct guest_mem *mem;
    struct gnttab_table grants;         /* the guest's */
    int ram_fd;                         /* its RAM */
    uint64_t first_mfn, ram_pages;
    /* What the guest sees at PEER_GPA, and PEER_BYTES after it: from pv_peers_window() */
    uint8_t *window[PV_NR_PEER_WINDOWS];
};

/* PEER_BYTES of nothing, to be shown to the guest; NULL with errno. */
uint8_t *pv_peers_window(void);
void pv_peers_window_free(uint8_t *window);

/* What p points to must outlive the peers.  0 or -errno; listen_fd is closed then. */
int pv_peers_create(const struct pv_peers_params *p, struct pv_peers **out, struct err *e);
/* From now on nobody waits for another guest's process; what the guest has of others it keeps
 * until pv_peers_free().  Any thread. */
void pv_peers_cut(struct pv_peers *p);
/* Ends all channels and grants with others, and pages of theirs go from the windows.  No vCPU
 * runs.  NULL is allowed. */
void pv_peers_free(struct pv_peers *p);

/* What the shim asks (SHIM_IO_PEER): c is a copy, and answered in place.  vCPU threads. */
void pv_peers_call(struct pv_peers *p, struct shim_peer_call *c);

#endif
