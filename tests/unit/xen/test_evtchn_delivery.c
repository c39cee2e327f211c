/* SPDX-License-Identifier: MIT */
/* How an event gets to a vCPU with the 2-level ABI: pending, mask, selector, upcall
 * and kick; polling; vcpu_info that moves; guests that scribble on it all. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "evtchn_guest.h"

static uint32_t ipi_open(struct guest *g, unsigned vcpu)
{
    struct evtchn_bind_ipi op = { .vcpu = vcpu };

    assert_int_equal(evtchn_bind_ipi(&g->d, &op), 0);
    return op.port;
}

static uint32_t host_port_open(struct guest *g, uint32_t link)
{
    struct evtchn_alloc_unbound op = { .dom = DOMID_SELF, .remote_dom = 0 };

    assert_int_equal(evtchn_alloc_unbound(&g->d, &op), 0);
    assert_int_equal(guest_host_bind(g, op.port, link), 0);
    return op.port;
}

static void port_send(struct guest *g, uint32_t port)
{
    assert_int_equal(evtchn_send(&g->d, &(struct evtchn_send){ .port = port }), 0);
}

static void port_mask(struct guest *g, uint32_t port)
{
    g->shared->evtchn_mask[port / 64] |= 1ul << port % 64;
}

static void port_unmask(struct guest *g, uint32_t port)
{
    assert_int_equal(evtchn_unmask(&g->d, &(struct evtchn_unmask){ .port = port }), 0);
}

/* What a guest's upcall handler does first: take everything that is marked. */
static void upcall_taken(struct guest *g, unsigned vcpu)
{
    struct vcpu_info *vi = evtchn_vcpu_info(&g->d, vcpu);

    vi->evtchn_upcall_pending = 0;
    vi->evtchn_pending_sel = 0;
    memset(g->shared->evtchn_pending, 0, sizeof(g->shared->evtchn_pending));
}

static void send_marks_the_bound_vcpu_and_kicks_it_once(void **state)
{
    struct guest *g = guest_create(3);
    uint32_t port = ipi_open(g, 2);
    struct vcpu_info *vi = &g->shared->vcpu_info[2];

    port_send(g, port);
    port_send(g, port);
    assert_int_equal(g->shared->evtchn_pending[0], 1ul << port);
    assert_int_equal(vi->evtchn_pending_sel, 1);
    assert_int_equal(vi->evtchn_upcall_pending, 1);
    assert_int_equal(g->kicks[2], 1);
    assert_int_equal(g->kicks[0] + g->kicks[1], 0);
    upcall_taken(g, 2);
    port_send(g, port);
    assert_int_equal(g->kicks[2], 2);
    guest_free(g);
}

static void second_port_under_a_pending_upcall_is_marked_without_kick(void **state)
{
    struct guest *g = guest_create(1);
    uint32_t a = ipi_open(g, 0), b;

    while ((b = ipi_open(g, 0)) < 70)
        ;
    port_send(g, a);
    port_send(g, b);
    assert_int_equal(g->shared->vcpu_info[0].evtchn_pending_sel, 3);
    assert_int_equal(g->kicks[0], 1);
    guest_free(g);
}

static void masked_port_stays_quiet_until_unmasked(void **state)
{
    struct guest *g = guest_create(1);
    uint32_t port = ipi_open(g, 0);

    port_mask(g, port);
    port_send(g, port);
    assert_int_equal(evtchn_port_pending(&g->d, port), 1);
    assert_int_equal(g->shared->vcpu_info[0].evtchn_upcall_pending, 0);
    assert_int_equal(g->kicks[0], 0);
    port_unmask(g, port);
    assert_int_equal(g->shared->evtchn_mask[0], 0);
    assert_int_equal(g->shared->vcpu_info[0].evtchn_upcall_pending, 1);
    assert_int_equal(g->kicks[0], 1);
    guest_free(g);
}

static void unmask_of_a_port_that_was_not_masked_marks_nothing(void **state)
{
    struct guest *g = guest_create(1);
    uint32_t port = ipi_open(g, 0);

    g->shared->evtchn_pending[0] = 1ul << port;
    port_unmask(g, port);
    assert_int_equal(g->kicks[0], 0);
    guest_free(g);
}

static void moved_port_with_an_event_is_delivered_on_the_new_vcpu(void **state)
{
    struct guest *g = guest_create(2);
    uint32_t port = host_port_open(g, 0);

    assert_int_equal(evtchn_host_event(&g->d, port), 0);
    assert_int_equal(g->kicks[0], 1);
    assert_int_equal(evtchn_bind_vcpu(&g->d, &(struct evtchn_bind_vcpu){ port, 1 }), 0);
    assert_int_equal(g->kicks[1], 1);
    assert_int_equal(g->shared->vcpu_info[1].evtchn_pending_sel, 1);
    guest_free(g);
}

