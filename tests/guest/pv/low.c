/* SPDX-License-Identifier: MIT */
/* A kernel as far from Linux as the interface permits: it lies at its physical
 * address, in one segment, on one root for both modes, says neither VIRT_BASE nor
 * ENTRY, calls through the hypercall page, prints through the console ring and
 * waits for every line to be taken.  Stands for test kernels like those of the Xen
 * Test Framework. */
#include "base/atomic.h"
#include "base/types.h"

#include <xen/callback.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/io/console.h>
#include <xen/io/xs_wire.h>
#include <xen/sched.h>
#include <xen/version.h>
#include <xen/xen.h>

#define PTE_P   ((uint64_t)1)
#define PTE_W   ((uint64_t)2)
#define PTE_AD  ((uint64_t)0x60)
#define ACCESS(x) (*(volatile __typeof__(x) *)&(x))

struct regs {
    uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

extern const struct start_info *low_start_info;
const struct start_info *low_start_info;
extern uint8_t low_entries[][16], low_user_back[], low_gate[], low_trap_stack_end[];
extern uint8_t hypercall_page[][32];
uint64_t low_user_run(uint64_t (*fn)(void));
void low_main(void);
void low_trap(struct regs *r);

static struct regs caught;
static uint64_t landing;            /* where a trap goes on; 0: none is expected */
static unsigned nr_failures;
static struct xencons_interface *console;
static struct xenstore_domain_interface *store;

static uint8_t shared_place[4096] __attribute__((aligned(4096)));
static uint8_t grants_place[4096] __attribute__((aligned(4096)));
static uint64_t gdt[512] __attribute__((aligned(4096)));

static int64_t hypercall(unsigned nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    register uint64_t r10 __asm__("r10") = d;
    uint8_t *entry = hypercall_page[nr];
    int64_t rc;

    __asm__ volatile("call *%[entry]"
                     : "=a"(rc), "+D"(a), "+S"(b), "+d"(c), "+r"(r10) : [entry] "r"(entry)
                     : "rcx", "r8", "r9", "r11", "memory");
    return rc;
}
#define CALL(name, ...) CALL_(__HYPERVISOR_##name, __VA_ARGS__, 0, 0, 0, 0)
#define CALL_(nr, a, b, c, d, ...) \
    hypercall(nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d))

/* ---- text ---- */

static void kick(uint32_t port)
{
    struct evtchn_send send = { .port = port };

    CALL(event_channel_op, EVTCHNOP_send, &send);
}

static void print(const char *text)
{
    while (*text) {
        uint32_t prod = console->out_prod;

        for (; *text && prod - load_acquire(&console->out_cons) < sizeof(console->out); text++)
            console->out[prod++ & (sizeof(console->out) - 1)] = *text;
        store_release(&console->out_prod, prod);
        kick(low_start_info->console.domU.evtchn);
        while (load_acquire(&console->out_cons) != prod)
            CALL(sched_op, SCHEDOP_yield, 0);
    }
}

static void print_hex(uint64_t v)
{
    char text[18] = "";
    unsigned n = 17;

    do {
        text[--n] = "0123456789abcdef"[v & 15];
        v >>= 4;
    } while (v);
    print(text + n);
}

static void check(unsigned line, const char *what, uint64_t got, uint64_t want)
{
    if (got == want)
        return;
    nr_failures++;
    print("low.c:");
    print_hex(line);
    print(" (hex): ");
    print(what);
    print(" is ");
    print_hex(got);
    print(", not ");
    print_hex(want);
    print("\n");
}
#define CHECK_EQ(got, want) check(__LINE__, #got, (uint64_t)(got), (uint64_t)(want))

static void finish(void)
{
    struct sched_shutdown down = { .reason = SHUTDOWN_poweroff };

    print(nr_failures ? "FAIL\n" : "PASS\n");
    for (;;)
        CALL(sched_op, SCHEDOP_shutdown, &down);
}

/* ---- traps ---- */

void low_trap(struct regs *r)
{
    caught = *r;
    if (!landing) {
        check(__LINE__, "an unexpected trap", r->vector, 0);
        check(__LINE__, "its address", r->rip, 0);
        finish();
    }
    r->rip = landing;
    landing = 0;
}

