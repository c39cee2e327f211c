/* SPDX-License-Identifier: MIT */
/* Event channels of one guest: Xen's EVTCHNOP hypercalls, the host's end of the
 * guest's channels, virtual interrupts, and the part of SCHEDOP_poll that must
 * not lose a wake-up.  Freestanding: knows guest memory, vCPUs and the host only
 * through struct evtchn_ops.
 *
 * Specification: <xen/event_channel.h>, and Xen 4.17's answers for an
 * unprivileged domain.  Any vCPU may call any function at any time.  Functions
 * that return int return 0 or -errno (Linux and Xen agree on the numbers used)
 * unless they say otherwise; results go to the argument struct only when 0 is
 * returned.  evtchn.c's opening note says who may change what. */
#ifndef XENOLITH_XEN_EVTCHN_H
#define XENOLITH_XEN_EVTCHN_H

#include "base/spinlock.h"
#include "base/types.h"

#include <xen/xen.h>
#include <xen/event_channel.h>

#define EVTCHN_VCPUS_MAX      64
#define EVTCHN_PORTS_MAX      EVTCHN_FIFO_NR_CHANNELS
#define EVTCHN_POLL_PORTS_MAX 128

struct evtchn_domain;

#define EVTCHN_NO_LINK UINT32_MAX

/* What the core asks of its surroundings.  None of them may call back into this
 * domain's event channels.  vcpu_kick, host_send and peer_* are called without any lock
 * held; host_closed, host_moved, page_alloc and gfn_map under the domain's lock, so
 * that they come in the order of the changes they report. */
struct evtchn_ops {
    /* A zeroed, page-aligned page that the core keeps for ever; NULL: none left. */
    void *(*page_alloc)(void *ctx);
    /* vcpu should look at evtchn_upcall_pending, or at its poll, now.  Called from
     * any vCPU, for the calling one too. */
    void (*vcpu_kick)(void *ctx, unsigned vcpu);
    /* The guest sent on a port connected to domain 0.  A call may come just after
     * host_closed() for the same link when two vCPUs race: treat it as spurious. */
    void (*host_send)(void *ctx, uint32_t port, uint32_t link);
    /* The guest closed or reset its end; the link is free. */
    void (*host_closed)(void *ctx, uint32_t port, uint32_t link);
    /* The guest wants the port's events on vcpu: when the host connects, and at
     * every EVTCHNOP_bind_vcpu. */
    void (*host_moved)(void *ctx, uint32_t port, uint32_t link, unsigned vcpu);
    /* Other guests, or all NULL: there are none.  Without any lock, since each may wait for
     * another process.  Events of a port with a link, and of one without (EVTCHN_NO_LINK),
     * go through host_send(), and host_moved() is called for the link, as for the host's.
     *
     * port waits for guest peer.  When it connects, evtchn_peer_attach() follows, with the
     * same id.  0 or -errno. */
    int (*peer_wait)(void *ctx, uint32_t port, domid_t peer, uint32_t id);
    /* Connects port to the port of peer's that waits for this guest, by *link.  0; -ESRCH:
     * no such guest; -EINVAL: no such port; -errno. */
    int (*peer_bind)(void *ctx, uint32_t port, domid_t peer, uint32_t peer_port, uint32_t *link);
    /* The guest has closed a port that waits for a peer, or has one; its link is free. */
    void (*peer_closed)(void *ctx, uint32_t port, uint32_t link);
    /* The other end's port number; 0: the peer has closed it, and may connect again. */
    uint32_t (*peer_port)(void *ctx, uint32_t link);
    /* There is such a guest. */
    bool (*peer_exists)(void *ctx, domid_t peer);
    /* The guest's page gfn, writable, for FIFO control blocks and event words; NULL
     * when there is no such page. */
    void *(*gfn_map)(void *ctx, uint64_t gfn);
};

/* One port.  `word` holds everything a sender needs, so that one load is a
 * consistent view (evtchn.c); the rest belongs to the FIFO ABI. */
struct evtchn_port {
    uint64_t word;
    uint32_t fifo_last;     /* queue the event was last linked on, evtchn_fifo.c */
    uint8_t fifo_priority;
    uint8_t fifo_saved;     /* became pending while its event word was missing */
};

#define EVTCHN_PORTS_PER_PAGE (PAGE_SIZE / sizeof(struct evtchn_port))
#define EVTCHN_PORT_PAGES     (EVTCHN_PORTS_MAX / EVTCHN_PORTS_PER_PAGE)

/* How an ABI keeps the "pending" and "masked" state in guest memory: 2-level
 * (evtchn_2l.c) or FIFO (evtchn_fifo.c).  The current one is d->port_ops, changed
 * under d->lock and read with acquire by senders, so an op may run a little after
 * its ABI was given up: each checks the port against what it keeps.  Every port
 * passed has a struct evtchn_port; nothing the guest wrote is trusted. */
