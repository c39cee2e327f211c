/* SPDX-License-Identifier: MIT */
/* The kvm room on a real /dev/kvm, with guests of a few instructions.  Skipped
 * (exit status 77) where there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "guest.h"
#include "kvm/probe.h"
#include "kvm/vcpu.h"
#include "kvm/vcpu_threads.h"
#include "kvm/vm.h"

/* All guest memory is above 4 GiB, as Xenolith's guests have it. */
#define RAM        (4 * GIB)
#define RAM_BYTES  (2 * MIB)
#define CODE       (RAM + 0x0000)
#define PML4       (RAM + 0x1000)
#define PDPT       (RAM + 0x2000)
#define PD_RAM     (RAM + 0x3000)
#define PD_NOTHING (RAM + 0x4000)
#define IDT        (RAM + 0x5000)
#define GDT        (RAM + 0x6000)
#define WORDS      (RAM + 0x7000)
#define WORD_BYTES 64
#define STACKS     (RAM + 0x10000)
#define STACK_BYTES 0x1000

#define PTE_PRESENT_RW 0x3
#define PTE_LARGE      0x80
#define CODE_SELECTOR  0x08
#define DATA_SELECTOR  0x10

#define OWN_PAGES 0xfffbc000

/* How long to wait for something that must come: only a failing test waits so long. */
#define PATIENCE_MS 60000

#define NR_VCPUS_MAX 2

struct report {
    unsigned vcpu, size_bytes;
    uint16_t port;
    uint32_t data;
};

struct machine {
    struct guest_mem mem;
    struct kvm_vm *vm;
    struct kvm_vcpu *vcpu[NR_VCPUS_MAX];
    unsigned nr_vcpus;
    struct kvm_vcpu_threads *threads;
    int pipe[2];                        /* reports, from vCPU threads to the test */
    bool quiet;                         /* chatter: check answers, report nothing */
    uint32_t asked[NR_VCPUS_MAX];       /* numbers given to the guest; its thread's */
    uint32_t nr_wrong[NR_VCPUS_MAX];    /* reports that were not the last number given */
    char failure[4096];
};

static enum kvm_next on_out(void *arg, struct kvm_vcpu *v, uint16_t port, unsigned size_bytes,
                            uint32_t data)
{
    struct machine *m = arg;
    unsigned id = kvm_vcpu_id(v);
    struct report r = { .vcpu = id, .size_bytes = size_bytes, .port = port, .data = data };

    if (m->quiet) {
        if (data != m->asked[id])
            store_relaxed(&m->nr_wrong[id], m->nr_wrong[id] + 1);
        return KVM_NEXT_RUN;
    }
    if (write(m->pipe[1], &r, sizeof(r)) != sizeof(r))
        abort();
    return port == PORT_END ? KVM_NEXT_LEAVE : KVM_NEXT_RUN;
}

static uint32_t on_in(void *arg, struct kvm_vcpu *v, uint16_t port, unsigned size_bytes)
{
    struct machine *m = arg;
    unsigned id = kvm_vcpu_id(v);

    if (m->quiet) {
        store_relaxed(&m->asked[id], m->asked[id] + 1);
        return m->asked[id];
    }
    return 0x11223344;
}

/* Reports a failure as if it were a write to port 0; the text is there before. */
static void on_failure(void *arg, struct kvm_vcpu *v, const char *text)
{
    struct machine *m = arg;

    snprintf(m->failure, sizeof(m->failure), "%s", text);
    (void)on_out(arg, v, 0, 0, 0);
}

static const struct kvm_exit_ops ops = { .io_out = on_out, .io_in = on_in, .failure = on_failure };

static void sleep_us(unsigned us)
{
    struct timespec t = { .tv_nsec = (long)us * 1000 };

    nanosleep(&t, NULL);
}

static bool readable(int fd, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, timeout_ms) == 1;
}

static struct report next_report(struct machine *m)
{
    struct report r;

    if (!readable(m->pipe[0], PATIENCE_MS))
        fail_msg("the guest says nothing");
    assert_int_equal(read(m->pipe[0], &r, sizeof(r)), sizeof(r));
    if (!r.port)
        print_message("%s\n", m->failure);
    return r;
}

static void expect_report(struct machine *m, unsigned vcpu, uint16_t port, uint32_t data)
{
    struct report r = next_report(m);

    assert_int_equal(r.vcpu, vcpu);
    assert_int_equal(r.port, port);
    assert_int_equal(r.data, data);
}

