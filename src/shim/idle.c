/* SPDX-License-Identifier: MIT */
/* A vCPU with nothing to do polls for a while before it halts: what comes then
 * costs neither an exit of the VM, nor an interrupt, nor a wake-up on the host.  It
 * says what it does in its struct xen_hostwaker, and whoever has news for it, another
 * vCPU (event.c) or the host (xen/hostport.h), leaves the interrupt out while it polls.
 *
 * For how long is learnt, as KVM's halt_poll_ns is: what came after t ns makes the
 * window 2 t, if that is not longer than a wait may be; polling in vain halves it,
 * and it is given up below IDLE_POLL_MIN_NS.  What it may cost at most is counted in
 * exits, since exits are what it saves: they take a microsecond on a processor, forty
 * in an emulator.  Polling takes the processor from whoever else the host has for it:
 * where more want one than there are (xen/hostload.h) the vCPU halts at once, and a step
 * that took long ends it, since somebody else had the processor. */
#include "shim/cpu.h"
#include "shim/shim.h"

#define IDLE_POLL_MAX_EXITS 64
#define IDLE_POLL_GAP_EXITS 16
#define IDLE_POLL_MIN_NS    8000u
/* Bounds on what an exit is taken to cost, and how often it is measured. */
#define EXIT_MIN_NS  1500u
#define EXIT_MAX_NS  50000u
#define EXIT_SAMPLES 8

/* CPUID leaves the VM on every processor. */
void idle_init(struct shim_vcpu *v)
{
    uint64_t least = EXIT_MAX_NS;

    for (unsigned i = 0; i < EXIT_SAMPLES; i++) {
        uint64_t began_ns = time_now_ns();

        cpu_cpuid_leave();
        least = min_of(least, time_now_ns() - began_ns);
    }
    v->exit_ns = (uint32_t)max_of(least, (uint64_t)EXIT_MIN_NS);
    store_relaxed(&v->waker->exit_ns, v->exit_ns);
}

static uint32_t window_max_ns(const struct shim_vcpu *v)
{
    return IDLE_POLL_MAX_EXITS * v->exit_ns;
}

static void window_grow(struct shim_vcpu *v, uint64_t waited_ns)
{
    uint32_t window_ns = (uint32_t)min_of(2 * waited_ns, (uint64_t)window_max_ns(v));

    v->idle_poll_ns = max_of(v->idle_poll_ns, window_ns);
}

static void window_shrink(struct shim_vcpu *v)
{
    v->idle_poll_ns = v->idle_poll_ns / 2 < IDLE_POLL_MIN_NS ? 0 : v->idle_poll_ns / 2;
}

/* From now on the host, and vcpu_kick(), treat the vCPU so; what came under the state
 * before it is seen now. */
static void state_change(struct shim_vcpu *v, enum xen_hostwaker_state state)
{
    store_relaxed(&v->waker->state, state);
    barrier_full();     /* pairs with xen_hostport_send() and vcpu_kick() */
    event_links_serve(v);
}

/* True when it was over before the window. */
static bool poll_window(struct shim_vcpu *v, idle_over *over, uint64_t began_ns)
{
    uint64_t last = began_ns, now;

    while (!over(v)) {
        now = time_now_ns();
        if (now - began_ns > v->idle_poll_ns || now - last > IDLE_POLL_GAP_EXITS * v->exit_ns)
            return false;
        last = now;
        cpu_interrupt_window();
        time_attend(v, now);
        event_links_serve(v);
    }
    return true;
}

static bool host_is_crowded(void)
{
    const struct shim_requests *q = shim_dm(SHIM_GPA + SHIM_OFF_REQUESTS);
    const struct xen_hostload_view view = {
        .load = &q->load, .wakers = shim_dm(SHIM_GPA + SHIM_OFF_WAKERS),
        .links = shim_domain.links, .nr_wakers = shim_domain.boot->nr_vcpus,
    };

    return xen_hostload_crowded(&view, 0);      /* the caller is marked as running */
}

static void poll_then_halt(struct shim_vcpu *v, idle_over *over)
{
    uint64_t began_ns = time_now_ns(), waited_ns;

    if (v->idle_poll_ns && !host_is_crowded()) {
        state_change(v, XEN_HOSTWAKER_POLLING);
        if (poll_window(v, over, began_ns)) {
            v->status->traps[SHIM_TRAP_IDLE_POLL]++;
            window_grow(v, time_now_ns() - began_ns);
            return;
        }
        window_shrink(v);
    }
    state_change(v, XEN_HOSTWAKER_HALTED);
    while (!over(v)) {
        v->status->traps[SHIM_TRAP_HALT]++;
        shim_halt();
    }
    waited_ns = time_now_ns() - began_ns;
    if (waited_ns < window_max_ns(v))
        window_grow(v, waited_ns);
}

void idle_wait(struct shim_vcpu *v, idle_over *over)
{
    event_links_serve(v);
    if (over(v))
        return;
    doorbell_flush(v);
    sched_runstate(v, RUNSTATE_blocked);
    store_relaxed(&v->idle, 1);
    store_relaxed(&v->status->blocked, 1);
    poll_then_halt(v, over);
    state_change(v, XEN_HOSTWAKER_RUNNING);
    store_relaxed(&v->status->blocked, 0);
    store_relaxed(&v->idle, 0);
    barrier_full();     /* pairs with tlb_flush_vcpus(): idle stored, wanted read */
    tlb_flush_serve(v);
    sched_runstate(v, RUNSTATE_running);
    sched_runstate_publish(v);
}
