/* SPDX-License-Identifier: MIT */
/* The 2-level ABI: a pending and a mask bit per port in shared_info, one selector
 * bit per 64 ports in vcpu_info.
 *
 * An event goes pending bit, selector bit, evtchn_upcall_pending, kick, and stops
 * at the first step that finds its bit set: whoever set it has done, or is doing,
 * the rest.  The guest clears them in the opposite order and looks again after
 * each, so an event set while it does so is seen by it or starts a new upcall.
 * Each step is a locked instruction, a full barrier on x86: that orders it before
 * the loads that follow (the port's word, the mask) without naming a fence.
 *
 * The port's word is read after the pending bit is set, not before: then either
 * this sender sees the vCPU the port was moved to, or evtchn_bind_vcpu(), which
 * moved it, sees the pending bit and redelivers; and either this sender sees that
 * the port was closed and takes the bit back, or the closing vCPU clears it.
 *
 * The guest can write all of these words at any time.  It can lose its own events
 * so, nothing else: no value read here is used but to choose what to set next. */
#include "xen/evtchn_port.h"

#define BITS_PER_WORD (8 * sizeof(xen_ulong_t))

static inline xen_ulong_t bit_of(uint32_t n)
{
    return (xen_ulong_t)1 << n % BITS_PER_WORD;
}

static void selector_set(struct evtchn_domain *d, uint32_t port, unsigned vcpu)
{
    uint32_t word = port / BITS_PER_WORD;
    struct vcpu_info *vi = load_acquire(&d->vcpu_info[vcpu]);

    if (!(fetch_or(&vi->evtchn_pending_sel, bit_of(word)) & bit_of(word)))
        evtchn_upcall_raise(d, vcpu);
}

static bool two_level_is_pending(const struct evtchn_domain *d, uint32_t port)
{
    return port < EVTCHN_2L_NR_CHANNELS &&
           load_acquire(&d->shared->evtchn_pending[port / BITS_PER_WORD]) & bit_of(port);
}

static bool two_level_is_masked(const struct evtchn_domain *d, uint32_t port)
{
    return port >= EVTCHN_2L_NR_CHANNELS ||
           load_acquire(&d->shared->evtchn_mask[port / BITS_PER_WORD]) & bit_of(port);
}

static void two_level_set_pending(struct evtchn_domain *d, uint32_t port)
{
    uint64_t w;

    if (port >= EVTCHN_2L_NR_CHANNELS ||
        fetch_or(&d->shared->evtchn_pending[port / BITS_PER_WORD], bit_of(port)) & bit_of(port))
        return;

    w = evtchn_port_word(d, port);
    if (!evtchn_word_usable(w)) {
        evtchn_stray_clear(d, port);
        return;
    }
    if (!two_level_is_masked(d, port))
        selector_set(d, port, evtchn_word_vcpu(w));
    evtchn_pollers_wake(d, port);
}

static void two_level_clear_pending(struct evtchn_domain *d, uint32_t port)
{
    if (port < EVTCHN_2L_NR_CHANNELS)
        fetch_and(&d->shared->evtchn_pending[port / BITS_PER_WORD], ~bit_of(port));
}

static void two_level_redeliver(struct evtchn_domain *d, uint32_t port)
{
    if (two_level_is_pending(d, port) && !two_level_is_masked(d, port))
        selector_set(d, port, evtchn_word_vcpu(evtchn_port_word(d, port)));
}

static void two_level_unmask(struct evtchn_domain *d, uint32_t port)
{
    if (port >= EVTCHN_2L_NR_CHANNELS ||
        !(fetch_and(&d->shared->evtchn_mask[port / BITS_PER_WORD], ~bit_of(port)) & bit_of(port)))
        return;
    two_level_redeliver(d, port);
}

const struct evtchn_port_ops evtchn_port_ops_2l = {
    .nr_ports = EVTCHN_2L_NR_CHANNELS,
    .set_pending = two_level_set_pending,
    .clear_pending = two_level_clear_pending,
    .unmask = two_level_unmask,
    .redeliver = two_level_redeliver,
    .is_pending = two_level_is_pending,
};
