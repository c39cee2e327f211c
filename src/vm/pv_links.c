/* SPDX-License-Identifier: MIT */
/* A slot is free, in use, or waiting: its device has let go of it and the shim has
 * yet to say so.  Until then its interrupt must keep working, since that is how
 * the shim is asked.  A guest that closes its end first frees the port number at
 * once, so the doorbell goes then, whatever the device is doing.
 *
 * All of this is control: a mutex guards it.  Data goes through the eventfds. */
#include "vm/pv_links.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

struct slot {
    bool used;          /* a device has it, or it waits */
    bool waiting;       /* only for the shim's word */
    bool doorbell;      /* the ioeventfd is there */
    int kick_fd;        /* the device's end of the doorbell: closed by unbind */
    int irq_fd;
    uint32_t port, gsi;
};

struct pv_links {
    struct kvm_vm *vm;
    unsigned nr_vcpus;
    struct pv_links_shared shared;
    const uint32_t *const *cpus;
    pthread_mutex_t lock;
    struct slot slot[XEN_HOSTLINK_MAX];
    struct xen_hostcall call[XEN_HOSTLINK_MAX];     /* OWNED while no device lends it */
};

int pv_links_create(struct kvm_vm *vm, unsigned nr_vcpus, const uint32_t *const *cpus,
                    const struct pv_links_shared *shared, struct pv_links **out, struct err *e)
{
    struct kvm_irq_route route[SHIM_VCPUS_MAX];
    /* mmap: zeroed, and links that are never used take no memory */
    struct pv_links *l = mmap(NULL, sizeof(*l), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int rc;

    if (l == MAP_FAILED)
        return err_set(e, ENOMEM, "out of memory");
    l->vm = vm;
    l->nr_vcpus = nr_vcpus;
    l->cpus = cpus;
    l->shared = *shared;
    pthread_mutex_init(&l->lock, NULL);
    for (unsigned i = 0; i < nr_vcpus; i++)
        route[i] = (struct kvm_irq_route){ .gsi = i, .apic_id = i, .vector = SHIM_VECTOR_LINK };
    rc = kvm_irq_routes_set(vm, route, nr_vcpus);
    if (rc) {
        pv_links_free(l);
        return err_set(e, -rc, "interrupts cannot be routed");
    }
    *out = l;
    return 0;
}

static void doorbell_remove(struct pv_links *l, struct slot *s)
{
    if (s->doorbell)
        kvm_ioeventfd_remove(l->vm, s->kick_fd, XEN_DOORBELL_IO_PORT, s->port);
    s->doorbell = false;
}

static void slot_release(struct pv_links *l, struct slot *s)
{
    kvm_irqfd_remove(l->vm, s->irq_fd, s->gsi);
    close(s->irq_fd);
    *s = (struct slot){ 0 };
}

void pv_links_free(struct pv_links *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < XEN_HOSTLINK_MAX; i++) {
        struct slot *s = &l->slot[i];

        if (!s->used)
            continue;
        doorbell_remove(l, s);
        if (!s->waiting)
            close(s->kick_fd);
        slot_release(l, s);
    }
    pthread_mutex_destroy(&l->lock);
    munmap(l, sizeof(*l));
}

/* What the shim is told of the host as link index comes into use. */
static void load_tell(struct pv_links *l, unsigned index)
{
    struct xen_hostload *load = &l->shared.requests->load;
    cpu_set_t set;

    if (!sched_getaffinity(0, sizeof(set), &set))
        store_relaxed(&load->host_cpus, (uint32_t)CPU_COUNT(&set));
    if (load_relaxed(&load->nr_links) <= index)
        store_relaxed(&load->nr_links, index + 1);
}

/* The lock is held. */
static int slot_take(struct pv_links *l, unsigned index, uint32_t guest_port,
                     struct xen_hostport *p, struct err *e)
{
    struct slot *s = &l->slot[index];
    int rc;

    *s = (struct slot){ .used = true, .port = guest_port };
    s->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = s->kick_fd < 0 || s->irq_fd < 0 ? -errno : 0;
    if (!rc)
        rc = kvm_ioeventfd_add(l->vm, s->kick_fd, XEN_DOORBELL_IO_PORT, guest_port);
    if (!rc) {
        rc = kvm_irqfd_add(l->vm, s->irq_fd, s->gsi);
        if (rc)
            kvm_ioeventfd_remove(l->vm, s->kick_fd, XEN_DOORBELL_IO_PORT, guest_port);
    }
    if (rc) {
        if (s->kick_fd >= 0)
            close(s->kick_fd);
        if (s->irq_fd >= 0)
            close(s->irq_fd);
        *s = (struct slot){ 0 };
        return err_set(e, -rc, "event channel %u of the guest cannot be connected%s", guest_port,
                       rc == -EEXIST ? ": another device has it" : "");
    }
    s->doorbell = true;
    *p = (struct xen_hostport){ .kick_fd = s->kick_fd, .irq_fd = s->irq_fd,
                                .link = &l->shared.links[index], .call = &l->call[index],
                                .index = index,
                                .wakers = l->shared.wakers, .nr_wakers = l->nr_vcpus,
                                .cpus = l->cpus,
                                .links = l->shared.links, .load = &l->shared.requests->load };
    load_tell(l, index);
    store_relaxed(&l->shared.links[index].state, XEN_HOSTLINK_FREE);
    store_relaxed(&l->shared.links[index].pending, 0);
    store_relaxed(&l->shared.links[index].awake, 0);
    store_relaxed(&l->shared.links[index].call, 0);
    store_relaxed(&l->shared.links[index].peer_id, 0);
    store_relaxed(&l->shared.links[index].peer_port, 0);
    store_relaxed(&l->shared.links[index].port, guest_port);
    return 0;
}

