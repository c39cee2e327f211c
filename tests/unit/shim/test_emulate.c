/* SPDX-License-Identifier: MIT */
#include "guest.h"

static struct shim_regs regs;

/* Runs the emulator on bytes; true when it has done the instruction. */
#define EMULATED(...) \
    ({ static const uint8_t code_[] = { __VA_ARGS__ }; emulated(code_, sizeof(code_)); })

static bool emulated(const uint8_t *code, size_t bytes)
{
    uint8_t copy[32];
    bool ok;

    /* what follows the instruction must not count */
    memset(copy, 0xcc, sizeof(copy));
    memcpy(copy, code, bytes);
    regs.rip = (uint64_t)copy;
    ok = emulate_privileged(VCPU, &regs);
    assert_int_equal(regs.rip - (uint64_t)copy, ok ? bytes : 0);
    return ok;
}

static void begin(void)
{
    guest_begin(RING3);
    memset(&regs, 0, sizeof(regs));
}

static void ports_need_the_privilege(void **state)
{
    begin();
    assert_false(EMULATED(0xec));
    VCPU->iopl = 1;
    regs.rax = 0x1111111111111111;
    assert_true(EMULATED(0xec));                        /* in al, dx */
    assert_int_equal(regs.rax, 0x11111111111111ff);
    assert_true(EMULATED(0x66, 0xed));                  /* in ax, dx */
    assert_int_equal(regs.rax, 0x111111111111ffff);
    assert_true(EMULATED(0xed));                        /* in eax, dx */
    assert_int_equal(regs.rax, 0xffffffff);
    regs.rdx = 0x61;
    assert_true(EMULATED(0xec));
    assert_int_equal(regs.rax, 0xffffff00);
    assert_true(EMULATED(0xe4, 0x80));                  /* in al, 0x80 */
    assert_true(EMULATED(0xe6, 0x80));                  /* out 0x80, al */
    assert_int_equal(fake_cpu.nr_outs, 0);
    VCPU->kernel_mode = false;
    assert_false(EMULATED(0xec));
    VCPU->iopl = 3;
    assert_true(EMULATED(0xec));
}

static void the_kernels_ring_is_0_if_it_says_so(void **state)
{
    begin();
    assert_false(EMULATED(0xfa));
    shim_domain.vm_assist = (uint64_t)1 << VMASST_TYPE_architectural_iopl;
    assert_true(EMULATED(0xfa));
    VCPU->kernel_mode = false;
    VCPU->iopl = 2;
    assert_false(EMULATED(0xfb));
}

static void control_registers(void **state)
{
    begin();
    VCPU->kernel_cr3 = (uint64_t)(RAM_MFN + 1) << PAGE_SHIFT;
    assert_true(EMULATED(0x0f, 0x20, 0xd8));            /* mov rax, cr3 */
    assert_int_equal(regs.rax, VCPU->kernel_cr3);
    assert_true(EMULATED(0x41, 0x0f, 0x20, 0xdd));      /* mov r13, cr3 */
    assert_int_equal(regs.r13, VCPU->kernel_cr3);
    assert_true(EMULATED(0x0f, 0x20, 0xc1));            /* mov rcx, cr0 */
    assert_int_equal(regs.rcx & 1, 1);
    regs.rcx |= CR0_TS;
    assert_true(EMULATED(0x0f, 0x22, 0xc1));            /* mov cr0, rcx */
    assert_true(VCPU->cr0_ts);
    assert_int_equal(fake_cpu.cr0 & CR0_TS, CR0_TS);
    regs.rcx &= ~(uint64_t)1;
    assert_false(EMULATED(0x0f, 0x22, 0xc1));
    assert_true(EMULATED(0x0f, 0x06));                  /* clts */
    assert_int_equal(fake_cpu.cr0 & CR0_TS, 0);
    regs.rax = (RAM_MFN + RAM_MAX) << PAGE_SHIFT;
    assert_false(EMULATED(0x0f, 0x22, 0xd8));           /* mov cr3, rax: not RAM */
    assert_false(EMULATED(0x44, 0x0f, 0x22, 0xc0));     /* mov cr8, rax */
    VCPU->kernel_mode = false;
    assert_false(EMULATED(0x0f, 0x20, 0xd8));
}

static void model_specific_registers(void **state)
{
    begin();
    regs.rcx = MSR_FS_BASE;
    regs.rdx = 0x1234;
    regs.rax = 0x56789abc;
    assert_true(EMULATED(0x0f, 0x30));
    assert_int_equal(fake_cpu.msr[0], 0x123456789abc);
    regs.rdx = 0xffff0000;
    assert_false(EMULATED(0x0f, 0x30));                 /* no address */
    assert_true(EMULATED(0x0f, 0x32));
    assert_int_equal(regs.rdx, 0x1234);
    assert_int_equal(regs.rax, 0x56789abc);
    regs.rcx = 0x12345678;
    assert_false(EMULATED(0x0f, 0x32));
    assert_false(EMULATED(0x0f, 0x30));
}

