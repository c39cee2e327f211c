/* SPDX-License-Identifier: MIT */
/* A virtual machine for tests: 2 MiB of memory above 4 GiB, where Xenolith's
 * guests have theirs, up to two vCPUs in 64-bit mode with x2APIC, and one of the
 * programs of guest_code.S.  What the guest says arrives as reports.  These
 * functions fail the running test themselves. */
#ifndef TESTS_GUEST_KVM_MACHINE_H
#define TESTS_GUEST_KVM_MACHINE_H

#include "guest.h"
#include "kvm/vcpu.h"
#include "kvm/vcpu_threads.h"
#include "kvm/vm.h"
#include "mem/guest_mem.h"

/* A good place for KVM's own pages. */
#define OWN_PAGES 0xfffbc000

#define NR_VCPUS_MAX 2

/* A port write, or port 0: a failure, whose text is in the machine. */
struct report {
    unsigned vcpu, size_bytes;
    uint16_t port;
    uint32_t data;
};

struct machine {
    struct guest_mem mem;
    uint32_t vm_tsc_khz;                /* the VM's rate before it has vCPUs; 0: KVM's own */
    struct kvm_vm *vm;
    struct kvm_vcpu *vcpu[NR_VCPUS_MAX];
    unsigned nr_vcpus;
    struct kvm_vcpu_threads *threads;
    int pipe[2];                        /* reports, from vCPU threads to the test */
    bool quiet;                         /* chatter: check answers, report nothing */
    uint32_t asked[NR_VCPUS_MAX];       /* numbers given to the guest; its thread's */
    uint32_t nr_wrong[NR_VCPUS_MAX];    /* reports that were not the last number given */
    char failure[4096];
};

/* Fixture of cmocka: *state is a machine without memory, VM and vCPUs; teardown
 * frees what has been added. */
int machine_setup(void **state);
int machine_teardown(void **state);
struct machine *machine_new(void);
void machine_free(struct machine *m);

/* Gives m memory, a VM and vCPUs, all about to enter program. */
void machine_build(struct machine *m, unsigned nr_vcpus, const char *program);
/* Starts the vCPUs' threads and lets them go. */
void machine_start(struct machine *m);
extern const struct kvm_exit_ops machine_exit_ops;

/* The next thing the guest says; waits for it. */
struct report machine_next_report(struct machine *m);
/* It must be this one. */
void machine_expect(struct machine *m, unsigned vcpu, uint16_t port, uint32_t data);

/* The vCPU's word in shared memory. */
uint64_t *machine_word(struct machine *m, unsigned vcpu);
/* Where a label of guest_code.S is in the guest. */
uint64_t machine_address(const char *label);

bool machine_fd_readable(int fd, int timeout_ms);
void machine_sleep_us(unsigned us);

/* Prints what KVM there is; 77, the exit status of a skipped test, without one. */
int machine_kvm_status(void);

#endif
