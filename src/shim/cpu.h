/* SPDX-License-Identifier: MIT */
/* Instructions that have no C. */
#ifndef XENOLITH_SHIM_CPU_H
#define XENOLITH_SHIM_CPU_H

#include "base/types.h"

#define MSR_IA32_TSC_DEADLINE  0x6e0
#define MSR_X2APIC_TPR         0x808
#define MSR_X2APIC_SPURIOUS    0x80f
#define MSR_X2APIC_ICR         0x830
#define MSR_X2APIC_LVT_TIMER   0x832
#define MSR_SYSENTER_CS        0x174
#define MSR_SYSENTER_ESP       0x175
#define MSR_SYSENTER_EIP       0x176
#define MSR_EFER               0xc0000080
#define MSR_STAR               0xc0000081
#define MSR_LSTAR              0xc0000082
#define MSR_CSTAR              0xc0000083
#define MSR_SYSCALL_MASK       0xc0000084
#define MSR_FS_BASE            0xc0000100
#define MSR_GS_BASE            0xc0000101
#define MSR_KERNEL_GS_BASE     0xc0000102
#define MSR_KVM_STEAL_TIME     0x4b564d03
#define MSR_KVM_PV_EOI         0x4b564d04

#define CR0_TS ((uint64_t)1 << 3)

#define RFLAGS_TF   0x000100u
#define RFLAGS_IF   0x000200u
#define RFLAGS_DF   0x000400u
#define RFLAGS_IOPL 0x003000u
#define RFLAGS_IOPL_SHIFT 12
#define RFLAGS_NT   0x004000u
#define RFLAGS_RF   0x010000u
#define RFLAGS_VM   0x020000u
#define RFLAGS_AC   0x040000u

int wrmsr_raw(uint32_t msr, uint64_t value);
int rdmsr_raw(uint32_t msr, uint64_t *value);
int wrfsbase_raw(uint64_t base);
int load_gs_raw(uint16_t selector);
uint64_t guest_copy_raw(void *to, const void *from, uint64_t bytes);
void shim_reload_cs(void);
void shim_halt(void);

static inline void wrmsr(uint32_t msr, uint64_t value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "memory");
}

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;

    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return lo | (uint64_t)hi << 32;
}

static inline uint64_t rdtsc_ordered(void)
{
    uint32_t lo, hi;

    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return lo | (uint64_t)hi << 32;
}

static inline void io_out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint32_t io_in32(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

#define CPU_CR_ACCESSORS(n) \
    static inline uint64_t read_cr##n(void) \
    { \
        uint64_t v; \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v) : : "memory"); \
        return v; \
    } \
    static inline void write_cr##n(uint64_t v) \
    { \
        __asm__ volatile("mov %0, %%cr" #n : : "r"(v) : "memory"); \
    }
CPU_CR_ACCESSORS(0)
CPU_CR_ACCESSORS(2)
CPU_CR_ACCESSORS(3)
CPU_CR_ACCESSORS(4)

static inline void invlpg(uint64_t va)
{
    __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

static inline void cpu_lldt(uint16_t selector)
{
    __asm__ volatile("lldt %0" : : "r"(selector));
}

static inline void cpu_swapgs(void)
{
    __asm__ volatile("swapgs" : : : "memory");
}

static inline void cpu_xsetbv(uint64_t value)
{
    __asm__ volatile("xsetbv" : : "c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

/* DR0 to DR3 and DR7 */
static inline void cpu_debugreg_write(unsigned n, uint64_t value)
{
    switch (n) {
    case 0:
        __asm__ volatile("mov %0, %%dr0" : : "r"(value));
        break;
    case 1:
        __asm__ volatile("mov %0, %%dr1" : : "r"(value));
        break;
    case 2:
        __asm__ volatile("mov %0, %%dr2" : : "r"(value));
        break;
    case 3:
        __asm__ volatile("mov %0, %%dr3" : : "r"(value));
        break;
    default:
        __asm__ volatile("mov %0, %%dr7" : : "r"(value));
        break;
    }
}

static inline void cpu_cpuid_leave(void)
{
    uint32_t leaf = 0, index = 0;

    __asm__ volatile("cpuid" : "+a"(leaf), "+c"(index) : : "rbx", "rdx", "memory");
}

static inline void cpu_clts(void)
{
    __asm__ volatile("clts" : : : "memory");
}

/* Serves what is waiting at the LAPIC, without sleeping. */
static inline void cpu_interrupt_window(void)
{
    __asm__ volatile("sti; nop; cli" : : : "memory");
}

/* 48-bit canonical */
static inline bool va_canonical(uint64_t va)
{
    return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

/* a * b / c, the quotient fitting 64 bits */
static inline uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t lo, hi;

    __asm__("mulq %3; divq %4" : "=&a"(lo), "=&d"(hi) : "0"(a), "r"(b), "r"(c) : "cc");
    return lo;
}

#endif
