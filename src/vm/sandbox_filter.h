/* SPDX-License-Identifier: MIT */
/* The system calls of a process that serves a disk it has open. */
#ifndef XENOLITH_VM_SANDBOX_FILTER_H
#define XENOLITH_VM_SANDBOX_FILTER_H

#include "base/err.h"

enum sandbox_filter {
    SANDBOX_FILTER_BEGIN,       /* threads and rings are yet to be made */
    SANDBOX_FILTER_SERVE,       /* nothing is, any more */
};

/* For all threads, on top of what is there.  Whatever is not allowed ends the process, but for a
 * few calls that a C library tries and can do without. */
int sandbox_filter_set(enum sandbox_filter which, struct err *e);

#endif
