/* SPDX-License-Identifier: MIT */
/* The answers of Xen 4.17 to a domain without privileges, call by call: those that few
 * kernels make, with what is wrong or not theirs to ask. */
#define __XEN_TOOLS__ 1         /* calls of toolstacks */
#include "pv.h"

#include <xen/callback.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/memory.h>
#include <xen/nmi.h>
#include <xen/physdev.h>
#include <xen/version.h>

#define NOWHERE 0x123456789000
#define NOT_CANONICAL 0x800000000000

static void check_version(void)
{
    static char text[1024];
    struct xen_feature_info f = { .submap_idx = 0 };

    CHECK_EQ(PV_CALL(xen_version, XENVER_pagesize, 0), 4096);
    CHECK_EQ(PV_CALL(xen_version, XENVER_pagesize, text), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(xen_version, XENVER_build_id, 0), -XEN_EPERM);
    CHECK_EQ(PV_CALL(xen_version, XENVER_build_id, text), -XEN_EPERM);
    text[9] = 'x';
    CHECK_EQ(PV_CALL(xen_version, XENVER_commandline, text), 0);
    CHECK(text[0] == '<' && text[7] == '>' && !text[8] && text[9] == 'x');
    CHECK_EQ(PV_CALL(xen_version, XENVER_changeset, text), 0);
    CHECK_EQ(PV_CALL(xen_version, XENVER_build_id + 1, text), -XEN_ENOSYS);

    CHECK_EQ(PV_CALL(xen_version, XENVER_get_features, &f), 0);
    CHECK(f.submap & 1u << XENFEAT_memory_op_vnode_supported);
    CHECK(f.submap & 1u << XENFEAT_mmu_pt_update_preserve_ad);
    CHECK(!(f.submap & (1u << XENFEAT_auto_translated_physmap | 1u << XENFEAT_dom0 |
                        1u << XENFEAT_writable_page_tables | 1u << XENFEAT_not_direct_mapped |
                        1u << XENFEAT_pae_pgdir_above_4gb)));
    CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_enable, VMASST_TYPE_pae_extended_cr3), 0);
    CHECK_EQ(PV_CALL(xen_version, XENVER_get_features, &f), 0);
    CHECK(f.submap & 1u << XENFEAT_pae_pgdir_above_4gb);
    CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_disable, VMASST_TYPE_pae_extended_cr3), 0);
    f.submap_idx = 1;
    CHECK_EQ(PV_CALL(xen_version, XENVER_get_features, &f), -XEN_EINVAL);
}

static void check_vm_assist(void)
{
    static const unsigned known[] = {
        VMASST_TYPE_4gb_segments, VMASST_TYPE_4gb_segments_notify,
        VMASST_TYPE_writable_pagetables, VMASST_TYPE_runstate_update_flag,
        VMASST_TYPE_m2p_strict,
    };

    for (unsigned i = 0; i < array_size(known); i++) {
        CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_enable, known[i]), 0);
        CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_disable, known[i]), 0);
        CHECK_EQ(PV_CALL(vm_assist, 2, known[i]), -XEN_ENOSYS);
    }
    CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_enable, 31), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(vm_assist, VMASST_CMD_enable, 64), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(vm_assist, 2, 64), -XEN_EINVAL);
}

static void check_callbacks(void)
{
    static const unsigned known[] = { CALLBACKTYPE_event, CALLBACKTYPE_failsafe,
                                      CALLBACKTYPE_syscall, CALLBACKTYPE_sysenter,
                                      CALLBACKTYPE_syscall32 };
    static const unsigned unknown[] = { 3, 6, 8, 0xffff };
    struct callback_unregister u = { 0 };
    struct xennmi_callback nmi = { .handler_address = NOT_CANONICAL };

    for (unsigned i = 0; i < array_size(known); i++) {
        u.type = (uint16_t)known[i];
        CHECK_EQ(PV_CALL(callback_op, CALLBACKOP_unregister, &u), -XEN_EINVAL);
        CHECK_EQ(pv_callback(known[i], (void *)NOT_CANONICAL, 0), -XEN_EINVAL);
    }
    for (unsigned i = 0; i < array_size(unknown); i++) {
        u.type = (uint16_t)unknown[i];
        CHECK_EQ(PV_CALL(callback_op, CALLBACKOP_unregister, &u), -XEN_ENOSYS);
        CHECK_EQ(pv_callback(unknown[i], pv_entries[PV_EVENT], 0), -XEN_ENOSYS);
        CHECK_EQ(pv_callback(unknown[i], (void *)NOT_CANONICAL, 0), -XEN_EINVAL);
    }
    CHECK_EQ(PV_CALL(nmi_op, XENNMI_register_callback, &nmi), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(nmi_op, XENNMI_unregister_callback, 0), 0);
    CHECK_EQ(PV_CALL(nmi_op, XENNMI_unregister_callback, 0), 0);
    CHECK_EQ(PV_CALL(nmi_op, 2, &nmi), -XEN_ENOSYS);
    CHECK_EQ(pv_callback(CALLBACKTYPE_nmi, pv_entries[PV_NMI], 0), 0);
}