/* The instruction is to trap: where it goes on is behind it. */
#define TRAPS(insn, ...) \
    __asm__ volatile("movq $1f, %[landing]; " insn "; 1:" \
                     : [landing] "=m"(landing) : __VA_ARGS__ : "memory")

static uint64_t mfn_of(const void *p)
{
    return ((const uint64_t *)low_start_info->mfn_list)[(uint64_t)p >> 12];
}

static void *va_of(uint64_t mfn)
{
    return (void *)(((const uint64_t *)0xffff800000000000ull)[mfn] << 12);
}

static int64_t remap(const void *p, uint64_t maddr, uint64_t flags)
{
    return CALL(update_va_mapping, p, maddr | flags, UVMF_INVLPG);
}

static void traps_init(void)
{
    static struct trap_info table[32];
    static const struct { uint16_t type, entry; } callbacks[] = {
        { CALLBACKTYPE_event, 33 }, { CALLBACKTYPE_syscall, 32 },
        { CALLBACKTYPE_syscall32, 32 }, { CALLBACKTYPE_sysenter, 32 },
    };
    struct callback_register reg;
    struct mmuext_op op = { .cmd = MMUEXT_NEW_USER_BASEPTR };
    unsigned n = 0;
    uint64_t cr3, mfn = mfn_of(gdt);

    for (unsigned v = 0; v < 20; v++)
        if (v != 9 && v != 15)
            table[n++] = (struct trap_info){ (uint8_t)v, v == 3 || v == 4 ? 7 : 4, FLAT_KERNEL_CS,
                                             (uint64_t)low_entries[v] };
    table[n] = (struct trap_info){ 0x20, 7, FLAT_KERNEL_CS, (uint64_t)low_user_back };
    CHECK_EQ(CALL(set_trap_table, table), 0);
    for (unsigned i = 0; i < array_size(callbacks); i++) {
        reg = (struct callback_register){ .type = callbacks[i].type, .flags = CALLBACKF_mask_events,
                                          .address = (uint64_t)low_entries[callbacks[i].entry] };
        CHECK_EQ(CALL(callback_op, CALLBACKOP_register, &reg), 0);
    }
    CHECK_EQ(CALL(stack_switch, FLAT_KERNEL_SS, low_trap_stack_end), 0);
    gdt[1] = 0x00affb000000ffffull;
    gdt[2] = 0x00cff3000000ffffull;
    CHECK_EQ(remap(gdt, mfn << 12, PTE_AD | PTE_P), 0);
    CHECK_EQ(CALL(set_gdt, &mfn, 16), 0);
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs"
                     : : "r"(FLAT_USER_DS));
    __asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
    op.arg1.mfn = cr3 >> 12;
    CHECK_EQ(CALL(mmuext_op, &op, 1, 0, DOMID_SELF), 0);
    CHECK_EQ(CALL(update_va_mapping, 0, 0, UVMF_INVLPG), 0);
}

/* ---- the tests ---- */

static void check_traps(void)
{
    static const struct trap_info gate[2] = { { 0x21, 5, FLAT_KERNEL_CS, (uint64_t)low_gate } };
    uint32_t eax = 0;

    TRAPS("ud2");
    CHECK_EQ(caught.vector, 6);
    CHECK_EQ(caught.cs & 0xffff, FLAT_KERNEL_CS & ~3);
    TRAPS("mov 0, %%eax", "i"(0));
    CHECK_EQ(caught.vector, 14);
    CHECK_EQ(caught.error, 0);
    TRAPS("int3");
    CHECK_EQ(caught.vector, 3);
    CHECK_EQ(CALL(set_trap_table, gate), 0);
    __asm__ volatile("int $0x21" : "+a"(eax) : : "memory");
    CHECK_EQ(eax, 0x1e51c0de);
    TRAPS("int $0x80");
    CHECK_EQ(caught.vector, 13);
    CHECK_EQ(caught.error, 0x80 * 8 + 2);
    TRAPS("mov %[sel], %%fs", [sel] "r"(8));        /* a descriptor of its own */
    landing = 0;
    __asm__ volatile("mov %0, %%fs" : : "r"(FLAT_USER_DS));
}

