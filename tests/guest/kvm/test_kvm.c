/* SPDX-License-Identifier: MIT */
/* VMs, vCPUs, doorbells and interrupts on a real /dev/kvm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kvm/probe.h"
#include "machine.h"

#define MSR_IA32_TSC 0x10

/* --- doorbells and ports --- */

static void test_doorbell_signals_its_eventfd_and_nothing_else(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);
    uint64_t rung = 0;
    struct report r;

    machine_build(m, 1, guest_doorbell);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, DOORBELL_VALUE), 0);
    machine_start(m);
    machine_expect(m, 0, PORT_DOORBELL, DOORBELL_VALUE + 1);
    r = machine_next_report(m);
    assert_int_equal(r.port, PORT_DOORBELL);
    assert_int_equal(r.size_bytes, 1);
    machine_expect(m, 0, PORT_END, 0);
    assert_int_equal(read(fd, &rung, sizeof(rung)), sizeof(rung));
    assert_int_equal(rung, 1);
    close(fd);
}

static void test_removed_doorbell_exits(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    machine_build(m, 1, guest_doorbell);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, DOORBELL_VALUE), 0);
    assert_int_equal(kvm_ioeventfd_remove(m->vm, fd, PORT_DOORBELL, DOORBELL_VALUE), 0);
    machine_start(m);
    machine_expect(m, 0, PORT_DOORBELL, DOORBELL_VALUE);
    assert_false(machine_fd_readable(fd, 0));
    close(fd);
}

static void test_taken_doorbell_is_refused(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    machine_build(m, 1, guest_doorbell);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, 1), 0);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, 2), 0);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, 1), -EEXIST);
    close(fd);
}

static void test_port_accesses_keep_size_and_order(void **state)
{
    struct machine *m = *state;
    uint32_t string[3] = { 0xa1, 0xb2, 0xc3 };

    machine_build(m, 1, guest_ports);
    memcpy(machine_word(m, 0), string, sizeof(string));
    machine_start(m);
    machine_expect(m, 0, PORT_REPORT, 0xffffff44);
    machine_expect(m, 0, PORT_REPORT, 0xffff3344);
    machine_expect(m, 0, PORT_REPORT, 0x11223344);
    machine_expect(m, 0, PORT_REPORT, 0xa1);
    machine_expect(m, 0, PORT_REPORT, 0xb2);
    machine_expect(m, 0, PORT_REPORT, 0xc3);
    machine_expect(m, 0, PORT_END, 0);
}

static void test_exits_are_counted_by_reason(void **state)
{
    struct machine *m = *state;
    struct kvm_exit_counts c;

    machine_build(m, 1, guest_ports);
    machine_start(m);
    while (machine_next_report(m).port != PORT_END)
        ;
    kvm_vcpu_threads_pause(m->threads);
    kvm_vcpu_exit_counts(m->vcpu[0], &c);
    assert_int_equal(c.io_in, 3);
    assert_true(c.io_out >= 5);
    assert_int_equal(c.mmio, 0);
}

/* --- interrupts --- */

static void test_irqfd_interrupts_the_halted_vcpu_of_its_route(void **state)
{
    struct machine *m = *state;
    const struct kvm_irq_route routes[] = {
        { .gsi = 5, .apic_id = 0, .vector = VECTOR_A },
        { .gsi = 900, .apic_id = 1, .vector = VECTOR_B },
    };
    int fd[2] = { eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK) };

    machine_build(m, 2, guest_wait);
    assert_int_equal(kvm_irqfd_add(m->vm, fd[0], 5), 0);
    assert_int_equal(kvm_irq_routes_set(m->vm, routes, 2), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, fd[1], 900), 0);
    machine_start(m);
    machine_next_report(m);
    machine_next_report(m);
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(eventfd_write(fd[1], 1), 0);
        machine_expect(m, 1, PORT_REPORT, VECTOR_B);
        assert_int_equal(eventfd_write(fd[0], 1), 0);
        machine_expect(m, 0, PORT_REPORT, VECTOR_A);
    }
    close(fd[0]);
    close(fd[1]);
}

static void test_route_can_be_changed_while_the_guest_runs(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    machine_build(m, 2, guest_wait);
    assert_int_equal(kvm_irq_route_set(m->vm, 0, 0, VECTOR_A), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, fd, 0), 0);
    machine_start(m);
    machine_next_report(m);
    machine_next_report(m);
    assert_int_equal(eventfd_write(fd, 1), 0);
    machine_expect(m, 0, PORT_REPORT, VECTOR_A);
    assert_int_equal(kvm_irq_route_set(m->vm, 0, 1, VECTOR_B), 0);
    assert_int_equal(eventfd_write(fd, 1), 0);
    machine_expect(m, 1, PORT_REPORT, VECTOR_B);
    close(fd);
}

