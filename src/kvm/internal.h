/* SPDX-License-Identifier: MIT */
/* What the files of this room share and nobody else sees. */
#ifndef XENOLITH_KVM_INTERNAL_H
#define XENOLITH_KVM_INTERNAL_H

#include <linux/kvm.h>
#include <pthread.h>

#include "kvm/vcpu.h"
#include "kvm/vm.h"

struct kvm_vm {
    int kvm_fd;                         /* /dev/kvm */
    int fd;
    const struct guest_mem *mem;
    unsigned nr_vcpus;
    uint32_t nr_slots;                  /* of memory, in use */
    uint32_t apic_id_max;               /* largest destination of an interrupt */
    uint32_t nr_gsis;
    size_t run_bytes;                   /* of struct kvm_run and what follows it */
    pthread_mutex_t routes_lock;        /* routes, and their order of arrival in KVM */
    struct kvm_irq_routing *routes;     /* as last accepted by KVM; NULL: none */
};

struct kvm_vcpu {
    struct kvm_vm *vm;
    unsigned id;
    int fd;
    struct kvm_run *run;                /* shared with KVM */
    uint32_t request;                   /* written by any thread */
    /* Written by the vCPU's thread alone, read by any. */
    struct kvm_exit_counts counts cacheline_aligned;
};

/* Names of the capabilities needed here that the KVM behind kvm_fd does not have.
 * Returns how many were put in missing[], at most max. */
unsigned kvm_capabilities_missing(int kvm_fd, const char *missing[], unsigned max);

/* Why KVM_RUN came back with something no handler exists for, one line and
 * kvm_vcpu_describe(), to buf.  run_errno: of a failed KVM_RUN, else 0. */
void kvm_vcpu_describe_failure(struct kvm_vcpu *v, int run_errno, char *buf, size_t size);

#endif