static void extended_state(void **state)
{
    static const struct { uint64_t value; bool ok; } rows[] = {
        { 1, true }, { 3, true }, { 7, true }, { 0, false }, { 2, false }, { 5, false },
        { 0xe7, false }, { (uint64_t)1 << 62 | 1, false },
    };

    begin();
    for (unsigned i = 0; i < array_size(rows); i++) {
        regs.rax = (uint32_t)rows[i].value;
        regs.rdx = rows[i].value >> 32;
        assert_int_equal(EMULATED(0x0f, 0x01, 0xd1), rows[i].ok);
        if (rows[i].ok)
            assert_int_equal(fake_cpu.xcr0, rows[i].value);
    }
    regs.rcx = 1;
    regs.rax = 3;
    assert_false(EMULATED(0x0f, 0x01, 0xd1));
}

static void what_is_not_emulated(void **state)
{
    begin();
    assert_false(EMULATED(0xf4));                       /* hlt */
    assert_false(EMULATED(0x0f, 0x01, 0x10));           /* lgdt */
    assert_false(EMULATED(0x0f, 0x07));                 /* sysret */
    assert_false(EMULATED(0xf0, 0x0f, 0x06));           /* lock clts */
    assert_false(EMULATED(0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                          0x66, 0x66, 0x66, 0xfa));     /* too long */
}

static void an_instruction_may_end_where_memory_does(void **state)
{
    static uint8_t code[64];

    begin();
    VCPU->iopl = 3;
    code[31] = 0xec;
    fake_cpu.missing = (uintptr_t)&code[32];
    fake_cpu.missing_end = (uintptr_t)&code[64];
    regs.rip = (uint64_t)&code[31];
    assert_true(emulate_privileged(VCPU, &regs));
    code[31] = 0x0f;                                    /* the rest is missing */
    regs.rip = (uint64_t)&code[31];
    assert_false(emulate_privileged(VCPU, &regs));
    regs.rip = (uint64_t)&code[32];
    assert_false(emulate_privileged(VCPU, &regs));
}

static void debug_registers(void **state)
{
    begin();
    assert_int_equal(emulate_debugreg_set(VCPU, 0, 0x1234), 0);
    assert_int_equal(fake_cpu.debugreg[0], 0x1234);
    assert_int_equal(emulate_debugreg_set(VCPU, 1, 0xffff808000000000), -XEN_EPERM);
    assert_int_equal(emulate_debugreg_set(VCPU, 8, 0), -XEN_ENODEV);
    assert_int_equal(emulate_debugreg_set(VCPU, 7, 0x2000), -XEN_EPERM);
    assert_int_equal(emulate_debugreg_set(VCPU, 7, 0x20001), -XEN_EPERM);   /* an I/O breakpoint */
    assert_int_equal(emulate_debugreg_set(VCPU, 7, 0x20000), 0);            /* that is off */
    assert_int_equal(emulate_debugreg_set(VCPU, 7, (uint64_t)1 << 40), -XEN_EINVAL);
    assert_int_equal(emulate_debugreg_set(VCPU, 5, 0xd901), 0);
    assert_int_equal(fake_cpu.debugreg[7], 0x0501);
    assert_int_equal(emulate_debugreg_get(VCPU, 5), 0x0501);
    assert_int_equal(emulate_debugreg_get(VCPU, 8), -XEN_ENODEV);
    assert_int_equal(emulate_debugreg_set(VCPU, 4, 1), 0);
    assert_int_equal(emulate_debugreg_get(VCPU, 6), 0xffff0ff1);
}

static void a_new_vcpus_debug_registers(void **state)
{
    begin();
    VCPU->debugreg[0] = 0x1000;
    VCPU->debugreg[1] = 0xffff808000000000;
    VCPU->debugreg[7] = 0x2002;
    emulate_debugregs_start(VCPU);
    assert_int_equal(fake_cpu.debugreg[0], 0x1000);
    assert_int_equal(fake_cpu.debugreg[1], 0);
    assert_int_equal(fake_cpu.debugreg[7], 0x400);
    assert_int_equal(VCPU->debugreg[7], 0x400);
}

