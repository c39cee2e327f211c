/* SPDX-License-Identifier: MIT */
/* What the files evtchn*.c share: the port's word and the calls among them.  Not
 * for others; evtchn.c's opening note explains. */
#ifndef XENOLITH_XEN_EVTCHN_PORT_H
#define XENOLITH_XEN_EVTCHN_PORT_H

#include "base/atomic.h"
#include "xen/evtchn.h"

/* A store that later loads do not pass; an exchange on x86. */
#define store_full(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)

enum evtchn_state {
    EVTCHN_STATE_FREE,      /* must be 0: pages of ports come zeroed */
    EVTCHN_STATE_RESERVED,  /* port 0; others while they are connected or closed */
    EVTCHN_STATE_UNBOUND,   /* peer: the domain that may connect; value: see peer_wait() */
    EVTCHN_STATE_LOOPBACK,  /* value: the port of this domain at the other end */
    EVTCHN_STATE_HOST,      /* value: the host's link */
    EVTCHN_STATE_VIRQ,      /* value: the virtual interrupt */
    EVTCHN_STATE_IPI,
    EVTCHN_STATE_PEER,      /* peer: another guest, connected or not; value: the link to it */
};

/* struct evtchn_port.word: value 0-31, peer 32-47, vCPU 48-55, state 56-63 */
static inline uint64_t evtchn_word(enum evtchn_state state, unsigned vcpu, domid_t peer,
                                   uint32_t value)
{
    return (uint64_t)state << 56 | (uint64_t)vcpu << 48 | (uint64_t)peer << 32 | value;
}

static inline enum evtchn_state evtchn_word_state(uint64_t w) { return w >> 56; }
static inline unsigned evtchn_word_vcpu(uint64_t w) { return w >> 48 & 0xff; }
static inline domid_t evtchn_word_peer(uint64_t w) { return w >> 32 & 0xffff; }
static inline uint32_t evtchn_word_value(uint64_t w) { return (uint32_t)w; }

/* Neither free nor reserved: events on the port mean something. */
static inline bool evtchn_word_usable(uint64_t w)
{
    return evtchn_word_state(w) > EVTCHN_STATE_RESERVED;
}

/* A port that is known to have a record. */
static inline struct evtchn_port *evtchn_port_ref(const struct evtchn_domain *d, uint32_t port)
{
    return &d->ports[port / EVTCHN_PORTS_PER_PAGE][port % EVTCHN_PORTS_PER_PAGE];
}

/* NULL: no such port.  The result stays valid for ever. */
static inline struct evtchn_port *evtchn_port_at(const struct evtchn_domain *d, uint32_t port)
{
    /* pairs with the release in port_page_add(): the page is there before the
     * count says so */
    if (port >= load_acquire(&d->nr_ports_valid))
        return NULL;
    return evtchn_port_ref(d, port);
}

static inline uint64_t evtchn_port_word(const struct evtchn_domain *d, uint32_t port)
{
    const struct evtchn_port *p = evtchn_port_at(d, port);

    return p ? load_acquire(&p->word) : 0;
}

static inline void evtchn_port_set_pending(struct evtchn_domain *d, uint32_t port)
{
    load_acquire(&d->port_ops)->set_pending(d, port);
}

/* Another guest, if there are such at all. */
static inline bool evtchn_is_peer(const struct evtchn_domain *d, domid_t dom)
{
    return d->ops->peer_wait && dom != 0 && dom != d->self;
}

/* evtchn.c; d->lock is held. */
void evtchn_port_store(struct evtchn_domain *d, uint32_t port, uint64_t word);
/* The port may be opened: 0, -EBUSY, -ENOSPC (number too large) or -ENOMEM. */
int evtchn_port_check_free(struct evtchn_domain *d, uint32_t port);
/* The lowest free port, or -errno.  It stays free until evtchn_port_open(). */
int evtchn_port_find_free(struct evtchn_domain *d);
void evtchn_port_open(struct evtchn_domain *d, uint32_t port, uint64_t word);
void evtchn_port_free(struct evtchn_domain *d, uint32_t port);

/* evtchn_ends.c; without the lock, but for the last. */
int evtchn_peer_wait(struct evtchn_domain *d, uint32_t port, domid_t peer, uint32_t id);
int evtchn_peer_bind(struct evtchn_domain *d, domid_t peer, struct evtchn_bind_interdomain *op);
void evtchn_peer_status(const struct evtchn_domain *d, uint64_t w, struct evtchn_status *op);
/* d->lock is held, but not while the peer is told. */
void evtchn_peer_close(struct evtchn_domain *d, uint32_t port, uint32_t link);

extern const struct evtchn_port_ops evtchn_port_ops_2l;

/* Back to the 2-level ABI, if the FIFO ABI is in force.  d->lock held, no port in
 * use; afterwards the guest's pages are not touched any more. */
void evtchn_fifo_stop(struct evtchn_domain *d);

/* Turns vcpu's evtchn_upcall_pending on; kicks it if it was off. */
void evtchn_upcall_raise(struct evtchn_domain *d, unsigned vcpu);
/* Ends the polls that wait for port.  After port was made pending. */
void evtchn_pollers_wake(struct evtchn_domain *d, uint32_t port);
/* A sender found port free after it had made it pending: takes that back unless
 * the port is in use again.  Takes d->lock. */
void evtchn_stray_clear(struct evtchn_domain *d, uint32_t port);

#endif