static void put_u64(struct machine *m, uint64_t a, uint64_t value)
{
    assert_int_equal(guest_mem_write(&m->mem, gpa(a), &value, sizeof(value)), 0);
}

static uint64_t *word(struct machine *m, unsigned vcpu)
{
    return guest_mem_ptr(&m->mem, gpa(WORDS + vcpu * WORD_BYTES), 8);
}

static uint64_t address_of(const char *label)
{
    return CODE + (uint64_t)(label - guest_code);
}

static void put_gate(struct machine *m, unsigned vector, const char *handler)
{
    uint64_t a = address_of(handler);

    put_u64(m, IDT + vector * 16,
            (a & 0xffff) | CODE_SELECTOR << 16 | (uint64_t)0x8e00 << 32 | (a >> 16 & 0xffff) << 48);
    put_u64(m, IDT + vector * 16 + 8, a >> 32);
}

/* Code, page tables (RAM at its own address, and a page where nothing is), GDT
 * and IDT. */
static void build_memory(struct machine *m)
{
    struct err e = { 0 };
    size_t len = (size_t)(guest_code_end - guest_code);

    assert_int_equal(guest_mem_add(&m->mem, gpa(RAM), RAM_BYTES, "test", true, &e), 0);
    assert_true(len <= PAGE_SIZE);
    assert_int_equal(guest_mem_write(&m->mem, gpa(CODE), guest_code, len), 0);
    put_u64(m, PML4, PDPT | PTE_PRESENT_RW);
    put_u64(m, PDPT + 3 * 8, PD_NOTHING | PTE_PRESENT_RW);
    put_u64(m, PDPT + 4 * 8, PD_RAM | PTE_PRESENT_RW);
    put_u64(m, PD_RAM, RAM | PTE_PRESENT_RW | PTE_LARGE);
    put_u64(m, PD_NOTHING, align_down(NOTHING_ADDRESS, 2 * MIB) | PTE_PRESENT_RW | PTE_LARGE);
    put_u64(m, GDT + CODE_SELECTOR, 0x00af9b000000ffff);
    put_u64(m, GDT + DATA_SELECTOR, 0x00cf93000000ffff);
    put_gate(m, VECTOR_A, handler_a);
    put_gate(m, VECTOR_B, handler_b);
    put_gate(m, VECTOR_TIMER, handler_timer);
}

/* What KVM supports, with what it leaves out, for all vCPUs. */
static void set_cpuid(struct machine *m)
{
    struct kvm_cpuid_leaf *leaves;
    unsigned nr_leaves;
    struct err e = { 0 };

    assert_int_equal(kvm_vm_supported_cpuid(m->vm, &leaves, &nr_leaves, &e), 0);
    assert_true(nr_leaves > 0);
    for (unsigned id = 0; id < m->nr_vcpus; id++) {
        for (unsigned i = 0; i < nr_leaves; i++) {
            if (leaves[i].function == 1) {
                leaves[i].ecx |= 1u << 21 | 1u << 24;       /* x2APIC, TSC deadline */
                leaves[i].ebx = (leaves[i].ebx & 0xffffff) | id << 24;
            } else if (leaves[i].function == 0xb) {
                leaves[i].edx = id;
            }
        }
        assert_int_equal(kvm_vcpu_set_cpuid(m->vcpu[id], leaves, nr_leaves), 0);
    }
    free(leaves);
}

static void set_state(struct machine *m, unsigned id, const char *program)
{
    struct kvm_segment code = { .selector = CODE_SELECTOR, .limit = UINT32_MAX, .type = 0xb,
                                .present = 1, .s = 1, .l = 1, .g = 1 };
    struct kvm_segment data = { .selector = DATA_SELECTOR, .limit = UINT32_MAX, .type = 0x3,
                                .present = 1, .s = 1, .db = 1, .g = 1 };
    struct kvm_regs regs = { .rip = address_of(program), .rflags = 2,
                             .rsp = STACKS + (id + 1) * STACK_BYTES,
                             .rdi = WORDS + id * WORD_BYTES };
    struct kvm_sregs sregs;

    assert_int_equal(kvm_vcpu_get_sregs(m->vcpu[id], &sregs), 0);
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.gdt = (struct kvm_dtable){ .base = GDT, .limit = 0x17 };
    sregs.idt = (struct kvm_dtable){ .base = IDT, .limit = 0xfff };
    sregs.cr0 = 0x80010033;
    sregs.cr3 = PML4;
    sregs.cr4 = 0x620;
    sregs.efer = 0xd00;
    sregs.apic_base = id == 0 ? 0xfee00d00 : 0xfee00c00;     /* x2APIC mode */
    assert_int_equal(kvm_vcpu_set_sregs(m->vcpu[id], &sregs), 0);
    assert_int_equal(kvm_vcpu_set_regs(m->vcpu[id], &regs), 0);
    assert_int_equal(kvm_vcpu_set_runnable(m->vcpu[id]), 0);
}

