/* SPDX-License-Identifier: MIT */
/* The hypercall table, and the calls too small for a file of their own. */
#include "shim/cpu.h"
#include "shim/shim.h"

#include <xen/callback.h>
#include <xen/nmi.h>
#include <xen/sched.h>

/* Arguments are whole registers; one that Xen declares as int, unsigned or uint32_t
 * is the lower half of its own, whatever is in the upper (the casts below). */
typedef int64_t (*hypercall_fn)(struct shim_vcpu *v, const uint64_t *a);

static int64_t set_trap_table(struct shim_vcpu *v, const uint64_t *a)
{
    struct shim_batch batch = { 0 };

    if (!a[0]) {
        __builtin_memset(v->gate, 0, sizeof(v->gate));
        return 0;
    }
    for (uint64_t va = a[0]; ; va += sizeof(struct trap_info)) {
        struct trap_info t;

        if (va != a[0] && batch_over(&batch, 1))
            return hypercall_again(v, __HYPERVISOR_set_trap_table, va, 0, 0, 0);
        if (guest_read(&t, va, sizeof(t)))
            return -XEN_EFAULT;
        if (!t.address)
            return 0;
        if (!va_canonical(t.address))
            return -XEN_EINVAL;
        v->gate[t.vector] = (struct shim_gate){ .address = t.address, .cs = t.cs,
                                                .flags = t.flags };
    }
}

static int64_t hc_mmu_update(struct shim_vcpu *v, const uint64_t *a)
{
    return mmu_update(v, a[0], (uint32_t)a[1], a[2], (uint32_t)a[3]);
}

static int64_t hc_set_gdt(struct shim_vcpu *v, const uint64_t *a)
{
    return descriptor_set_gdt(v, a[0], (uint32_t)a[1]);
}

static int64_t stack_switch(struct shim_vcpu *v, const uint64_t *a)
{
    v->kernel_sp = a[1];
    return 0;
}

static int callback_set(struct shim_vcpu *v, enum shim_callback which, uint64_t address,
                        bool masks)
{
    if (!va_canonical(address))
        return -XEN_EINVAL;
    v->callback[which].address = address;
    v->callback[which].masks = masks;
    return 0;
}

static int64_t set_callbacks(struct shim_vcpu *v, const uint64_t *a)
{
    int rc = callback_set(v, SHIM_CALLBACK_EVENT, a[0], true);

    if (!rc)
        rc = callback_set(v, SHIM_CALLBACK_FAILSAFE, a[1], false);
    if (!rc)
        rc = callback_set(v, SHIM_CALLBACK_SYSCALL64, a[2], false);
    return rc;
}

/* False: a type that a 64-bit guest has not. */
static bool callback_of(unsigned type, enum shim_callback *which)
{
    switch (type) {
    case CALLBACKTYPE_event:
        *which = SHIM_CALLBACK_EVENT;
        return true;
    case CALLBACKTYPE_failsafe:
        *which = SHIM_CALLBACK_FAILSAFE;
        return true;
    case CALLBACKTYPE_syscall:
        *which = SHIM_CALLBACK_SYSCALL64;
        return true;
    case CALLBACKTYPE_nmi:
        *which = SHIM_CALLBACK_NMI;
        return true;
    case CALLBACKTYPE_sysenter:
        *which = SHIM_CALLBACK_SYSENTER;
        return true;
    case CALLBACKTYPE_syscall32:
        *which = SHIM_CALLBACK_SYSCALL32;
        return true;
    default:
        return false;
    }
}

static int64_t callback_op(struct shim_vcpu *v, const uint64_t *a)
{
    struct callback_register reg;
    struct callback_unregister unreg;
    enum shim_callback which;

    switch ((uint32_t)a[0]) {
    case CALLBACKOP_register:
        if (guest_read(&reg, a[1], sizeof(reg)))
            return -XEN_EFAULT;
        if (!va_canonical(reg.address))
            return -XEN_EINVAL;
        if (!callback_of(reg.type, &which))
            return -XEN_ENOSYS;
        return callback_set(v, which, reg.address,
                            which == SHIM_CALLBACK_EVENT || which == SHIM_CALLBACK_NMI ||
                            (reg.flags & CALLBACKF_mask_events));
    case CALLBACKOP_unregister:
        if (guest_read(&unreg, a[1], sizeof(unreg)))
            return -XEN_EFAULT;
        if (!callback_of(unreg.type, &which))
            return -XEN_ENOSYS;
        return which == SHIM_CALLBACK_NMI ? callback_set(v, which, 0, false) : -XEN_EINVAL;
    default:
        return -XEN_ENOSYS;
    }
}

