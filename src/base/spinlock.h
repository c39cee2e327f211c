/* SPDX-License-Identifier: MIT */
/* A ticket lock for the freestanding Xen core, where no futex exists.  Not for
 * host threads, except in unit tests.  Interrupts are off in the shim, so a
 * holder is never preempted by its own vCPU; hold times are a few loads. */
#ifndef XENOLITH_BASE_SPINLOCK_H
#define XENOLITH_BASE_SPINLOCK_H

#include "base/atomic.h"
#include "base/types.h"

struct spinlock { uint16_t next, owner; };

static inline void spin_lock(struct spinlock *l)
{
    uint16_t me = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);

    /* pairs with the release in spin_unlock() */
    while (load_acquire(&l->owner) != me)
        cpu_relax();
}

static inline void spin_unlock(struct spinlock *l)
{
    store_release(&l->owner, (uint16_t)(load_relaxed(&l->owner) + 1));
}

#endif