static void test_removed_irqfd_is_silent(void **state)
{
    struct machine *m = *state;
    int a = eventfd(0, EFD_NONBLOCK), b = eventfd(0, EFD_NONBLOCK);

    machine_build(m, 1, guest_wait);
    assert_int_equal(kvm_irq_route_set(m->vm, 1, 0, VECTOR_A), 0);
    assert_int_equal(kvm_irq_route_set(m->vm, 2, 0, VECTOR_B), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, a, 1), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, b, 2), 0);
    machine_start(m);
    machine_next_report(m);
    assert_int_equal(kvm_irqfd_remove(m->vm, a, 1), 0);
    assert_int_equal(eventfd_write(a, 1), 0);
    assert_int_equal(eventfd_write(b, 1), 0);
    machine_expect(m, 0, PORT_REPORT, VECTOR_B);
    close(a);
    close(b);
}

static void test_impossible_routes_are_refused(void **state)
{
    struct machine *m = *state;
    const struct kvm_irq_route routes[] = {
        { .gsi = 1, .apic_id = 0, .vector = VECTOR_A },
        { .gsi = 2, .apic_id = 0, .vector = 15 },
    };

    machine_build(m, 1, guest_wait);
    assert_int_equal(kvm_irq_routes_set(m->vm, routes, 2), -EINVAL);
    assert_int_equal(kvm_irq_route_set(m->vm, 1u << 20, 0, VECTOR_A), -EINVAL);
    assert_int_equal(kvm_irq_route_set(m->vm, 0, UINT32_MAX, VECTOR_A), -EINVAL);
    assert_int_equal(kvm_irqfd_add(m->vm, m->pipe[0], 1u << 20), -EINVAL);
}

static void test_tsc_deadline_timer_fires_after_its_time(void **state)
{
    struct machine *m = *state;
    uint32_t khz = 0;
    struct report r;

    machine_build(m, 1, guest_timer);
    assert_int_equal(kvm_vcpu_get_tsc_khz(m->vcpu[0], &khz), 0);
    assert_true(khz > 0);
    machine_start(m);
    r = machine_next_report(m);
    assert_int_equal(r.port, PORT_REPORT);
    assert_true((int32_t)r.data >= 0);
    machine_expect(m, 0, PORT_END, 0);
}

/* As after a KVM that was loaded before its kernel knew the TSC's rate. */
static void test_vcpus_have_the_hosts_rate_whatever_their_vm_began_with(void **state)
{
    struct machine *m = *state, *before = machine_new();
    uint32_t host_khz = 0, khz = 0;
    uint64_t began = 0, ended = 0;

    machine_build(before, 1, guest_timer);
    assert_int_equal(kvm_vcpu_get_tsc_khz(before->vcpu[0], &host_khz), 0);
    machine_free(before);
    m->vm_tsc_khz = host_khz / 2;
    machine_build(m, 1, guest_timer);
    assert_int_equal(kvm_vcpu_get_tsc_khz(m->vcpu[0], &khz), 0);
    assert_int_equal(khz, host_khz);
    assert_int_equal(kvm_vcpu_get_msr(m->vcpu[0], MSR_IA32_TSC, &began), 0);
    machine_sleep_us(10000);
    assert_int_equal(kvm_vcpu_get_msr(m->vcpu[0], MSR_IA32_TSC, &ended), 0);
    assert_true(ended - began >= 10 * (uint64_t)host_khz * 3 / 4);
}

/* --- failures --- */

static void expect_failure(struct machine *m, const char *what)
{
    assert_int_equal(machine_next_report(m).port, 0);
    if (!strstr(m->failure, what))
        fail_msg("\"%s\" is not in the text above", what);
}

/* SVM keeps no registers of a triple fault; elsewhere they must be there. */
static void test_triple_fault_is_a_failure_with_registers_and_code(void **state)
{
    struct machine *m = *state;
    struct kvm_probe probe;
    struct kvm_sregs sregs;
    char rip[64];

    machine_build(m, 1, guest_ud2);
    assert_int_equal(kvm_vcpu_get_sregs(m->vcpu[0], &sregs), 0);
    sregs.idt.limit = 0;
    assert_int_equal(kvm_vcpu_set_sregs(m->vcpu[0], &sregs), 0);
    machine_start(m);
    kvm_probe(&probe);
    if (probe.cpu.svm) {
        expect_failure(m, "vCPU 0: triple fault; this processor keeps no registers");
        return;
    }
    expect_failure(m, "vCPU 0: triple fault\n");
    snprintf(rip, sizeof(rip), "rip 0008:%016llx", (unsigned long long)machine_address(guest_ud2));
    assert_non_null(strstr(m->failure, rip));
    assert_non_null(strstr(m->failure, "code 0f 0b"));
}

static void test_access_to_nothing_is_a_failure_with_its_address(void **state)
{
    struct machine *m = *state;
    struct kvm_exit_counts c;

    machine_build(m, 1, guest_mmio);
    machine_start(m);
    expect_failure(m, "write of 4 bytes at guest-physical 0xc0001000");
    assert_non_null(strstr(m->failure, "data 78 56 34 12"));
    kvm_vcpu_exit_counts(m->vcpu[0], &c);
    assert_int_equal(c.mmio, 1);
}