int pv_links_fixed(struct pv_links *l, unsigned index, uint32_t guest_port,
                   struct xen_hostport *p, struct err *e)
{
    int rc;

    pthread_mutex_lock(&l->lock);
    rc = slot_take(l, index, guest_port, p, e);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static void ask(struct pv_links *l, unsigned index, enum xen_hostlink_request request)
{
    const uint64_t one = 1;

    store_release(&l->shared.links[index].request, request);
    fetch_or(&l->shared.requests->links[index / 64], (uint64_t)1 << (index % 64));
    store_release(&l->shared.requests->any, 1);    /* pairs with requests_serve() of the shim */
    if (write(l->slot[index].irq_fd, &one, sizeof(one)) < 0)
        return;     /* the counter is full: the interrupt is on its way */
}

/* Any slot; the lock is held. */
static int slot_take_free(struct pv_links *l, uint32_t guest_port, struct xen_hostport *p,
                          struct err *e)
{
    unsigned i;

    for (i = 0; i < XEN_HOSTLINK_MAX && l->slot[i].used; i++)
        ;
    if (i == XEN_HOSTLINK_MAX)
        return err_set(e, ENOSPC, "all %u channels to the guest are in use", XEN_HOSTLINK_MAX);
    return slot_take(l, i, guest_port, p, e);
}

static int links_bind(void *owner, uint32_t guest_port, struct xen_hostport *p, struct err *e)
{
    const uint64_t one = 1;
    struct pv_links *l = owner;
    int rc;

    pthread_mutex_lock(&l->lock);
    rc = slot_take_free(l, guest_port, p, e);
    if (!rc) {
        ask(l, p->index, XEN_HOSTLINK_BIND);
        /* the guest may have sent before anybody listened */
        if (write(p->kick_fd, &one, sizeof(one)) < 0)
            rc = err_set(e, errno, "event channel %u of the guest", guest_port);
    }
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static void links_unbind(void *owner, struct xen_hostport *p)
{
    struct pv_links *l = owner;
    struct slot *s = &l->slot[p->index];

    pthread_mutex_lock(&l->lock);
    doorbell_remove(l, s);
    close(s->kick_fd);
    s->kick_fd = -1;
    switch (load_acquire(&l->shared.links[p->index].state)) {
    case XEN_HOSTLINK_CLOSED:
    case XEN_HOSTLINK_REFUSED:
        store_relaxed(&l->shared.links[p->index].state, XEN_HOSTLINK_FREE);
        slot_release(l, s);
        break;
    default:
        s->waiting = true;
        ask(l, p->index, XEN_HOSTLINK_UNBIND);
        break;
    }
    pthread_mutex_unlock(&l->lock);
}

const struct xen_hostport_ops pv_links_ops = { .bind = links_bind, .unbind = links_unbind };

/* ---- links to other guests ---- */

static int links_attach(void *owner, uint32_t guest_port, uint32_t id, struct xen_hostport *p)
{
    struct pv_links *l = owner;
    struct err e = { 0 };
    int rc;

    pthread_mutex_lock(&l->lock);
    rc = slot_take_free(l, guest_port, p, &e);
    if (!rc) {
        store_relaxed(&p->link->peer_id, id);
        ask(l, p->index, XEN_HOSTLINK_BIND);
    }
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static int links_take(void *owner, uint32_t guest_port, struct xen_hostport *p)
{
    struct pv_links *l = owner;
    struct err e = { 0 };
    int rc;

    pthread_mutex_lock(&l->lock);
    rc = slot_take_free(l, guest_port, p, &e);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static void links_untake(void *owner, struct xen_hostport *p)
{
    struct pv_links *l = owner;
    struct slot *s = &l->slot[p->index];

    pthread_mutex_lock(&l->lock);
    doorbell_remove(l, s);
    close(s->kick_fd);
    slot_release(l, s);
    pthread_mutex_unlock(&l->lock);
}

const struct pv_peer_link_ops pv_links_peer_ops = {
    .attach = links_attach, .take = links_take, .untake = links_untake, .release = links_unbind,
};

void pv_links_changed(struct pv_links *l, uint32_t index)
{
    uint32_t vcpu, state;
    struct slot *s;

    if (index >= XEN_HOSTLINK_MAX)
        return;
    pthread_mutex_lock(&l->lock);
    s = &l->slot[index];
    state = load_acquire(&l->shared.links[index].state);
    vcpu = load_relaxed(&l->shared.links[index].vcpu);
    if (s->used && s->waiting && state == XEN_HOSTLINK_FREE) {
        slot_release(l, s);     /* it is the last that is said of this use of it */
    } else if (s->used && state == XEN_HOSTLINK_CLOSED) {
        doorbell_remove(l, s);
    } else if (s->used && state == XEN_HOSTLINK_BOUND && vcpu != s->gsi && vcpu < l->nr_vcpus &&
               !kvm_irqfd_remove(l->vm, s->irq_fd, s->gsi)) {
        s->gsi = vcpu;
        kvm_irqfd_add(l->vm, s->irq_fd, s->gsi);
    }
    pthread_mutex_unlock(&l->lock);
}

uint32_t pv_links_call(struct pv_links *l, uint32_t index, unsigned vcpu)
{
    return index < XEN_HOSTLINK_MAX && xen_hostcall_ring(&l->call[index], vcpu) ? XEN_CALL_SERVED
                                                                                : 0;
}
