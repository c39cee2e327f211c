/* SPDX-License-Identifier: MIT */
/* A process gives up what it does not need to serve a disk that it has open: whoever takes it
 * over through a hole in a driver or a face gets the guest and the disk it had before, and
 * nothing of the host's.
 *
 * In this order: limits; no new privileges; namespaces of its own (mount, with an empty root;
 * network, IPC, UTS, cgroup; user, where they take one), as far as the host allows; nobody's
 * identity, if it was root's; no capabilities; a filter of system calls. */
#ifndef XENOLITH_VM_SANDBOX_H
#define XENOLITH_VM_SANDBOX_H

#include <stddef.h>

#include "base/err.h"

/* For a process with one thread.  how is filled with what was done, for the log.  0, or -errno
 * with e: what every Linux can do was refused. */
int sandbox_enter(char *how, size_t size, struct err *e);
/* Afterwards, in all threads: none will be started any more, no io_uring made. */
int sandbox_seal(struct err *e);

#endif
