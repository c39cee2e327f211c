/* SPDX-License-Identifier: MIT */
/* The ports of a domain: allotment, states, and the EVTCHNOP calls on them.
 *
 * Each port is one 64-bit word (evtchn_port.h): state, notified vCPU, and the
 * other end.  Words are written only under d->lock, with single stores, and read
 * without it: a sender loads a word once and has a consistent view.
 *
 *              alloc_unbound          bind_interdomain, host_bind
 *     FREE ---------------------> UNBOUND ----------------> LOOPBACK, HOST, PEER
 *      | ^                          | ^                        |
 *      | '------- close, reset -----' '---- the other end -----+
 *      |                                    closes             |
 *      +-- bind_virq, bind_ipi --> VIRQ, IPI                   |
 *      ^                              |                        |
 *      '------------- close, reset ---+------------------------'
 *
 * A PEER port stays one when the other guest closes its end: whether it is connected, and
 * to which port, is known to whoever carries events between guests (peer_port()).  What has
 * to be asked of them takes long, so the port is RESERVED meanwhile and d->lock free.
 *
 * Port 0 is RESERVED for ever.  The two ends of a LOOPBACK channel always name
 * each other; host_closed() is called once for each HOST that ends by the guest's
 * hand; virq_port[][] names a VIRQ port exactly while that state lasts.
 *
 * Sending takes no lock, so it can race with closing.  Closing stores FREE, then
 * clears the pending state; a sender sets the pending state, then reads the word
 * again.  Whoever is second sees the other, and a sender that finds FREE takes the
 * event back under the lock (evtchn_stray_clear).  So a free port is never left
 * pending.  If the port was given away again in between, the sender cannot tell
 * and the new owner sees one event that was not meant for it, which guests have to
 * expect of a new channel anyhow.
 *
 * Memory for ports is added page by page and never given back, so a pointer to a
 * port found once is good for ever. */
#include <errno.h>

#include "xen/evtchn_port.h"

void evtchn_port_store(struct evtchn_domain *d, uint32_t port, uint64_t word)
{
    /* Pairs with the acquire loads of senders; and no later look at the pending
     * state may pass it: with the locked instruction in set_pending. */
    store_full(&evtchn_port_ref(d, port)->word, word);
}

static int port_page_add(struct evtchn_domain *d)
{
    void *page = d->ops->page_alloc(d->ctx);

    if (!page)
        return -ENOMEM;
    d->ports[d->nr_ports_valid / EVTCHN_PORTS_PER_PAGE] = page;
    /* pairs with the acquire in evtchn_port_at() */
    store_release(&d->nr_ports_valid, d->nr_ports_valid + (uint32_t)EVTCHN_PORTS_PER_PAGE);
    return 0;
}

int evtchn_port_check_free(struct evtchn_domain *d, uint32_t port)
{
    if (port >= min_of(d->nr_ports_limit, d->port_ops->nr_ports))
        return -ENOSPC;
    while (port >= d->nr_ports_valid) {
        int ret = port_page_add(d);

        if (ret)
            return ret;
    }
    if (evtchn_word_state(evtchn_port_word(d, port)) != EVTCHN_STATE_FREE ||
        (d->port_ops->is_busy && d->port_ops->is_busy(d, port)))
        return -EBUSY;
    return 0;
}

/* The lowest free port, or -errno.  It stays free until evtchn_port_open(). */
int evtchn_port_find_free(struct evtchn_domain *d)
{
    bool all_used = true;

    for (uint32_t port = d->free_hint; ; port++) {
        int ret = evtchn_port_check_free(d, port);

        if (ret != -EBUSY) {
            if (!ret && all_used)
                d->free_hint = port;
            return ret ? ret : (int)port;
        }
        /* free, but still on a list of the guest's */
        if (evtchn_word_state(evtchn_port_word(d, port)) == EVTCHN_STATE_FREE)
            all_used = false;
    }
}

void evtchn_port_open(struct evtchn_domain *d, uint32_t port, uint64_t word)
{
    if (d->port_ops->init)
        d->port_ops->init(d, port);
    evtchn_port_store(d, port, word);
    d->nr_ports_used++;
}

static bool virq_is_global(uint32_t virq)
{
    return virq != VIRQ_TIMER && virq != VIRQ_DEBUG && virq != VIRQ_XENOPROF &&
           virq != VIRQ_XENPMU;
}

/* Where a VIRQ port is noted: global ones under vCPU 0, wherever they are bound. */
static uint32_t *virq_slot(struct evtchn_domain *d, unsigned vcpu, uint32_t virq)
{
    return &d->virq_port[virq_is_global(virq) ? 0 : vcpu][virq];
}