static void forced_cpuid(void **state)
{
    static const uint8_t code[] = { 0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2 };
    static const uint8_t ud2[] = { 0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa3, 0 };

    begin();
    fake_boot.nr_cpuid = 3;
    fake_boot.cpuid[0] = (struct shim_cpuid){ .function = 1, .eax = 11, .ebx = 0xff000000 | 5 };
    fake_boot.cpuid[1] = (struct shim_cpuid){ .function = 4, .index = 0, .flags = 1, .eax = 40 };
    fake_boot.cpuid[2] = (struct shim_cpuid){ .function = 4, .index = 1, .flags = 1, .eax = 41 };
    regs.rip = (uint64_t)code;
    regs.rax = 0xffffffff00000001;
    assert_true(emulate_forced(shim_vcpu(1), &regs));
    assert_int_equal(regs.rip, (uint64_t)code + sizeof(code));
    assert_int_equal(regs.rax, 11);
    assert_int_equal(regs.rbx, 1 << 24 | 5);
    regs.rip = (uint64_t)code;
    regs.rax = 4;
    regs.rcx = 1;
    assert_true(emulate_forced(VCPU, &regs));
    assert_int_equal(regs.rax, 41);
    regs.rip = (uint64_t)code;
    regs.rax = 0x1234;
    regs.rbx = 7;
    assert_true(emulate_forced(VCPU, &regs));
    assert_int_equal(regs.rax | regs.rbx | regs.rcx | regs.rdx, 0);
    regs.rip = (uint64_t)ud2;
    assert_false(emulate_forced(VCPU, &regs));
}

static bool is_stack_fault(const uint8_t *code, size_t bytes)
{
    uint8_t copy[32];

    memset(copy, 0xcc, sizeof(copy));
    memcpy(copy, code, bytes);
    regs.rip = (uint64_t)copy;
    return emulate_stack_fault(&regs);
}
#define STACK_FAULT(...) \
    ({ static const uint8_t code_[] = { __VA_ARGS__ }; is_stack_fault(code_, sizeof(code_)); })

/* An address that is none, in rsp, rbp or where they lead, is the stack segment's. */
static void stack_faults(void **state)
{
    const uint64_t bad = 0x8000000040000000, good = 0x1000;

    begin();
    regs.cs = SEL_FLAT_CODE64;
    regs.rsp = bad;
    regs.rbp = good;
    regs.rax = bad;
    assert_true(STACK_FAULT(0xc6, 0x04, 0x24, 0x00));           /* movb $0, (rsp) */
    assert_true(STACK_FAULT(0x3e, 0xc6, 0x04, 0x24, 0x00));     /* the same with ds: */
    assert_false(STACK_FAULT(0x64, 0xc6, 0x04, 0x24, 0x00));    /* fs: */
    assert_false(STACK_FAULT(0x41, 0xc6, 0x04, 0x24, 0x00));    /* (r12) */
    assert_false(STACK_FAULT(0xc6, 0x00, 0x00));                /* (rax) */
    assert_false(STACK_FAULT(0xc6, 0x45, 0x00, 0x00));          /* (rbp), which is good */
    assert_true(STACK_FAULT(0xc6, 0x44, 0x05, 0x00, 0x00));     /* (rbp + rax) */
    assert_true(STACK_FAULT(0x0f, 0x10, 0x04, 0x24));           /* movups (rsp), xmm0 */
    assert_false(STACK_FAULT(0x0f, 0x01, 0x14, 0x24));          /* lgdt (rsp): privileged */
    assert_false(STACK_FAULT(0xf4));
    assert_true(STACK_FAULT(0x50) && STACK_FAULT(0x5d) && STACK_FAULT(0xc3));
    assert_true(STACK_FAULT(0xe8, 0, 0, 0, 0));
    assert_false(STACK_FAULT(0xc9));                            /* leave: from rbp */
    regs.rsp = good;
    regs.rbp = bad;
    assert_true(STACK_FAULT(0xc9));
    assert_false(STACK_FAULT(0x50));
    assert_true(STACK_FAULT(0xc6, 0x45, 0x00, 0x00));
    assert_true(STACK_FAULT(0x48, 0x8b, 0x85, 0x10, 0x00, 0x00, 0x00));     /* 0x10(rbp) */
    assert_false(STACK_FAULT(0x48, 0x8b, 0x05, 0x10, 0x00, 0x00, 0x00));    /* 0x10(rip) */
    assert_false(STACK_FAULT(0x48, 0x89, 0xe8));                /* mov rax, rbp */
    regs.rbp = 0x7ffffffffff8;
    assert_false(STACK_FAULT(0xc6, 0x45, 0x07, 0x00));
    assert_true(STACK_FAULT(0xc6, 0x45, 0x08, 0x00));           /* the first beyond */
    assert_true(STACK_FAULT(0xc6, 0x85, 0x00, 0x01, 0x00, 0x00, 0x00));
    assert_false(STACK_FAULT(0xc6, 0x85, 0x00, 0xff, 0xff, 0xff, 0x00));    /* less 256 */
    regs.cs = SEL_FLAT_CODE32;
    assert_false(STACK_FAULT(0xc6, 0x45, 0x08, 0x00));
}

