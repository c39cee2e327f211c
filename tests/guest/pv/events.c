/* SPDX-License-Identifier: MIT */
/* Event channels on one vCPU: sending, masking, polling, blocking. */
#include "pv.h"

#include "base/atomic.h"

#include <xen/callback.h>

static unsigned nr_upcalls;
static uint64_t ports_seen;

static struct vcpu_info *vi(void)
{
    return &pv_shared->vcpu_info[0];
}

/* Takes what is pending, as any kernel does. */
static void upcall(struct pv_regs *r)
{
    nr_upcalls++;
    CHECK_EQ(*pv_event_mask(), 1);
    while (__atomic_exchange_n(&vi()->evtchn_upcall_pending, 0, __ATOMIC_SEQ_CST)) {
        uint64_t words = __atomic_exchange_n(&vi()->evtchn_pending_sel, 0, __ATOMIC_SEQ_CST);

        for (; words; words &= words - 1) {
            unsigned w = (unsigned)__builtin_ctzll(words);
            uint64_t bits = pv_shared->evtchn_pending[w] & ~pv_shared->evtchn_mask[w];

            fetch_and(&pv_shared->evtchn_pending[w], ~bits);
            if (w == 0)
                ports_seen |= bits;
        }
    }
}

static uint32_t bind_ipi(void)
{
    struct evtchn_bind_ipi b = { .vcpu = 0 };

    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_ipi, &b), 0);
    return b.port;
}

static void clear_port(uint32_t port)
{
    fetch_and(&pv_shared->evtchn_pending[0], ~((uint64_t)1 << port));
}

static void check_send(uint32_t port)
{
    nr_upcalls = 0;
    ports_seen = 0;
    *pv_event_mask() = 0;
    fetch_and(&pv_shared->evtchn_mask[0], ~((uint64_t)1 << port));
    CHECK_EQ(pv_evtchn_send(port), 0);
    CHECK_EQ(nr_upcalls, 1);            /* before the call is back */
    CHECK_EQ(ports_seen, (uint64_t)1 << port);
    CHECK_EQ(*pv_event_mask(), 0);      /* the iret has undone it */

    /* all events masked: pending until Xen is next asked */
    *pv_event_mask() = 1;
    CHECK_EQ(pv_evtchn_send(port), 0);
    CHECK_EQ(nr_upcalls, 1);
    CHECK_EQ(vi()->evtchn_upcall_pending, 1);
    *pv_event_mask() = 0;
    CHECK_EQ(PV_CALL(xen_version, 0, 0) >> 16, 4);
    CHECK_EQ(nr_upcalls, 2);

    /* the port masked: pending until it is unmasked */
    fetch_or(&pv_shared->evtchn_mask[0], (uint64_t)1 << port);
    CHECK_EQ(pv_evtchn_send(port), 0);
    CHECK_EQ(nr_upcalls, 2);
    CHECK_EQ(pv_shared->evtchn_pending[0] >> port & 1, 1);
    CHECK_EQ(pv_evtchn_unmask(port), 0);
    CHECK_EQ(nr_upcalls, 3);
    CHECK_EQ(pv_shared->evtchn_mask[0] >> port & 1, 0);

    CHECK_EQ(pv_evtchn_close(port), 0);
    CHECK_EQ(pv_evtchn_send(port), -XEN_EINVAL);
    CHECK_EQ(pv_evtchn_close(port), -XEN_EINVAL);
}

static void check_refused(void)
{
    struct evtchn_bind_virq virq = { .virq = VIRQ_TIMER };
    struct evtchn_bind_interdomain inter = { .remote_dom = 12345, .remote_port = 1 };
    struct evtchn_bind_vcpu vcpu = { .port = 4000, .vcpu = 0 };
    struct evtchn_alloc_unbound unbound = { .dom = DOMID_SELF, .remote_dom = 0 };
    struct evtchn_status status = { .dom = DOMID_SELF };
    struct evtchn_bind_ipi ipi = { .vcpu = 77 };

    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_virq, &virq), 0);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_virq, &virq), -XEN_EEXIST);
    status.port = virq.port;
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_status, &status), 0);
    CHECK_EQ(status.status, EVTCHNSTAT_virq);
    CHECK_EQ(status.u.virq, VIRQ_TIMER);
    CHECK_EQ(pv_evtchn_close(virq.port), 0);
    virq.virq = 24;
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_virq, &virq), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_interdomain, &inter), -XEN_ESRCH);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_vcpu, &vcpu), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_ipi, &ipi), -XEN_ENOENT);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_alloc_unbound, &unbound), 0);
    CHECK_EQ(pv_evtchn_close(unbound.port), 0);
    CHECK_EQ(pv_evtchn_send(0), -XEN_EINVAL);
    CHECK_EQ(pv_evtchn_send(0xffffffff), -XEN_EINVAL);
    CHECK_EQ(pv_evtchn_unmask(0xffffffff), -XEN_EINVAL);
}

