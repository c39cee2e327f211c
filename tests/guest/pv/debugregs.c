/* SPDX-License-Identifier: MIT */
/* Debug registers: what may be set, and a breakpoint that hits. */
#include "pv.h"

static volatile uint64_t word;

static void write_word(uint64_t unused)
{
    word = 1;
}

static void step(uint64_t unused)
{
    __asm__ volatile("pushf; orl $0x100, (%%rsp); popf; nop; nop" : : : "cc", "memory");
}

static int64_t set(unsigned n, uint64_t value)
{
    return PV_CALL(set_debugreg, n, value);
}

static void check_values(void)
{
    CHECK_EQ(set(0, 0x123456), 0);
    CHECK_EQ(PV_CALL(get_debugreg, 0), 0x123456);
    CHECK_EQ(set(3, 0xffff808000000000), -XEN_EPERM);       /* Xen's own */
    CHECK_EQ(set(3, 0x800000000000), -XEN_EPERM);
    CHECK_EQ(set(8, 0), -XEN_ENODEV);
    CHECK_EQ(PV_CALL(get_debugreg, 8), -XEN_ENODEV);
    CHECK_EQ(set(7, (uint64_t)1 << 32), -XEN_EINVAL);
    CHECK_EQ(set(6, (uint64_t)1 << 32), -XEN_EINVAL);
    CHECK_EQ(set(7, 0x2400), -XEN_EPERM);                   /* general detect */
    CHECK_EQ(set(7, 0x20402), -XEN_EPERM);                  /* a breakpoint on I/O */
    CHECK_EQ(set(7, 0), 0);
    CHECK_EQ(PV_CALL(get_debugreg, 7), 0x400);
    CHECK_EQ(PV_CALL(get_debugreg, 5), 0x400);              /* its other name */
    CHECK_EQ(set(6, 0), 0);
    CHECK_EQ(PV_CALL(get_debugreg, 6) & 0xf, 0);
}

void test_main(void)
{
    uint64_t dr7;

    check_values();
    CHECK_EQ(set(0, (uint64_t)&word), 0);
    CHECK_EQ(set(7, 0x90402), 0);       /* register 0: 8 bytes, when written */
    CHECK_EQ(pv_catch(write_word, 0), 1);
    CHECK_EQ(PV_CALL(get_debugreg, 6) & 1, 1);
    CHECK_EQ(pv_catch(step, 0), 1);
    CHECK_EQ(PV_CALL(get_debugreg, 6) & 0x4001, 0x4001);    /* until it is cleared */
    CHECK_EQ(set(6, 0), 0);
    CHECK_EQ(PV_CALL(get_debugreg, 6) & 0x4001, 0);
    CHECK_EQ(set(7, 0), 0);
    CHECK_EQ(pv_catch(write_word, 0), -1);
    /* the instruction does what the hypercall does */
    __asm__ volatile("mov %0, %%db7; mov %%db7, %0" : "=r"(dr7) : "0"((uint64_t)0));
    CHECK_EQ(dr7, 0x400);
}
