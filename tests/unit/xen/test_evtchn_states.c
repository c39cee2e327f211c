/* SPDX-License-Identifier: MIT */
/* EVTCHNOP calls as tables of what is done and what must come of it: results and
 * error codes are those of Xen 4.17 for an unprivileged domain.  After each row all
 * ports are checked against each other. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "evtchn_guest.h"

enum act {
    ALLOC_UNBOUND,      /* a: dom, b: remote_dom -> port */
    INTERDOMAIN,        /* a: remote_dom, b: remote_port -> port */
    VIRQ,               /* a: virq, b: vcpu -> port */
    IPI,                /* a: vcpu -> port */
    PIRQ,               /* a: pirq */
    VCPU,               /* a: port, b: vcpu */
    CLOSE,              /* a: port */
    SEND,               /* a: port */
    STATUS,             /* a: dom, b: port -> EVTCHNSTAT_* */
    UNMASK,             /* a: port */
    RESET,              /* a: dom */
    PRIORITY,           /* a: port, b: priority */
    EXPAND,
    CONTROL,            /* a: vcpu */
    HOST_BIND,          /* a: port, b: link */
    HOST_UNBIND,        /* a: port, b: link */
    HOST_EVENT,         /* a: port */
};

struct row {
    enum act act;
    uint32_t a, b;
    int ret;            /* 0 or -errno */
    uint32_t out;       /* port or status, when ret is 0 */
};

static int row_run(struct guest *g, const struct row *r, uint32_t *out)
{
    struct evtchn_domain *d = &g->d;
    int ret;

    *out = 0;
    switch (r->act) {
    case ALLOC_UNBOUND: {
        struct evtchn_alloc_unbound op = { .dom = r->a, .remote_dom = r->b };
        ret = evtchn_alloc_unbound(d, &op);
        *out = op.port;
        return ret;
    }
    case INTERDOMAIN: {
        struct evtchn_bind_interdomain op = { .remote_dom = r->a, .remote_port = r->b };
        ret = evtchn_bind_interdomain(d, &op);
        *out = op.local_port;
        return ret;
    }
    case VIRQ: {
        struct evtchn_bind_virq op = { .virq = r->a, .vcpu = r->b };
        ret = evtchn_bind_virq(d, &op);
        *out = op.port;
        return ret;
    }
    case IPI: {
        struct evtchn_bind_ipi op = { .vcpu = r->a };
        ret = evtchn_bind_ipi(d, &op);
        *out = op.port;
        return ret;
    }
    case PIRQ: {
        struct evtchn_bind_pirq op = { .pirq = r->a };
        return evtchn_bind_pirq(d, &op);
    }
    case VCPU: {
        struct evtchn_bind_vcpu op = { .port = r->a, .vcpu = r->b };
        return evtchn_bind_vcpu(d, &op);
    }
    case CLOSE: {
        struct evtchn_close op = { .port = r->a };
        return evtchn_close(d, &op);
    }
    case SEND: {
        struct evtchn_send op = { .port = r->a };
        return evtchn_send(d, &op);
    }
    case STATUS: {
        struct evtchn_status op = { .dom = r->a, .port = r->b };
        ret = evtchn_status(d, &op);
        *out = op.status;
        return ret;
    }
    case UNMASK: {
        struct evtchn_unmask op = { .port = r->a };
        return evtchn_unmask(d, &op);
    }
    case RESET:
        return guest_reset(d, r->a);
    case PRIORITY: {
        struct evtchn_set_priority op = { .port = r->a, .priority = r->b };
        return evtchn_set_priority(d, &op);
    }
    case EXPAND: {
        struct evtchn_expand_array op = { .array_gfn = 1 };
        return evtchn_expand_array(d, &op);
    }
    case CONTROL: {
        struct evtchn_init_control op = { .control_gfn = 1, .vcpu = r->a };
        return evtchn_init_control(d, &op);
    }
    case HOST_BIND:
        return guest_host_bind(g, r->a, r->b);
    case HOST_UNBIND:
        return guest_host_unbind(g, r->a, r->b);
    case HOST_EVENT:
        return evtchn_host_event(d, r->a);
    }
    fail_msg("no such act");
    return -1;
}