static void build(struct machine *m, unsigned nr_vcpus, const char *program)
{
    struct kvm_vm_params params = { .mem = &m->mem, .own = gpa(OWN_PAGES), .nr_vcpus = nr_vcpus };
    struct err e = { 0 };

    build_memory(m);
    if (kvm_vm_create(&params, &m->vm, &e) < 0)
        fail_msg("%s", e.text);
    for (unsigned id = 0; id < nr_vcpus; id++) {
        if (kvm_vcpu_create(m->vm, id, &m->vcpu[id], &e) < 0)
            fail_msg("%s", e.text);
        m->nr_vcpus++;
    }
    set_cpuid(m);
    for (unsigned id = 0; id < nr_vcpus; id++)
        set_state(m, id, program);
}

static void start(struct machine *m)
{
    struct err e = { 0 };

    if (kvm_vcpu_threads_start(m->vcpu, m->nr_vcpus, &ops, m, &m->threads, &e) < 0)
        fail_msg("%s", e.text);
    kvm_vcpu_threads_resume(m->threads);
}

static void machine_free(struct machine *m)
{
    kvm_vcpu_threads_stop(m->threads);
    for (unsigned id = 0; id < m->nr_vcpus; id++)
        kvm_vcpu_free(m->vcpu[id]);
    kvm_vm_free(m->vm);
    guest_mem_free(&m->mem);
    close(m->pipe[0]);
    close(m->pipe[1]);
    free(m);
}

static struct machine *machine_new(void)
{
    struct machine *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    guest_mem_init(&m->mem);
    assert_int_equal(pipe(m->pipe), 0);
    return m;
}

static int setup(void **state)
{
    *state = machine_new();
    return 0;
}

static int teardown(void **state)
{
    machine_free(*state);
    return 0;
}

/* --- doorbells and ports --- */

static void test_doorbell_signals_its_eventfd_and_nothing_else(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);
    uint64_t rung = 0;
    struct report r;

    build(m, 1, guest_doorbell);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, DOORBELL_VALUE), 0);
    start(m);
    expect_report(m, 0, PORT_DOORBELL, DOORBELL_VALUE + 1);
    r = next_report(m);
    assert_int_equal(r.port, PORT_DOORBELL);
    assert_int_equal(r.size_bytes, 1);
    expect_report(m, 0, PORT_END, 0);
    assert_int_equal(read(fd, &rung, sizeof(rung)), sizeof(rung));
    assert_int_equal(rung, 1);
    close(fd);
}

static void test_removed_doorbell_exits(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    build(m, 1, guest_doorbell);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, DOORBELL_VALUE), 0);
    assert_int_equal(kvm_ioeventfd_remove(m->vm, fd, PORT_DOORBELL, DOORBELL_VALUE), 0);
    start(m);
    expect_report(m, 0, PORT_DOORBELL, DOORBELL_VALUE);
    assert_false(readable(fd, 0));
    close(fd);
}

static void test_taken_doorbell_is_refused(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    build(m, 1, guest_doorbell);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, 1), 0);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, 2), 0);
    assert_int_equal(kvm_ioeventfd_add(m->vm, fd, PORT_DOORBELL, 1), -EEXIST);
    close(fd);
}

static void test_port_accesses_keep_size_and_order(void **state)
{
    struct machine *m = *state;
    uint32_t string[3] = { 0xa1, 0xb2, 0xc3 };

    build(m, 1, guest_ports);
    memcpy(word(m, 0), string, sizeof(string));
    start(m);
    expect_report(m, 0, PORT_REPORT, 0xffffff44);
    expect_report(m, 0, PORT_REPORT, 0xffff3344);
    expect_report(m, 0, PORT_REPORT, 0x11223344);
    expect_report(m, 0, PORT_REPORT, 0xa1);
    expect_report(m, 0, PORT_REPORT, 0xb2);
    expect_report(m, 0, PORT_REPORT, 0xc3);
    expect_report(m, 0, PORT_END, 0);
}

