/* SPDX-License-Identifier: MIT */
/* The FIFO ABI: a 32-bit word per port in pages the guest adds, and per vCPU 16
 * queues, one a priority, each a singly linked list through those words with its
 * head in the vCPU's control block.
 *
 *   word: PENDING | MASKED | LINKED | BUSY | LINK (next port of the list, 0: last)
 *
 * Who may change what.  The guest takes ports off the head: it clears LINKED and
 * LINK together and goes on with the LINK it found; it clears PENDING, and sets
 * and clears MASKED.  This file sets PENDING and LINKED, sets LINK in the last word
 * of a list, writes head when the list is empty, and keeps each queue's tail where
 * the guest cannot see it.  All of this is done under the lock of the queue.  An event
 * that is linked or masked already needs no more than PENDING: the guest looks at that
 * after it has cleared LINKED, or has cleared MASKED.
 *
 * Appending needs the last word to be still on the list.  One atomic OR puts LINK
 * there and tells: if LINKED was set, the guest will find the link; if not, the
 * guest had emptied the list, the link is taken out again (nobody reads the LINK of
 * a word that is not LINKED, and setting LINKED there needs the lock that is held)
 * and the event becomes the head.  So nothing is ever retried against the guest,
 * and BUSY, by which a hypervisor may hold off the guest's unmasking, is not used.
 *
 * A port whose vCPU or priority changed may still be the tail of its former queue:
 * then that list is empty, because the port is not LINKED, and its tail must be
 * forgotten before the port goes elsewhere.  fifo_last names that queue, and changes
 * only under both queues' locks.  It is read before they can be taken, so taking
 * them is tried again when it changed meanwhile; each time another vCPU has linked
 * this very event.
 *
 * EVTCHNOP_reset gives the pages back to the guest, so it must outwait whoever
 * still writes there.  They all hold a queue's lock from before they read nr_words:
 * the reset clears nr_words, then takes each lock once.
 *
 * The guest can write all words, heads and ready bits at any time; they are only
 * ever ORed and ANDed or overwritten, never followed. */
#include <errno.h>

#include "xen/evtchn_port.h"

#define WORDS_PER_PAGE (PAGE_SIZE / sizeof(event_word_t))

#define PENDING ((event_word_t)1 << EVTCHN_FIFO_PENDING)
#define MASKED  ((event_word_t)1 << EVTCHN_FIFO_MASKED)
#define LINKED  ((event_word_t)1 << EVTCHN_FIFO_LINKED)

static event_word_t *word_at(const struct evtchn_domain *d, uint32_t port)
{
    /* pairs with the stores in evtchn_expand_array() and evtchn_fifo_stop() */
    if (port >= load_acquire(&d->fifo.nr_words))
        return NULL;
    return &d->fifo.words[port / WORDS_PER_PAGE][port % WORDS_PER_PAGE];
}

static struct evtchn_fifo_queue *queue_at(struct evtchn_domain *d, uint32_t id)
{
    return &d->fifo.queue[id / EVTCHN_FIFO_MAX_QUEUES][id % EVTCHN_FIFO_MAX_QUEUES];
}

/* The queue that a port's events belong on now, and the one they were on last; both
 * are locked.  Perhaps the same. */
struct place {
    unsigned vcpu, priority;
    uint32_t now, last;
};

static void queues_unlock(struct evtchn_domain *d, const struct place *at)
{
    spin_unlock(&queue_at(d, at->now)->lock);
    if (unlikely(at->now != at->last))
        spin_unlock(&queue_at(d, at->last)->lock);
}

/* Two are taken in the order of their numbers. */
static void queues_lock(struct evtchn_domain *d, const struct evtchn_port *p, struct place *at)
{
    for (;;) {
        at->vcpu = evtchn_word_vcpu(load_acquire(&p->word));
        at->priority = load_relaxed(&p->fifo_priority);
        at->now = at->vcpu * EVTCHN_FIFO_MAX_QUEUES + at->priority;
        at->last = load_relaxed(&p->fifo_last);
        spin_lock(&queue_at(d, min_of(at->now, at->last))->lock);
        if (unlikely(at->now != at->last))
            spin_lock(&queue_at(d, max_of(at->now, at->last))->lock);
        if (likely(load_relaxed(&p->fifo_last) == at->last))
            return;
        queues_unlock(d, at);
    }
}