static void check_poll(void)
{
    evtchn_port_t port = bind_ipi();
    struct sched_poll p = { .ports.p = &port, .nr_ports = 1 };
    uint64_t before;

    *pv_event_mask() = 1;
    fetch_or(&pv_shared->evtchn_mask[0], (uint64_t)1 << port);
    CHECK_EQ(pv_evtchn_send(port), 0);
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), 0);       /* pending already: no wait */
    clear_port(port);
    before = pv_time_ns();
    p.timeout = before + 20000000;
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), 0);
    CHECK(pv_time_ns() >= p.timeout);
    p.timeout = before;                                     /* long past */
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), 0);
    p.nr_ports = 129;
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), -XEN_EINVAL);
    p.nr_ports = 1;
    p.ports.p = (void *)0x123456789000;
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), -XEN_EFAULT);
    p.ports.p = &port;
    port = 0x7fffffff;
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), -XEN_EINVAL);
}

/* block unmasks events and waits for one, here the timer's */
static void check_block(void)
{
    struct evtchn_bind_virq virq = { .virq = VIRQ_TIMER };
    struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = pv_time_ns() + 20000000 };

    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_virq, &virq), 0);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_stop_periodic_timer, 0, 0), 0);
    *pv_event_mask() = 1;
    clear_port(virq.port);
    vi()->evtchn_upcall_pending = 0;
    vi()->evtchn_pending_sel = 0;
    fetch_and(&pv_shared->evtchn_mask[0], ~((uint64_t)1 << virq.port));
    ports_seen = 0;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_set_singleshot_timer, 0, &t), 0);
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_block, 0), 0);
    CHECK_EQ(ports_seen, (uint64_t)1 << virq.port);
    CHECK(pv_time_ns() >= t.timeout_abs_ns);
    CHECK_EQ(*pv_event_mask(), 0);
    CHECK_EQ(pv_evtchn_close(virq.port), 0);
}

static void check_nmi(void)
{
    *pv_event_mask() = 0;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_send_nmi, 0, 0), 0);
    CHECK_EQ(pv_nr_nmis, 1);
    CHECK_EQ(pv_nmi_mask, 1);           /* events have to wait meanwhile */
    CHECK_EQ(*pv_event_mask(), 0);
    *pv_event_mask() = 1;               /* which is nothing to an NMI */
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_send_nmi, 0, 0), 0);
    CHECK_EQ(pv_nr_nmis, 2);
}

/* Without a handler it is lost: it does not end a wait. */
static void check_nmi_lost(void)
{
    struct callback_unregister un = { .type = CALLBACKTYPE_nmi };
    evtchn_port_t port = bind_ipi();
    struct sched_poll p = { .ports.p = &port, .nr_ports = 1 };

    CHECK_EQ(PV_CALL(callback_op, CALLBACKOP_unregister, &un), 0);
    un.type = CALLBACKTYPE_event;
    CHECK_EQ(PV_CALL(callback_op, CALLBACKOP_unregister, &un), -XEN_EINVAL);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_send_nmi, 0, 0), 0);
    p.timeout = pv_time_ns() + 20000000;
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), 0);
    CHECK(pv_time_ns() >= p.timeout);
    CHECK_EQ(pv_nr_nmis, 2);
}

/* The xl.cfg has max_event_channels=9: port 9 is the last one, whatever the ABI has. */
static void check_limit(void)
{
    struct evtchn_bind_ipi b = { .vcpu = 0 };
    uint32_t last = 0;
    int64_t rc;

    while (!(rc = PV_CALL(event_channel_op, EVTCHNOP_bind_ipi, &b)))
        last = b.port;
    CHECK_EQ(rc, -XEN_ENOSPC);
    CHECK_EQ(last, 9);
}

void test_main(void)
{
    pv_event_handler = upcall;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_stop_periodic_timer, 0, 0), 0);
    if (pv_word("limit")) {
        check_limit();
        return;
    }
    check_send(bind_ipi());
    check_refused();
    check_poll();
    check_block();
    check_nmi();
    check_nmi_lost();
}
