/* SPDX-License-Identifier: MIT */
/* Millions of random calls, events and guest actions under both ABIs, each held to what
 * evtchn_model.h says of it: result, flags, kicks, and the order events are taken in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "evtchn_model.h"

#define SEEDS     40
#define STEPS     150000
#define ARRAY_GFN 64
#define PENDING   (1u << EVTCHN_FIFO_PENDING)
#define MASKED    (1u << EVTCHN_FIFO_MASKED)
#define LINKED    (1u << EVTCHN_FIFO_LINKED)

struct trial {
    struct guest *g;
    struct model m;
    uint64_t random;
    uint32_t head[MODEL_VCPUS][MODEL_QUEUES], ready[MODEL_VCPUS];
    struct evtchn_fifo_control_block *control[MODEL_VCPUS];
};

static uint32_t pick(struct trial *t, uint32_t below)
{
    t->random ^= t->random << 13;
    t->random ^= t->random >> 7;
    t->random ^= t->random << 17;
    return (uint32_t)(t->random >> 20) % below;
}

/* A port among few, so that they meet each other; now and then any. */
static uint32_t pick_port(struct trial *t)
{
    switch (pick(t, 16)) {
    case 0:
        return pick(t, MODEL_PORTS + 300);
    case 1:
        return 1024 + pick(t, 20);
    default:
        return pick(t, 24);
    }
}

static domid_t pick_domid(struct trial *t)
{
    static const domid_t known[] = { 0, 9, GUEST_DOMID, DOMID_SELF, DOMID_SELF, DOMID_SELF };

    return known[pick(t, array_size(known))];
}

static event_word_t *word(struct trial *t, uint32_t port)
{
    return (event_word_t *)(void *)(t->g->memory + ARRAY_GFN * PAGE_SIZE) + port;
}

/* ---- what the guest does by itself ---- */

static uint32_t event_take(struct trial *t, unsigned vcpu, bool *fired)
{
    uint32_t q, port, *w;

    if (!t->control[vcpu])
        return 0;
    t->ready[vcpu] |= swap_acq_rel(&t->control[vcpu]->ready, 0);
    if (!t->ready[vcpu])
        return 0;
    q = (uint32_t)__builtin_ctz(t->ready[vcpu]);
    port = t->head[vcpu][q] ? t->head[vcpu][q] : t->control[vcpu]->head[q];
    w = word(t, port);
    t->head[vcpu][q] = *w & EVTCHN_FIFO_LINK_MASK;
    *w &= ~(LINKED | EVTCHN_FIFO_LINK_MASK);
    if (!t->head[vcpu][q])
        t->ready[vcpu] &= ~(1u << q);
    *fired = *w & PENDING && !(*w & MASKED);
    if (*fired)
        *w &= ~PENDING;
    return port;
}

static void upcall_serve(struct trial *t, unsigned vcpu)
{
    struct vcpu_info *vi = evtchn_vcpu_info(&t->g->d, vcpu);
    struct model *m = &t->m;

    vi->evtchn_upcall_pending = 0;
    m->upcall[vcpu] = false;
    for (uint64_t sel = swap_acq_rel(&vi->evtchn_pending_sel, 0); sel; sel &= sel - 1) {
        unsigned i = (unsigned)__builtin_ctzll(sel);

        require(m->selector[vcpu][i]);
        m->selector[vcpu][i] = false;
        t->g->shared->evtchn_pending[i] &= t->g->shared->evtchn_mask[i];
        for (uint32_t port = i * 64; port < min_of(i * 64 + 64, (unsigned)MODEL_PORTS); port++)
            m->port[port].pending &= m->port[port].masked;
    }
    for (unsigned i = 0; i < 64; i++)
        require(!m->selector[vcpu][i]);
}

static void take_step(struct trial *t)
{
    unsigned vcpu = pick(t, MODEL_VCPUS);
    bool fired = false, want_fired = false;

    if (!pick(t, 3))
        upcall_serve(t, vcpu);
    for (uint32_t n = pick(t, 6), port = 1; n && port; n--) {
        port = event_take(t, vcpu, &fired);
        require(port == model_take(&t->m, vcpu, &want_fired));
        require(fired == want_fired);
    }
}