static void loopback_event_reaches_the_other_end(void **state)
{
    struct guest *g = guest_create(2);
    struct evtchn_alloc_unbound a = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };
    struct evtchn_bind_interdomain b = { .remote_dom = DOMID_SELF };

    assert_int_equal(evtchn_alloc_unbound(&g->d, &a), 0);
    b.remote_port = a.port;
    assert_int_equal(evtchn_bind_interdomain(&g->d, &b), 0);
    /* the new end starts pending, to make up for what was dropped before */
    assert_int_equal(g->shared->evtchn_pending[0], 1ul << b.local_port);
    upcall_taken(g, 0);
    port_send(g, b.local_port);
    assert_int_equal(g->shared->evtchn_pending[0], 1ul << a.port);
    upcall_taken(g, 0);
    port_send(g, a.port);
    assert_int_equal(g->shared->evtchn_pending[0], 1ul << b.local_port);
    guest_free(g);
}

static void send_to_the_host_calls_the_host(void **state)
{
    struct guest *g = guest_create(1);
    uint32_t port = host_port_open(g, 5);

    port_send(g, port);
    port_send(g, port);
    assert_int_equal(g->host_sends[5], 2);
    assert_int_equal(evtchn_port_pending(&g->d, port), 0);
    guest_free(g);
}

static void closing_clears_what_was_pending(void **state)
{
    struct guest *g = guest_create(1);
    uint32_t port = ipi_open(g, 0);

    port_send(g, port);
    assert_int_equal(evtchn_close(&g->d, &(struct evtchn_close){ port }), 0);
    assert_int_equal(g->shared->evtchn_pending[0], 0);
    assert_int_equal(evtchn_port_pending(&g->d, port), 0);
    upcall_taken(g, 0);
    assert_int_equal(evtchn_poll_begin(&g->d, 0, &port, 1), EVTCHN_POLL_WAIT);
    evtchn_poll_end(&g->d, 0);
    guest_free(g);
}

static void virq_is_raised_where_it_is_bound(void **state)
{
    struct guest *g = guest_create(3);
    struct evtchn_bind_virq timer = { .virq = VIRQ_TIMER, .vcpu = 1 };
    struct evtchn_bind_virq debug = { .virq = VIRQ_DOM_EXC, .vcpu = 0 };

    evtchn_virq_raise(&g->d, 1, VIRQ_TIMER);
    assert_int_equal(g->kicks[1], 0);
    assert_int_equal(evtchn_bind_virq(&g->d, &timer), 0);
    assert_int_equal(evtchn_bind_virq(&g->d, &debug), 0);
    assert_int_equal(evtchn_bind_vcpu(&g->d, &(struct evtchn_bind_vcpu){ debug.port, 2 }), 0);
    evtchn_virq_raise(&g->d, 0, VIRQ_TIMER);
    assert_int_equal(evtchn_port_pending(&g->d, timer.port), 0);
    evtchn_virq_raise(&g->d, 1, VIRQ_TIMER);
    assert_int_equal(evtchn_port_pending(&g->d, timer.port), 1);
    assert_int_equal(g->kicks[1], 1);
    evtchn_virq_raise(&g->d, 0, VIRQ_DOM_EXC);
    assert_int_equal(g->kicks[2], 1);
    guest_free(g);
}

static void vcpu_info_that_moves_takes_its_state_along(void **state)
{
    struct guest *g = guest_create(1);
    struct vcpu_info *old = evtchn_vcpu_info(&g->d, 0), new;
    uint32_t port = ipi_open(g, 0);

    memset(&new, 0xa5, sizeof(new));
    old->evtchn_upcall_mask = 1;
    old->arch.cr2 = 0x1234;
    old->time.system_time = 77;
    evtchn_vcpu_info_set(&g->d, 0, &new);
    assert_ptr_equal(evtchn_vcpu_info(&g->d, 0), &new);
    assert_int_equal(new.evtchn_upcall_mask, 1);
    assert_int_equal(new.arch.cr2, 0x1234);
    assert_int_equal(new.time.system_time, 77);
    assert_int_equal(new.evtchn_pending_sel, ~0ul);
    assert_int_equal(new.evtchn_upcall_pending, 1);
    assert_int_equal(g->kicks[0], 1);
    assert_false(evtchn_upcall_due(&g->d, 0));
    new.evtchn_upcall_mask = 0;
    assert_true(evtchn_upcall_due(&g->d, 0));
    new.evtchn_upcall_pending = 0;
    new.evtchn_pending_sel = 0;
    port_send(g, port);
    assert_int_equal(new.evtchn_pending_sel, 1);
    assert_int_equal(old->evtchn_pending_sel, 0);
    guest_free(g);
}

static void vcpu_beyond_the_legacy_ones_starts_with_upcalls_masked(void **state)
{
    struct guest *g = guest_create(64);
    struct vcpu_info new;
    uint32_t port = ipi_open(g, 63);

    port_send(g, port);     /* nowhere to mark it, nothing breaks */
    memset(&new, 0xff, sizeof(new));
    evtchn_vcpu_info_set(&g->d, 63, &new);
    assert_int_equal(new.evtchn_upcall_mask, 1);
    assert_int_equal(new.time.version, 0);
    assert_int_equal(new.arch.cr2, 0);
    assert_int_equal(new.evtchn_pending_sel, ~0ul);
    assert_int_equal(evtchn_port_pending(&g->d, port), 1);
    guest_free(g);
}

