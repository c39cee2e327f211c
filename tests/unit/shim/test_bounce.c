/* SPDX-License-Identifier: MIT */
#include "guest.h"

static uint64_t stack[64] __attribute__((aligned(64)));
#define STACK_END ((uint64_t)&stack[64])

static struct shim_regs regs;

static struct vcpu_info *vi(void)
{
    return evtchn_vcpu_info(&shim_domain.evtchn, 0);
}

static void begin(uint32_t flags)
{
    guest_begin(flags);
    memset(stack, 0, sizeof(stack));
    VCPU->kernel_sp = STACK_END;
    VCPU->kernel_cr3 = 0x1000;
    VCPU->user_cr3 = 0x2000;
    VCPU->gate[14] = (struct shim_gate){ .address = 0x1400, .flags = 0 };
    VCPU->gate[13] = (struct shim_gate){ .address = 0x1300, .flags = 4 };
    vi()->evtchn_upcall_mask = 0;
    regs = (struct shim_regs){
        .rcx = 0xc, .r11 = 0xb, .rip = 0x4000, .cs = SEL_FLAT_CODE64,
        .rflags = RFLAGS_IF | RFLAGS_TF | RFLAGS_IOPL | 2, .rsp = STACK_END, .ss = SEL_FLAT_DATA,
    };
}

static void a_fault_in_user_space(void **state)
{
    const uint64_t *f = &stack[64 - 8];

    begin(RING3);
    VCPU->kernel_mode = false;
    regs.rsp = 0x7000;
    shim_bounce_trap(VCPU, &regs, 14, true, 6);
    assert_true(VCPU->kernel_mode);
    assert_int_equal(fake_cpu.nr_swapgs, 1);
    assert_int_equal(fake_cpu.cr3, 0x1000);
    assert_int_equal(regs.rip, 0x1400);
    assert_int_equal(regs.rsp, (uint64_t)f);
    assert_int_equal(regs.cs, SEL_FLAT_CODE64);
    assert_int_equal(regs.rflags, RFLAGS_IF | 2);
    assert_int_equal(f[0], 0xc);
    assert_int_equal(f[1], 0xb);
    assert_int_equal(f[2], 6);
    assert_int_equal(f[3], 0x4000);
    assert_int_equal(f[4], SEL_FLAT_CODE64);
    assert_int_equal(f[5], RFLAGS_IF | RFLAGS_TF | 2);
    assert_int_equal(f[6], 0x7000);
    assert_int_equal(f[7], SEL_FLAT_DATA);
}

static void a_fault_in_the_kernel_with_events_masked(void **state)
{
    const uint64_t *f = &stack[64 - 8];

    begin(RING3);
    vi()->evtchn_upcall_mask = 1;
    shim_bounce_trap(VCPU, &regs, 14, true, 0);
    assert_int_equal(fake_cpu.nr_swapgs, 0);
    assert_int_equal(f[4], (uint64_t)1 << 32 | (SEL_FLAT_CODE64 & ~3));
    assert_int_equal(f[5] & RFLAGS_IF, 0);
    assert_int_equal(regs.rflags & RFLAGS_IF, RFLAGS_IF);       /* real interrupts go on */
}

static void ring1_is_not_shown(void **state)
{
    const uint64_t *f = &stack[64 - 8];

    begin(RING1);
    regs.cs = SEL_RING1_CODE64;
    regs.ss = SEL_RING1_DATA;
    shim_bounce_trap(VCPU, &regs, 14, true, 0);
    assert_int_equal(f[4], SEL_FLAT_CODE64 & ~3);
    assert_int_equal(f[7], SEL_FLAT_DATA);
    assert_int_equal(regs.cs, SEL_RING1_CODE64);
    assert_int_equal(regs.ss, SEL_RING1_DATA);
}

static void a_gate_masks_events_or_not(void **state)
{
    begin(RING3);
    shim_bounce_trap(VCPU, &regs, 14, true, 0);
    assert_int_equal(vi()->evtchn_upcall_mask, 0);
    begin(RING3);
    shim_bounce_trap(VCPU, &regs, 13, true, 0);
    assert_int_equal(vi()->evtchn_upcall_mask, 1);
}

static void io_privilege_is_shown_on_request(void **state)
{
    const uint64_t *f = &stack[64 - 8];

    begin(RING3);
    VCPU->iopl = 2;
    shim_bounce_trap(VCPU, &regs, 14, true, 0);
    assert_int_equal(f[5] & RFLAGS_IOPL, 0);
    begin(RING3);
    VCPU->iopl = 2;
    shim_domain.vm_assist = (uint64_t)1 << VMASST_TYPE_architectural_iopl;
    shim_bounce_trap(VCPU, &regs, 14, true, 0);
    assert_int_equal(f[5] & RFLAGS_IOPL, 2 << RFLAGS_IOPL_SHIFT);
}

static void the_stack_is_aligned(void **state)
{
    begin(RING3);
    regs.rsp = STACK_END - 3;
    shim_bounce_trap(VCPU, &regs, 14, false, 0);
    assert_int_equal(regs.rsp, STACK_END - 16 - 7 * 8);
    assert_int_equal(stack[64 - 2 - 2], STACK_END - 3);
}

static void trap(void)
{
    shim_bounce_trap(VCPU, &regs, 14, true, 0);
}

static void iret(void)
{
    shim_iret(VCPU, &regs);
}

