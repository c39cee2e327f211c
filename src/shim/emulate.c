/* SPDX-License-Identifier: MIT */
/* Privileged instructions of a guest that may not execute them: what Xen does for
 * them on #GP, and the forced CPUID (ud2; "xen"; cpuid) on #UD. */
#include "shim/cpu.h"
#include "shim/shim.h"

#define INSN_BYTES_MAX 15
#define MSR_IA32_APIC_BASE 0x1b
#define MSR_IA32_UCODE_REV 0x8b
#define MSR_PLATFORM_INFO  0xce
#define MSR_MISC_FEATURES_ENABLES 0x140

#define PLATFORM_INFO_CPUID_FAULTING ((uint64_t)1 << 31)
#define MISC_FEATURES_CPUID_FAULTING ((uint64_t)1)
#define CPUID_BYTES 2u
#define VECTOR_PROTECTION 13

#define CR0_SHOWN 0x80050033u       /* PG AM WP NE ET MP PE */
#define CR4_SHOWN 0x00050620u       /* OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PAE */
#define CR4_FSGSBASE ((uint64_t)1 << 16)
#define LEAF7_EBX_FSGSBASE 1u
#define FIRST_NO_ADDRESS   ((uint64_t)1 << 47)
#define EFER_SHOWN 0xd01u           /* NXE LMA LME SCE */

struct insn {
    uint8_t bytes[INSN_BYTES_MAX];
    unsigned avail, at;
    uint8_t rex;
    bool operand16, fs_or_gs;
};

/* The bytes at rip that can be read: an instruction may end just before a hole. */
static void fetch(struct insn *in, uint64_t rip)
{
    *in = (struct insn){ 0 };
    if (!guest_read(in->bytes, rip, INSN_BYTES_MAX)) {
        in->avail = INSN_BYTES_MAX;
        return;
    }
    while (in->avail < INSN_BYTES_MAX && !guest_read(&in->bytes[in->avail], rip + in->avail, 1))
        in->avail++;
}

/* The next byte; past the end, one that no instruction here begins with. */
static uint8_t next(struct insn *in)
{
    return in->at < in->avail ? in->bytes[in->at++] : 0xd6;
}

static uint8_t opcode(struct insn *in)
{
    for (;;) {
        uint8_t b = next(in);

        if (b == 0x66)
            in->operand16 = true;
        else if ((b & 0xf0) == 0x40)
            in->rex = b;
        else if (b == 0x64 || b == 0x65)
            in->fs_or_gs = true;
        else if (b != 0xf2 && b != 0xf3 && b != 0x2e && b != 0x36 && b != 0x3e && b != 0x26)
            return b;
    }
}

static uint64_t *gpr(struct shim_regs *r, unsigned n)
{
    uint64_t *const map[16] = {
        &r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi,
        &r->r8, &r->r9, &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15,
    };

    return map[n & 15];
}

#define DR6_ONES       0xffff0ff0u
#define DR6_ZEROS      0x00001000u
#define DR7_ONES       0x00000400u
#define DR7_ZEROS      0x0000d800u
#define DR7_GD         0x00002000u
#define DR7_ENABLES    0x000000ffu
#define DR7_KIND_SHIFT 16               /* of the first register; 4 bits each */
#define DR7_KIND_IO    2u

/* I/O breakpoints need CR4.DE, which the guest is not shown. */
static bool dr7_permitted(uint64_t value)
{
    if (value & DR7_GD)
        return false;
    for (unsigned i = 0; (value & DR7_ENABLES) && i < 4; i++)
        if ((value >> (DR7_KIND_SHIFT + 4 * i) & 3) == DR7_KIND_IO)
            return false;
    return true;
}