static void poll_returns_at_once_when_something_is_pending(void **state)
{
    struct guest *g = guest_create(1);
    evtchn_port_t ports[] = { ipi_open(g, 0), ipi_open(g, 0) };

    port_mask(g, ports[1]);
    port_send(g, ports[1]);
    assert_int_equal(evtchn_poll_begin(&g->d, 0, ports, 2), 0);
    assert_false(evtchn_poll_waiting(&g->d, 0));
    assert_int_equal(evtchn_poll_begin(&g->d, 0, ports, 1), EVTCHN_POLL_WAIT);
    evtchn_poll_end(&g->d, 0);
    port_send(g, ports[0]);         /* not masked: an upcall is due */
    assert_int_equal(evtchn_poll_begin(&g->d, 0, NULL, 0), 0);
    guest_free(g);
}

static void poll_refuses_bad_ports_and_too_many(void **state)
{
    struct guest *g = guest_create(1);
    evtchn_port_t ports[EVTCHN_POLL_PORTS_MAX + 1] = { ipi_open(g, 0), 999999 };

    assert_int_equal(evtchn_poll_begin(&g->d, 0, ports, 2), -EINVAL);
    assert_false(evtchn_poll_waiting(&g->d, 0));
    assert_int_equal(evtchn_poll_begin(&g->d, 0, ports, EVTCHN_POLL_PORTS_MAX + 1), -EINVAL);
    port_mask(g, ports[0]);
    port_send(g, ports[0]);         /* found before the bad one is looked at */
    assert_int_equal(evtchn_poll_begin(&g->d, 0, ports, 2), 0);
    guest_free(g);
}

static void masked_event_ends_the_poll_that_waits_for_it_only(void **state)
{
    struct guest *g = guest_create(3);
    evtchn_port_t a = ipi_open(g, 0), b = ipi_open(g, 0), both[] = { a, b };

    port_mask(g, a);
    port_mask(g, b);
    assert_int_equal(evtchn_poll_begin(&g->d, 0, &a, 1), EVTCHN_POLL_WAIT);
    assert_int_equal(evtchn_poll_begin(&g->d, 1, &b, 1), EVTCHN_POLL_WAIT);
    assert_int_equal(evtchn_poll_begin(&g->d, 2, both, 2), EVTCHN_POLL_WAIT);
    port_send(g, b);
    assert_true(evtchn_poll_waiting(&g->d, 0));
    assert_false(evtchn_poll_waiting(&g->d, 1));
    assert_false(evtchn_poll_waiting(&g->d, 2));
    assert_int_equal(g->kicks[0], 0);
    assert_int_equal(g->kicks[1], 1);
    assert_int_equal(g->kicks[2], 1);
    evtchn_poll_end(&g->d, 0);
    port_send(g, a);
    assert_int_equal(g->kicks[0], 0);
    guest_free(g);
}

static void scribbled_shared_info_breaks_nothing_but_the_guest(void **state)
{
    struct guest *g = guest_create(2);
    uint32_t a = ipi_open(g, 1), b = host_port_open(g, 3);

    for (unsigned fill = 0; fill < 256; fill += 51) {
        memset(g->shared, (int)fill, PAGE_SIZE);
        port_send(g, a);
        port_send(g, b);
        assert_int_equal(evtchn_host_event(&g->d, b), 0);
        port_unmask(g, a);
        assert_int_equal(evtchn_bind_vcpu(&g->d, &(struct evtchn_bind_vcpu){ b, fill & 1 }), 0);
        assert_int_equal(guest_state(g, a), EVTCHN_STATE_IPI);
        assert_int_equal(guest_state(g, b), EVTCHN_STATE_HOST);
    }
    memset(g->shared, 0, PAGE_SIZE);
    guest_check(g);
    guest_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(send_marks_the_bound_vcpu_and_kicks_it_once),
        cmocka_unit_test(second_port_under_a_pending_upcall_is_marked_without_kick),
        cmocka_unit_test(masked_port_stays_quiet_until_unmasked),
        cmocka_unit_test(unmask_of_a_port_that_was_not_masked_marks_nothing),
        cmocka_unit_test(moved_port_with_an_event_is_delivered_on_the_new_vcpu),
        cmocka_unit_test(loopback_event_reaches_the_other_end),
        cmocka_unit_test(send_to_the_host_calls_the_host),
        cmocka_unit_test(closing_clears_what_was_pending),
        cmocka_unit_test(virq_is_raised_where_it_is_bound),
        cmocka_unit_test(vcpu_info_that_moves_takes_its_state_along),
        cmocka_unit_test(vcpu_beyond_the_legacy_ones_starts_with_upcalls_masked),
        cmocka_unit_test(poll_returns_at_once_when_something_is_pending),
        cmocka_unit_test(poll_refuses_bad_ports_and_too_many),
        cmocka_unit_test(masked_event_ends_the_poll_that_waits_for_it_only),
        cmocka_unit_test(scribbled_shared_info_breaks_nothing_but_the_guest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