static void rows_check(struct guest *g, const struct row *rows, size_t nr)
{
    for (size_t i = 0; i < nr; i++) {
        uint32_t out;
        int ret = row_run(g, &rows[i], &out);

        if (ret != rows[i].ret || (!ret && rows[i].out && out != rows[i].out))
            fail_msg("row %zu (act %d, %u, %u): got %d and %u, expected %d and %u", i,
                     rows[i].act, rows[i].a, rows[i].b, ret, out, rows[i].ret, rows[i].out);
        guest_check(g);
    }
}

#define CHECK(...) \
    do { \
        static const struct row rows[] = { __VA_ARGS__ }; \
        struct guest *g = guest_create(4); \
        rows_check(g, rows, array_size(rows)); \
        guest_free(g); \
    } while (0)

static void lowest_free_port_is_given_first(void **state)
{
    CHECK({ IPI, 0, 0, 0, 1 }, { ALLOC_UNBOUND, DOMID_SELF, 0, 0, 2 }, { VIRQ, 0, 1, 0, 3 },
          { CLOSE, 1 }, { CLOSE, 2 }, { IPI, 3, 0, 0, 1 }, { IPI, 3, 0, 0, 2 },
          { IPI, 3, 0, 0, 4 });
}

static void alloc_unbound_only_in_own_domain(void **state)
{
    CHECK({ ALLOC_UNBOUND, DOMID_SELF, 0, 0, 1 }, { ALLOC_UNBOUND, GUEST_DOMID, 3, 0, 2 },
          { ALLOC_UNBOUND, 0, 0, -EPERM }, { ALLOC_UNBOUND, 8, 0, -ESRCH },
          { ALLOC_UNBOUND, DOMID_XEN, 0, -ESRCH },
          { STATUS, DOMID_SELF, 1, 0, EVTCHNSTAT_unbound });
}

static void loopback_needs_a_port_waiting_for_the_domain(void **state)
{
    CHECK({ ALLOC_UNBOUND, DOMID_SELF, DOMID_SELF, 0, 1 }, { ALLOC_UNBOUND, DOMID_SELF, 0, 0, 2 },
          { INTERDOMAIN, DOMID_SELF, 2, -EINVAL }, { INTERDOMAIN, DOMID_SELF, 3, -EINVAL },
          { INTERDOMAIN, DOMID_SELF, 0, -EINVAL }, { INTERDOMAIN, DOMID_SELF, 999999, -EINVAL },
          { INTERDOMAIN, 9, 1, -ESRCH }, { INTERDOMAIN, 0, 1, -EINVAL },
          { INTERDOMAIN, GUEST_DOMID, 1, 0, 3 }, { INTERDOMAIN, DOMID_SELF, 1, -EINVAL },
          { STATUS, DOMID_SELF, 1, 0, EVTCHNSTAT_interdomain },
          { STATUS, DOMID_SELF, 3, 0, EVTCHNSTAT_interdomain },
          { SEND, 1 }, { SEND, 3 });
}

static void closing_one_end_leaves_the_other_unbound(void **state)
{
    CHECK({ ALLOC_UNBOUND, DOMID_SELF, DOMID_SELF, 0, 1 }, { INTERDOMAIN, DOMID_SELF, 1, 0, 2 },
          { CLOSE, 1 }, { STATUS, DOMID_SELF, 1, 0, EVTCHNSTAT_closed },
          { STATUS, DOMID_SELF, 2, 0, EVTCHNSTAT_unbound }, { SEND, 2 }, { SEND, 1, 0, -EINVAL },
          { INTERDOMAIN, DOMID_SELF, 2, 0, 1 }, { CLOSE, 2 }, { CLOSE, 1 },
          { CLOSE, 1, 0, -EINVAL });
}

static void virq_is_bound_once(void **state)
{
    CHECK({ VIRQ, VIRQ_TIMER, 0, 0, 1 }, { VIRQ, VIRQ_TIMER, 0, -EEXIST },
          { VIRQ, VIRQ_TIMER, 3, 0, 2 }, { VIRQ, VIRQ_TIMER, 4, -ENOENT },
          { VIRQ, VIRQ_DOM_EXC, 0, 0, 3 }, { VIRQ, VIRQ_DOM_EXC, 0, -EEXIST },
          { VIRQ, VIRQ_DOM_EXC, 1, -EINVAL }, { VIRQ, VIRQ_DOM_EXC, 4, -EINVAL },
          { VIRQ, NR_VIRQS, 0, -EINVAL }, { VIRQ, UINT32_MAX, 0, -EINVAL },
          { VIRQ, VIRQ_XENPMU, 2, 0, 4 }, { VIRQ, VIRQ_ARCH_0, 2, -EINVAL },
          { CLOSE, 1 }, { VIRQ, VIRQ_TIMER, 0, 0, 1 }, { SEND, 1, 0, -EINVAL });
}