/* n is judged and DR4 and DR5 are aliases, as without CR4.DE. */
int64_t emulate_debugreg_set(struct shim_vcpu *v, uint64_t n, uint64_t value)
{
    if (n > 7)
        return -XEN_ENODEV;
    if (n == 4 || n == 5)
        n += 2;
    if (n < 4 && !guest_range_ok(value, 8))
        return -XEN_EPERM;
    if (n >= 6 && value != (uint32_t)value)
        return -XEN_EINVAL;
    if (n == 6)
        value = (value & ~(uint64_t)DR6_ZEROS) | DR6_ONES;
    if (n == 7) {
        value = (value & ~(uint64_t)DR7_ZEROS) | DR7_ONES;
        if (!dr7_permitted(value))
            return -XEN_EPERM;
    }
    v->debugreg[n] = value;
    if (n != 6)         /* which says what happened: see debug_trap() */
        cpu_debugreg_write((unsigned)n, value);
    return 0;
}

/* Loads what VCPUOP_initialise asked for; what Xen would refuse is left at rest. */
void emulate_debugregs_start(struct shim_vcpu *v)
{
    static const uint64_t rest[8] = { [6] = DR6_ONES, [7] = DR7_ONES };

    for (unsigned n = 0; n < 8; n++)
        if (n != 4 && n != 5 && emulate_debugreg_set(v, n, v->debugreg[n]))
            emulate_debugreg_set(v, n, rest[n]);
}

int64_t emulate_debugreg_get(const struct shim_vcpu *v, uint64_t n)
{
    if (n > 7)
        return -XEN_ENODEV;
    return (int64_t)v->debugreg[n == 4 || n == 5 ? n + 2 : n];
}

/* What the guest kernel is shown; all zeroes where that is nothing. */
static struct shim_cpuid cpuid_shown(uint32_t function, uint32_t index)
{
    const struct shim_boot *b = shim_domain.boot;

    for (uint32_t i = 0; i < min_of(b->nr_cpuid, (uint32_t)SHIM_CPUID_MAX); i++) {
        const struct shim_cpuid *c = &b->cpuid[i];

        if (c->function == function && (!(c->flags & 1) || c->index == index)) {
            struct shim_cpuid shown = *c;

            if (function == 7 && !index && !shim_domain.fsgsbase)
                shown.ebx &= ~LEAF7_EBX_FSGSBASE;
            return shown;
        }
    }
    return (struct shim_cpuid){ .function = function };
}

static void cpuid(const struct shim_vcpu *v, struct shim_regs *r)
{
    uint32_t function = (uint32_t)r->rax;
    struct shim_cpuid c = cpuid_shown(function, (uint32_t)r->rcx);

    /* what is a vCPU's own: its APIC id */
    if (function == 1)
        c.ebx = (c.ebx & 0xffffff) | (uint32_t)v->id << 24;
    else if (function == 0xb || function == 0x1f)
        c.edx = v->id;
    r->rax = c.eax;
    r->rbx = c.ebx;
    r->rcx = c.ecx;
    r->rdx = c.edx;
}

/* Software KVM runs ring 3 as the host's, with the host's CR4 and CPUID. */
static bool ring3_is_virtual(void)
{
    return shim_domain.boot->m2p_va == SHIM_M2P_VA;
}

/* KVM does it for guests on any processor, if asked. */
static bool cpuid_faulting_offered(void)
{
    uint64_t info;

    return ring3_is_virtual() && !rdmsr_raw(MSR_PLATFORM_INFO, &info) &&
           (info & PLATFORM_INFO_CPUID_FAULTING);
}

/* CPUID then faults in the guest's kernel too, as far as that is not in ring 0, and is
 * done for it: see two_byte(). */
static bool cpuid_faulting_set(struct shim_vcpu *v, uint64_t value)
{
    if ((value & ~MISC_FEATURES_CPUID_FAULTING) || (value && !cpuid_faulting_offered()) ||
        (value != v->cpuid_faulting && wrmsr_raw(MSR_MISC_FEATURES_ENABLES, value)))
        return false;
    v->cpuid_faulting = value;
    return true;
}

static bool msr_read(struct shim_vcpu *v, uint32_t msr, uint64_t *value)
{
    switch (msr) {
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_KERNEL_GS_BASE:
        *value = rdmsr(msr);
        return true;
    case MSR_EFER:
        *value = EFER_SHOWN;
        return true;
    case MSR_IA32_APIC_BASE:
        *value = 0xfee00800 | (v->id ? 0 : 0x100);
        return true;
    case MSR_IA32_UCODE_REV:
        *value = 0;
        return true;
    case MSR_PLATFORM_INFO:
        *value = cpuid_faulting_offered() ? PLATFORM_INFO_CPUID_FAULTING : 0;
        return true;
    case MSR_MISC_FEATURES_ENABLES:
        *value = v->cpuid_faulting ? MISC_FEATURES_CPUID_FAULTING : 0;
        return true;
    default:
        return false;
    }
}

