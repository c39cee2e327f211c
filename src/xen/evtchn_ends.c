/* SPDX-License-Identifier: MIT */
/* Ports whose other end is outside the domain: the host's, and other guests'.
 *
 * A port that waits for a guest is UNBOUND with an id of its own.  When that guest
 * connects, whoever carries the events attaches a link to the port by that id, some time
 * later: until then the port still says UNBOUND, but what is sent on it goes out all the
 * same.  The id tells a port that waits from one that was closed and waits again. */
#include <errno.h>

#include "xen/evtchn_port.h"

/* Nobody could be told of the port that waits: it goes, unless the guest was faster. */
static void wait_undo(struct evtchn_domain *d, uint32_t port, uint64_t word)
{
    spin_lock(&d->lock);
    if (evtchn_port_word(d, port) == word)
        evtchn_port_free(d, port);
    spin_unlock(&d->lock);
}

int evtchn_peer_wait(struct evtchn_domain *d, uint32_t port, domid_t peer, uint32_t id)
{
    /* it waits already: whoever connects finds it so */
    int ret = d->ops->peer_wait(d->ctx, port, peer, id);

    if (ret)
        wait_undo(d, port, evtchn_word(EVTCHN_STATE_UNBOUND, 0, peer, id));
    return ret;
}

/* Once the port is RESERVED, nobody else touches it. */
int evtchn_peer_bind(struct evtchn_domain *d, domid_t peer, struct evtchn_bind_interdomain *op)
{
    uint32_t local, link;
    int ret;

    spin_lock(&d->lock);
    ret = evtchn_port_find_free(d);
    if (ret > 0)
        evtchn_port_open(d, (uint32_t)ret, evtchn_word(EVTCHN_STATE_RESERVED, 0, 0, 0));
    spin_unlock(&d->lock);
    if (ret < 0)
        return ret;
    local = (uint32_t)ret;
    ret = d->ops->peer_bind(d->ctx, local, peer, op->remote_port, &link);
    spin_lock(&d->lock);
    if (ret) {
        evtchn_port_free(d, local);
    } else {
        evtchn_port_store(d, local, evtchn_word(EVTCHN_STATE_PEER, 0, peer, link));
        d->ops->host_moved(d->ctx, local, link, 0);
        op->local_port = local;
    }
    spin_unlock(&d->lock);
    if (!ret)
        evtchn_port_set_pending(d, local);
    return ret;
}

void evtchn_peer_close(struct evtchn_domain *d, uint32_t port, uint32_t link)
{
    evtchn_port_store(d, port, evtchn_word(EVTCHN_STATE_RESERVED, 0, 0, 0));
    spin_unlock(&d->lock);
    d->ops->peer_closed(d->ctx, port, link);
    spin_lock(&d->lock);
}

void evtchn_peer_status(const struct evtchn_domain *d, uint64_t w, struct evtchn_status *op)
{
    uint32_t port = d->ops->peer_port(d->ctx, evtchn_word_value(w));

    op->status = port ? EVTCHNSTAT_interdomain : EVTCHNSTAT_unbound;
    if (port) {
        op->u.interdomain.dom = evtchn_word_peer(w);
        op->u.interdomain.port = port;
    } else {
        op->u.unbound.dom = evtchn_word_peer(w);
    }
}

int evtchn_host_bind(struct evtchn_domain *d, uint32_t port, uint32_t link)
{
    uint64_t w;
    int ret = -EINVAL;

    spin_lock(&d->lock);
    w = evtchn_port_word(d, port);
    if (evtchn_word_state(w) == EVTCHN_STATE_UNBOUND && evtchn_word_peer(w) == 0) {
        evtchn_port_store(d, port, evtchn_word(EVTCHN_STATE_HOST, evtchn_word_vcpu(w), 0, link));
        d->ops->host_moved(d->ctx, port, link, evtchn_word_vcpu(w));
        ret = 0;
    }
    spin_unlock(&d->lock);
    return ret;
}

int evtchn_reserve_host(struct evtchn_domain *d, uint32_t port, uint32_t link)
{
    int ret;

    spin_lock(&d->lock);
    ret = evtchn_port_check_free(d, port);
    if (!ret)
        evtchn_port_open(d, port, evtchn_word(EVTCHN_STATE_HOST, 0, 0, link));
    spin_unlock(&d->lock);
    return ret;
}

int evtchn_host_unbind(struct evtchn_domain *d, uint32_t port, uint32_t link)
{
    uint64_t w;
    int ret = -EINVAL;

    spin_lock(&d->lock);
    w = evtchn_port_word(d, port);
    if (evtchn_word_state(w) == EVTCHN_STATE_HOST && evtchn_word_value(w) == link) {
        evtchn_port_store(d, port, evtchn_word(EVTCHN_STATE_UNBOUND, evtchn_word_vcpu(w), 0, 0));
        ret = 0;
    }
    spin_unlock(&d->lock);
    return ret;
}

int evtchn_host_event(struct evtchn_domain *d, uint32_t port)
{
    enum evtchn_state state = evtchn_word_state(evtchn_port_word(d, port));

    if (state != EVTCHN_STATE_HOST && state != EVTCHN_STATE_PEER)
        return -EINVAL;
    evtchn_port_set_pending(d, port);
    return 0;
}

int evtchn_peer_attach(struct evtchn_domain *d, uint32_t port, uint32_t id, uint32_t link)
{
    uint64_t w;
    int ret = -EINVAL;

    spin_lock(&d->lock);
    w = evtchn_port_word(d, port);
    if (id && evtchn_word_state(w) == EVTCHN_STATE_UNBOUND && evtchn_word_value(w) == id) {
        evtchn_port_store(d, port, evtchn_word(EVTCHN_STATE_PEER, evtchn_word_vcpu(w),
                                               evtchn_word_peer(w), link));
        d->ops->host_moved(d->ctx, port, link, evtchn_word_vcpu(w));
        ret = 0;
    }
    spin_unlock(&d->lock);
    return ret;
}