static void ends_that_say_why(void **state)
{
    begin(RING3);
    regs.rsp = 0xffff808000001000;
    assert_string_equal(guest_crash(trap),
                        "the guest's kernel stack at ffff808000000fc0 cannot take a frame");
    begin(RING3);
    VCPU->gate[14].address = 0;
    assert_non_null(strstr(guest_crash(trap), "unhandled trap 14"));
    begin(RING3);
    regs.rsp = 0xffff808000001000;
    assert_non_null(strstr(guest_crash(iret), "IRET frame at ffff808000001000 cannot be read"));
    begin(RING3);
    VCPU->user_cr3 = 0;
    *(struct iret_context *)stack = (struct iret_context){ .cs = SEL_FLAT_CODE64 };
    regs.rsp = (uint64_t)stack;
    assert_non_null(strstr(guest_crash(iret), "without user page tables"));
}

static void do_iret(uint64_t cs, uint64_t flags, uint64_t rflags)
{
    *(struct iret_context *)stack = (struct iret_context){
        .rax = 0xa, .r11 = 0xbb, .rcx = 0xcc, .flags = flags, .rip = 0x5000, .cs = cs,
        .rflags = rflags, .rsp = 0x6000, .ss = SEL_FLAT_DATA,
    };
    regs.rsp = (uint64_t)stack;
    regs.vector = VECTOR_SYSCALL64;
    shim_iret(VCPU, &regs);
}

static void to_user_space(void **state)
{
    begin(RING3);
    do_iret(SEL_FLAT_CODE64, 0, RFLAGS_IF | RFLAGS_IOPL | RFLAGS_VM | 0x40);
    assert_false(VCPU->kernel_mode);
    assert_int_equal(fake_cpu.cr3, 0x2000);
    assert_int_equal(fake_cpu.nr_swapgs, 1);
    assert_int_equal(regs.rax, 0xa);
    assert_int_equal(regs.rcx, 0xcc);
    assert_int_equal(regs.r11, 0xbb);
    assert_int_equal(regs.rip, 0x5000);
    assert_int_equal(regs.rsp, 0x6000);
    assert_int_equal(regs.rflags, RFLAGS_IF | 0x42);
    assert_int_equal(regs.vector, 0);       /* rcx and r11 are not SYSRET's to lose */
    assert_int_equal(vi()->evtchn_upcall_mask, 0);
}

static void to_user_space_as_from_a_system_call(void **state)
{
    begin(RING3);
    do_iret(SEL_FLAT_CODE64, VGCF_in_syscall, RFLAGS_IF);
    assert_int_equal(regs.rcx, 0x5000);
    assert_int_equal(regs.r11, RFLAGS_IF | 2);
    assert_int_equal(regs.vector, VECTOR_SYSCALL64);
    assert_int_equal(regs.cs, SEL_FLAT_CODE64);
}

static void to_the_kernel_in_its_own_ring(void **state)
{
    begin(RING3);
    do_iret(SEL_FLAT_CODE64 & ~3, 0, 0);
    assert_true(VCPU->kernel_mode);
    assert_int_equal(regs.cs, SEL_FLAT_CODE64);
    assert_int_equal(regs.ss, SEL_FLAT_DATA);
    assert_int_equal(regs.rflags & RFLAGS_IF, RFLAGS_IF);
    assert_int_equal(vi()->evtchn_upcall_mask, 1);      /* what IF was for */
    begin(RING1);
    do_iret(SEL_FLAT_CODE64 & ~3, 0, 0);
    assert_int_equal(regs.cs, SEL_RING1_CODE64);
    assert_int_equal(regs.ss, SEL_RING1_DATA);
    do_iret(0x10, 0, 0);                                /* the guest's own: DPL 1 in its copy */
    assert_int_equal(regs.cs, 0x11);
}

/* No selector an IRET names is of ring 0. */
static void never_to_ring_0(void **state)
{
    for (unsigned ring = 1; ring <= 3; ring += 2)
        for (uint64_t cs = 0; cs < 0x10000; cs++) {
            if (!(cs & 0xfff))
                begin(ring == 1 ? RING1 : RING3);
            VCPU->kernel_mode = true;
            do_iret(cs, 0, 0);
            assert_int_not_equal(regs.cs & 3, 0);
            assert_int_not_equal(regs.ss & 3, 0);
        }
}

static void the_next_nmi_waits_for_an_iret(void **state)
{
    begin(RING3);
    VCPU->callback[SHIM_CALLBACK_NMI].address = 0x9000;
    VCPU->nmi_pending = true;
    shim_deliver(VCPU, &regs);
    assert_int_equal(regs.rip, 0x9000);
    VCPU->nmi_pending = true;
    regs.rip = 0x9001;
    shim_deliver(VCPU, &regs);
    assert_int_equal(regs.rip, 0x9001);
    do_iret(SEL_FLAT_CODE64 & ~3, 0, 0);
    regs.rsp = STACK_END;
    shim_deliver(VCPU, &regs);
    assert_int_equal(regs.rip, 0x9000);
    assert_false(VCPU->nmi_pending);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fault_in_user_space),
        cmocka_unit_test(a_fault_in_the_kernel_with_events_masked),
        cmocka_unit_test(ring1_is_not_shown),
        cmocka_unit_test(a_gate_masks_events_or_not),
        cmocka_unit_test(io_privilege_is_shown_on_request),
        cmocka_unit_test(the_stack_is_aligned),
        cmocka_unit_test(ends_that_say_why),
        cmocka_unit_test(to_user_space),
        cmocka_unit_test(to_user_space_as_from_a_system_call),
        cmocka_unit_test(to_the_kernel_in_its_own_ring),
        cmocka_unit_test(never_to_ring_0),
        cmocka_unit_test(the_next_nmi_waits_for_an_iret),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