void evtchn_port_free(struct evtchn_domain *d, uint32_t port)
{
    evtchn_port_store(d, port, evtchn_word(EVTCHN_STATE_FREE, 0, 0, 0));
    d->port_ops->clear_pending(d, port);
    d->nr_ports_used--;
    d->free_hint = min_of(d->free_hint, port);
}

/* d->lock is held, though perhaps not throughout. */
static int port_close(struct evtchn_domain *d, uint32_t port)
{
    uint64_t w = evtchn_port_word(d, port);
    uint64_t other;

    switch (evtchn_word_state(w)) {
    case EVTCHN_STATE_FREE:
    case EVTCHN_STATE_RESERVED:
        return -EINVAL;
    case EVTCHN_STATE_UNBOUND:
        if (evtchn_is_peer(d, evtchn_word_peer(w)))
            evtchn_peer_close(d, port, EVTCHN_NO_LINK);
        break;
    case EVTCHN_STATE_PEER:
        evtchn_peer_close(d, port, evtchn_word_value(w));
        break;
    case EVTCHN_STATE_IPI:
        break;
    case EVTCHN_STATE_LOOPBACK:
        other = evtchn_port_word(d, evtchn_word_value(w));
        evtchn_port_store(d, evtchn_word_value(w),
                          evtchn_word(EVTCHN_STATE_UNBOUND, evtchn_word_vcpu(other), d->self, 0));
        break;
    case EVTCHN_STATE_HOST:
        d->ops->host_closed(d->ctx, port, evtchn_word_value(w));
        break;
    case EVTCHN_STATE_VIRQ:
        store_release(virq_slot(d, evtchn_word_vcpu(w), evtchn_word_value(w)), 0);
        break;
    }
    evtchn_port_free(d, port);
    return 0;
}

void evtchn_stray_clear(struct evtchn_domain *d, uint32_t port)
{
    spin_lock(&d->lock);
    if (!evtchn_word_usable(evtchn_port_word(d, port)))
        d->port_ops->clear_pending(d, port);
    spin_unlock(&d->lock);
}

/* 0: dom is this domain; else what an unprivileged domain is told about another. */
static int domain_check(const struct evtchn_domain *d, domid_t dom)
{
    if (dom == DOMID_SELF || dom == d->self)
        return 0;
    if (dom != 0 && d->ops->peer_exists && d->ops->peer_exists(d->ctx, dom))
        return -EPERM;
    return dom == 0 ? -EPERM : -ESRCH;
}

int evtchn_domain_init(struct evtchn_domain *d, const struct evtchn_ops *ops, void *ctx,
                       struct shared_info *shared, unsigned nr_vcpus, domid_t self)
{
    int ret;

    if (!nr_vcpus || nr_vcpus > EVTCHN_VCPUS_MAX)
        return -EINVAL;
    d->ops = ops;
    d->ctx = ctx;
    d->shared = shared;
    d->nr_vcpus = nr_vcpus;
    d->self = self;
    d->nr_ports_limit = EVTCHN_PORTS_MAX;
    d->port_ops = &evtchn_port_ops_2l;
    for (unsigned i = 0; i < EVTCHN_VCPUS_MAX; i++)
        d->vcpu_info[i] = i < XEN_LEGACY_MAX_VCPUS ? &shared->vcpu_info[i] : &d->absent;
    ret = port_page_add(d);
    if (ret)
        return ret;
    evtchn_port_store(d, 0, evtchn_word(EVTCHN_STATE_RESERVED, 0, 0, 0));
    d->free_hint = 1;
    return 0;
}

int evtchn_alloc_unbound(struct evtchn_domain *d, struct evtchn_alloc_unbound *op)
{
    domid_t peer = op->remote_dom == DOMID_SELF ? d->self : op->remote_dom;
    int ret = domain_check(d, op->dom);
    uint32_t id;

    if (ret)
        return ret;
    spin_lock(&d->lock);
    if (evtchn_is_peer(d, peer) && !++d->peer_id)
        d->peer_id = 1;
    id = evtchn_is_peer(d, peer) ? d->peer_id : 0;
    ret = evtchn_port_find_free(d);
    if (ret > 0) {
        evtchn_port_open(d, (uint32_t)ret, evtchn_word(EVTCHN_STATE_UNBOUND, 0, peer, id));
        op->port = (uint32_t)ret;
        ret = 0;
    }
    spin_unlock(&d->lock);
    return !ret && id ? evtchn_peer_wait(d, op->port, peer, id) : ret;
}

