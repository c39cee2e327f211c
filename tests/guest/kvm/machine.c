/* SPDX-License-Identifier: MIT */
#include "machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/atomic.h"
#include "kvm/internal.h"       /* what Xenolith itself never asks of KVM */
#include "kvm/probe.h"

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

/* How long to wait for something that must come: only a failing test waits so long. */
#define PATIENCE_MS 60000

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

const struct kvm_exit_ops machine_exit_ops = {
    .io_out = on_out, .io_in = on_in, .failure = on_failure,
};

void machine_sleep_us(unsigned us)
{
    struct timespec t = { .tv_nsec = (long)us * 1000 };

    nanosleep(&t, NULL);
}

bool machine_fd_readable(int fd, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, timeout_ms) == 1;
}

struct report machine_next_report(struct machine *m)
{
    struct report r;

    if (!machine_fd_readable(m->pipe[0], PATIENCE_MS))
        fail_msg("the guest says nothing");
    assert_int_equal(read(m->pipe[0], &r, sizeof(r)), sizeof(r));
    if (!r.port)
        print_message("%s\n", m->failure);
    return r;
}

void machine_expect(struct machine *m, unsigned vcpu, uint16_t port, uint32_t data)
{
    struct report r = machine_next_report(m);

    assert_int_equal(r.vcpu, vcpu);
    assert_int_equal(r.port, port);
    assert_int_equal(r.data, data);
}

static void put_u64(struct machine *m, uint64_t a, uint64_t value)
{
    assert_int_equal(guest_mem_write(&m->mem, gpa(a), &value, sizeof(value)), 0);
}

uint64_t *machine_word(struct machine *m, unsigned vcpu)
{
    return guest_mem_ptr(&m->mem, gpa(WORDS + vcpu * WORD_BYTES), 8);
}

uint64_t machine_address(const char *label)
{
    return CODE + (uint64_t)(label - guest_code);
}

static void put_gate(struct machine *m, unsigned vector, const char *handler)
{
    uint64_t a = machine_address(handler);

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
    struct kvm_regs regs = { .rip = machine_address(program), .rflags = 2,
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

void machine_build(struct machine *m, unsigned nr_vcpus, const char *program)
{
    struct kvm_vm_params params = { .mem = &m->mem, .own = gpa(OWN_PAGES), .nr_vcpus = nr_vcpus };
    struct err e = { 0 };

    build_memory(m);
    if (kvm_vm_create(&params, &m->vm, &e) < 0)
        fail_msg("%s", e.text);
    if (m->vm_tsc_khz)
        assert_int_equal(ioctl(m->vm->fd, KVM_SET_TSC_KHZ, m->vm_tsc_khz), 0);
    for (unsigned id = 0; id < nr_vcpus; id++) {
        if (kvm_vcpu_create(m->vm, id, &m->vcpu[id], &e) < 0)
            fail_msg("%s", e.text);
        m->nr_vcpus++;
    }
    set_cpuid(m);
    for (unsigned id = 0; id < nr_vcpus; id++)
        set_state(m, id, program);
}

void machine_start(struct machine *m)
{
    struct err e = { 0 };

    if (kvm_vcpu_threads_start(m->vcpu, m->nr_vcpus, &machine_exit_ops, m, &m->threads, &e) < 0)
        fail_msg("%s", e.text);
    kvm_vcpu_threads_resume(m->threads);
}

void machine_free(struct machine *m)
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

struct machine *machine_new(void)
{
    struct machine *m = calloc(1, sizeof(*m));

    assert_non_null(m);
    guest_mem_init(&m->mem);
    assert_int_equal(pipe(m->pipe), 0);
    return m;
}

int machine_setup(void **state)
{
    *state = machine_new();
    return 0;
}

int machine_teardown(void **state)
{
    machine_free(*state);
    return 0;
}

int machine_kvm_status(void)
{
    struct kvm_probe probe;
    char advice[512];

    kvm_probe(&probe);
    kvm_probe_advice(&probe, advice, sizeof(advice));
    printf("# KVM: %s. %s\n", kvm_kind_name(probe.kind), advice);
    return probe.kind == KVM_KIND_NONE ? 77 : 0;
}
