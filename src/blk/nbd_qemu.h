/* SPDX-License-Identifier: MIT */
/* A qemu-nbd of our own, which makes an NBD export of an image in a format that is not ours.
 *
 * A thread keeps it: it starts the program, starts it again should it die, and ends it.  The
 * program gets a SIGTERM from the kernel when that thread ends, and so when this process does,
 * however it does; qemu-nbd then writes back what it has cached of the image and ends.
 *
 * It is handed a socket that listens already, as systemd does it, so that nobody has to wait
 * for one to appear.  The socket's name is gone again before the program runs: who connects
 * does so through a descriptor, and nothing is left behind, nor there to be found by others. */
#ifndef XENOLITH_BLK_NBD_QEMU_H
#define XENOLITH_BLK_NBD_QEMU_H

#include "base/err.h"
#include "base/types.h"
#include "blk/nbd_target.h"

struct nbd_qemu;

struct nbd_qemu_params {
    const char *path;           /* absolute; borrowed until nbd_qemu_stop() */
    const char *format;         /* as QEMU calls it; ditto */
    bool readonly;
    bool discard;
    bool direct;                /* past the page cache */
};

/* Starts it and says in t where it is to be reached.  Whether it can open the image is known
 * when a connection has been made: nbd_qemu_serves() or nbd_qemu_failed() comes next. */
int nbd_qemu_start(const struct nbd_qemu_params *p, struct nbd_target *t, struct nbd_qemu **out,
                   struct err *e);
/* It serves: from now on it is started again if it dies. */
void nbd_qemu_serves(struct nbd_qemu *q);
/* How often it has been started again.  What one has lost is told by a number that has grown
 * between two connections.  Any thread. */
unsigned nbd_qemu_deaths(const struct nbd_qemu *q);
/* It does not: stops it and says in e why, where that is known. */
void nbd_qemu_failed(struct nbd_qemu *q, struct err *e);
/* Ends it; waits until the image is written and closed.  No connection is to be open. */
void nbd_qemu_stop(struct nbd_qemu *q);

#endif
