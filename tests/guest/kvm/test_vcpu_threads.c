/* SPDX-License-Identifier: MIT */
/* Starting, pausing and stopping vCPUs that really run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/atomic.h"
#include "machine.h"
#include "place/thread.h"

static void test_threads_start_parked(void **state)
{
    struct machine *m = *state;
    struct err e = { 0 };

    machine_build(m, 1, guest_spin);
    assert_int_equal(kvm_vcpu_threads_start(m->vcpu, 1, &machine_exit_ops, m, &m->threads, &e), 0);
    machine_sleep_us(20000);
    assert_int_equal(*machine_word(m, 0), 0);
    kvm_vcpu_threads_resume(m->threads);
    while (!load_relaxed(machine_word(m, 0)))
        machine_sleep_us(1000);
}

static void test_no_guest_code_runs_while_paused(void **state)
{
    struct machine *m = *state;

    machine_build(m, 2, guest_spin);
    machine_start(m);
    for (unsigned round = 0; round < 100; round++) {
        uint64_t before[2];

        kvm_vcpu_threads_pause(m->threads);
        before[0] = load_relaxed(machine_word(m, 0));
        before[1] = load_relaxed(machine_word(m, 1));
        machine_sleep_us(200);
        assert_int_equal(load_relaxed(machine_word(m, 0)), before[0]);
        assert_int_equal(load_relaxed(machine_word(m, 1)), before[1]);
        kvm_vcpu_threads_resume(m->threads);
        while (load_relaxed(machine_word(m, 0)) == before[0] ||
               load_relaxed(machine_word(m, 1)) == before[1])
            machine_sleep_us(50);
    }
}

static void test_pause_at_any_point_loses_no_port_access(void **state)
{
    struct machine *m = *state;
    uint32_t asked = 0;

    m->quiet = true;
    machine_build(m, 2, guest_chatter);
    machine_start(m);
    for (unsigned round = 0; round < 200; round++) {
        kvm_vcpu_threads_pause(m->threads);
        /* A save and restore: what KVM still owed the registers would be lost. */
        for (unsigned id = 0; id < 2; id++) {
            struct kvm_regs regs;

            assert_int_equal(kvm_vcpu_get_regs(m->vcpu[id], &regs), 0);
            assert_int_equal(kvm_vcpu_set_regs(m->vcpu[id], &regs), 0);
        }
        asked = m->asked[0];
        kvm_vcpu_threads_resume(m->threads);
        if (round % 2)
            machine_sleep_us(round * 5);
    }
    while (load_relaxed(&m->asked[0]) <= asked)
        machine_sleep_us(1000);
    kvm_vcpu_threads_pause(m->threads);
    assert_true(m->asked[0] > 0 && m->asked[1] > 0);
    assert_int_equal(m->nr_wrong[0], 0);
    assert_int_equal(m->nr_wrong[1], 0);
}

static void test_pause_wakes_a_halted_vcpu_and_leaves_it_halted(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    machine_build(m, 1, guest_wait);
    assert_int_equal(kvm_irq_route_set(m->vm, 1, 0, VECTOR_A), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, fd, 1), 0);
    machine_start(m);
    machine_next_report(m);
    for (unsigned round = 0; round < 20; round++) {
        kvm_vcpu_threads_pause(m->threads);
        kvm_vcpu_threads_pause(m->threads);
        kvm_vcpu_threads_resume(m->threads);
        assert_int_equal(eventfd_write(fd, 1), 0);
        machine_expect(m, 0, PORT_REPORT, VECTOR_A);
    }
    close(fd);
}

static void test_interrupt_sent_during_a_pause_arrives_after_it(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    machine_build(m, 1, guest_wait);
    assert_int_equal(kvm_irq_route_set(m->vm, 1, 0, VECTOR_A), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, fd, 1), 0);
    machine_start(m);
    machine_next_report(m);
    kvm_vcpu_threads_pause(m->threads);
    assert_int_equal(eventfd_write(fd, 1), 0);
    assert_false(machine_fd_readable(m->pipe[0], 50));
    kvm_vcpu_threads_resume(m->threads);
    machine_expect(m, 0, PORT_REPORT, VECTOR_A);
    close(fd);
}