struct evtchn_port_ops {
    unsigned nr_ports;      /* port numbers the ABI can express */
    /* The port was given away: reset what the ABI keeps.  d->lock held.  May be NULL. */
    void (*init)(struct evtchn_domain *d, uint32_t port);
    /* Marks pending, tells the notified vCPU if not masked, wakes pollers.  Called
     * without d->lock. */
    void (*set_pending)(struct evtchn_domain *d, uint32_t port);
    /* d->lock held. */
    void (*clear_pending)(struct evtchn_domain *d, uint32_t port);
    /* Clears the mask; tells the notified vCPU if pending.  Without d->lock. */
    void (*unmask)(struct evtchn_domain *d, uint32_t port);
    /* The port moved to another vCPU: tell that one if pending and not masked.
     * Without d->lock.  NULL: the old vCPU delivers what it was told. */
    void (*redeliver)(struct evtchn_domain *d, uint32_t port);
    bool (*is_pending)(const struct evtchn_domain *d, uint32_t port);
    /* The guest still has the freed port on a list: do not reuse it yet.  NULL: never. */
    bool (*is_busy)(const struct evtchn_domain *d, uint32_t port);
    /* 0 or -EINVAL.  NULL: the ABI knows no priorities, -ENOSYS. */
    int (*set_priority)(struct evtchn_domain *d, uint32_t port, uint32_t priority);
};

struct evtchn_fifo_queue {
    struct spinlock lock;
    uint32_t tail;
};

struct evtchn_fifo {
    struct evtchn_fifo_control_block *control[EVTCHN_VCPUS_MAX];
    struct evtchn_fifo_queue queue[EVTCHN_VCPUS_MAX][EVTCHN_FIFO_MAX_QUEUES];
    event_word_t *words[EVTCHN_FIFO_NR_CHANNELS / (PAGE_SIZE / sizeof(event_word_t))];
    uint32_t nr_words;
};

/* Zero-filled memory given to evtchn_domain_init().  Callers may read the first
 * group, everything else is private to evtchn*.c. */
struct evtchn_domain {
    unsigned nr_vcpus;
    domid_t self;
    uint32_t nr_ports_limit;    /* port numbers below this may be used (max_event_channels) */
    uint32_t nr_ports_used;     /* ports in use, without port 0 */

    const struct evtchn_ops *ops;
    void *ctx;
    struct shared_info *shared;
    struct vcpu_info *vcpu_info[EVTCHN_VCPUS_MAX];

    struct spinlock lock;       /* all changes of ports, of virq_port and of port_ops */
    const struct evtchn_port_ops *port_ops;
    uint32_t nr_ports_valid;    /* ports below this have a struct evtchn_port */
    uint32_t free_hint;         /* no free port below this one */
    uint32_t peer_id;           /* of the last port that began to wait for a peer */
    bool resetting;             /* EVTCHNOP_reset is under way */
    uint32_t reset_next;        /* and has come so far */
    struct evtchn_port *ports[EVTCHN_PORT_PAGES];
    uint32_t virq_port[EVTCHN_VCPUS_MAX][NR_VIRQS];     /* 0: not bound */

    cacheline_aligned uint64_t polling;     /* bit per vCPU inside SCHEDOP_poll */
    uint32_t poll_port[EVTCHN_VCPUS_MAX];   /* the one port, or EVTCHN_POLL_ANY */

    struct evtchn_fifo fifo;
    struct vcpu_info absent;    /* stands in for vcpu_info the guest has not placed yet */
};

/* d is zero-filled.  shared is the guest's shared_info page; vCPUs from
 * XEN_LEGACY_MAX_VCPUS on have no vcpu_info until evtchn_vcpu_info_set().  ops,
 * ctx and shared must outlive d.  -EINVAL: nr_vcpus; -ENOMEM: page_alloc. */
int evtchn_domain_init(struct evtchn_domain *d, const struct evtchn_ops *ops, void *ctx,
                       struct shared_info *shared, unsigned nr_vcpus, domid_t self);

/* VCPUOP_register_vcpu_info: moves vcpu's record to `to` (guest memory, 64 bytes,
 * 8-byte aligned; judged by the caller), copies its state, marks every selector
 * bit so that nothing pending is overlooked, and kicks the vCPU. */
void evtchn_vcpu_info_set(struct evtchn_domain *d, unsigned vcpu, struct vcpu_info *to);
/* Where vcpu's record is now. */
struct vcpu_info *evtchn_vcpu_info(const struct evtchn_domain *d, unsigned vcpu);
/* vcpu has an upcall pending and does not mask upcalls. */
bool evtchn_upcall_due(const struct evtchn_domain *d, unsigned vcpu);

/* Physical interrupts: Xen gives a domain numbers for the host's static ones (16
 * ISA lines at least) and 32 more.  There are none here, and an unprivileged
 * domain may bind none of its numbers. */
#define EVTCHN_NR_PIRQS 48

