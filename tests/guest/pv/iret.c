/* SPDX-License-Identifier: MIT */
/* HYPERVISOR_iret: to user space and to the kernel itself, with every register or
 * as from a system call, and with selectors and addresses that are none. */
#include "pv.h"

extern uint8_t user_spin[], user_dump[];
__asm__(".pushsection .user, \"ax\"\n"
        "user_dump: ud2\n"
        ".popsection");

static struct iret_context wanted;

static void go(uint64_t unused)
{
    pv_iret_user(&wanted);
}

static void go_by_multicall(uint64_t entries)
{
    __asm__ volatile("mov %0, %%rsp; syscall; ud2"
                     : : "r"(&wanted), "a"(__HYPERVISOR_multicall), "D"(entries), "S"(2)
                     : "memory");
    __builtin_unreachable();
}

static struct iret_context user_context(void)
{
    return (struct iret_context){
        .rax = 0x1, .r11 = 0x2, .rcx = 0x3, .rip = PV_USER_ADDRESS(user_dump),
        .cs = FLAT_USER_CS, .rflags = RFLAGS_IF | 0xc5, .rsp = PV_USER_STACK_END,
        .ss = FLAT_USER_SS,
    };
}

static void check_user(void)
{
    wanted = user_context();
    *pv_event_mask() = 1;
    CHECK_EQ(pv_catch(go, 0), 6);
    CHECK_EQ(pv_caught.rax, 1);
    CHECK_EQ(pv_caught.r11, 2);
    CHECK_EQ(pv_caught.rcx, 3);
    CHECK_EQ(pv_caught.rip, wanted.rip);
    CHECK_EQ(pv_caught.rflags & 0x2d5, 0x2c5);
    CHECK_EQ(pv_caught.rsp, wanted.rsp);
    CHECK_EQ(pv_caught.cs, FLAT_USER_CS);       /* and events are not masked */
    CHECK_EQ(pv_caught_mask, 0);
    /* IF says whether events are masked, IOPL does not pass */
    wanted.rflags = 0x3002;
    CHECK_EQ(pv_catch(go, 0), 6);
    CHECK_EQ(pv_caught.cs, FLAT_USER_CS | (uint64_t)1 << 32);
    CHECK_EQ(pv_caught.rflags & 0x3200, 0);
}

static void check_in_syscall(void)
{
    wanted = user_context();
    wanted.flags = VGCF_in_syscall;
    CHECK_EQ(pv_catch(go, 0), 6);
    CHECK_EQ(pv_caught.rax, 1);
    CHECK_EQ(pv_caught.rcx, wanted.rip);
    CHECK_EQ(pv_caught.r11 & 0xc5, 0xc5);
    CHECK_EQ(pv_caught.rip, wanted.rip);
    CHECK_EQ(pv_caught.cs, FLAT_USER_CS);
    CHECK_EQ(pv_caught.ss, FLAT_USER_SS);
}

/* One step after a return as from a system call: the trap comes after the first
 * instruction, or before it, but comes. */
static void check_single_step(uint64_t flags)
{
    wanted = user_context();
    wanted.flags = flags;
    wanted.rflags |= RFLAGS_TF;
    wanted.rip = PV_USER_ADDRESS(user_spin);
    CHECK_EQ(pv_catch(go, 0), 1);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(user_spin) + 1);
    CHECK_EQ(pv_caught.rflags & RFLAGS_TF, RFLAGS_TF);
}
__asm__(".pushsection .user, \"ax\"; user_spin: nop; nop; nop; ud2; .popsection");

extern uint8_t kernel_landing[];
__asm__(".pushsection .text; kernel_landing: ud2; .popsection");

static void check_kernel(void)
{
    uint64_t rsp = (uint64_t)pv_page() + PAGE_SIZE;

    wanted = user_context();
    wanted.rip = (uint64_t)kernel_landing;
    wanted.rsp = rsp;
    for (unsigned rpl = 0; rpl < 3; rpl++) {
        wanted.cs = (FLAT_KERNEL_CS & ~3u) | rpl;
        CHECK_EQ(pv_catch(go, 0), 6);
        CHECK_EQ(pv_caught.rip, wanted.rip);
        CHECK_EQ(pv_caught.rsp, rsp);
        CHECK_EQ(pv_caught.cs & 0xffff, FLAT_KERNEL_CS & ~3);
        CHECK_EQ(pv_caught.rcx, 3);
    }
}

/* The fault comes where the iret asked to go on, and not to the failsafe callback. */
static void check_fault(const char *what, uint64_t error)
{
    int vector = pv_catch(go, 0);

    if (vector != 13 || pv_caught.error != error)
        pv_fail(__FILE__, __LINE__, "%s: vector %x, error %lx", what, vector, pv_caught.error);
    CHECK_EQ(pv_caught.rip, wanted.rip);
    CHECK_EQ(pv_caught.rsp, wanted.rsp);
    CHECK_EQ(pv_caught.cs & 0xffff & ~(uint64_t)3, wanted.cs & ~(uint64_t)3);
    CHECK_EQ(pv_caught.frame_rcx, 3);
    CHECK_EQ(pv_caught.frame_r11, 2);
}

static void check_bad(void)
{
    wanted = user_context();
    wanted.cs = 0x7fff;
    check_fault("user, code selector beyond the table", 0x7ffc);
    wanted.cs = 3;
    check_fault("user, null code selector", 0);
    wanted.cs = 0xe00b;
    check_fault("user, Xen's code selector", 0xe008);
    wanted.cs = FLAT_USER_SS;
    check_fault("user, data as code", FLAT_USER_SS & ~3);
    wanted = user_context();
    wanted.ss = 0x7fff;
    check_fault("user, stack selector beyond the table", 0x7ffc);
    wanted.ss = FLAT_USER_CS;
    check_fault("user, code as stack", FLAT_USER_CS & ~3);
}

/* Processors differ in whether IRET itself faults or the first fetch after it. */
static void check_no_address(uint64_t flags)
{
    wanted = user_context();
    wanted.rip = 0x800000000000;
    wanted.flags = flags;
    CHECK_EQ(pv_catch(go, 0), 13);
    CHECK_EQ(pv_caught.error, 0);
    CHECK_EQ(pv_caught.rip, wanted.rip);
    CHECK_EQ(pv_caught.cs & 0xffff, FLAT_USER_CS);
}

/* An iret in a multicall is the last that is done of it. */
static void check_multicall(void)
{
    static struct multicall_entry e[2] = {
        { .op = __HYPERVISOR_iret }, { .op = __HYPERVISOR_xen_version, .result = 77 },
    };

    wanted = user_context();
    CHECK_EQ(pv_catch(go_by_multicall, (uint64_t)e), 6);
    CHECK_EQ(pv_caught.rip, wanted.rip);
    CHECK_EQ(pv_caught.rax, 1);
    CHECK_EQ(e[1].result, 77);
}

void test_main(void)
{
    pv_user_init();
    check_user();
    check_in_syscall();
    check_single_step(0);
    check_single_step(VGCF_in_syscall);
    check_kernel();
    check_bad();
    check_no_address(0);
    check_no_address(VGCF_in_syscall);
    check_multicall();
}
