/* SPDX-License-Identifier: MIT */
/* The guest-physical memory of a PV guest, as shim/abi.h lays it out: RAM, the
 * shim's region with its program loaded, and the tables that grow with RAM. */
#ifndef XENOLITH_VM_PV_MEMORY_H
#define XENOLITH_VM_PV_MEMORY_H

#include "base/err.h"
#include "mem/guest_mem.h"
#include "shim/abi.h"
#include "vm/pv_links.h"

struct pv_memory {
    struct guest_mem *mem;
    uint8_t *ram;               /* host address of RAM's first byte */
    int ram_fd;
    uint64_t ram_bytes;
    struct shim_boot *boot;
    struct shim_status *status;
    struct pv_links_shared shared;
    struct gnttab_table grants; /* but for the limit, which is the guest's configuration's */
    uint64_t tail_gpa;          /* where the shim's page tables begin */
    uint64_t entry;             /* of the shim */
};

/* How ring 3 may find the M2P. */
enum pv_memory_m2p {
    PV_M2P_KERNEL_RING1,    /* supervisor pages */
    PV_M2P_KERNEL_RING3,    /* user pages */
    PV_M2P_SOFTWARE_KVM,    /* user pages, and the alias: shim/abi.h */
};

/* Adds the regions to mem: max_pages frames of RAM, of which the guest starts with
 * nr_pages, and what the shim needs for them.  0 or -errno; mem stays the caller's to
 * free. */
int pv_memory_create(struct guest_mem *mem, uint64_t nr_pages, uint64_t max_pages,
                     struct pv_memory *out, struct err *e);

/* Fills what is the shim's.  boot gets everything that follows from memory alone; the
 * rest is the caller's.  0 or -errno. */
int pv_memory_fill(struct pv_memory *m, enum pv_memory_m2p m2p, struct err *e);

/* The record vCPU i writes; i < SHIM_VCPUS_MAX. */
struct shim_vcpu_status *pv_memory_vcpu_status(const struct pv_memory *m, unsigned i);

/* Gives frame (counted from RAM's first) back to the host; out of range: nothing. */
void pv_memory_release_frame(const struct pv_memory *m, uint64_t frame);

#endif
