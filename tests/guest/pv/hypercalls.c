/* SPDX-License-Identifier: MIT */
/* Calls that are not there, and pointers that lead nowhere: the kernel lives, and
 * is told as Xen would tell it. */
#include "pv.h"

#include <xen/callback.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/nmi.h>
#include <xen/physdev.h>
#include <xen/version.h>

#define POINTER 0xdeadbeefull       /* stands for it in a row of the table */

static const struct row {
    const char *name;
    uint64_t nr, arg[5];
    int64_t bad_read;               /* for a pointer that cannot be read */
    int64_t readonly;               /* for one that can only be read; 1: not tried */
} rows[] = {
#define ROW(call, rc, ro, ...) \
    { #call " " #__VA_ARGS__, __HYPERVISOR_##call, { __VA_ARGS__ }, rc, ro }
    ROW(set_trap_table, -XEN_EFAULT, 1, POINTER),
    ROW(mmu_update, -XEN_EFAULT, 1, POINTER, 1, 0, DOMID_SELF),
    ROW(mmu_update, -XEN_EFAULT, -XEN_EFAULT, 0, 0, POINTER, DOMID_SELF),
    ROW(mmuext_op, -XEN_EFAULT, 1, POINTER, 1, 0, DOMID_SELF),
    ROW(set_gdt, -XEN_EFAULT, 1, POINTER, 1),
    ROW(memory_op, -XEN_EFAULT, 1, XENMEM_memory_map, POINTER),
    ROW(memory_op, -XEN_EFAULT, -XEN_EFAULT, XENMEM_machphys_mapping, POINTER),
    ROW(memory_op, -XEN_EFAULT, 1, XENMEM_current_reservation, POINTER),
    ROW(memory_op, 0, 1, XENMEM_populate_physmap, POINTER),
    ROW(memory_op, 0, 1, XENMEM_increase_reservation, POINTER),
    ROW(memory_op, 0, 1, XENMEM_decrease_reservation, POINTER),
    ROW(memory_op, -XEN_EFAULT, 1, XENMEM_maximum_gpfn, POINTER),
    ROW(memory_op, -XEN_EFAULT, -XEN_EFAULT, XENMEM_exchange, POINTER),
    ROW(memory_op, -XEN_EFAULT, -XEN_EFAULT, XENMEM_machphys_mfn_list, POINTER),
    ROW(multicall, -XEN_EFAULT, -XEN_EFAULT, POINTER, 1),
    ROW(xen_version, -XEN_EFAULT, -XEN_EFAULT, XENVER_extraversion, POINTER),
    ROW(xen_version, -XEN_EFAULT, -XEN_EFAULT, XENVER_compile_info, POINTER),
    ROW(xen_version, -XEN_EFAULT, -XEN_EFAULT, XENVER_capabilities, POINTER),
    ROW(xen_version, -XEN_EFAULT, -XEN_EFAULT, XENVER_get_features, POINTER),
    ROW(xen_version, -XEN_EFAULT, -XEN_EFAULT, XENVER_guest_handle, POINTER),
    ROW(console_io, -XEN_EFAULT, 1, CONSOLEIO_write, 1, POINTER),
    ROW(grant_table_op, -XEN_EFAULT, 1, GNTTABOP_query_size, POINTER, 1),
    ROW(grant_table_op, -XEN_EFAULT, 1, GNTTABOP_setup_table, POINTER, 1),
    ROW(grant_table_op, -XEN_EFAULT, 1, GNTTABOP_map_grant_ref, POINTER, 1),
    ROW(grant_table_op, -XEN_EFAULT, 1, GNTTABOP_copy, POINTER, 1),
    ROW(vcpu_op, -XEN_EFAULT, 1, VCPUOP_initialise, 0, POINTER),
    ROW(vcpu_op, -XEN_EFAULT, 1, VCPUOP_register_vcpu_info, 0, POINTER),
    ROW(vcpu_op, -XEN_EFAULT, -XEN_EFAULT, VCPUOP_get_runstate_info, 0, POINTER),
    ROW(vcpu_op, -XEN_EFAULT, 1, VCPUOP_register_runstate_memory_area, 0, POINTER),
    ROW(vcpu_op, -XEN_EFAULT, 1, VCPUOP_set_singleshot_timer, 0, POINTER),
    ROW(vcpu_op, -XEN_EFAULT, 1, VCPUOP_set_periodic_timer, 0, POINTER),
    ROW(sched_op, -XEN_EFAULT, 1, SCHEDOP_poll, POINTER),
    ROW(sched_op, -XEN_EFAULT, 1, SCHEDOP_shutdown, POINTER),
    ROW(callback_op, -XEN_EFAULT, 1, CALLBACKOP_register, POINTER),
    ROW(callback_op, -XEN_EFAULT, 1, CALLBACKOP_unregister, POINTER),
    ROW(nmi_op, -XEN_EFAULT, 1, XENNMI_register_callback, POINTER),
    ROW(physdev_op, -XEN_EFAULT, 1, PHYSDEVOP_set_iopl, POINTER),
    ROW(event_channel_op, -XEN_EFAULT, 1, EVTCHNOP_alloc_unbound, POINTER),
    ROW(event_channel_op, -XEN_EFAULT, 1, EVTCHNOP_bind_interdomain, POINTER),
    ROW(event_channel_op, -XEN_EFAULT, 1, EVTCHNOP_bind_virq, POINTER),
    ROW(event_channel_op, -XEN_EFAULT, 1, EVTCHNOP_bind_ipi, POINTER),
    ROW(event_channel_op, -XEN_EFAULT, 1, EVTCHNOP_close, POINTER),
    ROW(event_channel_op, -XEN_EFAULT, 1, EVTCHNOP_send, POINTER),
    ROW(event_channel_op, -XEN_EFAULT, 1, EVTCHNOP_status, POINTER),
    ROW(event_channel_op, -XEN_EFAULT, 1, EVTCHNOP_bind_vcpu, POINTER),
    ROW(event_channel_op, -XEN_EFAULT, 1, EVTCHNOP_unmask, POINTER),
    ROW(sysctl, -XEN_EFAULT, 1, POINTER),
    ROW(domctl, -XEN_EFAULT, 1, POINTER),
    ROW(platform_op, -XEN_EFAULT, 1, POINTER),
#undef ROW
};

static int64_t row_call(const struct row *row, uint64_t pointer)
{
    uint64_t a[5];

    for (unsigned i = 0; i < 5; i++)
        a[i] = row->arg[i] == POINTER ? pointer : row->arg[i];
    return pv_hypercall(row->nr, a[0], a[1], a[2], a[3], a[4]);
}

static void row_check(const struct row *row, uint64_t pointer, int64_t want)
{
    int64_t rc = row_call(row, pointer);

    if (rc != want)
        pv_fail(__FILE__, __LINE__, "%s at %lx: %ld, not %ld", row->name, pointer, rc, want);
}

static void check_pointers(void)
{
    uint8_t *page = pv_page(), *next = pv_page();
    const uint64_t nowhere[] = {
        0x123456789000,                 /* nothing is mapped there */
        0x8000000000000000,             /* is no address */
        0x7fffffffffff,                 /* begins well, and ends beyond all addresses */
        0xffff800000000000,             /* Xen's own: the M2P */
        0xffff808000000000,             /* the program itself */
        0xffff810010000000,             /* its map of all memory */
        0xffff87ffffffffff,             /* its last byte */
        (uint64_t)next - 1,             /* only the first byte is there */
        ~(uint64_t)0,                   /* wraps round */
    };

    CHECK_EQ(PV_CALL(update_va_mapping, next, 0, UVMF_INVLPG), 0);
    for (unsigned i = 0; i < array_size(rows); i++)
        for (unsigned k = 0; k < array_size(nowhere); k++)
            if (nowhere[k] != (uint64_t)next - 1 || rows[i].nr != __HYPERVISOR_console_io)
                row_check(&rows[i], nowhere[k], rows[i].bad_read);
    CHECK_EQ(pv_protect(page, PTE_P | PTE_U), 0);
    for (unsigned i = 0; i < array_size(rows); i++)
        if (rows[i].readonly != 1)
            row_check(&rows[i], (uint64_t)page, rows[i].readonly);
}

static void check_flush_masks(void)
{
    uint8_t *page = pv_page();
    uint64_t pte = pv_mfn(page) << PAGE_SHIFT | PTE_P | PTE_W | PTE_U;
    struct mmuext_op op = { .cmd = MMUEXT_TLB_FLUSH_MULTI };

    CHECK_EQ(PV_CALL(update_va_mapping, page, pte, UVMF_TLB_FLUSH | 0x123456789000), -XEN_EFAULT);
    CHECK_EQ(PV_CALL(update_va_mapping, page, pte, UVMF_INVLPG | UVMF_ALL), 0);
    op.arg2.vcpumask.p = (void *)0x123456789000;
    CHECK_EQ(PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF), -XEN_EINVAL);
}

