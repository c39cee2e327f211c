/* SPDX-License-Identifier: MIT */
/* Long hypercalls do not hold events off: a timer that ends in the middle of one is heard
 * of before its last element is done, with the call about to be made again for the rest;
 * and in the end all is done, once, and told as if nothing had happened. */
#include "pv.h"

#include "base/atomic.h"

#include <xen/grant_table.h>
#include <xen/memory.h>

#define LIST_BYTES (2 * MIB)
#define NR_FRAMES  4000
#define TRIES      8
#define INSN_SYSCALL 0x050f

static uint8_t list[LIST_BYTES] __attribute__((aligned(4096)));
static uint64_t *busy, *last;   /* pages: of all elements but the last, and of that */
static uint32_t timer_port;

/* One kind of batch. */
struct batch {
    const char *name;
    uint64_t nr;                        /* of the hypercall */
    void (*prepare)(void);
    void (*run)(void);
    bool (*last_done)(void);
};

static const struct batch *current;
static unsigned nr_within;              /* timers that came within the batch under way */
static bool came;

static void tick(struct pv_regs *r)
{
    pv_shared->vcpu_info[0].evtchn_upcall_pending = 0;
    pv_shared->vcpu_info[0].evtchn_pending_sel = 0;
    if (!(fetch_and(&pv_shared->evtchn_pending[0], ~((uint64_t)1 << timer_port)) >>
          timer_port & 1))
        return;
    came = true;
    if (current && r->rax == current->nr && *(const uint16_t *)r->rip == INSN_SYSCALL &&
        !current->last_done())
        nr_within++;
}

/* ---- kinds ---- */

static uint32_t nr_done;

#define NR_EXT (LIST_BYTES / sizeof(struct mmuext_op))

static void ext_prepare(void)
{
    struct mmuext_op *op = (void *)list;

    for (unsigned i = 0; i < NR_EXT; i++)
        op[i] = (struct mmuext_op){ .cmd = MMUEXT_CLEAR_PAGE,
                                    .arg1.mfn = pv_mfn(i == NR_EXT - 1 ? last : busy) };
    *last = *busy = 1;
}

static void ext_run(void)
{
    nr_done = 7;
    CHECK_EQ(PV_CALL(mmuext_op, list, NR_EXT, &nr_done, DOMID_SELF), 0);
    CHECK_EQ(nr_done, NR_EXT);
}

static bool page_cleared(void)
{
    return *(volatile uint64_t *)last == 0;
}

#define NR_UPDATES (LIST_BYTES / sizeof(struct mmu_update))
#define MARK 0x4711

static void updates_prepare(void)
{
    struct mmu_update *u = (void *)list;

    for (unsigned i = 0; i < NR_UPDATES; i++)
        u[i] = (struct mmu_update){ pv_mfn(i == NR_UPDATES - 1 ? last : busy) << PAGE_SHIFT |
                                    MMU_MACHPHYS_UPDATE, MARK };
    CHECK_EQ(pv_mmu_update(pv_mfn(last) << PAGE_SHIFT | MMU_MACHPHYS_UPDATE, 0), 0);
}

static void updates_run(void)
{
    nr_done = 7;
    CHECK_EQ(PV_CALL(mmu_update, list, NR_UPDATES, &nr_done, DOMID_SELF), 0);
    CHECK_EQ(nr_done, NR_UPDATES);
}

static bool update_done(void)
{
    return *(const volatile uint64_t *)&PV_M2P[pv_mfn(last)] == MARK;
}

#define NR_COPIES (LIST_BYTES / sizeof(struct gnttab_copy))

static void copies_prepare(void)
{
    struct gnttab_copy *op = (void *)list;

    for (unsigned i = 0; i < NR_COPIES; i++) {
        op[i] = (struct gnttab_copy){ .source.domid = DOMID_SELF, .dest.domid = DOMID_SELF,
                                      .len = PAGE_SIZE, .status = 1 };
        op[i].source.u.gmfn = pv_mfn(busy);
        op[i].dest.u.gmfn = pv_mfn(i == NR_COPIES - 1 ? last : busy);
    }
    *last = 1;
    *busy = 0;
}

static void copies_run(void)
{
    const struct gnttab_copy *op = (const void *)list;

    CHECK_EQ(PV_CALL(grant_table_op, GNTTABOP_copy, list, NR_COPIES), 0);
    for (unsigned i = 0; i < NR_COPIES; i++)
        if (op[i].status != GNTST_okay) {
            pv_fail(__FILE__, __LINE__, "copy %u: status %d", i, op[i].status);
            break;
        }
}

#define NR_CALLS (LIST_BYTES / sizeof(struct multicall_entry))