static void check_vcpu_op(void)
{
    struct vcpu_set_periodic_timer p = { .period_ns = ~(uint64_t)0 };
    struct vcpu_register_time_memory_area time = { .addr.p = NOWHERE };
    struct vcpu_get_physid physid;

    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_set_periodic_timer, 0, &p), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_get_physid, 0, &physid), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_send_nmi, 0, &physid), -XEN_EINVAL);
    CHECK_EQ(pv_nr_nmis, 0);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_send_nmi, 0, 0), 0);
    CHECK_EQ(pv_nr_nmis, 1);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_register_vcpu_time_memory_area, 0, &time), 0);
    time.addr.p = (uint64_t)PV_M2P;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_register_vcpu_time_memory_area, 0, &time), -XEN_EFAULT);
    CHECK_EQ(PV_CALL(vcpu_op, 99, 1, 0), -XEN_ENOENT);
}

static void check_sched_op(void)
{
    struct sched_remote_shutdown remote = { .domain_id = 12345 };

    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_remote_shutdown, NOWHERE), -XEN_EFAULT);
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_remote_shutdown, &remote), -XEN_ESRCH);
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_shutdown_code, NOWHERE), -XEN_EFAULT);
    CHECK_EQ(PV_CALL(sched_op_compat, SCHEDOP_yield, 0), 0);
    CHECK_EQ(PV_CALL(sched_op_compat, SCHEDOP_poll, 0), -XEN_ENOSYS);
}

static void check_physdev_op(void)
{
    static union { uint32_t word[64]; struct physdev_set_iobitmap ports; } op;
    static const struct { unsigned cmd; int64_t rc; } rows[] = {
        { PHYSDEVOP_eoi, -XEN_EINVAL }, { PHYSDEVOP_apic_read, -XEN_EPERM },
        { PHYSDEVOP_apic_write, -XEN_EPERM }, { PHYSDEVOP_alloc_irq_vector, -XEN_EPERM },
        { PHYSDEVOP_map_pirq, -XEN_EPERM }, { PHYSDEVOP_setup_gsi, -XEN_EPERM },
        { PHYSDEVOP_manage_pci_add, -XEN_EPERM }, { PHYSDEVOP_manage_pci_remove, -XEN_EPERM },
        { PHYSDEVOP_unmap_pirq, -XEN_EPERM }, { PHYSDEVOP_pci_device_add, -XEN_EPERM },
        { PHYSDEVOP_pci_device_remove, -XEN_EPERM }, { PHYSDEVOP_prepare_msix, -XEN_EPERM },
        { PHYSDEVOP_release_msix, -XEN_EPERM }, { PHYSDEVOP_restore_msi, -XEN_ENODEV },
        { PHYSDEVOP_manage_pci_add_ext, -XEN_EINVAL },
    };
    struct physdev_irq_status_query query = { .irq = 0 };
    struct physdev_pirq_eoi_gmfn page = { .gmfn = 1 };

    op.word[1] = 0x7fff;                /* an interrupt that nobody has */
    op.word[0] = 0x7ff0;
    for (unsigned i = 0; i < array_size(rows); i++) {
        CHECK_EQ(PV_CALL(physdev_op, rows[i].cmd, NOWHERE), -XEN_EFAULT);
        CHECK_EQ(PV_CALL(physdev_op, rows[i].cmd, &op), rows[i].rc);
    }
    op.word[0] = 12345;                 /* a domain that is not there */
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_map_pirq, &op), -XEN_ESRCH);
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_pci_mmcfg_reserved, NOWHERE), -XEN_EPERM);
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_dbgp_op, NOWHERE), -XEN_EPERM);
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_IRQ_UNMASK_NOTIFY, NOWHERE), 0);
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_irq_status_query, &query), 0);
    CHECK_EQ(query.flags, XENIRQSTAT_needs_eoi);
    query.irq = 0x7fff;
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_irq_status_query, &query), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_irq_status_query, NOWHERE), -XEN_EFAULT);
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_pirq_eoi_gmfn_v2, NOWHERE), -XEN_EFAULT);
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_pirq_eoi_gmfn_v2, &page), -XEN_EINVAL);
    page.gmfn = pv_pte_maddr((uint64_t)&op, 4) >> PAGE_SHIFT;   /* a page table */
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_pirq_eoi_gmfn_v1, &page), -XEN_EINVAL);
    page.gmfn = pv_mfn(pv_page());
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_pirq_eoi_gmfn_v2, &page), 0);
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_pirq_eoi_gmfn_v2, &page), -XEN_EBUSY);
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_pirq_eoi_gmfn_v1, &page), -XEN_EBUSY);
    op.ports = (struct physdev_set_iobitmap){ .nr_ports = 65537 };
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_set_iobitmap, &op), -XEN_EINVAL);
    op.ports.nr_ports = 65536;
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_set_iobitmap, &op), 0);
    op.ports.bitmap.p = (void *)PV_M2P;
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_set_iobitmap, &op), -XEN_EINVAL);
    op.word[0] = 4;
    CHECK_EQ(PV_CALL(physdev_op, PHYSDEVOP_set_iopl, &op), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(physdev_op, 99, &op), -XEN_ENOSYS);
    op.word[0] = PHYSDEVOP_set_iopl;
    op.word[2] = 4;
    CHECK_EQ(PV_CALL(physdev_op_compat, &op), -XEN_EINVAL);
    op.word[2] = 1;
    CHECK_EQ(PV_CALL(physdev_op_compat, &op), 0);
}

