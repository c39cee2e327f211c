/* SPDX-License-Identifier: MIT */
/* vCPUs: running, blocked, polling, up and down (sched_op, vcpu_op); how long they were
 * is in runstate.c. */
#include "shim/cpu.h"
#include "shim/shim.h"

#include <xen/sched.h>

static bool block_over(struct shim_vcpu *v)
{
    return event_due(v);
}

/* SCHEDOP_block: until there is an event to deliver. */
static void block(struct shim_vcpu *v)
{
    store_relaxed(&evtchn_vcpu_info(&shim_domain.evtchn, v->id)->evtchn_upcall_mask, 0);
    barrier_full();     /* unmasked before pending is read, as a sender does the reverse */
    idle_wait(v, block_over);
}

/* What ends a poll: an event on its ports, one to deliver, the timeout. */
static bool poll_over(struct shim_vcpu *v)
{
    return !evtchn_poll_waiting(&shim_domain.evtchn, v->id) || event_due(v) ||
           (v->poll_timed && v->poll_ns <= time_now_ns());
}

static int64_t poll(struct shim_vcpu *v, uint64_t arg_va)
{
    evtchn_port_t ports[EVTCHN_POLL_PORTS_MAX];
    struct sched_poll op;
    int rc;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.nr_ports > EVTCHN_POLL_PORTS_MAX)
        return -XEN_EINVAL;
    if (guest_read(ports, (uint64_t)op.ports.p, op.nr_ports * sizeof(ports[0])))
        return -XEN_EFAULT;
    rc = evtchn_poll_begin(&shim_domain.evtchn, v->id, ports, op.nr_ports);
    if (rc != EVTCHN_POLL_WAIT)
        return rc;
    v->poll_ns = op.timeout;
    v->poll_timed = op.timeout != 0;
    if (op.timeout)
        time_arm(v);
    idle_wait(v, poll_over);
    v->poll_ns = 0;
    evtchn_poll_end(&shim_domain.evtchn, v->id);
    return 0;
}

/* HYPERVISOR_sched_op (public/sched.h) */
int64_t sched_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va)
{
    struct sched_shutdown down;
    struct sched_remote_shutdown remote;

    switch (cmd) {
    case SCHEDOP_yield:
        cpu_interrupt_window();
        cpu_relax();
        return 0;
    case SCHEDOP_block:
        block(v);
        return 0;
    case SCHEDOP_poll:
        return poll(v, arg_va);
    case SCHEDOP_shutdown:
        if (guest_read(&down, arg_va, sizeof(down)))
            return -XEN_EFAULT;
        doorbell_flush(v);
        shim_shutdown(down.reason);
    case SCHEDOP_watchdog:
        return watchdog_op(v, arg_va);
    case SCHEDOP_shutdown_code:     /* a remark for a later shutdown, which has its own reason */
        return guest_read(&down, arg_va, sizeof(down));
    case SCHEDOP_remote_shutdown:
        if (guest_read(&remote, arg_va, sizeof(remote)))
            return -XEN_EFAULT;
        return remote.domain_id == shim_domain.boot->domid || peer_exists(remote.domain_id)
               ? -XEN_EPERM : -XEN_ESRCH;
    case SCHEDOP_pin_override:
        return -XEN_EPERM;
    default:
        return -XEN_ENOSYS;
    }
}

/* What a new vCPU would be loaded with can be. */
static bool context_ok(const struct vcpu_guest_context *c)
{
    const uint64_t address[] = {
        c->user_regs.rip, c->event_callback_eip, c->failsafe_callback_eip,
        c->syscall_callback_eip, c->fs_base, c->gs_base_kernel, c->gs_base_user,
    };

    for (unsigned i = 0; i < array_size(address); i++)
        if (!va_canonical(address[i]))
            return false;
    for (unsigned i = 0; i < array_size(c->trap_ctxt); i++)
        if (!va_canonical(c->trap_ctxt[i].address))
            return false;
    return mmu_frame_ok(c->ctrlreg[3] >> PAGE_SHIFT) &&
           (!c->ctrlreg[1] || mmu_frame_ok(c->ctrlreg[1] >> PAGE_SHIFT)) &&
           c->gdt_ents <= GDT_GUEST_ENTRIES && descriptor_ldt_ok(c->ldt_base, c->ldt_ents);
}

