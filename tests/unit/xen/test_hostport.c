/* SPDX-License-Identifier: MIT */
/* The host's end of an event channel: when it raises an interrupt, and when not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "xen/hostport.h"

#define VCPU 1

struct fixture {
    struct xen_hostlink link;
    struct xen_hostwaker waker[2];
    struct xen_hostport port;
    struct xen_hostload load;
};

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){ .link.vcpu = VCPU };
    f.port = (struct xen_hostport){
        .kick_fd = -1, .irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), .link = &f.link,
        .wakers = f.waker, .nr_wakers = 2,
    };
    *state = &f;
    return f.port.irq_fd < 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    return close(f->port.irq_fd);
}

static uint64_t interrupts(const struct fixture *f)
{
    uint64_t n;

    return read(f->port.irq_fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void a_halted_vcpu_is_interrupted_at_once(void **state)
{
    struct fixture *f = *state;

    f->waker[VCPU].state = XEN_HOSTWAKER_HALTED;
    assert_int_equal(xen_hostport_send(&f->port, true), XEN_HOSTPORT_RAISED);
    assert_int_equal(f->link.pending, 1);
    assert_int_equal(interrupts(f), 1);
}

static void a_polling_vcpu_is_not_interrupted(void **state)
{
    struct fixture *f = *state;

    f->waker[VCPU].state = XEN_HOSTWAKER_POLLING;
    assert_int_equal(xen_hostport_send(&f->port, false), XEN_HOSTPORT_SEEN);
    assert_int_equal(f->link.pending, 1);
    assert_int_equal(interrupts(f), 0);
}

static void the_vcpu_whose_thread_sends_needs_none(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xen_hostport_send_from(&f->port, false, VCPU), XEN_HOSTPORT_SEEN);
    assert_int_equal(f->link.pending, 1);
    assert_int_equal(f->waker[VCPU].attention, 1);
    assert_int_equal(interrupts(f), 0);
}

static void the_thread_of_another_interrupts_one_that_runs(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xen_hostport_send_from(&f->port, false, VCPU - 1), XEN_HOSTPORT_RAISED);
    assert_int_equal(interrupts(f), 1);
}

static void a_running_vcpu_is_owed_one(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xen_hostport_send(&f->port, true), XEN_HOSTPORT_OWED);
    assert_int_equal(f->waker[VCPU].attention, 1);
    assert_int_equal(f->waker[0].attention, 0);
    assert_int_equal(interrupts(f), 0);
    assert_int_equal(xen_hostport_raise_owed(&f->port), XEN_HOSTPORT_RAISED);
    assert_int_equal(interrupts(f), 1);
}

static void who_cannot_owe_interrupts_a_running_vcpu(void **state)
{
    struct fixture *f = *state;

    xen_hostport_notify(&f->port);
    assert_int_equal(interrupts(f), 1);
}

static void nothing_is_owed_once_the_guest_has_looked(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xen_hostport_send(&f->port, true), XEN_HOSTPORT_OWED);
    f->link.pending = 0;
    assert_int_equal(xen_hostport_raise_owed(&f->port), XEN_HOSTPORT_SEEN);
    assert_int_equal(interrupts(f), 0);
}

static void an_event_not_yet_taken_is_sent_once(void **state)
{
    struct fixture *f = *state;

    f->waker[VCPU].state = XEN_HOSTWAKER_HALTED;
    xen_hostport_notify(&f->port);
    assert_int_equal(xen_hostport_send(&f->port, true), XEN_HOSTPORT_SEEN);
    assert_int_equal(interrupts(f), 1);
}

/* The guest's side of the record is the guest's to fill with anything. */
static void nonsense_from_the_guest_only_costs_an_interrupt(void **state)
{
    struct fixture *f = *state;

    f->link.vcpu = UINT32_MAX;
    assert_int_equal(xen_hostport_send(&f->port, true), XEN_HOSTPORT_RAISED);
    assert_int_equal(xen_hostport_exit_ns(&f->port), 0);
    f->link = (struct xen_hostlink){ .vcpu = VCPU };
    f->waker[VCPU].state = 99;
    assert_int_equal(xen_hostport_send(&f->port, true), XEN_HOSTPORT_RAISED);
    assert_int_equal(interrupts(f), 2);
}

static void crowd_of_vcpus(struct fixture *f, unsigned host_cpus)
{
    f->load = (struct xen_hostload){ .host_cpus = host_cpus, .nr_links = 1 };
    f->port.load = &f->load;
    f->port.links = &f->link;
    f->waker[0].state = f->waker[VCPU].state = XEN_HOSTWAKER_RUNNING;
}

static void the_caller_counts_once_marked_or_not(void **state)
{
    struct fixture *f = *state;

    crowd_of_vcpus(f, 3);
    assert_false(xen_hostport_crowded(&f->port));
    xen_hostport_awake(&f->port);
    assert_false(xen_hostport_crowded(&f->port));
    crowd_of_vcpus(f, 2);
    assert_true(xen_hostport_crowded(&f->port));
    xen_hostport_asleep(&f->port);
    assert_true(xen_hostport_crowded(&f->port));
}

static void a_port_without_load_is_in_no_crowd(void **state)
{
    struct fixture *f = *state;

    crowd_of_vcpus(f, 1);
    f->port.load = NULL;
    assert_false(xen_hostport_crowded(&f->port));
}

static void waking_is_told_to_the_shim(void **state)
{
    struct fixture *f = *state;

    f->link.turns = UINT32_MAX;
    xen_hostport_woken(&f->port);
    assert_int_equal(f->link.turns, 0);
}

static void the_callers_processor_is_known_where_the_kernel_says_it(void **state)
{
    struct fixture *f = *state;
    const uint32_t cpu = 5;
    const uint32_t *const cpus[2] = { NULL, &cpu };

    assert_int_equal(xen_hostport_caller_cpu(&f->port), -1);
    f->port.cpus = cpus;
    f->link.caller = 1;
    assert_int_equal(xen_hostport_caller_cpu(&f->port), 5);
    f->link.caller = 0;         /* whose thread's processor is not known */
    assert_int_equal(xen_hostport_caller_cpu(&f->port), -1);
    f->link.caller = 2;         /* there is no such vCPU */
    assert_int_equal(xen_hostport_caller_cpu(&f->port), -1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_halted_vcpu_is_interrupted_at_once),
        TEST(a_polling_vcpu_is_not_interrupted),
        TEST(the_vcpu_whose_thread_sends_needs_none),
        TEST(the_thread_of_another_interrupts_one_that_runs),
        TEST(a_running_vcpu_is_owed_one),
        TEST(who_cannot_owe_interrupts_a_running_vcpu),
        TEST(nothing_is_owed_once_the_guest_has_looked),
        TEST(an_event_not_yet_taken_is_sent_once),
        TEST(nonsense_from_the_guest_only_costs_an_interrupt),
        TEST(the_caller_counts_once_marked_or_not),
        TEST(a_port_without_load_is_in_no_crowd),
        TEST(waking_is_told_to_the_shim),
        TEST(the_callers_processor_is_known_where_the_kernel_says_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
