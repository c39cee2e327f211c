/* SPDX-License-Identifier: MIT */
/* Text for the process: what the guest prints by console_io, what the shim has to
 * say, and its last words. */
#include "shim/cpu.h"
#include "shim/shim.h"

#include <stdarg.h>

/* The vCPU's text buffer being filled. */
struct text {
    uint8_t *to;
    unsigned n;
};

static void put(struct text *t, char c)
{
    if (t->n < SHIM_TEXT_BYTES)
        t->to[t->n++] = (uint8_t)c;
}

static void put_number(struct text *t, uint64_t v, unsigned base)
{
    char digits[24];
    unsigned n = 0;

    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    while (n)
        put(t, digits[--n]);
}

/* %s, %u (unsigned), %lx (uint64_t) and nothing else */
static void format(struct text *t, const char *fmt, va_list ap)
{
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            put(t, *fmt);
            continue;
        }
        fmt++;
        if (*fmt == 's') {
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(t, *s);
        } else if (*fmt == 'u') {
            put_number(t, va_arg(ap, unsigned), 10);
        } else {
            fmt++;      /* l, now x */
            put_number(t, va_arg(ap, uint64_t), 16);
        }
    }
}

static void append(struct text *t, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    format(t, fmt, ap);
    va_end(ap);
}

void shim_log(const char *fmt, ...)
{
    struct text t = { .to = shim_vcpu_current()->status->text };
    va_list ap;

    va_start(ap, fmt);
    format(&t, fmt, ap);
    va_end(ap);
    io_out32(SHIM_IO_LOG, t.n);
}

static void __attribute__((noreturn)) wait_for_the_end(void)
{
    for (;;)
        __asm__ volatile("cli; hlt");
}

void shim_crash(const struct shim_regs *r, const char *fmt, ...)
{
    struct shim_vcpu *v = shim_vcpu_current();
    struct text t = { .to = v->status->text };
    va_list ap;

    append(&t, "vCPU %u: ", v->id);
    va_start(ap, fmt);
    format(&t, fmt, ap);
    va_end(ap);
    if (r) {
        append(&t, "\nvector %lx error %lx rip %lx cs %lx rflags %lx rsp %lx ss %lx", r->vector,
               r->error, r->rip, r->cs, r->rflags, r->rsp, r->ss);
        append(&t, "\nrax %lx rbx %lx rcx %lx rdx %lx rsi %lx rdi %lx rbp %lx", r->rax, r->rbx,
               r->rcx, r->rdx, r->rsi, r->rdi, r->rbp);
        append(&t, "\nr8 %lx r9 %lx r10 %lx r11 %lx r12 %lx r13 %lx r14 %lx r15 %lx", r->r8,
               r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15);
        append(&t, "\ncr2 %lx cr3 %lx, %s mode", read_cr2(), read_cr3(),
               v->kernel_mode ? "kernel" : "user");
    }
    io_out32(SHIM_IO_CRASH, t.n);
    wait_for_the_end();
}

void shim_shutdown(uint32_t reason)
{
    io_out32(SHIM_IO_SHUTDOWN, reason);
    wait_for_the_end();
}

#define CONSOLE_COST 16                 /* an exit */

/* HYPERVISOR_console_io (public/xen.h).  As in a Xen built for debugging, whoever likes
 * may write there, and nobody but domain 0 anything else. */
int64_t console_io(struct shim_vcpu *v, uint64_t cmd, uint64_t count, uint64_t arg_va)
{
    struct shim_batch batch = { 0 };

    if (cmd != CONSOLEIO_write)
        return -XEN_EPERM;
    for (uint64_t done = 0; done < count; ) {
        uint64_t n;

        if (done && batch_over(&batch, CONSOLE_COST))
            return hypercall_again(v, __HYPERVISOR_console_io, cmd, count - done, arg_va + done,
                                   0);
        n = min_of(count - done, (uint64_t)SHIM_TEXT_BYTES);

        if (guest_read(v->status->text, arg_va + done, n))
            return -XEN_EFAULT;
        io_out32(SHIM_IO_CONSOLE, (uint32_t)n);
        done += n;
    }
    return 0;
}
