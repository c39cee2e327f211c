/* SPDX-License-Identifier: MIT */
/* The machine of a PV guest: memory with shim and kernel in it, a KVM VM, vCPUs
 * and their threads, channels to the host.  No devices, no life cycle. */
#ifndef XENOLITH_VM_PV_MACHINE_H
#define XENOLITH_VM_PV_MACHINE_H

#include "kvm/vcpu_threads.h"
#include "kvm/vm.h"
#include "vm/config.h"
#include "vm/pv_links.h"
#include "vm/pv_memory.h"
#include "vm/pv_peers.h"
#include "vm/pv_populate.h"
#include "x86/pv_build.h"

/* Ports the guest finds connected to the host, and their links. */
#define PV_STORE_PORT   1u
#define PV_CONSOLE_PORT 2u
#define PV_STORE_LINK   0u
#define PV_CONSOLE_LINK 1u

/* What the guest wants outside its channels.  All of these come on vCPU threads. */
struct pv_machine_ops {
    /* console_io: guest output that does not use the console ring */
    void (*console)(void *arg, const void *text, size_t bytes);
    void (*log)(void *arg, const char *text);
    /* SCHEDOP_shutdown; the vCPU runs no more */
    void (*shutdown)(void *arg, uint32_t reason);
    /* the shim, or KVM, ends the guest; the vCPU runs no more */
    void (*crash)(void *arg, const char *text);
};

struct pv_machine {
    const struct pv_machine_ops *ops;
    void *arg;
    struct guest_mem mem;
    struct pv_memory memory;
    struct pv_populate populate;        /* while the kernel is expanded */
    struct pv_build_result built;
    struct kvm_vm *vm;
    struct kvm_vcpu *vcpu[SHIM_VCPUS_MAX];
    unsigned nr_vcpus;
    unsigned ring;              /* of the guest's kernel: 1 or 3 */
    struct kvm_vcpu_threads *threads;
    struct pv_links *links;
    uint8_t *window[PV_NR_PEER_WINDOWS];
    struct pv_peers *peers;             /* NULL: it meets nobody */
};

/* Builds the machine that c describes; vCPU threads wait for
 * kvm_vcpu_threads_resume().  ops and arg must outlive it.  0 or -errno with
 * nothing left. */
int pv_machine_create(const struct vm_config *c, unsigned domid,
                      const struct pv_machine_ops *ops, void *arg,
                      struct pv_machine **out, struct err *e);
/* Where the guest meets others: see struct pv_peers_params. */
struct pv_meeting {
    int (*connect)(void *arg, unsigned domid);
    int listen_fd;
    void *arg;
};

/* Lets it meet others, before it runs for the first time; listen_fd is used up.  0 or -errno. */
int pv_machine_meet(struct pv_machine *m, const struct pv_meeting *with, struct err *e);

/* Every device is gone.  Stops the threads; NULL is allowed. */
void pv_machine_free(struct pv_machine *m);

#endif