static int64_t fpu_taskswitch(struct shim_vcpu *v, const uint64_t *a)
{
    v->cr0_ts = (uint32_t)a[0] != 0;
    if (v->cr0_ts)
        write_cr0(read_cr0() | CR0_TS);
    else
        cpu_clts();
    return 0;
}

static int64_t set_debugreg(struct shim_vcpu *v, const uint64_t *a)
{
    return emulate_debugreg_set(v, (uint32_t)a[0], a[1]);
}

static int64_t get_debugreg(struct shim_vcpu *v, const uint64_t *a)
{
    return emulate_debugreg_get(v, (uint32_t)a[0]);
}

static int64_t update_descriptor(struct shim_vcpu *v, const uint64_t *a)
{
    return descriptor_update(a[0], a[1]);
}

static int64_t hc_memory_op(struct shim_vcpu *v, const uint64_t *a)
{
    return memory_op(v, a[0], a[1]);
}

static int64_t update_va_mapping(struct shim_vcpu *v, const uint64_t *a)
{
    return mmu_update_va_mapping(v, a[0], a[1], a[2]);
}

static int64_t update_va_mapping_otherdomain(struct shim_vcpu *v, const uint64_t *a)
{
    int64_t rc = mmu_foreign((domid_t)a[3]);

    return rc ? rc : update_va_mapping(v, a);
}

static int64_t set_timer_op(struct shim_vcpu *v, const uint64_t *a)
{
    return time_set_singleshot(v, a[0], false);
}

static int64_t hc_xen_version(struct shim_vcpu *v, const uint64_t *a)
{
    return xen_version((uint32_t)a[0], a[1]);
}

static int64_t hc_console_io(struct shim_vcpu *v, const uint64_t *a)
{
    return console_io(v, (uint32_t)a[0], (uint32_t)a[1], a[2]);
}

static int64_t hc_grant_table_op(struct shim_vcpu *v, const uint64_t *a)
{
    return grant_table_op(v, (uint32_t)a[0], a[1], (uint32_t)a[2]);
}

static int64_t vm_assist(struct shim_vcpu *v, const uint64_t *a)
{
    /* 4gb_segments*, pae_extended_cr3: nothing to do in 64 bits; m2p_strict: as always */
    const uint64_t known = (uint64_t)1 << VMASST_TYPE_4gb_segments |
                           (uint64_t)1 << VMASST_TYPE_4gb_segments_notify |
                           (uint64_t)1 << VMASST_TYPE_writable_pagetables |
                           (uint64_t)1 << VMASST_TYPE_pae_extended_cr3 |
                           (uint64_t)1 << VMASST_TYPE_architectural_iopl |
                           (uint64_t)1 << VMASST_TYPE_runstate_update_flag |
                           (uint64_t)1 << VMASST_TYPE_m2p_strict;
    uint32_t type = (uint32_t)a[1];

    if (type > 63 || !(known >> type & 1))
        return -XEN_EINVAL;
    switch ((uint32_t)a[0]) {
    case VMASST_CMD_enable:
        fetch_or(&shim_domain.vm_assist, (uint64_t)1 << type);
        return 0;
    case VMASST_CMD_disable:
        fetch_and(&shim_domain.vm_assist, ~((uint64_t)1 << type));
        return 0;
    default:
        return -XEN_ENOSYS;
    }
}

static int64_t hc_vcpu_op(struct shim_vcpu *v, const uint64_t *a)
{
    return vcpu_op(v, (uint32_t)a[0], (uint32_t)a[1], a[2]);
}

static int64_t set_segment_base(struct shim_vcpu *v, const uint64_t *a)
{
    static const uint32_t msr[] = {
        [SEGBASE_FS] = MSR_FS_BASE, [SEGBASE_GS_USER] = MSR_KERNEL_GS_BASE,
        [SEGBASE_GS_KERNEL] = MSR_GS_BASE,
    };

    uint32_t which = (uint32_t)a[0];

    if (which == SEGBASE_GS_USER_SEL) {
        load_gs_raw((uint16_t)a[1]);        /* a bad one is the null selector, says Xen */
        return 0;
    }
    if (which >= array_size(msr) || !va_canonical(a[1]))
        return -XEN_EINVAL;
    wrmsr(msr[which], a[1]);
    return 0;
}

static int64_t hc_mmuext_op(struct shim_vcpu *v, const uint64_t *a)
{
    return mmuext_op(v, a[0], (uint32_t)a[1], a[2], (uint32_t)a[3]);
}

static int64_t hc_sched_op(struct shim_vcpu *v, const uint64_t *a)
{
    return sched_op(v, (uint32_t)a[0], a[1]);
}

static int64_t hc_event_channel_op(struct shim_vcpu *v, const uint64_t *a)
{
    return event_channel_op(v, (uint32_t)a[0], a[1]);
}

