/* SPDX-License-Identifier: MIT */
/* Flushing translation caches, also of other vCPUs.
 *
 * Each vCPU has two counters: flushes wanted of it, and the value of that counter
 * at its last flush.  A vCPU that wants others flushed raises their `wanted`,
 * interrupts those that may be running guest code, and waits until `done` has
 * caught up.  One that is blocked in the shim is neither interrupted nor waited
 * for: it looks at the counters on its way back (shim_deliver()).  That is safe
 * because both sides store before they look: the one that flushes raises wanted,
 * then reads idle; the one that wakes stores idle = 0, then reads wanted.
 *
 * While waiting, a vCPU serves flushes wanted of itself, so two that flush each
 * other do not wait for ever.  No lock may be held by the caller. */
#include "shim/cpu.h"
#include "shim/shim.h"

void tlb_flush_local(void)
{
    write_cr3(read_cr3());
}

void tlb_flush_page_local(uint64_t va)
{
    /* with two roots the user's translation is flushed as CR3 changes */
    if (va_canonical(va))
        invlpg(va);
}

bool tlb_flush_due(const struct shim_vcpu *v)
{
    return load_acquire(&v->flush_wanted) != v->flush_done;
}

void tlb_flush_serve(struct shim_vcpu *v)
{
    uint32_t wanted = load_acquire(&v->flush_wanted);

    if (wanted == v->flush_done)
        return;
    tlb_flush_local();
    store_release(&v->flush_done, wanted);      /* pairs with the wait below */
}

void tlb_flush_vcpus(struct shim_vcpu *v, uint64_t vcpu_mask)
{
    unsigned nr = shim_domain.nr_vcpus;
    uint32_t want[SHIM_VCPUS_MAX];
    uint64_t waiting = 0;

    vcpu_mask &= ~((uint64_t)1 << v->id);
    for (unsigned i = 0; i < nr; i++) {
        struct shim_vcpu *other = shim_vcpu(i);

        if (!(vcpu_mask >> i & 1) || !load_acquire(&other->up))
            continue;
        /* a full barrier; pairs with the one in sched_idle_end() */
        want[i] = fetch_add(&other->flush_wanted, 1) + 1;
        if (load_relaxed(&other->idle))
            continue;
        v->status->traps[SHIM_TRAP_FLUSH]++;
        apic_ipi(i, SHIM_VECTOR_FLUSH);
        waiting |= (uint64_t)1 << i;
    }
    for (unsigned i = 0; waiting; i = (i + 1) % nr) {
        struct shim_vcpu *other = shim_vcpu(i);

        if ((waiting >> i & 1) && ((int32_t)(load_acquire(&other->flush_done) - want[i]) >= 0 ||
                                   load_relaxed(&other->idle)))
            waiting &= ~((uint64_t)1 << i);
        tlb_flush_serve(v);
        cpu_relax();
    }
}
