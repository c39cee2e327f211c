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

int64_t physdev_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va)
{
    union {
        struct physdev_eoi eoi;
        struct physdev_apic apic;
        struct physdev_irq irq;
        struct physdev_map_pirq map;
        struct physdev_setup_gsi gsi;
        struct physdev_manage_pci pci;
    } op;

    switch (cmd) {
    case PHYSDEVOP_set_iopl:
        return set_iopl(v, arg_va);
    case PHYSDEVOP_set_iobitmap:
        return set_iobitmap(arg_va);
    case PHYSDEVOP_eoi:                 /* of an interrupt that it has not */
        return guest_read(&op, arg_va, sizeof(op.eoi)) ? -XEN_EFAULT : -XEN_EINVAL;
    case PHYSDEVOP_apic_read:
    case PHYSDEVOP_apic_write:
        return guest_read(&op, arg_va, sizeof(op.apic)) ? -XEN_EFAULT : -XEN_EPERM;
    case PHYSDEVOP_alloc_irq_vector:
        return guest_read(&op, arg_va, sizeof(op.irq)) ? -XEN_EFAULT : -XEN_EPERM;
    case PHYSDEVOP_map_pirq:
        return guest_read(&op, arg_va, sizeof(op.map)) ? -XEN_EFAULT : -XEN_EPERM;
    case PHYSDEVOP_setup_gsi:
        return guest_read(&op, arg_va, sizeof(op.gsi)) ? -XEN_EFAULT : -XEN_EPERM;
    case PHYSDEVOP_manage_pci_add:
    case PHYSDEVOP_manage_pci_remove:
        return guest_read(&op, arg_va, sizeof(op.pci)) ? -XEN_EFAULT : -XEN_EPERM;
    default:
        return -XEN_ENOSYS;
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
