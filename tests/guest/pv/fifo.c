/* SPDX-License-Identifier: MIT */
/* The FIFO event-channel ABI: what is refused, order, priorities, masks, a control block
 * for each vCPU, garbage where Xen writes, the way back to the 2-level ABI, all ports
 * there are, and another vCPU that takes events as they are sent. */
#include "pv.h"

#include "base/atomic.h"

#include <xen/memory.h>

#define RESET_CONT 14               /* EVTCHNOP_reset_cont, by which Xen goes on with one */
#define WORDS_PER_PAGE 1024
#define NR_WORDS  EVTCHN_FIFO_NR_CHANNELS
#define PENDING   ((event_word_t)1 << EVTCHN_FIFO_PENDING)
#define MASKED    ((event_word_t)1 << EVTCHN_FIFO_MASKED)
#define LINKED    ((event_word_t)1 << EVTCHN_FIFO_LINKED)
#define NR_VCPUS  2
#define RACE_PORTS  3
#define RACE_ROUNDS 5000

static event_word_t words[NR_WORDS] __attribute__((aligned(4096)));
static uint8_t control_page[NR_VCPUS][4096] __attribute__((aligned(4096)));
static struct evtchn_fifo_control_block *control[NR_VCPUS];

/* the kernel's own: queues it is in the middle of, and what it has taken */
static uint32_t head[NR_VCPUS][EVTCHN_FIFO_MAX_QUEUES], ready[NR_VCPUS];
static unsigned nr_upcalls, nr_taken;
static uint32_t taken[16];

/* ---- calls ---- */

static int64_t control_add(unsigned vcpu, uint64_t gfn, uint32_t offset)
{
    struct evtchn_init_control op = { .control_gfn = gfn, .offset = offset, .vcpu = vcpu };
    int64_t rc = PV_CALL(event_channel_op, EVTCHNOP_init_control, &op);

    if (!rc)
        CHECK_EQ(op.link_bits, EVTCHN_FIFO_LINK_BITS);
    return rc;
}

static int64_t words_add(unsigned page)
{
    struct evtchn_expand_array op = { .array_gfn = pv_mfn(&words[page * WORDS_PER_PAGE]) };

    return PV_CALL(event_channel_op, EVTCHNOP_expand_array, &op);
}

static int64_t priority_set(uint32_t port, uint32_t priority)
{
    struct evtchn_set_priority op = { .port = port, .priority = priority };

    return PV_CALL(event_channel_op, EVTCHNOP_set_priority, &op);
}

static int64_t reset(void)
{
    struct evtchn_reset op = { .dom = DOMID_SELF };

    return PV_CALL(event_channel_op, EVTCHNOP_reset, &op);
}

static uint32_t bind_ipi(unsigned vcpu)
{
    struct evtchn_bind_ipi op = { .vcpu = vcpu };

    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_ipi, &op), 0);
    return op.port;
}

/* ---- taking events, as event_channel.h says ---- */

