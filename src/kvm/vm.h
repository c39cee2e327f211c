/* SPDX-License-Identifier: MIT */
/* A KVM virtual machine: memory, interrupt routes, doorbells.  There is a LAPIC
 * per vCPU and no other interrupt controller (no PIC, IOAPIC, PIT): interrupts
 * are messages to LAPICs.  A process may have any number of VMs.
 *
 * Functions here are for the control plane; they take locks and are slow.  Any
 * thread may call them, but kvm_vm_free() only when nobody else does. */
#ifndef XENOLITH_KVM_VM_H
#define XENOLITH_KVM_VM_H

#include "base/err.h"
#include "base/types.h"
#include "mem/guest_mem.h"

struct kvm_vm;

/* Guest-physical space KVM keeps for itself on some Intel processors. */
#define KVM_VM_OWN_BYTES (4 * PAGE_SIZE)

struct kvm_vm_params {
    const struct guest_mem *mem;    /* all its regions; must outlive the VM */
    gpa_t own;                      /* KVM_VM_OWN_BYTES below 4 GiB clear of mem */
    unsigned nr_vcpus;              /* vCPU ids are below this */
};

/* 0 or -errno with e filled and nothing left open. */
int kvm_vm_create(const struct kvm_vm_params *p, struct kvm_vm **out, struct err *e);

/* Shows bytes of the process's memory at host, whole pages, at base, clear of all other memory.
 * What is mapped there may change at any time, and the guest's view follows.  Where nothing is
 * mapped, or for a write to what is readonly, the vCPU fails.  host must stay until the VM is
 * gone.  Before any vCPU runs.  0 or -errno. */
int kvm_vm_show(struct kvm_vm *vm, gpa_t base, void *host, uint64_t bytes, bool readonly,
                struct err *e);

/* The vCPUs must have been freed before.  NULL is allowed. */
void kvm_vm_free(struct kvm_vm *vm);

/* A global system interrupt: a number that stands for "raise vector on the LAPIC
 * with this id", fixed delivery, edge, physical x2APIC destination. */
struct kvm_irq_route {
    uint32_t gsi;
    uint32_t apic_id;
    uint8_t vector;                 /* 16 to 255 */
};

/* Sets or replaces the routes of these gsis in one step; on failure all routes
 * are as before.  KVM waits for every vCPU here, so set many at once.  0;
 * -EINVAL for a vector below 16, a gsi or an apic_id KVM cannot express. */
int kvm_irq_routes_set(struct kvm_vm *vm, const struct kvm_irq_route *routes, unsigned nr_routes);
int kvm_irq_route_set(struct kvm_vm *vm, uint32_t gsi, uint32_t apic_id, uint8_t vector);

/* Each write to eventfd fd raises gsi (which may get its route later).  fd stays
 * the caller's; remove it before closing it.  0 or -errno. */
int kvm_irqfd_add(struct kvm_vm *vm, int fd, uint32_t gsi);
int kvm_irqfd_remove(struct kvm_vm *vm, int fd, uint32_t gsi);

/* A 4-byte write of value to I/O port port signals eventfd fd, in place of an
 * exit to user space.  fd as above.  0; -EEXIST when port and value are taken. */
int kvm_ioeventfd_add(struct kvm_vm *vm, int fd, uint16_t port, uint32_t value);
int kvm_ioeventfd_remove(struct kvm_vm *vm, int fd, uint16_t port, uint32_t value);

/* CPUID as KVM_GET_SUPPORTED_CPUID and KVM_SET_CPUID2 know it. */
struct kvm_cpuid_leaf {
    uint32_t function, index, flags;    /* flags: KVM_CPUID_FLAG_* of linux/kvm.h */
    uint32_t eax, ebx, ecx, edx;
};

/* What processor and KVM can offer a guest.  Most kernels leave out the
 * TSC-deadline bit (leaf 1, ecx bit 24), which every VM here has, and fields that
 * differ by vCPU (APIC ids) hold those of the host CPU that was asked.
 * The caller frees *leaves with free().  0 or -errno. */
int kvm_vm_supported_cpuid(const struct kvm_vm *vm, struct kvm_cpuid_leaf **leaves,
                           unsigned *nr_leaves, struct err *e);

#endif
