/* SPDX-License-Identifier: MIT */
/* What a kernel may turn on, where there is such a processor: instructions for segment
 * bases, CPUID that faults in user mode. */
#include "pv.h"

static uint64_t cr4(void)
{
    uint64_t v;

    __asm__ volatile("mov %%cr4, %0" : "=r"(v));
    return v;
}

static void cr4_write(uint64_t v)
{
    __asm__ volatile("mov %0, %%cr4" : : "r"(v));
}

static void fs_base_read(uint64_t unused)
{
    uint64_t v;

    __asm__ volatile("rdfsbase %0" : "=r"(v));
    CHECK_EQ(v, pv_rdmsr(0xc0000100));
}

static void fs_base_write(uint64_t v)
{
    __asm__ volatile("wrfsbase %0" : : "r"(v));
}

/* The instructions for bases work while CR4 says so, and only where CPUID does. */
static void check_bases(void)
{
    const uint64_t fsgsbase = 1 << 16;
    uint32_t r[4];

    CHECK_EQ(cr4() & fsgsbase, 0);
    CHECK_EQ(pv_catch(fs_base_read, 0), 6);
    pv_cpuid(7, r);
    cr4_write(cr4() | fsgsbase);
    if (!(r[1] & 1)) {
        CHECK_EQ(cr4() & fsgsbase, 0);
        return;
    }
    CHECK_EQ(cr4() & fsgsbase, fsgsbase);
    CHECK_EQ(pv_catch(fs_base_read, 0), -1);
    CHECK_EQ(pv_catch(fs_base_write, 0xffff800000001000), -1);
    CHECK_EQ(pv_rdmsr(0xc0000100), 0xffff800000001000);
    CHECK_EQ(pv_catch(fs_base_write, 0x800000000000), 13);
    CHECK_EQ(pv_catch(fs_base_write, 0), -1);
    cr4_write(cr4() & ~fsgsbase);
    CHECK_EQ(cr4() & fsgsbase, 0);
    CHECK_EQ(pv_catch(fs_base_read, 0), 6);
}

static void cpuid_native(uint64_t unused)
{
    uint32_t a = 0x40000000, b, c = 0, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    CHECK_EQ(b, 0x566e6558);        /* XenV... */
}

extern uint8_t user_cpuid[], user_forced[];
__asm__(".pushsection .user, \"ax\"\n"
        "user_cpuid: mov $1, %eax; xor %ecx, %ecx; 1: cpuid; ud2\n"
        "user_forced: mov $1, %eax; xor %ecx, %ecx; ud2a; .ascii \"xen\"; cpuid; ud2\n"
        ".popsection");

/* CPUID in user mode faults when the kernel wants it to, whatever form it has. */
static void check_cpuid_faulting(void)
{
    uint32_t r[4];

    CHECK_EQ(pv_user_run(user_cpuid, 0), 6);
    CHECK_EQ(pv_user_run(user_forced, 0), 6);
    if (!(pv_rdmsr(0xce) >> 31 & 1))
        return;
    CHECK_EQ(pv_rdmsr(0x140), 0);
    pv_wrmsr(0x140, 1);
    CHECK_EQ(pv_rdmsr(0x140), 1);
    CHECK_EQ(pv_user_run(user_cpuid, 0), 13);
    CHECK_EQ(pv_caught.error, 0);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_cpuid) + 7);
    CHECK_EQ(pv_user_run(user_forced, 0), 13);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_forced) + 7 + 5);
    CHECK_EQ(pv_catch(cpuid_native, 0), -1);
    pv_cpuid(0x40000000, r);
    CHECK_EQ(r[1], 0x566e6558);
    pv_wrmsr(0x140, 0);
    CHECK_EQ(pv_user_run(user_cpuid, 0), 6);
    CHECK_EQ(pv_user_run(user_forced, 0), 6);
}

void test_main(void)
{
    pv_user_init();
    check_bases();
    check_cpuid_faulting();
}
