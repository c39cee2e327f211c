/* SPDX-License-Identifier: MIT */
/* Random hypercalls with random arguments, from a seed on the command line.  Their
 * results are nobody's concern: the kernel is still there afterwards, and so is Xen.
 *
 * Left out is what ends or rightly breaks any domain: shutdown, a stop of the only
 * vCPU or a wait that nothing ends, an iret, changes of the tables and memory the
 * kernel itself runs on, of its stack and handlers.  Arguments prefer what is nearly
 * right: small numbers, pages of its own, edges of the address space. */
#include "pv.h"

#include <xen/callback.h>
#include <xen/memory.h>

#define CALLS 20000

static uint64_t state;
static uint64_t *arena[4];              /* pages that arguments point into */

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t below(uint64_t n)
{
    return next() % n;
}

static uint64_t frame(void)
{
    static const uint64_t odd[] = { 0, 1, 0x10000, 0x10200, 0xfee00, 0xfffffffff, ~(uint64_t)0 };

    return below(4) ? pv_mfn(arena[below(4)]) : odd[below(array_size(odd))];
}

static uint64_t pointer(void)
{
    static const uint64_t edge[] = {
        0, 0xfff, 0x7fffffffffff, 0x800000000000, 0xffff7fffffffffff, 0xffff800000000000,
        0xffff808000000000, 0xffff810000000000, 0xffff87fffffffff8, 0xffff880000000000,
        0xfffffffffffff000, ~(uint64_t)0,
    };

    return below(4) ? (uint64_t)arena[below(4)] + below(PAGE_SIZE) : edge[below(array_size(edge))];
}

static uint64_t value(void)
{
    switch (below(8)) {
    case 0: return below(4);
    case 1: return below(64);
    case 2: return (uint64_t)1 << below(64);
    case 3: return next();
    case 4: return frame();
    case 5: return DOMID_SELF;
    case 6: return -below(8);
    default: return pointer();
    }
}

static void fill_arena(void)
{
    for (unsigned i = 0; i < 64; i++)
        arena[below(4)][below(512)] = value();
    for (unsigned i = 0; i < 64; i++)
        ((uint32_t *)arena[below(4)])[below(1024)] = (uint32_t)value();
}

static const uint8_t calls[] = {
    __HYPERVISOR_mmu_update, __HYPERVISOR_set_gdt, __HYPERVISOR_fpu_taskswitch,
    __HYPERVISOR_platform_op, __HYPERVISOR_set_debugreg, __HYPERVISOR_get_debugreg,
    __HYPERVISOR_update_descriptor, __HYPERVISOR_memory_op, __HYPERVISOR_set_timer_op,
    __HYPERVISOR_xen_version, __HYPERVISOR_console_io, __HYPERVISOR_grant_table_op,
    __HYPERVISOR_vm_assist, __HYPERVISOR_vcpu_op, __HYPERVISOR_set_segment_base,
    __HYPERVISOR_mmuext_op, __HYPERVISOR_sched_op, __HYPERVISOR_callback_op,
    __HYPERVISOR_event_channel_op, __HYPERVISOR_nmi_op, __HYPERVISOR_physdev_op,
    __HYPERVISOR_sysctl, __HYPERVISOR_domctl, __HYPERVISOR_kexec_op, __HYPERVISOR_xenpmu_op,
    __HYPERVISOR_hvm_op, __HYPERVISOR_xsm_op, __HYPERVISOR_argo_op, 60,
    __HYPERVISOR_dm_op, __HYPERVISOR_event_channel_op_compat, __HYPERVISOR_physdev_op_compat,
};

/* Frames for frames: those of the kernel are mapped, and nobody's to take; the last ones
 * of memory, which hold nothing, may go. */
static struct xen_memory_exchange *exchange(void)
{
    struct xen_memory_exchange *x = (void *)arena[1];
    uint64_t last = pv_start_info->nr_pages - 1;

    for (unsigned i = 0; i < 64; i++)
        arena[2][i] = below(4) ? ((const uint64_t *)pv_start_info->mfn_list)[last - below(64)] :
                      value();
    *x = (struct xen_memory_exchange){
        .in = { .extent_start.p = (xen_pfn_t *)arena[2], .nr_extents = 1ul << below(4),
                .extent_order = (unsigned)below(4), .domid = DOMID_SELF },
        .out = { .extent_start.p = (xen_pfn_t *)arena[below(4)], .domid = DOMID_SELF },
        .nr_exchanged = below(8) ? 0 : value(),
    };
    x->out.nr_extents = below(8) ? x->in.nr_extents : value();
    x->out.extent_order = below(8) ? x->in.extent_order : (unsigned)below(12);
    if (below(2)) {             /* the other way round */
        x->out.nr_extents = 1;
        x->out.extent_order = (unsigned)__builtin_ctzl(x->in.nr_extents) + x->in.extent_order;
    }
    return x;
}