static int64_t initialise(struct shim_vcpu *t, uint64_t arg_va)
{
    struct vcpu_guest_context c;        /* some 5 KiB: fits the stack, see layout.h */
    const struct cpu_user_regs *u = &c.user_regs;
    int rc;

    /* beyond those of shared_info a vCPU needs a record of its own first */
    if (t->id >= XEN_LEGACY_MAX_VCPUS && !t->vcpu_info_placed)
        return -XEN_EINVAL;
    if (guest_read(&c, arg_va, sizeof(c)))
        return -XEN_EFAULT;
    if (t->initialised || load_acquire(&t->up))
        return -XEN_EEXIST;
    if (!context_ok(&c))
        return -XEN_EINVAL;
    rc = descriptor_set_gdt_frames(t, c.gdt_frames, (unsigned)c.gdt_ents);
    if (rc)
        return rc;
    mmu_root_prepare(c.ctrlreg[3] >> PAGE_SHIFT, false);
    if (c.ctrlreg[1] && shim_flag(SHIM_FLAG_TWO_ROOTS))
        mmu_root_prepare(c.ctrlreg[1] >> PAGE_SHIFT,
                         c.ctrlreg[1] >> PAGE_SHIFT != c.ctrlreg[3] >> PAGE_SHIFT);
    t->kernel_cr3 = c.ctrlreg[3] & ~PAGE_MASK;
    t->user_cr3 = c.ctrlreg[1] & ~PAGE_MASK;
    t->kernel_sp = c.kernel_sp;
    for (unsigned i = 0; i < 256; i++)
        t->gate[i] = (struct shim_gate){ .address = c.trap_ctxt[i].address,
                                         .cs = c.trap_ctxt[i].cs,
                                         .flags = c.trap_ctxt[i].flags };
    t->callback[SHIM_CALLBACK_EVENT].address = c.event_callback_eip;
    t->callback[SHIM_CALLBACK_EVENT].masks = true;
    t->callback[SHIM_CALLBACK_FAILSAFE].address = c.failsafe_callback_eip;
    t->callback[SHIM_CALLBACK_FAILSAFE].masks = c.flags & VGCF_failsafe_disables_events;
    t->callback[SHIM_CALLBACK_SYSCALL64].address = c.syscall_callback_eip;
    t->callback[SHIM_CALLBACK_SYSCALL64].masks = c.flags & VGCF_syscall_disables_events;
    t->start = (struct shim_regs){
        .r15 = u->r15, .r14 = u->r14, .r13 = u->r13, .r12 = u->r12, .rbp = u->rbp,
        .rbx = u->rbx, .r11 = u->r11, .r10 = u->r10, .r9 = u->r9, .r8 = u->r8,
        .rax = u->rax, .rcx = u->rcx, .rdx = u->rdx, .rsi = u->rsi, .rdi = u->rdi,
        .rip = u->rip, .rflags = u->rflags, .rsp = u->rsp, .cs = u->cs, .ss = u->ss,
    };
    t->iopl = u->rflags >> RFLAGS_IOPL_SHIFT & 3;
    t->fs_base = c.fs_base;
    t->gs_base_kernel = c.gs_base_kernel;
    t->gs_base_user = c.gs_base_user;
    for (unsigned i = 0; i < 8; i++)
        t->debugreg[i] = c.debugreg[i];
    t->cr4 = c.ctrlreg[4];
    t->ldt_base = c.ldt_base;
    t->ldt_entries = (unsigned)c.ldt_ents;
    t->initialised = true;
    return 0;
}

/* A vCPU that is not up runs on the shim's own page table, since the guest may
 * free any of its own. */
void sched_wait_up(struct shim_vcpu *v)
{
    sched_runstate(v, RUNSTATE_offline);
    doorbell_flush(v);
    write_cr3(shim_domain.boot->parking_cr3);
    store_relaxed(&v->waker->state, XEN_HOSTWAKER_HALTED);
    while (!load_acquire(&v->up))       /* pairs with VCPUOP_up */
        shim_halt();
    store_relaxed(&v->waker->state, XEN_HOSTWAKER_RUNNING);
    mmu_load_root(v);
    sched_runstate(v, RUNSTATE_running);
    if (v->kernel_mode)
        sched_runstate_publish(v);
}

static int64_t down(struct shim_vcpu *v, struct shim_vcpu *t)
{
    uint64_t bit = (uint64_t)1 << t->id;

    if (fetch_and(&shim_domain.status->vcpus_up, ~bit) == bit)
        shim_shutdown(SHUTDOWN_poweroff);   /* the last one, as Xen judges it */
    store_release(&t->up, 0);
    if (t != v)
        apic_ipi(t->id, SHIM_VECTOR_KICK);  /* it stops on its way to the guest */
    return 0;
}

static int64_t up(struct shim_vcpu *t)
{
    if (!t->initialised)
        return -XEN_EINVAL;
    fetch_or(&shim_domain.status->vcpus_up, (uint64_t)1 << t->id);
    store_release(&t->up, 1);           /* pairs with sched_wait_up() */
    apic_ipi(t->id, SHIM_VECTOR_KICK);
    return 0;
}

