/* SPDX-License-Identifier: MIT */
/* Event channels as simply as they can be said: a table of ports, lists for queues, flags
 * for bits, everything looked up by walking.  Written from Xen's headers and from what
 * Xen 4.17 answers, to hold src/xen/evtchn*.c to; one step at a time, so without a word
 * on races. */
#ifndef XENOLITH_TESTS_EVTCHN_MODEL_H
#define XENOLITH_TESTS_EVTCHN_MODEL_H

#include <errno.h>

#include "evtchn_guest.h"

#define MODEL_VCPUS  3
#define MODEL_PORTS  1100       /* the domain's limit; more than one page of event words */
#define MODEL_QUEUES 16

struct model_port {
    enum evtchn_state state;
    unsigned vcpu, priority;
    domid_t peer;
    uint32_t value;             /* other port, link or virq */
    bool pending, masked;       /* of the 2-level ABI */
    bool word_pending, word_masked, linked;
    bool noted;                 /* pending while there was no word */
};

struct model {
    bool fifo;
    uint32_t nr_words, nr_valid;
    struct model_port port[MODEL_PORTS];
    bool control[MODEL_VCPUS], upcall[MODEL_VCPUS], upcall_masked[MODEL_VCPUS];
    bool selector[MODEL_VCPUS][64];
    bool ready[MODEL_VCPUS][MODEL_QUEUES], taking[MODEL_VCPUS][MODEL_QUEUES];
    uint32_t list[MODEL_VCPUS][MODEL_QUEUES][MODEL_PORTS], nr_list[MODEL_VCPUS][MODEL_QUEUES];
    uint32_t kicks[MODEL_VCPUS];
    bool polling[MODEL_VCPUS];
    uint32_t poll_port[MODEL_VCPUS];
    uint32_t host_sends[GUEST_LINKS], host_closes[GUEST_LINKS];
};

static inline bool model_usable(const struct model *m, uint32_t port)
{
    return port < m->nr_valid && port < MODEL_PORTS &&
           m->port[port].state > EVTCHN_STATE_RESERVED;
}

static inline bool model_has_word(const struct model *m, uint32_t port)
{
    return port < m->nr_words;
}

static inline bool model_pending(const struct model *m, uint32_t port)
{
    return m->fifo ? model_has_word(m, port) && m->port[port].word_pending
                   : m->port[port].pending;
}

static inline void model_upcall(struct model *m, unsigned vcpu)
{
    m->kicks[vcpu] += !m->upcall[vcpu];
    m->upcall[vcpu] = true;
}

static inline void model_selector(struct model *m, uint32_t port, unsigned vcpu)
{
    if (m->selector[vcpu][port / 64])
        return;
    m->selector[vcpu][port / 64] = true;
    model_upcall(m, vcpu);
}

static inline void model_pollers(struct model *m, uint32_t port)
{
    for (unsigned v = 0; v < MODEL_VCPUS; v++)
        if (m->polling[v] && (m->poll_port[v] == EVTCHN_POLL_ANY || m->poll_port[v] == port)) {
            m->polling[v] = false;
            m->kicks[v]++;
        }
}

static inline void model_link(struct model *m, uint32_t port)
{
    struct model_port *p = &m->port[port];
    unsigned v = p->vcpu, q = p->priority;

    if (p->word_masked || p->linked || !m->control[v])
        return;
    p->linked = true;
    m->list[v][q][m->nr_list[v][q]++] = port;
    if (m->nr_list[v][q] == 1 && !m->ready[v][q]) {
        m->ready[v][q] = true;
        model_upcall(m, v);
    }
}

static inline void model_event(struct model *m, uint32_t port)
{
    struct model_port *p = &m->port[port];
    bool was = model_pending(m, port);

    if (m->fifo && !model_has_word(m, port)) {
        p->noted = true;
        return;
    }
    if (m->fifo) {
        p->word_pending = true;
        model_link(m, port);
    } else if (!was) {
        p->pending = true;
        if (!p->masked)
            model_selector(m, port, p->vcpu);
    }
    if (!was)
        model_pollers(m, port);
}

/* The lowest port that is neither in use nor on a list, or -ENOSPC. */
static inline int model_find(struct model *m)
{
    for (uint32_t port = 1; port < MODEL_PORTS; port++) {
        struct model_port *p = &m->port[port];

        if (port >= m->nr_valid)
            m->nr_valid += (uint32_t)EVTCHN_PORTS_PER_PAGE;
        if (p->state == EVTCHN_STATE_FREE && !(m->fifo && model_has_word(m, port) && p->linked))
            return (int)port;
    }
    return -ENOSPC;
}