/* Xen drops what a guest may write without effect, and faults on the rest. */
static bool msr_write(struct shim_vcpu *v, uint32_t msr, uint64_t value)
{
    switch (msr) {
    case MSR_FS_BASE:
    case MSR_GS_BASE:
    case MSR_KERNEL_GS_BASE:
        if (!va_canonical(value))
            return false;
        wrmsr(msr, value);
        return true;
    case MSR_EFER:
        return value == EFER_SHOWN;
    case MSR_MISC_FEATURES_ENABLES:
        return cpuid_faulting_set(v, value);
    case MSR_IA32_UCODE_REV:
    case MSR_IA32_APIC_BASE:
        return true;
    default:
        return false;
    }
}

static bool cr_read(struct shim_vcpu *v, unsigned n, uint64_t *value)
{
    switch (n) {
    case 0:
        *value = CR0_SHOWN | (v->cr0_ts ? CR0_TS : 0);
        return true;
    case 2:
        *value = evtchn_vcpu_info(&shim_domain.evtchn, v->id)->arch.cr2;
        return true;
    case 3:
        *value = v->kernel_cr3;
        return true;
    case 4:
        *value = read_cr4() & CR4_SHOWN;
        return true;
    default:
        return false;
    }
}

/* Of what a guest asks for, Xen takes what it may choose and what is there, and
 * forgets the rest. */
static void cr4_set(uint64_t value)
{
    uint64_t cr4 = read_cr4();

    if (!(cpuid_shown(7, 0).ebx & LEAF7_EBX_FSGSBASE))
        value &= ~CR4_FSGSBASE;
    if ((cr4 ^ value) & CR4_FSGSBASE)
        write_cr4(cr4 ^ CR4_FSGSBASE);
}

/* A base that is no address must fault, as it does when the shim is asked for it.
 * QEMU's emulator takes any: there the guest is not shown the instructions. */
void emulate_features_init(void)
{
    uint64_t cr4 = read_cr4();

    shim_domain.fsgsbase = ring3_is_virtual();
    if (!(cpuid_shown(7, 0).ebx & LEAF7_EBX_FSGSBASE))
        return;
    write_cr4(cr4 | CR4_FSGSBASE);
    shim_domain.fsgsbase = wrfsbase_raw(FIRST_NO_ADDRESS);
    write_cr4(cr4);
    wrmsr(MSR_FS_BASE, 0);
}

void emulate_cr4_start(struct shim_vcpu *v)
{
    cr4_set(v->cr4);
}

static bool cr_write(struct shim_vcpu *v, unsigned n, uint64_t value)
{
    switch (n) {
    case 0:
        if ((value ^ CR0_SHOWN) & ~CR0_TS)
            return false;
        v->cr0_ts = value & CR0_TS;
        if (value & CR0_TS)
            write_cr0(read_cr0() | CR0_TS);
        else
            cpu_clts();
        return true;
    case 2:
        evtchn_vcpu_info(&shim_domain.evtchn, v->id)->arch.cr2 = value;
        return true;
    case 3:
        if (!mmu_frame_ok(value >> PAGE_SHIFT))
            return false;
        mmu_root_prepare(value >> PAGE_SHIFT, false);
        v->kernel_cr3 = value & ~PAGE_MASK;
        mmu_load_root(v);
        return true;
    case 4:
        cr4_set(value);
        return true;
    default:
        return false;
    }
}

static bool xsetbv(struct shim_vcpu *v, struct shim_regs *r)
{
    uint64_t value = (uint32_t)r->rax | r->rdx << 32;

    /* x87 always; AVX needs SSE; the three parts of AVX-512 come together, with AVX */
    if ((uint32_t)r->rcx || !(value & 1) || (value & ~shim_domain.boot->xcr0) ||
        ((value & 4) && !(value & 2)) ||
        ((value & 0xe0) && ((value & 0xe0) != 0xe0 || !(value & 4))))
        return false;
    cpu_xsetbv(value);
    return true;
}