static void check_events_compat(void)
{
    struct { uint32_t cmd; struct evtchn_close close __attribute__((aligned(8))); } op = {
        .cmd = EVTCHNOP_close, .close.port = 4000,
    };

    CHECK_EQ(PV_CALL(event_channel_op_compat, &op), -XEN_EINVAL);
    op.cmd = 99;
    CHECK_EQ(PV_CALL(event_channel_op_compat, &op), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(event_channel_op_compat, NOWHERE), -XEN_EFAULT);
}

/* Of HVM guests, device models and the machine. */
static void check_foreign(void)
{
    struct xen_hvm_param param = { .domid = DOMID_SELF };
    domid_t other = 12345;

    CHECK_EQ(PV_CALL(hvm_op, HVMOP_get_param, &param), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(hvm_op, HVMOP_set_param, &param), -XEN_EINVAL);
    param.domid = other;
    CHECK_EQ(PV_CALL(hvm_op, HVMOP_get_param, &param), -XEN_ESRCH);
    CHECK_EQ(PV_CALL(hvm_op, HVMOP_get_param, NOWHERE), -XEN_EFAULT);
    CHECK_EQ(PV_CALL(hvm_op, 99, &param), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(dm_op, other, 0, 0), -XEN_ESRCH);
    CHECK_EQ(PV_CALL(dm_op, DOMID_SELF, 1, NOWHERE), -XEN_EFAULT);
    CHECK_EQ(PV_CALL(hypfs_op, 0), -XEN_EPERM);
    CHECK_EQ(PV_CALL(kexec_op, 0), -XEN_EPERM);
    CHECK_EQ(PV_CALL(xenpmu_op, 0), -XEN_EOPNOTSUPP);
    CHECK_EQ(PV_CALL(console_io, CONSOLEIO_read, 0, 0), -XEN_EPERM);
    CHECK_EQ(PV_CALL(console_io, 99, 0, 0), -XEN_EPERM);
}

static void check_memory_op(void)
{
    struct xen_memory_reservation r = { .domid = DOMID_SELF, .extent_order = 10,
                                        .nr_extents = 4 };
    domid_t self = DOMID_SELF;

    /* more at a time than Xen allows, and from where a continuation would begin */
    CHECK_EQ(PV_CALL(memory_op, XENMEM_populate_physmap, &r), 0);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_populate_physmap | 3 << 6, &r), 3);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_decrease_reservation | 9 << 6, &r), 9);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_current_reservation | 1 << 6, &self), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_maximum_ram_page | 1 << 6, 0), -XEN_EINVAL);
    pv_shared->arch.max_pfn = 0;
    CHECK_EQ(PV_CALL(memory_op, XENMEM_maximum_gpfn, &self), 0);
    pv_shared->arch.max_pfn = 4711;
    CHECK_EQ(PV_CALL(memory_op, XENMEM_maximum_gpfn, &self), 4710);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_machine_memory_map, 0), -XEN_EPERM);
}

/* Of translated guests, toolstacks, device models: by its own number, DOMID_SELF, domain 0
 * and one that is not there. */