static uint32_t event_take(unsigned vcpu)
{
    uint32_t q, port, w;

    ready[vcpu] |= swap_acq_rel(&control[vcpu]->ready, 0);
    if (!ready[vcpu])
        return 0;
    q = (uint32_t)__builtin_ctz(ready[vcpu]);
    port = head[vcpu][q] ? head[vcpu][q] : load_acquire(&control[vcpu]->head[q]);
    CHECK(port && port < NR_WORDS);
    w = load_acquire(&words[port]);
    while (!__atomic_compare_exchange_n(&words[port], &w, w & ~(LINKED | EVTCHN_FIFO_LINK_MASK),
                                        false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
        ;
    head[vcpu][q] = w & EVTCHN_FIFO_LINK_MASK;
    if (!head[vcpu][q])
        ready[vcpu] &= ~((uint32_t)1 << q);
    if (load_acquire(&words[port]) & MASKED)
        return UINT32_MAX;
    return fetch_and(&words[port], ~PENDING) & PENDING ? port : UINT32_MAX;
}

static void upcall(struct pv_regs *r)
{
    uint32_t port;

    nr_upcalls++;
    while (swap_acq_rel(&pv_shared->vcpu_info[0].evtchn_upcall_pending, 0))
        while ((port = event_take(0)))
            if (port != UINT32_MAX && nr_taken < array_size(taken))
                taken[nr_taken++] = port;
}

/* What upcalls have taken since, in this order and no more. */
static void check_taken(unsigned upcalls, const uint32_t *ports, unsigned nr)
{
    CHECK_EQ(nr_upcalls, upcalls);
    CHECK_EQ(nr_taken, nr);
    for (unsigned i = 0; i < nr && i < nr_taken; i++)
        CHECK_EQ(taken[i], ports[i]);
    nr_upcalls = nr_taken = 0;
}

/* ---- the trials ---- */

static void check_refused(uint32_t port)
{
    uint8_t *gone = pv_page();
    uint64_t gone_mfn = pv_mfn(gone), mfn = pv_mfn(control_page[0]);
    struct xen_memory_reservation give = {
        .extent_start.p = &gone_mfn, .nr_extents = 1, .domid = DOMID_SELF,
    };

    CHECK_EQ(words_add(0), -XEN_EOPNOTSUPP);
    CHECK_EQ(priority_set(port, 1), -XEN_ENOSYS);
    CHECK_EQ(control_add(NR_VCPUS, mfn, 0), -XEN_ENOENT);
    CHECK_EQ(control_add(0, mfn, 4), -XEN_EINVAL);
    CHECK_EQ(control_add(0, mfn, 4032), -XEN_EINVAL);
    CHECK_EQ(control_add(0, mfn, 0xfffffff8), -XEN_EINVAL);
    CHECK_EQ(control_add(0, ~(uint64_t)0, 0), -XEN_EINVAL);
    CHECK_EQ(control_add(0, mfn | (uint64_t)1 << 52, 0), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(update_va_mapping, gone, 0, UVMF_INVLPG), 0);
    CHECK_EQ(PV_CALL(memory_op, XENMEM_decrease_reservation, &give), 1);
    CHECK_EQ(control_add(0, gone_mfn, 0), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_init_control, 0x123456789000), -XEN_EFAULT);
}

/* Offsets differ, so that a mix-up shows. */
static void fifo_begin(void)
{
    for (unsigned vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
        control[vcpu] = (void *)(control_page[vcpu] + (vcpu ? 4024 : 8));
        CHECK_EQ(control_add(vcpu, pv_mfn(control_page[vcpu]), vcpu ? 4024 : 8), 0);
        CHECK_EQ(control_add(vcpu, pv_mfn(control_page[vcpu]), 0), -XEN_EINVAL);
        ready[vcpu] = 0;
        __builtin_memset(head[vcpu], 0, sizeof(head[vcpu]));
    }
}

static void check_order(const uint32_t *p)
{
    const uint32_t first[] = { p[2], p[0], p[1] }, by_priority[] = { p[1], p[2], p[0] };

    *pv_event_mask() = 1;
    CHECK_EQ(pv_evtchn_send(p[2]), 0);
    CHECK_EQ(pv_evtchn_send(p[0]), 0);
    CHECK_EQ(pv_evtchn_send(p[2]), 0);
    CHECK_EQ(pv_evtchn_send(p[1]), 0);
    CHECK_EQ(words[p[2]], PENDING | LINKED | p[0]);
    CHECK_EQ(words[p[1]], PENDING | LINKED);
    CHECK_EQ(control[0]->head[EVTCHN_FIFO_PRIORITY_DEFAULT], p[2]);
    CHECK_EQ(control[0]->ready, 1 << EVTCHN_FIFO_PRIORITY_DEFAULT);
    *pv_event_mask() = 0;
    PV_CALL(xen_version, 0, 0);
    check_taken(1, first, 3);

    CHECK_EQ(priority_set(p[0], 16), -XEN_EINVAL);
    CHECK_EQ(priority_set(NR_WORDS, 1), -XEN_EINVAL);
    CHECK_EQ(priority_set(0, 1), -XEN_EACCES);
    CHECK_EQ(priority_set(p[0], EVTCHN_FIFO_PRIORITY_MIN), 0);
    CHECK_EQ(priority_set(p[1], EVTCHN_FIFO_PRIORITY_MAX), 0);
    *pv_event_mask() = 1;
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(pv_evtchn_send(p[i]), 0);
    CHECK_EQ(control[0]->ready, 1 << EVTCHN_FIFO_PRIORITY_MIN | 1 << EVTCHN_FIFO_PRIORITY_MAX |
             1 << EVTCHN_FIFO_PRIORITY_DEFAULT);
    *pv_event_mask() = 0;
    PV_CALL(xen_version, 0, 0);
    check_taken(1, by_priority, 3);
}

static void check_masks(const uint32_t *p)
{
    CHECK_EQ(pv_evtchn_send(p[0]), 0);
    check_taken(1, &p[0], 1);           /* before the call is back */
    fetch_or(&words[p[0]], MASKED);
    CHECK_EQ(pv_evtchn_send(p[0]), 0);
    CHECK_EQ(words[p[0]], PENDING | MASKED);
    check_taken(0, NULL, 0);
    CHECK_EQ(pv_evtchn_unmask(p[0]), 0);
    CHECK_EQ(words[p[0]], 0);
    check_taken(1, &p[0], 1);
    CHECK_EQ(pv_evtchn_unmask(p[0]), 0);
    check_taken(0, NULL, 0);
    /* masked where it stands: taken off the list, and kept */
    *pv_event_mask() = 1;
    CHECK_EQ(pv_evtchn_send(p[1]), 0);
    fetch_or(&words[p[1]], MASKED);
    *pv_event_mask() = 0;
    PV_CALL(xen_version, 0, 0);
    check_taken(1, NULL, 0);
    CHECK_EQ(pv_evtchn_unmask(p[1]), 0);
    check_taken(1, &p[1], 1);
    /* closed on its list: not given away again before it is taken off */
    *pv_event_mask() = 1;
    CHECK_EQ(pv_evtchn_send(p[0]), 0);
    CHECK_EQ(pv_evtchn_close(p[0]), 0);
    CHECK_EQ(words[p[0]], LINKED);
    CHECK(bind_ipi(0) != p[0]);
    *pv_event_mask() = 0;
    PV_CALL(xen_version, 0, 0);
    check_taken(1, NULL, 0);
    CHECK_EQ(bind_ipi(0), p[0]);
}

static void check_poll(evtchn_port_t port)
{
    struct sched_poll p = { .ports.p = &port, .nr_ports = 1 };

    fetch_or(&words[port], MASKED);
    CHECK_EQ(pv_evtchn_send(port), 0);
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), 0);
    fetch_and(&words[port], ~PENDING);
    p.timeout = pv_time_ns() + 20000000;
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), 0);
    CHECK(pv_time_ns() >= p.timeout);
    CHECK_EQ(pv_evtchn_unmask(port), 0);
    check_taken(0, NULL, 0);
}