static bool two_byte(struct shim_vcpu *v, struct shim_regs *r, struct insn *in)
{
    uint64_t value;
    uint8_t op = next(in), modrm;

    switch (op) {
    case 0x01:      /* xsetbv */
        return next(in) == 0xd1 && xsetbv(v, r);
    case 0x06:      /* clts */
        v->cr0_ts = false;
        cpu_clts();
        return true;
    case 0x08:      /* invd, wbinvd: memory is coherent */
    case 0x09:
        return true;
    case 0xa2:      /* cpuid, made to fault */
        if (v->cpuid_faulting)
            cpuid(v, r);
        return v->cpuid_faulting;
    case 0x30:
        return msr_write(v, (uint32_t)r->rcx, (uint32_t)r->rax | r->rdx << 32);
    case 0x32:
        if (!msr_read(v, (uint32_t)r->rcx, &value))
            return false;
        r->rax = (uint32_t)value;
        r->rdx = value >> 32;
        return true;
    case 0x20:      /* mov cr, reg and back; mov dr */
    case 0x21:
    case 0x22:
    case 0x23: {
        unsigned n;
        uint64_t *reg;

        modrm = next(in);
        n = (modrm >> 3 & 7) | (in->rex & 4 ? 8 : 0);
        reg = gpr(r, (modrm & 7) | (in->rex & 1 ? 8 : 0));
        if (op == 0x20)
            return cr_read(v, n, reg);
        if (op == 0x22)
            return cr_write(v, n, *reg);
        if (op == 0x23)
            return !emulate_debugreg_set(v, n, *reg);
        if (n > 7)
            return false;
        *reg = (uint64_t)emulate_debugreg_get(v, n);
        return true;
    }
    default:
        return false;
    }
}

/* An I/O port that is not there: reads give ones, but for the two with which Linux
 * measures time and would wait for long. */
static void port_read(struct shim_regs *r, uint16_t port, unsigned bytes)
{
    uint64_t value = port == 0x42 || port == 0x61 ? 0 : ~(uint64_t)0;

    if (bytes == 1)
        r->rax = (r->rax & ~(uint64_t)0xff) | (value & 0xff);
    else if (bytes == 2)
        r->rax = (r->rax & ~(uint64_t)0xffff) | (value & 0xffff);
    else
        r->rax = (uint32_t)value;
}

/* Without the architectural_iopl assist the kernel counts as ring 1, as it did in
 * 32 bits. */
static bool iopl_suffices(const struct shim_vcpu *v)
{
    bool architectural = shim_domain.vm_assist >> VMASST_TYPE_architectural_iopl & 1;

    return v->iopl >= (!v->kernel_mode ? 3 : architectural ? 0 : 1);
}

/* IN and OUT, allowed by the I/O privilege level the guest asked for. */
static bool port_io(struct shim_vcpu *v, struct shim_regs *r, struct insn *in, uint8_t op)
{
    unsigned bytes = op & 1 ? (in->operand16 ? 2 : 4) : 1;
    uint16_t port;

    if (!iopl_suffices(v))
        return false;
    port = op & 8 ? (uint16_t)r->rdx : next(in);
    if (!(op & 2))
        port_read(r, port, bytes);
    return true;
}

/* #GP with error code 0; false when the guest is to have it. */
bool emulate_privileged(struct shim_vcpu *v, struct shim_regs *r)
{
    struct insn in;
    uint8_t op;
    bool ok;

    fetch(&in, r->rip);
    op = opcode(&in);
    switch (op) {
    case 0xe4: case 0xe5: case 0xe6: case 0xe7:
    case 0xec: case 0xed: case 0xee: case 0xef:
        ok = port_io(v, r, &in, op);
        break;
    case 0xfa:      /* cli, sti: events are masked in vcpu_info, not here */
    case 0xfb:
        ok = iopl_suffices(v);
        break;
    case 0x0f:
        ok = v->kernel_mode && two_byte(v, r, &in);
        break;
    default:
        ok = false;
        break;
    }
    if (ok)
        r->rip += in.at;
    return ok;
}