static void test_vcpu_that_left_stays_away(void **state)
{
    struct machine *m = *state;

    machine_build(m, 1, guest_doorbell);
    machine_start(m);
    while (machine_next_report(m).port != PORT_END)
        ;
    kvm_vcpu_threads_pause(m->threads);
    kvm_vcpu_threads_resume(m->threads);
    assert_false(machine_fd_readable(m->pipe[0], 50));
    kvm_vcpu_threads_pause(m->threads);
}

static void test_threads_can_be_stopped_and_started_again(void **state)
{
    struct machine *m = *state;

    machine_build(m, 2, guest_spin);
    for (unsigned round = 0; round < 5; round++) {
        uint64_t before = load_relaxed(machine_word(m, 1));

        machine_start(m);
        while (load_relaxed(machine_word(m, 1)) == before)
            machine_sleep_us(100);
        kvm_vcpu_threads_stop(m->threads);
        m->threads = NULL;
    }
}

static void test_cpu_time_of_a_busy_vcpu_grows(void **state)
{
    struct machine *m = *state;
    uint64_t first;

    machine_build(m, 1, guest_spin);
    machine_start(m);
    while (!load_relaxed(machine_word(m, 0)))
        machine_sleep_us(1000);
    first = kvm_vcpu_threads_cpu_time_ns(m->threads, 0);
    assert_true(first > 0);
    while (kvm_vcpu_threads_cpu_time_ns(m->threads, 0) < first + 1000000)
        machine_sleep_us(1000);
}

static void test_threads_are_named(void **state)
{
    struct machine *m = *state;
    char command[96];

    machine_build(m, 2, guest_spin);
    machine_start(m);
    while (!load_relaxed(machine_word(m, 0)) || !load_relaxed(machine_word(m, 1)))
        machine_sleep_us(1000);
    snprintf(command, sizeof(command), "grep -qx 'vcpu 1' /proc/%d/task/*/comm", (int)getpid());
    assert_int_equal(system(command), 0);
}

/* A processor of the host for each, where the C library lets it be known. */
static void test_threads_say_where_they_run(void **state)
{
    struct machine *m = *state;
    const uint32_t *const *cpus;

    if (!place_thread_cpu()) {
        print_message("the C library keeps no rseq area\n");
        skip();
    }
    machine_build(m, 2, guest_spin);
    machine_start(m);
    while (!load_relaxed(machine_word(m, 0)) || !load_relaxed(machine_word(m, 1)))
        machine_sleep_us(1000);
    cpus = kvm_vcpu_threads_cpus(m->threads);
    assert_ptr_not_equal(cpus[0], cpus[1]);
    for (unsigned i = 0; i < 2; i++) {
        assert_non_null(cpus[i]);
        assert_in_range(load_relaxed(cpus[i]), 0, (unsigned)sysconf(_SC_NPROCESSORS_CONF) - 1);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)
    const struct CMUnitTest tests[] = {
        T(test_threads_start_parked),
        T(test_no_guest_code_runs_while_paused),
        T(test_pause_at_any_point_loses_no_port_access),
        T(test_pause_wakes_a_halted_vcpu_and_leaves_it_halted),
        T(test_interrupt_sent_during_a_pause_arrives_after_it),
        T(test_vcpu_that_left_stays_away),
        T(test_threads_can_be_stopped_and_started_again),
        T(test_cpu_time_of_a_busy_vcpu_grows),
        T(test_threads_are_named),
        T(test_threads_say_where_they_run),
    };
    int status = machine_kvm_status();

    return status ? status : cmocka_run_group_tests(tests, NULL, NULL);
}
