/* SPDX-License-Identifier: MIT */
/* Event channels between the guest, its vCPUs and the host: the Xen core's ops,
 * the links to the host, interrupts.  See xen/hostlink.h for the life of a link. */
#include <errno.h>

#include "shim/cpu.h"
#include "shim/shim.h"

static struct shim_requests *requests(void)
{
    return shim_dm(SHIM_GPA + SHIM_OFF_REQUESTS);
}

static void vcpu_kick(void *ctx, unsigned vcpu)
{
    /* the calling vCPU looks on its way back to the guest */
    if (vcpu == shim_vcpu_current()->id)
        return;
    /* the locked instruction before this call pairs with state_change() in idle.c */
    if (load_relaxed(&shim_vcpu(vcpu)->waker->state) != XEN_HOSTWAKER_POLLING)
        apic_ipi(vcpu, SHIM_VECTOR_KICK);
}

static void host_send(void *ctx, uint32_t port, uint32_t link)
{
    if (link == EVTCHN_NO_LINK)
        io_out32(XEN_DOORBELL_IO_PORT, port);
    else
        doorbell_send(shim_vcpu_current(), port, link);
}

static void link_serve_on(uint32_t link, unsigned vcpu)
{
    unsigned word = link / 64;
    uint64_t bit = (uint64_t)1 << (link % 64);

    for (unsigned i = 0; i < shim_domain.nr_vcpus; i++)
        if (i != vcpu)
            fetch_and(&shim_domain.link_vcpu_mask[i][word], ~bit);
    if (vcpu < shim_domain.nr_vcpus)
        fetch_or(&shim_domain.link_vcpu_mask[vcpu][word], bit);
    store_release(&shim_domain.links[link].vcpu, vcpu);
}

static void host_closed(void *ctx, uint32_t port, uint32_t link)
{
    link_serve_on(link, SHIM_VCPUS_MAX);
    store_release(&shim_domain.links[link].state, XEN_HOSTLINK_CLOSED);
    io_out32(SHIM_IO_LINK, link);
}

/* Tells the host where the link's interrupt is to go.  One that it raised before it
 * knew went to a vCPU that does not serve the link any more, or not yet: so the
 * right one, also if that is the caller, is made to look. */
static void link_vcpu_told(uint32_t link, unsigned vcpu)
{
    io_out32(SHIM_IO_LINK, link);
    apic_ipi(vcpu, SHIM_VECTOR_KICK);
}

/* Also called while a link is being bound, which tells the host by itself. */
static void host_moved(void *ctx, uint32_t port, uint32_t link, unsigned vcpu)
{
    link_serve_on(link, vcpu);
    if (load_relaxed(&shim_domain.links[link].state) != XEN_HOSTLINK_BOUND)
        return;
    link_vcpu_told(link, vcpu);
}

static int peer_wait(void *ctx, uint32_t port, domid_t peer, uint32_t id)
{
    struct shim_peer_call c = { .op = SHIM_PEER_PORT_WAIT, .port = port, .domid = peer, .id = id };

    peer_call(shim_vcpu_current(), &c);
    return c.result;
}

static int peer_bind(void *ctx, uint32_t port, domid_t peer, uint32_t peer_port, uint32_t *link)
{
    struct shim_peer_call c = { .op = SHIM_PEER_PORT_BIND, .port = port, .domid = peer,
                                .peer_port = peer_port };

    peer_call(shim_vcpu_current(), &c);
    if (c.result)
        return c.result;
    *link = c.link;
    store_release(&shim_domain.links[c.link].state, XEN_HOSTLINK_BOUND);
    return 0;
}

static void peer_closed(void *ctx, uint32_t port, uint32_t link)
{
    struct shim_peer_call c = { .op = SHIM_PEER_PORT_CLOSE, .port = port };

    if (link != EVTCHN_NO_LINK) {
        link_serve_on(link, SHIM_VCPUS_MAX);
        store_release(&shim_domain.links[link].state, XEN_HOSTLINK_CLOSED);
    }
    peer_call(shim_vcpu_current(), &c);
}

static uint32_t peer_port(void *ctx, uint32_t link)
{
    return load_relaxed(&shim_domain.links[link].peer_port);
}

static bool peer_there(void *ctx, domid_t peer)
{
    return peer_exists(peer);
}

static void *gfn_map(void *ctx, uint64_t gfn)
{
    return mmu_frame_held(gfn) ? shim_dm(gfn << PAGE_SHIFT) : NULL;
}

void event_init(void)
{
    static const struct evtchn_ops ops = {
        .page_alloc = shim_page_alloc, .vcpu_kick = vcpu_kick, .host_send = host_send,
        .host_closed = host_closed, .host_moved = host_moved, .gfn_map = gfn_map,
        .peer_wait = peer_wait, .peer_bind = peer_bind, .peer_closed = peer_closed,
        .peer_port = peer_port, .peer_exists = peer_there,
    };
    const struct shim_boot *b = shim_domain.boot;
    const uint32_t port[2] = { b->store_port, b->console_port };

    if (evtchn_domain_init(&shim_domain.evtchn, &ops, NULL, shim_domain.shared, b->nr_vcpus,
                           (domid_t)b->domid))
        shim_crash(NULL, "event channels cannot be set up");
    shim_domain.evtchn.nr_ports_limit = b->evtchn_port_max + 1;
    for (uint32_t link = 0; link < 2; link++) {
        if (evtchn_reserve_host(&shim_domain.evtchn, port[link], link))
            shim_crash(NULL, "port %u cannot be set up", port[link]);
        link_serve_on(link, 0);
        store_release(&shim_domain.links[link].state, XEN_HOSTLINK_BOUND);
    }
}