/* Operations with a memory operand, or a register in its place, and no privilege. */
static bool has_modrm(uint8_t op)
{
    return (op < 0x40 && (op & 7) < 4) || op == 0x63 || op == 0x69 || op == 0x6b ||
           (op >= 0x80 && op <= 0x8f) || op == 0xc0 || op == 0xc1 || op == 0xc6 || op == 0xc7 ||
           (op >= 0xd0 && op <= 0xd3) || op == 0xf6 || op == 0xf7 || op == 0xfe || op == 0xff;
}

/* After 0x0f: loads and stores of vectors, bit and byte operations. */
static bool has_modrm_0f(uint8_t op)
{
    return (op >= 0x10 && op <= 0x17) || (op >= 0x28 && op <= 0x2f) ||
           (op >= 0x40 && op <= 0x7f && op != 0x77) || (op >= 0x90 && op <= 0x9f) ||
           (op >= 0xa3 && op <= 0xa5) || (op >= 0xab && op <= 0xc7 && op != 0xb9);
}

/* The address of the memory operand lies in the stack segment, and is none. */
static bool operand_is_bad_stack(struct shim_regs *r, struct insn *in)
{
    uint8_t modrm = next(in), mod = modrm >> 6, sib = 0;
    unsigned base = modrm & 7, index = 4;
    uint64_t at;

    if (mod == 3)
        return false;
    if (base == 4) {
        sib = next(in);
        base = sib & 7;
        index = (sib >> 3 & 7) | (in->rex & 2 ? 8 : 0);
    }
    if (mod == 0 && base == 5)
        return false;           /* no base, but rip or nothing */
    if (in->rex & 1 || (base != 4 && base != 5))
        return false;
    at = *gpr(r, base);
    if (index != 4)
        at += *gpr(r, index) << (sib >> 6);
    if (mod == 1)
        at += (uint64_t)(int8_t)next(in);
    for (unsigned i = 0; mod == 2 && i < 32; i += 8)
        at += (uint64_t)(i == 24 ? (int8_t)next(in) : next(in)) << i;
    return !va_canonical(at);
}

/* #GP with error code 0, at an instruction for which a processor raises #SS: that is
 * what QEMU's emulator does with stack addresses that are none.  Never true on a
 * processor, which has made the difference itself. */
bool emulate_stack_fault(struct shim_regs *r)
{
    struct insn in;
    uint8_t op;

    if ((r->cs & 0xfffc) != (SEL_FLAT_CODE64 & ~3) && (r->cs & 0xffff) != SEL_RING1_CODE64)
        return false;
    fetch(&in, r->rip);
    op = opcode(&in);
    if ((op >= 0x50 && op <= 0x57) || op == 0x68 || op == 0x6a || op == 0x9c || op == 0xe8)
        return !va_canonical(r->rsp - 8);
    if ((op >= 0x58 && op <= 0x5f) || op == 0x9d || op == 0xc2 || op == 0xc3)
        return !va_canonical(r->rsp);
    if (op == 0xc9)
        return !va_canonical(r->rbp);
    if (in.fs_or_gs || (op == 0x0f ? !has_modrm_0f(next(&in)) : !has_modrm(op)))
        return false;
    return operand_is_bad_stack(r, &in);
}

bool emulate_forced(struct shim_vcpu *v, struct shim_regs *r)
{
    static const uint8_t forced[] = { 0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2 };
    uint8_t bytes[sizeof(forced)];

    if (guest_read(bytes, r->rip, sizeof(bytes)) ||
        __builtin_memcmp(bytes, forced, sizeof(forced)))
        return false;
    if (v->cpuid_faulting && !v->kernel_mode) {
        r->rip += sizeof(forced) - CPUID_BYTES;
        shim_bounce_trap(v, r, VECTOR_PROTECTION, true, 0);
        return true;
    }
    cpuid(v, r);
    r->rip += sizeof(forced);
    return true;
}