/* Makes port follow tail, if tail is still on its list. */
static bool tail_append(struct evtchn_domain *d, uint32_t tail, uint32_t port)
{
    event_word_t *word = word_at(d, tail);

    if (!word)
        return false;
    if (fetch_or(word, port) & LINKED)
        return true;
    fetch_and(word, ~(event_word_t)EVTCHN_FIFO_LINK_MASK);
    return false;
}

/* Puts a pending event where it belongs; `before` is its word as it was.  True when the
 * guest has to be told.  Queues locked. */
static bool event_link(struct evtchn_domain *d, const struct place *at, struct evtchn_port *p,
                       uint32_t port, event_word_t *word, event_word_t before)
{
    /* Without a control block the event stays pending and unlinked: the guest must
     * not unmask events of a vCPU before it has given it one. */
    struct evtchn_fifo_control_block *control = load_acquire(&d->fifo.control[at->vcpu]);
    struct evtchn_fifo_queue *q = queue_at(d, at->now), *former = queue_at(d, at->last);
    uint32_t ready = (uint32_t)1 << at->priority;
    bool appended;

    if ((before & (MASKED | LINKED)) || !control || (fetch_or(word, LINKED) & LINKED))
        return false;
    if (former->tail == port)
        former->tail = 0;
    store_relaxed(&p->fifo_last, at->now);
    appended = q->tail && tail_append(d, q->tail, port);
    q->tail = port;
    if (appended)
        return false;
    store_release(&control->head[at->priority], port);
    /* the guest reads head after it has taken the ready bit */
    return !(fetch_or(&control->ready, ready) & ready);
}

/* The port's word; or NULL, and the event is noted for evtchn_expand_array().  One
 * of the two sees the other: the note is made before the second look, the page
 * added before the notes are read. */
static event_word_t *word_or_note(struct evtchn_domain *d, struct evtchn_port *p, uint32_t port)
{
    event_word_t *word = word_at(d, port);

    if (likely(word))
        return word;
    store_full(&p->fifo_saved, 1);
    word = word_at(d, port);
    return word && swap_acq_rel(&p->fifo_saved, 0) ? word : NULL;
}

static void fifo_set_pending(struct evtchn_domain *d, uint32_t port)
{
    struct evtchn_port *p = evtchn_port_ref(d, port);
    event_word_t *word, before = PENDING;
    bool usable, tell = false;
    struct place at;

    queues_lock(d, p, &at);
    word = word_or_note(d, p, port);
    if (likely(word))
        before = fetch_or(word, PENDING);
    usable = evtchn_word_usable(load_acquire(&p->word));
    if (likely(word && usable))
        tell = event_link(d, &at, p, port, word, before);
    queues_unlock(d, &at);

    if (tell)
        evtchn_upcall_raise(d, at.vcpu);
    if (unlikely(!usable))
        evtchn_stray_clear(d, port);
    else if (!(before & PENDING))
        evtchn_pollers_wake(d, port);
}

static void fifo_clear_pending(struct evtchn_domain *d, uint32_t port)
{
    event_word_t *word = word_at(d, port);

    store_relaxed(&evtchn_port_ref(d, port)->fifo_saved, 0);
    if (word)
        fetch_and(word, ~PENDING);
}

static void fifo_unmask(struct evtchn_domain *d, uint32_t port)
{
    struct evtchn_port *p = evtchn_port_ref(d, port);
    event_word_t *word, before;
    bool tell = false;
    struct place at;

    queues_lock(d, p, &at);
    word = word_at(d, port);
    if (word) {
        before = fetch_and(word, ~MASKED);
        if (before & PENDING)
            tell = event_link(d, &at, p, port, word, before & ~MASKED);
    }
    queues_unlock(d, &at);
    if (tell)
        evtchn_upcall_raise(d, at.vcpu);
}

static bool fifo_is_pending(const struct evtchn_domain *d, uint32_t port)
{
    const event_word_t *word = word_at(d, port);

    return word && load_acquire(word) & PENDING;
}

static bool fifo_is_busy(const struct evtchn_domain *d, uint32_t port)
{
    const event_word_t *word = word_at(d, port);

    return word && load_acquire(word) & LINKED;
}

static void fifo_init(struct evtchn_domain *d, uint32_t port)
{
    struct evtchn_port *p = evtchn_port_ref(d, port);

    store_relaxed(&p->fifo_saved, 0);
    store_relaxed(&p->fifo_priority, EVTCHN_FIFO_PRIORITY_DEFAULT);
}