/* The block of the vCPU an event is bound to, though that is not up; where a port was
 * linked last does not matter to where it goes next. */
static void check_other_vcpu(void)
{
    struct evtchn_alloc_unbound un = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };
    struct evtchn_bind_interdomain inter = { .remote_dom = DOMID_SELF };
    struct evtchn_bind_vcpu bind = { .vcpu = 1 };
    uint32_t ipi = bind_ipi(1);

    CHECK_EQ(pv_evtchn_send(ipi), 0);
    CHECK_EQ(control[1]->head[EVTCHN_FIFO_PRIORITY_DEFAULT], ipi);
    CHECK_EQ(control[1]->ready, 1 << EVTCHN_FIFO_PRIORITY_DEFAULT);
    CHECK_EQ(pv_shared->vcpu_info[1].evtchn_upcall_pending, 1);
    CHECK_EQ(event_take(1), ipi);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_alloc_unbound, &un), 0);
    inter.remote_port = un.port;
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_interdomain, &inter), 0);
    check_taken(1, &inter.local_port, 1);
    bind.port = inter.local_port;
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_vcpu, &bind), 0);
    CHECK_EQ(pv_evtchn_send(un.port), 0);
    check_taken(0, NULL, 0);
    CHECK_EQ(event_take(1), inter.local_port);
    CHECK_EQ(event_take(1), 0);
}

static uint32_t random_next(void)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

/* Xen may do anything with these events but harm itself. */
static void check_garbage(const uint32_t *p)
{
    *pv_event_mask() = 1;
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t port = p[i % 3], junk = random_next();

        store_relaxed(&words[port], i & 64 ? LINKED | port : junk);
        store_relaxed(&control[i & 1]->head[junk & 15], random_next());
        store_relaxed(&control[i & 1]->ready, i & 2 ? random_next() : 0);
        CHECK_EQ(pv_evtchn_send(port), 0);
        CHECK_EQ(priority_set(port, junk >> 8 & 15), 0);
        if (i % 5 == 0)
            CHECK_EQ(pv_evtchn_unmask(port), 0);
        if (i % 97 == 0) {
            CHECK_EQ(pv_evtchn_close(port), 0);
            store_relaxed(&words[port], 0);
            CHECK_EQ(bind_ipi(i & 1), port);
        }
    }
}

static void check_2_level_again(void)
{
    uint32_t port;

    CHECK_EQ(reset(), 0);
    __builtin_memset(words, 0, sizeof(words));
    __builtin_memset(control_page, 0, sizeof(control_page));
    pv_shared->vcpu_info[0].evtchn_upcall_pending = 0;
    CHECK_EQ(words_add(0), -XEN_EOPNOTSUPP);
    port = bind_ipi(0);
    CHECK_EQ(port, 1);
    CHECK_EQ(pv_evtchn_send(port), 0);
    CHECK_EQ(pv_shared->evtchn_pending[0], 2);
    CHECK_EQ(pv_shared->vcpu_info[0].evtchn_pending_sel, 1);
    CHECK_EQ(words[port], 0);
    CHECK_EQ(control[0]->ready, 0);
}

