/* SPDX-License-Identifier: MIT */
/* The frames in which the kernel learns of its own exceptions and of its user's:
 * every word of them. */
#include "pv.h"

#define UNMAPPED 0x123456789000ull

/* Instructions that trap, each at a label of its own, entered with rdi = arg. */
#define TRAPPING(name, code, label) \
    void name(uint64_t arg); \
    extern uint8_t label[]; \
    __asm__(".pushsection .text; .globl " #name ", " #label "\n" \
            #name ": " code "\n ret\n .popsection")

TRAPPING(do_ud, "at_ud: ud2", at_ud);
TRAPPING(do_de, "xor %ecx, %ecx; mov $1, %eax; cltd; at_de: idiv %ecx", at_de);
TRAPPING(do_bp, "int3; at_bp: nop", at_bp);
TRAPPING(do_gp_address, "mov $0x8000000000000000, %rax; at_gp_address: mov (%rax), %rax",
         at_gp_address);
TRAPPING(do_gp_selector, "mov $0x7ff8, %eax; at_gp_selector: mov %eax, %es", at_gp_selector);
TRAPPING(do_pf_read, "at_pf_read: mov (%rdi), %rax", at_pf_read);
TRAPPING(do_pf_write, "at_pf_write: mov %rax, (%rdi)", at_pf_write);
TRAPPING(do_pf_fetch, "jmp *%rdi; at_pf_fetch: nop", at_pf_fetch);
TRAPPING(do_tf, "pushf; orl $0x100, (%rsp); popf; nop; at_tf: nop", at_tf);
TRAPPING(do_ss, "mov $0x8000000000000000, %rbp; at_ss: mov (%rbp), %rax", at_ss);

/* The same from user space. */
#define USER(name, code, label) \
    extern uint8_t name[], label[]; \
    __asm__(".pushsection .user, \"ax\"; .globl " #name ", " #label "\n" \
            #name ": " code "\n ud2\n .popsection")

USER(user_ud, "user_at_ud: ud2", user_at_ud);
USER(user_pf, "user_at_pf: mov %rax, (%rdi)", user_at_pf);
USER(user_gp, "user_at_gp: hlt", user_at_gp);
USER(user_registers,
     "mov $0x1111, %eax; mov $0x2222, %ebx; mov $0x3333, %ecx; mov $0x4444, %edx;"
     "mov $0x5555, %esi; mov $0x6666, %edi; mov $0x7777, %ebp; mov $0x8888, %r8d;"
     "mov $0x9999, %r9d; mov $0xaaaa, %r10d; mov $0xbbbb, %r11d; mov $0xcccc, %r12d;"
     "mov $0xdddd, %r13d; mov $0xeeee, %r14d; mov $0xffff, %r15d; user_at_registers: ud2",
     user_at_registers);

static void check_kernel(void (*fn)(uint64_t), uint64_t arg, unsigned vector, const void *rip,
                         uint64_t error, bool rip_is_target)
{
    for (unsigned masked = 0; masked < 2; masked++) {
        *pv_event_mask() = (uint8_t)masked;
        CHECK_EQ(pv_catch(fn, arg), vector);
        CHECK_EQ(pv_caught.rip, rip_is_target ? arg : (uint64_t)rip);
        CHECK_EQ(pv_caught.error, error);
        CHECK_EQ(pv_caught.cs & 0xffff, FLAT_KERNEL_CS & ~3);
        CHECK_EQ(pv_caught.cs >> 32 & 0xff, masked);
        CHECK_EQ(pv_caught.ss & 0xffff, FLAT_KERNEL_SS);
        CHECK_EQ(pv_caught.rflags & RFLAGS_IF, masked ? 0 : RFLAGS_IF);
        CHECK_EQ(pv_caught.rflags & 0x3000, 0);
        CHECK_EQ(pv_caught.frame_rcx, pv_caught.rcx);
        CHECK_EQ(pv_caught.frame_r11, pv_caught.r11);
        CHECK_EQ(pv_caught_mask, masked);
        CHECK_EQ(*pv_event_mask(), masked);
    }
    *pv_event_mask() = 1;
}

static void check_user(const void *fn, uint64_t arg, unsigned vector, const void *rip,
                       uint64_t error)
{
    CHECK_EQ(pv_user_run(fn, arg), vector);
    CHECK_EQ(pv_caught.rip, PV_USER_ADDRESS(rip));
    CHECK_EQ(pv_caught.error, error);
    CHECK_EQ(pv_caught.cs & 0xffff, FLAT_USER_CS);
    CHECK_EQ(pv_caught.cs >> 32 & 0xff, 0);
    CHECK_EQ(pv_caught.ss & 0xffff, FLAT_USER_SS);
    CHECK_EQ(pv_caught.rsp, PV_USER_STACK_END);
    CHECK_EQ(pv_caught.rflags & RFLAGS_IF, RFLAGS_IF);
}

static void check_user_registers(void)
{
    const struct pv_regs *r = &pv_caught;

    check_user(user_registers, 0, 6, user_at_registers, 0);
    CHECK_EQ(r->rax, 0x1111);
    CHECK_EQ(r->rbx, 0x2222);
    CHECK_EQ(r->rcx, 0x3333);
    CHECK_EQ(r->rdx, 0x4444);
    CHECK_EQ(r->rsi, 0x5555);
    CHECK_EQ(r->rdi, 0x6666);
    CHECK_EQ(r->rbp, 0x7777);
    CHECK_EQ(r->r8, 0x8888);
    CHECK_EQ(r->r9, 0x9999);
    CHECK_EQ(r->r10, 0xaaaa);
    CHECK_EQ(r->r11, 0xbbbb);
    CHECK_EQ(r->r12, 0xcccc);
    CHECK_EQ(r->r13, 0xdddd);
    CHECK_EQ(r->r14, 0xeeee);
    CHECK_EQ(r->r15, 0xffff);
    CHECK_EQ(r->frame_rcx, 0x3333);
    CHECK_EQ(r->frame_r11, 0xbbbb);
}

void test_main(void)
{
    uint8_t *page = pv_page();

    if (*(const char *)pv_start_info->cmd_line) {   /* "stack-fault" */
        check_kernel(do_ss, 0, 12, at_ss, 0, false);
        return;
    }
    check_kernel(do_ud, 0, 6, at_ud, 0, false);
    check_kernel(do_de, 0, 0, at_de, 0, false);
    check_kernel(do_bp, 0, 3, at_bp, 0, false);
    check_kernel(do_gp_address, 0, 13, at_gp_address, 0, false);
    check_kernel(do_gp_selector, 0, 13, at_gp_selector, 0x7ff8, false);
    check_kernel(do_tf, 0, 1, at_tf, 0, false);
    check_kernel(do_pf_read, UNMAPPED, 14, at_pf_read, 0, false);
    CHECK_EQ(pv_shared->vcpu_info[0].arch.cr2, UNMAPPED);
    check_kernel(do_pf_write, UNMAPPED + 8, 14, at_pf_write, 2, false);
    CHECK_EQ(pv_shared->vcpu_info[0].arch.cr2, UNMAPPED + 8);
    CHECK_EQ(pv_protect(page, PTE_P | PTE_U | PTE_NX), 0);
    check_kernel(do_pf_write, (uint64_t)page, 14, at_pf_write, 3, false);
    check_kernel(do_pf_fetch, (uint64_t)page, 14, at_pf_fetch, 0x11, true);

    pv_user_init();
    check_user(user_ud, 0, 6, user_at_ud, 0);
    check_user(user_pf, UNMAPPED + 16, 14, user_at_pf, 6);
    CHECK_EQ(pv_shared->vcpu_info[0].arch.cr2, UNMAPPED + 16);
    check_user(user_gp, 0, 13, user_at_gp, 0);
    check_user_registers();
}
