/* SPDX-License-Identifier: MIT */
/* What the processes of two guests say to each other: a request, a reply, one at a time,
 * each one packet.  The first packet of a connection, PEER_HELLO, has no reply.  Whose
 * guest has the port or the reference answers for it, so each judges what is its own. */
#ifndef XENOLITH_VM_PV_PEER_WIRE_H
#define XENOLITH_VM_PV_PEER_WIRE_H

#include "base/types.h"

#define PEER_WIRE_VERSION 1u

enum peer_msg_op {
    PEER_HELLO,     /* port: PEER_WIRE_VERSION; domid: who connects */
    PEER_BIND,      /* port, of the receiver's guest, to peer_port: 0, -EINVAL.  Both send the
                     * eventfd that their guest's sends signal */
    PEER_CLOSE,     /* peer_port has left port: 0 */
    PEER_HOLD,      /* ref, in use from now on, by write and copy: GNTST_*; hold, frame and what
                     * the entry says; with want_ram, the file that the frame is in */
    PEER_DROP,      /* hold: 0 */
};

struct peer_msg {
    uint32_t op;                /* enum peer_msg_op */
    int32_t result;
    uint32_t domid, port, peer_port;
    uint32_t ref, write, copy, want_ram;
    uint32_t hold, offset, length;
    uint32_t transitive, trans_domid, trans_ref, zero;
    uint64_t frame;             /* counted from the file's first */
};

#endif
