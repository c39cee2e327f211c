/* SPDX-License-Identifier: MIT */
/* Frames on the guest kernel's stack, and the way back from them.
 *
 * The guest is told of traps and events as Xen does it: rcx and r11 are pushed
 * below an ordinary exception frame (the handler may have been entered by
 * SYSRET), the kernel's code selector shows RPL 0, the upper half of its slot
 * carries the event mask as it was, and IF in the pushed flags is the inverse
 * of that mask.  The processor itself always has IF set while the guest runs. */
#include "shim/cpu.h"
#include "shim/shim.h"

#define RFLAGS_CLEARED_BY_TRAP \
    ((uint64_t)(RFLAGS_AC | RFLAGS_VM | RFLAGS_RF | RFLAGS_NT | RFLAGS_TF | RFLAGS_IOPL))

/* rcx, r11, error code, and the five of an exception frame */
#define FRAME_WORDS_MAX 8

/* Between the guest's kernel and its user space, either way. */
void shim_toggle_mode(struct shim_vcpu *v)
{
    cpu_swapgs();
    v->kernel_mode = !v->kernel_mode;
    if (shim_flag(SHIM_FLAG_TWO_ROOTS))
        mmu_load_root(v);
}

static void kernel_selectors(struct shim_regs *r)
{
    bool ring1 = shim_flag(SHIM_FLAG_KERNEL_RING1);

    r->cs = ring1 ? SEL_RING1_CODE64 : SEL_FLAT_CODE64;
    r->ss = ring1 ? SEL_RING1_DATA : SEL_FLAT_DATA;
}

/* The selectors the guest should see in a frame for what it was running. */
static uint64_t shown_cs(const struct shim_vcpu *v, const struct shim_regs *r)
{
    uint64_t cs = r->cs & 0xffff;

    if (!v->kernel_mode)
        return cs;
    return (cs == SEL_RING1_CODE64 ? SEL_FLAT_CODE64 : cs) & ~(uint64_t)3;
}

static uint64_t shown_ss(const struct shim_vcpu *v, const struct shim_regs *r)
{
    uint64_t ss = r->ss & 0xffff;

    if (!v->kernel_mode)
        return ss;
    return ss == SEL_RING1_DATA ? SEL_FLAT_DATA : ss | 3;
}

/* The guest wants its I/O privilege level in its flags (VMASST_TYPE_architectural_iopl). */
static bool iopl_architectural(void)
{
    return load_relaxed(&shim_domain.vm_assist) >> VMASST_TYPE_architectural_iopl & 1;
}

static shim_hot void bounce(struct shim_vcpu *v, struct shim_regs *r, uint64_t handler,
                            bool mask_events, const uint64_t *error)
{
    struct vcpu_info *vi = evtchn_vcpu_info(&shim_domain.evtchn, v->id);
    uint8_t masked = load_relaxed(&vi->evtchn_upcall_mask);
    uint64_t frame[FRAME_WORDS_MAX], sp, cs = shown_cs(v, r), ss = shown_ss(v, r);
    unsigned n = 0;

    if (!handler)
        shim_crash(r, "the guest has no handler for trap or callback %u",
                   (unsigned)r->vector);
    if (v->kernel_mode) {
        sp = r->rsp;
    } else {
        shim_toggle_mode(v);
        sp = v->kernel_sp;
    }

    frame[n++] = r->rcx;
    frame[n++] = r->r11;
    if (error)
        frame[n++] = *error;
    frame[n++] = r->rip;
    frame[n++] = cs | (uint64_t)(masked != 0) << 32;
    frame[n++] = (r->rflags & ~(uint64_t)(RFLAGS_IF | RFLAGS_IOPL)) | (masked ? 0 : RFLAGS_IF) |
                 (iopl_architectural() ? (uint64_t)v->iopl << RFLAGS_IOPL_SHIFT : 0);
    frame[n++] = r->rsp;
    frame[n++] = ss;

    sp = (sp & ~(uint64_t)15) - n * sizeof(frame[0]);
    if (guest_write(sp, frame, n * sizeof(frame[0])))
        shim_crash(r, "the guest's kernel stack at %lx cannot take a frame", sp);
    if (mask_events)
        store_relaxed(&vi->evtchn_upcall_mask, 1);

    r->rip = handler;
    r->rsp = sp;
    kernel_selectors(r);
    r->rflags = (r->rflags & ~RFLAGS_CLEARED_BY_TRAP) | RFLAGS_IF;
    r->vector = VECTOR_SYSCALL64;       /* rcx and r11 are free: SYSRET will do */
}