/* Each clears a page; those in the middle several, and may stop themselves. */
static void calls_prepare(void)
{
    static struct mmuext_op op[256];
    static struct mmuext_op op_last;
    struct multicall_entry *e = (void *)list;

    for (unsigned i = 0; i < array_size(op); i++)
        op[i] = (struct mmuext_op){ .cmd = MMUEXT_CLEAR_PAGE, .arg1.mfn = pv_mfn(busy) };
    op_last = (struct mmuext_op){ .cmd = MMUEXT_CLEAR_PAGE, .arg1.mfn = pv_mfn(last) };
    for (unsigned i = 0; i < NR_CALLS; i++) {
        e[i] = (struct multicall_entry){ .op = __HYPERVISOR_mmuext_op, .result = 1 };
        e[i].args[0] = (uint64_t)(i == NR_CALLS - 1 ? &op_last : op);
        e[i].args[1] = i / 64 == NR_CALLS / 128 ? array_size(op) : 1;
        e[i].args[3] = DOMID_SELF;
    }
    *last = *busy = 1;
}

static void calls_run(void)
{
    const struct multicall_entry *e = (const void *)list;

    CHECK_EQ(PV_CALL(multicall, list, NR_CALLS), 0);
    for (unsigned i = 0; i < NR_CALLS; i++)
        if (e[i].result) {
            pv_fail(__FILE__, __LINE__, "call %u: %lx", i, e[i].result);
            break;
        }
}

/* The last frames of RAM, which nothing uses, are given back and taken again. */
static struct xen_memory_reservation reservation = {
    .extent_start.p = (void *)list, .nr_extents = NR_FRAMES, .domid = DOMID_SELF,
};
static uint64_t last_frame;

static void frames_prepare(void)
{
    uint64_t *mfn = (void *)list;

    for (unsigned i = 0; i < NR_FRAMES; i++)
        mfn[i] = ((const uint64_t *)pv_start_info->mfn_list)[pv_start_info->nr_pages - 1 - i];
    last_frame = mfn[NR_FRAMES - 1];
}

static bool frame_given(void)
{
    return *(const volatile uint64_t *)&PV_M2P[last_frame] == ~(uint64_t)0;
}

static void frames_run(void)
{
    uint64_t *pfn = (void *)list;

    CHECK_EQ(PV_CALL(memory_op, XENMEM_decrease_reservation, &reservation), NR_FRAMES);
    current = NULL;
    for (unsigned i = 0; i < NR_FRAMES; i++)
        pfn[i] = pv_start_info->nr_pages - 1 - i;
    CHECK_EQ(PV_CALL(memory_op, XENMEM_populate_physmap, &reservation), NR_FRAMES);
    for (unsigned i = 0; i < NR_FRAMES; i++)
        if (PV_M2P[pfn[i]] != pv_start_info->nr_pages - 1 - i) {
            pv_fail(__FILE__, __LINE__, "frame %u is %lx", i, PV_M2P[pfn[i]]);
            break;
        } else {
            ((uint64_t *)pv_start_info->mfn_list)[pv_start_info->nr_pages - 1 - i] = pfn[i];
        }
}

static const struct batch batches[] = {
    { "mmuext_op", __HYPERVISOR_mmuext_op, ext_prepare, ext_run, page_cleared },
    { "mmu_update", __HYPERVISOR_mmu_update, updates_prepare, updates_run, update_done },
    { "grant copies", __HYPERVISOR_grant_table_op, copies_prepare, copies_run, page_cleared },
    { "multicall", __HYPERVISOR_multicall, calls_prepare, calls_run, page_cleared },
    { "frames", __HYPERVISOR_memory_op, frames_prepare, frames_run, frame_given },
};

/* Once to see how long it takes, then with a timer at some part of that. */
static void check(const struct batch *b)
{
    uint64_t begin, ns;

    b->prepare();
    begin = pv_time_ns();
    b->run();
    ns = pv_time_ns() - begin;
    CHECK(b->last_done() || b->run == frames_run);
    nr_within = 0;
    for (unsigned try = 2; !nr_within && try < 2 + TRIES; try++) {
        b->prepare();
        came = false;
        current = b;
        CHECK_EQ(PV_CALL(set_timer_op, pv_time_ns() + ns / try), 0);
        b->run();
        current = NULL;
        for (begin = pv_time_ns(); !*(volatile bool *)&came && pv_time_ns() < begin + ns; )
            cpu_relax();
        PV_CALL(set_timer_op, 0);
    }
    if (!nr_within)
        pv_fail(__FILE__, __LINE__, "%s: %lu ns, and no event within", b->name, ns);
}

void test_main(void)
{
    struct evtchn_bind_virq virq = { .virq = VIRQ_TIMER };

    busy = pv_page();
    last = pv_page();
    pv_event_handler = tick;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_stop_periodic_timer, 0, 0), 0);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_virq, &virq), 0);
    timer_port = virq.port;
    fetch_and(&pv_shared->evtchn_mask[0], ~((uint64_t)1 << timer_port));
    *pv_event_mask() = 0;
    for (unsigned i = 0; i < array_size(batches); i++)
        check(&batches[i]);
}
