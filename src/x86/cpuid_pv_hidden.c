/* SPDX-License-Identifier: MIT */
#include "x86/cpuid_pv.h"

#include <xen/arch-x86/cpufeatureset.h>

#define KERNEL(f, why) { XEN_X86_FEATURE_##f, CPUID_PV_HIDE_KERNEL, #f, why }
#define ALL(f, why)    { XEN_X86_FEATURE_##f, CPUID_PV_HIDE_ALL, #f, why }
/* Features newer than the header */
#define ALL_BIT(name, word, bit, why)    { (word) * 32 + (bit), CPUID_PV_HIDE_ALL, name, why }
#define KERNEL_BIT(name, word, bit, why) { (word) * 32 + (bit), CPUID_PV_HIDE_KERNEL, name, why }

#define WHY_PAGES    "PV page tables map pages of 4 KiB, no larger ones"
#define WHY_CR4      "its bit of CR4 is the hypervisor's"
#define WHY_MCE      "machine checks are the host's"
#define WHY_TYPES    "memory types are the hypervisor's"
#define WHY_PMU      "no performance counters are offered"
#define WHY_POWER    "frequency and temperature are the host's"
#define WHY_TOPOLOGY "every vCPU is a package of its own"
#define WHY_NESTED   "nested virtualization is not offered"
#define WHY_APIC     "event channels stand in for the APIC; the shim uses it"
#define WHY_SPEC     "no MSR_SPEC_CTRL, MSR_PRED_CMD or MSR_FLUSH_CMD is offered"
#define WHY_MSR      "the MSR it announces is not offered"
#define WHY_PKEYS    "CR4.PKE is the hypervisor's, and PKRU no part of XCR0"
#define WHY_XSS      "supervisor state (XSS) is not offered"
#define WHY_STATE    "its state is no part of XCR0"
#define WHY_LONG     "does not exist in long mode"
#define WHY_IDLE     "a guest may not hold its CPU idle by itself"
#define WHY_DEFAULT  "Xen 4.17 does not offer it by default"