static uint64_t user_selector(void)
{
    uint64_t cs;

    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    return cs;
}

static uint64_t user_cli(void)
{
    TRAPS("cli");
    return caught.vector << 32 | caught.error << 16 | (caught.cs & 0xffff);
}

static void check_user(void)
{
    CHECK_EQ(low_user_run(user_selector), FLAT_USER_CS);
    CHECK_EQ(low_user_run(user_cli), (uint64_t)13 << 32 | FLAT_USER_CS);
}

static void store_copy(void *data, unsigned n, bool write)
{
    struct shared_info *shared = (struct shared_info *)shared_place;
    uint32_t port = low_start_info->store_evtchn;
    uint8_t *p = data;

    while (n) {
        uint32_t at = write ? store->req_prod : store->rsp_cons;
        uint32_t there = write ? XENSTORE_RING_SIZE - (at - load_acquire(&store->req_cons)) :
                         load_acquire(&store->rsp_prod) - at;
        struct sched_poll poll = { .nr_ports = 1 };

        if (!there) {
            kick(port);
            set_xen_guest_handle(poll.ports, &port);
            if (!(fetch_and(&shared->evtchn_pending[port / 64],
                            ~((uint64_t)1 << port % 64)) >> port % 64 & 1))
                CALL(sched_op, SCHEDOP_poll, &poll);
            continue;
        }
        if (write)
            store->req[at & (XENSTORE_RING_SIZE - 1)] = (char)*p++;
        else
            *p++ = (uint8_t)store->rsp[at & (XENSTORE_RING_SIZE - 1)];
        store_release(write ? &store->req_prod : &store->rsp_cons, at + 1);
        n--;
    }
}

/* The domain's own number, asked of xenstore; 0: no number. */
static unsigned domid_read(void)
{
    struct xsd_sockmsg msg = { .type = XS_READ, .len = 6 };
    char path[] = "domid", value[64];
    unsigned domid = 0;

    store_copy(&msg, sizeof(msg), true);
    store_copy(path, sizeof(path), true);
    kick(low_start_info->store_evtchn);
    store_copy(&msg, sizeof(msg), false);
    CHECK_EQ(msg.type, XS_READ);
    if (msg.len > sizeof(value))
        return 0;
    store_copy(value, msg.len, false);
    for (unsigned i = 0; i < msg.len && value[i] >= '0' && value[i] <= '9'; i++)
        domid = domid * 10 + (unsigned)(value[i] - '0');
    return domid;
}

static void check_grants(void)
{
    struct gnttab_set_version version = { .version = 1 };
    struct gnttab_setup_table setup = { .dom = DOMID_SELF, .nr_frames = 1 };
    xen_pfn_t frame = 0;

    set_xen_guest_handle(setup.frame_list, &frame);
    CHECK_EQ(CALL(grant_table_op, GNTTABOP_set_version, &version, 1), 0);
    CHECK_EQ(CALL(grant_table_op, GNTTABOP_setup_table, &setup, 1), 0);
    CHECK_EQ(setup.status, 0);
    CHECK_EQ(remap(grants_place, frame << 12, PTE_AD | PTE_W | PTE_P), 0);
    ACCESS(((struct grant_entry_v1 *)grants_place)[8].frame) = 8;
    CHECK_EQ(ACCESS(((struct grant_entry_v1 *)grants_place)[8].frame), 8);
}

/* Ends with Xen unable to give the kernel its frame. */
static void crash(void)
{
    __asm__ volatile("movabs $0x800000000badc0de, %rsp; pushfq");
}

void low_main(void)
{
    console = va_of(low_start_info->console.domU.mfn);
    store = va_of(low_start_info->store_mfn);
    CHECK_EQ(hypercall_page[0][0] != 0xc3, true);
    CHECK_EQ(remap(shared_place, low_start_info->shared_info, PTE_AD | PTE_W | PTE_P), 0);
    traps_init();
    if (low_start_info->cmd_line[0] == 'c') {
        print("PANIC\n");
        crash();
    }
    check_traps();
    check_user();
    check_grants();
    CHECK_EQ(domid_read() > 0, true);
    finish();
}
