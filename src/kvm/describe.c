/* SPDX-License-Identifier: MIT */
/* A vCPU's state and its last exit in words. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/internal.h"

#define CODE_BYTES 16

/* Text that grows in a buffer and is cut off at its end. */
struct text {
    char *buf;
    size_t size, len;
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(t->buf + t->len, t->size - t->len, fmt, ap);
    va_end(ap);
    if (n > 0)
        t->len = min_of(t->len + (size_t)n, t->size - 1);
}

static void add_bytes(struct text *t, const uint8_t *bytes, unsigned nr)
{
    for (unsigned i = 0; i < nr; i++)
        add(t, " %02x", bytes[i]);
}

/* What lies at the linear address, as far as the guest's page tables and memory
 * lead there. */
static unsigned read_code(struct kvm_vcpu *v, uint64_t linear, uint8_t code[CODE_BYTES])
{
    unsigned nr = 0;

    for (; nr < CODE_BYTES; nr++) {
        struct kvm_translation where = { .linear_address = linear + nr };

        if (ioctl(v->fd, KVM_TRANSLATE, &where) < 0 || !where.valid)
            break;
        if (guest_mem_read(v->vm->mem, gpa(where.physical_address), &code[nr], 1) < 0)
            break;
    }
    return nr;
}

static void add_state(struct text *t, struct kvm_vcpu *v)
{
    struct kvm_regs r;
    struct kvm_sregs s;
    uint8_t code[CODE_BYTES];
    unsigned nr_code;

    if (kvm_vcpu_get_regs(v, &r) < 0 || kvm_vcpu_get_sregs(v, &s) < 0) {
        add(t, "registers: %s", strerror(errno));
        return;
    }
    add(t, "rip %04x:%016llx rsp %04x:%016llx rflags %08llx cpl %u\n", s.cs.selector, r.rip,
        s.ss.selector, r.rsp, r.rflags, s.ss.dpl);
    add(t, "rax %016llx rbx %016llx rcx %016llx rdx %016llx\n", r.rax, r.rbx, r.rcx, r.rdx);
    add(t, "rsi %016llx rdi %016llx rbp %016llx r8  %016llx\n", r.rsi, r.rdi, r.rbp, r.r8);
    add(t, "r9  %016llx r10 %016llx r11 %016llx r12 %016llx\n", r.r9, r.r10, r.r11, r.r12);
    add(t, "r13 %016llx r14 %016llx r15 %016llx\n", r.r13, r.r14, r.r15);
    add(t, "cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx efer %04llx\n", s.cr0, s.cr2, s.cr3,
        s.cr4, s.efer);
    add(t, "fs %016llx gs %016llx gdt %016llx idt %016llx tr %04x\n", s.fs.base, s.gs.base,
        s.gdt.base, s.idt.base, s.tr.selector);
    nr_code = read_code(v, s.cs.base + r.rip, code);
    add(t, "code");
    add_bytes(t, code, nr_code);
    if (!nr_code)
        add(t, " not mapped");
}

const char *kvm_vcpu_describe(struct kvm_vcpu *v, char *buf, size_t size)
{
    struct text t = { .buf = buf, .size = size };

    buf[0] = '\0';
    add_state(&t, v);
    return buf;
}

static const char *internal_error_name(uint32_t suberror)
{
    switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
        return "an instruction KVM cannot emulate";
    case KVM_INTERNAL_ERROR_SIMUL_EX:
        return "exceptions at the same time";
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
        return "a fault while an event was delivered";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
        return "an exit KVM did not expect";
    }
    return "an error of KVM";
}

static void add_internal_error(struct text *t, const struct kvm_run *run)
{
    add(t, "%s (KVM_EXIT_INTERNAL_ERROR, suberror %u", internal_error_name(run->internal.suberror),
        run->internal.suberror);
    for (uint32_t i = 0; i < min_of(run->internal.ndata, array_size(run->internal.data)); i++)
        add(t, " %llx", run->internal.data[i]);
    add(t, ")");
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
        add(t, ", instruction");
        add_bytes(t, run->emulation_failure.insn_bytes,
                  min_of(run->emulation_failure.insn_size,
                         array_size(run->emulation_failure.insn_bytes)));
    }
}

static void add_mmio(struct text *t, const struct kvm_run *run)
{
    add(t, "%s of %u bytes at guest-physical 0x%llx, where nothing is%s",
        run->mmio.is_write ? "write" : "read", run->mmio.len, run->mmio.phys_addr,
        run->mmio.is_write ? " that may be written to" : "");
    if (run->mmio.is_write) {
        add(t, ", data");
        add_bytes(t, run->mmio.data, min_of(run->mmio.len, array_size(run->mmio.data)));
    }
}

/* SVM leaves a vCPU's state undefined after a triple fault, so KVM resets it. */
static bool is_reset(struct kvm_vcpu *v)
{
    struct kvm_regs r;
    struct kvm_sregs s;

    return kvm_vcpu_get_regs(v, &r) == 0 && kvm_vcpu_get_sregs(v, &s) == 0 &&
           r.rip == 0xfff0 && s.cs.base == 0xffff0000;
}

void kvm_vcpu_describe_failure(struct kvm_vcpu *v, int run_errno, char *buf, size_t size)
{
    const struct kvm_run *run = v->run;
    struct text t = { .buf = buf, .size = size };

    buf[0] = '\0';
    add(&t, "vCPU %u: ", v->id);
    if (run_errno) {
        add(&t, "KVM_RUN: %s%s", strerror(run_errno),
            run_errno == EFAULT ? ": memory where the host shows nothing" : "");
    } else {
        switch (run->exit_reason) {
        case KVM_EXIT_SHUTDOWN:
            add(&t, "triple fault%s",
                is_reset(v) ? "; this processor keeps no registers of it, these are reset" : "");
            break;
        case KVM_EXIT_INTERNAL_ERROR:
            add_internal_error(&t, run);
            break;
        case KVM_EXIT_FAIL_ENTRY:
            add(&t, "the processor refuses to enter the guest, reason 0x%llx",
                run->fail_entry.hardware_entry_failure_reason);
            break;
        case KVM_EXIT_MMIO:
            add_mmio(&t, run);
            break;
        default:
            add(&t, "exit %u of KVM, which nothing here asked for", run->exit_reason);
        }
    }
    add(&t, "\n");
    add_state(&t, v);
}
