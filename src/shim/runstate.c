/* SPDX-License-Identifier: MIT */
/* How long a vCPU was in which state (struct vcpu_runstate_info, public/vcpu.h).
 *
 * The shim knows when its vCPU runs, waits or is not up, but not when the host's
 * scheduler keeps the thread from running: KVM counts that, into a record that it shares
 * with whoever asks (MSR_KVM_STEAL_TIME).  It writes only while the VM is out, before
 * the vCPU goes on, so the vCPU itself reads a record at rest.  What was counted while
 * a state lasted was not time in that state but waiting for a processor,
 * RUNSTATE_runnable, which guests show as steal time.  Where KVM does not count, no time
 * is stolen as far as anyone here can tell. */
#include "shim/cpu.h"
#include "shim/shim.h"

void sched_runstate_init(struct shim_vcpu *v)
{
    uint64_t gpa_addr = SHIM_GPA + SHIM_OFF_IMAGE + ((uint64_t)&v->steal - SHIM_IMAGE_VA);

    v->runstate.state_entry_time = time_now_ns();
    /* the first count is of the thread's whole life so far */
    if (!wrmsr_raw(MSR_KVM_STEAL_TIME, gpa_addr | 1))
        v->steal_seen_ns = load_relaxed(&v->steal.steal_ns);
}

/* A copy of the vCPU's states and times where the guest wants it. */
void sched_runstate_publish(struct shim_vcpu *v)
{
    struct vcpu_runstate_info copy = v->runstate;
    uint64_t entry_va = v->runstate_va + offsetof(struct vcpu_runstate_info, state_entry_time);

    if (!v->runstate_va)
        return;
    if (shim_domain.vm_assist >> VMASST_TYPE_runstate_update_flag & 1) {
        copy.state_entry_time |= XEN_RUNSTATE_UPDATE;
        guest_write(entry_va, &copy.state_entry_time, sizeof(copy.state_entry_time));
        barrier_full();
        guest_write(v->runstate_va, &copy, sizeof(copy));
        barrier_full();
        copy.state_entry_time &= ~XEN_RUNSTATE_UPDATE;
        guest_write(entry_va, &copy.state_entry_time, sizeof(copy.state_entry_time));
    } else {
        guest_write(v->runstate_va, &copy, sizeof(copy));
    }
}

/* What of elapsed_ns the vCPU waited for a processor.  One that is not up wants none. */
static uint64_t stolen_ns(struct shim_vcpu *v, uint64_t elapsed_ns)
{
    uint64_t steal_ns = load_relaxed(&v->steal.steal_ns);
    uint64_t stolen = min_of(steal_ns - v->steal_seen_ns, elapsed_ns);

    v->steal_seen_ns = steal_ns;
    return v->runstate.state == RUNSTATE_offline ? 0 : stolen;
}

void sched_runstate(struct shim_vcpu *v, int state)
{
    uint64_t now = time_now_ns(), elapsed_ns = now - v->runstate.state_entry_time;
    uint64_t stolen = stolen_ns(v, elapsed_ns);

    v->runstate.time[v->runstate.state] += elapsed_ns - stolen;
    v->runstate.time[RUNSTATE_runnable] += stolen;
    v->runstate.state = state;
    v->runstate.state_entry_time = now;
}

void sched_runstate_attend(struct shim_vcpu *v)
{
    if (likely(load_relaxed(&v->steal.steal_ns) == v->steal_seen_ns))
        return;
    sched_runstate(v, RUNSTATE_running);
    sched_runstate_publish(v);
}
