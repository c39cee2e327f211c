/* SPDX-License-Identifier: MIT */
/* Waking a vCPU: its vcpu_info record, its upcall flag, and SCHEDOP_poll.
 *
 * No wake-up of a poll is lost.  The poller sets its bit in d->polling, then tests
 * its ports; a sender sets the pending state, then reads d->polling.  Both first
 * steps are locked instructions, full barriers on x86, so at least one of the two
 * sees the other: the poller finds the event and does not sleep, or the sender
 * finds the poller and kicks it.  While the ports are being tested the poller
 * counts as waiting for any port; narrowing it to its one port afterwards can only
 * stop wake-ups for others, as poll_port reads "any" or that port to a sender on
 * it.  A sender that still sees a previous poll's bit wakes the new one too early,
 * which SCHEDOP_poll allows.
 *
 * Whoever clears the polling bit owes the kick; the poller clears it itself only
 * when it is not going to sleep any more. */
#include <errno.h>
#include <string.h>

#include "xen/evtchn_port.h"

void evtchn_upcall_raise(struct evtchn_domain *d, unsigned vcpu)
{
    struct vcpu_info *vi = load_acquire(&d->vcpu_info[vcpu]);

    if (!swap_acq_rel(&vi->evtchn_upcall_pending, 1))
        d->ops->vcpu_kick(d->ctx, vcpu);
}

bool evtchn_upcall_due(const struct evtchn_domain *d, unsigned vcpu)
{
    const struct vcpu_info *vi = load_acquire(&d->vcpu_info[vcpu]);

    return load_acquire(&vi->evtchn_upcall_pending) && !load_relaxed(&vi->evtchn_upcall_mask);
}

struct vcpu_info *evtchn_vcpu_info(const struct evtchn_domain *d, unsigned vcpu)
{
    return load_acquire(&d->vcpu_info[vcpu]);
}

/* A sender that still has the old address sets bits nobody will read.  It had made
 * its event pending before it read the address, that is before the selector of
 * the new record is filled below; so the guest, looking at every word, sees it. */
void evtchn_vcpu_info_set(struct evtchn_domain *d, unsigned vcpu, struct vcpu_info *to)
{
    const struct vcpu_info *from = load_acquire(&d->vcpu_info[vcpu]);

    store_relaxed(&to->evtchn_upcall_mask,
                  from == &d->absent ? 1 : load_relaxed(&from->evtchn_upcall_mask));
    memcpy(&to->arch, &from->arch, sizeof(to->arch));
    memcpy(&to->time, &from->time, sizeof(to->time));
    /* the address before the flags; pairs with a sender's locked set pending */
    store_full(&d->vcpu_info[vcpu], to);
    fetch_or(&to->evtchn_pending_sel, ~(xen_ulong_t)0);
    swap_acq_rel(&to->evtchn_upcall_pending, 1);
    d->ops->vcpu_kick(d->ctx, vcpu);
}

int evtchn_port_pending(const struct evtchn_domain *d, uint32_t port)
{
    const struct evtchn_port_ops *ops = load_acquire(&d->port_ops);

    if (port >= ops->nr_ports)
        return -EINVAL;
    return evtchn_word_usable(evtchn_port_word(d, port)) && ops->is_pending(d, port);
}

void evtchn_pollers_wake(struct evtchn_domain *d, uint32_t port)
{
    uint64_t left = load_acquire(&d->polling);

    while (unlikely(left)) {
        unsigned vcpu = (unsigned)__builtin_ctzll(left);
        uint64_t bit = (uint64_t)1 << vcpu;
        uint32_t wanted = load_acquire(&d->poll_port[vcpu]);

        left &= ~bit;
        if ((wanted == EVTCHN_POLL_ANY || wanted == port) && fetch_and(&d->polling, ~bit) & bit)
            d->ops->vcpu_kick(d->ctx, vcpu);
    }
}

bool evtchn_poll_waiting(const struct evtchn_domain *d, unsigned vcpu)
{
    return load_acquire(&d->polling) >> vcpu & 1;
}

void evtchn_poll_end(struct evtchn_domain *d, unsigned vcpu)
{
    fetch_and(&d->polling, ~((uint64_t)1 << vcpu));
}

int evtchn_poll_begin(struct evtchn_domain *d, unsigned vcpu, const evtchn_port_t *ports,
                      unsigned nr_ports)
{
    int ret = 0;

    if (nr_ports > EVTCHN_POLL_PORTS_MAX)
        return -EINVAL;

    store_release(&d->poll_port[vcpu], EVTCHN_POLL_ANY);
    fetch_or(&d->polling, (uint64_t)1 << vcpu);     /* pairs with evtchn_pollers_wake() */
    if (evtchn_upcall_due(d, vcpu))
        goto awake;
    for (unsigned i = 0; i < nr_ports; i++) {
        ret = evtchn_port_pending(d, ports[i]);
        if (ret) {
            ret = min_of(ret, 0);
            goto awake;
        }
    }
    if (nr_ports == 1)
        store_release(&d->poll_port[vcpu], ports[0]);
    return EVTCHN_POLL_WAIT;

awake:
    evtchn_poll_end(d, vcpu);
    return ret;
}
