/* SPDX-License-Identifier: MIT */
/* Long hypercalls in parts, so that no batch holds events off for long.
 *
 * The shim runs with interrupts off.  A call that goes through a list looks at the time
 * now and then, and after BATCH_NS stops: the arguments become those of a call for what is
 * left, and the vCPU goes back to the guest to make that call, to its SYSCALL instruction.
 * On the way interrupts are taken and events delivered, as at any return.  Xen does it in
 * the same way (hypercall_create_continuation), and its ABI lets it: a guest does not count
 * on registers of arguments afterwards, and some calls say in their arguments where to go
 * on.  A part does one element at least, so a call ends however short of time it is.
 *
 * EVTCHNOP_reset, which has no list, stops by itself after so many ports (evtchn.c).
 *
 * A multicall stops between its calls.  A call of its that stops leaves its new arguments
 * in the list, where it stays first in line. */
#include "shim/shim.h"

#define BATCH_NS 250000

/* How much is done between looks at the time. */
#define BATCH_LOOK_COST 16

bool batch_over(struct shim_batch *b, unsigned cost)
{
    uint64_t now;

    b->cost += cost;
    if (b->cost < BATCH_LOOK_COST)
        return false;
    b->cost = 0;
    now = time_now_ns();
    if (!b->end_ns)
        b->end_ns = now + BATCH_NS;
    b->over = now >= b->end_ns;
    return b->over;
}

int64_t hypercall_again(struct shim_vcpu *v, uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2,
                        uint64_t a3)
{
    v->again = true;
    v->again_nr = nr;
    v->again_arg[0] = a0;
    v->again_arg[1] = a1;
    v->again_arg[2] = a2;
    v->again_arg[3] = a3;
    return 0;
}
