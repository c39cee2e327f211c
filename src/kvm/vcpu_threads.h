/* SPDX-License-Identifier: MIT */
/* The threads of a guest's vCPUs, one each, started, parked, let go and ended
 * together.  All functions are for one controlling thread, which is not a vCPU's
 * (an exit handler that wants a pause tells the controlling thread). */
#ifndef XENOLITH_KVM_VCPU_THREADS_H
#define XENOLITH_KVM_VCPU_THREADS_H

#include "base/err.h"
#include "base/types.h"
#include "kvm/vcpu.h"

struct kvm_vcpu_threads;

/* Starts a thread named "vcpu ID" for each of the nr vCPUs, parked: no guest code
 * runs before kvm_vcpu_threads_resume().  The vCPUs and ops stay the caller's and
 * must outlive the threads.  All signals but KVM_KICK_SIGNAL are blocked in the
 * threads; their stacks are KVM_VCPU_STACK_BYTES.  0 or -errno, then no thread
 * remains. */
int kvm_vcpu_threads_start(struct kvm_vcpu *const vcpus[], unsigned nr,
                           const struct kvm_exit_ops *ops, void *arg,
                           struct kvm_vcpu_threads **out, struct err *e);

#define KVM_VCPU_STACK_BYTES (128 * KIB)

/* Returns when no vCPU runs guest code and no handler is being called; so no
 * handler may wait for the controlling thread. */
void kvm_vcpu_threads_pause(struct kvm_vcpu_threads *t);
/* Lets all vCPUs go on, except those that left for good (KVM_NEXT_LEAVE, failure). */
void kvm_vcpu_threads_resume(struct kvm_vcpu_threads *t);
/* Ends and joins all threads, frees t.  NULL is allowed. */
void kvm_vcpu_threads_stop(struct kvm_vcpu_threads *t);

/* Processors of the host that the threads run on, in the order of vcpus[]: each points to
 * a word that the kernel keeps, to be read relaxed; NULL: not known.  All are there and
 * valid until kvm_vcpu_threads_stop(). */
const uint32_t *const *kvm_vcpu_threads_cpus(const struct kvm_vcpu_threads *t);

/* CPU time used by vCPU thread i (its place in vcpus[]), ns. */
uint64_t kvm_vcpu_threads_cpu_time_ns(const struct kvm_vcpu_threads *t, unsigned i);

#endif