static int64_t nmi_op(struct shim_vcpu *v, const uint64_t *a)
{
    struct xennmi_callback cb;

    switch ((uint32_t)a[0]) {
    case XENNMI_register_callback:
        if (guest_read(&cb, a[1], sizeof(cb)))
            return -XEN_EFAULT;
        return callback_set(v, SHIM_CALLBACK_NMI, cb.handler_address, true);
    case XENNMI_unregister_callback:
        return callback_set(v, SHIM_CALLBACK_NMI, 0, false);
    default:
        return -XEN_ENOSYS;
    }
}

static int64_t hc_physdev_op(struct shim_vcpu *v, const uint64_t *a)
{
    return physdev_op(v, (uint32_t)a[0], a[1]);
}

static int64_t hc_hvm_op(struct shim_vcpu *v, const uint64_t *a)
{
    return hvm_op(a[0], a[1]);
}

static int64_t hc_dm_op(struct shim_vcpu *v, const uint64_t *a)
{
    return dm_op((domid_t)a[0], (uint32_t)a[1], a[2]);
}

/* The forms from before Xen 3.0.2, which have the command in the argument; what follows
 * it is the same. */
#define COMPAT_ARG_OFFSET 8

static int64_t event_channel_op_compat(struct shim_vcpu *v, const uint64_t *a)
{
    uint32_t cmd;

    if (guest_read(&cmd, a[0], sizeof(cmd)))
        return -XEN_EFAULT;
    return event_channel_op(v, cmd, a[0] + COMPAT_ARG_OFFSET);
}

static int64_t physdev_op_compat(struct shim_vcpu *v, const uint64_t *a)
{
    uint32_t cmd;

    if (guest_read(&cmd, a[0], sizeof(cmd)))
        return -XEN_EFAULT;
    return physdev_op(v, cmd, a[0] + COMPAT_ARG_OFFSET);
}

static int64_t sched_op_compat(struct shim_vcpu *v, const uint64_t *a)
{
    switch ((uint32_t)a[0]) {
    case SCHEDOP_yield:
    case SCHEDOP_block:
        return sched_op(v, (uint32_t)a[0], 0);
    case SCHEDOP_shutdown:
        doorbell_flush(v);
        shim_shutdown((uint8_t)a[1]);
    default:
        return -XEN_ENOSYS;
    }
}

static int64_t not_permitted(struct shim_vcpu *v, const uint64_t *a)
{
    return -XEN_EPERM;
}

/* Those of the toolstack, which say first which version of the interface they are made
 * for, by their second word: Xen 4.17's are the ones that are not permitted. */
#define SYSCTL_VERSION   0x15
#define DOMCTL_VERSION   0x15
#define PLATFORM_VERSION 0x03000001

static int64_t toolstack_op(const uint64_t *a, uint32_t version)
{
    struct { uint32_t cmd, version; } op;

    if (guest_read(&op, a[0], sizeof(op)))
        return -XEN_EFAULT;
    return op.version == version ? -XEN_EPERM : -XEN_EACCES;
}

static int64_t hc_sysctl(struct shim_vcpu *v, const uint64_t *a)
{
    return toolstack_op(a, SYSCTL_VERSION);
}

static int64_t hc_domctl(struct shim_vcpu *v, const uint64_t *a)
{
    return toolstack_op(a, DOMCTL_VERSION);
}

static int64_t platform_op(struct shim_vcpu *v, const uint64_t *a)
{
    return toolstack_op(a, PLATFORM_VERSION);
}

static int64_t not_supported(struct shim_vcpu *v, const uint64_t *a)
{
    return -XEN_EOPNOTSUPP;
}