static void link_bind(uint32_t link)
{
    struct xen_hostlink *l = &shim_domain.links[link];
    uint32_t port = load_relaxed(&l->port), id = load_relaxed(&l->peer_id);
    /* binding tells host_moved() where the port's events go */
    int rc = id ? evtchn_peer_attach(&shim_domain.evtchn, port, id, link)
                : evtchn_host_bind(&shim_domain.evtchn, port, link);

    store_release(&l->state, rc ? XEN_HOSTLINK_REFUSED : XEN_HOSTLINK_BOUND);
    if (rc)
        io_out32(SHIM_IO_LINK, link);
    else
        link_vcpu_told(link, load_relaxed(&l->vcpu) % shim_domain.nr_vcpus);
}

static void link_unbind(uint32_t link)
{
    struct xen_hostlink *l = &shim_domain.links[link];

    /* What a device sent last reaches the guest, as it would on Xen.  It may be pending here, or
     * in the hands of another vCPU, which finds the port unbound: one too many does no harm. */
    evtchn_host_event(&shim_domain.evtchn, load_relaxed(&l->port));
    evtchn_host_unbind(&shim_domain.evtchn, load_relaxed(&l->port), link);
    link_serve_on(link, SHIM_VCPUS_MAX);
    store_release(&l->state, XEN_HOSTLINK_FREE);
    io_out32(SHIM_IO_LINK, link);
}

static void requests_serve_locked(void)
{
    struct shim_requests *q = requests();

    if (!load_acquire(&q->any) || !swap_acq_rel(&q->any, 0))
        return;
    for (unsigned w = 0; w < array_size(q->links); w++) {
        uint64_t bits = swap_acq_rel(&q->links[w], 0);

        for (; bits; bits &= bits - 1) {
            uint32_t link = w * 64 + (uint32_t)__builtin_ctzll(bits);

            switch (swap_acq_rel(&shim_domain.links[link].request, XEN_HOSTLINK_NONE)) {
            case XEN_HOSTLINK_BIND:
                link_bind(link);
                break;
            case XEN_HOSTLINK_UNBIND:
                link_unbind(link);
                break;
            default:
                break;
            }
        }
    }
}

/* When this returns, all that was asked before has been done. */
static void requests_serve(void)
{
    spin_lock(&shim_domain.requests_lock);
    requests_serve_locked();
    spin_unlock(&shim_domain.requests_lock);
}

void event_links_serve(struct shim_vcpu *v)
{
    if (load_relaxed(&requests()->any))
        requests_serve();
    for (unsigned w = 0; w < array_size(shim_domain.link_vcpu_mask[0]); w++) {
        uint64_t bits = load_relaxed(&shim_domain.link_vcpu_mask[v->id][w]);

        for (; bits; bits &= bits - 1) {
            struct xen_hostlink *l = &shim_domain.links[w * 64 + (uint32_t)__builtin_ctzll(bits)];

            /* the exchange pairs with the one in xen_hostport_send() */
            if (load_relaxed(&l->pending) && __atomic_exchange_n(&l->pending, 0, __ATOMIC_SEQ_CST))
                evtchn_host_event(&shim_domain.evtchn, load_relaxed(&l->port));
        }
    }
}

void event_attend(struct shim_vcpu *v)
{
    /* pairs with xen_hostport_send(): what is pending is seen after this */
    if (unlikely(load_relaxed(&v->waker->attention))) {
        swap_acq_rel(&v->waker->attention, 0);
        event_links_serve(v);
    }
}

void event_interrupt(struct shim_vcpu *v, unsigned vector)
{
    apic_eoi(v);
    switch (vector) {
    case SHIM_VECTOR_TIMER:
        v->status->traps[SHIM_TRAP_TIMER]++;
        time_expired(v);
        break;
    case SHIM_VECTOR_FLUSH:
        tlb_flush_serve(v);
        break;
    case SHIM_VECTOR_KICK:
        v->status->traps[SHIM_TRAP_KICK]++;
        event_links_serve(v);
        time_arm(v);
        break;
    case SHIM_VECTOR_LINK:
        v->status->traps[SHIM_TRAP_LINK]++;
        event_links_serve(v);
        break;
    default:
        break;      /* spurious */
    }
}

/* HYPERVISOR_event_channel_op (public/event_channel.h) */
int64_t event_channel_op(struct shim_vcpu *v, uint64_t cmd, uint64_t arg_va)
{
    const struct evtchn_op_shape *shape = evtchn_op_shape((unsigned)min_of(cmd, (uint64_t)~0u));
    uint64_t arg[EVTCHN_OP_ARG_BYTES_MAX / sizeof(uint64_t)];
    int rc;

    if (!shape)
        return -XEN_ENOSYS;
    if (guest_read(arg, arg_va, shape->arg_bytes))
        return -XEN_EFAULT;
    /* what a peer has done by now shows */
    if (cmd == EVTCHNOP_status || cmd == EVTCHNOP_close || cmd == EVTCHNOP_bind_vcpu)
        requests_serve();
    rc = evtchn_op_call(&shim_domain.evtchn, (unsigned)cmd, arg);
    if (rc == -ERESTART)
        return hypercall_again(v, __HYPERVISOR_event_channel_op, EVTCHNOP_RESET_CONT, arg_va, 0,
                               0);
    if (!rc && shape->copy_back && guest_write(arg_va, arg, shape->arg_bytes))
        return -XEN_EFAULT;
    return rc;
}

bool event_due(struct shim_vcpu *v)
{
    return evtchn_upcall_due(&shim_domain.evtchn, v->id) || v->nmi_pending;
}