static void moved_global_virq_can_be_bound_again_after_close(void **state)
{
    CHECK({ VIRQ, VIRQ_DOM_EXC, 0, 0, 1 }, { VCPU, 1, 3 }, { CLOSE, 1 },
          { VIRQ, VIRQ_DOM_EXC, 0, 0, 1 });
}

static void ipi_needs_an_existing_vcpu(void **state)
{
    CHECK({ IPI, 3, 0, 0, 1 }, { IPI, 4, 0, -ENOENT }, { IPI, UINT32_MAX, 0, -ENOENT });
}

static void pirq_is_refused_as_to_any_unprivileged_domain(void **state)
{
    CHECK({ PIRQ, 0, 0, -EPERM }, { PIRQ, 47, 0, -EPERM }, { PIRQ, 48, 0, -EINVAL },
          { PIRQ, UINT32_MAX, 0, -EINVAL });
}

static void bind_vcpu_only_for_ports_that_may_move(void **state)
{
    CHECK({ VIRQ, VIRQ_TIMER, 0, 0, 1 }, { IPI, 0, 0, 0, 2 },
          { ALLOC_UNBOUND, DOMID_SELF, 0, 0, 3 },
          { VIRQ, VIRQ_DOM_EXC, 0, 0, 4 }, { VCPU, 1, 1, -EINVAL }, { VCPU, 2, 1, -EINVAL },
          { VCPU, 3, 1 }, { VCPU, 4, 1 }, { VCPU, 3, 4, -ENOENT }, { VCPU, 5, 1, -EINVAL },
          { VCPU, 999999, 1, -EINVAL }, { VCPU, 999999, 4, -ENOENT }, { VCPU, 0, 1, -EINVAL });
}

static void close_refuses_what_is_not_open(void **state)
{
    CHECK({ CLOSE, 0, 0, -EINVAL }, { CLOSE, 1, 0, -EINVAL }, { CLOSE, 131072, 0, -EINVAL },
          { CLOSE, UINT32_MAX, 0, -EINVAL });
}

static void send_refuses_what_cannot_send(void **state)
{
    CHECK({ SEND, 0, 0, -EINVAL }, { SEND, 1, 0, -EINVAL }, { SEND, UINT32_MAX, 0, -EINVAL },
          { VIRQ, VIRQ_DEBUG, 0, 0, 1 }, { SEND, 1, 0, -EINVAL }, { IPI, 0, 0, 0, 2 }, { SEND, 2 },
          { ALLOC_UNBOUND, DOMID_SELF, 0, 0, 3 }, { SEND, 3 });
}

static void status_only_of_own_ports(void **state)
{
    CHECK({ STATUS, DOMID_SELF, 1, 0, EVTCHNSTAT_closed }, { STATUS, 0, 1, -EPERM },
          { STATUS, 3, 1, -ESRCH }, { STATUS, DOMID_SELF, 999999, -EINVAL },
          { IPI, 0, 0, 0, 1 }, { STATUS, GUEST_DOMID, 1, 0, EVTCHNSTAT_ipi },
          { VIRQ, 0, 0, 0, 2 }, { STATUS, DOMID_SELF, 2, 0, EVTCHNSTAT_virq });
}

static void unmask_accepts_any_port_that_has_a_record(void **state)
{
    CHECK({ UNMASK, 0 }, { UNMASK, 1 }, { IPI, 0, 0, 0, 1 }, { UNMASK, 1 },
          { UNMASK, 999999, 0, -EINVAL });
}

static void reset_closes_everything_of_the_own_domain(void **state)
{
    CHECK({ IPI, 0, 0, 0, 1 }, { VIRQ, 0, 0, 0, 2 },
          { ALLOC_UNBOUND, DOMID_SELF, DOMID_SELF, 0, 3 },
          { INTERDOMAIN, DOMID_SELF, 3, 0, 4 }, { ALLOC_UNBOUND, DOMID_SELF, 0, 0, 5 },
          { HOST_BIND, 5, 9 }, { RESET, 0, 0, -EPERM }, { RESET, 3, 0, -ESRCH },
          { STATUS, DOMID_SELF, 1, 0, EVTCHNSTAT_ipi }, { RESET, DOMID_SELF },
          { CLOSE, 1, 0, -EINVAL },
          { CLOSE, 3, 0, -EINVAL }, { CLOSE, 5, 0, -EINVAL }, { RESET, GUEST_DOMID },
          { VIRQ, 0, 0, 0, 1 });
}

