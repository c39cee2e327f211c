/* SPDX-License-Identifier: MIT */
/* Calls of HYPERVISOR_memory_op (public/memory.h) that are not a PV guest's: those about a
 * physical map that Xen keeps, which only a translated guest has, and those of toolstacks,
 * device models and pagers.  They answer as Xen 4.17 answers an unprivileged PV domain
 * beside domain 0, which is PV too. */
#define __XEN_TOOLS__ 1         /* for the calls of the second kind */
#include "shim/memory.h"

#include "shim/shim.h"

/* -ESRCH: no such domain. */
static int64_t domain_find(domid_t domid)
{
    return memory_self(domid) || domid == 0 || peer_exists(domid) ? 0 : -XEN_ESRCH;
}

/* The same for calls about another domain: its own number is not permitted, and
 * DOMID_SELF none. */
static int64_t domain_find_other(domid_t domid)
{
    if (domid == shim_domain.boot->domid)
        return -XEN_EPERM;
    return domid == 0 || peer_exists(domid) ? 0 : -XEN_ESRCH;
}

static int64_t add_to_physmap(uint64_t start, uint64_t arg_va)
{
    struct xen_add_to_physmap op;
    int64_t rc;

    if (start != (uint16_t)start)
        return -XEN_EDOM;
    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.space == XENMAPSPACE_gmfn_foreign)
        return -XEN_ENOSYS;
    rc = domain_find(op.domid);
    return rc ? rc : -XEN_EACCES;
}

static int64_t add_to_physmap_batch(uint64_t start, uint64_t arg_va)
{
    struct xen_add_to_physmap_batch op;
    int64_t rc;

    if (start != (uint16_t)start)
        return -XEN_EDOM;
    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.space == XENMAPSPACE_gmfn_range)
        return -XEN_EOPNOTSUPP;
    rc = domain_find(op.domid);
    return rc ? rc : -XEN_EACCES;
}

static int64_t remove_from_physmap(uint64_t arg_va)
{
    struct xen_remove_from_physmap op;
    int64_t rc;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    rc = domain_find(op.domid);
    return rc ? rc : -XEN_EACCES;
}

static int64_t claim_pages(uint64_t arg_va)
{
    struct xen_memory_reservation op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.extent_start.p || op.extent_order || op.mem_flags || op.domid == DOMID_SELF ||
        domain_find(op.domid))
        return -XEN_EINVAL;
    return -XEN_EPERM;
}

static int64_t pod_target(uint64_t arg_va)
{
    struct xen_pod_target op;
    int64_t rc;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    rc = domain_find(op.domid);
    return rc ? rc : -XEN_EPERM;
}

static int64_t access_op(uint64_t arg_va)
{
    struct xen_mem_access_op op;
    int64_t rc;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    rc = domain_find_other(op.domid);
    return rc ? rc : -XEN_EINVAL;
}

static int64_t acquire_resource(uint64_t arg_va)
{
    struct xen_mem_acquire_resource op;
    int64_t rc;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.pad)
        return -XEN_EINVAL;
    rc = domain_find_other(op.domid);
    return rc ? rc : -XEN_EPERM;
}

/* There are no devices, so no memory is reserved for any. */
static int64_t reserved_device_memory_map(uint64_t arg_va)
{
    struct xen_reserved_device_memory_map op;

    if (guest_read(&op, arg_va, sizeof(op)))
        return -XEN_EFAULT;
    if (op.flags & ~XENMEM_RDM_ALL)
        return -XEN_EINVAL;
    op.nr_entries = 0;
    return guest_write(arg_va, &op, sizeof(op));
}

int64_t memory_op_refused(uint64_t cmd, uint64_t start, uint64_t arg_va)
{
    switch (cmd) {
    case XENMEM_add_to_physmap:
        return add_to_physmap(start, arg_va);
    case XENMEM_add_to_physmap_batch:
        return add_to_physmap_batch(start, arg_va);
    case XENMEM_remove_from_physmap:
        return start ? -XEN_EINVAL : remove_from_physmap(arg_va);
    case XENMEM_claim_pages:
        return start ? -XEN_EINVAL : claim_pages(arg_va);
    case XENMEM_set_pod_target:
    case XENMEM_get_pod_target:
        return pod_target(arg_va);
    case XENMEM_access_op:
        return access_op(arg_va);
    case XENMEM_reserved_device_memory_map:
        return start ? -XEN_EINVAL : reserved_device_memory_map(arg_va);
    case XENMEM_acquire_resource:
        return acquire_resource(arg_va);
    case XENMEM_get_sharing_freed_pages:
    case XENMEM_get_sharing_shared_pages:
        return 0;
    case XENMEM_machine_memory_map:
        return -XEN_EPERM;
    case XENMEM_machphys_compat_mfn_list:
        return -XEN_EOPNOTSUPP;     /* as of a Xen that runs no 32-bit PV guests */
    default:
        return -XEN_ENOSYS;
    }
}
