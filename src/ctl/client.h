/* SPDX-License-Identifier: MIT */
/* The other end of the control socket, for commands.  Blocking, with a limit on
 * silence. */
#ifndef XENOLITH_CTL_CLIENT_H
#define XENOLITH_CTL_CLIENT_H

#include <jansson.h>

#include "ctl/registry.h"

#define CTL_TIMEOUT_MS  10000
#define CTL_FOREVER     0
/* for the guest's patience with a disk that is to go (ctl/server.h), and more */
#define CTL_DETACH_TIMEOUT_MS 30000

/* Sends command to the guest and waits for the reply.  Takes arguments (NULL:
 * none).  result may be NULL; *result is the caller's.  -ENOENT or -ECONNREFUSED:
 * the guest does not listen (yet, or any more); -ETIMEDOUT; -ECONNRESET: it ended
 * meanwhile; else what the guest's process answered. */
int ctl_call(struct registry *r, unsigned domid, const char *command, json_t *arguments,
             unsigned timeout_ms, json_t **result, struct err *e);

/* The same, keeping the connection: its descriptor, nothing read beyond the
 * reply; or -errno. */
int ctl_open(struct registry *r, unsigned domid, const char *command, struct err *e);

/* Returns when the other side has closed (0) or after timeout_ms of silence. */
int ctl_wait_closed(int fd, unsigned timeout_ms);

struct ctl_guest_state {
    struct registry_guest who;
    bool answers;           /* false while it is being built: the rest is 0 */
    bool running, blocked, paused, shutdown, crashed, dying;
    int why;                /* SHUTDOWN_*, while shutdown or crashed */
    uint64_t memory_bytes;
    unsigned vcpus_online, vcpus_max;
    uint64_t cpu_time_ns;
};

/* Asks the guest for its state.  -ENOENT: it has gone meanwhile. */
int ctl_guest_state_get(struct registry *r, const struct registry_guest *who,
                        struct ctl_guest_state *out, struct err *e);

/* Ends the guest and waits until it is gone; a process that does not answer is
 * killed. */
int ctl_guest_destroy(struct registry *r, unsigned domid, struct err *e);

#endif
