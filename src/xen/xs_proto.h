/* SPDX-License-Identifier: MIT */
/* Xen's wire protocol header, which expects others before it, and what Xenolith
 * adds to the protocol. */
#ifndef XENOLITH_XEN_XS_PROTO_H
#define XENOLITH_XEN_XS_PROTO_H

#include <errno.h>
#include <stdint.h>

#include <xen/io/xs_wire.h>

/* A CONTROL command of domain 0's connections: "xenolith-become-domain\0N\0".
 * From the reply on, the connection is domain N's, for good: how the process
 * that runs a guest gets the connection it joins to the guest's ring.  N must
 * have been introduced, and the connection hold no watch and no transaction.  A
 * domain has one such connection: an older one is closed. */
#define XS_CONTROL_BECOME_DOMAIN "xenolith-become-domain"

/* A watch's token leaves room for the longest path beside it in an event. */
#define XS_TOKEN_MAX (XENSTORE_PAYLOAD_MAX - XENSTORE_ABS_PATH_MAX - 2)

#endif