static void priorities_and_arrays_come_with_the_fifo_abi(void **state)
{
    CHECK({ IPI, 0, 0, 0, 1 }, { PRIORITY, 1, 3, -ENOSYS }, { PRIORITY, 999999, 3, -EINVAL },
          { PRIORITY, 0, 3, -ENOSYS }, { EXPAND, 0, 0, -EOPNOTSUPP }, { CONTROL, 4, 0, -ENOENT },
          { CONTROL }, { CONTROL, 0, 0, -EINVAL }, { PRIORITY, 1, 3 }, { PRIORITY, 1, 16, -EINVAL },
          { PRIORITY, 0, 3, -EACCES }, { PRIORITY, 2, 16, -EACCES }, { EXPAND },
          { RESET, DOMID_SELF }, { EXPAND, 0, 0, -EOPNOTSUPP }, { IPI, 0, 0, 0, 1 },
          { PRIORITY, 1, 3, -ENOSYS }, { CONTROL }, { PRIORITY, 1, 3 });
}

/* Taken for the time a reset takes, which another vCPU's may overlap with. */
static void reset_during_a_reset_is_refused(void **state)
{
    struct guest *g = guest_create(1);

    g->d.resetting = true;
    rows_check(g, (const struct row[]){ { IPI, 0, 0, 0, 1 }, { RESET, DOMID_SELF, 0, -EBUSY },
                                        { SEND, 1 } }, 3);
    g->d.resetting = false;
    rows_check(g, (const struct row[]){ { RESET, DOMID_SELF }, { SEND, 1, 0, -EINVAL },
                                        { RESET, DOMID_SELF } }, 3);
    guest_free(g);
}

/* So many ports that it stops between: it is one reset all the same. */
static void reset_of_many_ports_goes_in_parts(void **state)
{
    struct guest *g = guest_create(1);
    const struct evtchn_reset op = { DOMID_SELF };
    struct evtchn_alloc_unbound a = { .dom = DOMID_SELF };

    for (unsigned i = 0; i < 4000; i++)
        assert_int_equal(evtchn_alloc_unbound(&g->d, &a), 0);
    assert_int_equal(evtchn_reset(&g->d, &op, true), -EBUSY);
    assert_int_equal(evtchn_reset(&g->d, &op, false), -ERESTART);
    assert_int_equal(guest_state(g, 1), EVTCHN_STATE_FREE);
    assert_int_equal(guest_state(g, 4000), EVTCHN_STATE_UNBOUND);
    assert_int_equal(evtchn_reset(&g->d, &op, false), -EBUSY);
    assert_int_equal(evtchn_reset(&g->d, &op, true), 0);
    assert_int_equal(guest_state(g, 4000), EVTCHN_STATE_FREE);
    assert_int_equal(g->d.nr_ports_used, 0);
    assert_int_equal(evtchn_reset(&g->d, &op, true), -EBUSY);
    assert_int_equal(evtchn_reset(&g->d, &op, false), 0);
    guest_free(g);
}

static void host_connects_only_to_ports_waiting_for_it(void **state)
{
    CHECK({ ALLOC_UNBOUND, DOMID_SELF, 0, 0, 1 }, { ALLOC_UNBOUND, DOMID_SELF, 5, 0, 2 },
          { IPI, 0, 0, 0, 3 }, { HOST_BIND, 0, 9, -EINVAL }, { HOST_BIND, 2, 9, -EINVAL },
          { HOST_BIND, 3, 9, -EINVAL }, { HOST_BIND, 4, 9, -EINVAL },
          { HOST_BIND, 999999, 9, -EINVAL }, { HOST_EVENT, 1, 0, -EINVAL }, { HOST_BIND, 1, 9 },
          { HOST_BIND, 1, 10, -EINVAL }, { HOST_EVENT, 1 }, { HOST_EVENT, 3, 0, -EINVAL },
          { INTERDOMAIN, DOMID_SELF, 1, -EINVAL });
}