static void mask_step(struct trial *t, uint32_t port)
{
    struct model_port *p = &t->m.port[min_of(port, MODEL_PORTS - 1u)];
    uint64_t bit = (uint64_t)1 << port % 64;
    bool mask = pick(t, 2);

    if (port >= MODEL_PORTS)
        return;
    if (t->m.fifo && model_has_word(&t->m, port) && (mask || !p->word_pending)) {
        *word(t, port) = (*word(t, port) & ~MASKED) | (mask ? MASKED : 0);
        p->word_masked = mask;
    } else if (!t->m.fifo && (mask || !p->pending)) {
        t->g->shared->evtchn_mask[port / 64] &= ~bit;
        t->g->shared->evtchn_mask[port / 64] |= mask ? bit : 0;
        p->masked = mask;
    }
}

/* ---- calls ---- */

static void open_step(struct trial *t)
{
    struct evtchn_domain *d = &t->g->d;
    uint32_t vcpu = pick(t, MODEL_VCPUS + (pick(t, 8) == 0)), port, nr;
    int want;

    switch (pick(t, 4)) {
    case 0: {
        struct evtchn_alloc_unbound op = { pick_domid(t), pick_domid(t), 0 };
        want = model_alloc_unbound(&t->m, op.dom, op.remote_dom);
        require(evtchn_alloc_unbound(d, &op) == min_of(want, 0));
        port = op.port;
        break;
    }
    case 1: {
        struct evtchn_bind_interdomain op = { pick_domid(t), pick_port(t), 0 };
        want = model_interdomain(&t->m, op.remote_dom, op.remote_port);
        require(evtchn_bind_interdomain(d, &op) == min_of(want, 0));
        port = op.local_port;
        break;
    }
    case 2: {
        static const uint32_t virqs[] = { VIRQ_TIMER, VIRQ_DEBUG, VIRQ_DOM_EXC, 24, UINT32_MAX };
        struct evtchn_bind_virq op = { virqs[pick(t, array_size(virqs))], vcpu, 0 };
        want = model_virq(&t->m, op.virq, op.vcpu);
        require(evtchn_bind_virq(d, &op) == min_of(want, 0));
        port = op.port;
        break;
    }
    default:
        nr = pick(t, 4000) ? 1 : MODEL_PORTS;       /* all there are */
        do {
            struct evtchn_bind_ipi op = { .vcpu = vcpu };
            want = model_ipi(&t->m, vcpu);
            require(evtchn_bind_ipi(d, &op) == min_of(want, 0));
            port = op.port;
        } while (--nr && want > 0 && (int)port == want);
    }
    require(want <= 0 || (int)port == want);
}

static void host_step(struct trial *t, uint32_t port)
{
    struct evtchn_domain *d = &t->g->d;
    struct model *m = &t->m;
    struct model_port *p = port < MODEL_PORTS ? &m->port[port] : NULL;
    bool is_host = model_usable(m, port) && p->state == EVTCHN_STATE_HOST;
    uint32_t link = pick(t, GUEST_LINKS), vcpu, virq;
    bool fits;

    switch (pick(t, 6)) {
    case 0:
        if (t->g->link_port[link])
            break;
        fits = model_usable(m, port) && p->state == EVTCHN_STATE_UNBOUND && p->peer == 0;
        require(guest_host_bind(t->g, port, link) == (fits ? 0 : -EINVAL));
        if (fits) {
            p->state = EVTCHN_STATE_HOST;
            p->value = link;
            require(t->g->host_vcpu[link] == p->vcpu);
        }
        break;
    case 1:
        link = is_host && pick(t, 4) ? p->value : link;
        fits = is_host && p->value == link;
        require(guest_host_unbind(t->g, port, link) == (fits ? 0 : -EINVAL));
        if (fits) {
            p->state = EVTCHN_STATE_UNBOUND;
            p->value = 0;
        }
        break;
    case 2:
        vcpu = pick(t, MODEL_VCPUS);
        virq = pick(t, 4);
        evtchn_virq_raise(d, vcpu, virq);
        for (uint32_t i = 1; i < MODEL_PORTS; i++)
            if (m->port[i].state == EVTCHN_STATE_VIRQ && m->port[i].value == virq &&
                (virq == VIRQ_DOM_EXC || m->port[i].vcpu == vcpu))
                model_event(m, i);
        break;
    default:
        require(evtchn_host_event(d, port) == (is_host ? 0 : -EINVAL));
        if (is_host)
            model_event(m, port);
    }
}

