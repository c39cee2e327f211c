/* SPDX-License-Identifier: MIT */
/* From nothing to a connection on which commands can be sent. */
#ifndef XENOLITH_BLK_NBD_CONNECT_H
#define XENOLITH_BLK_NBD_CONNECT_H

#include "base/err.h"
#include "blk/nbd_target.h"

/* What the server says of the export. */
struct nbd_export {
    uint64_t size_bytes;
    uint16_t flags;             /* NBD_FLAG_... */
    uint32_t preferred_bytes;   /* 0: not said */
    uint32_t max_bytes;         /* of one command's payload, a multiple of the sector */
};

/* Connects and shakes hands, in timeout_ms at most, of which each address has its part (twice
 * that where the server's blocks are larger than a sector).  The socket, which is
 * non-blocking; -ENOENT when the server has no such export, -EOPNOTSUPP when it wants or lacks
 * what this client lacks or wants, -ECONNREFUSED and the like when there is no server,
 * -ETIMEDOUT. */
int nbd_connect(const struct nbd_target *t, int timeout_ms, struct nbd_export *x, struct err *e);

/* Takes leave, as the protocol wants it, and closes fd. */
void nbd_disconnect(int fd);

#endif