static void test_exits_are_counted_by_reason(void **state)
{
    struct machine *m = *state;
    struct kvm_exit_counts c;

    build(m, 1, guest_ports);
    start(m);
    while (next_report(m).port != PORT_END)
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

    build(m, 2, guest_wait);
    assert_int_equal(kvm_irqfd_add(m->vm, fd[0], 5), 0);
    assert_int_equal(kvm_irq_routes_set(m->vm, routes, 2), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, fd[1], 900), 0);
    start(m);
    next_report(m);
    next_report(m);
    for (unsigned round = 0; round < 3; round++) {
        assert_int_equal(eventfd_write(fd[1], 1), 0);
        expect_report(m, 1, PORT_REPORT, VECTOR_B);
        assert_int_equal(eventfd_write(fd[0], 1), 0);
        expect_report(m, 0, PORT_REPORT, VECTOR_A);
    }
    close(fd[0]);
    close(fd[1]);
}

static void test_route_can_be_changed_while_the_guest_runs(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    build(m, 2, guest_wait);
    assert_int_equal(kvm_irq_route_set(m->vm, 0, 0, VECTOR_A), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, fd, 0), 0);
    start(m);
    next_report(m);
    next_report(m);
    assert_int_equal(eventfd_write(fd, 1), 0);
    expect_report(m, 0, PORT_REPORT, VECTOR_A);
    assert_int_equal(kvm_irq_route_set(m->vm, 0, 1, VECTOR_B), 0);
    assert_int_equal(eventfd_write(fd, 1), 0);
    expect_report(m, 1, PORT_REPORT, VECTOR_B);
    close(fd);
}

static void test_removed_irqfd_is_silent(void **state)
{
    struct machine *m = *state;
    int a = eventfd(0, EFD_NONBLOCK), b = eventfd(0, EFD_NONBLOCK);

    build(m, 1, guest_wait);
    assert_int_equal(kvm_irq_route_set(m->vm, 1, 0, VECTOR_A), 0);
    assert_int_equal(kvm_irq_route_set(m->vm, 2, 0, VECTOR_B), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, a, 1), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, b, 2), 0);
    start(m);
    next_report(m);
    assert_int_equal(kvm_irqfd_remove(m->vm, a, 1), 0);
    assert_int_equal(eventfd_write(a, 1), 0);
    assert_int_equal(eventfd_write(b, 1), 0);
    expect_report(m, 0, PORT_REPORT, VECTOR_B);
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

    build(m, 1, guest_wait);
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

    build(m, 1, guest_timer);
    assert_int_equal(kvm_vcpu_get_tsc_khz(m->vcpu[0], &khz), 0);
    assert_true(khz > 0);
    start(m);
    r = next_report(m);
    assert_int_equal(r.port, PORT_REPORT);
    assert_true((int32_t)r.data >= 0);
    expect_report(m, 0, PORT_END, 0);
}

/* --- threads --- */

static void test_threads_start_parked(void **state)
{
    struct machine *m = *state;
    struct err e = { 0 };

    build(m, 1, guest_spin);
    assert_int_equal(kvm_vcpu_threads_start(m->vcpu, 1, &ops, m, &m->threads, &e), 0);
    sleep_us(20000);
    assert_int_equal(*word(m, 0), 0);
    kvm_vcpu_threads_resume(m->threads);
    while (!load_relaxed(word(m, 0)))
        sleep_us(1000);
}

static void test_no_guest_code_runs_while_paused(void **state)
{
    struct machine *m = *state;

    build(m, 2, guest_spin);
    start(m);
    for (unsigned round = 0; round < 100; round++) {
        uint64_t before[2];

        kvm_vcpu_threads_pause(m->threads);
        before[0] = load_relaxed(word(m, 0));
        before[1] = load_relaxed(word(m, 1));
        sleep_us(200);
        assert_int_equal(load_relaxed(word(m, 0)), before[0]);
        assert_int_equal(load_relaxed(word(m, 1)), before[1]);
        kvm_vcpu_threads_resume(m->threads);
        while (load_relaxed(word(m, 0)) == before[0] || load_relaxed(word(m, 1)) == before[1])
            sleep_us(50);
    }
}