static void abi_step(struct trial *t)
{
    struct evtchn_domain *d = &t->g->d;
    uint32_t vcpu = pick(t, MODEL_VCPUS + 1);

    switch (pick(t, 40)) {
    case 0:
        require(!guest_reset(d, DOMID_SELF));
        model_reset(&t->m);
        memset(t->g->memory, 0, (ARRAY_GFN + 2) * PAGE_SIZE);
        memset(t->control, 0, sizeof(t->control));
        memset(t->head, 0, sizeof(t->head));
        memset(t->ready, 0, sizeof(t->ready));
        break;
    case 1: case 2: case 3: {
        /* two pages are enough for MODEL_PORTS, and one of them comes late */
        uint64_t gfn = pick(t, 4) ? ARRAY_GFN + t->m.nr_words / 1024 : UINT64_MAX;

        if (t->m.nr_words < 2048 || gfn == UINT64_MAX)
            require(evtchn_expand_array(d, &(struct evtchn_expand_array){ gfn }) ==
                    model_expand(&t->m, gfn));
        break;
    }
    case 4: case 5: case 6: case 7: {
        struct evtchn_init_control op = {
            .control_gfn = pick(t, 8) ? vcpu : GUEST_PAGES,
            .offset = pick(t, 4) ? pick(t, 503) * 8 : pick(t, 5000), .vcpu = vcpu,
        };
        int want = model_control(&t->m, op.control_gfn, op.offset, vcpu);

        require(evtchn_init_control(d, &op) == want);
        if (!want)
            t->control[vcpu] = (void *)(t->g->memory + vcpu * PAGE_SIZE + op.offset);
        break;
    }
    default:
        break;
    }
}

static void poll_step(struct trial *t)
{
    uint32_t ports[2] = { pick_port(t), pick_port(t) };
    unsigned vcpu = pick(t, MODEL_VCPUS), nr = pick(t, 3);

    t->m.upcall_masked[vcpu] = pick(t, 2);
    evtchn_vcpu_info(&t->g->d, vcpu)->evtchn_upcall_mask = t->m.upcall_masked[vcpu];
    require(evtchn_poll_begin(&t->g->d, vcpu, ports, nr) == model_poll(&t->m, vcpu, ports, nr));
}

static void status_check(struct trial *t, uint32_t port)
{
    static const unsigned status_of[] = {
        [EVTCHN_STATE_UNBOUND] = EVTCHNSTAT_unbound, [EVTCHN_STATE_VIRQ] = EVTCHNSTAT_virq,
        [EVTCHN_STATE_LOOPBACK] = EVTCHNSTAT_interdomain, [EVTCHN_STATE_IPI] = EVTCHNSTAT_ipi,
        [EVTCHN_STATE_HOST] = EVTCHNSTAT_interdomain,
    };
    struct evtchn_status op = { .dom = DOMID_SELF, .port = port };
    const struct model_port *p = &t->m.port[min_of(port, MODEL_PORTS - 1u)];

    require(evtchn_status(&t->g->d, &op) == (port < t->m.nr_valid ? 0 : -EINVAL));
    if (port >= t->m.nr_valid || port >= MODEL_PORTS)
        return;
    require(op.status == status_of[p->state] && op.vcpu == p->vcpu);
    if (p->state == EVTCHN_STATE_LOOPBACK)
        require(op.u.interdomain.dom == GUEST_DOMID && op.u.interdomain.port == p->value);
    if (p->state == EVTCHN_STATE_HOST)
        require(op.u.interdomain.dom == 0 && op.u.interdomain.port == p->value + 1);
    if (p->state == EVTCHN_STATE_UNBOUND)
        require(op.u.unbound.dom == p->peer);
    if (p->state == EVTCHN_STATE_VIRQ)
        require(op.u.virq == p->value);
}

