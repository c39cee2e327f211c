/* SPDX-License-Identifier: MIT */
/* Ports between guests, as the core keeps them: what it asks of its surroundings, which know
 * whether a port is connected, and what the guest is answered.  Others may come in while they
 * are asked, since no lock is held. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "evtchn_guest.h"

#define PEER   9
#define ABSENT 11
#define LINK   5u

/* What the surroundings say, and were last asked. */
struct around {
    struct guest *g;
    struct evtchn_ops ops;
    int wait_rc, bind_rc;
    uint32_t port, id, link, peer_port;
    unsigned nr_waits, nr_binds, nr_closes, nr_sends;
    void (*meanwhile)(struct around *a);
};

static struct around *around(void *ctx)
{
    return *(struct around **)((struct guest *)ctx)->memory;
}

static void others(struct around *a)
{
    /* would not return if the lock were held */
    spin_lock(&a->g->d.lock);
    spin_unlock(&a->g->d.lock);
    if (a->meanwhile)
        a->meanwhile(a);
}

static int peer_wait(void *ctx, uint32_t port, domid_t peer, uint32_t id)
{
    struct around *a = around(ctx);

    a->nr_waits++;
    a->port = port;
    a->id = id;
    others(a);
    return a->wait_rc;
}

static int peer_bind(void *ctx, uint32_t port, domid_t peer, uint32_t peer_port, uint32_t *link)
{
    struct around *a = around(ctx);

    a->nr_binds++;
    a->port = port;
    others(a);
    *link = LINK;
    return peer == PEER ? a->bind_rc : -ESRCH;
}

static void peer_closed(void *ctx, uint32_t port, uint32_t link)
{
    struct around *a = around(ctx);

    a->nr_closes++;
    a->port = port;
    a->link = link;
    others(a);
}

static uint32_t peer_port(void *ctx, uint32_t link)
{
    assert_int_equal(link, LINK);
    return around(ctx)->peer_port;
}

static bool peer_exists(void *ctx, domid_t peer)
{
    others(around(ctx));
    return peer == PEER;
}

static void host_send(void *ctx, uint32_t port, uint32_t link)
{
    struct around *a = around(ctx);

    a->nr_sends++;
    a->link = link;
}

static int setup(void **state)
{
    struct around *a = calloc(1, sizeof(*a));

    a->g = guest_create(2);
    *(struct around **)a->g->memory = a;
    a->ops = guest_ops;
    a->ops.peer_wait = peer_wait;
    a->ops.peer_bind = peer_bind;
    a->ops.peer_closed = peer_closed;
    a->ops.peer_port = peer_port;
    a->ops.peer_exists = peer_exists;
    a->ops.host_send = host_send;
    a->g->d.ops = &a->ops;
    *state = a;
    return 0;
}

static int teardown(void **state)
{
    struct around *a = *state;

    guest_free(a->g);
    free(a);
    return 0;
}

static int alloc(struct around *a, domid_t remote, uint32_t *port)
{
    struct evtchn_alloc_unbound op = { .dom = DOMID_SELF, .remote_dom = remote };
    int rc = evtchn_alloc_unbound(&a->g->d, &op);

    *port = op.port;
    return rc;
}

static int bind(struct around *a, domid_t remote, uint32_t *port)
{
    struct evtchn_bind_interdomain op = { .remote_dom = remote, .remote_port = 77 };
    int rc = evtchn_bind_interdomain(&a->g->d, &op);

    *port = op.local_port;
    return rc;
}

static int close_port(struct around *a, uint32_t port)
{
    return evtchn_close(&a->g->d, &(struct evtchn_close){ port });
}

static int send_on(struct around *a, uint32_t port)
{
    return evtchn_send(&a->g->d, &(struct evtchn_send){ port });
}

static void status_is(struct around *a, uint32_t port, uint32_t status, domid_t dom,
                      uint32_t remote)
{
    struct evtchn_status op = { .dom = DOMID_SELF, .port = port };

    assert_int_equal(evtchn_status(&a->g->d, &op), 0);
    assert_int_equal(op.status, status);
    if (status == EVTCHNSTAT_unbound)
        assert_int_equal(op.u.unbound.dom, dom);
    if (status != EVTCHNSTAT_interdomain)
        return;
    assert_int_equal(op.u.interdomain.dom, dom);
    assert_int_equal(op.u.interdomain.port, remote);
}

static void test_waits(void **state)
{
    struct around *a = *state;
    uint32_t port, id;

    assert_int_equal(alloc(a, PEER, &port), 0);
    assert_int_equal(a->nr_waits, 1);
    assert_int_equal(a->port, port);
    id = a->id;
    assert_int_not_equal(id, 0);
    status_is(a, port, EVTCHNSTAT_unbound, PEER, 0);
    /* a peer may have connected already */
    assert_int_equal(send_on(a, port), 0);
    assert_int_equal(a->nr_sends, 1);
    assert_int_equal(a->link, EVTCHN_NO_LINK);

    assert_int_equal(evtchn_peer_attach(&a->g->d, port, id + 1, LINK), -EINVAL);
    assert_int_equal(evtchn_peer_attach(&a->g->d, port, 0, LINK), -EINVAL);
    assert_int_equal(evtchn_peer_attach(&a->g->d, port + 1, id, LINK), -EINVAL);
    assert_int_equal(evtchn_host_bind(&a->g->d, port, LINK), -EINVAL);
    assert_int_equal(evtchn_peer_attach(&a->g->d, port, id, LINK), 0);
    assert_int_equal(evtchn_peer_attach(&a->g->d, port, id, LINK), -EINVAL);
    a->peer_port = 33;
    status_is(a, port, EVTCHNSTAT_interdomain, PEER, 33);
    a->peer_port = 0;
    status_is(a, port, EVTCHNSTAT_unbound, PEER, 0);
    assert_int_equal(send_on(a, port), 0);
    assert_int_equal(a->link, LINK);
    assert_int_equal(evtchn_bind_vcpu(&a->g->d, &(struct evtchn_bind_vcpu){ port, 1 }), 0);
    assert_int_equal(a->g->host_vcpu[LINK], 1);
    assert_int_equal(evtchn_host_event(&a->g->d, port), 0);
    assert_int_equal(evtchn_port_pending(&a->g->d, port), 1);
    assert_int_equal(close_port(a, port), 0);
    assert_int_equal(a->nr_closes, 1);
    assert_int_equal(a->link, LINK);
    assert_int_equal(evtchn_port_pending(&a->g->d, port), 0);
    guest_check(a->g);
}