/* Shapes a call so that it stays within the bounds above; false: leave it out. */
static bool tame(uint64_t nr, uint64_t a[5])
{
    struct mmu_update *u = (void *)arena[0];
    struct mmuext_op *op = (void *)arena[1];

    switch (nr) {
    case __HYPERVISOR_mmu_update:
        /* entries of a page that is no table in use */
        for (unsigned i = 0; i < 8; i++)
            u[i] = (struct mmu_update){ .ptr = frame() << PAGE_SHIFT | below(PAGE_SIZE),
                                        .val = value() };
        a[0] = below(8) ? (uint64_t)u : pointer();
        if (a[0] != (uint64_t)u && below(2))
            a[0] = 0x123456789000;
        a[1] = below(10);
        a[3] = below(4) ? DOMID_SELF : a[3];
        return a[0] == (uint64_t)u || a[0] == 0x123456789000;
    case __HYPERVISOR_mmuext_op:
        *op = (struct mmuext_op){ .cmd = (unsigned)below(24), .arg1.mfn = value() };
        op->arg2.src_mfn = value();
        if (op->cmd == MMUEXT_NEW_BASEPTR || op->cmd == MMUEXT_CLEAR_PAGE ||
            op->cmd == MMUEXT_COPY_PAGE || op->cmd == MMUEXT_NEW_USER_BASEPTR)
            op->arg1.mfn = op->cmd == MMUEXT_NEW_BASEPTR ? ~(uint64_t)0 : pv_mfn(arena[3]);
        a[0] = (uint64_t)op;
        a[1] = below(2);
        a[2] = below(2) ? 0 : a[2];
        a[3] = below(4) ? DOMID_SELF : a[3];
        return true;
    case __HYPERVISOR_update_descriptor:
        a[0] = frame() << PAGE_SHIFT | below(PAGE_SIZE);
        return true;
    case __HYPERVISOR_memory_op:
        a[0] = below(3) ? below(32) : XENMEM_exchange;
        if (a[0] == XENMEM_exchange)
            a[1] = (uint64_t)exchange();
        return a[0] != XENMEM_decrease_reservation && a[0] != XENMEM_populate_physmap &&
               a[0] != XENMEM_increase_reservation;
    case __HYPERVISOR_sched_op:
        a[0] = below(12);
        if (a[0] == SCHEDOP_poll) {
            struct sched_poll *p = (void *)arena[2];

            *p = (struct sched_poll){ .ports.p = (void *)pointer(), .nr_ports = (unsigned)below(4),
                                      .timeout = 1 + below(1000) };
            a[1] = (uint64_t)p;
        }
        return a[0] != SCHEDOP_block && a[0] != SCHEDOP_shutdown && a[0] != SCHEDOP_watchdog;
    case __HYPERVISOR_vcpu_op:
        a[0] = below(16);
        a[1] = below(3);
        return a[0] != VCPUOP_down;
    case __HYPERVISOR_callback_op: {
        struct callback_register *r = (void *)arena[2];

        /* any address but a good one for what is in use */
        *r = (struct callback_register){ .type = (uint16_t)below(16),
                                         .flags = (uint16_t)below(4), .address = value() };
        a[1] = (uint64_t)r;
        return r->type != CALLBACKTYPE_event && r->type != CALLBACKTYPE_nmi;
    }
    case __HYPERVISOR_nmi_op:
        a[0] = 1 + below(4);
        return true;
    case __HYPERVISOR_console_io:
        a[0] = 1 + below(4);
        return true;
    case __HYPERVISOR_grant_table_op:
    case __HYPERVISOR_event_channel_op:
        a[0] = below(20);
        a[2] = below(3);
        return true;
    case __HYPERVISOR_set_debugreg:
        a[0] = below(10);
        return a[0] != 7 && a[0] != 5;  /* its other name: a breakpoint is a trap anywhere */
    case __HYPERVISOR_xen_version:
        a[0] = below(14);
        return true;
    default:
        return true;
    }
}

static void check_alive(void)
{
    CHECK_EQ(PV_CALL(xen_version, 0, 0) >> 16, 4);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_is_up, 0, 0), 1);
}

void test_main(void)
{
    const char *p = (const char *)pv_start_info->cmd_line;

    for (state = 0x9e3779b97f4a7c15; *p; p++)
        state = state * 31 + (uint8_t)*p;
    for (unsigned i = 0; i < array_size(arena); i++)
        arena[i] = pv_page();
    *pv_event_mask() = 1;
    for (unsigned i = 0; i < CALLS; i++) {
        uint64_t nr = below(16) ? calls[below(array_size(calls))] : below(128) + 64, a[5];

        fill_arena();
        for (unsigned k = 0; k < 5; k++)
            a[k] = value();
        if (!tame(nr, a))
            continue;
        pv_hypercall(nr, a[0], a[1], a[2], a[3], a[4]);
        /* nothing above may unmask events for good */
        *pv_event_mask() = 1;
        if (i % 256 == 0)
            check_alive();
    }
    check_alive();
}
