/* SPDX-License-Identifier: MIT */
/* Page table entries and what hypercalls on them share. */
#ifndef XENOLITH_SHIM_MMU_H
#define XENOLITH_SHIM_MMU_H

#include "base/types.h"

#define PTE_PRESENT  ((uint64_t)1 << 0)
#define PTE_WRITE    ((uint64_t)1 << 1)
#define PTE_USER     ((uint64_t)1 << 2)
#define PTE_ACCESSED ((uint64_t)1 << 5)
#define PTE_DIRTY    ((uint64_t)1 << 6)
#define PTE_HUGE     ((uint64_t)1 << 7)
#define PTE_GLOBAL   ((uint64_t)1 << 8)
#define PTE_FRAME    ((uint64_t)0x000ffffffffff000)
#define PTE_ENTRIES  512

#define PF_PRESENT   1u
#define PF_WRITE     2u
#define PF_RESERVED  8u

/* "more batches follow": Xen's MMU_UPDATE_PREEMPTED, which a guest passes back
 * only when it was given it */
#define MMU_UPDATE_PREEMPTED ((uint64_t)1 << 31)

static inline bool hole_slot(unsigned slot)
{
    return slot >= 256 && slot < 272;
}

#endif
