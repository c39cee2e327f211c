/* SPDX-License-Identifier: MIT */
/* Other guests on this host, which the process knows, by calls that leave the VM. */
#include "shim/cpu.h"
#include "shim/shim.h"

void peer_call(struct shim_vcpu *v, struct shim_peer_call *c)
{
    __builtin_memcpy(v->status->text, c, sizeof(*c));
    io_out32(SHIM_IO_PEER, sizeof(*c));
    __builtin_memcpy(c, v->status->text, sizeof(*c));
}

bool peer_exists(domid_t domid)
{
    struct shim_peer_call c = { .op = SHIM_PEER_EXISTS, .domid = domid };

    peer_call(shim_vcpu_current(), &c);
    return !c.result;
}