const struct cpuid_pv_hidden cpuid_pv_hidden[] = {
    /* leaf 1, edx */
    KERNEL(VME, WHY_LONG),
    KERNEL(PSE, WHY_PAGES),
    KERNEL(MCE, WHY_MCE),
    KERNEL(MTRR, WHY_TYPES),
    KERNEL(PGE, WHY_CR4),
    KERNEL(MCA, WHY_MCE),
    KERNEL(PSE36, WHY_PAGES),
    ALL(DS, WHY_PMU),
    KERNEL(ACPI, WHY_POWER),
    ALL(HTT, WHY_TOPOLOGY),
    KERNEL(TM1, WHY_POWER),
    KERNEL(PBE, WHY_POWER),
    /* leaf 1, ecx */
    ALL(DTES64, WHY_PMU),
    ALL(MONITOR, WHY_IDLE),
    ALL(DSCPL, WHY_PMU),
    ALL(VMX, WHY_NESTED),
    ALL(SMX, WHY_NESTED),
    KERNEL(EIST, WHY_POWER),
    KERNEL(TM2, WHY_POWER),
    KERNEL(XTPR, WHY_APIC),
    ALL(PDCM, WHY_PMU),
    KERNEL(PCID, WHY_CR4),
    KERNEL(DCA, WHY_MSR),
    KERNEL(X2APIC, WHY_APIC),
    KERNEL(TSC_DEADLINE, WHY_APIC),
    /* leaf 0x80000001, edx */
    KERNEL(PAGE1GB, WHY_PAGES),
    /* leaf 0x80000001, ecx */
    ALL(CMP_LEGACY, WHY_TOPOLOGY),
    ALL(SVM, WHY_NESTED),
    KERNEL(EXTAPIC, WHY_APIC),
    KERNEL(CR8_LEGACY, WHY_LONG),
    KERNEL(OSVW, WHY_MSR),
    ALL(IBS, WHY_PMU),
    ALL(SKINIT, WHY_NESTED),
    ALL(WDT, WHY_MSR),
    ALL(LWP, WHY_STATE),
    ALL(NODEID_MSR, WHY_TOPOLOGY),
    ALL(TOPOEXT, WHY_TOPOLOGY),
    ALL_BIT("PERFCTR_CORE", 3, 23, WHY_PMU),
    ALL_BIT("PERFCTR_NB", 3, 24, WHY_PMU),
    KERNEL(DBEXT, WHY_MSR),
    ALL_BIT("PERFCTR_LLC", 3, 28, WHY_PMU),
    ALL(MONITORX, WHY_IDLE),
    /* leaf 0xd:1, eax */
    ALL(XSAVES, WHY_XSS),
    ALL_BIT("XFD", 4, 4, WHY_STATE),
    /* leaf 7:0, ebx */
    KERNEL(TSC_ADJUST, WHY_MSR),
    ALL(SGX, WHY_NESTED),
    KERNEL(HLE, WHY_DEFAULT),
    KERNEL(SMEP, WHY_CR4),
    KERNEL(INVPCID, WHY_CR4),
    ALL(PQM, WHY_MSR),
    ALL(MPX, WHY_STATE),
    ALL(PQE, WHY_MSR),
    KERNEL(SMAP, WHY_CR4),
    ALL(PROC_TRACE, WHY_PMU),
    /* leaf 7:0, ecx */
    KERNEL(UMIP, WHY_CR4),
    ALL(PKU, WHY_PKEYS),
    ALL(OSPKE, WHY_PKEYS),
    KERNEL_BIT("WAITPKG", 6, 5, WHY_IDLE),
    ALL(CET_SS, WHY_XSS),
    KERNEL_BIT("LA57", 6, 16, "PV page tables have four levels"),
    KERNEL(MOVDIRI, WHY_DEFAULT),
    KERNEL(MOVDIR64B, WHY_DEFAULT),
    ALL(ENQCMD, WHY_XSS),
    ALL_BIT("SGX_LC", 6, 30, WHY_NESTED),
    ALL_BIT("PKS", 6, 31, WHY_PKEYS),
    /* leaf 0x80000007, edx; ITSC shows when the TSC is stable */
    KERNEL(HW_PSTATE, WHY_POWER),
    KERNEL(CPB, WHY_POWER),
    KERNEL(EFRO, WHY_POWER),
    /* leaf 0x80000008, ebx */
    KERNEL(WBNOINVD, WHY_TYPES),
    KERNEL(IBPB, WHY_SPEC),
    KERNEL(IBRS, WHY_SPEC),
    KERNEL(AMD_STIBP, WHY_SPEC),
    KERNEL(IBRS_ALWAYS, WHY_SPEC),
    KERNEL(STIBP_ALWAYS, WHY_SPEC),
    KERNEL(IBRS_FAST, WHY_SPEC),
    KERNEL(IBRS_SAME_MODE, WHY_SPEC),
    KERNEL(NO_LMSL, WHY_MSR),
    ALL(AMD_PPIN, WHY_MSR),
    KERNEL(AMD_SSBD, WHY_SPEC),
    KERNEL(VIRT_SSBD, WHY_SPEC),
    KERNEL(PSFD, WHY_SPEC),
    KERNEL(IBPB_RET, WHY_SPEC),
    /* leaf 7:0, edx */
    ALL_BIT("UINTR", 9, 5, WHY_XSS),
    KERNEL(AVX512_VP2INTERSECT, WHY_DEFAULT),
    KERNEL(SRBDS_CTRL, WHY_MSR),
    KERNEL(RTM_ALWAYS_ABORT, WHY_DEFAULT),
    KERNEL(TSX_FORCE_ABORT, WHY_MSR),
    KERNEL(HYBRID, WHY_TOPOLOGY),
    KERNEL(TSXLDTRK, WHY_DEFAULT),
    ALL_BIT("ARCH_LBR", 9, 19, WHY_PMU),
    ALL(CET_IBT, WHY_XSS),
    ALL_BIT("AMX_BF16", 9, 22, WHY_STATE),
    KERNEL(AVX512_FP16, WHY_DEFAULT),
    ALL_BIT("AMX_TILE", 9, 24, WHY_STATE),
    ALL_BIT("AMX_INT8", 9, 25, WHY_STATE),
    KERNEL(IBRSB, WHY_SPEC),
    KERNEL(STIBP, WHY_SPEC),
    KERNEL(L1D_FLUSH, WHY_SPEC),
    KERNEL(ARCH_CAPS, WHY_MSR),
    KERNEL(CORE_CAPS, WHY_MSR),
    KERNEL(SSBD, WHY_SPEC),
    /* leaf 7:1, eax */
    ALL_BIT("AMX_FP16", 10, 21, WHY_STATE),
    /* leaf 0x80000021, eax */
    KERNEL(AUTO_IBRS, WHY_SPEC),
    KERNEL(SBPB, WHY_SPEC),
    KERNEL(IBPB_BRTYPE, WHY_SPEC),
    KERNEL(SRSO_MSR_FIX, WHY_MSR),
    /* leaf 7:1, ebx; leaf 7:2, edx; leaf 7:1, edx */
    ALL(INTEL_PPIN, WHY_MSR),
    KERNEL(INTEL_PSFD, WHY_SPEC),
    KERNEL(IPRED_CTRL, WHY_SPEC),
    KERNEL(RRSBA_CTRL, WHY_SPEC),
    KERNEL(BHI_CTRL, WHY_SPEC),
    ALL_BIT("AMX_COMPLEX", 15, 8, WHY_STATE),
    ALL(CET_SSS, WHY_XSS),
};

const unsigned cpuid_pv_nr_hidden = array_size(cpuid_pv_hidden);
