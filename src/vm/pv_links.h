/* SPDX-License-Identifier: MIT */
/* The host's ends of a PV guest's event channels (xen/hostport.h), on KVM: a
 * doorbell becomes an eventfd by ioeventfd, an eventfd becomes an interrupt of
 * the vCPU the guest chose by irqfd, and the shim is asked through links. */
#ifndef XENOLITH_VM_PV_LINKS_H
#define XENOLITH_VM_PV_LINKS_H

#include "kvm/vm.h"
#include "shim/abi.h"
#include "vm/pv_peers.h"
#include "xen/hostport.h"

struct pv_links;

/* What the process and the shim share about links. */
struct pv_links_shared {
    struct xen_hostlink *links;                 /* XEN_HOSTLINK_MAX */
    struct shim_requests *requests;
    struct xen_hostwaker *wakers;               /* one for each vCPU */
};

/* The VM and the shared records must outlive the links, cpus (as in struct xen_hostport)
 * the ports.  Sets the VM's routes: gsi n raises SHIM_VECTOR_LINK on vCPU n.
 * 0 or -errno. */
int pv_links_create(struct kvm_vm *vm, unsigned nr_vcpus, const uint32_t *const *cpus,
                    const struct pv_links_shared *shared, struct pv_links **out, struct err *e);
/* Every port is gone, its device stopped; NULL is allowed. */
void pv_links_free(struct pv_links *l);

/* The owner of these is the struct pv_links. */
extern const struct xen_hostport_ops pv_links_ops;
extern const struct pv_peer_link_ops pv_links_peer_ops;

/* A link that is connected from the start (store and console): number index,
 * taking guest port guest_port.  Before the guest runs. */
int pv_links_fixed(struct pv_links *l, unsigned index, uint32_t guest_port,
                   struct xen_hostport *p, struct err *e);

/* The shim changed state or vCPU of link index (SHIM_IO_LINK).  vCPU threads. */
void pv_links_changed(struct pv_links *l, uint32_t index);

/* vCPU vcpu calls whoever has link index (XEN_CALL_IO_PORT): what to answer.  Its thread. */
uint32_t pv_links_call(struct pv_links *l, uint32_t index, unsigned vcpu);

#endif