static void test_pause_at_any_point_loses_no_port_access(void **state)
{
    struct machine *m = *state;
    uint32_t asked = 0;

    m->quiet = true;
    build(m, 2, guest_chatter);
    start(m);
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
            sleep_us(round * 5);
    }
    while (load_relaxed(&m->asked[0]) <= asked)
        sleep_us(1000);
    kvm_vcpu_threads_pause(m->threads);
    assert_true(m->asked[0] > 0 && m->asked[1] > 0);
    assert_int_equal(m->nr_wrong[0], 0);
    assert_int_equal(m->nr_wrong[1], 0);
}

static void test_pause_wakes_a_halted_vcpu_and_leaves_it_halted(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    build(m, 1, guest_wait);
    assert_int_equal(kvm_irq_route_set(m->vm, 1, 0, VECTOR_A), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, fd, 1), 0);
    start(m);
    next_report(m);
    for (unsigned round = 0; round < 20; round++) {
        kvm_vcpu_threads_pause(m->threads);
        kvm_vcpu_threads_pause(m->threads);
        kvm_vcpu_threads_resume(m->threads);
        assert_int_equal(eventfd_write(fd, 1), 0);
        expect_report(m, 0, PORT_REPORT, VECTOR_A);
    }
    close(fd);
}

static void test_interrupt_sent_during_a_pause_arrives_after_it(void **state)
{
    struct machine *m = *state;
    int fd = eventfd(0, EFD_NONBLOCK);

    build(m, 1, guest_wait);
    assert_int_equal(kvm_irq_route_set(m->vm, 1, 0, VECTOR_A), 0);
    assert_int_equal(kvm_irqfd_add(m->vm, fd, 1), 0);
    start(m);
    next_report(m);
    kvm_vcpu_threads_pause(m->threads);
    assert_int_equal(eventfd_write(fd, 1), 0);
    assert_false(readable(m->pipe[0], 50));
    kvm_vcpu_threads_resume(m->threads);
    expect_report(m, 0, PORT_REPORT, VECTOR_A);
    close(fd);
}

static void test_vcpu_that_left_stays_away(void **state)
{
    struct machine *m = *state;

    build(m, 1, guest_doorbell);
    start(m);
    while (next_report(m).port != PORT_END)
        ;
    kvm_vcpu_threads_pause(m->threads);
    kvm_vcpu_threads_resume(m->threads);
    assert_false(readable(m->pipe[0], 50));
    kvm_vcpu_threads_pause(m->threads);
}

static void test_threads_can_be_stopped_and_started_again(void **state)
{
    struct machine *m = *state;

    build(m, 2, guest_spin);
    for (unsigned round = 0; round < 5; round++) {
        uint64_t before = load_relaxed(word(m, 1));

        start(m);
        while (load_relaxed(word(m, 1)) == before)
            sleep_us(100);
        kvm_vcpu_threads_stop(m->threads);
        m->threads = NULL;
    }
}

static void test_cpu_time_of_a_busy_vcpu_grows(void **state)
{
    struct machine *m = *state;
    uint64_t first;

    build(m, 1, guest_spin);
    start(m);
    while (!load_relaxed(word(m, 0)))
        sleep_us(1000);
    first = kvm_vcpu_threads_cpu_time_ns(m->threads, 0);
    assert_true(first > 0);
    while (kvm_vcpu_threads_cpu_time_ns(m->threads, 0) < first + 1000000)
        sleep_us(1000);
}

static void test_threads_are_named(void **state)
{
    struct machine *m = *state;
    char command[96];

    build(m, 2, guest_spin);
    start(m);
    while (!load_relaxed(word(m, 0)) || !load_relaxed(word(m, 1)))
        sleep_us(1000);
    snprintf(command, sizeof(command), "grep -qx 'vcpu 1' /proc/%d/task/*/comm", (int)getpid());
    assert_int_equal(system(command), 0);
}

/* --- failures --- */

