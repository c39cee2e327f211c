/* SPDX-License-Identifier: MIT */
/* One virtual processor: its state, and the loop that runs it.
 *
 * A vCPU belongs to one thread at a time: the one that created it, then the one
 * in kvm_vcpu_run().  Other threads may only call kvm_vcpu_request(),
 * kvm_vcpu_id() and kvm_vcpu_exit_counts(); while the vCPU is parked by
 * kvm_vcpu_threads_pause(), the thread that paused it may use everything. */
#ifndef XENOLITH_KVM_VCPU_H
#define XENOLITH_KVM_VCPU_H

#include <linux/kvm.h>
#include <pthread.h>

#include "base/err.h"
#include "base/types.h"
#include "kvm/vm.h"

struct kvm_vcpu;

/* id is also the initial APIC id; below nr_vcpus of the VM.  The new vCPU is in
 * the state KVM gives it at reset.  0 or -errno. */
int kvm_vcpu_create(struct kvm_vm *vm, unsigned id, struct kvm_vcpu **out, struct err *e);
/* It must not run.  NULL is allowed. */
void kvm_vcpu_free(struct kvm_vcpu *v);
unsigned kvm_vcpu_id(const struct kvm_vcpu *v);

/* State.  All return 0 or -errno.  CPUID comes first: it decides which bits of
 * the others KVM accepts. */
int kvm_vcpu_set_cpuid(struct kvm_vcpu *v, const struct kvm_cpuid_leaf *leaves,
                       unsigned nr_leaves);
int kvm_vcpu_get_regs(struct kvm_vcpu *v, struct kvm_regs *regs);
int kvm_vcpu_set_regs(struct kvm_vcpu *v, const struct kvm_regs *regs);
int kvm_vcpu_get_sregs(struct kvm_vcpu *v, struct kvm_sregs *sregs);
int kvm_vcpu_set_sregs(struct kvm_vcpu *v, const struct kvm_sregs *sregs);
int kvm_vcpu_set_xcr0(struct kvm_vcpu *v, uint64_t xcr0);
/* -ENOENT when KVM knows no such register or refuses the value. */
int kvm_vcpu_get_msr(struct kvm_vcpu *v, uint32_t index, uint64_t *value);
int kvm_vcpu_set_msr(struct kvm_vcpu *v, uint32_t index, uint64_t value);
/* Lets a vCPU other than 0 run from its registers instead of waiting for INIT
 * and SIPI. */
int kvm_vcpu_set_runnable(struct kvm_vcpu *v);
/* Rate of the guest's TSC, kHz. */
int kvm_vcpu_get_tsc_khz(struct kvm_vcpu *v, uint32_t *khz);

/* Registers and the code at rip, some lines of text without a final newline, for
 * a person who wants to know where a guest is.  Returns buf. */
const char *kvm_vcpu_describe(struct kvm_vcpu *v, char *buf, size_t size);

enum kvm_next {
    KVM_NEXT_RUN,           /* go on */
    KVM_NEXT_LEAVE,         /* return from kvm_vcpu_run(); this vCPU runs no more */
};

/* What the guest's exits mean; all three must be there.  Called on the vCPU's
 * thread. */
struct kvm_exit_ops {
    /* One port write that no ioeventfd took; size 1, 2 or 4 bytes. */
    enum kvm_next (*io_out)(void *arg, struct kvm_vcpu *v, uint16_t port,
                            unsigned size_bytes, uint32_t data);
    /* One port read. */
    uint32_t (*io_in)(void *arg, struct kvm_vcpu *v, uint16_t port, unsigned size_bytes);
    /* This vCPU can run no more: triple fault, access to an address with nothing
     * behind it, a refusal of KVM.  text is some lines, valid during the call:
     * the first says what happened, the rest is kvm_vcpu_describe(). */
    void (*failure)(void *arg, struct kvm_vcpu *v, const char *text);
};

enum kvm_left {
    KVM_LEFT_REQUEST,       /* a request is pending; state is complete, may go on */
    KVM_LEFT_HANDLER,       /* KVM_NEXT_LEAVE */
    KVM_LEFT_FAILURE,       /* failure() has been called */
};

/* Runs the guest until one of the above. */
enum kvm_left kvm_vcpu_run(struct kvm_vcpu *v, const struct kvm_exit_ops *ops, void *arg);

/* Requests are a word of bits the loop only tests for being non-zero; what they
 * mean is up to those who set and clear them.  kvm_vcpu_request() sets bits and
 * makes kvm_vcpu_run(), if thread is or will be in it, return soon.  thread must
 * exist and have KVM_KICK_SIGNAL unblocked and handled (kvm_vcpu_threads_start()
 * sees to it). */
void kvm_vcpu_request(struct kvm_vcpu *v, pthread_t thread, uint32_t bits);
void kvm_vcpu_request_clear(struct kvm_vcpu *v, uint32_t bits);
uint32_t kvm_vcpu_requests(const struct kvm_vcpu *v);

#define KVM_KICK_SIGNAL SIGRTMIN

/* Returns to user space since creation, by reason. */
struct kvm_exit_counts {
    uint64_t io_out, io_in, mmio, signal, other;
};
void kvm_vcpu_exit_counts(const struct kvm_vcpu *v, struct kvm_exit_counts *out);

#endif
