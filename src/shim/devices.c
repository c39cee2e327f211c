/* SPDX-License-Identifier: MIT */
/* Calls about devices and about machines with devices, of which a PV guest here has none:
 * physdev_op (public/physdev.h), hvm_op, dm_op.  They answer as Xen 4.17 answers a domain
 * without privileges that no device was passed through to. */
#include "shim/memory.h"

#include "shim/shim.h"

#include <xen/hvm/dm_op.h>
#include <xen/hvm/hvm_op.h>
#include <xen/physdev.h>

#define IOBMP_BYTES    8192
#define IOBMP_PORTS    65536
#define DM_OP_BUFS_MAX 3

static int64_t set_iopl(struct shim_vcpu *v, uint64_t arg_va)
{
    struct physdev_set_iopl op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.iopl > 3)
        return -XEN_EINVAL;
    v->iopl = (uint8_t)op.iopl;
    return 0;
}

/* No port is real: IOPL decides, which reads ones or faults. */
static int64_t set_iobitmap(uint64_t arg_va)
{
    struct physdev_set_iobitmap op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    return op.nr_ports <= IOBMP_PORTS && guest_range_ok((uint64_t)op.bitmap.p, IOBMP_BYTES) ?
           0 : -XEN_EINVAL;
}

/* A page in which Xen tells what interrupts want an EOI: of its own it has none. */
static int64_t pirq_eoi_page(uint64_t arg_va)
{
    struct physdev_pirq_eoi_gmfn op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (!mmu_frame_writable(op.gmfn))
        return -XEN_EINVAL;
    return __atomic_exchange_n(&shim_domain.pirq_eoi_page, true, __ATOMIC_RELAXED) ?
           -XEN_EBUSY : 0;
}

static int64_t irq_status_query(uint64_t arg_va)
{
    struct physdev_irq_status_query op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.irq >= EVTCHN_NR_PIRQS)
        return -XEN_EINVAL;
    op.flags = XENIRQSTAT_needs_eoi;
    return guest_write(arg_va, &op, sizeof(op));
}

/* The first word of both is the domain. */
static int64_t pirq_map(uint64_t arg_va, uint64_t bytes)
{
    union {
        domid_t domid;
        struct physdev_map_pirq map;
        struct physdev_unmap_pirq unmap;
    } op;

    if (guest_read(&op, arg_va, bytes))
        return -XEN_EFAULT;
    return memory_self(op.domid) || op.domid == 0 || peer_exists(op.domid) ? -XEN_EPERM
                                                                           : -XEN_ESRCH;
}

static int64_t manage_pci_add_ext(uint64_t arg_va)
{
    struct physdev_manage_pci_ext op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    return op.is_extfn > 1 || op.is_virtfn > 1 ? -XEN_EINVAL : -XEN_EPERM;
}

#define REFUSED_BYTES_MAX 40

/* What is answered once the argument has been read, whatever it says; bytes 0: unread. */
static const struct refused {
    uint8_t bytes;
    int16_t answer;
} refused[] = {
    [PHYSDEVOP_eoi] = { sizeof(struct physdev_eoi), -XEN_EINVAL },  /* it has no interrupt */
    [PHYSDEVOP_apic_read] = { sizeof(struct physdev_apic), -XEN_EPERM },
    [PHYSDEVOP_apic_write] = { sizeof(struct physdev_apic), -XEN_EPERM },
    [PHYSDEVOP_alloc_irq_vector] = { sizeof(struct physdev_irq), -XEN_EPERM },
    [PHYSDEVOP_setup_gsi] = { sizeof(struct physdev_setup_gsi), -XEN_EPERM },
    [PHYSDEVOP_manage_pci_add] = { sizeof(struct physdev_manage_pci), -XEN_EPERM },
    [PHYSDEVOP_manage_pci_remove] = { sizeof(struct physdev_manage_pci), -XEN_EPERM },
    [PHYSDEVOP_pci_device_add] = { offsetof(struct physdev_pci_device_add, optarr), -XEN_EPERM },
    [PHYSDEVOP_pci_device_remove] = { sizeof(struct physdev_pci_device), -XEN_EPERM },
    [PHYSDEVOP_prepare_msix] = { sizeof(struct physdev_pci_device), -XEN_EPERM },
    [PHYSDEVOP_release_msix] = { sizeof(struct physdev_pci_device), -XEN_EPERM },
    [PHYSDEVOP_restore_msi] = { sizeof(struct physdev_restore_msi), -XEN_ENODEV },
    [PHYSDEVOP_restore_msi_ext] = { sizeof(struct physdev_pci_device), -XEN_ENODEV },
    [PHYSDEVOP_pci_mmcfg_reserved] = { 0, -XEN_EPERM },
    [PHYSDEVOP_dbgp_op] = { 0, -XEN_EPERM },
};

_Static_assert(sizeof(struct physdev_apic) <= REFUSED_BYTES_MAX &&
               offsetof(struct physdev_pci_device_add, optarr) <= REFUSED_BYTES_MAX,
               "the largest arguments fit");

int64_t physdev_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va)
{
    uint8_t op[REFUSED_BYTES_MAX];

    switch (cmd) {
    case PHYSDEVOP_set_iopl:
        return set_iopl(v, arg_va);
    case PHYSDEVOP_set_iobitmap:
        return set_iobitmap(arg_va);
    case PHYSDEVOP_pirq_eoi_gmfn_v1:
    case PHYSDEVOP_pirq_eoi_gmfn_v2:
        return pirq_eoi_page(arg_va);
    case PHYSDEVOP_irq_status_query:
        return irq_status_query(arg_va);
    case PHYSDEVOP_map_pirq:
        return pirq_map(arg_va, sizeof(struct physdev_map_pirq));
    case PHYSDEVOP_unmap_pirq:
        return pirq_map(arg_va, sizeof(struct physdev_unmap_pirq));
    case PHYSDEVOP_manage_pci_add_ext:
        return manage_pci_add_ext(arg_va);
    case PHYSDEVOP_IRQ_UNMASK_NOTIFY:
        return 0;                       /* none is masked */
    default:
        if (cmd >= array_size(refused) || !refused[cmd].answer)
            return -XEN_ENOSYS;
        return guest_read(op, arg_va, refused[cmd].bytes) ? -XEN_EFAULT : refused[cmd].answer;
    }
}

/* Parameters are an HVM guest's. */
int64_t hvm_op(uint64_t cmd, uint64_t arg_va)
{
    struct xen_hvm_param op;

    if (cmd != HVMOP_set_param && cmd != HVMOP_get_param)
        return -XEN_ENOSYS;
    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    return memory_self(op.domid) ? -XEN_EINVAL : -XEN_ESRCH;
}

int64_t dm_op(domid_t domid, uint64_t nr_bufs, uint64_t bufs_va)
{
    struct xen_dm_op_buf bufs[DM_OP_BUFS_MAX];

    if (nr_bufs > DM_OP_BUFS_MAX)
        return -XEN_E2BIG;
    if (guest_read(bufs, bufs_va, nr_bufs * sizeof(bufs[0])))
        return -XEN_EFAULT;
    return memory_self(domid) ? -XEN_EPERM : -XEN_ESRCH;    /* never one's own */
}