static void test_describe_fits_any_buffer(void **state)
{
    struct machine *m = *state;
    char text[300];

    machine_build(m, 1, guest_spin);
    for (size_t size = 1; size <= sizeof(text); size += 23)
        assert_true(strlen(kvm_vcpu_describe(m->vcpu[0], text, size)) < size);
}

/* --- state and creation --- */

static void test_msrs_read_back(void **state)
{
    struct machine *m = *state;
    const uint32_t lstar = 0xc0000082;
    uint64_t value = 0;

    machine_build(m, 1, guest_spin);
    assert_int_equal(kvm_vcpu_set_msr(m->vcpu[0], lstar, 0xffff800000001234), 0);
    assert_int_equal(kvm_vcpu_get_msr(m->vcpu[0], lstar, &value), 0);
    assert_int_equal(value, 0xffff800000001234);
    assert_int_equal(kvm_vcpu_get_msr(m->vcpu[0], 0x4badbad0, &value), -ENOENT);
    assert_int_equal(kvm_vcpu_set_msr(m->vcpu[0], 0x4badbad0, 1), -ENOENT);
}

static void test_xcr0_needs_x87(void **state)
{
    struct machine *m = *state;

    machine_build(m, 1, guest_spin);
    assert_int_equal(kvm_vcpu_set_xcr0(m->vcpu[0], 3), 0);
    assert_int_equal(kvm_vcpu_set_xcr0(m->vcpu[0], 2), -EINVAL);
}

static void test_two_machines_do_not_meet(void **state)
{
    struct machine *m = *state, *other = machine_new();

    machine_build(m, 1, guest_wait);
    machine_build(other, 1, guest_doorbell);
    machine_start(m);
    machine_start(other);
    machine_expect(m, 0, PORT_REPORT, 0);
    machine_expect(other, 0, PORT_DOORBELL, DOORBELL_VALUE);
    machine_free(other);
    assert_false(machine_fd_readable(m->pipe[0], 10));
}

static int create_vm(struct machine *m, uint64_t own, unsigned nr_vcpus)
{
    struct kvm_vm_params params = { .mem = &m->mem, .own = gpa(own), .nr_vcpus = nr_vcpus };
    struct err e = { 0 };
    int ret = kvm_vm_create(&params, &m->vm, &e);

    assert_int_equal(ret, -e.code);
    return ret;
}

static void test_own_pages_in_a_bad_place_are_refused(void **state)
{
    struct machine *m = *state;
    struct err e = { 0 };

    assert_int_equal(guest_mem_add(&m->mem, gpa(GIB), MIB, "test", false, &e), 0);
    assert_int_equal(create_vm(m, 4 * GIB, 1), -EINVAL);
    assert_int_equal(create_vm(m, 4 * GIB - PAGE_SIZE, 1), -EINVAL);
    assert_int_equal(create_vm(m, OWN_PAGES + 1, 1), -EINVAL);
    assert_int_equal(create_vm(m, GIB - PAGE_SIZE, 1), -EINVAL);
    assert_int_equal(create_vm(m, GIB + MIB - PAGE_SIZE, 1), -EINVAL);
    assert_null(m->vm);
}

static void test_absurd_vcpu_counts_are_refused(void **state)
{
    struct machine *m = *state;
    struct kvm_vcpu *v;
    struct err e = { 0 };

    assert_int_equal(create_vm(m, OWN_PAGES, 1000000), -EINVAL);
    assert_int_equal(create_vm(m, OWN_PAGES, 1), 0);
    assert_int_equal(kvm_vcpu_create(m->vm, 1, &v, &e), -EINVAL);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, machine_setup, machine_teardown)
    const struct CMUnitTest tests[] = {
        T(test_doorbell_signals_its_eventfd_and_nothing_else),
        T(test_removed_doorbell_exits),
        T(test_taken_doorbell_is_refused),
        T(test_port_accesses_keep_size_and_order),
        T(test_exits_are_counted_by_reason),
        T(test_irqfd_interrupts_the_halted_vcpu_of_its_route),
        T(test_route_can_be_changed_while_the_guest_runs),
        T(test_removed_irqfd_is_silent),
        T(test_impossible_routes_are_refused),
        T(test_tsc_deadline_timer_fires_after_its_time),
        T(test_vcpus_have_the_hosts_rate_whatever_their_vm_began_with),
        T(test_triple_fault_is_a_failure_with_registers_and_code),
        T(test_access_to_nothing_is_a_failure_with_its_address),
        T(test_describe_fits_any_buffer),
        T(test_msrs_read_back),
        T(test_xcr0_needs_x87),
        T(test_two_machines_do_not_meet),
        T(test_own_pages_in_a_bad_place_are_refused),
        T(test_absurd_vcpu_counts_are_refused),
    };
    int status = machine_kvm_status();

    return status ? status : cmocka_run_group_tests(tests, NULL, NULL);
}
