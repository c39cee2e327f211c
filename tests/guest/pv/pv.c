/* SPDX-License-Identifier: MIT */
#include "pv.h"

#include <xen/grant_table.h>

#include "base/atomic.h"

#include <stdarg.h>
#include <xen/callback.h>

#define PAGES 96
#define FAILURES_MAX 20

const struct start_info *pv_start_info;
struct shared_info *pv_shared;
struct pv_regs pv_caught;
uint8_t pv_caught_mask;
void (*pv_event_handler)(struct pv_regs *r);
unsigned pv_nr_nmis;
uint8_t pv_nmi_mask;

extern uint64_t pv_catch_sp;
extern uint8_t pv_catch_landing[];

static uint8_t pages[PAGES][4096] __attribute__((aligned(4096)));
static unsigned nr_pages_used, nr_failures;

void pv_main(const struct start_info *si);
void pv_trap(struct pv_regs *r);

/* ---- text ---- */

struct text {
    char buf[256];
    unsigned n;
};

static void put(struct text *t, char c)
{
    if (t->n < sizeof(t->buf))
        t->buf[t->n++] = c;
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

static void format(struct text *t, const char *fmt, va_list ap)
{
    for (; *fmt; fmt++) {
        bool is_long;

        if (*fmt != '%') {
            put(t, *fmt);
            continue;
        }
        is_long = *++fmt == 'l';
        if (is_long)
            fmt++;
        if (*fmt == 's') {
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(t, *s);
        } else if (*fmt == 'd') {
            int64_t v = is_long ? va_arg(ap, int64_t) : va_arg(ap, int);

            if (v < 0)
                put(t, '-');
            put_number(t, v < 0 ? -(uint64_t)v : (uint64_t)v, 10);
        } else if (*fmt == '%') {
            put(t, '%');
        } else {
            put_number(t, is_long ? va_arg(ap, uint64_t) : va_arg(ap, unsigned),
                       *fmt == 'x' ? 16 : 10);
        }
    }
}

static void flush(struct text *t)
{
    PV_CALL(console_io, CONSOLEIO_write, t->n, t->buf);
}

void pv_print(const char *fmt, ...)
{
    struct text t = { .n = 0 };
    va_list ap;

    va_start(ap, fmt);
    format(&t, fmt, ap);
    va_end(ap);
    flush(&t);
}

void pv_fail(const char *file, unsigned line, const char *fmt, ...)
{
    struct text t = { .n = 0 };
    va_list ap;

    for (const char *p = file; *p; p++)
        if (*p == '/')
            file = p + 1;
    for (const char *p = file; *p; p++)
        put(&t, *p);
    put(&t, ':');
    put_number(&t, line, 10);
    put(&t, ':');
    put(&t, ' ');
    va_start(ap, fmt);
    format(&t, fmt, ap);
    va_end(ap);
    t.n = min_of(t.n, (unsigned)sizeof(t.buf) - 1);
    put(&t, '\n');
    flush(&t);
    if (++nr_failures == FAILURES_MAX)
        pv_finish();
}

void pv_shutdown(unsigned reason)
{
    struct sched_shutdown s = { .reason = reason };

    for (;;)
        PV_CALL(sched_op, SCHEDOP_shutdown, &s);
}

void pv_finish(void)
{
    pv_print(nr_failures ? "FAIL\n" : "PASS\n");
    pv_shutdown(SHUTDOWN_poweroff);
}

/* ---- traps ---- */

int64_t pv_gate(unsigned vector, uint64_t address, unsigned flags)
{
    struct trap_info t[2] = { { .vector = (uint8_t)vector, .flags = (uint8_t)flags,
                                .cs = FLAT_KERNEL_CS, .address = address }, { .address = 0 } };

    return PV_CALL(set_trap_table, t);
}

int64_t pv_callback(unsigned type, const void *address, unsigned flags)
{
    struct callback_register reg = { .type = (uint16_t)type, .flags = (uint16_t)flags,
                                     .address = (uint64_t)address };

    return PV_CALL(callback_op, CALLBACKOP_register, &reg);
}

void pv_traps_init(void)
{
    for (unsigned i = 0; i < 32; i++)
        if (pv_gate(i, (uint64_t)pv_entries[i], 0))
            pv_fail(__FILE__, __LINE__, "no gate for vector %u", i);
    CHECK_EQ(pv_callback(CALLBACKTYPE_event, pv_entries[PV_EVENT], 0), 0);
    CHECK_EQ(pv_callback(CALLBACKTYPE_failsafe, pv_failsafe_entry, 0), 0);
    CHECK_EQ(pv_callback(CALLBACKTYPE_nmi, pv_entries[PV_NMI], 0), 0);
    CHECK_EQ(PV_CALL(stack_switch, FLAT_KERNEL_SS, pages[0] + 4 * sizeof(pages[0])), 0);
    nr_pages_used = 4;
}

void pv_trap(struct pv_regs *r)
{
    if (r->vector == PV_EVENT) {
        if (pv_event_handler)
            pv_event_handler(r);
        else
            pv_fail(__FILE__, __LINE__, "an event nobody waits for");
        return;
    }
    if (r->vector == PV_NMI) {
        pv_nr_nmis++;
        pv_nmi_mask = *pv_event_mask();
        return;
    }
    if (!pv_catch_sp) {
        pv_fail(__FILE__, __LINE__, "unexpected trap %lx, error %lx, at %lx, cs %lx", r->vector,
                r->error, r->rip, r->cs);
        pv_finish();
    }
    pv_caught = *r;
    pv_caught_mask = *pv_event_mask();
    r->rax = r->vector;
    r->error = 0;               /* the flags of the iret */
    r->rip = (uint64_t)pv_catch_landing;
    r->cs = FLAT_KERNEL_CS & ~3;      /* RPL 3 would be user mode */
    r->rflags &= ~RFLAGS_TF;
    r->rsp = pv_catch_sp;
    r->ss = FLAT_KERNEL_SS;
}

/* ---- memory ---- */

void *pv_page(void)
{
    if (nr_pages_used == PAGES) {
        pv_fail(__FILE__, __LINE__, "out of pages");
        pv_finish();
    }
    return pages[nr_pages_used++];
}

uint64_t pv_mfn(const void *kernel_va)
{
    const uint64_t *p2m = (const uint64_t *)pv_start_info->mfn_list;

    return p2m[((uint64_t)kernel_va - PV_VIRT_BASE) >> PAGE_SHIFT];
}

/* Not by the M2P, which has a test of its own. */
void *pv_kernel_va(uint64_t mfn)
{
    const uint64_t *p2m = (const uint64_t *)pv_start_info->mfn_list;
    uint64_t pfn = 0;

    while (pfn < pv_start_info->nr_pages && p2m[pfn] != mfn)
        pfn++;
    return (void *)(PV_VIRT_BASE + (pfn << PAGE_SHIFT));
}

static const uint64_t *root(void)
{
    return (const uint64_t *)pv_start_info->pt_base;
}

const uint64_t *pv_pte(uint64_t va, unsigned level)
{
    const volatile uint64_t *table = root();

    for (unsigned l = 4; ; l--) {
        unsigned i = (unsigned)(va >> (PAGE_SHIFT + 9 * (l - 1))) & 511;

        if (l == level)
            return (const uint64_t *)&table[i];
        if (!(table[i] & PTE_P))
            return NULL;
        table = pv_kernel_va((table[i] & PTE_FRAME_MASK) >> PAGE_SHIFT);
    }
}

uint64_t pv_pte_maddr(uint64_t va, unsigned level)
{
    const uint64_t *e = pv_pte(va, level);

    return e ? (pv_mfn(e) << PAGE_SHIFT) + ((uint64_t)e & PAGE_MASK) : 0;
}

int64_t pv_mmu_update(uint64_t ptr, uint64_t val)
{
    struct mmu_update u = { .ptr = ptr, .val = val };

    return PV_CALL(mmu_update, &u, 1, 0, DOMID_SELF);
}

int64_t pv_protect(void *page, uint64_t flags)
{
    return PV_CALL(update_va_mapping, page, pv_mfn(page) << PAGE_SHIFT | flags, UVMF_INVLPG);
}

void pv_user_map(uint64_t va, uint64_t mfn, uint64_t flags)
{
    for (unsigned level = 4; level > 1; level--) {
        void *table;

        if (*pv_pte(va, level) & PTE_P)
            continue;
        table = pv_page();
        CHECK_EQ(pv_protect(table, PTE_P | PTE_U), 0);
        CHECK_EQ(pv_mmu_update(pv_pte_maddr(va, level),
                               pv_mfn(table) << PAGE_SHIFT | PTE_P | PTE_W | PTE_U), 0);
    }
    CHECK_EQ(pv_mmu_update(pv_pte_maddr(va, 1), mfn << PAGE_SHIFT | flags), 0);
}

void pv_user_init(void)
{
    struct mmuext_op op = { .cmd = MMUEXT_NEW_USER_BASEPTR, .arg1.mfn = pv_mfn(root()) };

    for (uint64_t at = 0; at < (uint64_t)(user_end - user_begin); at += PAGE_SIZE)
        pv_user_map(PV_USER_TEXT + at, pv_mfn(user_begin + at), PTE_P | PTE_U);
    pv_user_map(PV_USER_STACK_END - PAGE_SIZE, pv_mfn(pv_page()), PTE_P | PTE_W | PTE_U | PTE_NX);
    CHECK_EQ(PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF), 0);
}

