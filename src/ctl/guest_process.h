/* SPDX-License-Identifier: MIT */
/* The process that is a guest: from configuration to running, through reboots,
 * to the end. */
#ifndef XENOLITH_CTL_GUEST_PROCESS_H
#define XENOLITH_CTL_GUEST_PROCESS_H

#include "base/err.h"

struct guest_config;

/* How it ended, as an exit status; xenolith(1) promises these to scripts. */
enum guest_exit {
    GUEST_EXIT_CLEAN = 0,       /* powered off, or rebooted with on_reboot="destroy" */
    GUEST_EXIT_NOT_STARTED = 3, /* also: a reboot that failed */
    GUEST_EXIT_CRASHED = 10,
    GUEST_EXIT_WATCHDOG = 11,
    GUEST_EXIT_HOST = 12,       /* the host's failure */
    GUEST_EXIT_DESTROYED = 13,
};

struct guest_process_params {
    const struct guest_config *config;
    bool paused;                /* leave it so at first */
    bool preserve;              /* no on_... action: what stops stays until destroyed */
    int console_fd;             /* a socket to attach to the console of this guest and
                                 * of those that follow it by reboot; -1: none */
    /* Called once: the guest runs as domid (e is NULL), or why it does not. */
    void (*started)(void *arg, unsigned domid, const struct err *e);
    void *arg;
};

/* Runs until the guest has ended; returns an enum guest_exit.  The process must
 * have one thread.  SIGTERM, SIGINT and SIGHUP ask the guest to shut down, a
 * second one destroys it.  Whatever happens, nothing of the guest is left. */
int guest_process_run(const struct guest_process_params *p);

#endif
