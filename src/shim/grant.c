/* SPDX-License-Identifier: MIT */
/* HYPERVISOR_grant_table_op (public/grant_table.h): the guest's side of the Xen
 * core's grant table. */
#include "shim/shim.h"

void grant_init(void)
{
    uint64_t gpa_addr = SHIM_GPA + SHIM_OFF_GRANTS;

    gnttab_init(&shim_domain.gnttab, shim_dm(gpa_addr), gpa_addr >> PAGE_SHIFT,
                SHIM_GRANT_FRAMES, &shim_domain.status->nr_grant_frames,
                (domid_t)shim_domain.boot->domid);
}

/* setup_table's second result, the list of frames. */
static void frame_list_write(struct gnttab_setup_table *op)
{
    for (uint32_t i = 0; op->status == GNTST_okay && i < op->nr_frames; i++) {
        uint64_t mfn = gnttab_frame_mfn(&shim_domain.gnttab, i);

        if (guest_write((uint64_t)op->frame_list.p + i * sizeof(mfn), &mfn, sizeof(mfn)))
            op->status = GNTST_bad_virt_addr;
    }
}

int64_t grant_table_op(uint64_t cmd, uint64_t arg_va, uint64_t count)
{
    const struct gnttab_op_shape *shape = gnttab_op_shape((unsigned)min_of(cmd, (uint64_t)~0u));
    uint64_t arg[GNTTAB_OP_ARG_BYTES_MAX / sizeof(uint64_t)];
    int rc = 0;

    if (!shape)
        return -XEN_ENOSYS;
    if (shape->count == GNTTAB_COUNT_UNUSED)
        count = 1;
    count = (uint32_t)count;
    if (count > INT32_MAX || (shape->count == GNTTAB_COUNT_ONE && count != 1))
        return -XEN_EINVAL;
    for (uint64_t i = 0; i < count && !rc; i++) {
        uint64_t va = arg_va + i * shape->arg_bytes;

        if (guest_read(arg, va, shape->arg_bytes))
            return -XEN_EFAULT;
        rc = gnttab_op_call(&shim_domain.gnttab, (unsigned)cmd, arg);
        if (cmd == GNTTABOP_setup_table && !rc)
            frame_list_write((struct gnttab_setup_table *)arg);
        if (shape->copy_back && guest_write(va, arg, shape->arg_bytes))
            return -XEN_EFAULT;
    }
    return rc;
}