struct user_start {
    const void *symbol;
    uint64_t arg;
};

static void user_enter(uint64_t start)
{
    const struct user_start *s = (const void *)start;
    struct iret_context c = {
        .rip = PV_USER_ADDRESS(s->symbol), .cs = FLAT_USER_CS, .rflags = RFLAGS_IF,
        .rsp = PV_USER_STACK_END, .ss = FLAT_USER_SS,
    };

    /* no register but rdi is promised to user code: the rest stays as it is here */
    __asm__ volatile("mov %0, %%rsp; mov %1, %%rdi; mov $23, %%eax; syscall; ud2"
                     : : "r"(&c), "r"(s->arg) : "memory");
}

int pv_user_run(const void *symbol, uint64_t arg)
{
    struct user_start s = { symbol, arg };

    return pv_catch(user_enter, (uint64_t)&s);
}

/* ---- calls that many need ---- */

bool pv_word(const char *word)
{
    const char *p = (const char *)pv_start_info->cmd_line;

    while (*word && *p == *word)
        p++, word++;
    return !*word;
}

domid_t pv_own_domid(void)
{
    struct gnttab_query_size q = { .dom = 1 };

    while (q.dom < DOMID_FIRST_RESERVED) {
        CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_query_size, &q, 1), 0);
        if (q.status == GNTST_okay)
            return q.dom;
        q.dom++;
    }
    return 0;
}