static void check_unknown(void)
{
    static const uint64_t none[] = {
        11, 27, 38, 39, 43, 47, 48, 49, 50, 55, 56, 63, 64, 100, 4095, 0xffffffff,
        0x100000000 | __HYPERVISOR_xen_version, ~(uint64_t)0,
    };

    for (unsigned i = 0; i < array_size(none); i++)
        CHECK_EQ(pv_hypercall(none[i], 0, 0, 0, 0, 0), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(xen_version, 99, 0), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(sched_op, 99, 0), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(vcpu_op, 99, 0, 0), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_is_up, 99, 0), -XEN_ENOENT);
    CHECK_EQ(PV_CALL(event_channel_op, 99, 0), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(memory_op, 63, 0), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(callback_op, 99, 0), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(grant_table_op, 99, 0, 1), -XEN_ENOSYS);
}

/* Xen's int and unsigned arguments are 32 bits of their registers. */
static void check_widths(void)
{
    const uint64_t junk = 0xabcd000000000000;

    CHECK_EQ(PV_CALL(xen_version, junk | XENVER_version, 0) >> 16, 4);
    CHECK_EQ(PV_CALL(vcpu_op, junk | VCPUOP_is_up, junk, 0), 1);
    CHECK_EQ(PV_CALL(mmu_update, 0, junk, 0, junk | DOMID_SELF), 0);
    CHECK_EQ(PV_CALL(mmuext_op, 0, junk, 0, junk | DOMID_SELF), 0);
    CHECK_EQ(PV_CALL(multicall, 0, junk), 0);
    CHECK_EQ(PV_CALL(console_io, junk | CONSOLEIO_write, junk, 0), 0);
    CHECK_EQ(PV_CALL(sched_op, junk | SCHEDOP_yield, 0), 0);
}

