/* SPDX-License-Identifier: MIT */
/* What CPUID tells a PV guest, as pure functions of what processor and KVM can
 * offer.  Two tables come of it.  The hardware table is for KVM_SET_CPUID2: the
 * shim lives by it, and a CPUID instruction in guest user space shows it, for
 * KVM cannot tell who asks.  The kernel table is what the shim answers when the
 * guest kernel asks in Xen's way (forced emulation prefix, or CPUID faulting):
 * Xen's own leaves, and processor features less those that need what only a
 * hypervisor has. */
#ifndef XENOLITH_X86_CPUID_PV_H
#define XENOLITH_X86_CPUID_PV_H

#include "base/err.h"
#include "base/types.h"

/* Laid out as struct kvm_cpuid_entry2 begins. */
struct x86_cpuid_entry {
    uint32_t function, index, flags;
    uint32_t eax, ebx, ecx, edx;
};
#define X86_CPUID_INDEXED 1u    /* flags: ecx selects; KVM_CPUID_FLAG_SIGNIFCANT_INDEX */

#define X86_CPUID_ENTRIES_MAX 96

struct x86_cpuid_table {
    unsigned nr;
    struct x86_cpuid_entry entry[X86_CPUID_ENTRIES_MAX];
};

struct cpuid_pv_params {
    const struct x86_cpuid_entry *supported;    /* KVM_GET_SUPPORTED_CPUID */
    unsigned nr_supported;
    bool tsc_deadline;      /* KVM_CAP_TSC_DEADLINE_TIMER, which KVM keeps out of CPUID */
    bool tsc_stable;        /* guest TSCs agree and keep their rate for the life of the guest */
    uint32_t tsc_khz;       /* guest TSC */
    uint32_t xen_version;   /* major << 16 | minor */
};

/* Fills both tables for vCPU 0.  0; -ENOTSUP: the processor lacks something a PV
 * guest or the shim cannot do without; -E2BIG: it has more than the tables hold. */
int cpuid_pv_tables(const struct cpuid_pv_params *p, struct x86_cpuid_table *hardware,
                    struct x86_cpuid_table *kernel, struct err *e);

/* Makes either table that of the vCPU with this APIC id. */
void cpuid_pv_set_apic_id(struct x86_cpuid_table *t, uint32_t apic_id);

/* XCR0 that every vCPU is to have, from the first instruction on; 0: without
 * XSAVE.  The state components of the tables are these. */
uint64_t cpuid_pv_xcr0(const struct x86_cpuid_entry *supported, unsigned nr_supported);

/* Bytes of an XSAVE area (compacted: of an XSAVEC area) for these components, by
 * the sub-leaves of leaf 0xd. */
uint32_t x86_xsave_bytes(const struct x86_cpuid_entry *entries, unsigned nr, uint64_t xcr0,
                         bool compacted);

/* NULL when there is no such leaf.  index is ignored for leaves without sub-leaves. */
const struct x86_cpuid_entry *x86_cpuid_find(const struct x86_cpuid_entry *entries, unsigned nr,
                                             uint32_t function, uint32_t index);

/* Nanoseconds of a TSC interval as Xen counts them (struct vcpu_time_info):
 * ((ticks << shift) * mul) >> 32, a negative shift going right.  khz is not 0. */
void x86_tsc_scale(uint32_t khz, uint32_t *mul, int8_t *shift);

/* Features are numbered as in xen/arch-x86/cpufeatureset.h: word * 32 + bit. */
#define X86_FEATURE_WORDS 19

enum cpuid_pv_scope {
    CPUID_PV_HIDE_KERNEL,   /* from the kernel table only */
    CPUID_PV_HIDE_ALL,      /* from both */
};

struct cpuid_pv_hidden {
    unsigned feature;
    enum cpuid_pv_scope scope;
    const char *name;
    const char *why;
};

/* The policy, row by row.  Bits that cpufeatureset.h does not know are hidden
 * from the kernel without a row. */
extern const struct cpuid_pv_hidden cpuid_pv_hidden[];
extern const unsigned cpuid_pv_nr_hidden;

#endif
