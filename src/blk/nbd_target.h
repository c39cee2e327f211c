/* SPDX-License-Identifier: MIT */
/* Where an NBD export is to be found. */
#ifndef XENOLITH_BLK_NBD_TARGET_H
#define XENOLITH_BLK_NBD_TARGET_H

#include <sys/socket.h>

#include "base/err.h"
#include "blk/nbd_wire.h"

#define NBD_ADDRESSES_MAX 8u

struct nbd_address {
    struct sockaddr_storage sa;
    socklen_t length_bytes;
};

struct nbd_target {
    struct nbd_address address[NBD_ADDRESSES_MAX];  /* to be tried in this order */
    unsigned nr_addresses;
    char export[NBD_STRING_MAX + 1];
};

/* Reads a URI as in https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md:
 *     nbd://HOST[:PORT][/EXPORT]    nbd+unix:///[EXPORT]?socket=PATH
 * A host's name is looked up here, once.  0; -EINVAL; -EOPNOTSUPP for TLS; -EHOSTUNREACH for
 * a host that nobody knows. */
int nbd_target_parse(const char *uri, struct nbd_target *t, struct err *e);

/* The default export at the Unix socket; -ENAMETOOLONG. */
int nbd_target_unix(const char *path, struct nbd_target *t, struct err *e);

#endif