/* For events from now on; one that is linked stays where it is. */
static int fifo_set_priority(struct evtchn_domain *d, uint32_t port, uint32_t priority)
{
    if (priority > EVTCHN_FIFO_PRIORITY_MIN)
        return -EINVAL;
    store_relaxed(&evtchn_port_ref(d, port)->fifo_priority, (uint8_t)priority);
    return 0;
}

static const struct evtchn_port_ops evtchn_port_ops_fifo = {
    .nr_ports = EVTCHN_FIFO_NR_CHANNELS,
    .init = fifo_init,
    .set_pending = fifo_set_pending,
    .clear_pending = fifo_clear_pending,
    .unmask = fifo_unmask,
    .is_pending = fifo_is_pending,
    .is_busy = fifo_is_busy,
    .set_priority = fifo_set_priority,
};

/* The guest is leaving the 2-level ABI: what is pending there is taken along, and not left
 * for it to find when it comes back.  An event being sent at this moment may be missed, as
 * the ABI warns (init_control). */
static void fifo_start(struct evtchn_domain *d)
{
    for (uint32_t port = 1; port < d->nr_ports_valid; port++)
        fifo_init(d, port);
    store_full(&d->port_ops, &evtchn_port_ops_fifo);
    for (uint32_t port = 1; port < d->nr_ports_valid; port++)
        if (evtchn_port_ops_2l.is_pending(d, port)) {
            evtchn_port_ops_2l.clear_pending(d, port);
            store_relaxed(&evtchn_port_ref(d, port)->fifo_saved, 1);
        }
}

void evtchn_fifo_stop(struct evtchn_domain *d)
{
    if (d->port_ops != &evtchn_port_ops_fifo)
        return;
    store_release(&d->port_ops, &evtchn_port_ops_2l);
    store_full(&d->fifo.nr_words, 0);
    for (unsigned vcpu = 0; vcpu < d->nr_vcpus; vcpu++)
        store_release(&d->fifo.control[vcpu], NULL);
    for (uint32_t id = 0; id < d->nr_vcpus * EVTCHN_FIFO_MAX_QUEUES; id++) {
        spin_lock(&queue_at(d, id)->lock);
        queue_at(d, id)->tail = 0;
        spin_unlock(&queue_at(d, id)->lock);
    }
}

int evtchn_init_control(struct evtchn_domain *d, struct evtchn_init_control *op)
{
    uint8_t *page;
    int ret = -EINVAL;

    if (op->vcpu >= d->nr_vcpus)
        return -ENOENT;
    if (op->offset > PAGE_SIZE - sizeof(struct evtchn_fifo_control_block) || op->offset & 7)
        return -EINVAL;
    spin_lock(&d->lock);
    page = d->fifo.control[op->vcpu] ? NULL : d->ops->gfn_map(d->ctx, op->control_gfn);
    if (page) {
        if (d->port_ops != &evtchn_port_ops_fifo)
            fifo_start(d);
        store_release(&d->fifo.control[op->vcpu],
                      (struct evtchn_fifo_control_block *)(void *)(page + op->offset));
        op->link_bits = EVTCHN_FIFO_LINK_BITS;
        ret = 0;
    }
    spin_unlock(&d->lock);
    return ret;
}

int evtchn_expand_array(struct evtchn_domain *d, const struct evtchn_expand_array *op)
{
    event_word_t *page = NULL;
    uint32_t first;
    int ret = 0;

    spin_lock(&d->lock);
    first = d->fifo.nr_words;
    if (d->port_ops != &evtchn_port_ops_fifo)
        ret = -EOPNOTSUPP;
    else if (first == EVTCHN_FIFO_NR_CHANNELS)
        ret = -ENOSPC;
    else if (!(page = d->ops->gfn_map(d->ctx, op->array_gfn)))
        ret = -EINVAL;
    if (!ret) {
        d->fifo.words[first / WORDS_PER_PAGE] = page;
        store_full(&d->fifo.nr_words, first + (uint32_t)WORDS_PER_PAGE);
    }
    spin_unlock(&d->lock);
    if (ret)
        return ret;
    /* what happened before the words were there */
    for (uint32_t port = first; port < first + WORDS_PER_PAGE; port++) {
        struct evtchn_port *p = evtchn_port_at(d, port);

        if (!p)
            break;
        if (swap_acq_rel(&p->fifo_saved, 0))
            evtchn_port_set_pending(d, port);
    }
    return 0;
}
