/* SPDX-License-Identifier: MIT */
/* Random sequences of EVTCHNOP calls, host actions and scribbles on the memory the
 * guest can write, on a domain that may use either ABI.  After each step every port
 * is checked against every name it has; nothing outside guest memory may be touched,
 * which the address sanitizer sees.
 *
 * Input: records of 8 bytes: what, two small operands, one 32-bit operand. */
#define GUEST_PAGES 8
#include "../../unit/xen/evtchn_guest.h"

#define VCPUS 4

struct step {
    uint8_t what, a;
    uint16_t b;
    uint32_t c;
};

/* Ports that mostly exist, now and then any number. */
static uint32_t port_of(const struct step *s)
{
    return s->b & 0x8000 ? s->c : s->b % 40;
}

static domid_t domid_of(uint8_t a)
{
    static const domid_t known[] = { DOMID_SELF, 0, GUEST_DOMID, DOMID_XEN };

    return a < 252 ? known[a & 3] : a;
}

/* What the guest can do without asking. */
static void scribble(struct guest *g, const struct step *s)
{
    uint8_t *base = s->a & 1 ? (uint8_t *)g->shared : g->memory;
    size_t size = s->a & 1 ? sizeof(*g->shared) : GUEST_PAGES * PAGE_SIZE;

    memcpy(base + (s->b * 4u) % (size - sizeof(s->c)), &s->c, sizeof(s->c));
}

/* Free ports may look pending only because the guest made them so: undo it. */
static void scribbles_undo(struct guest *g)
{
    for (uint32_t port = 1; port < g->d.nr_ports_valid; port++)
        if (guest_state(g, port) == EVTCHN_STATE_FREE)
            g->d.port_ops->clear_pending(&g->d, port);
}

static void step_run(struct guest *g, const struct step *s)
{
    struct evtchn_domain *d = &g->d;
    uint32_t port = port_of(s), link = s->c % GUEST_LINKS;
    evtchn_port_t poll[2] = { port, s->c };
    int ret;

    switch (s->what % 21) {
    case 0: {
        struct evtchn_alloc_unbound op = { domid_of(s->a), domid_of((uint8_t)s->b), 0 };
        ret = evtchn_alloc_unbound(d, &op);
        require(ret || guest_state(g, op.port) == EVTCHN_STATE_UNBOUND);
        break;
    }
    case 1: {
        struct evtchn_bind_interdomain op = { domid_of(s->a), port, 0 };
        ret = evtchn_bind_interdomain(d, &op);
        require(ret || guest_state(g, op.local_port) == EVTCHN_STATE_LOOPBACK);
        break;
    }
    case 2: {
        struct evtchn_bind_virq op = { s->a & 31, s->b % (VCPUS + 1), 0 };
        ret = evtchn_bind_virq(d, &op);
        require(ret || guest_state(g, op.port) == EVTCHN_STATE_VIRQ);
        break;
    }
    case 3: {
        struct evtchn_bind_ipi op = { s->a % (VCPUS + 1), 0 };
        ret = evtchn_bind_ipi(d, &op);
        require(ret || guest_state(g, op.port) == EVTCHN_STATE_IPI);
        break;
    }
    case 4:
        evtchn_bind_vcpu(d, &(struct evtchn_bind_vcpu){ port, s->a % (VCPUS + 1) });
        break;
    case 5:
        ret = evtchn_close(d, &(struct evtchn_close){ port });
        require(ret || guest_state(g, port) == EVTCHN_STATE_FREE);
        break;
    case 6:
        evtchn_send(d, &(struct evtchn_send){ port });
        break;
    case 7: {
        struct evtchn_status op = { .dom = domid_of(s->a), .port = port };
        ret = evtchn_status(d, &op);
        require(ret || op.vcpu < VCPUS);
        break;
    }
    case 8:
        evtchn_unmask(d, &(struct evtchn_unmask){ port });
        break;
    case 9:
        if (s->a == 0) {
            require(!guest_reset(d, DOMID_SELF));
            require(d->nr_ports_used == 0);
        }
        break;
    case 10: {
        struct evtchn_init_control op = {
            .control_gfn = s->c % (GUEST_PAGES + 1), .offset = s->b, .vcpu = s->a % (VCPUS + 1),
        };
        evtchn_init_control(d, &op);
        break;
    }
    case 11:
        evtchn_expand_array(d, &(struct evtchn_expand_array){ s->c % (GUEST_PAGES + 1) });
        break;
    case 12:
        evtchn_set_priority(d, &(struct evtchn_set_priority){ port, s->a & 31 });
        break;
    case 13:
        if (!g->link_port[link])
            guest_host_bind(g, port, link);
        break;
    case 14:
        guest_host_unbind(g, port, link);
        break;
    case 15:
        evtchn_host_event(d, port);
        break;
    case 16:
        evtchn_virq_raise(d, s->a % VCPUS, s->b % NR_VIRQS);
        break;
    case 17:
        ret = evtchn_poll_begin(d, s->a % VCPUS, poll, s->c & 1 ? 1 : 2);
        require(ret <= EVTCHN_POLL_WAIT);
        require(ret == EVTCHN_POLL_WAIT || !evtchn_poll_waiting(d, s->a % VCPUS));
        break;
    case 18:
        evtchn_poll_end(d, s->a % VCPUS);
        break;
    case 19:
        /* where FIFO blocks may lie too: the guest's fault */
        evtchn_vcpu_info_set(d, s->a % VCPUS,
                             (struct vcpu_info *)(void *)g->memory + s->b % 16);
        break;
    case 20:
        scribble(g, s);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guest *g = guest_create(VCPUS);

    g->nr_pages_max = 4;
    g->d.nr_ports_limit = 1000;
    for (size_t at = 0; at + sizeof(struct step) <= size; at += sizeof(struct step)) {
        struct step s;

        memcpy(&s, data + at, sizeof(s));
        step_run(g, &s);
        scribbles_undo(g);
        guest_check(g);
    }
    guest_free(g);
    return 0;
}