int evtchn_bind_interdomain(struct evtchn_domain *d, struct evtchn_bind_interdomain *op)
{
    domid_t peer = op->remote_dom == DOMID_SELF ? d->self : op->remote_dom;
    uint32_t local, remote = op->remote_port;
    uint64_t w;
    int ret;

    if (evtchn_is_peer(d, peer))
        return evtchn_peer_bind(d, peer, op);
    if (peer != d->self && peer != 0)
        return -ESRCH;
    spin_lock(&d->lock);
    ret = evtchn_port_find_free(d);
    if (ret < 0)
        goto out;
    local = (uint32_t)ret;
    /* domain 0 has no port that waits for this domain */
    w = peer == d->self ? evtchn_port_word(d, remote) : 0;
    ret = -EINVAL;
    if (evtchn_word_state(w) != EVTCHN_STATE_UNBOUND || evtchn_word_peer(w) != d->self)
        goto out;
    evtchn_port_open(d, local, evtchn_word(EVTCHN_STATE_LOOPBACK, 0, d->self, remote));
    evtchn_port_store(d, remote, evtchn_word(EVTCHN_STATE_LOOPBACK, evtchn_word_vcpu(w), d->self,
                                             local));
    op->local_port = local;
    ret = 0;
out:
    spin_unlock(&d->lock);
    /* events sent on the unbound end were dropped: make up for them */
    if (!ret)
        evtchn_port_set_pending(d, local);
    return ret;
}

int evtchn_bind_virq(struct evtchn_domain *d, struct evtchn_bind_virq *op)
{
    uint32_t *slot;
    int ret;

    if (op->virq >= NR_VIRQS || (virq_is_global(op->virq) && op->vcpu))
        return -EINVAL;
    if (op->vcpu >= d->nr_vcpus)
        return -ENOENT;
    slot = virq_slot(d, op->vcpu, op->virq);
    spin_lock(&d->lock);
    ret = *slot ? -EEXIST : evtchn_port_find_free(d);
    if (ret > 0) {
        evtchn_port_open(d, (uint32_t)ret, evtchn_word(EVTCHN_STATE_VIRQ, op->vcpu, 0, op->virq));
        /* pairs with the acquire in evtchn_virq_raise() */
        store_release(slot, (uint32_t)ret);
        op->port = (uint32_t)ret;
        ret = 0;
    }
    spin_unlock(&d->lock);
    return ret;
}

int evtchn_bind_ipi(struct evtchn_domain *d, struct evtchn_bind_ipi *op)
{
    int ret;

    if (op->vcpu >= d->nr_vcpus)
        return -ENOENT;
    spin_lock(&d->lock);
    ret = evtchn_port_find_free(d);
    if (ret > 0) {
        evtchn_port_open(d, (uint32_t)ret, evtchn_word(EVTCHN_STATE_IPI, op->vcpu, 0, 0));
        op->port = (uint32_t)ret;
        ret = 0;
    }
    spin_unlock(&d->lock);
    return ret;
}

int evtchn_bind_pirq(struct evtchn_domain *d, struct evtchn_bind_pirq *op)
{
    return op->pirq < EVTCHN_NR_PIRQS ? -EPERM : -EINVAL;
}

int evtchn_bind_vcpu(struct evtchn_domain *d, const struct evtchn_bind_vcpu *op)
{
    const struct evtchn_port_ops *ops;
    uint64_t w;
    int ret = 0;

    if (op->vcpu >= d->nr_vcpus)
        return -ENOENT;
    spin_lock(&d->lock);
    w = evtchn_port_word(d, op->port);
    switch (evtchn_word_state(w)) {
    case EVTCHN_STATE_VIRQ:
        if (!virq_is_global(evtchn_word_value(w)))
            ret = -EINVAL;
        break;
    case EVTCHN_STATE_HOST:
    case EVTCHN_STATE_PEER:
        d->ops->host_moved(d->ctx, op->port, evtchn_word_value(w), op->vcpu);
        break;
    case EVTCHN_STATE_UNBOUND:
    case EVTCHN_STATE_LOOPBACK:
        break;
    default:
        ret = -EINVAL;
    }
    if (!ret)
        evtchn_port_store(d, op->port, evtchn_word(evtchn_word_state(w), op->vcpu,
                                                   evtchn_word_peer(w), evtchn_word_value(w)));
    spin_unlock(&d->lock);
    ops = load_acquire(&d->port_ops);
    if (!ret && ops->redeliver)
        ops->redeliver(d, op->port);
    return ret;
}

int evtchn_close(struct evtchn_domain *d, const struct evtchn_close *op)
{
    int ret;

    spin_lock(&d->lock);
    ret = port_close(d, op->port);
    spin_unlock(&d->lock);
    return ret;
}

