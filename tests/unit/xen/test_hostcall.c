/* SPDX-License-Identifier: MIT */
/* Who serves an event channel of the host's, and that no call is lost on the way. */
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "xen/hostcall.h"

#define VCPU 3

struct fixture {
    struct xen_hostcall call;
    unsigned served, by;
    bool answer;                /* what serve() says */
    unsigned rings;             /* how often another vCPU calls while it serves */
    bool taken_back;            /* the device's thread wakes up meanwhile */
};

static bool serve(void *arg, unsigned vcpu)
{
    struct fixture *f = arg;

    f->served++;
    f->by = vcpu;
    if (f->rings) {
        f->rings--;
        assert_true(xen_hostcall_ring(&f->call, vcpu + 1));
        assert_true(xen_hostcall_ring(&f->call, vcpu + 2));
    }
    if (f->taken_back) {
        f->taken_back = false;
        assert_false(xen_hostcall_take_back(&f->call));
    }
    return f->answer;
}

static int setup(void **state)
{
    static struct fixture f;

    f = (struct fixture){ .call = { .serve = serve, .arg = &f }, .answer = true };
    *state = &f;
    return 0;
}

static void a_call_while_the_thread_works_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_false(xen_hostcall_ring(&f->call, VCPU));
    assert_int_equal(f->served, 0);
    assert_true(xen_hostcall_take_back(&f->call));
}

static void what_is_lent_is_served_by_whoever_calls(void **state)
{
    struct fixture *f = *state;

    xen_hostcall_lend(&f->call);
    assert_true(xen_hostcall_ring(&f->call, VCPU));
    assert_int_equal(f->served, 1);
    assert_int_equal(f->by, VCPU);
    assert_true(xen_hostcall_ring(&f->call, VCPU));
    assert_int_equal(f->served, 2);
}

static void what_is_taken_back_is_not(void **state)
{
    struct fixture *f = *state;

    xen_hostcall_lend(&f->call);
    assert_true(xen_hostcall_take_back(&f->call));
    assert_false(xen_hostcall_ring(&f->call, VCPU));
    assert_int_equal(f->served, 0);
}

static void a_caller_that_cannot_finish_asks_for_the_thread(void **state)
{
    struct fixture *f = *state;

    f->answer = false;
    xen_hostcall_lend(&f->call);
    assert_false(xen_hostcall_ring(&f->call, VCPU));
    assert_int_equal(f->served, 1);
    assert_true(xen_hostcall_take_back(&f->call));
}

static void a_call_meanwhile_makes_the_first_caller_look_again(void **state)
{
    struct fixture *f = *state;

    f->rings = 1;
    xen_hostcall_lend(&f->call);
    assert_true(xen_hostcall_ring(&f->call, VCPU));
    assert_int_equal(f->served, 2);
    assert_int_equal(f->by, VCPU);
    assert_int_equal(f->call.state, XEN_HOSTCALL_LENT);
}

static void a_thread_that_wakes_meanwhile_leaves_it_to_the_caller(void **state)
{
    struct fixture *f = *state;

    f->taken_back = true;
    xen_hostcall_lend(&f->call);
    assert_true(xen_hostcall_ring(&f->call, VCPU));
    assert_int_equal(f->served, 2);
    assert_true(xen_hostcall_take_back(&f->call));
}

static void calls_without_end_are_left_to_the_thread(void **state)
{
    struct fixture *f = *state;

    f->rings = 1000;
    xen_hostcall_lend(&f->call);
    assert_false(xen_hostcall_ring(&f->call, VCPU));
    assert_int_equal(f->served, XEN_HOSTCALL_ROUNDS_MAX);
    assert_true(xen_hostcall_take_back(&f->call));
}

#define CALLERS  3u
#define REQUESTS 200000u

/* Requests are made by several threads, served by them or by the owner's; the counters of
 * what was served are plain words, which only the protocol keeps whole. */
struct crowd {
    struct xen_hostcall call;
    uint32_t made;              /* atomic */
    uint32_t served, rounds;
    sem_t doorbell;
    unsigned callers_left;      /* atomic */
};

static bool crowd_serve(void *arg, unsigned vcpu)
{
    struct crowd *c = arg;

    c->served = load_acquire(&c->made);
    return ++c->rounds % 64 != 0;
}

static void *crowd_caller(void *arg)
{
    struct crowd *c = arg;

    for (unsigned i = 0; i < REQUESTS; i++) {
        fetch_add(&c->made, 1);
        if (!xen_hostcall_ring(&c->call, i % 8))
            sem_post(&c->doorbell);
    }
    fetch_add(&c->callers_left, -1u);
    sem_post(&c->doorbell);
    return NULL;
}

static void no_call_of_many_threads_is_lost(void **state)
{
    static struct crowd c;
    pthread_t thread[CALLERS];
    unsigned owned = 0;

    c = (struct crowd){ .call = { .serve = crowd_serve, .arg = &c }, .callers_left = CALLERS };
    sem_init(&c.doorbell, 0, 0);
    for (unsigned i = 0; i < CALLERS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, crowd_caller, &c), 0);
    while (load_acquire(&c.callers_left)) {
        xen_hostcall_lend(&c.call);
        do
            sem_wait(&c.doorbell);
        while (!xen_hostcall_take_back(&c.call));
        crowd_serve(&c, 0);
        owned++;
    }
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(thread[i], NULL);
    while (!sem_trywait(&c.doorbell))
        crowd_serve(&c, 0);
    /* whoever made the last one was served, or rang for the owner */
    assert_int_equal(c.served, CALLERS * REQUESTS);
    assert_true(owned > 0 && owned < c.rounds);
    sem_destroy(&c.doorbell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_call_while_the_thread_works_is_refused, setup),
        cmocka_unit_test_setup(what_is_lent_is_served_by_whoever_calls, setup),
        cmocka_unit_test_setup(what_is_taken_back_is_not, setup),
        cmocka_unit_test_setup(a_caller_that_cannot_finish_asks_for_the_thread, setup),
        cmocka_unit_test_setup(a_call_meanwhile_makes_the_first_caller_look_again, setup),
        cmocka_unit_test_setup(a_thread_that_wakes_meanwhile_leaves_it_to_the_caller, setup),
        cmocka_unit_test_setup(calls_without_end_are_left_to_the_thread, setup),
        cmocka_unit_test(no_call_of_many_threads_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
