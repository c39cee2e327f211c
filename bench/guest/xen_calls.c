/* SPDX-License-Identifier: MIT */
/* Hypercalls one at a time, for bench/hypercalls.py.  A PV kernel that makes each over and over
 * for a second and says so in the lines of kernel_calls.c. */
#include "pv.h"

#include "base/atomic.h"

#include <xen/callback.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include <xen/version.h>

#define NS_PER_S   1000000000ull
#define SLICE_NS   20000000u        /* the best of the times of a call in such is told */
#define WARM_UP_NS 200000000u
#define BATCH      64u              /* calls between two looks at the clock */
#define MULTICALLS 32u

static uint8_t *page;               /* arguments, or what page tables are changed to map ... */
static uint64_t page_entry, page_entry_maddr;       /* ... by this, there */
static uint32_t port;

static void none(void)
{
    __asm__ volatile("" ::: "memory");
}

static void xen_version(void)
{
    PV_CALL(xen_version, XENVER_version, 0);
}

static void multicall_begin(void)
{
    struct multicall_entry *entries = (struct multicall_entry *)page;

    for (unsigned i = 0; i < MULTICALLS; i++) {
        entries[i].op = __HYPERVISOR_xen_version;
        entries[i].args[0] = XENVER_version;
    }
}

static void multicall(void)
{
    CHECK_EQ(PV_CALL(multicall, page, MULTICALLS), 0);
}

static void evtchn_status(void)
{
    struct evtchn_status s = { .dom = DOMID_SELF, .port = 1 };

    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_status, &s), 0);
}

static void sched_yield(void)
{
    PV_CALL(sched_op, SCHEDOP_yield, 0);
}

static void vcpu_is_up(void)
{
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_is_up, 0, 0), 1);
}

static void current_reservation(void)
{
    domid_t self = DOMID_SELF;

    PV_CALL(memory_op, XENMEM_current_reservation, &self);
}

static void gnttab_query_size(void)
{
    struct gnttab_query_size q = { .dom = DOMID_SELF };

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_query_size, &q, 1), 0);
}

static void mmu_update(void)
{
    CHECK_EQ(pv_mmu_update(page_entry_maddr, page_entry), 0);
}

static void mmu_update_preserve_ad(void)
{
    CHECK_EQ(pv_mmu_update(page_entry_maddr | MMU_PT_UPDATE_PRESERVE_AD, page_entry), 0);
}

static void update_va_mapping(void)
{
    CHECK_EQ(PV_CALL(update_va_mapping, page, page_entry, UVMF_INVLPG), 0);
}

static void tlb_flush_local(void)
{
    struct mmuext_op op = { .cmd = MMUEXT_TLB_FLUSH_LOCAL };

    CHECK_EQ(PV_CALL(mmuext_op, &op, 1, 0, DOMID_SELF), 0);
}

static void fpu_taskswitch(void)
{
    CHECK_EQ(PV_CALL(fpu_taskswitch, 0), 0);
}

static void set_segment_base(void)
{
    CHECK_EQ(PV_CALL(set_segment_base, SEGBASE_FS, 0), 0);
}

static void get_debugreg(void)
{
    PV_CALL(get_debugreg, 7);
}

/* The timer is the host's to keep. */
static void set_timer_op(void)
{
    CHECK_EQ(PV_CALL(set_timer_op, pv_time_ns() + NS_PER_S), 0);
}

static void timer_end(void)
{
    CHECK_EQ(PV_CALL(set_timer_op, 0), 0);
}

static void upcall(struct pv_regs *r)
{
    pv_shared->vcpu_info[0].evtchn_upcall_pending = 0;
    pv_shared->vcpu_info[0].evtchn_pending_sel = 0;
    fetch_and(&pv_shared->evtchn_pending[port / 64], ~((uint64_t)1 << port % 64));
}

static void event_begin(void)
{
    struct evtchn_bind_ipi b = { .vcpu = 0 };

    pv_event_handler = upcall;
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_ipi, &b), 0);
    port = b.port;
    fetch_and(&pv_shared->evtchn_mask[port / 64], ~((uint64_t)1 << port % 64));
    *pv_event_mask() = 0;
}

/* Sent, taken by a handler, and gone back from. */
static void event_send(void)
{
    CHECK_EQ(pv_evtchn_send(port), 0);
}

static void event_end(void)
{
    CHECK_EQ(pv_evtchn_close(port), 0);
    *pv_event_mask() = 1;
}

extern uint8_t user_call[];
__asm__(".pushsection .user, \"ax\"\n"
        "user_call: syscall; ud2\n"
        ".popsection");

/* To user space, and back by a system call of its. */
static void user_round_trip(void)
{
    CHECK_EQ(pv_user_run(user_call, 0), PV_SYSCALL);
}

static void user_begin_call(void)
{
    pv_user_init();
    CHECK_EQ(pv_callback(CALLBACKTYPE_syscall, pv_entries[PV_SYSCALL], 0), 0);
}

static const struct call {
    const char *name;
    void (*make)(void);
    void (*begin)(void), (*end)(void);
    unsigned calls;                 /* in one of make(); 0: it is one */
} calls[] = {
    { "none", none },
    { "xen_version", xen_version },
    { "multicall-entry", multicall, multicall_begin, NULL, MULTICALLS },
    { "event-send-self", event_send, event_begin, event_end },
    { "evtchn-status", evtchn_status },
    { "sched-yield", sched_yield },
    { "vcpu-is-up", vcpu_is_up },
    { "set-timer", set_timer_op, NULL, timer_end },
    { "current-reservation", current_reservation },
    { "gnttab-query-size", gnttab_query_size },
    { "mmu-update", mmu_update },
    { "mmu-update-preserve-ad", mmu_update_preserve_ad },
    { "update-va-mapping", update_va_mapping },
    { "tlb-flush-local", tlb_flush_local },
    { "fpu-taskswitch", fpu_taskswitch },
    { "set-segment-base", set_segment_base },
    { "get-debugreg", get_debugreg },
    { "user-round-trip", user_round_trip, user_begin_call },
};

/* Returns how often it made the call; *least_ps is the time of one in the best slice. */
static uint64_t run_for(const struct call *call, uint64_t ns, uint64_t *least_ps)
{
    uint64_t all = 0, begun = pv_time_ns(), t = begun;

    *least_ps = ~(uint64_t)0;
    while (t - begun < ns) {
        uint64_t n = 0, from = t, ps;

        do {
            for (unsigned i = 0; i < BATCH; i++)
                call->make();
            n += (uint64_t)BATCH * (call->calls ? call->calls : 1);
            t = pv_time_ns();
        } while (t - from < SLICE_NS);
        all += n;
        ps = (t - from) * 1000 / n;
        if (ps < *least_ps)
            *least_ps = ps;
    }
    return all;
}

void test_main(void)
{
    page = pv_page();
    page_entry = pv_mfn(page) << PAGE_SHIFT | PTE_P | PTE_W | PTE_A | PTE_D;
    page_entry_maddr = pv_pte_maddr((uint64_t)page, 1);
    for (unsigned i = 0; i < array_size(calls); i++) {
        const struct call *call = &calls[i];
        uint64_t n, ps;

        if (call->begin)
            call->begin();
        n = run_for(call, WARM_UP_NS, &ps);
        pv_print("@@ mark 1 %s %lu\n", call->name, n);
        n += run_for(call, NS_PER_S, &ps);
        pv_print("@@ mark 2 %s %lu\n", call->name, n);
        pv_print("@@ call %s %lu\n", call->name, ps / 1000);
        if (call->end)
            call->end();
    }
    pv_print("@@ done\n");
}