int64_t pv_evtchn_send(uint32_t port)
{
    struct evtchn_send op = { .port = port };

    return PV_CALL(event_channel_op, EVTCHNOP_send, &op);
}

int64_t pv_evtchn_unmask(uint32_t port)
{
    struct evtchn_unmask op = { .port = port };

    return PV_CALL(event_channel_op, EVTCHNOP_unmask, &op);
}

int64_t pv_evtchn_close(uint32_t port)
{
    struct evtchn_close op = { .port = port };

    return PV_CALL(event_channel_op, EVTCHNOP_close, &op);
}

void pv_vcpu_context(struct vcpu_guest_context *c, void (*fn)(void))
{
    uint64_t cr3 = pv_mfn((void *)pv_start_info->pt_base) << PAGE_SHIFT;

    __builtin_memset(c, 0, sizeof(*c));
    c->flags = VGCF_in_kernel;
    c->user_regs.rip = (uint64_t)pv_secondary_start;
    c->user_regs.rdi = (uint64_t)fn;
    c->user_regs.cs = FLAT_KERNEL_CS;
    c->user_regs.ss = FLAT_KERNEL_SS;
    c->user_regs.rsp = (uint64_t)pv_page() + PAGE_SIZE;
    c->user_regs.rflags = RFLAGS_IF;
    c->kernel_sp = c->user_regs.rsp;
    c->ctrlreg[3] = cr3;
    c->ctrlreg[1] = cr3;
}

void pv_vcpu_start(void (*fn)(void))
{
    static struct vcpu_guest_context c;

    pv_vcpu_context(&c, fn);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_initialise, 1, &c), 0);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_up, 1, 0), 0);
}

/* ---- time ---- */

uint64_t pv_time_ns(void)
{
    const volatile struct vcpu_time_info *t = &pv_shared->vcpu_info[0].time;
    uint32_t version, lo, hi;
    uint64_t delta, ns;

    do {
        version = load_acquire(&t->version);
        __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
        delta = (lo | (uint64_t)hi << 32) - t->tsc_timestamp;
        delta = t->tsc_shift < 0 ? delta >> -t->tsc_shift : delta << t->tsc_shift;
        ns = t->system_time + (uint64_t)((unsigned __int128)delta * t->tsc_to_system_mul >> 32);
        barrier_compiler();
    } while ((version & 1) || load_acquire(&t->version) != version);
    return ns;
}

/* ---- the beginning ---- */

void pv_main(const struct start_info *si)
{
    static uint8_t place[4096] __attribute__((aligned(4096)));

    pv_start_info = si;
    CHECK_EQ(PV_CALL(update_va_mapping, place, si->shared_info | PTE_P | PTE_W | PTE_U,
                     UVMF_INVLPG), 0);
    pv_shared = (struct shared_info *)place;
    pv_traps_init();
    test_main();
    pv_finish();
}