static void cpuid_faults_in_user_mode_if_asked(void **state)
{
    static const uint8_t code[] = { 0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2 };
    static uint64_t stack[64] __attribute__((aligned(16)));

    begin();
    fake_boot.nr_cpuid = 1;
    fake_boot.cpuid[0] = (struct shim_cpuid){ .function = 1, .eax = 11 };
    regs.rcx = 0xce;
    assert_true(EMULATED(0x0f, 0x32));                  /* rdmsr: it is not there */
    assert_int_equal(regs.rax, 0);
    regs.rcx = 0x140;
    regs.rax = 1;
    regs.rdx = 0;
    assert_false(EMULATED(0x0f, 0x30));
    assert_false(EMULATED(0x0f, 0xa2));
    fake_cpu.platform_info = (uint64_t)1 << 31 | 0x1234;
    regs.rcx = 0xce;
    assert_true(EMULATED(0x0f, 0x32));
    assert_int_equal(regs.rax, (uint64_t)1 << 31);
    regs.rdx = 0;
    assert_false(EMULATED(0x0f, 0x30));                 /* it tells, and does not listen */
    regs.rcx = 0x140;
    regs.rax = 3;
    assert_false(EMULATED(0x0f, 0x30));
    regs.rax = 1;
    assert_true(EMULATED(0x0f, 0x30));
    assert_int_equal(fake_cpu.misc_features, 1);
    regs.rax = 0;
    assert_true(EMULATED(0x0f, 0x32));
    assert_int_equal(regs.rax, 1);
    regs.rax = 1;
    assert_true(EMULATED(0x0f, 0xa2));                  /* done for the kernel */
    assert_int_equal(regs.rax, 11);
    VCPU->kernel_mode = false;
    assert_false(EMULATED(0x0f, 0xa2));
    VCPU->kernel_sp = (uint64_t)&stack[64];
    VCPU->gate[13].address = 0x9000;
    regs.rip = (uint64_t)code;
    assert_true(emulate_forced(VCPU, &regs));
    assert_int_equal(regs.rip, 0x9000);
    assert_int_equal(stack[64 - 5], (uint64_t)code + 5);
    assert_int_equal(stack[64 - 6], 0);
}

/* Of CR4 a guest chooses FSGSBASE, where it is shown that. */
static void bases_by_instructions_if_asked(void **state)
{
    begin();
    fake_cpu.cr4 = 0x40620;
    regs.rax = 0x50620;
    assert_true(EMULATED(0x0f, 0x22, 0xe0));            /* mov cr4, rax */
    assert_int_equal(fake_cpu.cr4, 0x40620);
    fake_boot.nr_cpuid = 1;
    fake_boot.cpuid[0] = (struct shim_cpuid){ .function = 7, .flags = 1, .ebx = 1 };
    fake_cpu.wrfsbase_lax = true;
    emulate_features_init();
    assert_true(EMULATED(0x0f, 0x22, 0xe0));            /* not on a processor like that */
    assert_int_equal(fake_cpu.cr4, 0x40620);
    assert_int_equal(fake_cpu.msr[0], 0);
    fake_cpu.wrfsbase_lax = false;
    emulate_features_init();
    assert_int_equal(fake_cpu.cr4, 0x40620);
    regs.rax = 0xffffffff;
    assert_true(EMULATED(0x0f, 0x22, 0xe0));
    assert_int_equal(fake_cpu.cr4, 0x50620);
    assert_true(EMULATED(0x0f, 0x20, 0xe0));
    assert_int_equal(regs.rax, 0x50620);
    regs.rax = 0;
    assert_true(EMULATED(0x0f, 0x22, 0xe0));
    assert_int_equal(fake_cpu.cr4, 0x40620);
    VCPU->cr4 = 0x10000;
    emulate_cr4_start(VCPU);
    assert_int_equal(fake_cpu.cr4, 0x50620);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_need_the_privilege),
        cmocka_unit_test(the_kernels_ring_is_0_if_it_says_so),
        cmocka_unit_test(control_registers),
        cmocka_unit_test(model_specific_registers),
        cmocka_unit_test(extended_state),
        cmocka_unit_test(what_is_not_emulated),
        cmocka_unit_test(an_instruction_may_end_where_memory_does),
        cmocka_unit_test(debug_registers),
        cmocka_unit_test(a_new_vcpus_debug_registers),
        cmocka_unit_test(forced_cpuid),
        cmocka_unit_test(stack_faults),
        cmocka_unit_test(cpuid_faults_in_user_mode_if_asked),
        cmocka_unit_test(bases_by_instructions_if_asked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
