/* SPDX-License-Identifier: MIT */
/* What the processor brings: exceptions of the guest and of the shim, interrupts,
 * system calls. */
#include "shim/cpu.h"
#include "shim/shim.h"

#define VECTOR_DEBUG       1
#define VECTOR_NMI         2
#define VECTOR_UNDEFINED   6
#define VECTOR_NO_DEVICE   7
#define VECTOR_DOUBLE      8
#define VECTOR_STACK       12
#define VECTOR_PROTECTION  13
#define VECTOR_PAGE        14
#define VECTOR_MACHINE     18
#define VECTOR_FIRST_EXTERNAL 32
#define VECTOR_INT80       0x80

#define HLT_BYTES   1u
#define ERROR_IDT   2u      /* of #GP: the selector is an IDT entry */
#define PF_USER     4u
#define INSN_INT    0xcd

struct fixup { uint64_t from, to; };
extern const struct fixup fixup_table[], fixup_table_end[];
extern const uint8_t iret_to_guest[], syscall64_stubs[], shim_halt_insn[];

static bool vector_has_error(unsigned vector)
{
    return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 ||
           vector == 29 || vector == 30;
}

/* The vector's own stack may be used by the next such trap: go on elsewhere. */
struct shim_regs *shim_leave_ist(struct shim_regs *r)
{
    struct shim_regs *to;

    if ((r->cs & 3) == 0)
        return r;       /* the ordinary stack is in use */
    to = (struct shim_regs *)((uint8_t *)shim_vcpu_current() + AREA_BYTES) - 1;
    *to = *r;
    return to;
}

/* IRET to the guest faulted: what it was to load is the guest's fault.  As in Xen 4.17
 * (which replays it through handle_exception), the guest has the exception where it asked
 * to go on.  Its failsafe callback is for segments that a switch of vCPUs cannot load:
 * no vCPU is switched here, so nothing ever calls it. */
static void iret_faulted(struct shim_vcpu *v, struct shim_regs *r)
{
    const uint64_t *frame = (const uint64_t *)r->rsp;
    unsigned vector = (unsigned)r->vector;

    r->rip = frame[0];
    r->cs = frame[1];
    r->rflags = frame[2];
    r->ss = frame[4];
    r->rsp = frame[3];
    shim_bounce_trap(v, r, vector, vector_has_error(vector), r->error);
    shim_deliver(v, r);
}

/* What came before HLT may be what the vCPU was to wait for: it must look again. */
static void halt_is_over(struct shim_regs *r)
{
    if (r->rip == (uint64_t)shim_halt_insn)
        r->rip += HLT_BYTES;
}

static void trap_in_shim(struct shim_vcpu *v, struct shim_regs *r)
{
    unsigned vector = (unsigned)r->vector;

    if (vector >= VECTOR_FIRST_EXTERNAL) {
        halt_is_over(r);
        event_interrupt(v, vector);
        return;
    }
    if (vector == VECTOR_NMI) {
        halt_is_over(r);
        v->nmi_pending = true;
        return;
    }
    if (vector == VECTOR_DEBUG) {
        /* a breakpoint of the guest on data that the shim touched for it, or the
         * step that SYSENTER took with it into ring 0 */
        r->rflags &= ~(uint64_t)RFLAGS_TF;
        __asm__ volatile("mov %0, %%dr6" : : "r"((uint64_t)0xffff0ff0));
        return;
    }
    if (r->rip == (uint64_t)iret_to_guest) {
        iret_faulted(v, r);
        return;
    }
    for (const struct fixup *f = fixup_table; f < fixup_table_end; f++)
        if (r->rip == f->from) {
            r->rip = f->to;
            return;
        }
    shim_crash(r, "the shim itself took trap %u, error %lx, cr2 %lx", vector, r->error,
               read_cr2());
}

/* Software KVM delivers SYSCALL with CPL still 3, so that the first fetch of the
 * handler faults: that fault is the system call. */
static bool page_fault_is_syscall(const struct shim_vcpu *v, const struct shim_regs *r,
                                  uint64_t va)
{
    return va == r->rip && va == (uint64_t)syscall64_stubs + 64 * (uint64_t)v->id;
}

static void page_fault(struct shim_vcpu *v, struct shim_regs *r)
{
    uint64_t va = read_cr2(), error = r->error & ~(uint64_t)PF_USER;

    if (unlikely(page_fault_is_syscall(v, r, va))) {
        r->vector = VECTOR_SYSCALL64;
        r->rip = r->rcx;
        /* no SYSCALL may have been there, but a jump with anything in r11 */
        r->rflags = (r->r11 & ~(uint64_t)(RFLAGS_IOPL | RFLAGS_VM | RFLAGS_NT)) | RFLAGS_IF;
        r->cs = SEL_FLAT_CODE64;
        r->ss = SEL_FLAT_DATA;
        shim_syscall(r);
        return;
    }
    if (mmu_fault_fixed(v, va, r->error))
        return;
    evtchn_vcpu_info(&shim_domain.evtchn, v->id)->arch.cr2 = va;
    shim_bounce_trap(v, r, VECTOR_PAGE, true, v->kernel_mode ? error : error | PF_USER);
}

