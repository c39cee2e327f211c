/* SPDX-License-Identifier: MIT */
/* What the guest sends to the host leaves the VM, which is the dearest thing a vCPU does.
 * So while the host's thread looks by itself before long (`awake`, xen/hostlink.h), a
 * doorbell is put off: until the vCPU has nothing to do, or passes the shim when some
 * exits' worth of time is over.  Then the thread finds many requests at once.  A guest
 * that does neither waits for the thread's own look. */
#include "shim/cpu.h"
#include "shim/shim.h"

#define DOORBELL_WAIT_EXITS 32

static void ring(struct shim_vcpu *v, uint32_t port, uint32_t link)
{
    struct xen_hostlink *l = &shim_domain.links[link];

    if (load_relaxed(&l->call) && io_in32((uint16_t)(XEN_CALL_IO_PORT + link)) == XEN_CALL_SERVED) {
        v->status->traps[SHIM_TRAP_CALL]++;
        return;
    }
    if (load_relaxed(&l->caller) != v->id)      /* the host reads this line at every event */
        store_relaxed(&l->caller, v->id);
    v->status->traps[SHIM_TRAP_DOORBELL]++;
    io_out32(XEN_DOORBELL_IO_PORT, port);
}

/* True when it is among those that wait. */
static bool put_off(struct shim_vcpu *v, uint32_t port, uint32_t link)
{
    struct shim_doorbells *d = &v->doorbells;
    uint32_t turns = load_relaxed(&shim_domain.links[link].turns);

    for (unsigned i = 0; i < d->nr; i++)
        if (d->waiting[i].link == link) {
            d->waiting[i].turns = turns;
            d->waiting[i].port = port;
            return true;
        }
    if (d->nr == array_size(d->waiting))
        return false;
    if (!d->nr)
        d->since_ns = time_now_ns();
    d->waiting[d->nr].link = link;
    d->waiting[d->nr].port = port;
    d->waiting[d->nr++].turns = turns;
    return true;
}

void doorbell_send(struct shim_vcpu *v, uint32_t port, uint32_t link)
{
    /* the guest's request is stored before `awake` and `turns` are read; pairs with
     * xen_hostport_asleep() and xen_hostport_woken() */
    barrier_full();
    if (!load_relaxed(&shim_domain.links[link].awake) || !put_off(v, port, link))
        ring(v, port, link);
}

void doorbell_flush(struct shim_vcpu *v)
{
    struct shim_doorbells *d = &v->doorbells;
    unsigned nr = d->nr;

    d->nr = 0;
    for (unsigned i = 0; i < nr; i++)
        /* where the host has begun to look since, it has seen the request */
        if (load_relaxed(&shim_domain.links[d->waiting[i].link].turns) == d->waiting[i].turns)
            ring(v, d->waiting[i].port, d->waiting[i].link);
}

void doorbell_attend(struct shim_vcpu *v)
{
    if (unlikely(v->doorbells.nr) &&
        time_now_ns() - v->doorbells.since_ns > DOORBELL_WAIT_EXITS * (uint64_t)v->exit_ns)
        doorbell_flush(v);
}