static inline void model_open(struct model *m, uint32_t port, enum evtchn_state state,
                              unsigned vcpu, domid_t peer, uint32_t value)
{
    struct model_port *p = &m->port[port];

    p->state = state;
    p->vcpu = vcpu;
    p->peer = peer;
    p->value = value;
    if (m->fifo) {
        p->priority = EVTCHN_FIFO_PRIORITY_DEFAULT;
        p->noted = false;
    }
}

static inline int model_alloc_unbound(struct model *m, domid_t dom, domid_t remote)
{
    int port;

    if (dom != DOMID_SELF && dom != GUEST_DOMID)
        return dom ? -ESRCH : -EPERM;
    port = model_find(m);
    if (port > 0)
        model_open(m, (uint32_t)port, EVTCHN_STATE_UNBOUND, 0,
                   remote == DOMID_SELF ? GUEST_DOMID : remote, 0);
    return port;
}

static inline int model_interdomain(struct model *m, domid_t dom, uint32_t remote)
{
    int port;

    if (dom != DOMID_SELF && dom != GUEST_DOMID && dom != 0)
        return -ESRCH;
    port = model_find(m);
    if (port < 0)
        return port;
    if (dom == 0 || !model_usable(m, remote) || m->port[remote].state != EVTCHN_STATE_UNBOUND ||
        m->port[remote].peer != GUEST_DOMID)
        return -EINVAL;
    model_open(m, (uint32_t)port, EVTCHN_STATE_LOOPBACK, 0, GUEST_DOMID, remote);
    m->port[remote].state = EVTCHN_STATE_LOOPBACK;
    m->port[remote].value = (uint32_t)port;
    model_event(m, (uint32_t)port);
    return port;
}

static inline int model_virq(struct model *m, uint32_t virq, uint32_t vcpu)
{
    bool global = virq != VIRQ_TIMER && virq != VIRQ_DEBUG && virq != VIRQ_XENOPROF &&
                  virq != VIRQ_XENPMU;
    int port;

    if (virq >= NR_VIRQS || (global && vcpu))
        return -EINVAL;
    if (vcpu >= MODEL_VCPUS)
        return -ENOENT;
    for (uint32_t i = 1; i < MODEL_PORTS; i++)
        if (m->port[i].state == EVTCHN_STATE_VIRQ && m->port[i].value == virq &&
            (global || m->port[i].vcpu == vcpu))
            return -EEXIST;
    port = model_find(m);
    if (port > 0)
        model_open(m, (uint32_t)port, EVTCHN_STATE_VIRQ, vcpu, 0, virq);
    return port;
}

static inline int model_ipi(struct model *m, uint32_t vcpu)
{
    int port = vcpu < MODEL_VCPUS ? model_find(m) : -ENOENT;

    if (port > 0)
        model_open(m, (uint32_t)port, EVTCHN_STATE_IPI, vcpu, 0, 0);
    return port;
}

static inline int model_close(struct model *m, uint32_t port)
{
    struct model_port *p, *other;

    if (!model_usable(m, port))
        return -EINVAL;
    p = &m->port[port];
    if (p->state == EVTCHN_STATE_LOOPBACK) {
        other = &m->port[p->value];
        other->state = EVTCHN_STATE_UNBOUND;
        other->peer = GUEST_DOMID;
        other->value = 0;
    } else if (p->state == EVTCHN_STATE_HOST) {
        m->host_closes[p->value]++;
    }
    p->state = EVTCHN_STATE_FREE;
    p->vcpu = p->peer = 0;
    p->value = 0;
    if (!m->fifo) {
        p->pending = false;
        return 0;
    }
    p->noted = false;
    if (model_has_word(m, port))
        p->word_pending = false;
    return 0;
}

static inline int model_bind_vcpu(struct model *m, uint32_t port, uint32_t vcpu)
{
    struct model_port *p;

    if (vcpu >= MODEL_VCPUS)
        return -ENOENT;
    if (!model_usable(m, port))
        return -EINVAL;
    p = &m->port[port];
    if (p->state == EVTCHN_STATE_IPI ||
        (p->state == EVTCHN_STATE_VIRQ && p->value != VIRQ_DOM_EXC))
        return -EINVAL;
    p->vcpu = vcpu;
    if (!m->fifo && p->pending && !p->masked)
        model_selector(m, port, vcpu);
    return 0;
}

static inline int model_send(struct model *m, uint32_t port)
{
    if (!model_usable(m, port))
        return -EINVAL;
    switch (m->port[port].state) {
    case EVTCHN_STATE_LOOPBACK:
        model_event(m, m->port[port].value);
        return 0;
    case EVTCHN_STATE_HOST:
        m->host_sends[m->port[port].value]++;
        return 0;
    case EVTCHN_STATE_IPI:
        model_event(m, port);
        return 0;
    default:
        return m->port[port].state == EVTCHN_STATE_UNBOUND ? 0 : -EINVAL;
    }
}