static void general_protection(struct shim_vcpu *v, struct shim_regs *r)
{
    if (r->error & ERROR_IDT) {
        /* INT n through a gate that is the shim's: the guest's gate decides.  The
         * instruction says which, since emulators have been seen to get the error
         * code wrong (QEMU 7.2: n * 16 in long mode). */
        unsigned vector = (r->error >> 3) & 0xff;
        const struct shim_gate *g;
        uint8_t insn[2];

        if (!guest_read(insn, r->rip, sizeof(insn)) && insn[0] == INSN_INT) {
            vector = insn[1];
            r->error = vector * 8 | ERROR_IDT;
        }
        g = &v->gate[vector];
        if (g->address && SHIM_GATE_DPL(g) >= (v->kernel_mode ? 1 : 3)) {
            r->rip += 2;
            shim_bounce_trap(v, r, vector, false, 0);
            return;
        }
    } else if (!r->error && emulate_privileged(v, r)) {
        v->status->traps[SHIM_TRAP_EMULATED]++;
        return;
    } else if (!r->error && emulate_stack_fault(r)) {
        shim_bounce_trap(v, r, VECTOR_STACK, true, 0);
        return;
    }
    shim_bounce_trap(v, r, VECTOR_PROTECTION, true, r->error);
}

static void debug_trap(struct shim_vcpu *v, struct shim_regs *r)
{
    uint64_t dr6;

    __asm__ volatile("mov %%dr6, %0" : "=r"(dr6));
    __asm__ volatile("mov %0, %%dr6" : : "r"((uint64_t)0xffff0ff0));
    v->debugreg[6] |= dr6;      /* the guest clears what it has seen, as on a processor */
    shim_bounce_trap(v, r, VECTOR_DEBUG, false, 0);
}

void shim_trap(struct shim_regs *r)
{
    struct shim_vcpu *v = shim_vcpu_current();
    unsigned vector = (unsigned)r->vector;

    if ((r->cs & 3) == 0) {
        trap_in_shim(v, r);
        return;
    }
    switch (vector) {
    case VECTOR_PAGE:
        page_fault(v, r);
        break;
    case VECTOR_PROTECTION:
        general_protection(v, r);
        break;
    case VECTOR_UNDEFINED:
        if (emulate_forced(v, r))
            v->status->traps[SHIM_TRAP_EMULATED]++;
        else
            shim_bounce_trap(v, r, vector, false, 0);
        break;
    case VECTOR_DEBUG:
        debug_trap(v, r);
        break;
    case VECTOR_NO_DEVICE:
        /* Xen clears the guest's TS as it tells it (fpu_taskswitch) */
        v->cr0_ts = false;
        cpu_clts();
        shim_bounce_trap(v, r, vector, false, 0);
        break;
    case VECTOR_NMI:
        v->nmi_pending = true;
        break;
    case VECTOR_DOUBLE:
    case VECTOR_MACHINE:
        shim_crash(r, "trap %u", vector);
    case VECTOR_INT80:
        if (v->gate[VECTOR_INT80].address) {
            shim_bounce_trap(v, r, VECTOR_INT80, false, 0);
        } else {
            r->rip -= 2;
            shim_bounce_trap(v, r, VECTOR_PROTECTION, true, VECTOR_INT80 * 8 + ERROR_IDT);
        }
        break;
    default:
        if (vector < VECTOR_FIRST_EXTERNAL)
            shim_bounce_trap(v, r, vector, vector_has_error(vector), r->error);
        else
            event_interrupt(v, vector);
        break;
    }
    shim_deliver(v, r);
}

/* SYSRET restores less than IRET: only where that is all there is to restore, and
 * never to an address that would fault in ring 0.  With TF it would trap before the
 * next instruction, and whoever steps would never get past it. */
static bool sysret_will_do(struct shim_regs *r)
{
    if (r->vector < VECTOR_SYSCALL64 || r->cs != SEL_FLAT_CODE64 || r->ss != SEL_FLAT_DATA ||
        (r->rflags & (RFLAGS_RF | RFLAGS_TF)) || !va_canonical(r->rip))
        return false;
    r->rcx = r->rip;
    r->r11 = r->rflags;
    return true;
}

int shim_syscall(struct shim_regs *r)
{
    struct shim_vcpu *v = shim_vcpu_current();

    if (v->kernel_mode) {
        if (r->vector == VECTOR_SYSCALL64) {
            if (shim_flag(SHIM_FLAG_KERNEL_RING1)) {
                r->cs = SEL_RING1_CODE64;
                r->ss = SEL_RING1_DATA;
            }
            shim_hypercall(v, r);
        } else {
            /* a 32-bit system call has no meaning in the kernel */
            r->cs = shim_flag(SHIM_FLAG_KERNEL_RING1) ? SEL_RING1_CODE64 : SEL_FLAT_CODE64;
            shim_bounce_trap(v, r, VECTOR_PROTECTION, true, 0);
        }
    } else {
        enum shim_callback which = r->vector == VECTOR_SYSENTER ? SHIM_CALLBACK_SYSENTER :
                                   r->vector == VECTOR_SYSCALL32 ? SHIM_CALLBACK_SYSCALL32 :
                                   SHIM_CALLBACK_SYSCALL64;

        v->status->traps[SHIM_TRAP_SYSCALL]++;
        if (v->callback[which].address) {
            shim_bounce_callback(v, r, which);
        } else if (which == SHIM_CALLBACK_SYSENTER) {
            shim_bounce_trap(v, r, VECTOR_PROTECTION, true, 0);
        } else {
            r->rip -= SYSCALL_BYTES;    /* a fault of the instruction, not after it */
            shim_bounce_trap(v, r, VECTOR_UNDEFINED, false, 0);
        }
    }
    shim_deliver(v, r);
    return sysret_will_do(r);
}