int evtchn_send(struct evtchn_domain *d, const struct evtchn_send *op)
{
    uint64_t w = evtchn_port_word(d, op->port);

    switch (evtchn_word_state(w)) {
    case EVTCHN_STATE_LOOPBACK:
        evtchn_port_set_pending(d, evtchn_word_value(w));
        return 0;
    case EVTCHN_STATE_HOST:
    case EVTCHN_STATE_PEER:
        d->ops->host_send(d->ctx, op->port, evtchn_word_value(w));
        return 0;
    case EVTCHN_STATE_IPI:
        evtchn_port_set_pending(d, op->port);
        return 0;
    case EVTCHN_STATE_UNBOUND:
        /* dropped; whoever connects makes up for it.  A peer may have, just now. */
        if (evtchn_is_peer(d, evtchn_word_peer(w)))
            d->ops->host_send(d->ctx, op->port, EVTCHN_NO_LINK);
        return 0;
    default:
        return -EINVAL;
    }
}

int evtchn_status(struct evtchn_domain *d, struct evtchn_status *op)
{
    const struct evtchn_port *p;
    int ret = domain_check(d, op->dom);
    uint64_t w;

    if (ret)
        return ret;
    p = evtchn_port_at(d, op->port);
    if (!p)
        return -EINVAL;
    w = load_acquire(&p->word);
    switch (evtchn_word_state(w)) {
    case EVTCHN_STATE_FREE:
    case EVTCHN_STATE_RESERVED:
        op->status = EVTCHNSTAT_closed;
        break;
    case EVTCHN_STATE_UNBOUND:
        op->status = EVTCHNSTAT_unbound;
        op->u.unbound.dom = evtchn_word_peer(w);
        break;
    case EVTCHN_STATE_LOOPBACK:
        op->status = EVTCHNSTAT_interdomain;
        op->u.interdomain.dom = d->self;
        op->u.interdomain.port = evtchn_word_value(w);
        break;
    case EVTCHN_STATE_HOST:
        op->status = EVTCHNSTAT_interdomain;
        op->u.interdomain.dom = 0;
        op->u.interdomain.port = evtchn_word_value(w) + 1;
        break;
    case EVTCHN_STATE_PEER:
        evtchn_peer_status(d, w, op);
        break;
    case EVTCHN_STATE_VIRQ:
        op->status = EVTCHNSTAT_virq;
        op->u.virq = evtchn_word_value(w);
        break;
    case EVTCHN_STATE_IPI:
        op->status = EVTCHNSTAT_ipi;
        break;
    }
    op->vcpu = evtchn_word_vcpu(w);
    return 0;
}

int evtchn_unmask(struct evtchn_domain *d, const struct evtchn_unmask *op)
{
    const struct evtchn_port *p = evtchn_port_at(d, op->port);

    if (!p)
        return -EINVAL;
    if (evtchn_word_usable(load_acquire(&p->word)))
        load_acquire(&d->port_ops)->unmask(d, op->port);
    return 0;
}

int evtchn_set_priority(struct evtchn_domain *d, const struct evtchn_set_priority *op)
{
    const struct evtchn_port_ops *ops = load_acquire(&d->port_ops);
    const struct evtchn_port *p = evtchn_port_at(d, op->port);

    if (!p)
        return -EINVAL;
    if (!ops->set_priority)
        return -ENOSYS;
    if (!evtchn_word_usable(load_acquire(&p->word)))
        return -EACCES;
    return ops->set_priority(d, op->port, op->priority);
}

/* Ports looked at in one go: some 100 us' worth. */
#define RESET_PORTS 2048

/* One part of it at a time; d->resetting from the first to the last.  The lock is taken anew
 * for each port, so that other vCPUs wait for one at most.  A guest that takes part in the
 * same one twice at once closes ports twice, which is as good as once. */
int evtchn_reset(struct evtchn_domain *d, const struct evtchn_reset *op, bool resume)
{
    int ret = domain_check(d, op->dom);
    uint32_t port, end;

    if (ret)
        return ret;
    spin_lock(&d->lock);
    if (d->resetting != resume) {
        ret = -EBUSY;
    } else if (!resume) {
        d->resetting = true;
        d->reset_next = 1;
    }
    port = d->reset_next;
    spin_unlock(&d->lock);
    if (ret)
        return ret;
    for (end = port + RESET_PORTS;
         port < end && evtchn_port_at(d, port) && load_relaxed(&d->nr_ports_used); port++) {
        spin_lock(&d->lock);
        port_close(d, port);
        spin_unlock(&d->lock);
    }
    spin_lock(&d->lock);
    if (port == end) {
        d->reset_next = port;
        ret = -ERESTART;
    } else if (d->nr_ports_used) {
        ret = -EAGAIN;      /* another vCPU opened ports meanwhile */
    } else {
        evtchn_fifo_stop(d);
    }
    d->resetting = ret == -ERESTART;
    spin_unlock(&d->lock);
    return ret;
}

void evtchn_virq_raise(struct evtchn_domain *d, unsigned vcpu, unsigned virq)
{
    uint32_t port = load_acquire(virq_slot(d, vcpu, virq));

    if (port)
        evtchn_port_set_pending(d, port);
}