/* EVTCHNOP_*: op is the caller's copy of the guest's argument. */
int evtchn_alloc_unbound(struct evtchn_domain *d, struct evtchn_alloc_unbound *op);
int evtchn_bind_interdomain(struct evtchn_domain *d, struct evtchn_bind_interdomain *op);
int evtchn_bind_virq(struct evtchn_domain *d, struct evtchn_bind_virq *op);
int evtchn_bind_ipi(struct evtchn_domain *d, struct evtchn_bind_ipi *op);
int evtchn_bind_pirq(struct evtchn_domain *d, struct evtchn_bind_pirq *op);
int evtchn_bind_vcpu(struct evtchn_domain *d, const struct evtchn_bind_vcpu *op);
int evtchn_close(struct evtchn_domain *d, const struct evtchn_close *op);
int evtchn_send(struct evtchn_domain *d, const struct evtchn_send *op);
int evtchn_status(struct evtchn_domain *d, struct evtchn_status *op);
int evtchn_unmask(struct evtchn_domain *d, const struct evtchn_unmask *op);
/* In parts: -ERESTART: there is more to do, by EVTCHNOP_RESET_CONT, for which resume is
 * true. */
int evtchn_reset(struct evtchn_domain *d, const struct evtchn_reset *op, bool resume);
#define EVTCHNOP_RESET_CONT 14      /* the public header keeps its name to Xen */
int evtchn_init_control(struct evtchn_domain *d, struct evtchn_init_control *op);
int evtchn_expand_array(struct evtchn_domain *d, const struct evtchn_expand_array *op);
int evtchn_set_priority(struct evtchn_domain *d, const struct evtchn_set_priority *op);

/* For HYPERVISOR_event_channel_op: copy arg_bytes in, evtchn_op_call(), and, after
 * 0 with copy_back, the same bytes out (-EFAULT when a copy fails). */
#define EVTCHN_OP_ARG_BYTES_MAX 24
struct evtchn_op_shape {
    uint8_t arg_bytes;
    bool copy_back;
};
/* NULL: no such command, -ENOSYS. */
const struct evtchn_op_shape *evtchn_op_shape(unsigned cmd);
/* arg is 8-byte aligned and holds the shape's arg_bytes. */
int evtchn_op_call(struct evtchn_domain *d, unsigned cmd, void *arg);

/* The host's end.  link is the host's name for the channel, any number below
 * UINT32_MAX; the guest sees it, plus one, as domain 0's port.
 *
 * Connects port to link.  The port must be unbound for domain 0, else -EINVAL.  As
 * with any new channel, the guest may have sent before: look once without being
 * told. */
int evtchn_host_bind(struct evtchn_domain *d, uint32_t port, uint32_t link);
/* Allots exactly this port, connected: store and console, before the guest runs.
 * -EBUSY when in use. */
int evtchn_reserve_host(struct evtchn_domain *d, uint32_t port, uint32_t link);
/* Back to unbound for domain 0, as when a remote end closes; no host_closed().
 * -EINVAL when port is not connected to link. */
int evtchn_host_unbind(struct evtchn_domain *d, uint32_t port, uint32_t link);
/* The host, or a peer by its link, sent.  -EINVAL when port is not connected to such (the
 * guest may just have closed it).  Takes no lock. */
int evtchn_host_event(struct evtchn_domain *d, uint32_t port);

/* A peer has connected to port, which waited for it under this id: its events come by link
 * from now on, until the guest closes the port.  -EINVAL: port does not wait so any more. */
int evtchn_peer_attach(struct evtchn_domain *d, uint32_t port, uint32_t id, uint32_t link);

/* Raises a virtual interrupt: a per-vCPU one on vcpu, a global one wherever the
 * guest bound it (vcpu is not looked at).  Nothing happens when it is not bound.
 * virq < NR_VIRQS, vcpu < nr_vcpus.  Takes no lock. */
void evtchn_virq_raise(struct evtchn_domain *d, unsigned vcpu, unsigned virq);

/* 1 pending, 0 not, or not in use; -EINVAL: no port has that number. */
int evtchn_port_pending(const struct evtchn_domain *d, uint32_t port);

/* SCHEDOP_poll on the calling vCPU.  EVTCHN_POLL_WAIT: it now counts as polling:
 * sleep while evtchn_poll_waiting() and not evtchn_upcall_due(), up to the
 * guest's deadline, then call evtchn_poll_end().  A vcpu_kick() comes for
 * whatever ends the wait, also when it happened before the first check.  0: there
 * is something pending, do not sleep.  -EINVAL: too many ports, or one beyond the
 * last there can be.  ports is the caller's copy of the guest's array. */
#define EVTCHN_POLL_WAIT 1
#define EVTCHN_POLL_ANY  UINT32_MAX
int evtchn_poll_begin(struct evtchn_domain *d, unsigned vcpu, const evtchn_port_t *ports,
                      unsigned nr_ports);
bool evtchn_poll_waiting(const struct evtchn_domain *d, unsigned vcpu);
void evtchn_poll_end(struct evtchn_domain *d, unsigned vcpu);

#endif
