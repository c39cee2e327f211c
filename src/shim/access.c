/* SPDX-License-Identifier: MIT */
/* The only code that follows a pointer the guest gave.  Such a pointer is good in
 * whatever page table is loaded, outside Xen's hole; what is not mapped there,
 * or not writable (CR0.WP is set), is -EFAULT and never more. */
#include "shim/cpu.h"
#include "shim/shim.h"

bool guest_range_ok(uint64_t va, uint64_t bytes)
{
    uint64_t last;

    if (!bytes)
        return true;
    if (__builtin_add_overflow(va, bytes - 1, &last))
        return false;
    return va_canonical(va) && va_canonical(last) &&
           (last < HYPERVISOR_VIRT_START || va >= HYPERVISOR_VIRT_END) &&
           (va >> 63) == (last >> 63);
}

int guest_read(void *to, uint64_t from_va, uint64_t bytes)
{
    if (!guest_range_ok(from_va, bytes) ||
        guest_copy_raw(to, (const void *)from_va, bytes))
        return -XEN_EFAULT;
    return 0;
}

int guest_write(uint64_t to_va, const void *from, uint64_t bytes)
{
    if (!guest_range_ok(to_va, bytes) || guest_copy_raw((void *)to_va, from, bytes))
        return -XEN_EFAULT;
    return 0;
}