/* An id is never that of a port that was closed: who attaches late attaches nothing. */
static void test_late(void **state)
{
    struct around *a = *state;
    uint32_t port, again, id;

    assert_int_equal(alloc(a, PEER, &port), 0);
    id = a->id;
    assert_int_equal(close_port(a, port), 0);
    assert_int_equal(a->link, EVTCHN_NO_LINK);
    assert_int_equal(alloc(a, PEER, &again), 0);
    assert_int_equal(again, port);
    assert_int_equal(evtchn_peer_attach(&a->g->d, port, id, LINK), -EINVAL);
    assert_int_equal(evtchn_peer_attach(&a->g->d, port, a->id, LINK), 0);
    /* also when they have all been used once */
    a->g->d.peer_id = UINT32_MAX;
    assert_int_equal(alloc(a, PEER, &again), 0);
    assert_int_equal(a->id, 1);
}

static void test_wait_fails(void **state)
{
    struct around *a = *state;
    uint32_t port;

    a->wait_rc = -ENOMEM;
    assert_int_equal(alloc(a, PEER, &port), -ENOMEM);
    assert_int_equal(a->g->d.nr_ports_used, 0);
    guest_check(a->g);
    /* not for what is no other guest's */
    assert_int_equal(alloc(a, 0, &port), 0);
    assert_int_equal(alloc(a, DOMID_SELF, &port), 0);
    assert_int_equal(alloc(a, GUEST_DOMID, &port), 0);
    assert_int_equal(a->nr_waits, 1);
}

static void test_bind(void **state)
{
    struct around *a = *state;
    uint32_t port, other;

    assert_int_equal(bind(a, ABSENT, &port), -ESRCH);
    a->bind_rc = -EINVAL;
    assert_int_equal(bind(a, PEER, &port), -EINVAL);
    assert_int_equal(a->g->d.nr_ports_used, 0);
    guest_check(a->g);
    a->bind_rc = 0;
    assert_int_equal(bind(a, PEER, &port), 0);
    assert_int_equal(evtchn_port_pending(&a->g->d, port), 1);
    assert_int_equal(guest_state(a->g, port), EVTCHN_STATE_PEER);
    assert_int_equal(a->g->host_vcpu[LINK], 0);
    a->peer_port = 77;
    status_is(a, port, EVTCHNSTAT_interdomain, PEER, 77);
    assert_int_equal(bind(a, 0, &other), -EINVAL);
    assert_int_equal(guest_reset(&a->g->d, DOMID_SELF), 0);
    assert_int_equal(a->nr_closes, 1);
    assert_int_equal(a->g->d.nr_ports_used, 0);
    guest_check(a->g);
}

static void closes_it_too(struct around *a)
{
    a->meanwhile = NULL;
    assert_int_equal(close_port(a, a->port), -EINVAL);
    assert_int_equal(send_on(a, a->port), -EINVAL);
    status_is(a, a->port, EVTCHNSTAT_closed, 0, 0);
    assert_int_equal(evtchn_host_event(&a->g->d, a->port), -EINVAL);
}

/* While others are asked, the port is nobody's: neither in use nor free. */
static void test_meanwhile(void **state)
{
    struct around *a = *state;
    uint32_t port;

    a->meanwhile = closes_it_too;
    assert_int_equal(bind(a, PEER, &port), 0);
    assert_null(a->meanwhile);
    a->meanwhile = closes_it_too;
    assert_int_equal(close_port(a, port), 0);
    assert_null(a->meanwhile);
    assert_int_equal(a->nr_closes, 1);
    guest_check(a->g);
}

static void closes_it_first(struct around *a)
{
    a->meanwhile = NULL;
    assert_int_equal(close_port(a, a->port), 0);
}

/* A guest that guesses the number of a port that it has not been told. */
static void test_closed_before_told(void **state)
{
    struct around *a = *state;
    uint32_t port;

    a->meanwhile = closes_it_first;
    a->wait_rc = -ENOMEM;
    assert_int_equal(alloc(a, PEER, &port), -ENOMEM);
    assert_int_equal(a->g->d.nr_ports_used, 0);
    guest_check(a->g);
}

static void test_whose(void **state)
{
    struct around *a = *state;
    struct evtchn_alloc_unbound op = { .dom = PEER, .remote_dom = DOMID_SELF };
    struct evtchn_status s = { .dom = PEER, .port = 1 };

    assert_int_equal(evtchn_alloc_unbound(&a->g->d, &op), -EPERM);
    assert_int_equal(evtchn_status(&a->g->d, &s), -EPERM);
    assert_int_equal(guest_reset(&a->g->d, PEER), -EPERM);
    op.dom = s.dom = ABSENT;
    assert_int_equal(evtchn_alloc_unbound(&a->g->d, &op), -ESRCH);
    assert_int_equal(evtchn_status(&a->g->d, &s), -ESRCH);
    assert_int_equal(guest_reset(&a->g->d, ABSENT), -ESRCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wait_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closed_before_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_whose, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