static void check_memory_op_of_others(void)
{
    const domid_t own = pv_own_domid(), domids[] = { own, DOMID_SELF, 0, 12345 };
    static const struct {
        unsigned cmd, domid_at;         /* where in the argument */
        int64_t rc[4];
    } rows[] = {
        { XENMEM_add_to_physmap, 0, { -XEN_EACCES, -XEN_EACCES, -XEN_EACCES, -XEN_ESRCH } },
        { XENMEM_add_to_physmap_batch, 0,
          { -XEN_EACCES, -XEN_EACCES, -XEN_EACCES, -XEN_ESRCH } },
        { XENMEM_remove_from_physmap, 0, { -XEN_EACCES, -XEN_EACCES, -XEN_EACCES, -XEN_ESRCH } },
        { XENMEM_get_pod_target, 32, { -XEN_EPERM, -XEN_EPERM, -XEN_EPERM, -XEN_ESRCH } },
        { XENMEM_set_pod_target, 32, { -XEN_EPERM, -XEN_EPERM, -XEN_EPERM, -XEN_ESRCH } },
        { XENMEM_claim_pages, 24, { -XEN_EPERM, -XEN_EINVAL, -XEN_EPERM, -XEN_EINVAL } },
        { XENMEM_access_op, 2, { -XEN_EPERM, -XEN_ESRCH, -XEN_EINVAL, -XEN_ESRCH } },
        { XENMEM_acquire_resource, 0, { -XEN_EPERM, -XEN_ESRCH, -XEN_EPERM, -XEN_ESRCH } },
    };
    static union { uint16_t domid[32]; struct xen_add_to_physmap map; } arg;

    for (unsigned i = 0; i < array_size(rows); i++) {
        CHECK_EQ(PV_CALL(memory_op, rows[i].cmd, NOWHERE), -XEN_EFAULT);
        for (unsigned d = 0; d < array_size(domids); d++) {
            __builtin_memset(&arg, 0, sizeof(arg));
            arg.domid[rows[i].domid_at / 2] = domids[d];
            CHECK_EQ(PV_CALL(memory_op, rows[i].cmd, &arg), rows[i].rc[d]);
        }
    }
    __builtin_memset(&arg, 0, sizeof(arg));
    arg.map = (struct xen_add_to_physmap){ .domid = DOMID_SELF,
                                           .space = XENMAPSPACE_gmfn_foreign };
    CHECK_EQ(PV_CALL(memory_op, XENMEM_add_to_physmap, &arg), -XEN_ENOSYS);
    for (unsigned space = 0; space <= XENMAPSPACE_gmfn_range; space++) {
        arg.map.space = space;
        CHECK_EQ(PV_CALL(memory_op, XENMEM_add_to_physmap, &arg), -XEN_EACCES);
    }
    CHECK_EQ(PV_CALL(memory_op, XENMEM_add_to_physmap | 0x10000 << 6, &arg), -XEN_EDOM);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_remove_from_physmap | 1 << 6, &arg), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_get_sharing_freed_pages, 0), 0);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_get_sharing_shared_pages, 0), 0);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_machphys_compat_mfn_list, &arg), -XEN_EOPNOTSUPP);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_paging_op, &arg), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_sharing_op, &arg), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(memory_op, 63, &arg), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(argo_op, 0), -XEN_ENOSYS);
}

static void check_grant_table_op(void)
{
    struct gnttab_query_size q[2] = { { .dom = DOMID_SELF }, { .dom = DOMID_SELF } };

    CHECK_EQ(PV_CALL(grant_table_op, 99, q, 1), -XEN_ENOSYS);
    CHECK_EQ(PV_CALL(grant_table_op, 99, q, ~0u), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_query_size | 1 << 12, q, 1), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_query_size, q, 2), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_cache_flush | 1 << 12, q, 0), 0);
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_map_grant_ref, NOWHERE, 0), 0);
    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_map_grant_ref, NOWHERE, 1), -XEN_EFAULT);
}

static void check_multicall(void)
{
    struct multicall_entry *e = (struct multicall_entry *)((uint8_t *)pv_page() + 4096) - 2;
    uint8_t *next = pv_page();

    for (unsigned i = 0; i < 2; i++)
        e[i] = (struct multicall_entry){ .op = __HYPERVISOR_xen_version, .result = 1 };
    CHECK_EQ(PV_CALL(update_va_mapping, next, 0, UVMF_INVLPG), 0);
    CHECK_EQ(PV_CALL(multicall, e, 3), -XEN_EFAULT);    /* the third is not there */
    CHECK_EQ(e[0].result >> 16, 4);
    CHECK_EQ(e[1].result >> 16, 4);
    e[0].op = ~0ul;
    e[1].op = __HYPERVISOR_dm_op;
    e[1].args[0] = 12345;
    CHECK_EQ(PV_CALL(multicall, e, 2), 0);              /* their errors are their own */
    CHECK_EQ(e[0].result, -XEN_ENOSYS);
    CHECK_EQ(e[1].result, -XEN_ESRCH);
}

void test_main(void)
{
    check_version();
    check_vm_assist();
    check_callbacks();
    check_vcpu_op();
    check_sched_op();
    check_physdev_op();
    check_events_compat();
    check_foreign();
    check_memory_op();
    check_memory_op_of_others();
    check_grant_table_op();
    check_multicall();
}