static const hypercall_fn table[SHIM_NR_HYPERCALLS] = {
    [__HYPERVISOR_set_trap_table] = set_trap_table,
    [__HYPERVISOR_mmu_update] = hc_mmu_update,
    [__HYPERVISOR_set_gdt] = hc_set_gdt,
    [__HYPERVISOR_stack_switch] = stack_switch,
    [__HYPERVISOR_set_callbacks] = set_callbacks,
    [__HYPERVISOR_fpu_taskswitch] = fpu_taskswitch,
    [__HYPERVISOR_platform_op] = platform_op,
    [__HYPERVISOR_set_debugreg] = set_debugreg,
    [__HYPERVISOR_get_debugreg] = get_debugreg,
    [__HYPERVISOR_update_descriptor] = update_descriptor,
    [__HYPERVISOR_memory_op] = hc_memory_op,
    [__HYPERVISOR_update_va_mapping] = update_va_mapping,
    [__HYPERVISOR_set_timer_op] = set_timer_op,
    [__HYPERVISOR_xen_version] = hc_xen_version,
    [__HYPERVISOR_console_io] = hc_console_io,
    [__HYPERVISOR_grant_table_op] = hc_grant_table_op,
    [__HYPERVISOR_vm_assist] = vm_assist,
    [__HYPERVISOR_update_va_mapping_otherdomain] = update_va_mapping_otherdomain,
    [__HYPERVISOR_vcpu_op] = hc_vcpu_op,
    [__HYPERVISOR_set_segment_base] = set_segment_base,
    [__HYPERVISOR_mmuext_op] = hc_mmuext_op,
    [__HYPERVISOR_sched_op] = hc_sched_op,
    [__HYPERVISOR_callback_op] = callback_op,
    [__HYPERVISOR_event_channel_op] = hc_event_channel_op,
    [__HYPERVISOR_nmi_op] = nmi_op,
    [__HYPERVISOR_physdev_op] = hc_physdev_op,
    [__HYPERVISOR_sysctl] = hc_sysctl,
    [__HYPERVISOR_domctl] = hc_domctl,
    [__HYPERVISOR_kexec_op] = not_permitted,
    [__HYPERVISOR_xenpmu_op] = not_supported,
    [__HYPERVISOR_hvm_op] = hc_hvm_op,
    [__HYPERVISOR_dm_op] = hc_dm_op,
    [__HYPERVISOR_hypfs_op] = not_permitted,
    [__HYPERVISOR_sched_op_compat] = sched_op_compat,
    [__HYPERVISOR_event_channel_op_compat] = event_channel_op_compat,
    [__HYPERVISOR_physdev_op_compat] = physdev_op_compat,
};

static int64_t call(struct shim_vcpu *v, uint64_t nr, const uint64_t *a)
{
    if (nr >= array_size(table) || !table[nr])
        return -XEN_ENOSYS;
    v->status->hypercalls[nr]++;
    return table[nr](v, a);
}

static void iret(struct shim_vcpu *v, struct shim_regs *r)
{
    v->status->hypercalls[__HYPERVISOR_iret]++;
    shim_iret(v, r);
}

/* An entry may be anything: a system call's worth, or as much as stops by itself. */
#define MULTICALL_COST 4

/* The guest makes call nr next: see batch.c. */
static void call_again(struct shim_regs *r, uint64_t nr, uint64_t a0, uint64_t a1)
{
    r->rip -= SYSCALL_BYTES;
    r->rax = nr;
    r->rdi = a0;
    r->rsi = a1;
}

/* HYPERVISOR_multicall: the calls in turn, each with its own result.  A multicall may
 * not stand in one; an iret ends it, since what follows would be user space's. */
static __attribute__((noinline)) void multicall(struct shim_vcpu *v, struct shim_regs *r)
{
    struct shim_batch batch = { 0 };
    uint64_t list = r->rdi;
    uint32_t nr = (uint32_t)r->rsi;

    v->status->hypercalls[__HYPERVISOR_multicall]++;
    for (uint64_t i = 0; i < nr; i++) {
        uint64_t va = list + i * sizeof(struct multicall_entry);
        struct multicall_entry e;
        int64_t result;

        if (i && batch_over(&batch, MULTICALL_COST)) {
            call_again(r, __HYPERVISOR_multicall, va, nr - i);
            return;
        }
        r->rax = (uint64_t)-XEN_EFAULT;
        if (guest_read(&e, va, sizeof(e)))
            return;
        if (e.op == __HYPERVISOR_iret) {
            iret(v, r);
            return;
        }
        result = e.op == __HYPERVISOR_multicall ? -XEN_EINVAL :
                 call(v, e.op, (const uint64_t *)e.args);
        if (v->again) {
            v->again = false;
            e.op = v->again_nr;
            __builtin_memcpy(e.args, v->again_arg, sizeof(v->again_arg));
            if (guest_write(va, &e, sizeof(e)))
                return;
            call_again(r, __HYPERVISOR_multicall, va, nr - i);
            return;
        }
        if (guest_write(va + offsetof(struct multicall_entry, result), &result, sizeof(result)))
            return;
    }
    r->rax = 0;
}

void shim_hypercall(struct shim_vcpu *v, struct shim_regs *r)
{
    const uint64_t args[6] = { r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9 };
    uint64_t nr = r->rax;

    switch (nr) {
    case __HYPERVISOR_iret:
        iret(v, r);
        break;
    case __HYPERVISOR_multicall:
        multicall(v, r);
        break;
    default:
        r->rax = (uint64_t)call(v, nr, args);
        if (unlikely(v->again)) {
            v->again = false;
            call_again(r, v->again_nr, v->again_arg[0], v->again_arg[1]);
            r->rdx = v->again_arg[2];
            r->r10 = v->again_arg[3];
        }
        break;
    }
}
