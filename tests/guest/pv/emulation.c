/* SPDX-License-Identifier: MIT */
/* Instructions that Xen performs for a PV kernel, and those it does not. */
#include "pv.h"

#include <xen/physdev.h>

static void check_cpuid(void)
{
    uint32_t r[4];

    pv_cpuid(0x40000000, r);
    CHECK(r[0] >= 0x40000002);
    CHECK_EQ(r[1], 0x566e6558);     /* XenVMMXenVMM */
    CHECK_EQ(r[2], 0x65584d4d);
    CHECK_EQ(r[3], 0x4d4d566e);
    pv_cpuid(0x40000001, r);
    CHECK_EQ(r[0], PV_CALL(xen_version, 0, 0));
    pv_cpuid(0x80000001, r);
    CHECK_EQ(r[2] >> 2 & 1, 0);     /* no SVM */
    pv_cpuid(1, r);
    CHECK_EQ(r[2] >> 5 & 1, 0);     /* no VMX */
    CHECK_EQ(r[1] >> 24, 0);        /* APIC id of vCPU 0 */
}

static void rdmsr_at(uint64_t msr)
{
    pv_rdmsr((uint32_t)msr);
}

static void fs_base_bad(uint64_t unused)
{
    pv_wrmsr(0xc0000100, 0x800000000000);
}

static void check_msr(void)
{
    CHECK_EQ(pv_rdmsr(0xc0000080) & 0xd01, 0xd01);         /* EFER: NXE LMA LME SCE */
    pv_wrmsr(0xc0000100, 0x123456789abc);
    CHECK_EQ(pv_rdmsr(0xc0000100), 0x123456789abc);        /* FS.base */
    CHECK_EQ(PV_CALL(set_segment_base, SEGBASE_FS, 0x1000), 0);
    CHECK_EQ(pv_rdmsr(0xc0000100), 0x1000);
    CHECK_EQ(PV_CALL(set_segment_base, SEGBASE_GS_USER, 0x2000), 0);
    CHECK_EQ(pv_rdmsr(0xc0000102), 0x2000);
    CHECK_EQ(PV_CALL(set_segment_base, SEGBASE_FS, 0x800000000000), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(set_segment_base, SEGBASE_GS_USER_SEL, 0x7ff0), 0);
    CHECK_EQ(PV_CALL(set_segment_base, 99, 0), -XEN_EINVAL);
    CHECK_EQ(pv_catch(fs_base_bad, 0), 13);
    CHECK_EQ(pv_rdmsr(0xc0000100), 0x1000);
    CHECK_EQ(pv_catch(rdmsr_at, 0x12345678), 13);       /* there is none */
    CHECK_EQ(pv_catch(rdmsr_at, 0xc0000082), 13);       /* LSTAR is Xen's */
    CHECK_EQ(PV_CALL(set_segment_base, SEGBASE_FS, 0), 0);
}

static uint64_t cr0(void)
{
    uint64_t v;

    __asm__ volatile("mov %%cr0, %0" : "=r"(v));
    return v;
}

static void cr0_write(uint64_t v)
{
    __asm__ volatile("mov %0, %%cr0" : : "r"(v));
}

static void cr8_write(uint64_t v)
{
    __asm__ volatile("mov %0, %%cr8" : : "r"(v));
}

static void check_control(void)
{
    uint64_t v;

    CHECK_EQ(cr0() & 0x80000001, 0x80000001);
    CHECK_EQ(pv_catch(cr0_write, cr0() & ~(uint64_t)1), 13);
    cr0_write(cr0() | 8);
    CHECK_EQ(cr0() & 8, 8);
    __asm__ volatile("clts");
    CHECK_EQ(cr0() & 8, 0);
    __asm__ volatile("mov %%cr3, %0" : "=r"(v));
    CHECK_EQ(v >> PAGE_SHIFT, pv_mfn((void *)pv_start_info->pt_base));
    __asm__ volatile("mov %%cr4, %0" : "=r"(v));
    CHECK_EQ(v & 0x20, 0x20);                           /* PAE */
    CHECK_EQ(pv_catch(cr8_write, 0), 13);
    __asm__ volatile("wbinvd");
    /* each register reaches the emulator and comes back, the high ones too */
    __asm__ volatile("mov %%cr3, %%r13; mov %%r13, %0" : "=r"(v) : : "r13");
    CHECK_EQ(v >> PAGE_SHIFT, pv_mfn((void *)pv_start_info->pt_base));
}

static void hlt(uint64_t unused)
{
    __asm__ volatile("hlt");
}

static void lgdt(uint64_t at)
{
    __asm__ volatile("lgdt (%0)" : : "r"(at));
}

static void cli(uint64_t unused)
{
    __asm__ volatile("cli");
}

static void in80(uint64_t unused)
{
    uint8_t v;

    __asm__ volatile("in $0x80, %0" : "=a"(v));
    CHECK_EQ(v, 0xff);
}

static void sysret(uint64_t unused)
{
    __asm__ volatile("sysretq");
}

extern uint8_t user_rdmsr[], user_cli[], user_in[];
__asm__(".pushsection .user, \"ax\"\n"
        "user_rdmsr: mov $0xc0000080, %ecx; rdmsr; ud2\n"
        "user_cli: cli; ud2\n"
        "user_in: in $0x80, %al; ud2\n"
        ".popsection");

static void set_iopl(unsigned iopl)
{
    struct physdev_set_iopl op = { .iopl = iopl };

    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_set_iopl, &op), 0);
}

static void check_iopl(void)
{
    struct physdev_set_iopl bad = { .iopl = 4 };

    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_set_iopl, &bad), -XEN_EINVAL);
    set_iopl(0);
    CHECK_EQ(pv_catch(cli, 0), 13);
    CHECK_EQ(pv_catch(in80, 0), 13);
    set_iopl(1);
    CHECK_EQ(pv_catch(cli, 0), -1);
    CHECK_EQ(pv_catch(in80, 0), -1);
    CHECK_EQ(pv_user_run(user_in, 0), 13);
    CHECK_EQ(pv_user_run(user_cli, 0), 13);
    set_iopl(3);
    CHECK_EQ(pv_user_run(user_in, 0), 6);
    set_iopl(0);
    /* the same told by flags: ring 0 in its own eyes */
    CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_enable, VMASST_TYPE_architectural_iopl), 0);
    CHECK_EQ(pv_catch(cli, 0), -1);
    CHECK_EQ(pv_catch(hlt, 0), 13);
    CHECK_EQ(pv_caught.rflags & 0x3000, 0);
    set_iopl(3);
    CHECK_EQ(pv_catch(hlt, 0), 13);
    CHECK_EQ(pv_caught.rflags & 0x3000, 0x3000);
    CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_disable, VMASST_TYPE_architectural_iopl), 0);
    set_iopl(0);
    CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_enable, VMASST_TYPE_m2p_strict), 0);
    CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_enable, 40), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(vm_assist, 7, VMASST_TYPE_m2p_strict), -XEN_ENOSYS);
}

void test_main(void)
{
    uint64_t gdtr[2] = { 0, 0 };

    pv_user_init();
    check_cpuid();
    check_msr();
    check_control();
    check_iopl();
    CHECK_EQ(pv_catch(hlt, 0), 13);
    CHECK_EQ(pv_catch(lgdt, (uint64_t)gdtr), 13);
    CHECK_EQ(pv_catch(sysret, 0), 13);
    CHECK_EQ(pv_user_run(user_rdmsr, 0), 13);
}
