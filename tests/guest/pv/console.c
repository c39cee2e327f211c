/* SPDX-License-Identifier: MIT */
/* The console ring: what is put there is seen, also when the ring wraps. */
#include "pv.h"

#include "base/atomic.h"

#include <xen/io/console.h>

static struct xencons_interface *ring;

static void notify(void)
{
    CHECK_EQ(pv_evtchn_send(pv_start_info->console.domU.evtchn), 0);
}

static void put(const char *text)
{
    for (; *text; text++) {
        while (load_relaxed(&ring->out_prod) - load_acquire(&ring->out_cons) ==
               sizeof(ring->out))
            PV_CALL(sched_op, SCHEDOP_yield, 0);
        ring->out[ring->out_prod % sizeof(ring->out)] = *text;
        store_release(&ring->out_prod, ring->out_prod + 1);
        if (*text == '\n')
            notify();
    }
}

void test_main(void)
{
    ring = pv_kernel_va(pv_start_info->console.domU.mfn);
    for (unsigned i = 0; i < 200; i++)
        put("ring line of thirty-two bytes..\n");
    put("the ring's last line\n");
    while (load_acquire(&ring->out_cons) != load_relaxed(&ring->out_prod))
        PV_CALL(sched_op, SCHEDOP_yield, 0);
}