static void check_domains(void)
{
    const domid_t own = pv_own_domid();
    const struct { domid_t domid; int64_t rc; } owners[] = {
        { DOMID_SELF, 0 }, { own, -XEN_ESRCH }, { 12345, -XEN_ESRCH }, { 0, -XEN_EPERM },
        { DOMID_XEN, -XEN_EPERM }, { DOMID_IO, -XEN_EPERM },
    };
    uint64_t *page = pv_page(), pte = *pv_pte((uint64_t)page, 1);
    struct mmu_update u = { pv_pte_maddr((uint64_t)page, 1), pte };
    uint32_t done;

    for (unsigned i = 0; i < array_size(owners); i++) {
        CHECK_EQ(PV_CALL(mmuext_op, 0, 0, 0, owners[i].domid), owners[i].rc);
        CHECK_EQ(PV_CALL(update_va_mapping_otherdomain, page, pte, 0, owners[i].domid),
                 owners[i].rc);
        /* of those that there are, each update asks */
        CHECK_EQ(PV_CALL(mmu_update, 0, 0, 0, owners[i].domid),
                 owners[i].rc == -XEN_ESRCH ? -XEN_ESRCH : 0);
        done = 9;
        CHECK_EQ(PV_CALL(mmu_update, &u, 1, &done, owners[i].domid),
                 owners[i].domid == DOMID_IO ? -XEN_EINVAL : owners[i].rc);
        CHECK_EQ(done, owners[i].rc == -XEN_ESRCH ? 9 : !owners[i].rc);
    }
    /* and the owner of the tables */
    CHECK_EQ(PV_CALL(mmu_update, &u, 1, 0, DOMID_SELF | (own + 1) << 16), 0);
    CHECK_EQ(PV_CALL(mmu_update, &u, 1, 0, DOMID_SELF | 1 << 16), -XEN_EPERM);
    CHECK_EQ(PV_CALL(mmu_update, &u, 1, 0, DOMID_SELF | 12346 << 16), -XEN_ESRCH);
    CHECK_EQ(PV_CALL(mmu_update, &u, 1, 0, DOMID_SELF | (DOMID_SELF + 1u) << 16), -XEN_ESRCH);
    u.val = 0;
    CHECK_EQ(PV_CALL(mmu_update, &u, 1, 0, DOMID_IO), 0);
    CHECK_EQ(*pv_pte((uint64_t)page, 1), 0);
}

