/* SPDX-License-Identifier: MIT */
/* A second vCPU: contexts Xen refuses, its start, an event sent to it, its end and
 * its second beginning. */
#include "pv.h"

#include "base/atomic.h"

static struct vcpu_guest_context context;
static uint64_t steps;
static uint32_t port;

static uint64_t steps_after(uint64_t last)
{
    uint64_t end = pv_time_ns() + 20000000000ull;

    while (load_acquire(&steps) == last && pv_time_ns() < end)
        PV_CALL(sched_op, SCHEDOP_yield, 0);
    return load_acquire(&steps);
}

/* On the second vCPU: what it does, one step each time it is allowed to. */
static void second(void)
{
    struct sched_poll p = { .ports.p = &port, .nr_ports = 1 };

    store_release(&steps, 1);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_is_up, 1, 0), 1);
    CHECK_EQ(PV_CALL(sched_op, SCHEDOP_poll, &p), 0);
    CHECK_EQ(pv_shared->evtchn_pending[0] >> port & 1, 1);
    store_release(&steps, 2);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_down, 1, 0), 0);
    store_release(&steps, 3);                   /* once more up */
    for (;;)
        PV_CALL(vcpu_op, VCPUOP_down, 1, 0);
}

static int64_t initialise(unsigned vcpu)
{
    return PV_CALL(vcpu_op, VCPUOP_initialise, vcpu, &context);
}

static void check_refused(void)
{
    const struct vcpu_guest_context good = context;

    CHECK_EQ(initialise(2), -XEN_ENOENT);
    CHECK_EQ(initialise(0), -XEN_EEXIST);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_up, 1, 0), -XEN_EINVAL);
    context.user_regs.rip = 0x800000000000;
    CHECK_EQ(initialise(1), -XEN_EINVAL);
    context = good;
    context.fs_base = 0x800000000000;
    CHECK_EQ(initialise(1), -XEN_EINVAL);
    context = good;
    context.gs_base_user = ~(uint64_t)0 << 60;
    CHECK_EQ(initialise(1), -XEN_EINVAL);
    context = good;
    context.ctrlreg[3] = ~(uint64_t)0 << 50;
    CHECK_EQ(initialise(1), -XEN_EINVAL);
    context = good;
    context.gdt_ents = 8000;
    CHECK_EQ(initialise(1), -XEN_EINVAL);
    context = good;
    context.ldt_base = 0xffff808000000000;
    context.ldt_ents = 1;
    CHECK_EQ(initialise(1), -XEN_EINVAL);
    context = good;
    context.trap_ctxt[3].address = 0x800000000000;
    CHECK_EQ(initialise(1), -XEN_EINVAL);
    context = good;
    context.syscall_callback_eip = 0x800000000000;
    CHECK_EQ(initialise(1), -XEN_EINVAL);
    context = good;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_is_up, 1, 0), 0);
}

void test_main(void)
{
    struct evtchn_bind_ipi ipi = { .vcpu = 1 };

    pv_vcpu_context(&context, second);
    context.debugreg[7] = 0x2000;               /* what Xen drops */
    for (unsigned i = 0; i < 32; i++)
        context.trap_ctxt[i] = (struct trap_info){ .vector = (uint8_t)i, .cs = FLAT_KERNEL_CS,
                                                   .address = (uint64_t)pv_entries[i] };
    check_refused();

    CHECK_EQ(initialise(1), 0);
    CHECK_EQ(initialise(1), -XEN_EEXIST);
    CHECK_EQ(PV_CALL(event_channel_op, EVTCHNOP_bind_ipi, &ipi), 0);
    port = ipi.port;
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_is_up, 1, 0), 0);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_up, 1, 0), 0);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_is_up, 1, 0), 1);
    CHECK_EQ(steps_after(0), 1);
    CHECK_EQ(pv_evtchn_send(port), 0);
    CHECK_EQ(steps_after(1), 2);
    while (PV_CALL(vcpu_op, VCPUOP_is_up, 1, 0))
        PV_CALL(sched_op, SCHEDOP_yield, 0);
    CHECK_EQ(load_acquire(&steps), 2);
    CHECK_EQ(PV_CALL(vcpu_op, VCPUOP_up, 1, 0), 0);
    CHECK_EQ(steps_after(2), 3);
}
