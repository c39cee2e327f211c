/* SPDX-License-Identifier: MIT */
/* The local APIC, in x2APIC mode.  Writes to it leave the VM, so the shim makes as
 * few as it can; the end of an interrupt is mostly free, through the word that
 * KVM shares for it (KVM's MSR_KVM_PV_EOI_EN): bit 0 set there, and cleared by us,
 * stands for a write. */
#include "shim/cpu.h"
#include "shim/shim.h"

#define APIC_SPURIOUS_ENABLE 0x1ff
#define APIC_LVT_TSC_DEADLINE ((uint64_t)2 << 17)

void apic_init(struct shim_vcpu *v)
{
    uint64_t eoi_gpa = SHIM_GPA + SHIM_OFF_IMAGE + ((uint64_t)&v->eoi_word - SHIM_IMAGE_VA);

    wrmsr(MSR_X2APIC_SPURIOUS, APIC_SPURIOUS_ENABLE);
    wrmsr(MSR_X2APIC_LVT_TIMER, SHIM_VECTOR_TIMER | APIC_LVT_TSC_DEADLINE);
    wrmsr(MSR_X2APIC_TPR, 0);
    v->eoi_paravirt = !wrmsr_raw(MSR_KVM_PV_EOI, eoi_gpa | 1);
}

void apic_eoi(struct shim_vcpu *v)
{
    /* KVM sets the bit only while the VM is out, so a plain look will do first */
    if (v->eoi_paravirt && (load_relaxed(&v->eoi_word) & 1) && (fetch_and(&v->eoi_word, ~1u) & 1))
        return;
    wrmsr(MSR_X2APIC_EOI, 0);
}

void apic_ipi(unsigned vcpu, unsigned vector)
{
    shim_vcpu_current()->status->traps[SHIM_TRAP_IPI]++;
    wrmsr(MSR_X2APIC_ICR, (uint64_t)vcpu << 32 | vector);
}