/* With what the 2-level ABI had pending on port 1. */
static void check_all_ports(void)
{
    struct evtchn_bind_ipi ipi = { .vcpu = 0 };
    struct evtchn_reset self = { .dom = DOMID_SELF };
    uint32_t port;

    fifo_begin();
    CHECK_EQ(words_add(0), 0);
    CHECK_EQ(words[1], PENDING | LINKED);
    CHECK_EQ(event_take(0), 1);
    for (unsigned page = 1; page < NR_WORDS / WORDS_PER_PAGE; page++)
        CHECK_EQ(words_add(page), 0);
    CHECK_EQ(words_add(0), -XEN_ENOSPC);
    for (port = 2; port < NR_WORDS; port++)
        if (bind_ipi(0) != port)
            break;
    CHECK_EQ(port, NR_WORDS);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_ipi, &ipi), -XEN_ENOSPC);
    for (port = NR_WORDS - 1; port < NR_WORDS; port -= 2)
        CHECK_EQ(pv_evtchn_send(port), 0);
    for (port = NR_WORDS - 1; port < NR_WORDS; port -= 2)
        if (event_take(0) != port)
            break;
    CHECK_EQ(port, UINT32_MAX);         /* each odd one was taken, down to 1 */
    CHECK_EQ(event_take(0), 0);
    CHECK_EQ(reset(), 0);
    CHECK_EQ(PV_CALL(event_channel_op, RESET_CONT, &self), -XEN_EBUSY);
    CHECK_EQ(bind_ipi(0), 1);
}

/* ---- a second vCPU takes what this one sends ---- */

static evtchn_port_t race_port[RACE_PORTS];
static uint32_t race_sent[RACE_PORTS], race_seen[RACE_PORTS];
static uint32_t race_over;

static void race_take(void)
{
    struct sched_poll p = { .ports.p = race_port, .nr_ports = RACE_PORTS };

    while (!load_acquire(&race_over)) {
        uint32_t port = event_take(1);

        for (unsigned i = 0; i < RACE_PORTS; i++)
            if (port == race_port[i])
                store_release(&race_seen[i], load_acquire(&race_sent[i]));
        if (!port)
            CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), 0);
    }
    for (;;)
        PV_CALL(vcpu_op, VCPUOP_down, 1, 0);
}

static void race_begin(void)
{
    pv_vcpu_start(race_take);
}

/* Masked and unmasked while they come, at any priority: the last one is taken. */
static void check_race(void)
{
    uint64_t end = pv_time_ns() + 60000000000ull;

    __builtin_memset(words, 0, sizeof(words));
    __builtin_memset(control_page, 0, sizeof(control_page));
    fifo_begin();
    CHECK_EQ(words_add(0), 0);
    pv_shared->vcpu_info[1].evtchn_upcall_mask = 1;
    for (unsigned i = 0; i < RACE_PORTS; i++)
        race_port[i] = bind_ipi(1);
    race_begin();
    for (unsigned n = 0; n < RACE_ROUNDS; n++) {
        unsigned i = n % RACE_PORTS;

        store_release(&race_sent[i], n);
        if (n % 7 == 0)
            fetch_or(&words[race_port[i]], MASKED);
        if (n % 11 == 0)
            CHECK_EQ(priority_set(race_port[i], n & 15), 0);
        CHECK_EQ(pv_evtchn_send(race_port[i]), 0);
        if (n % 7 == 0)
            CHECK_EQ(pv_evtchn_unmask(race_port[i]), 0);
        if (n % 32 == 0)
            while (load_acquire(&race_seen[i]) != n && pv_time_ns() < end)
                PV_CALL(sched_op, SCHEDOP_yield, 0);
    }
    for (unsigned i = 0; i < RACE_PORTS; i++) {
        while (load_acquire(&race_seen[i]) != race_sent[i] && pv_time_ns() < end)
            PV_CALL(sched_op, SCHEDOP_yield, 0);
        CHECK_EQ(race_seen[i], race_sent[i]);
    }
    store_release(&race_over, 1);
    CHECK_EQ(pv_evtchn_send(race_port[0]), 0);
    while (PV_CALL(vcpu_op, VCPUOP_is_up, 1, 0))
        PV_CALL(sched_op, SCHEDOP_yield, 0);
}

void test_main(void)
{
    uint32_t p[3] = { bind_ipi(0), bind_ipi(0), bind_ipi(0) };

    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_stop_periodic_timer, 0, 0), 0);
    check_refused(p[0]);
    pv_event_handler = upcall;
    fifo_begin();
    CHECK_EQ(words_add(0), 0);
    pv_shared->vcpu_info[0].evtchn_upcall_pending = 0;
    *pv_event_mask() = 0;
    check_order(p);
    check_masks(p);
    check_poll(p[2]);
    check_other_vcpu();
    check_garbage(p);
    check_2_level_again();
    check_all_ports();
    check_race();
}
