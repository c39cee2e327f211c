/* SPDX-License-Identifier: MIT */
/* A domain to try event channels on: the surroundings count what they are told,
 * and guest_check() holds the ports to what must be true whenever nobody is in the
 * middle of a call.  Also used by the fuzzer. */
#ifndef XENOLITH_TESTS_EVTCHN_GUEST_H
#define XENOLITH_TESTS_EVTCHN_GUEST_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xen/evtchn_port.h"

#define GUEST_DOMID 7
#define GUEST_LINKS 64
#ifndef GUEST_PAGES
#define GUEST_PAGES 600     /* guest pages that gfn_map() knows, from gfn 0 on */
#endif

struct guest {
    struct evtchn_domain d;
    struct shared_info *shared;
    uint32_t kicks[EVTCHN_VCPUS_MAX];
    uint32_t host_sends[GUEST_LINKS];
    uint32_t host_closes[GUEST_LINKS];
    uint32_t host_vcpu[GUEST_LINKS];
    uint32_t link_port[GUEST_LINKS];    /* 0: not connected */
    void *pages[EVTCHN_PORT_PAGES];
    unsigned nr_pages, nr_pages_max;
    uint8_t *memory;
};

#define require(x) \
    do { \
        if (!(x)) { \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #x); \
            abort(); \
        } \
    } while (0)

static inline void *guest_page_alloc(void *ctx)
{
    struct guest *g = ctx;
    void *page;

    if (g->nr_pages == g->nr_pages_max)
        return NULL;
    page = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
    require(page);
    memset(page, 0, PAGE_SIZE);
    return g->pages[g->nr_pages++] = page;
}

static inline void guest_vcpu_kick(void *ctx, unsigned vcpu)
{
    struct guest *g = ctx;

    require(vcpu < g->d.nr_vcpus);
    fetch_add(&g->kicks[vcpu], 1);
}

static inline void guest_host_send(void *ctx, uint32_t port, uint32_t link)
{
    struct guest *g = ctx;

    require(link < GUEST_LINKS && port);
    fetch_add(&g->host_sends[link], 1);
}

static inline void guest_host_closed(void *ctx, uint32_t port, uint32_t link)
{
    struct guest *g = ctx;

    require(link < GUEST_LINKS && g->link_port[link] == port);
    g->link_port[link] = 0;
    g->host_closes[link]++;
}

static inline void guest_host_moved(void *ctx, uint32_t port, uint32_t link, unsigned vcpu)
{
    struct guest *g = ctx;

    require(link < GUEST_LINKS && vcpu < g->d.nr_vcpus);
    g->host_vcpu[link] = vcpu;
}

static inline void *guest_gfn_map(void *ctx, uint64_t gfn)
{
    struct guest *g = ctx;

    return gfn < GUEST_PAGES ? g->memory + gfn * PAGE_SIZE : NULL;
}

static const struct evtchn_ops guest_ops = {
    .page_alloc = guest_page_alloc,
    .vcpu_kick = guest_vcpu_kick,
    .host_send = guest_host_send,
    .host_closed = guest_host_closed,
    .host_moved = guest_host_moved,
    .gfn_map = guest_gfn_map,
};

static inline struct guest *guest_create(unsigned nr_vcpus)
{
    struct guest *g = aligned_alloc(CACHE_LINE_BYTES, align_up(sizeof(*g), CACHE_LINE_BYTES));

    require(g);
    memset(g, 0, sizeof(*g));
    g->nr_pages_max = EVTCHN_PORT_PAGES;
    g->shared = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
    g->memory = aligned_alloc(PAGE_SIZE, GUEST_PAGES * PAGE_SIZE);
    require(g->shared && g->memory);
    memset(g->shared, 0, PAGE_SIZE);
    memset(g->memory, 0, GUEST_PAGES * PAGE_SIZE);
    require(!evtchn_domain_init(&g->d, &guest_ops, g, g->shared, nr_vcpus, GUEST_DOMID));
    return g;
}

static inline void guest_free(struct guest *g)
{
    for (unsigned i = 0; i < g->nr_pages; i++)
        free(g->pages[i]);
    free(g->memory);
    free(g->shared);
    free(g);
}

static inline int guest_host_bind(struct guest *g, uint32_t port, uint32_t link)
{
    int ret = evtchn_host_bind(&g->d, port, link);

    if (!ret)
        g->link_port[link] = port;
    return ret;
}

static inline int guest_host_unbind(struct guest *g, uint32_t port, uint32_t link)
{
    int ret = evtchn_host_unbind(&g->d, port, link);

    if (!ret)
        g->link_port[link] = 0;
    return ret;
}

/* The whole of EVTCHNOP_reset. */
static inline int guest_reset(struct evtchn_domain *d, domid_t dom)
{
    struct evtchn_reset op = { dom };
    int rc = evtchn_reset(d, &op, false);

    while (rc == -ERESTART)
        rc = evtchn_reset(d, &op, true);
    return rc;
}

static inline enum evtchn_state guest_state(const struct guest *g, uint32_t port)
{
    return evtchn_word_state(evtchn_port_word(&g->d, port));
}

/* No port is in two states, every name of a port is answered by the port. */
static inline void guest_check(const struct guest *g)
{
    const struct evtchn_domain *d = &g->d;
    uint32_t nr_used = 0, nr_virqs = 0, nr_links = 0;

    require(guest_state(g, 0) == EVTCHN_STATE_RESERVED);
    for (uint32_t port = 1; port < d->nr_ports_valid; port++) {
        uint64_t w = evtchn_port_word(d, port), other;
        uint32_t value = evtchn_word_value(w);

        require(evtchn_word_vcpu(w) < d->nr_vcpus);
        nr_used += evtchn_word_usable(w);
        switch (evtchn_word_state(w)) {
        case EVTCHN_STATE_FREE:
            require(port >= d->free_hint);
            require(w == 0);
            require(!d->port_ops->is_pending(d, port));
            break;
        case EVTCHN_STATE_LOOPBACK:
            other = evtchn_port_word(d, value);
            require(value != port);
            require(evtchn_word_state(other) == EVTCHN_STATE_LOOPBACK);
            require(evtchn_word_value(other) == port);
            break;
        case EVTCHN_STATE_HOST:
            require(value < GUEST_LINKS && g->link_port[value] == port);
            nr_links++;
            break;
        case EVTCHN_STATE_VIRQ:
            require(d->virq_port[evtchn_word_vcpu(w)][value] == port ||
                    d->virq_port[0][value] == port);
            nr_virqs++;
            break;
        case EVTCHN_STATE_UNBOUND:
        case EVTCHN_STATE_IPI:
        case EVTCHN_STATE_PEER:
            break;
        default:
            require(!"a state of a port");
        }
    }
    require(d->nr_ports_used == nr_used);
    for (unsigned i = 0; i < GUEST_LINKS; i++)
        nr_links -= g->link_port[i] != 0;
    require(nr_links == 0);
    for (unsigned i = 0; i < EVTCHN_VCPUS_MAX; i++)
        for (unsigned virq = 0; virq < NR_VIRQS; virq++)
            nr_virqs -= d->virq_port[i][virq] != 0;
    require(nr_virqs == 0);
}

#endif