static void host_unbind_leaves_the_port_waiting(void **state)
{
    CHECK({ ALLOC_UNBOUND, DOMID_SELF, 0, 0, 1 }, { HOST_UNBIND, 1, 9, -EINVAL },
          { HOST_BIND, 1, 9 }, { HOST_UNBIND, 1, 10, -EINVAL }, { HOST_UNBIND, 1, 9 },
          { STATUS, DOMID_SELF, 1, 0, EVTCHNSTAT_unbound }, { HOST_EVENT, 1, 0, -EINVAL },
          { SEND, 1 }, { HOST_BIND, 1, 10 }, { CLOSE, 1 }, { HOST_UNBIND, 1, 10, -EINVAL });
}

static void guest_closing_tells_the_host_once(void **state)
{
    struct guest *g = guest_create(1);
    const struct row rows[] = {
        { ALLOC_UNBOUND, DOMID_SELF, 0, 0, 1 }, { HOST_BIND, 1, 9 }, { CLOSE, 1 },
        { CLOSE, 1, 0, -EINVAL }, { ALLOC_UNBOUND, DOMID_SELF, 0, 0, 1 }, { HOST_BIND, 1, 10 },
        { RESET, DOMID_SELF },
    };

    rows_check(g, rows, array_size(rows));
    assert_int_equal(g->host_closes[9], 1);
    assert_int_equal(g->host_closes[10], 1);
    guest_free(g);
}

static void host_learns_where_the_guest_wants_its_events(void **state)
{
    struct guest *g = guest_create(4);
    const struct row rows[] = {
        { ALLOC_UNBOUND, DOMID_SELF, 0, 0, 1 }, { VCPU, 1, 2 }, { HOST_BIND, 1, 9 },
    };
    const struct row move = { VCPU, 1, 3 };

    rows_check(g, rows, array_size(rows));
    assert_int_equal(g->host_vcpu[9], 2);
    rows_check(g, &move, 1);
    assert_int_equal(g->host_vcpu[9], 3);
    guest_free(g);
}

static void reserved_host_port_is_exactly_that_port(void **state)
{
    struct guest *g = guest_create(1);
    struct evtchn_status st = { .dom = DOMID_SELF, .port = 2 };

    assert_int_equal(evtchn_reserve_host(&g->d, 2, 1), 0);
    g->link_port[1] = 2;
    assert_int_equal(evtchn_reserve_host(&g->d, 2, 3), -EBUSY);
    assert_int_equal(evtchn_reserve_host(&g->d, 0, 3), -EBUSY);
    assert_int_equal(evtchn_reserve_host(&g->d, 4096, 3), -ENOSPC);
    guest_check(g);
    assert_int_equal(evtchn_status(&g->d, &st), 0);
    assert_int_equal(st.status, EVTCHNSTAT_interdomain);
    assert_int_equal(st.u.interdomain.dom, 0);
    assert_int_equal(st.u.interdomain.port, 2);
    rows_check(g, (const struct row[]){ { IPI, 0, 0, 0, 1 }, { IPI, 0, 0, 0, 3 } }, 2);
    guest_free(g);
}

static void all_4095_ports_can_be_open_and_no_more(void **state)
{
    struct guest *g = guest_create(2);
    struct evtchn_bind_ipi ipi = { .vcpu = 1 };
    const struct row full[] = {
        { IPI, 0, 0, -ENOSPC }, { ALLOC_UNBOUND, DOMID_SELF, 0, -ENOSPC },
        { VIRQ, 0, 0, -ENOSPC }, { INTERDOMAIN, DOMID_SELF, 1, -ENOSPC },
        { CLOSE, 2048 }, { VIRQ, 0, 0, 0, 2048 }, { IPI, 0, 0, -ENOSPC },
    };

    for (uint32_t port = 1; port < 4096; port++) {
        assert_int_equal(evtchn_bind_ipi(&g->d, &ipi), 0);
        assert_int_equal(ipi.port, port);
    }
    for (uint32_t port = 1; port < 4096; port++) {
        struct evtchn_send send = { .port = port };

        assert_int_equal(evtchn_send(&g->d, &send), 0);
        assert_int_equal(evtchn_port_pending(&g->d, port), 1);
    }
    assert_int_equal(g->shared->vcpu_info[1].evtchn_pending_sel, ~0ul);
    assert_int_equal(g->kicks[1], 1);
    rows_check(g, full, array_size(full));
    rows_check(g, (const struct row[]){ { RESET, DOMID_SELF }, { IPI, 0, 0, 0, 1 } }, 2);
    guest_free(g);
}

