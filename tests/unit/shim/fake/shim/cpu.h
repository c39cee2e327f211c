/* SPDX-License-Identifier: MIT */
/* The processor as far as the shim's tests need one: its registers are a struct,
 * and what the shim does to it is written down there. */
#ifndef TESTS_UNIT_SHIM_FAKE_CPU_H
#define TESTS_UNIT_SHIM_FAKE_CPU_H

#include "base/types.h"

#define MSR_FS_BASE        0xc0000100
#define MSR_GS_BASE        0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_EFER           0xc0000080
#define MSR_KVM_STEAL_TIME 0x4b564d03

#define CR0_TS ((uint64_t)1 << 3)

#define RFLAGS_TF   0x000100u
#define RFLAGS_IF   0x000200u
#define RFLAGS_IOPL 0x003000u
#define RFLAGS_IOPL_SHIFT 12
#define RFLAGS_NT   0x004000u
#define RFLAGS_RF   0x010000u
#define RFLAGS_VM   0x020000u
#define RFLAGS_AC   0x040000u

#define FAKE_OUTS_MAX 64

struct fake_cpu {
    uint64_t cr0, cr3, cr4;
    uint64_t msr[3];                    /* FS, GS, kernel GS base */
    uint64_t debugreg[8];
    uint64_t xcr0;
    uint64_t platform_info, misc_features;
    bool wrfsbase_lax;
    uint64_t steal_ns;                  /* what KVM has counted before it is asked; 0: never */
    uint16_t ldt;
    unsigned nr_swapgs, nr_invlpg, nr_flushes;
    uint64_t now_ns, tick_ns;           /* the time, and how it goes on when one looks */
    uint64_t invlpg_va;
    unsigned nr_outs;
    struct { uint16_t port; uint32_t value; } out[FAKE_OUTS_MAX];
    /* called at each write to a port, which in the VM leaves it */
    void (*on_out)(uint16_t port, uint32_t value);
    /* the reads of ports, the last port, and what each answers */
    unsigned nr_ins;
    uint16_t in_port;
    uint32_t in_value;
    /* addresses that guest_copy_raw() finds missing, and may not write */
    uintptr_t missing, missing_end, readonly, readonly_end;
};
extern struct fake_cpu fake_cpu;

uint64_t guest_copy_raw(void *to, const void *from, uint64_t bytes);
void io_out32(uint16_t port, uint32_t value);
uint32_t io_in32(uint16_t port);
void wrmsr(uint32_t msr, uint64_t value);
uint64_t rdmsr(uint32_t msr);
/* Those of CPUID faulting, which fake_cpu.platform_info may offer, and of steal time. */
int rdmsr_raw(uint32_t msr, uint64_t *value);
int wrmsr_raw(uint32_t msr, uint64_t value);
void shim_reload_cs(void);

static inline uint64_t read_cr0(void)
{
    return fake_cpu.cr0;
}

static inline void write_cr0(uint64_t v)
{
    fake_cpu.cr0 = v;
}

static inline uint64_t read_cr3(void)
{
    return fake_cpu.cr3;
}

static inline void write_cr3(uint64_t v)
{
    fake_cpu.cr3 = v;
    fake_cpu.nr_flushes++;
}

static inline uint64_t read_cr4(void)
{
    return fake_cpu.cr4;
}

/* Faults as it should, or not, like QEMU's emulator. */
static inline int wrfsbase_raw(uint64_t base)
{
    if (!(fake_cpu.cr4 & 1 << 16) || !fake_cpu.wrfsbase_lax)
        return -1;
    fake_cpu.msr[0] = base;
    return 0;
}

static inline void write_cr4(uint64_t v)
{
    fake_cpu.cr4 = v;
}

static inline void invlpg(uint64_t va)
{
    fake_cpu.nr_invlpg++;
    fake_cpu.invlpg_va = va;
}

static inline void cpu_clts(void)
{
    fake_cpu.cr0 &= ~CR0_TS;
}

static inline void cpu_lldt(uint16_t selector)
{
    fake_cpu.ldt = selector;
}

static inline void cpu_swapgs(void)
{
    fake_cpu.nr_swapgs++;
}

static inline void cpu_xsetbv(uint64_t value)
{
    fake_cpu.xcr0 = value;
}

static inline void cpu_debugreg_write(unsigned n, uint64_t value)
{
    fake_cpu.debugreg[n] = value;
}

static inline bool va_canonical(uint64_t va)
{
    return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

#endif