static inline int model_unmask(struct model *m, uint32_t port)
{
    struct model_port *p;

    if (port >= m->nr_valid)
        return -EINVAL;
    if (!model_usable(m, port))
        return 0;
    p = &m->port[port];
    if (m->fifo) {
        if (!model_has_word(m, port))
            return 0;
        p->word_masked = false;
        if (p->word_pending)
            model_link(m, port);
    } else if (p->masked) {
        p->masked = false;
        if (p->pending)
            model_selector(m, port, p->vcpu);
    }
    return 0;
}

static inline int model_priority(struct model *m, uint32_t port, uint32_t priority)
{
    if (port >= m->nr_valid)
        return -EINVAL;
    if (!m->fifo)
        return -ENOSYS;
    if (!model_usable(m, port))
        return -EACCES;
    if (priority > EVTCHN_FIFO_PRIORITY_MIN)
        return -EINVAL;
    m->port[port].priority = priority;
    return 0;
}

static inline int model_control(struct model *m, uint64_t gfn, uint32_t offset, uint32_t vcpu)
{
    if (vcpu >= MODEL_VCPUS)
        return -ENOENT;
    if (offset > PAGE_SIZE - sizeof(struct evtchn_fifo_control_block) || offset % 8 ||
        gfn >= GUEST_PAGES || m->control[vcpu])
        return -EINVAL;
    m->control[vcpu] = true;
    if (m->fifo)
        return 0;
    m->fifo = true;
    for (uint32_t port = 0; port < MODEL_PORTS; port++) {
        struct model_port *p = &m->port[port];

        p->priority = EVTCHN_FIFO_PRIORITY_DEFAULT;
        p->noted = p->pending;
        p->pending = p->word_pending = p->word_masked = p->linked = false;
    }
    return 0;
}

static inline int model_expand(struct model *m, uint64_t gfn)
{
    uint32_t first = m->nr_words;

    if (!m->fifo)
        return -EOPNOTSUPP;
    if (first == EVTCHN_FIFO_NR_CHANNELS)
        return -ENOSPC;
    if (gfn >= GUEST_PAGES)
        return -EINVAL;
    m->nr_words += PAGE_SIZE / sizeof(event_word_t);
    for (uint32_t port = first; port < min_of(m->nr_words, (uint32_t)MODEL_PORTS); port++)
        if (m->port[port].noted) {
            m->port[port].noted = false;
            model_event(m, port);
        }
    return 0;
}

static inline void model_reset(struct model *m)
{
    for (uint32_t port = 1; port < MODEL_PORTS; port++)
        model_close(m, port);
    m->fifo = false;
    m->nr_words = 0;
    memset(m->control, 0, sizeof(m->control));
    memset(m->ready, 0, sizeof(m->ready));
    memset(m->taking, 0, sizeof(m->taking));
    memset(m->nr_list, 0, sizeof(m->nr_list));
}

/* As SCHEDOP_poll sees a port: one that nobody has made is not pending. */
static inline int model_polled(const struct model *m, uint32_t port)
{
    if (port >= (m->fifo ? EVTCHN_FIFO_NR_CHANNELS : EVTCHN_2L_NR_CHANNELS))
        return -EINVAL;
    return model_usable(m, port) && model_pending(m, port);
}

static inline int model_poll(struct model *m, unsigned vcpu, const uint32_t *ports, unsigned nr)
{
    m->polling[vcpu] = false;
    if (m->upcall[vcpu] && !m->upcall_masked[vcpu])
        return 0;
    for (unsigned i = 0; i < nr; i++) {
        int pending = model_polled(m, ports[i]);

        if (pending)
            return min_of(pending, 0);
    }
    m->polling[vcpu] = true;
    m->poll_port[vcpu] = nr == 1 ? ports[0] : EVTCHN_POLL_ANY;
    return EVTCHN_POLL_WAIT;
}

/* What a guest takes next from its queues; 0: nothing.  *fired: it was pending. */
static inline uint32_t model_take(struct model *m, unsigned vcpu, bool *fired)
{
    for (unsigned q = 0; q < MODEL_QUEUES; q++) {
        m->taking[vcpu][q] |= m->ready[vcpu][q];
        m->ready[vcpu][q] = false;
    }
    for (unsigned q = 0; q < MODEL_QUEUES; q++) {
        uint32_t *list = m->list[vcpu][q], port = list[0];
        struct model_port *p = &m->port[port];

        if (!m->taking[vcpu][q])
            continue;
        m->taking[vcpu][q] = --m->nr_list[vcpu][q] > 0;
        memmove(list, list + 1, m->nr_list[vcpu][q] * sizeof(*list));
        p->linked = false;
        *fired = p->word_pending && !p->word_masked;
        p->word_pending &= !*fired;
        return port;
    }
    return 0;
}

#endif