static void port_limit_of_the_domain_is_kept(void **state)
{
    struct guest *g = guest_create(1);

    g->d.nr_ports_limit = 3;
    rows_check(g, (const struct row[]){ { IPI, 0, 0, 0, 1 }, { IPI, 0, 0, 0, 2 },
                                        { IPI, 0, 0, -ENOSPC }, { CLOSE, 1 },
                                        { IPI, 0, 0, 0, 1 } }, 5);
    guest_free(g);
}

static void no_page_left_fails_the_call_and_nothing_else(void **state)
{
    struct guest *g = guest_create(1);

    g->nr_pages_max = 1;
    for (uint32_t port = 1; port < EVTCHN_PORTS_PER_PAGE; port++)
        rows_check(g, &(const struct row){ IPI, 0, 0, 0, port }, 1);
    rows_check(g, (const struct row[]){ { IPI, 0, 0, -ENOMEM }, { CLOSE, 5 },
                                        { IPI, 0, 0, 0, 5 }, { IPI, 0, 0, -ENOMEM } }, 4);
    g->nr_pages_max = 2;
    rows_check(g, &(const struct row){ IPI, 0, 0, 0, EVTCHN_PORTS_PER_PAGE }, 1);
    guest_free(g);
}

static void domain_needs_1_to_64_vcpus(void **state)
{
    struct guest *g = guest_create(1);

    assert_int_equal(evtchn_domain_init(&g->d, &guest_ops, g, g->shared, 0, 1), -EINVAL);
    assert_int_equal(evtchn_domain_init(&g->d, &guest_ops, g, g->shared, 65, 1), -EINVAL);
    guest_free(g);
}

static void every_command_has_a_shape_and_an_answer(void **state)
{
    struct guest *g = guest_create(1);

    for (unsigned cmd = 0; cmd <= EVTCHNOP_RESET_CONT; cmd++) {
        uint64_t arg[EVTCHN_OP_ARG_BYTES_MAX / 8] = { UINT64_MAX, UINT64_MAX, UINT64_MAX };
        const struct evtchn_op_shape *shape = evtchn_op_shape(cmd);

        assert_non_null(shape);
        assert_in_range(shape->arg_bytes, 2, EVTCHN_OP_ARG_BYTES_MAX);
        assert_true(evtchn_op_call(&g->d, cmd, arg) < 0);
    }
    assert_null(evtchn_op_shape(EVTCHNOP_RESET_CONT + 1));
    assert_int_equal(evtchn_op_call(&g->d, EVTCHNOP_RESET_CONT + 1, NULL), -ENOSYS);
    guest_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_free_port_is_given_first),
        cmocka_unit_test(alloc_unbound_only_in_own_domain),
        cmocka_unit_test(loopback_needs_a_port_waiting_for_the_domain),
        cmocka_unit_test(closing_one_end_leaves_the_other_unbound),
        cmocka_unit_test(virq_is_bound_once),
        cmocka_unit_test(moved_global_virq_can_be_bound_again_after_close),
        cmocka_unit_test(ipi_needs_an_existing_vcpu),
        cmocka_unit_test(pirq_is_refused_as_to_any_unprivileged_domain),
        cmocka_unit_test(bind_vcpu_only_for_ports_that_may_move),
        cmocka_unit_test(close_refuses_what_is_not_open),
        cmocka_unit_test(send_refuses_what_cannot_send),
        cmocka_unit_test(status_only_of_own_ports),
        cmocka_unit_test(unmask_accepts_any_port_that_has_a_record),
        cmocka_unit_test(reset_closes_everything_of_the_own_domain),
        cmocka_unit_test(priorities_and_arrays_come_with_the_fifo_abi),
        cmocka_unit_test(reset_during_a_reset_is_refused),
        cmocka_unit_test(host_connects_only_to_ports_waiting_for_it),
        cmocka_unit_test(host_unbind_leaves_the_port_waiting),
        cmocka_unit_test(guest_closing_tells_the_host_once),
        cmocka_unit_test(host_learns_where_the_guest_wants_its_events),
        cmocka_unit_test(reserved_host_port_is_exactly_that_port),
        cmocka_unit_test(all_4095_ports_can_be_open_and_no_more),
        cmocka_unit_test(port_limit_of_the_domain_is_kept),
        cmocka_unit_test(no_page_left_fails_the_call_and_nothing_else),
        cmocka_unit_test(domain_needs_1_to_64_vcpus),
        cmocka_unit_test(reset_of_many_ports_goes_in_parts),
        cmocka_unit_test(every_command_has_a_shape_and_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