void shim_bounce_trap(struct shim_vcpu *v, struct shim_regs *r, unsigned vector, bool has_error,
                      uint64_t error)
{
    const struct shim_gate *g = &v->gate[vector];

    if (!g->address)
        shim_crash(r, "unhandled trap %u, error %lx, in guest %s mode", vector, error,
                   v->kernel_mode ? "kernel" : "user");
    v->status->traps[SHIM_TRAP_BOUNCED]++;
    bounce(v, r, g->address, SHIM_GATE_MASKS(g), has_error ? &error : NULL);
}

void shim_bounce_callback(struct shim_vcpu *v, struct shim_regs *r, enum shim_callback which)
{
    bounce(v, r, v->callback[which].address, v->callback[which].masks, NULL);
}

void shim_deliver(struct shim_vcpu *v, struct shim_regs *r)
{
    if (unlikely(!load_acquire(&v->up)))
        sched_wait_up(v);
    if (unlikely(tlb_flush_due(v)))
        tlb_flush_serve(v);
    if (unlikely(v->nmi_pending) && !v->nmi_in_handler) {
        v->nmi_pending = false;
        /* one that nobody waits for is lost, as in Xen */
        if (v->callback[SHIM_CALLBACK_NMI].address) {
            v->nmi_in_handler = true;
            shim_bounce_callback(v, r, SHIM_CALLBACK_NMI);
        }
    }
    doorbell_attend(v);     /* may be answered at once */
    event_attend(v);
    if (evtchn_upcall_due(&shim_domain.evtchn, v->id) &&
        v->callback[SHIM_CALLBACK_EVENT].address) {
        v->status->traps[SHIM_TRAP_UPCALL]++;
        shim_bounce_callback(v, r, SHIM_CALLBACK_EVENT);
    }
    /* user space has no address for it; the kernel is told before it looks */
    if (v->kernel_mode)
        sched_runstate_attend(v);
}

/* HYPERVISOR_iret: what the guest pushed becomes its state (arch-x86/xen-x86_64.h). */
void shim_iret(struct shim_vcpu *v, struct shim_regs *r)
{
    struct vcpu_info *vi = evtchn_vcpu_info(&shim_domain.evtchn, v->id);
    bool ring1 = shim_flag(SHIM_FLAG_KERNEL_RING1);
    struct iret_context c;

    if (guest_read(&c, r->rsp, sizeof(c)))
        shim_crash(r, "the guest's IRET frame at %lx cannot be read", r->rsp);
    v->nmi_in_handler = false;
    r->rip = c.rip;
    r->rsp = c.rsp;
    r->rax = c.rax;
    if (iopl_architectural())
        v->iopl = c.rflags >> RFLAGS_IOPL_SHIFT & 3;
    r->rflags = (c.rflags & ~(uint64_t)(RFLAGS_IOPL | RFLAGS_VM)) | RFLAGS_IF | 2;
    if ((c.cs & 3) == 3) {
        if (shim_flag(SHIM_FLAG_TWO_ROOTS) && !v->user_cr3)
            shim_crash(r, "the guest goes to user mode without user page tables");
        shim_toggle_mode(v);
        r->cs = c.cs & 0xffff;
        r->ss = (c.ss & 0xffff) | 3;
    } else if (ring1) {
        uint64_t cs = c.cs & 0xfffc, ss = c.ss & 0xfffc;

        r->cs = cs == (SEL_FLAT_CODE64 & ~3) ? SEL_RING1_CODE64 : cs | 1;
        r->ss = ss == (SEL_FLAT_DATA & ~3) ? SEL_RING1_DATA : ss | 1;
    } else {
        r->cs = (c.cs & 0xffff) | 3;
        r->ss = (c.ss & 0xffff) | 3;
    }
    if (c.flags & VGCF_in_syscall) {
        if ((r->cs & 0xffff) != SEL_FLAT_CODE32)
            r->cs = v->kernel_mode && ring1 ? SEL_RING1_CODE64 : SEL_FLAT_CODE64;
        r->ss = v->kernel_mode && ring1 ? SEL_RING1_DATA : SEL_FLAT_DATA;
        r->rcx = r->rip;
        r->r11 = r->rflags;
    } else {
        r->rcx = c.rcx;
        r->r11 = c.r11;
        /* SYSRET will do where it leaves these as the guest wants them, which Linux does
         * at the end of a system call */
        if (r->rcx != r->rip || r->r11 != r->rflags)
            r->vector = 0;
    }
    store_relaxed(&vi->evtchn_upcall_mask, !(c.rflags & RFLAGS_IF));
}