static void port_check(struct trial *t, uint32_t port)
{
    const struct model_port *p = &t->m.port[min_of(port, MODEL_PORTS - 1u)];
    uint64_t bit = (uint64_t)1 << port % 64;

    status_check(t, port);
    require(evtchn_port_pending(&t->g->d, port) == model_polled(&t->m, port));
    if (port >= MODEL_PORTS)
        return;
    if (t->m.fifo && model_has_word(&t->m, port)) {
        event_word_t w = *word(t, port);

        require(!(w & PENDING) == !p->word_pending);
        require(!(w & MASKED) == !p->word_masked);
        require(!(w & LINKED) == !p->linked);
        require(w & LINKED || !(w & EVTCHN_FIFO_LINK_MASK));
    }
    require(!(t->g->shared->evtchn_pending[port / 64] & bit) == !p->pending);
    require(!(t->g->shared->evtchn_mask[port / 64] & bit) == !p->masked);
}

static void step(struct trial *t)
{
    struct evtchn_domain *d = &t->g->d;
    struct model *m = &t->m;
    uint32_t port = pick_port(t), v, priority;

    switch (pick(t, 24)) {
    case 0: case 1:
        open_step(t);
        break;
    case 2:
        require(evtchn_close(d, &(struct evtchn_close){ port }) == model_close(m, port));
        break;
    case 3: case 4:
        v = pick(t, MODEL_VCPUS + (pick(t, 8) == 0));
        require(evtchn_bind_vcpu(d, &(struct evtchn_bind_vcpu){ port, v }) ==
                model_bind_vcpu(m, port, v));
        break;
    case 5: case 6: case 7: case 8: case 9: case 10:
        require(evtchn_send(d, &(struct evtchn_send){ port }) == model_send(m, port));
        break;
    case 11: case 12:
        require(evtchn_unmask(d, &(struct evtchn_unmask){ port }) == model_unmask(m, port));
        break;
    case 13: case 14:
        mask_step(t, port);
        break;
    case 15:
        priority = pick(t, 18);
        require(evtchn_set_priority(d, &(struct evtchn_set_priority){ port, priority }) ==
                model_priority(m, port, priority));
        break;
    case 16: case 17:
        host_step(t, port);
        break;
    case 18:
        poll_step(t);
        break;
    case 19:
        abi_step(t);
        break;
    default:
        take_step(t);
    }
    port_check(t, port);
    for (v = 0; v < MODEL_VCPUS; v++) {
        require(t->g->kicks[v] == m->kicks[v]);
        require(evtchn_vcpu_info(d, v)->evtchn_upcall_pending == m->upcall[v]);
        require(evtchn_poll_waiting(d, v) == m->polling[v]);
    }
}

static void all_check(struct trial *t)
{
    guest_check(t->g);
    for (uint32_t port = 0; port < MODEL_PORTS; port++)
        port_check(t, port);
    for (unsigned i = 0; i < GUEST_LINKS; i++) {
        require(t->g->host_sends[i] == t->m.host_sends[i]);
        require(t->g->host_closes[i] == t->m.host_closes[i]);
    }
}

static void random_steps_are_as_the_model_says(void **state)
{
    struct trial *t = calloc(1, sizeof(*t));
    uint32_t fifo_steps = 0;

    require(t);
    for (uint32_t seed = 1; seed <= SEEDS; seed++) {
        memset(t, 0, sizeof(*t));
        t->g = guest_create(MODEL_VCPUS);
        t->g->d.nr_ports_limit = MODEL_PORTS;
        t->random = seed * 0x9e3779b97f4a7c15u;
        t->m.nr_valid = (uint32_t)EVTCHN_PORTS_PER_PAGE;
        t->m.port[0].state = EVTCHN_STATE_RESERVED;
        for (uint32_t i = 0; i < STEPS; i++) {
            step(t);
            fifo_steps += t->m.fifo;
            if (i % 5000 == 0)
                all_check(t);
        }
        all_check(t);
        guest_free(t->g);
    }
    free(t);
    /* both had their turn */
    assert_in_range(fifo_steps, SEEDS * STEPS / 10, SEEDS * STEPS / 10 * 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_steps_are_as_the_model_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
