/* SPDX-License-Identifier: MIT */
/* Starting the process that is a guest. */
#ifndef XENOLITH_CTL_LAUNCH_H
#define XENOLITH_CTL_LAUNCH_H

#include <sys/types.h>

#include "ctl/guest_config.h"
#include "ctl/guest_process.h"

struct launch {
    const struct guest_config *config;
    bool paused;
    bool preserve;
};

/* In the background: the process belongs to nobody, its messages go to the
 * guest's log.  Returns when the guest runs (*domid) or has failed (e). */
int launch_daemon(const struct launch *l, unsigned *domid, struct err *e);

/* As a child that ends when the caller ends, messages on standard error.  The
 * caller passes *pid to launch_wait().  console_fd, when not NULL, becomes a
 * non-blocking socket with the console of the guest and those that follow it. */
int launch_child(const struct launch *l, int *console_fd, pid_t *pid, unsigned *domid,
                 struct err *e);

/* Waits for the child: its enum guest_exit. */
int launch_wait(pid_t pid);

#endif