static int64_t register_vcpu_info(const struct shim_vcpu *v, struct shim_vcpu *t,
                                  uint64_t arg_va)
{
    struct vcpu_register_vcpu_info op;
    struct vcpu_info *vi;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.offset > PAGE_SIZE - sizeof(*vi) || (op.offset & 7) || !mmu_frame_ok(op.mfn))
        return -XEN_EINVAL;
    /* another vCPU's only while it is not up: it may be looking at the old one */
    if (t->vcpu_info_placed || (t != v && load_acquire(&t->up)))
        return -XEN_EINVAL;
    vi = (struct vcpu_info *)((uint8_t *)shim_dm(op.mfn << PAGE_SHIFT) + op.offset);
    t->vcpu_info_placed = true;
    evtchn_vcpu_info_set(&shim_domain.evtchn, t->id, vi);
    time_publish(t->id, vi);
    return 0;
}

static int64_t register_runstate(struct shim_vcpu *v, struct shim_vcpu *t, uint64_t arg_va)
{
    struct vcpu_register_runstate_memory_area op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (!guest_range_ok(op.addr.p, sizeof(t->runstate)))
        return -XEN_EFAULT;
    t->runstate_va = op.addr.p;
    if (t == v)
        sched_runstate(v, RUNSTATE_running);
    sched_runstate_publish(t);
    return 0;
}

/* A copy of the vCPU's time record at an address of the guest's choosing, which
 * Linux shows its vDSO.  The record never changes: see time.c. */
static int64_t register_time(struct shim_vcpu *t, uint64_t arg_va)
{
    struct vcpu_register_time_memory_area op;
    struct vcpu_info vi = { .time.version = 0 };

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (!guest_range_ok(op.addr.p, sizeof(vi.time)))
        return -XEN_EFAULT;
    time_publish(t->id, &vi);
    guest_write(op.addr.p, &vi.time, sizeof(vi.time));      /* it may be mapped later */
    return 0;
}

static int64_t set_timer(struct shim_vcpu *v, struct shim_vcpu *t, uint64_t cmd, uint64_t arg_va)
{
    struct vcpu_set_singleshot_timer single;
    struct vcpu_set_periodic_timer periodic;

    if (cmd == VCPUOP_set_periodic_timer) {
        int64_t rc;

        if (guest_read(&periodic, arg_va, sizeof(periodic)))
            return -XEN_EFAULT;
        rc = time_set_periodic(t, periodic.period_ns);
        if (!rc && t == v)
            time_arm(v);
        else if (!rc)
            apic_ipi(t->id, SHIM_VECTOR_KICK);      /* it arms its own LAPIC */
        return rc;
    }
    if (t != v)
        return -XEN_EINVAL;
    switch (cmd) {
    case VCPUOP_set_singleshot_timer:
        if (guest_read(&single, arg_va, sizeof(single)))
            return -XEN_EFAULT;
        /* only HYPERVISOR_set_timer_op knows "never": here 0 is long past */
        return time_set_singleshot(v, max_of(single.timeout_abs_ns, 1ul),
                                   single.flags & VCPU_SSHOTTMR_future);
    default:
        return time_set_singleshot(v, 0, false);
    }
}

/* HYPERVISOR_vcpu_op (public/vcpu.h) */
int64_t vcpu_op(struct shim_vcpu *v, uint64_t cmd, uint64_t vcpuid, uint64_t arg_va)
{
    struct vcpu_runstate_info runstate;
    struct shim_vcpu *t;

    if (vcpuid >= shim_domain.boot->nr_vcpus)
        return -XEN_ENOENT;
    t = shim_vcpu((unsigned)vcpuid);
    switch (cmd) {
    case VCPUOP_initialise:
        return initialise(t, arg_va);
    case VCPUOP_up:
        return up(t);
    case VCPUOP_down:
        return down(v, t);
    case VCPUOP_is_up:
        return load_acquire(&t->up) != 0;
    case VCPUOP_get_runstate_info:
        if (t == v)
            sched_runstate_attend(v);
        runstate = t->runstate;
        runstate.time[runstate.state] += time_now_ns() - runstate.state_entry_time;
        return guest_write(arg_va, &runstate, sizeof(runstate));
    case VCPUOP_register_runstate_memory_area:
        return register_runstate(v, t, arg_va);
    case VCPUOP_set_periodic_timer:
    case VCPUOP_set_singleshot_timer:
    case VCPUOP_stop_singleshot_timer:
        return set_timer(v, t, cmd, arg_va);
    case VCPUOP_stop_periodic_timer:
        t->periodic_next_ns = 0;
        t->periodic_ns = 0;
        return 0;
    case VCPUOP_register_vcpu_info:
        return register_vcpu_info(v, t, arg_va);
    case VCPUOP_register_vcpu_time_memory_area:
        return register_time(t, arg_va);
    case VCPUOP_get_physid:     /* for domain 0, with its vCPUs pinned */
        return -XEN_EINVAL;
    case VCPUOP_send_nmi:
        if (arg_va)
            return -XEN_EINVAL;
        t->nmi_pending = true;
        if (t != v)
            apic_ipi(t->id, SHIM_VECTOR_KICK);
        return 0;
    default:
        return -XEN_ENOSYS;
    }
}