static void expect_failure(struct machine *m, const char *what)
{
    assert_int_equal(next_report(m).port, 0);
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

    build(m, 1, guest_ud2);
    assert_int_equal(kvm_vcpu_get_sregs(m->vcpu[0], &sregs), 0);
    sregs.idt.limit = 0;
    assert_int_equal(kvm_vcpu_set_sregs(m->vcpu[0], &sregs), 0);
    start(m);
    kvm_probe(&probe);
    if (probe.cpu.svm) {
        expect_failure(m, "vCPU 0: triple fault; this processor keeps no registers");
        return;
    }
    expect_failure(m, "vCPU 0: triple fault\n");
    snprintf(rip, sizeof(rip), "rip 0008:%016llx", (unsigned long long)address_of(guest_ud2));
    assert_non_null(strstr(m->failure, rip));
    assert_non_null(strstr(m->failure, "code 0f 0b"));
}

static void test_access_to_nothing_is_a_failure_with_its_address(void **state)
{
    struct machine *m = *state;
    struct kvm_exit_counts c;

    build(m, 1, guest_mmio);
    start(m);
    expect_failure(m, "write of 4 bytes at guest-physical 0xc0001000");
    assert_non_null(strstr(m->failure, "data 78 56 34 12"));
    kvm_vcpu_exit_counts(m->vcpu[0], &c);
    assert_int_equal(c.mmio, 1);
}

static void test_describe_fits_any_buffer(void **state)
{
    struct machine *m = *state;
    char text[300];

    build(m, 1, guest_spin);
    for (size_t size = 1; size <= sizeof(text); size += 23)
        assert_true(strlen(kvm_vcpu_describe(m->vcpu[0], text, size)) < size);
}

/* --- state and creation --- */

static void test_msrs_read_back(void **state)
{
    struct machine *m = *state;
    const uint32_t lstar = 0xc0000082;
    uint64_t value = 0;

    build(m, 1, guest_spin);
    assert_int_equal(kvm_vcpu_set_msr(m->vcpu[0], lstar, 0xffff800000001234), 0);
    assert_int_equal(kvm_vcpu_get_msr(m->vcpu[0], lstar, &value), 0);
    assert_int_equal(value, 0xffff800000001234);
    assert_int_equal(kvm_vcpu_get_msr(m->vcpu[0], 0x4badbad0, &value), -ENOENT);
    assert_int_equal(kvm_vcpu_set_msr(m->vcpu[0], 0x4badbad0, 1), -ENOENT);
}

static void test_xcr0_needs_x87(void **state)
{
    struct machine *m = *state;

    build(m, 1, guest_spin);
    assert_int_equal(kvm_vcpu_set_xcr0(m->vcpu[0], 3), 0);
    assert_int_equal(kvm_vcpu_set_xcr0(m->vcpu[0], 2), -EINVAL);
}

static void test_two_machines_do_not_meet(void **state)
{
    struct machine *m = *state, *other = machine_new();

    build(m, 1, guest_wait);
    build(other, 1, guest_doorbell);
    start(m);
    start(other);
    expect_report(m, 0, PORT_REPORT, 0);
    expect_report(other, 0, PORT_DOORBELL, DOORBELL_VALUE);
    machine_free(other);
    assert_false(readable(m->pipe[0], 10));
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
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
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
        T(test_threads_start_parked),
        T(test_no_guest_code_runs_while_paused),
        T(test_pause_at_any_point_loses_no_port_access),
        T(test_pause_wakes_a_halted_vcpu_and_leaves_it_halted),
        T(test_interrupt_sent_during_a_pause_arrives_after_it),
        T(test_vcpu_that_left_stays_away),
        T(test_threads_can_be_stopped_and_started_again),
        T(test_cpu_time_of_a_busy_vcpu_grows),
        T(test_threads_are_named),
        T(test_triple_fault_is_a_failure_with_registers_and_code),
        T(test_access_to_nothing_is_a_failure_with_its_address),
        T(test_describe_fits_any_buffer),
        T(test_msrs_read_back),
        T(test_xcr0_needs_x87),
        T(test_two_machines_do_not_meet),
        T(test_own_pages_in_a_bad_place_are_refused),
        T(test_absurd_vcpu_counts_are_refused),
    };
    struct kvm_probe probe;
    char advice[512];

    kvm_probe(&probe);
    kvm_probe_advice(&probe, advice, sizeof(advice));
    printf("# KVM: %s. %s\n", kvm_kind_name(probe.kind), advice);
    if (probe.kind == KVM_KIND_NONE)
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