/* The toolstack's calls find their version first, and then nothing is permitted. */
static void check_toolstack(void)
{
    static uint32_t op[64];
    static const uint64_t nr[] = { __HYPERVISOR_sysctl, __HYPERVISOR_domctl };

    for (unsigned i = 0; i < array_size(nr); i++) {
        int64_t rc = -XEN_EACCES;

        for (op[1] = 0; op[1] < 128; op[1]++) {
            rc = pv_hypercall(nr[i], (uint64_t)op, 0, 0, 0, 0);
            if (rc != -XEN_EACCES)
                break;
        }
        CHECK(op[1] > 0 && op[1] < 128);
        CHECK_EQ(rc, -XEN_EPERM);
    }
    op[1] = 0;
    CHECK_EQ(PV_CALL(platform_op, op), -XEN_EACCES);
    op[1] = 0x03000001;
    CHECK_EQ(PV_CALL(platform_op, op), -XEN_EPERM);
}

static void check_multicall(void)
{
    struct multicall_entry e[4] = {
        { .op = __HYPERVISOR_xen_version, .args = { XENVER_version } },
        { .op = 99 },
        { .op = __HYPERVISOR_multicall },
        { .op = __HYPERVISOR_sched_op, .args = { SCHEDOP_yield } },
    };

    CHECK_EQ(PV_CALL(multicall, e, 4), 0);
    CHECK_EQ((int64_t)e[0].result >> 16, 4);
    CHECK_EQ(e[1].result, -XEN_ENOSYS);
    CHECK_EQ(e[2].result, -XEN_EINVAL);
    CHECK_EQ(e[3].result, 0);
}

static void check_page(void)
{
    int64_t rc;

    /* a call through the page Xen filled keeps all but rax */
    __asm__ volatile("mov $0x77, %%ecx; mov $0x88, %%r11d; call *%1\n"
                     "cmp $0x77, %%rcx; jne 1f; cmp $0x88, %%r11; je 2f\n"
                     "1: xor %%eax, %%eax\n2:"
                     : "=a"(rc) : "r"(hypercall_page + 32 * __HYPERVISOR_xen_version),
                       "D"((uint64_t)XENVER_version), "S"((uint64_t)0) : "rcx", "r11", "memory");
    CHECK_EQ(rc >> 16, 4);
}

void test_main(void)
{
    check_unknown();
    check_widths();
    check_pointers();
    check_flush_masks();
    check_domains();
    check_multicall();
    check_toolstack();
    check_page();
}
